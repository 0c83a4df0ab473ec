//! Hooks: called for work that is there, and what follows from their answers.

use super::Judge;
use super::assignment::{Doom, HookState, Origin, Owner, Payload, Task, TaskPhase};
use crate::promise::Promise;
use crate::seen::{About, Answered, Counts, Number, Planned};
use drakkar_api::{Epoch, Hook, Offset, WindowId};

impl Judge {
    pub(super) fn on_hook_called(&mut self, epoch: Epoch, about: &About) {
        match about {
            About::TaskComplete(_) => self.check_not_over(epoch, "on_task_complete was called"),
            About::Error(_) => {
                self.check_not_over(epoch, "on_error was called");
                self.note_output(epoch, false);
            }
            About::Message { offset, group } => {
                self.check_not_over(epoch, "on_message_complete was called");
                self.on_message_hook_called(epoch, *offset, *group);
            }
            About::Window { window, offsets, results } => {
                self.check_not_over(epoch, "on_window_complete was called");
                self.on_window_hook_called(epoch, *window, offsets, *results);
            }
            About::Delivery { payloads, attempts } => {
                self.on_delivery_hook_called(payloads, *attempts)
            }
        }
    }

    fn on_message_hook_called(&mut self, epoch: Epoch, offset: Offset, group: Counts) {
        let counts = self.counts(epoch, offset);
        let Some(message) = self.message(epoch, offset) else { return };
        let called = std::mem::replace(&mut message.hook, HookState::Called);
        if called != HookState::NotCalled {
            let what =
                format!("on_message_complete was called twice for {offset} in epoch {epoch}");
            self.blame(Promise::Dl2, what);
        }
        if let Some(counts) = counts.filter(|counts| *counts != group) {
            let what = format!(
                "on_message_complete of {offset} in epoch {epoch} was told {group:?}; it was {counts:?}"
            );
            self.blame(Promise::Account, what);
        }
    }

    /// What became of the tasks of a message; `None` if one is not settled, which is blamed.
    fn counts(&mut self, epoch: Epoch, offset: Offset) -> Option<Counts> {
        let assignment = self.assignments.get(&epoch)?;
        let message = assignment.messages.get(&offset)?;
        let phases: Vec<_> =
            message.tasks.iter().map(|number| assignment.tasks[number].phase).collect();
        let of = |wanted: &[TaskPhase]| phases.iter().filter(|it| wanted.contains(it)).count();
        let open = of(&[TaskPhase::Open]);
        let counts = Counts {
            total: phases.len(),
            succeeded: of(&[TaskPhase::Succeeded]),
            failed: of(&[TaskPhase::Failed, TaskPhase::Skipped]),
        };
        if open > 0 {
            let what = format!(
                "on_message_complete was called for {offset} in epoch {epoch}, which has {open} open \
                 tasks"
            );
            self.blame(Promise::Dl1, what);
            return None;
        }
        Some(counts)
    }

    fn on_window_hook_called(
        &mut self,
        epoch: Epoch,
        window: WindowId,
        offsets: &[Offset],
        results: usize,
    ) {
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        for &offset in offsets {
            assignment.move_to_window(offset, window);
        }
        // The message at which a window is divided is arranged in it, and then belongs to the rest.
        assignment.leave_window(window, offsets);
        let belongs = |task: &Task| task.first().is_some_and(|first| offsets.contains(&first));
        assignment.tasks.values_mut().filter(|task| belongs(task)).for_each(|task| {
            task.window = window;
        });
        let state = assignment.windows.entry(window).or_default();
        let called = std::mem::replace(&mut state.hook, HookState::Called);
        let of_window = assignment.tasks.values().filter(|task| belongs(task));
        let ended = of_window.filter(|task| task.phase != TaskPhase::Replaced).count();
        if called != HookState::NotCalled {
            let what = format!("on_window_complete was called twice for {window} of epoch {epoch}");
            self.blame(Promise::Dl2, what);
        }
        if ended != results {
            let what = format!(
                "on_window_complete of window {window} in epoch {epoch} was told {results} results; \
                 there were {ended}"
            );
            self.blame(Promise::Account, what);
        }
    }

