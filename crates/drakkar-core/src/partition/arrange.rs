//! `arrange`: called for a window, repeated when it fails, then message by message. Before that the
//! values of the window are decoded, one that does not parse as often as the settings say.

use super::effect::{ArrangeCall, Effect};
use super::message::{Fate, MessagePhase, MessageState};
use super::output::Owner;
use super::window::WindowPhase;
use super::{HookFailure, Partition, Timer};
use crate::config::ParsePolicy;
use crate::erased::AnyMessage;
use crate::failure::FailureAction;
use drakkar_api::{Event, Hook, Offset, Priority, Task, WindowId};
use std::sync::Arc;

/// Tasks and their priorities, each task made once and not moved again.
pub(super) type Tasks = Vec<(Arc<Task>, Priority)>;
type Arranged = Result<Tasks, HookFailure>;

/// What says that the worker stops when a window cannot be arranged.
const SETTING: &str = "executor.on_failure.arrange_error";

impl Partition {
    /// Calls `arrange` for at most `count` messages of a window, from number `first` on, once all of
    /// them may be decoded.
    pub(super) fn call_arrange(&mut self, id: WindowId, first: usize, count: usize) {
        let window = self.windows.get(&id).expect("the caller found it");
        let offsets = window.messages.iter().skip(first).take(count);
        let messages = offsets.filter_map(|offset| self.messages.get(offset));
        let ready_at = messages.clone().map(|message| message.decode_at).max();
        if let Some(at) = ready_at.filter(|&at| at > self.now) {
            return self.set_timer(at, Timer::Arrange(id));
        }
        let call = ArrangeCall {
            window: id,
            messages: messages.map(|m| (Arc::clone(&m.source), m.typed.clone())).collect(),
            pending: self.pending.clone(),
        };
        self.effects.push(Effect::Arrange(call));
    }

    /// Calls `arrange` once more for what it was called for last.
    pub(super) fn arrange_again(&mut self, id: WindowId) {
        match self.windows.get(&id).map(|window| window.phase) {
            Some(WindowPhase::Arranging { .. }) => self.call_arrange(id, 0, usize::MAX),
            Some(WindowPhase::Isolating { index }) => self.call_arrange(id, index, 1),
            _ => {}
        }
    }

    /// Values did not parse, and `arrange` was not called: those that have attempts left are decoded
    /// again first, the others have their outcome now.
    pub(super) fn on_unparsed(&mut self, id: WindowId, decoded: Vec<(Offset, AnyMessage)>) {
        for (offset, typed) in decoded {
            self.keep_decoded(offset, typed);
        }
        self.arrange_again(id);
    }

    pub(super) fn on_arranged(
        &mut self,
        id: WindowId,
        decoded: Vec<(Offset, AnyMessage)>,
        result: Arranged,
    ) {
        // A drain gave the window back while `arrange` ran.
        let Some(phase) = self.windows.get(&id).map(|window| window.phase) else { return };
        for (offset, typed) in decoded {
            self.keep_decoded(offset, typed);
        }
        let stops_at = self.find_unparsable(id);
        let result = result.and_then(|tasks| {
            self.check_tasks(tasks, stops_at)
                .inspect_err(|failure| self.report_refusal(id, None, failure))
        });
        match phase {
            WindowPhase::Arranging { attempt } => match result {
                Ok(tasks) => match stops_at {
                    Some(at) => self.stop_at_unparsable(id, at, tasks),
                    None => self.finish_arrange(id, tasks),
                },
                Err(failure) => self.on_arrange_failed(id, attempt, &failure),
            },
            WindowPhase::Isolating { index } => match stops_at {
                Some(at) if self.windows[&id].messages[index] == at => {
                    self.stop_at_unparsable(id, at, Tasks::new());
                }
                _ => self.on_isolated(id, index, result),
            },
            WindowPhase::Isolated { .. }
            | WindowPhase::Working
            | WindowPhase::Completing
            | WindowPhase::DeadLettering => {}
        }
    }

