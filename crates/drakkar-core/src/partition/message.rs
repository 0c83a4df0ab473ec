//! Messages: settled when their tasks are, finished when everything they produced is.

use super::effect::{Effect, HookCall, Letter, LetterContent, TaskName};
use super::output::{LetterOwner, Owner};
use super::window::WindowPhase;
use super::{HookFailure, Partition};
use crate::erased::{AnyGroup, AnyMessage};
use crate::watermark::Token;
use drakkar_api::{
    DecodeError, Event, Hook, Instant, MessageEnd, Offset, Outputs, Settlement, SourceMessage,
    Task, TaskOutput, WindowId,
};
use std::sync::Arc;

/// The state of one registered message.
#[derive(Debug)]
pub(super) struct MessageState {
    pub(super) source: Arc<SourceMessage>,
    /// Empty until its value has parsed, or is not decoded again.
    pub(super) typed: Option<AnyMessage>,
    /// How often its value did not parse.
    pub(super) parse_failures: u32,
    /// When its value may be decoded.
    pub(super) decode_at: Instant,
    token: Option<Token>,
    pub(super) window: WindowId,
    formed_at: Instant,
    pub(super) phase: MessagePhase,
    pub(super) fate: Fate,
    pub(super) open_tasks: usize,
    /// How many tasks were ever scheduled for it.
    pub(super) tasks_total: u32,
    /// Empty if there is no such hook.
    history: Option<Box<History>>,
    /// How often `on_message_complete` has failed.
    pub(super) hook_failures: u32,
    end: MessageEnd,
}

/// What became of a message's tasks; kept only for `on_message_complete`.
#[derive(Clone, Debug, Default)]
struct History {
    tasks: Vec<Arc<Task>>,
    results: Vec<Arc<TaskOutput>>,
    errors: Vec<Arc<TaskOutput>>,
    bytes: usize,
}

/// Where a registered message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessagePhase {
    /// Its window is being arranged.
    Arranging,
    /// Its tasks are being worked on.
    Working,
    /// `on_message_complete`, or the delivery of its outputs.
    Completing,
    /// It is on its way to the dead letters.
    DeadLettering,
    /// It is settled; its window is not.
    Held,
}

/// What is to become of a message once its tasks are settled.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It completes.
    Normal,
    /// It is dropped, as `kafka.on_parse_error` or `executor.on_failure` asks.
    Skipped,
    /// It goes to the dead letters.
    DeadLetter(Arc<Cause>),
}

/// Why a message goes to the dead letters.
#[derive(Debug)]
pub(super) struct Cause {
    hook: Option<Hook>,
    kind: String,
    error: String,
    attempts: u32,
    task: Option<TaskName>,
}

impl Fate {
    pub(super) fn is_dead_letter(&self) -> bool {
        matches!(self, Self::DeadLetter(_))
    }

    /// Returns why a message goes to the dead letters; empty if it does not.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::DeadLetter(cause) => &cause.error,
            Self::Normal | Self::Skipped => "",
        }
    }

    pub(super) fn from_hook(failure: &HookFailure) -> Self {
        Self::from_calls(failure, 1)
    }

    /// The same for a hook that was called `calls` times for the message.
    pub(super) fn from_calls(failure: &HookFailure, calls: u32) -> Self {
        let kind = if failure.panicked { "hook_panic" } else { "hook_error" };
        Self::because(failure.hook, kind, failure.error.clone(), calls)
    }

    /// The same for a value that was decoded `attempts` times.
    pub(super) fn from_parse_error(error: &DecodeError, attempts: u32) -> Self {
        Self::because(Hook::Decode, "parse_error", error.reason().to_owned(), attempts)
    }

    pub(super) fn from_routing(hook: Hook, error: String) -> Self {
        Self::because(hook, "routing", error, 1)
    }

    pub(super) fn from_task(output: &TaskOutput) -> Self {
        let outcome = output.outcome();
        let stderr: String = output.stderr_text().chars().take(500).collect();
        let error = match stderr.trim_end() {
            "" => format!("task {} {outcome}", output.id()),
            stderr => format!("task {} {outcome}: {stderr}", output.id()),
        };
        Self::DeadLetter(Arc::new(Cause {
            hook: None,
            kind: outcome.as_str().to_owned(),
            error,
            attempts: output.attempt,
            task: Some(TaskName::of(&output.task)),
        }))
    }

    fn because(hook: Hook, kind: &str, error: String, attempts: u32) -> Self {
        let kind = kind.to_owned();
        Self::DeadLetter(Arc::new(Cause { hook: Some(hook), kind, error, attempts, task: None }))
    }
}

