//! Messages that come into windows, and windows that get their tasks.

use super::Judge;
use super::assignment::{Doom, Origin, RunPhase, Task, TaskPhase};
use crate::promise::Promise;
use crate::seen::{Arranged, Number, Planned, Shape};
use drakkar_api::{Epoch, Hook, Offset, WindowId};
use drakkar_core::FailureAction;

impl Judge {
    pub(super) fn on_taken(&mut self, epoch: Epoch, offset: Offset) {
        self.check_not_over(epoch, "a message was taken into a window");
        let now = self.now;
        let Some(message) = self.message(epoch, offset) else { return };
        let shape = message.shape;
        if std::mem::replace(&mut message.taken, true) {
            return;
        }
        message.taken_at = Some(now);
        match shape {
            Shape::Plain => {}
            Shape::Unparsable => self.count("messages that do not parse"),
            Shape::Tombstone => self.count("tombstones"),
        }
        self.note_oldest(epoch);
        self.check_ahead(epoch);
    }

    pub(super) fn on_taking_failed(&mut self, epoch: Epoch, hook: Hook) {
        self.count(match hook {
            Hook::Decode => "hooks that failed: decode",
            _ => "hooks that failed: message_label",
        });
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.arrange_failures += 1;
            assignment.window_was_tried = true;
        }
    }

    pub(super) fn on_arrange_called(&mut self, epoch: Epoch, window: WindowId, offsets: &[Offset]) {
        self.check_not_over(epoch, "arrange was called");
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        // What is left of a divided window is no new one, and one that waited for its labels is older
        // than this call.
        let is_divided = offsets.len() == 1 && self.has_narrow_bounds;
        let is_just_taken = |offset: &Offset| {
            let message = assignment.messages.get(offset);
            message.is_some_and(|message| message.taken_at == Some(self.now))
        };
        // One whose messages could not be decoded at first was made then.
        let was_tried = std::mem::take(&mut assignment.window_was_tried);
        let is_known = was_tried || assignment.windows.contains_key(&window);
        let is_new = !is_divided && !is_known && offsets.iter().all(is_just_taken);
        if let [only] = *offsets {
            assignment.note_division(only, window);
            assignment.alone.insert(only);
        }
        let attempts = self.config.on_failure.parse_error.map_or(1, |policy| policy.attempts_max);
        let (mut again, mut parses_in_the_end) = (false, false);
        for &offset in offsets {
            let Some(message) = assignment.messages.get_mut(&offset) else { continue };
            again |= message.window == Some(window);
            parses_in_the_end |= (1..attempts).contains(&message.parse_failures);
            // What an earlier call answered was refused, or it would not be called again.
            for task in std::mem::take(&mut message.tasks) {
                assignment.tasks.remove(&task);
            }
            message.arranged = None;
            assignment.move_to_window(offset, window);
        }
        let of_window = &assignment.windows[&window].messages;
        let alone = again && offsets.len() == 1 && of_window.len() > 1;
        if parses_in_the_end {
            self.count("values that parse in the end");
        }
        if again {
            self.count("windows arranged again");
        }
        if alone {
            self.count("windows taken message by message");
        }
        self.check_windows(epoch);
        if is_new {
            self.check_crowd(epoch, window);
        }
    }

    pub(super) fn on_arrange_answered(
        &mut self,
        epoch: Epoch,
        window: WindowId,
        offsets: &[Offset],
        answer: &Arranged,
    ) {
        let tasks = match answer {
            Arranged::Tasks(tasks) if tasks.len() <= self.config.window_tasks_max => tasks,
            Arranged::Failed => {
                self.count("hooks that failed: arrange");
                return self.note_arrange_failure(epoch);
            }
            Arranged::Tasks(_) | Arranged::Refusable(_) => {
                self.count("tasks that must be refused");
                return self.note_arrange_failure(epoch);
            }
        };
        self.arrange_calls += 1;
        let call = self.arrange_calls;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        for offset in offsets {
            if let Some(message) = assignment.messages.get_mut(offset) {
                message.arranged = Some(call);
            }
        }
        let untouched = offsets.iter().any(|at| !tasks.iter().any(|it| it.offsets.contains(at)));
        if untouched {
            self.count("messages without tasks");
        }
        for task in tasks {
            self.attach(epoch, window, task, Origin::Arrange(call), 0);
        }
    }

    /// Makes a task known to its messages.
    pub(super) fn attach(
        &mut self,
        epoch: Epoch,
        window: WindowId,
        planned: &Planned,
        origin: Origin,
        generation: u32,
    ) {
        // With no hook to call, a success that is known already needs nothing more.
        let is_done = planned.precomputed == Some(true) && !self.hooks.task;
        let task = Task {
            offsets: planned.offsets.clone(),
            window,
            origin,
            recipe: planned.recipe,
            generation,
            phase: if is_done { TaskPhase::Succeeded } else { TaskPhase::Open },
            run: RunPhase::None,
            outcome: None,
            errors: 0,
            hook_failures: 0,
            refused: None,
            payloads: Vec::new(),
        };
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        assignment.tasks.insert(planned.number, task);
        for offset in &planned.offsets {
            if let Some(message) = assignment.messages.get_mut(offset) {
                message.tasks.push(planned.number);
            }
        }
        if planned.offsets.len() > 1 {
            self.count("tasks of several messages");
        }
        if planned.precomputed.is_some() {
            self.note_output(epoch, false);
        }
        match planned.precomputed {
            Some(true) => self.count("precomputed successes"),
            Some(false) => self.count("precomputed failures"),
            None => {}
        }
    }

    /// A priority could not be had: the hook that made the task counts as failed.
    pub(super) fn on_priority_failed(&mut self, epoch: Epoch, task: Number) {
        self.count("hooks that failed: task_priority");
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let Some(origin) = assignment.tasks.get(&task).map(|task| task.origin) else {
            return self.on_refused_priority_failed(epoch, task);
        };
        let siblings: Vec<_> = assignment
            .tasks
            .iter()
            .filter(|(_, task)| task.origin == origin)
            .map(|(number, _)| *number)
            .collect();
        for number in &siblings {
            assignment.tasks.remove(number);
        }
        for message in assignment.messages.values_mut() {
            message.tasks.retain(|number| !siblings.contains(number));
        }
        match origin {
            Origin::Arrange(call) => {
                for message in assignment.messages.values_mut() {
                    message.arranged = message.arranged.filter(|by| *by != call);
                }
                self.note_arrange_failure(epoch);
            }
            Origin::Replaces(parent) => {
                self.withdraw_answer(epoch, parent);
                self.on_task_hook_failed(epoch, parent, Hook::TaskPriority);
            }
        }
    }

    fn note_arrange_failure(&mut self, epoch: Epoch) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.arrange_failures += 1;
        }
    }

    /// A message goes to the dead letters though no call of `arrange` took it: it must have been
    /// tried as often as is promised.
    pub(super) fn doom_unarranged(&mut self, epoch: Epoch, offset: Offset) {
        let needed = self.config.on_failure.arrange_error.attempts_max;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let failures = assignment.arrange_failures;
        let Some(message) = assignment.messages.get_mut(&offset) else { return };
        let letters = self.config.on_failure.arrange_error.then == FailureAction::DeadLetter;
        if message.arranged.is_none() && failures >= needed && letters {
            message.doom = Some(Doom::Hook(Hook::Arrange));
            return;
        }
        let what = format!(
            "the message at {offset} of epoch {epoch} went to the dead letters, but nothing of it \
             had failed for good"
        );
        self.blame(Promise::Ft1, what);
    }

    pub(super) fn message(
        &mut self,
        epoch: Epoch,
        offset: Offset,
    ) -> Option<&mut super::assignment::Message> {
        self.assignments.get_mut(&epoch)?.messages.get_mut(&offset)
    }
}