    /// Keeps the decoded form for later hooks, unless the value is to be decoded again, and reports
    /// one that is missing or does not parse.
    fn keep_decoded(&mut self, offset: Offset, typed: AnyMessage) {
        let Some(message) = self.messages.get_mut(&offset).filter(|m| m.typed.is_none()) else {
            return;
        };
        if message.source.value.is_none() {
            self.observer.observe(&Event::Tombstone { partition: &self.id, offset });
        }
        if let Some(error) = typed.parse_error() {
            message.parse_failures += 1;
            let failures = message.parse_failures;
            let again = self.config.on_failure.parse_error.filter(|it| failures < it.attempts_max);
            let policy = self.config.parse_policy();
            self.observer.observe(&Event::ParseFailed {
                partition: &self.id,
                offset,
                error,
                policy: again.map_or(policy.as_str(), |_| "retry"),
            });
            if let Some(again) = again {
                message.decode_at = self.now + again.backoff.after(failures, &mut self.jitter);
                return;
            }
            match policy {
                ParsePolicy::Pass | ParsePolicy::Stop => {}
                ParsePolicy::DeadLetter => message.fate = Fate::from_parse_error(error, failures),
                ParsePolicy::Skip => message.fate = Fate::Skipped,
            }
        }
        message.typed = Some(typed);
    }

    /// Returns the first message of a window that stops the worker as it does not parse.
    fn find_unparsable(&self, id: WindowId) -> Option<Offset> {
        if self.config.parse_policy() != ParsePolicy::Stop {
            return None;
        }
        let is_unparsable = |offset: &&Offset| {
            let typed = self.messages.get(offset).and_then(|message| message.typed.as_ref());
            typed.is_some_and(|typed| typed.parse_error().is_some())
        };
        self.windows[&id].messages.iter().find(is_unparsable).copied()
    }

    /// A value that does not parse stops the worker, once what is before it in its window is
    /// arranged; these are its tasks.
    fn stop_at_unparsable(&mut self, id: WindowId, offset: Offset, tasks: Tasks) {
        let window = self.windows.get_mut(&id).expect("the caller found it");
        let index = window.messages.iter().position(|&at| at == offset).expect("it is in it");
        if !tasks.is_empty() {
            window.collected.push((window.messages[0], tasks));
        }
        let message = self.messages.get(&offset).expect("a window's message is kept");
        let typed = message.typed.as_ref();
        let error = typed.and_then(|typed| typed.parse_error()).expect("the caller found it");
        let fate = Fate::from_parse_error(error, message.parse_failures);
        let setting = match self.config.on_failure.parse_error {
            Some(_) => "executor.on_failure.parse_error",
            None => "kafka.on_parse_error",
        };
        self.stop_arranging(id, index, setting, &fate);
    }

    /// A task must name open messages of this partition, and there must not be too many. They are
    /// counted for each call of `arrange`: when a window is taken message by message, one message
    /// must not suffer for what its neighbours made; what are too many together waits.
    fn check_tasks(&self, tasks: Tasks, stops_at: Option<Offset>) -> Arranged {
        let total = tasks.len();
        if total > self.config.window_tasks_max {
            let limit = self.config.window_tasks_max;
            return Err(arrange_failure(format!(
                "arrange returned {total} tasks for one window, the limit is {limit} \
                 (executor.max_tasks_per_window)"
            )));
        }
        let takes = |message: &MessageState| {
            message.takes_arranged() && stops_at.is_none_or(|at| message.source.offset < at)
        };
        for (task, _) in &tasks {
            self.check_offsets(task, takes).map_err(arrange_failure)?;
        }
        Ok(tasks)
    }

    /// Reports tasks that are refused as an error of the hook that returned them.
    fn report_refusal(&self, window: WindowId, offset: Option<Offset>, failure: &HookFailure) {
        self.observer.observe(&Event::HookFailed {
            hook: failure.hook,
            partition: Some(&self.id),
            window: Some(window),
            offset,
            task: None,
            error: &failure.error,
            panicked: false,
        });
    }

