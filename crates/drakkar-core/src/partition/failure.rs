//! What follows when a hook fails, and when a failure is to stop the worker.
//!
//! A failure that stops the worker stops its partition too: the message stays unfinished, so that no
//! commit passes it, and a drain does not wait for it.

use super::effect::Effect;
use super::message::{Fate, MessagePhase, MessageState};
use super::output::Owner;
use super::task::TaskPhase;
use super::{HookFailure, Partition, Timer};
use crate::failure::FailureAction;
use drakkar_api::{Event, Offset};

impl Partition {
    /// A hook answered an error or panicked: it is called again as often as
    /// `executor.on_failure.hook_error` says, and then that says what follows. `arrange` and
    /// `on_delivery_error` have rules of their own.
    pub(super) fn on_hook_failed(&mut self, owner: Owner, failure: &HookFailure) {
        let policy = self.config.on_failure.hook_error;
        let failures = self.count_hook_failure(owner);
        if failures < policy.attempts_max {
            let wait = policy.backoff.after(failures, &mut self.jitter);
            return self.set_timer(self.now + wait, Timer::Hook(owner));
        }
        let fate = Fate::from_calls(failure, failures);
        match (policy.then, owner) {
            (FailureAction::Stop, _) => self.halt(owner, "executor.on_failure", &fate),
            (FailureAction::DeadLetter, Owner::Task(key)) => self.fail_task(key, &fate),
            (FailureAction::DeadLetter, Owner::Message(offset)) => {
                if !cfg!(drakkar_fault = "hook_error_swallowed") {
                    self.doom(offset, fate);
                }
                self.message_outputs_done(offset);
            }
            (FailureAction::DeadLetter, Owner::Window(id)) => self.dead_letter_window(id, &fate),
            (FailureAction::Skip, Owner::Task(key)) => self.skip_task(key),
            (FailureAction::Skip, Owner::Message(offset)) => self.message_outputs_done(offset),
            (FailureAction::Skip, Owner::Window(id)) => self.window_outputs_done(id),
        }
    }

    fn count_hook_failure(&mut self, owner: Owner) -> u32 {
        const FOUND: &str = "its hook has just answered";
        let failures = match owner {
            Owner::Task(key) => &mut self.tasks.get_mut(&key).expect(FOUND).hook_failures,
            Owner::Message(at) => &mut self.messages.get_mut(&at).expect(FOUND).hook_failures,
            Owner::Window(id) => &mut self.windows.get_mut(&id).expect(FOUND).hook_failures,
        };
        *failures += 1;
        *failures
    }

    pub(super) fn call_hook_again(&mut self, owner: Owner) {
        match owner {
            Owner::Task(key) => self.call_task_hook(key),
            Owner::Message(offset) => self.call_message_hook_again(offset),
            Owner::Window(id) => self.call_window_hook(id),
        }
    }

    /// A failure is to stop the worker: its messages stay unfinished, so that no commit passes them.
    /// What is before them is finished, started or not. `setting` is the one that wants this.
    pub(super) fn halt(&mut self, owner: Owner, setting: &str, fate: &Fate) {
        if let Owner::Task(key) = owner {
            self.tasks.get_mut(&key).expect("the caller found it").phase = TaskPhase::Halted;
        }
        let offsets = self.offsets_of(owner);
        let reason =
            format!("stopped at offset {}, as {setting} says: {}", offsets[0], fate.reason());
        if let Some(before) = self.message_before(offsets[0]) {
            self.mark_started(before);
        }
        if cfg!(drakkar_fault = "stop_finishes_its_offset") {
            offsets.iter().for_each(|&offset| self.finish_message(offset));
        }
        self.halted.extend(offsets);
        let partition = &self.id;
        let failed = Event::PartitionFailed { partition, reason: &reason, keeps_ready: false };
        self.observer.observe(&failed);
        self.effects.push(Effect::Stop(format!("partition {} {reason}", self.id)));
    }

    fn message_before(&self, offset: Offset) -> Option<Offset> {
        self.messages.keys().take_while(|&&at| at < offset).last().copied()
    }

    /// Returns whether a message cannot be finished any more: a failure stopped it, or one of those
    /// that its window waits for.
    pub(super) fn is_halted(&self, offset: Offset, message: &MessageState) -> bool {
        let waits_for_halted = || {
            let window = self.windows.get(&message.window);
            window.is_some_and(|w| w.messages.iter().any(|other| self.halted.contains(other)))
        };
        self.halted.contains(&offset)
            || message.phase == MessagePhase::Held && !self.halted.is_empty() && waits_for_halted()
    }
}
