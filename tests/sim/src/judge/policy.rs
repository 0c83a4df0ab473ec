//! What the settings say of failures: attempts, what follows them, and what a stall is answered by
//! (promises DL-1, WM-1, RB-1, FT-1).

use super::assignment::{Assignment, Doom, HookState, Message, RunPhase, Task, TaskPhase};
use super::bounds::STALL_SLACK;
use super::{Judge, LOOK, SLACK};
use crate::journal::WorkerNumber;
use crate::promise::Promise;
use crate::scenario::forbid_stops;
use crate::seen::Number;
use drakkar_api::{Epoch, Hook, Offset, TaskOutcome, WindowId};
use drakkar_core::{FailureAction, FailurePolicy, ParsePolicy, StallResponse};
use std::time::Duration;

impl Judge {
    /// Returns whether a failure stops this worker.
    pub(crate) fn is_stopping(&self, worker: WorkerNumber) -> bool {
        self.stopping.contains(&worker)
    }

    /// From here on no worker begins that a failure stops.
    pub(crate) fn forbid_stops(&mut self) {
        forbid_stops(&mut self.config);
    }

    /// `on_error` left it to the settings what follows a failed attempt.
    pub(super) fn follow_policy(&mut self, epoch: Epoch, number: Number) {
        let policies = self.config.on_failure;
        let Some(task) = self.task(epoch, number) else { return };
        let policy = match task.outcome {
            Some(TaskOutcome::Signal(_)) => policies.signal,
            // What is killed because of a stall counts as timed out.
            Some(TaskOutcome::Timeout { .. } | TaskOutcome::Cancelled) => policies.timeout,
            Some(TaskOutcome::SpawnFailure { .. }) => policies.spawn_failure,
            Some(TaskOutcome::OutputOverLimit { .. }) => policies.output_over_limit,
            _ => policies.exit_code,
        };
        if task.errors < policy.attempts_max {
            task.hook_failures = 0;
            return self.count("tasks tried again by the settings");
        }
        match policy.then {
            FailureAction::DeadLetter => self.fail_task(epoch, number, Doom::Task),
            FailureAction::Skip => {
                task.phase = TaskPhase::Skipped;
                self.count("tasks skipped by the settings");
            }
            FailureAction::Stop => {
                let offsets = task.offsets.clone();
                self.count("stops for a task");
                self.halt(epoch, &offsets);
            }
        }
    }

    pub(super) fn on_task_hook_failed(&mut self, epoch: Epoch, number: Number, hook: Hook) {
        let policy = self.config.on_failure.hook_error;
        let Some(task) = self.task(epoch, number) else { return };
        task.hook_failures += 1;
        let (failures, offsets) = (task.hook_failures, task.offsets.clone());
        match self.hook_failed(policy, failures) {
            None => {}
            Some(FailureAction::DeadLetter) => self.fail_task(epoch, number, Doom::Hook(hook)),
            Some(FailureAction::Skip) => {
                if let Some(task) = self.task(epoch, number) {
                    task.phase = TaskPhase::Skipped;
                }
            }
            Some(FailureAction::Stop) => self.halt(epoch, &offsets),
        }
    }

    pub(super) fn on_message_hook_failed(&mut self, epoch: Epoch, offset: Offset) {
        let policy = self.config.on_failure.hook_error;
        let Some(message) = self.message(epoch, offset) else { return };
        message.hook_failures += 1;
        let failures = message.hook_failures;
        match self.hook_failed(policy, failures) {
            None => {
                if let Some(message) = self.message(epoch, offset) {
                    message.hook = HookState::NotCalled;
                }
            }
            Some(FailureAction::DeadLetter) => {
                self.doom(epoch, offset, Doom::Hook(Hook::OnMessageComplete));
            }
            Some(FailureAction::Skip) => {}
            Some(FailureAction::Stop) => self.halt(epoch, &[offset]),
        }
    }

