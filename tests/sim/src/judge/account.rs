//! What the engine says of its work, next to what was seen of it.

use super::Judge;
use crate::journal::WorkerNumber;
use crate::promise::Promise;
use crate::recipe::Cookbook;
use crate::seen::Told;
use drakkar_api::Event;
use drakkar_testkit::FakeBroker;
use std::collections::BTreeMap;
use std::time::Duration;

/// Two accounts of one worker: what was seen, and what it told.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) handed_over: usize,
    pub(super) finished: usize,
    pub(super) left: usize,
    pub(super) commits: usize,
    pub(super) commits_failed: usize,
    pub(super) letters: usize,
    pub(super) letters_given_up: usize,
    /// Since when so much is in the worker that no message may be taken, and what of.
    pub(super) full_since: Option<(Duration, &'static str)>,
    /// Since when there are so many runs that a partition with a window may take no other.
    pub(super) crowded_since: Option<Duration>,
    /// Since when what runs is likely to put out so much that no such partition may take more.
    pub(super) heavy_since: Option<Duration>,
    pub(super) told: Books,
}

/// What a worker told.
#[derive(Debug, Default)]
pub(super) struct Books {
    consumed: usize,
    finished: usize,
    left: usize,
    commits: usize,
    commits_failed: usize,
    letters: usize,
    letters_dropped: usize,
    /// How many assignments of a partition were told to have begun and not to be over.
    assigned: BTreeMap<i32, usize>,
}

impl Judge {
    pub(super) fn account(&mut self, worker: WorkerNumber) -> &mut Account {
        self.accounts.entry(worker).or_default()
    }

    pub(super) fn on_told(&mut self, worker: WorkerNumber, told: &Told) {
        match told {
            Told::Broken(reason) => {
                let what = format!("worker {worker} says of itself: {reason}");
                self.blame(Promise::Contract, what);
            }
            Told::Stopped { partition, offset } => self.on_stopped(worker, *partition, *offset),
            Told::Stalled { partition, offset, keeps_ready } => {
                self.count("stalls reported");
                self.check_readiness(worker, *offset, *keeps_ready);
                self.set_stalled(worker, *partition, true);
                self.expect_kill(worker, *partition);
            }
            Told::Recovered { partition } => self.set_stalled(worker, *partition, false),
            _ => self.account(worker).told.add(told),
        }
    }

    /// Nothing is told of a partition that the worker does not have, as nobody would take it back.
    pub(crate) fn hear_of(&mut self, worker: WorkerNumber, partition: i32, event: &Event<'_>) {
        if !self.hears(worker) {
            return;
        }
        let assigned = self.account(worker).told.assigned.entry(partition).or_default();
        match event {
            Event::Assigned { .. } => *assigned += 1,
            _ if *assigned == 0 => {
                let what = format!("worker {worker} tells of a partition that has left: {event:?}");
                self.blame(Promise::Rb2, what);
            }
            Event::Revoked { .. } | Event::Lost { .. } => *assigned -= 1,
            _ => {}
        }
    }

    fn set_stalled(&mut self, worker: WorkerNumber, partition: i32, stalled: bool) {
        let live = self.assignments.values_mut();
        let its = live.filter(|it| it.worker == worker && it.partition == partition);
        if let Some(assignment) = its.filter(|it| it.end.is_none()).last() {
            assignment.stalled = stalled;
        }
    }

    /// Closes the books when everything has ended: the ledger must balance, and of workers that ended
    /// in order the two accounts must agree.
    pub(crate) fn close(&mut self, broker: &FakeBroker, cookbook: &Cookbook, partitions: i32) {
        self.check_broker(broker);
        self.check_ledger(broker, cookbook, partitions);
        let dead = self.dead.clone();
        let mut problems = Vec::new();
        for (worker, account) in self.accounts.iter().filter(|(worker, _)| !dead.contains(worker)) {
            problems.extend(account.problem().map(|problem| format!("worker {worker}: {problem}")));
        }
        for problem in problems {
            self.blame(Promise::Account, problem);
        }
    }

    /// Looks at what the broker has: commits that only rise, whoever made them.
    fn check_broker(&mut self, broker: &FakeBroker) {
        let mut newest = BTreeMap::new();
        for commit in broker.commits() {
            let before = newest.insert(commit.partition.clone(), commit.offset);
            if before.is_some_and(|before| before > commit.offset) {
                let what = format!("{} went back to {}", commit.partition, commit.offset);
                self.blame(Promise::Wm1, what);
            }
        }
    }
}

impl Account {
    /// Returns where the two accounts disagree. What was on its way when an assignment was lost may
    /// have been seen and not told.
    fn problem(&self) -> Option<String> {
        let told = &self.told;
        let pairs = [
            ("messages finished", self.finished == told.finished),
            ("messages consumed", self.handed_over >= told.consumed),
            ("messages left", self.left <= told.left),
            ("ends of consumed messages", told.consumed == told.finished + told.left),
            ("commits", self.commits >= told.commits),
            ("commits that failed", self.commits_failed >= told.commits_failed),
            ("dead letters", self.letters >= told.letters),
            ("dead letters dropped", self.letters_given_up >= told.letters_dropped),
        ];
        let (name, _) = pairs.iter().find(|(_, agrees)| !agrees)?;
        Some(format!("the accounts of {name} disagree: {self:?}"))
    }
}

impl Books {
    fn add(&mut self, told: &Told) {
        match told {
            Told::Consumed { messages, .. } => self.consumed += messages,
            Told::Finished { .. } => self.finished += 1,
            Told::Left { .. } => self.left += 1,
            Told::Committed { .. } => self.commits += 1,
            Told::CommitFailed { .. } => self.commits_failed += 1,
            Told::DeadLettered => self.letters += 1,
            Told::LetterDropped => self.letters_dropped += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use drakkar_api::PartitionId;

    #[test]
    fn what_is_told_of_a_partition_that_has_left_is_blamed() {
        let partition = &PartitionId::new("in", 3);
        let depth = Event::Depth { partition, queued: 0, uncommitted: 0 };
        let assigned = Event::Assigned { partition };
        let lost = Event::Lost { partition };
        let is_blamed = |events: &[&Event<'_>]| {
            let mut judge = Judge::new(&Scenario::draw(1));
            events.iter().for_each(|event| judge.hear_of(1, 3, event));
            judge.breach().is_some()
        };
        assert!(!is_blamed(&[&assigned, &depth, &lost, &assigned, &depth, &lost]));
        assert!(!is_blamed(&[&assigned, &assigned, &lost, &depth]), "it came back before");
        assert!(is_blamed(&[&assigned, &lost, &depth]));
        assert!(is_blamed(&[&depth]));
        assert!(is_blamed(&[&assigned, &lost, &lost]));
    }
}