    /// Says what is wrong with the offsets of a task; `takes` tells which messages it may name.
    pub(super) fn check_offsets(
        &self,
        task: &Task,
        takes: impl Fn(&MessageState) -> bool,
    ) -> Result<(), String> {
        if task.source_offsets.is_empty() {
            return Err("a task has no source offsets, so it would protect no message".to_owned());
        }
        let unknown = task
            .source_offsets
            .iter()
            .find(|offset| !self.messages.get(offset).is_some_and(|message| takes(message)));
        match unknown {
            None => Ok(()),
            Some(offset) => Err(format!(
                "a task names offset {offset}, which is not an open message of this partition"
            )),
        }
    }

    fn on_arrange_failed(&mut self, id: WindowId, attempt: u32, failure: &HookFailure) {
        if cfg!(drakkar_fault = "arrange_error_stops") {
            return;
        }
        let policy = self.config.on_failure.arrange_error;
        let window = self.windows.get_mut(&id).expect("the caller found it");
        if attempt < policy.attempts_max {
            window.phase = WindowPhase::Arranging { attempt: attempt + 1 };
            let wait = policy.backoff.after(attempt, &mut self.jitter);
            self.set_timer(self.now + wait, Timer::Arrange(id));
        } else if let [only] = window.messages[..] {
            let fate = Fate::from_calls(failure, attempt);
            if policy.then == FailureAction::Stop {
                return self.stop_arranging(id, 0, SETTING, &fate);
            }
            self.give_up_arranging(only, fate);
            self.finish_arrange(id, Vec::new());
        } else {
            window.phase = WindowPhase::Isolating { index: 0 };
            self.call_arrange(id, 0, 1);
        }
    }

    /// A message could not be arranged: does what the settings say of that.
    fn give_up_arranging(&mut self, offset: Offset, fate: Fate) {
        match self.config.on_failure.arrange_error.then {
            FailureAction::DeadLetter => self.doom(offset, fate),
            FailureAction::Skip => self.doom(offset, Fate::Skipped),
            FailureAction::Stop => self.halt(Owner::Message(offset), SETTING, &fate),
        }
    }

    /// Message number `index` of the window that is being arranged stops the worker. Those before it
    /// go ahead as a window of their own; from it on nothing is arranged any more, until the drain
    /// gives it back.
    fn stop_arranging(&mut self, mut id: WindowId, index: usize, setting: &str, fate: &Fate) {
        let offset = self.windows[&id].messages[index];
        if index > 0 {
            id = self.divide_window(id, index);
        }
        debug_assert_eq!(self.arranging, Some(id), "no other window is formed");
        self.halt(Owner::Message(offset), setting, fate);
    }

    /// Takes the tasks of one message. If they are too many together with those of the messages
    /// before it, these go ahead as a window of their own.
    fn on_isolated(&mut self, mut id: WindowId, mut index: usize, result: Arranged) {
        let window = &self.windows[&id];
        let offset = window.messages[index];
        match result {
            Ok(tasks) => {
                if window.collected_tasks() + tasks.len() > self.config.window_tasks_max {
                    id = self.divide_window(id, index);
                    index = 0;
                }
                let window = self.windows.get_mut(&id).expect("it is being arranged");
                window.collected.push((offset, tasks));
            }
            Err(failure) => {
                let fate = self.fate_of_isolated(&failure);
                if self.config.on_failure.arrange_error.then == FailureAction::Stop {
                    return self.stop_arranging(id, index, SETTING, &fate);
                }
                self.give_up_arranging(offset, fate);
            }
        }
        let window = self.windows.get_mut(&id).expect("it is being arranged");
        window.phase = WindowPhase::Isolated { next: index + 1 };
        self.go_on_isolating();
    }