    pub(super) fn on_window_hook_failed(&mut self, epoch: Epoch, id: WindowId) {
        let policy = self.config.on_failure.hook_error;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let window = assignment.windows.entry(id).or_default();
        window.hook_failures += 1;
        let (failures, offsets) = (window.hook_failures, window.messages.clone());
        match self.hook_failed(policy, failures) {
            None => {
                let assignment = self.assignments.get_mut(&epoch).expect("looked up above");
                assignment.windows.entry(id).or_default().hook = HookState::NotCalled;
            }
            Some(FailureAction::DeadLetter) => self.doom_window(epoch, id),
            Some(FailureAction::Skip) => {}
            Some(FailureAction::Stop) => {
                self.halt(epoch, &offsets.into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// Returns what follows so many failures of a hook in a row; nothing if it is called again.
    fn hook_failed(&mut self, policy: FailurePolicy, failures: u32) -> Option<FailureAction> {
        if failures < policy.attempts_max {
            self.count("hooks called again by the settings");
            return None;
        }
        match policy.then {
            FailureAction::DeadLetter => {}
            FailureAction::Skip => self.count("failures of hooks skipped by the settings"),
            FailureAction::Stop => self.count("stops for a hook"),
        }
        Some(policy.then)
    }

    /// Every message of a window must go to the dead letters.
    pub(super) fn doom_window(&mut self, epoch: Epoch, id: WindowId) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let window = assignment.windows.get(&id);
        let offsets = window.map(|window| window.messages.clone()).unwrap_or_default();
        for offset in offsets {
            self.doom(epoch, offset, Doom::Hook(Hook::OnWindowComplete));
        }
    }

    /// These messages must not be finished in this assignment.
    fn halt(&mut self, epoch: Epoch, offsets: &[Offset]) {
        let now = self.now;
        for &offset in offsets {
            if let Some(message) = self.message(epoch, offset) {
                message.halted.get_or_insert(now);
            }
        }
    }

    /// Returns whether a message was skipped, because it does not parse or could not be arranged.
    pub(super) fn is_skipped(&self, assignment: &Assignment, message: &Message) -> bool {
        let unparsed =
            self.does_not_parse(message) && self.config.parse_policy() == ParsePolicy::Skip;
        unparsed || self.is_forgone(assignment, message)
    }

    /// The value of a message did not parse, as often as it was tried until now.
    pub(super) fn on_unparsed(&mut self, epoch: Epoch, offset: Offset) {
        let (now, policy) = (self.now, self.config.on_failure.parse_error);
        let Some(message) = self.message(epoch, offset) else { return };
        message.parse_failures += 1;
        let failures = message.parse_failures;
        let before = message.unparsed_at.replace(now);
        if failures == policy.map_or(1, |policy| policy.attempts_max)
            && self.config.parse_policy() == ParsePolicy::DeadLetter
            && let Some(message) = self.message(epoch, offset)
        {
            message.doom.get_or_insert(Doom::Parse);
        }
        let Some(before) = before else { return };
        self.count("values decoded again");
        let is_kept = policy.is_some_and(|policy| {
            let doublings = 1 << (failures - 2).min(16);
            let least =
                policy.backoff.initial.saturating_mul(doublings).min(policy.backoff.max) / 2;
            failures <= policy.attempts_max && now >= before + least
        });
        if !is_kept {
            let what = format!(
                "{offset} of epoch {epoch} was decoded {failures} times, at last {:?} after the time \
                 before, which nobody wanted",
                now - before
            );
            self.blame(Promise::Ft1, what);
        }
    }

    /// Returns whether the value of a message did not parse as often as it was to be tried.
    fn does_not_parse(&self, message: &Message) -> bool {
        let policy = self.config.on_failure.parse_error;
        message.parse_failures >= policy.map_or(1, |policy| policy.attempts_max)
    }

    /// Returns whether a message was skipped because it could not be arranged.
    pub(super) fn is_forgone(&self, assignment: &Assignment, message: &Message) -> bool {
        let policy = self.config.on_failure.arrange_error;
        policy.then == FailureAction::Skip && self.could_not_be_arranged(assignment, message)
    }

    fn could_not_be_arranged(&self, assignment: &Assignment, message: &Message) -> bool {
        let needed = self.config.on_failure.arrange_error.attempts_max;
        message.taken
            && message.arranged.is_none()
            && message.doom.is_none()
            && assignment.arrange_failures >= needed
    }

    /// The engine says that a failure stops its worker.
    pub(super) fn on_stopped(&mut self, worker: WorkerNumber, partition: i32, offset: Offset) {
        let live = self.assignments.iter().filter(|(_, it)| it.end.is_none());
        let mut its = live.filter(|(_, it)| it.worker == worker && it.partition == partition);
        let Some(epoch) = its.next_back().map(|(epoch, _)| *epoch) else { return };
        self.note_stop_in_arrange(epoch, offset);
        let assignment = self.assignments.get_mut(&epoch).expect("found above");
        let first = assignment.stopped_at.map_or(offset, |at| at.min(offset));
        assignment.stopped_at = Some(first);
        if assignment.messages.get(&offset).is_none_or(|message| message.halted.is_none()) {
            let what = format!("epoch {epoch} stops its worker at {offset}, for no failure");
            self.blame(Promise::Ft1, what);
        }
        self.stopping.insert(worker);
        for epoch in self.epochs_of(worker) {
            self.begin_drain(epoch, "shutdowns with work under way");
        }
    }

    /// What cannot be arranged stops the worker only when the engine knows that it cannot.
    fn note_stop_in_arrange(&mut self, epoch: Epoch, offset: Offset) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let Some(message) = assignment.messages.get(&offset) else { return };
        let does_not_parse =
            self.does_not_parse(message) && self.config.parse_policy() == ParsePolicy::Stop;
        let stops = self.config.on_failure.arrange_error.then == FailureAction::Stop;
        let situation = if message.halted.is_some() || !message.taken {
            return;
        } else if does_not_parse {
            "stops for a value that does not parse"
        } else if stops && self.could_not_be_arranged(assignment, message) {
            "stops for what could not be arranged"
        } else {
            return;
        };
        self.count(situation);
        self.halt(epoch, &[offset]);
    }

    /// What stops a worker does so at once. In a drain the answer of a hook may wait.
    pub(super) fn check_stops_come(&mut self, at: Duration) {
        let ignored = self.assignments.iter().find_map(|(epoch, assignment)| {
            let goes_on = assignment.end.is_none() && assignment.drain.is_none();
            let mut messages = assignment.messages.iter().filter(|_| goes_on);
            let is_late = |message: &Message| message.halted.is_some_and(|it| it + SLACK < at);
            messages.find(|(_, message)| is_late(message)).map(|(offset, _)| (*epoch, *offset))
        });
        if let Some((epoch, offset)) = ignored {
            let what = format!("{offset} of epoch {epoch} stops the worker, which goes on");
            self.blame(Promise::Ft1, what);
        }
    }

    /// A stalled partition takes the worker's readiness, or leaves it, as the settings say.
    pub(super) fn check_readiness(
        &mut self,
        worker: WorkerNumber,
        offset: Option<Offset>,
        keeps_ready: bool,
    ) {
        if !keeps_ready {
            self.count("stalls that made a worker unready");
        }
        let may_kill = offset.is_some();
        let is_right = match self.config.stall_response {
            StallResponse::Warn => keeps_ready,
            StallResponse::FailReady => !keeps_ready,
            StallResponse::KillTask => may_kill || !keeps_ready,
        };
        if !is_right {
            let response = self.config.stall_response;
            let what = format!(
                "a stall under {response:?} was reported by worker {worker} with keeps_ready \
                 {keeps_ready}"
            );
            self.blame(Promise::Ft1, what);
        }
    }

    /// A partition is stalled: if the settings want it, what runs for its oldest offset must be killed
    /// when that has not moved for long.
    pub(super) fn expect_kill(&mut self, worker: WorkerNumber, partition: i32) {
        let now = self.now;
        if self.config.stall_response != StallResponse::KillTask {
            return;
        }
        let live = self.assignments.values_mut().filter(|it| it.end.is_none());
        let its = live.filter(|it| it.worker == worker && it.partition == partition);
        let Some(assignment) = its.last() else { return };
        let has_not_moved = assignment.unmoved_since() + self.config.stall_after <= now;
        if has_not_moved && assignment.oldest_runs_since().is_some_and(|it| it + LOOK < now) {
            assignment.kill_due.get_or_insert(now);
        }
    }

    /// Tasks are killed only if the settings want that, and their offset has not moved for long.
    pub(super) fn on_killed(&mut self, epoch: Epoch) {
        self.count("stalls whose tasks were killed");
        let now = self.now;
        self.eased_at = Some(now);
        let is_wanted = self.config.stall_response == StallResponse::KillTask;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let had_its_time = assignment.blocking.is_some()
            && assignment.unmoved_since() + self.config.stall_after <= now;
        assignment.kill_due = None;
        assignment.killed_at = Some(now);
        if !is_wanted || !assignment.stalled || !had_its_time {
            let what = format!("tasks of epoch {epoch} were killed, and nobody wanted that");
            self.blame(Promise::Ft1, what);
        }
    }

    /// What runs for an offset that has not moved for long is killed when that is told, and after that
    /// it is looked for as often as that time passes.
    pub(super) fn check_stalled_tasks_are_killed(&mut self, at: Duration) {
        if self.config.stall_response != StallResponse::KillTask {
            return;
        }
        let limit = self.config.stall_after * 2 + STALL_SLACK + SLACK;
        let spared = self.assignments.iter().find(|(_, assignment)| {
            let goes_on = assignment.end.is_none() && assignment.drain.is_none();
            let is_late = |since: Option<Duration>, limit| since.is_some_and(|it| it + limit < at);
            let runs = assignment.oldest_runs_since();
            let hangs = runs.map(|since| since.max(assignment.unmoved_since()));
            goes_on && (is_late(assignment.kill_due, SLACK) || is_late(hangs, limit))
        });
        if let Some((epoch, _)) = spared {
            let what = format!("epoch {epoch} is stalled by a task that runs, which is not killed");
            self.blame(Promise::Ft1, what);
        }
    }
}

impl Assignment {
    /// Returns since when the oldest unfinished message is that, and nothing was killed for it.
    fn unmoved_since(&self) -> Duration {
        let since = self.blocking.map(|(_, since)| since).max(self.killed_at);
        since.unwrap_or_default()
    }

    /// Returns since when a task runs for the oldest message.
    fn oldest_runs_since(&self) -> Option<Duration> {
        let (oldest, _) = self.oldest?;
        let since = |task: &Task| match task.run {
            RunPhase::Running(since) => {
                (task.phase == TaskPhase::Open && task.offsets.contains(&oldest)).then_some(since)
            }
            _ => None,
        };
        self.tasks.values().filter_map(since).min()
    }

    /// Returns whether a message cannot be finished in this assignment: it stopped the worker, or
    /// one of those did with which it may wait for a window hook.
    pub(super) fn waits_for_next_start(&self, offset: Offset, message: &Message) -> bool {
        let of_halted = |id: WindowId| {
            let Some(window) = self.windows.get(&id) else { return false };
            let Some(first) = self.first_of(window) else { return false };
            let mut all =
                self.messages.range(first..=*window.messages.last().expect("a first one"));
            all.any(|(_, message)| message.halted.is_some())
        };
        let mut windows = self.windows_around(offset).filter(|_| self.drains_whole_windows);
        message.halted.is_some() || windows.any(of_halted)
    }

    /// The windows that a message may be in: `arrange` is not told of those that do not parse, which
    /// are in the same as one of their neighbours.
    fn windows_around(&self, offset: Offset) -> impl Iterator<Item = WindowId> {
        let before = self.messages.range(..=offset).rev().find_map(|(_, message)| message.window);
        let after = self.messages.range(offset..).find_map(|(_, message)| message.window);
        before.into_iter().chain(after)
    }
}
