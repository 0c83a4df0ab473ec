//! Assignments, drains, losses, deaths (promises RB-1 to RB-3).

use super::assignment::{Assignment, End, How, RunPhase};
use super::{Judge, LOOK, SLACK};
use crate::journal::WorkerNumber;
use crate::promise::Promise;
use crate::seen::Delivered;
use drakkar_api::{CommitOffset, Epoch, Offset};
use std::time::Duration;

impl Judge {
    pub(super) fn on_assigned(
        &mut self,
        worker: WorkerNumber,
        epoch: Epoch,
        partition: i32,
        position: CommitOffset,
    ) {
        self.count("assignments");
        match self.last_owner.insert(partition, worker) {
            Some(last) if last == worker => self.count("reassignments to the same worker"),
            Some(_) => self.count("reassignments to another worker"),
            None => {}
        }
        self.assignments.insert(epoch, Assignment::new(worker, partition, position));
    }

    pub(super) fn on_handed_over(
        &mut self,
        worker: WorkerNumber,
        epoch: Epoch,
        messages: &[Delivered],
    ) {
        self.check_flow(worker, epoch);
        self.account(worker).handed_over += messages.len();
        let partition = self.assignments[&epoch].partition;
        for message in messages {
            if !self.handed_over.insert((partition, message.offset)) {
                self.count("messages handed over again");
            }
            let assignment = self.assignments.get_mut(&epoch).expect("it was assigned");
            assignment.messages.insert(message.offset, super::assignment::Message::new(*message));
        }
        self.note_oldest(epoch);
        self.check_buffer(epoch);
    }

    pub(super) fn on_revoke(&mut self, worker: WorkerNumber, epochs: &[Epoch]) {
        let stays = |(epoch, assignment): &(&Epoch, &Assignment)| {
            assignment.worker == worker
                && assignment.end.is_none()
                && assignment.drain.is_none()
                && !epochs.contains(epoch)
        };
        if self.assignments.iter().any(|entry| stays(&entry)) {
            self.count("revokes while another partition stays");
        }
        for &epoch in epochs {
            self.count("revokes");
            self.begin_drain(epoch, "revokes with work under way");
        }
    }

    pub(super) fn on_shutdown(&mut self, worker: WorkerNumber) {
        self.count("shutdowns");
        for epoch in self.epochs_of(worker) {
            self.begin_drain(epoch, "shutdowns with work under way");
        }
    }

    pub(super) fn begin_drain(&mut self, epoch: Epoch, situation: &'static str) {
        let (now, window_hook) = (self.now, self.hooks.window);
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        if assignment.drain.is_none() {
            assignment.drain = Some(now);
            // Until the engine has learnt that there is no hook, windows hang together for it.
            assignment.drains_whole_windows = window_hook || !assignment.knows_no_window_hook;
        }
        if assignment.has_work() {
            self.count(situation);
        }
    }

    /// Everything that a worker had is drained, or so it says.
    pub(super) fn on_source_closed(&mut self, worker: WorkerNumber) {
        let epochs = self.epochs_of(worker);
        self.on_drained(&epochs);
    }

    pub(super) fn on_drained(&mut self, epochs: &[Epoch]) {
        for &epoch in epochs {
            self.check_drain(epoch);
            self.finish(epoch, How::Drained);
        }
    }

    pub(super) fn on_lost(&mut self, epoch: Epoch) {
        self.count("partitions lost");
        if self.assignments.get(&epoch).is_some_and(Assignment::has_runs) {
            self.count("partitions lost with runs under way");
        }
        self.finish(epoch, How::Lost);
    }

    pub(super) fn on_source_failed(&mut self, worker: WorkerNumber) {
        self.count("failed sources");
        for epoch in self.epochs_of(worker) {
            self.finish(epoch, How::Lost);
        }
    }

    pub(super) fn on_crashed(&mut self, worker: WorkerNumber) {
        self.count("crashes");
        for epoch in self.epochs_of(worker) {
            if self.assignments[&epoch].has_work() {
                self.count("crashes with work under way");
            }
            self.finish(epoch, How::Crashed);
        }
        self.calls.retain(|(of, _, _), _| *of != worker);
        self.dead.insert(worker);
    }

    /// The assignments of a worker that have not ended.
    pub(super) fn epochs_of(&self, worker: WorkerNumber) -> Vec<Epoch> {
        let all = self.assignments.iter();
        let its = all.filter(|(_, it)| it.worker == worker && it.end.is_none());
        its.map(|(epoch, _)| *epoch).collect()
    }

    fn finish(&mut self, epoch: Epoch, how: How) {
        let at = self.now;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        if assignment.end.is_some() {
            return;
        }
        assignment.end = Some(End { at, how });
        if assignment.commits.is_open {
            self.count("commits in flight at the end of an assignment");
        }
    }

