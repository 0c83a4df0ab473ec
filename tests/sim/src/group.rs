//! The consumer group: who has which partition, and what befalls the members.

use crate::journal::WorkerNumber;
use crate::judge::Judge;
use crate::recipe::size;
use crate::scenario::{Scenario, forbid_stops, may_stop};
use crate::seen::Seen;
use crate::text::message_value;
use crate::traced_source::blank_headers;
use crate::worker::{Surroundings, Worker, partition_id};
use drakkar_api::PartitionId;
use drakkar_testkit::Random;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The longest pause between two steps of the script.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// How long everything may take to be done once the faults have ended, in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);

/// The members of the group, each there or not, and the script that moves them.
pub(crate) struct Group {
    around: Surroundings,
    random: Random,
    members: Vec<Option<Worker>>,
    workers_started: WorkerNumber,
    /// Revokes that nobody waits for.
    revokes: JoinSet<()>,
}

impl Group {
    pub(crate) async fn new(around: Surroundings) -> Self {
        let random = Random::fork(around.scenario.seed, "group");
        let members = (0..around.scenario.workers).map(|_| None).collect();
        let mut group =
            Self { around, random, members, workers_started: 0, revokes: JoinSet::new() };
        group.produce(group.around.scenario.messages);
        for member in 0..group.members.len() {
            group.start(member).await;
        }
        group
    }

    /// Does what the seed says, with faults.
    pub(crate) async fn play(&mut self) {
        self.assign_free(1000);
        for _ in 0..self.around.scenario.steps {
            let pause = self.random.duration(PAUSE_MAX);
            tokio::time::sleep(pause).await;
            if self.around.journal.breach().is_some() {
                return;
            }
            self.step().await;
        }
    }