    /// The engine knows from here on that nothing need be held for windows of this assignment.
    pub(super) fn on_hook_missing(&mut self, epoch: Epoch, hook: Hook) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.knows_no_window_hook |= hook == Hook::OnWindowComplete;
        }
    }

    pub(super) fn on_hook_answered(&mut self, epoch: Epoch, about: &About, answer: &Answered) {
        if *answer == Answered::Failed {
            self.count(match about {
                About::TaskComplete(_) => "hooks that failed: on_task_complete",
                About::Error(_) => "hooks that failed: on_error",
                About::Message { .. } => "hooks that failed: on_message_complete",
                About::Window { .. } => "hooks that failed: on_window_complete",
                About::Delivery { .. } => "hooks that failed: on_delivery_error",
            });
        }
        if *answer == Answered::Unroutable {
            self.count("outputs that route nowhere");
        }
        match about {
            About::TaskComplete(task) => self.on_task_hook(epoch, *task, answer),
            About::Error(task) => self.on_error_hook(epoch, *task, answer),
            About::Message { offset, .. } => self.on_message_hook(epoch, *offset, answer),
            About::Window { window, .. } => self.on_window_hook(epoch, *window, answer),
            About::Delivery { payloads, .. } => self.on_delivery_hook(payloads, answer),
        }
    }

    fn on_task_hook(&mut self, epoch: Epoch, number: Number, answer: &Answered) {
        let payloads = match answer {
            Answered::Outputs(payloads) => payloads,
            Answered::Failed => {
                return self.on_task_hook_failed(epoch, number, Hook::OnTaskComplete);
            }
            _ => return self.fail_task(epoch, number, Doom::Hook(Hook::OnTaskComplete)),
        };
        let Some(task) = self.task(epoch, number) else { return };
        task.phase = TaskPhase::Succeeded;
        task.payloads = payloads.clone();
        self.put_out(epoch, Owner::Task(number), payloads);
    }

    fn on_message_hook(&mut self, epoch: Epoch, offset: Offset, answer: &Answered) {
        let Some(message) = self.message(epoch, offset) else { return };
        message.hook = HookState::Answered;
        match answer {
            Answered::Failed => self.on_message_hook_failed(epoch, offset),
            Answered::Outputs(payloads) => {
                message.payloads = payloads.clone();
                if !payloads.is_empty() {
                    self.count("outputs of messages");
                }
                self.put_out(epoch, Owner::Message(offset), payloads);
            }
            _ => self.doom(epoch, offset, Doom::Hook(Hook::OnMessageComplete)),
        }
    }

    fn on_window_hook(&mut self, epoch: Epoch, id: WindowId, answer: &Answered) {
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let window = assignment.windows.entry(id).or_default();
        window.hook = HookState::Answered;
        match answer {
            Answered::Failed => self.on_window_hook_failed(epoch, id),
            Answered::Outputs(payloads) => {
                window.payloads = payloads.clone();
                if !payloads.is_empty() {
                    self.count("outputs of windows");
                }
                self.put_out(epoch, Owner::Window(id), payloads);
            }
            _ => self.doom_window(epoch, id),
        }
    }

    fn put_out(&mut self, epoch: Epoch, owner: Owner, payloads: &[Number]) {
        for &number in payloads {
            self.payloads.insert(number, Payload::new(epoch, owner));
        }
    }

    fn on_error_hook(&mut self, epoch: Epoch, number: Number, answer: &Answered) {
        let retries_max = self.config.task_retries_max;
        if *answer == Answered::Failed {
            return self.on_task_hook_failed(epoch, number, Hook::OnError);
        }
        let Some(task) = self.task(epoch, number) else { return };
        task.errors += 1;
        match answer {
            Answered::Retry(_) if task.errors <= retries_max => {
                task.hook_failures = 0;
                self.count("tasks retried");
            }
            Answered::Retry(_) => {
                self.count("retries used up");
                self.follow_policy(epoch, number);
            }
            Answered::Policy => self.follow_policy(epoch, number),
            Answered::Skip => {
                task.phase = TaskPhase::Skipped;
                self.count("tasks skipped");
            }
            Answered::Replace(tasks) => self.on_replaced(epoch, number, tasks),
            Answered::DeadLetter => self.fail_task(epoch, number, Doom::Task),
            _ => self.fail_task(epoch, number, Doom::Hook(Hook::OnError)),
        }
    }

    fn on_replaced(&mut self, epoch: Epoch, number: Number, tasks: &[Planned]) {
        let limit = self.config.replacements_max;
        let Some(task) = self.task(epoch, number) else { return };
        let (window, generation) = (task.window, task.generation + 1);
        if generation > limit && !tasks.is_empty() {
            let (offsets, numbers) =
                (task.offsets.clone(), tasks.iter().map(|planned| planned.number).collect());
            self.count("tasks that must be refused");
            let is_not_doomed =
                |at: &Offset| self.message(epoch, *at).is_some_and(|it| it.doom.is_none());
            let doomed = offsets.into_iter().filter(is_not_doomed).collect();
            self.fail_task(epoch, number, Doom::Hook(Hook::OnError));
            if let Some(task) = self.task(epoch, number) {
                task.refused = Some((numbers, doomed));
            }
            return;
        }
        task.phase = TaskPhase::Replaced;
        self.count("tasks replaced");
        if generation > 1 {
            self.count("chains of replacements");
        }
        for planned in tasks {
            self.attach(epoch, window, planned, Origin::Replaces(number), generation);
        }
    }

    /// A priority of replacements that must be refused could not be had: that comes first.
    pub(super) fn on_refused_priority_failed(&mut self, epoch: Epoch, replacement: Number) {
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let parent = assignment.tasks.iter_mut().find_map(|(number, task)| {
            task.refused
                .take_if(|(numbers, _)| numbers.contains(&replacement))
                .map(|it| (*number, it))
        });
        let Some((number, (_, doomed))) = parent else { return };
        for offset in doomed {
            if let Some(message) = self.message(epoch, offset) {
                message.doom = None;
            }
        }
        self.withdraw_answer(epoch, number);
        self.on_task_hook_failed(epoch, number, Hook::TaskPriority);
    }

    /// What `on_error` answered about a task does not count.
    pub(super) fn withdraw_answer(&mut self, epoch: Epoch, number: Number) {
        if let Some(task) = self.task(epoch, number) {
            task.phase = TaskPhase::Open;
            task.errors -= 1;
        }
    }

    /// The task failed for good: so do its messages.
    pub(super) fn fail_task(&mut self, epoch: Epoch, number: Number, doom: Doom) {
        let Some(task) = self.task(epoch, number) else { return };
        task.phase = TaskPhase::Failed;
        for offset in task.offsets.clone() {
            self.doom(epoch, offset, doom);
        }
    }

    /// A message must go to the dead letters, unless it was skipped: then what its window does is
    /// not its own.
    pub(super) fn doom(&mut self, epoch: Epoch, offset: Offset, doom: Doom) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let message = assignment.messages.get(&offset);
        if message.is_some_and(|message| self.is_skipped(assignment, message)) {
            return;
        }
        if let Some(message) = self.message(epoch, offset) {
            message.doom.get_or_insert(doom);
        }
    }
}
