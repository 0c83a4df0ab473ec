//! The end of messages, and commits (promises DL-1, DL-2, WM-1, WM-2).

use super::assignment::{Assignment, Commits, Doom, HookState, How, Message, Payload, TaskPhase};
use super::{Judge, LOOK, SLACK};
use crate::promise::Promise;
use crate::seen::Number;
use drakkar_api::{CommitOffset, Epoch, Offset, Settlement};
use drakkar_core::SendFailurePolicy;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often it is looked for messages that are held for nothing.
const HELD_CHECK: Duration = Duration::from_millis(500);

/// What a message still needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Its window has to be arranged.
    Tasks,
    /// A task of it is not settled.
    Task(Number),
    /// A hook of its own, or of its window, has not answered.
    Hook,
    /// A payload is in no safe place. It comes from a task, or from such a hook.
    Payload(Number, Source),
    /// It must be in the dead letters.
    Letter(Doom),
    /// It stops the worker: its next owner does it again.
    NextStart,
}

/// Where a payload comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Task,
    Hook,
}

impl Judge {
    /// Returns what the message needs before its offset may be finished, if anything. This is what
    /// DL-1 and DL-2 say.
    pub(super) fn need(&self, assignment: &Assignment, message: &Message) -> Option<Need> {
        let skipped = self.is_skipped(assignment, message);
        let lettered = message.doom == Some(Doom::Parse);
        let arranged = message.arranged.is_some();
        if message.halted.is_some() {
            return Some(Need::NextStart);
        }
        if !arranged && !skipped && !lettered && message.doom.is_none() {
            return Some(Need::Tasks);
        }
        let tasks = message
            .tasks
            .iter()
            .filter_map(|number| assignment.tasks.get(number).map(|task| (*number, task)));
        for (number, task) in tasks {
            if task.phase == TaskPhase::Open {
                return Some(Need::Task(number));
            }
            if let Some(payload) = self.open_payload(&task.payloads) {
                return Some(Need::Payload(payload, Source::Task));
            }
        }
        if self.hooks.message && arranged && message.hook != HookState::Answered {
            return Some(Need::Hook);
        }
        if let Some(payload) = self.open_payload(&message.payloads) {
            return Some(Need::Payload(payload, Source::Hook));
        }
        self.need_of_window(assignment, message).or_else(|| self.need_of_letter(message))
    }

    fn need_of_window(&self, assignment: &Assignment, message: &Message) -> Option<Need> {
        let window = message.window.and_then(|id| assignment.windows.get(&id))?;
        let has_tasks =
            || assignment.tasks.values().any(|task| Some(task.window) == message.window);
        if self.hooks.window && window.hook != HookState::Answered && has_tasks() {
            return Some(Need::Hook);
        }
        let payload = self.open_payload(&window.payloads)?;
        Some(Need::Payload(payload, Source::Hook))
    }

    fn need_of_letter(&self, message: &Message) -> Option<Need> {
        let doom = message.doom?;
        let retries_max = self.config.delivery_retries_max;
        let may_drop = self.config.on_send_failure == SendFailurePolicy::Drop;
        let dropped = may_drop && message.letter.is_given_up(retries_max);
        (!message.letter.is_confirmed() && !dropped).then_some(Need::Letter(doom))
    }

    fn open_payload(&self, payloads: &[Number]) -> Option<Number> {
        payloads
            .iter()
            .copied()
            .find(|number| self.payloads.get(number).is_none_or(|payload| !self.is_safe(payload)))
    }

    /// Returns whether nothing more need be done for a payload.
    fn is_safe(&self, payload: &Payload) -> bool {
        let may_drop = self.config.on_send_failure == SendFailurePolicy::Drop;
        let retries_max = self.config.delivery_retries_max;
        payload.last == Some(crate::seen::Heard::Confirmed)
            || payload.skipped
            || payload.letter.is_confirmed()
            || (may_drop && payload.lettering && payload.letter.is_given_up(retries_max))
    }

    /// Names the promise that is broken when a message is finished in spite of `need`.
    fn promise_of(&self, assignment: &Assignment, message: &Message, need: Need) -> Promise {
        let expired = assignment.drain.is_some_and(|at| at + self.config.drain_timeout <= self.now);
        match need {
            _ if expired => Promise::Rb1,
            _ if self.stale == Some(self.now) => Promise::Rb2,
            Need::Hook | Need::Payload(_, Source::Hook) => Promise::Dl2,
            Need::Tasks | Need::Task(_) | Need::NextStart => Promise::Dl1,
            Need::Payload(number, Source::Task) => {
                let letter = self.payloads.get(&number).map(|payload| payload.letter);
                let held = letter.is_some_and(|letter| letter.offers > 0 && !letter.in_flight);
                if held { Promise::Dl4 } else { Promise::Dl1 }
            }
            Need::Letter(_) if message.letter.offers > 0 && !message.letter.in_flight => {
                Promise::Dl4
            }
            Need::Letter(Doom::Hook(_)) if message.letter.offers == 0 => Promise::Ft1,
            Need::Letter(_) => Promise::Dl1,
        }
    }