    /// Looks at an assignment at the moment when the engine says that it is drained.
    fn check_drain(&mut self, epoch: Epoch) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let Some(since) = assignment.drain.filter(|_| assignment.end.is_none()) else { return };
        let lasted = self.now - since;
        let expired = lasted >= self.config.drain_timeout;
        let position = assignment.finished_position();
        let committed = self.committed.get(&assignment.partition).copied();
        // The last commit is waited for, within a grace; an answer at the instant when that ends may be
        // too late.
        let waited = lasted + SLACK >= self.config.drain_timeout + drain_grace();
        let unanswered =
            assignment.commits.is_open || assignment.commits.answered_at == Some(self.now);
        let trouble = assignment.commits.trouble_in_drain || (unanswered && waited);
        let left_behind = assignment.messages.iter().find(|(offset, message)| {
            let is_before_stop = assignment.stopped_at.is_some_and(|at| **offset < at);
            message.settled.is_none_or(|how| !is_end(how))
                && !assignment.waits_for_next_start(**offset, message)
                && (is_before_stop || message.started.is_some_and(|at| at + LOOK < self.now))
        });
        let left_behind = left_behind.map(|(offset, _)| *offset);
        // What is tried again only after the deadline is not waited for.
        let comes_too_late =
            lasted + LONGEST_RETRY >= self.config.drain_timeout && !assignment.has_runs();
        let limit = self.config.drain_timeout + drain_grace() + SLACK;
        let (partition, start) = (assignment.partition, assignment.position);
        if expired {
            self.count("drains beyond their deadline");
        }
        if lasted > limit {
            self.blame(Promise::Rb1, format!("the drain of epoch {epoch} took {lasted:?}"));
        }
        if position > start && committed.is_none_or(|it| it < position) && !trouble {
            let what = format!(
                "epoch {epoch} of partition {partition} was drained, everything before {position} \
                 is finished, and {committed:?} is committed"
            );
            self.blame(Promise::Rb1, what);
        }
        if comes_too_late && left_behind.is_some() && !expired {
            self.count("drains cut short by a late retry");
        }
        if let Some(offset) = left_behind.filter(|_| !expired && !comes_too_late) {
            let what = format!("epoch {epoch} was drained, but {offset} had to be done and is not");
            self.blame(Promise::Rb1, what);
        }
    }

    /// A run began: not after the end of its assignment, and in a drain only if it must be.
    pub(super) fn check_run_may_start(&mut self, epoch: Epoch, first: Option<Offset>) {
        if self.is_over(epoch) {
            let what = format!("a run of epoch {epoch} started after the end of that assignment");
            return self.blame(Promise::Rb1, what);
        }
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let Some(since) = assignment.drain.filter(|since| *since < self.now) else { return };
        let frontier = assignment.frontier(assignment.drains_whole_windows);
        if first > frontier {
            let what = format!(
                "a run for {first:?} started {:?} after the drain of epoch {epoch} began, though \
                 nothing beyond {frontier:?} had started",
                self.now - since
            );
            self.blame(Promise::Rb1, what);
        }
    }

    /// Something about work was done for an assignment: not after its end.
    pub(super) fn check_not_over(&mut self, epoch: Epoch, what: &str) {
        if self.is_over(epoch) {
            self.blame(Promise::Rb2, format!("{what} for epoch {epoch}, which is over"));
        }
    }

    /// At the end of an instant no partition has messages in its buffer of which it could make a
    /// window, and does not: not while others drain, nor at any other time.
    pub(super) fn check_work_goes_on(&mut self) {
        // Narrow bounds of bytes and tasks are reasons to wait that cannot be seen from outside.
        if self.has_narrow_bounds {
            return;
        }
        let idle = self.assignments.iter().find(|(_, assignment)| {
            assignment.end.is_none() && assignment.drain.is_none() && self.could_go_on(assignment)
        });
        let Some((epoch, assignment)) = idle else { return };
        let others_drain = self.assignments.values().any(|other| {
            other.worker == assignment.worker && other.end.is_none() && other.drain.is_some()
        });
        let promise = if others_drain { Promise::Rb3 } else { Promise::Ft1 };
        let what = format!("epoch {epoch} has messages and could arrange them, and does not");
        self.blame(promise, what);
    }

    fn could_go_on(&self, assignment: &Assignment) -> bool {
        let open = || assignment.messages.values().filter(|message| message.settled.is_none());
        if !open().any(|message| !message.taken) {
            return false;
        }
        // What is taken and has no tasks yet is being arranged, or on its way to the dead letters.
        let arranging = open().any(|message| message.taken && message.arranged.is_none());
        let windows = assignment.windows.values().filter(|window| {
            let is_open = |offset| {
                let message = assignment.messages.get(offset);
                message.is_some_and(|message| message.settled.is_none())
            };
            window.messages.iter().any(is_open)
        });
        let taken = assignment.messages.values().filter(|message| message.taken);
        let ahead = taken.skip_while(|message| message.is_finished()).count();
        let windows = windows.count();
        !arranging
            && windows < self.config.open_windows_max
            && (windows == 0 || !self.may_be_crowded(assignment.worker))
            && ahead < self.config.ahead_max
    }

    /// What ran for an assignment that is over must be gone.
    pub(super) fn check_ended(&mut self, at: Duration) {
        let mut culprit = None;
        for (epoch, assignment) in &mut self.assignments {
            let Some(end) = assignment.end.filter(|end| end.at < at) else { continue };
            if assignment.end_checked {
                continue;
            }
            assignment.end_checked = true;
            if end.how != How::Crashed && assignment.has_runs() {
                culprit.get_or_insert(*epoch);
            }
        }
        if let Some(epoch) = culprit {
            let what = format!("a run of epoch {epoch} goes on after the end of that assignment");
            self.blame(Promise::Rb1, what);
        }
    }
}

/// Returns whether a message of which this was said is at its end here.
fn is_end(how: drakkar_api::Settlement) -> bool {
    use drakkar_api::Settlement;
    matches!(how, Settlement::Finished | Settlement::DeadLettered)
}

/// The longest wait before a task or a hook is tried again, of all that scenarios and handlers draw.
const LONGEST_RETRY: Duration = Duration::from_millis(2300);

/// How long the engine waits for the last commit of a drain whose deadline has passed.
fn drain_grace() -> Duration {
    Duration::from_secs(5)
}

impl RunPhase {
    /// Returns whether the executor has it, or the engine has not heard of its end.
    pub(super) fn is_with_executor(self) -> bool {
        self != Self::None
    }
}