    /// Ends the faults, and waits until everything is done.
    pub(crate) async fn recover(&mut self) {
        self.around.weather.clear_up();
        self.note("the faults end");
        while self.revokes.join_next().await.is_some() {}
        self.forbid_stops().await;
        for member in 0..self.members.len() {
            if self.members[member].is_none() {
                self.start(member).await;
            }
        }
        self.members.iter().flatten().for_each(Worker::heal);
        self.assign_free(1000);
        let began = tokio::time::Instant::now();
        while !self.is_done() && self.around.journal.breach().is_none() {
            if began.elapsed() > PATIENCE {
                let broker = self.around.broker.clone();
                let last = move |number| last_position(&broker, number);
                self.around.journal.ask(|judge| judge.explain_stall(&last));
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Shuts all members down in order.
    pub(crate) async fn end(&mut self) {
        for worker in self.members.iter_mut().filter_map(Option::take) {
            worker.shut_down().await;
        }
    }

    /// What does not pass with the faults would stop every worker again: somebody changes the
    /// settings.
    async fn forbid_stops(&mut self) {
        let mut scenario = Scenario::clone(&self.around.scenario);
        if !may_stop(&mut scenario.config) {
            return;
        }
        self.end().await;
        forbid_stops(&mut scenario.config);
        self.around.scenario = Arc::new(scenario);
        self.around.journal.ask(Judge::forbid_stops);
    }

    /// Waits for those that a failure stops, or not yet.
    async fn bury_stopped(&mut self) {
        for member in 0..self.members.len() {
            let stops = self.members[member].as_ref().is_some_and(Worker::is_stopping);
            if stops
                && self.random.chance(700)
                && let Some(worker) = self.members[member].take()
            {
                worker.stopped().await;
            }
        }
    }

    fn is_done(&self) -> bool {
        let broker = &self.around.broker;
        (0..self.around.scenario.partitions).all(|number| {
            let committed = broker.committed(&partition_id(number)).map(|position| position.get());
            committed == last_position(broker, number)
        })
    }

    async fn step(&mut self) {
        self.bury_stopped().await;
        let member = size(self.random.below(self.members.len() as u64));
        if self.members[member].is_none() {
            self.start(member).await;
            self.assign_free(700);
            return;
        }
        match self.random.below(16) {
            0..=3 => self.revoke(member, Wait::ForAnswer).await,
            4 | 5 => self.revoke(member, Wait::No).await,
            6 | 7 => self.lose(member),
            8 => self.shut_down(member).await,
            9 => self.crash(member),
            10 => self.fail_source(member).await,
            11 | 12 => self.produce(self.around.scenario.messages_later / 3),
            13 => self.repeat(member),
            _ => {}
        }
        self.assign_free(600);
    }

    async fn start(&mut self, member: usize) {
        self.workers_started += 1;
        self.members[member] = Some(Worker::start(&self.around, self.workers_started).await);
    }

    /// Appends messages to every partition, with gaps.
    fn produce(&mut self, count: u64) {
        let scenario = &self.around.scenario;
        for number in 0..scenario.partitions {
            let id = partition_id(number);
            for _ in 0..count {
                if self.random.chance(scenario.gaps) {
                    self.around.broker.leave_gap(&id, self.random.within(1..=4));
                }
                let offset = drakkar_api::Offset::new(self.around.broker.end(&id).get());
                let value = message_value(&scenario.cookbook.of(number, offset), number, offset);
                self.around.broker.append(&id, None, value, blank_headers());
            }
        }
    }

    /// Gives partitions that nobody has to members that are there, each with this chance.
    fn assign_free(&mut self, per_mille: u16) {
        let free = (0..self.around.scenario.partitions).map(partition_id);
        let free: Vec<_> = free.filter(|id| self.owner(id).is_none()).collect();
        for id in free {
            let takes = |at: &usize| self.members[*at].as_ref().is_some_and(|it| !it.is_stopping());
            let present: Vec<_> = (0..self.members.len()).filter(takes).collect();
            let member = self.random.pick(&present).copied();
            let wanted = self.random.chance(per_mille);
            if let Some(worker) = member.filter(|_| wanted).and_then(|at| self.members[at].as_ref())
            {
                worker.source.assign(&[id]);
            }
        }
    }

    fn owner(&self, id: &PartitionId) -> Option<&Worker> {
        self.members.iter().flatten().find(|worker| worker.source.epoch(id).is_some())
    }

    /// Some of the partitions of a member.
    fn some_of(&mut self, member: usize) -> Vec<PartitionId> {
        let all = (0..self.around.scenario.partitions).map(partition_id);
        let Some(worker) = &self.members[member] else { return Vec::new() };
        let owned: Vec<_> = all.filter(|id| worker.source.epoch(id).is_some()).collect();
        owned.into_iter().filter(|_| self.random.chance(600)).collect()
    }

    async fn revoke(&mut self, member: usize, wait: Wait) {
        let partitions = self.some_of(member);
        let Some(worker) = self.members[member].as_ref().filter(|_| !partitions.is_empty()) else {
            return;
        };
        let (source, number) = (worker.source.clone(), worker.number);
        let journal = self.around.journal.clone();
        let revoke = async move {
            if !source.revoke(&partitions).await && !source.has_ended() {
                journal.see(number, Seen::DrainTimedOut);
            }
        };
        match wait {
            Wait::ForAnswer => revoke.await,
            Wait::No => drop(self.revokes.spawn(revoke)),
        }
    }

    fn lose(&mut self, member: usize) {
        let partitions = self.some_of(member);
        if let Some(worker) = &self.members[member] {
            worker.source.lose(&partitions);
        }
    }

    /// The source hands over again what it has handed over last.
    fn repeat(&mut self, member: usize) {
        let partitions = self.some_of(member);
        if let Some(worker) = &self.members[member] {
            for partition in &partitions {
                worker.source.repeat(partition);
            }
        }
    }

    async fn shut_down(&mut self, member: usize) {
        if let Some(worker) = self.members[member].take() {
            worker.shut_down().await;
        }
    }

    fn crash(&mut self, member: usize) {
        if let Some(worker) = self.members[member].take() {
            worker.crash();
        }
    }

    async fn fail_source(&mut self, member: usize) {
        // Rare, as it ends the worker.
        if self.random.chance(400)
            && let Some(worker) = self.members[member].take()
        {
            worker.fail_source().await;
        }
    }

    fn note(&self, text: &str) {
        self.around.journal.see(0, Seen::Note(text.to_owned()));
    }
}

/// Whether the script goes on while a revoke is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    ForAnswer,
    No,
}

/// The position after the last message of a partition, which is where its commits must end: gaps
/// behind it are never read.
fn last_position(broker: &drakkar_testkit::FakeBroker, number: i32) -> Option<i64> {
    let messages = broker.messages(&partition_id(number));
    messages.last().map(|message| message.offset.next().get())
}