    pub(super) fn on_settled(&mut self, epoch: Epoch, offset: Offset, how: Settlement) {
        self.check_not_over(epoch, "the source was told what became of a message");
        match how {
            Settlement::Finished | Settlement::DeadLettered => self.on_finished(epoch, offset, how),
            _ => self.on_left(epoch, offset, how),
        }
        if let Some(message) = self.message(epoch, offset) {
            message.settled = Some(how);
        }
        self.settled_at = Some(self.now);
        self.note_oldest(epoch);
        self.note_progress(epoch);
    }

    fn on_finished(&mut self, epoch: Epoch, offset: Offset, how: Settlement) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let Some(message) = assignment.messages.get(&offset) else { return };
        let need = self.need(assignment, message);
        let lettered = message.letter.is_confirmed();
        let forgone = self.is_forgone(assignment, message);
        let worker = assignment.worker;
        if let Some(need) = need {
            let promise = self.promise_of(assignment, message, need);
            let what = format!("{offset} of epoch {epoch} is finished, but needs {need:?}");
            self.blame(promise, what);
        }
        if (how == Settlement::DeadLettered) != lettered {
            let what = format!(
                "{offset} of epoch {epoch} is {}, and its dead letter {} confirmed",
                how.as_str(),
                if lettered { "is" } else { "is not" },
            );
            self.blame(Promise::Dl4, what);
        }
        if forgone {
            self.count("messages skipped that could not be arranged");
        }
        self.account(worker).finished += 1;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        assignment.commits.finished_since += 1;
    }

    fn on_left(&mut self, epoch: Epoch, offset: Offset, how: Settlement) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let drain = assignment.drain;
        let expired = drain.is_some_and(|since| since + self.config.drain_timeout <= self.now);
        let started = assignment.messages.get(&offset).and_then(|message| message.started);
        let started = started.is_some_and(|at| at + LOOK < self.now);
        let worker = assignment.worker;
        if drain.is_none() && assignment.end.is_none() {
            let what = format!("{offset} of epoch {epoch} is {}, but that one stays", how.as_str());
            self.blame(Promise::Rb3, what);
        }
        if started && how == Settlement::GivenBack && !expired {
            let what = format!("{offset} of epoch {epoch} is given back, but its work had started");
            self.blame(Promise::Rb1, what);
        }
        if how == Settlement::GivenBack {
            self.count("messages given back");
        }
        self.account(worker).left += 1;
    }

    /// Remembers since when there is something to commit.
    fn note_progress(&mut self, epoch: Epoch) {
        let now = self.now;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let position = assignment.finished_position();
        let known = assignment.commits.asked.unwrap_or(assignment.position);
        if position > known {
            assignment.commits.wanting_since.get_or_insert(now);
        }
    }

    pub(super) fn on_commit_asked(&mut self, epoch: Epoch, offset: CommitOffset) {
        let now = self.now;
        self.check_commit_is_ours(epoch, offset);
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let partition = assignment.partition;
        let passed = assignment
            .messages
            .iter()
            .find(|(at, message)| at.next() <= offset && !message.is_finished());
        let passed = passed.map(|(at, _)| *at);
        let commits = &assignment.commits;
        let is_second = commits.is_open;
        let misled = self.was_misled(assignment);
        let too_soon = commits.asked_at.is_some_and(|at| now < at + self.config.commit.interval)
            && commits.finished_since < self.config.commit.offsets_max
            && assignment.drain.is_none();
        let back = self.committed.get(&partition).is_some_and(|committed| offset < *committed);
        if let Some(at) = passed {
            let what =
                format!("the commit of {offset} in epoch {epoch} passes {at}, which is open");
            self.blame(Promise::Wm1, what);
        }
        if back {
            let what = format!("the commit of {offset} in epoch {epoch} goes back");
            self.blame(Promise::Wm1, what);
        }
        if is_second {
            let what = format!("epoch {epoch} has a commit in flight and asks for another");
            self.blame(if misled { Promise::Rb2 } else { Promise::Wm2 }, what);
        }
        if too_soon {
            let what = format!("the commit of {offset} in epoch {epoch} comes before it is due");
            self.blame(Promise::Wm2, what);
        }
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        assignment.commits.asked = Some(offset);
        assignment.commits.asked_at = Some(now);
        assignment.commits.is_open = true;
        assignment.commits.finished_since = 0;
        assignment.commits.wanting_since = None;
        self.note_progress(epoch);
    }

    /// Returns whether an answer for an older assignment came in since a commit of this one was asked
    /// for or became due: it may have been taken for an answer to that.
    fn was_misled(&self, assignment: &Assignment) -> bool {
        let Commits { asked_at, wanting_since, .. } = assignment.commits;
        [asked_at, wanting_since].into_iter().flatten().any(|since| self.stale >= Some(since))
    }

    /// Nothing is committed for an assignment that is over.
    fn check_commit_is_ours(&mut self, epoch: Epoch, offset: CommitOffset) {
        let end = self.assignments.get(&epoch).and_then(|assignment| assignment.end);
        let Some(end) = end.filter(|end| end.at < self.now) else { return };
        let promise = if end.how == How::Lost { Promise::Rb1 } else { Promise::Rb2 };
        self.blame(promise, format!("the commit of {offset} for epoch {epoch}, which is over"));
    }

    pub(super) fn on_commit_answered(
        &mut self,
        epoch: Epoch,
        result: &Result<CommitOffset, String>,
    ) {
        let now = self.now;
        self.count(if result.is_ok() { "commits stored" } else { "commits refused" });
        if self.assignments.get(&epoch).is_some_and(|assignment| assignment.end.is_some()) {
            self.stale = Some(now);
        }
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let worker = assignment.worker;
        let commits = &mut assignment.commits;
        commits.is_open = false;
        commits.answered_at = Some(now);
        commits.failed = result.is_err();
        match result {
            Ok(offset) => {
                let partition = assignment.partition;
                let known = self.committed.entry(partition).or_insert(*offset);
                *known = (*known).max(*offset);
                self.account(worker).commits += 1;
            }
            Err(_) => {
                commits.trouble_in_drain |= assignment.drain.is_some();
                // It is due again after the interval, as if it had never been asked for.
                commits.asked = None;
                commits.wanting_since = None;
                self.account(worker).commits_failed += 1;
                self.note_progress(epoch);
            }
        }
    }

    /// A handler without a window hook has nothing held for one. What looks so at one check only may be
    /// on its way: ends of runs are brought together, and are older than the instant when they arrive.
    pub(super) fn check_nothing_is_held(&mut self, at: Duration) {
        // With a narrow bound of tasks, what is left of a divided window waits for its turn.
        if self.hooks.window || self.has_narrow_bounds || at < self.checked_at + HELD_CHECK {
            return;
        }
        self.checked_at = at;
        let held: BTreeSet<_> =
            self.assignments.iter().flat_map(|entry| self.held(entry)).collect();
        if let Some((epoch, offset)) = held.intersection(&self.suspects).next() {
            let what = format!("{offset} of epoch {epoch} needs nothing more and is not finished");
            self.blame(Promise::Dl2, what);
        }
        self.suspects = held;
    }

    /// Returns the messages of an assignment that need nothing more and are not finished.
    fn held(&self, (epoch, assignment): (&Epoch, &Assignment)) -> Vec<(Epoch, Offset)> {
        // While a window is taken message by message, what is arranged waits for the rest.
        let arranging = assignment.messages.values().any(|message| {
            message.taken && message.settled.is_none() && message.arranged.is_none()
        });
        let open = assignment.end.is_none()
            && assignment.drain.is_none()
            && assignment.knows_no_window_hook
            && !arranging;
        let held = assignment.messages.iter().filter(|(_, message)| {
            open && message.settled.is_none()
                && message.taken
                && self.need(assignment, message).is_none()
        });
        held.map(|(offset, _)| (*epoch, *offset)).collect()
    }

    /// What is finished is committed, and soon.
    pub(super) fn check_commits_come(&mut self, at: Duration) {
        let limit = self.config.commit.interval + SLACK;
        let late = self.assignments.iter().find(|(_, assignment)| {
            let commits = &assignment.commits;
            let since = commits.wanting_since.max(commits.answered_at);
            assignment.end.is_none()
                && assignment.drain.is_none()
                && !commits.is_open
                && commits.wanting_since.is_some()
                && since.is_some_and(|since| since + limit < at)
        });
        if let Some((epoch, assignment)) = late {
            let what = format!(
                "epoch {epoch} has had something to commit since {:?} and does not",
                assignment.commits.wanting_since
            );
            let misled = self.was_misled(assignment);
            self.blame(if misled { Promise::Rb2 } else { Promise::Wm2 }, what);
        }
    }
}