impl MessageState {
    pub(super) fn new(
        source: SourceMessage,
        token: Token,
        window: WindowId,
        formed_at: Instant,
    ) -> Self {
        Self {
            source: Arc::new(source),
            typed: None,
            parse_failures: 0,
            decode_at: formed_at,
            token: Some(token),
            window,
            formed_at,
            phase: MessagePhase::Arranging,
            fate: Fate::Normal,
            open_tasks: 0,
            tasks_total: 0,
            history: None,
            hook_failures: 0,
            end: MessageEnd::Completed,
        }
    }

    fn history(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    /// Returns whether it is settled, but was doomed after that.
    pub(super) fn needs_letter(&self) -> bool {
        let lettered = matches!(self.end, MessageEnd::DeadLettered | MessageEnd::Dropped);
        self.phase == MessagePhase::Held && self.fate.is_dead_letter() && !lettered
    }

    /// Returns whether a task that `arrange` returned may name it.
    pub(super) fn takes_arranged(&self) -> bool {
        matches!(self.phase, MessagePhase::Arranging | MessagePhase::Working)
    }

    /// Returns whether a task that replaces another may name it. A message whose window is being
    /// arranged is not open to it: a drain may still give that window back.
    pub(super) fn takes_replacement(&self) -> bool {
        self.phase == MessagePhase::Working
    }
}

/// How a task settled, as its messages see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskEnd {
    Succeeded,
    Failed,
    Replaced,
}

impl Partition {
    /// Decides that a message goes to the dead letters once its tasks are settled. The first cause
    /// is the one that is reported. One that was skipped has no part in what its window does.
    pub(super) fn doom(&mut self, offset: Offset, fate: Fate) {
        let message = self.messages.get_mut(&offset);
        if let Some(message) = message.filter(|message| matches!(message.fate, Fate::Normal)) {
            message.fate = fate;
        }
    }

    pub(super) fn attach_to_message(&mut self, offset: Offset, task: &Arc<Task>) {
        let keep = !self.hooks.message_missing;
        let message = self.messages.get_mut(&offset).expect("offsets are checked before");
        message.open_tasks += 1;
        message.tasks_total += 1;
        if keep {
            message.history().tasks.push(Arc::clone(task));
        }
    }

    /// One task of a message is settled; its message may keep the `input_bytes` of it.
    pub(super) fn detach_from_message(
        &mut self,
        offset: Offset,
        output: Option<&Arc<TaskOutput>>,
        input_bytes: usize,
        end: TaskEnd,
    ) {
        let keep = !self.hooks.message_missing;
        let message = self.messages.get_mut(&offset).expect("a message outlives its tasks");
        message.open_tasks -= 1;
        if keep {
            let history = message.history();
            let before = history.bytes;
            history.bytes += input_bytes;
            if let Some(output) = output.filter(|_| end != TaskEnd::Replaced) {
                history.bytes += output.stdout().len() + output.stderr().len();
                match end {
                    TaskEnd::Succeeded => history.results.push(Arc::clone(output)),
                    _ => history.errors.push(Arc::clone(output)),
                }
            }
            self.held_bytes += history.bytes - before;
        }
        if message.open_tasks == 0 && message.phase == MessagePhase::Working {
            self.complete_message(offset);
        }
    }

    /// All tasks of a message are settled, or it got none.
    pub(super) fn complete_message(&mut self, offset: Offset) {
        if self.halted.contains(&offset) {
            return;
        }
        let message = self.messages.get_mut(&offset).expect("the caller found it");
        message.phase = MessagePhase::Completing;
        self.busy_messages += 1;
        let skipped = matches!(message.fate, Fate::Skipped);
        let Some(typed) = message.typed.clone().filter(|_| !skipped) else {
            return self.message_outputs_done(offset);
        };
        if self.hooks.message_missing {
            return self.message_outputs_done(offset);
        }
        self.call_message_hook(offset, typed);
    }

    /// Calls `on_message_complete` once more.
    pub(super) fn call_message_hook_again(&mut self, offset: Offset) {
        let typed = self.messages.get(&offset).and_then(|message| message.typed.clone());
        if let Some(typed) = typed {
            self.call_message_hook(offset, typed);
        }
    }

    fn call_message_hook(&mut self, offset: Offset, typed: AnyMessage) {
        let message = self.messages.get_mut(&offset).expect("the caller found it");
        let is_last = message.hook_failures + 1 >= self.config.on_failure.hook_error.attempts_max;
        // Its bytes count until the message is done.
        let History { tasks, results, errors, .. } = match (&mut message.history, is_last) {
            (None, _) => History::default(),
            (Some(history), true) => {
                let bytes = history.bytes;
                std::mem::replace(&mut **history, History { bytes, ..History::default() })
            }
            (Some(history), false) => (**history).clone(),
        };
        let elapsed = self.now - message.formed_at;
        let group = Box::new(AnyGroup { message: typed, tasks, results, errors, elapsed });
        let window = message.window;
        self.effects.push(Effect::Hook(HookCall::MessageComplete { offset, window, group }));
    }

