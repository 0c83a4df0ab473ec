//! Windows: formed from the queue, finished when their tasks and messages are settled.

use super::arrange::Tasks;
use super::effect::{Effect, HookCall};
use super::message::{Fate, MessagePhase, MessageState};
use super::output::Owner;
use super::{HookFailure, Partition};
use crate::backpressure::Admission;
use crate::erased::AnyCompletedWindow;
use drakkar_api::{Event, Instant, Offset, Outputs, TaskOutput, WindowId};
use std::sync::Arc;

/// The state of one window.
#[derive(Debug)]
pub(super) struct WindowState {
    pub(super) messages: Vec<Offset>,
    pub(super) formed_at: Instant,
    pub(super) phase: WindowPhase,
    /// Whether it is what was left of another one, of which there were too many tasks.
    pub(super) is_rest: bool,
    /// Tasks that `arrange` returned so far, while the window is taken message by message, and for
    /// which message it was called.
    pub(super) collected: Vec<(Offset, Tasks)>,
    pub(super) open_tasks: usize,
    /// Messages that are not settled.
    pub(super) open_messages: usize,
    pub(super) tasks_total: usize,
    /// Kept only for the window hook.
    pub(super) results: Vec<Arc<TaskOutput>>,
    /// Bytes of `results`.
    pub(super) results_bytes: usize,
    /// How often `on_window_complete` has failed.
    pub(super) hook_failures: u32,
}

/// Where a window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowPhase {
    /// `arrange` runs for all messages, or waits for its next attempt; this is attempt `attempt`.
    Arranging { attempt: u32 },
    /// `arrange` runs for message number `index` alone.
    Isolating { index: usize },
    /// `arrange` has run for the messages before number `next`, one by one; their tasks may have to
    /// wait until there is room for them.
    Isolated { next: usize },
    /// Its tasks and messages are being worked on.
    Working,
    /// `on_window_complete`, or the delivery of its outputs.
    Completing,
    /// The hook is done; messages that it doomed go to the dead letters.
    DeadLettering,
}

impl WindowState {
    /// Returns how many tasks were collected.
    pub(super) fn collected_tasks(&self) -> usize {
        self.collected.iter().map(|(_, tasks)| tasks.len()).sum()
    }
}

impl Partition {
    /// Forms a window, if one may be formed and there is something to put into it.
    pub(super) fn form_window(&mut self) {
        let held_back = !self.is_admitted() || !self.may_open_window();
        if self.arranging.is_some() || self.drain.is_active() || held_back {
            return;
        }
        let room = match cfg!(drakkar_fault = "ahead_unbounded") {
            true => usize::MAX,
            false => self.config.ahead_max.saturating_sub(self.watermark.ahead()),
        };
        let most = match self.admission {
            Admission::Single => 1,
            _ => self.config.window_size,
        };
        let size = most.min(room);
        let id = WindowId::new(self.windows_formed + 1);
        let mut offsets = Vec::new();
        while offsets.len() < size {
            let Some(source) = self.queue.pop_front() else { break };
            let bytes = source.size_bytes();
            self.queued_bytes -= bytes;
            let offset = source.offset;
            let token = self.watermark.register(offset).expect("a repeat is refused on arrival");
            self.held_bytes += bytes;
            self.busy_messages += 1;
            let message = MessageState::new(source, token, id, self.now);
            self.messages.insert(offset, Box::new(message));
            offsets.push(offset);
        }
        if offsets.is_empty() {
            return;
        }
        self.windows_formed += 1;
        let state = WindowState {
            open_messages: offsets.len(),
            messages: offsets,
            formed_at: self.now,
            phase: WindowPhase::Arranging { attempt: 1 },
            is_rest: false,
            collected: Vec::new(),
            open_tasks: 0,
            tasks_total: 0,
            results: Vec::new(),
            results_bytes: 0,
            hook_failures: 0,
        };
        self.windows.insert(id, state);
        self.arranging = Some(id);
        self.call_arrange(id, 0, usize::MAX);
    }

    /// Makes a window of its own of the messages from number `first` on, which takes the place of the
    /// window that is being arranged; that one gets the tasks that were collected.
    pub(super) fn divide_window(&mut self, id: WindowId, first: usize) -> WindowId {
        self.windows_formed += 1;
        let rest = WindowId::new(self.windows_formed);
        let window = self.windows.get_mut(&id).expect("the caller found it");
        let messages = window.messages.split_off(first);
        window.open_messages -= messages.len();
        for offset in &messages {
            self.messages.get_mut(offset).expect("a window's message is kept").window = rest;
        }
        let state = WindowState {
            open_messages: messages.len(),
            messages,
            formed_at: window.formed_at,
            phase: WindowPhase::Isolating { index: 0 },
            is_rest: true,
            collected: Vec::new(),
            open_tasks: 0,
            tasks_total: 0,
            results: Vec::new(),
            results_bytes: 0,
            hook_failures: 0,
        };
        self.windows.insert(rest, state);
        self.finish_isolated(id);
        self.arranging = Some(rest);
        rest
    }