    /// Takes the next message of a window that is taken message by message, or ends that. What is
    /// left of a divided window waits until its tasks make not too many with those that are open,
    /// and not too many windows are.
    pub(super) fn go_on_isolating(&mut self) {
        let Some(id) = self.arranging else { return };
        let windows = self.windows.len();
        let window = self.windows.get_mut(&id).expect("it is being arranged");
        let WindowPhase::Isolated { next } = window.phase else { return };
        let tasks = self.tasks.len() + window.collected_tasks();
        let is_crowded = tasks > self.config.window_tasks_max && !self.tasks.is_empty();
        if window.is_rest && (is_crowded || windows > self.config.open_windows_max) {
            return;
        }
        if next < window.messages.len() {
            window.phase = WindowPhase::Isolating { index: next };
            self.call_arrange(id, next, 1);
        } else {
            self.finish_isolated(id);
        }
    }

    fn fate_of_isolated(&self, failure: &HookFailure) -> Fate {
        // Those for the whole window, and this one.
        let calls = self.config.on_failure.arrange_error.attempts_max.saturating_add(1);
        Fate::from_calls(failure, calls)
    }

    /// The messages of a window were taken one by one. A task that cannot start any more, or not
    /// yet, is refused, with all that its message got.
    pub(super) fn finish_isolated(&mut self, id: WindowId) {
        let window = self.windows.get_mut(&id).expect("it is being arranged");
        let mut tasks = Vec::new();
        for (offset, own) in std::mem::take(&mut window.collected) {
            match own.iter().find_map(|(task, _)| self.refusal(id, task)) {
                None => tasks.extend(own),
                Some(error) => {
                    let failure = arrange_failure(error);
                    self.report_refusal(id, Some(offset), &failure);
                    let fate = self.fate_of_isolated(&failure);
                    self.give_up_arranging(offset, fate);
                }
            }
        }
        self.finish_arrange(id, tasks);
    }

    /// Says why a task that was collected cannot start: meanwhile all messages that it names were
    /// settled; or one of them belongs to what is left of this window, which a drain may give back.
    fn refusal(&self, id: WindowId, task: &Task) -> Option<String> {
        let named = || task.source_offsets.iter().map(|&at| (at, self.messages.get(&at)));
        let is_of_another = |message: &MessageState| {
            message.phase == MessagePhase::Arranging && message.window != id
        };
        let later = named().find(|(_, message)| message.is_some_and(|m| is_of_another(m)));
        if let Some((offset, _)) = later {
            return Some(format!(
                "a task names offset {offset}, which is not arranged yet: its window was divided, as \
                 it had more tasks than executor.max_tasks_per_window, or as a failure stops the worker"
            ));
        }
        let is_open = named().any(|(_, message)| message.is_some_and(|m| m.takes_arranged()));
        let (first, _) = named().next().filter(|_| !is_open)?;
        Some(format!("a task names offset {first}, which was settled before the task could start"))
    }

    /// The window has its tasks: attaches all of them before any is started, so that no message
    /// completes between two of its tasks.
    fn finish_arrange(&mut self, id: WindowId, tasks: Tasks) {
        self.arranging = None;
        self.is_admission_stale = true;
        let window = self.windows.get_mut(&id).expect("the caller found it");
        window.phase = WindowPhase::Working;
        let offsets = window.messages.clone();
        for offset in &offsets {
            let message = self.messages.get_mut(offset).expect("a window's message is kept");
            message.phase = MessagePhase::Working;
            self.busy_messages -= 1;
        }
        self.observer.observe(&Event::Arranged {
            partition: &self.id,
            window: id,
            messages: offsets.len(),
            tasks: tasks.len(),
        });
        let keys: Vec<_> =
            tasks.into_iter().map(|(task, priority)| self.attach(id, task, priority, 0)).collect();
        for key in keys {
            self.start_attempt(key);
        }
        for offset in offsets {
            let untouched = self.messages.get(&offset).is_some_and(|message| {
                message.phase == MessagePhase::Working && message.open_tasks == 0
            });
            if untouched {
                self.complete_message(offset);
            }
        }
    }
}

fn arrange_failure(error: String) -> HookFailure {
    HookFailure { hook: Hook::Arrange, error, panicked: false }
}