    pub(super) fn on_message_hook(&mut self, offset: Offset, result: Result<Outputs, HookFailure>) {
        if !self.messages.contains_key(&offset) {
            return;
        }
        match result {
            Ok(outputs) if outputs.is_hook_missing() => {
                self.hooks.message_missing = true;
                self.message_outputs_done(offset);
            }
            Ok(outputs) => self.deliver_message_outputs(offset, outputs),
            Err(failure) => self.on_hook_failed(Owner::Message(offset), &failure),
        }
    }

    /// Everything that the message's hooks put out is settled.
    pub(super) fn message_outputs_done(&mut self, offset: Offset) {
        let message = self.messages.get_mut(&offset).expect("it is completing");
        self.held_bytes -= message.history.take().map_or(0, |history| history.bytes);
        match message.fate {
            Fate::DeadLetter(_) => self.dead_letter_message(offset),
            Fate::Normal => self.settle_message(offset, MessageEnd::Completed),
            Fate::Skipped => self.settle_message(offset, MessageEnd::Skipped),
        }
    }

    /// Sends the message itself to the dead letters.
    pub(super) fn dead_letter_message(&mut self, offset: Offset) {
        let message = self.messages.get_mut(&offset).expect("the caller found it");
        let Fate::DeadLetter(cause) = &message.fate else {
            unreachable!("only a message whose fate is the dead letters comes here")
        };
        message.phase = MessagePhase::DeadLettering;
        let letter = Letter {
            content: LetterContent::Message,
            source: Arc::clone(&message.source),
            task: cause.task.clone(),
            hook: cause.hook,
            error_kind: cause.kind.clone(),
            error: cause.error.clone(),
            attempts: cause.attempts,
        };
        self.mark_started(offset);
        self.send_letter(LetterOwner::Message(offset), letter);
    }

    /// The message needs nothing more; it may have to wait for its window.
    pub(super) fn settle_message(&mut self, offset: Offset, end: MessageEnd) {
        self.busy_messages -= usize::from(!cfg!(drakkar_fault = "load_leaks"));
        let message = self.messages.get_mut(&offset).expect("it is being settled");
        message.phase = MessagePhase::Held;
        message.end = end;
        let id = message.window;
        let window = self.windows.get_mut(&id).expect("a window outlives its messages");
        window.open_messages -= 1;
        let held_by_window = (!self.hooks.window_missing
            || window.phase == WindowPhase::DeadLettering)
            && !cfg!(drakkar_fault = "window_holds_nothing");
        if !held_by_window {
            self.finish_message(offset);
        }
        self.check_window(id);
    }

    /// The only place where an offset is finished.
    pub(super) fn finish_message(&mut self, offset: Offset) {
        let Some(mut message) = self.messages.remove(&offset) else { return };
        self.held_bytes -= message.source.size_bytes();
        let token = message.token.take().expect("a kept message has its token");
        self.watermark.finish(token);
        self.commit.finished(self.now);
        self.drain_progressed();
        let settlement = match message.end {
            MessageEnd::DeadLettered => Settlement::DeadLettered,
            _ => Settlement::Finished,
        };
        self.effects.push(Effect::Settle(offset, settlement));
        self.observer.observe(&Event::MessageFinished {
            partition: &self.id,
            offset,
            end: message.end,
            written_at: message.source.timestamp.map(|(written_at, _)| written_at),
            duration: self.now - message.formed_at,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{Execution, TaskOutcome};

    // Promise: FT-3
    #[test]
    fn a_dead_letter_keeps_nothing_that_its_task_was_given() {
        let task = Task::for_offset(Offset::new(1)).id("t").label("l", "v").stdin(vec![0; 1000]);
        let task = Arc::new(task);
        let execution = Execution::without_process(TaskOutcome::ExitCode(1));
        let output = TaskOutput { task: Arc::clone(&task), attempt: 1, execution };
        let fate = Fate::from_task(&output);
        drop(output);
        assert_eq!(Arc::strong_count(&task), 1, "it is kept by nobody else");
        let Fate::DeadLetter(cause) = fate else { panic!("it goes to the dead letters") };
        assert_eq!(cause.task, Some(TaskName::of(&task)));
        assert_eq!(cause.error, "task t exited with code 1");
    }
}
