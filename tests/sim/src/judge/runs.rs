//! Runs of tasks, as the executor saw them.

use super::Judge;
use super::assignment::{RunPhase, TaskPhase};
use crate::promise::Promise;
use crate::seen::Number;
use drakkar_api::{Epoch, TaskOutcome};

impl Judge {
    pub(super) fn on_submitted(&mut self, epoch: Epoch, number: Number) {
        self.check_not_over(epoch, "a run was submitted");
        match self.task(epoch, number) {
            Some(task) => task.run = RunPhase::Waiting,
            None => self.blame(Promise::Dl1, format!("a run of task {number}, which nobody wants")),
        }
    }

    pub(super) fn on_cancelled(&mut self, epoch: Epoch, waiting: Option<usize>) {
        if waiting.is_some() {
            return self.count("runs withdrawn");
        }
        self.eased_at = Some(self.now);
        // Of all that was in it nothing counts any more.
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.fenced = true;
        }
    }

    pub(super) fn on_run_started(&mut self, epoch: Epoch, number: Number) {
        let first = self.task(epoch, number).and_then(|task| task.first());
        self.check_run_may_start(epoch, first);
        let now = self.now;
        let Some(task) = self.task(epoch, number) else { return };
        task.run = RunPhase::Running(now);
        let offsets = task.offsets.clone();
        for offset in offsets {
            self.note_started(epoch, offset);
        }
    }

    pub(super) fn on_run_ended(&mut self, epoch: Epoch, number: Number, outcome: &TaskOutcome) {
        match outcome {
            TaskOutcome::Success => {}
            TaskOutcome::Timeout { .. } => self.count("runs beyond their deadline"),
            TaskOutcome::Cancelled => {}
            _ => self.count("runs that failed"),
        }
        let Some(task) = self.task(epoch, number) else { return };
        let ran = matches!(task.run, RunPhase::Running(_));
        task.run = RunPhase::Unreported;
        if ran && *outcome == TaskOutcome::Cancelled {
            self.count("runs cancelled while they ran");
        }
    }

    pub(super) fn on_run_reported(&mut self, epoch: Epoch, number: Number, outcome: &TaskOutcome) {
        self.eased_at = Some(self.now);
        let over = self.is_over(epoch);
        if over {
            self.count("reports after the end of their assignment");
        }
        self.note_output(epoch, outcome.is_success());
        let succeeds = outcome.is_success() && !self.hooks.task;
        let Some(task) = self.task(epoch, number) else { return };
        task.run = RunPhase::None;
        task.hook_failures = 0;
        task.outcome = Some(outcome.clone());
        if succeeds && !over && task.phase == TaskPhase::Open {
            task.phase = TaskPhase::Succeeded;
        }
    }

    pub(super) fn note_started(&mut self, epoch: Epoch, offset: drakkar_api::Offset) {
        let now = self.now;
        if let Some(message) = self.message(epoch, offset) {
            message.started.get_or_insert(now);
        }
    }

    pub(super) fn task(
        &mut self,
        epoch: Epoch,
        number: Number,
    ) -> Option<&mut super::assignment::Task> {
        self.assignments.get_mut(&epoch)?.tasks.get_mut(&number)
    }
}