    /// Ends a window if nothing of it is open: calls its hook first, if there may be one.
    pub(super) fn check_window(&mut self, id: WindowId) {
        let Some(window) = self.windows.get_mut(&id) else { return };
        let settled = window.open_tasks == 0 && window.open_messages == 0;
        match window.phase {
            WindowPhase::Working if settled => {
                if self.hooks.window_missing || window.tasks_total == 0 {
                    self.finish_window(id);
                } else {
                    self.complete_window(id);
                }
            }
            WindowPhase::DeadLettering if settled => self.finish_window(id),
            _ => {}
        }
    }

    fn complete_window(&mut self, id: WindowId) {
        let window = self.windows.get_mut(&id).expect("the caller found it");
        window.phase = WindowPhase::Completing;
        self.busy_messages += 1;
        self.call_window_hook(id);
    }

    /// Calls `on_window_complete`, for the first time or once more.
    pub(super) fn call_window_hook(&mut self, id: WindowId) {
        let Some(window) = self.windows.get(&id) else { return };
        let typed = window.messages.iter().filter_map(|offset| self.messages.get(offset));
        let completed = AnyCompletedWindow {
            id,
            partition: self.id.clone(),
            messages: typed.filter_map(|message| message.typed.clone()).collect(),
            results: window.results.clone(),
            elapsed: self.now - window.formed_at,
        };
        self.effects.push(Effect::Hook(HookCall::WindowComplete { window: completed }));
    }

    pub(super) fn on_window_hook(&mut self, id: WindowId, result: Result<Outputs, HookFailure>) {
        if !self.windows.contains_key(&id) {
            return;
        }
        match result {
            Ok(outputs) if outputs.is_hook_missing() => {
                self.busy_messages -= 1;
                self.finish_window(id);
                self.on_window_hook_missing();
            }
            Ok(outputs) => self.deliver_window_outputs(id, outputs),
            Err(failure) => self.on_hook_failed(Owner::Window(id), &failure),
        }
    }

    /// The outputs of the window hook are settled. On the way its messages may have been doomed, by
    /// an error of `on_delivery_error`.
    pub(super) fn window_outputs_done(&mut self, id: WindowId) {
        self.busy_messages -= 1;
        self.letter_doomed(id);
    }

    /// There is no window hook: nothing is held for one any more.
    fn on_window_hook_missing(&mut self) {
        if self.hooks.window_missing || cfg!(drakkar_fault = "window_hook_assumed") {
            return;
        }
        self.hooks.window_missing = true;
        for window in self.windows.values_mut() {
            window.results.clear();
            self.held_bytes -= std::mem::take(&mut window.results_bytes);
        }
        self.finish_held();
    }

    /// Finishes messages that were held for a window hook which is missing. What a window hook that
    /// was called before waits for stays held, and so does what a drain is about to give back.
    pub(super) fn finish_held(&mut self) {
        let windows = &self.windows;
        let held = self.messages.iter().filter(|&(&offset, message)| {
            let window = windows.get(&message.window).map(|window| window.phase);
            message.phase == MessagePhase::Held
                && window == Some(WindowPhase::Working)
                && !self.drain.gives_back(offset)
        });
        let held: Vec<_> = held.map(|(&offset, _)| offset).collect();
        for offset in held {
            self.finish_message(offset);
        }
    }

    /// The window hook failed, or its outputs route nowhere: every message of the window that is
    /// not in the dead letters goes there.
    pub(super) fn dead_letter_window(&mut self, id: WindowId, fate: &Fate) {
        self.busy_messages -= 1;
        for offset in self.windows[&id].messages.clone() {
            self.doom(offset, fate.clone());
        }
        self.letter_doomed(id);
    }

    /// Sends the doomed messages of a window to the dead letters, then finishes it.
    fn letter_doomed(&mut self, id: WindowId) {
        let window = self.windows.get_mut(&id).expect("its hook was called");
        window.phase = WindowPhase::DeadLettering;
        let needs_letter =
            |offset: &Offset| self.messages.get(offset).is_some_and(|m| m.needs_letter());
        let doomed: Vec<_> = window.messages.iter().copied().filter(needs_letter).collect();
        window.open_messages += doomed.len();
        self.busy_messages += doomed.len();
        for offset in doomed {
            self.dead_letter_message(offset);
        }
        self.check_window(id);
    }

    fn finish_window(&mut self, id: WindowId) {
        let Some(window) = self.windows.remove(&id) else { return };
        self.held_bytes -= window.results_bytes;
        for &offset in &window.messages {
            self.finish_message(offset);
        }
        self.observer.observe(&Event::WindowFinished {
            partition: &self.id,
            window: id,
            tasks: window.tasks_total,
            duration: self.now - window.formed_at,
        });
    }
}
