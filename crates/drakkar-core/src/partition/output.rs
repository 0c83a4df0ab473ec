//! Outputs of hooks: routed as a whole, delivered per sink, settled payload by payload.

use super::effect::{
    Effect, HookAnswer, HookCall, ItemEnd, ItemKey, Letter, LetterContent, Outgoing, TaskName,
};
use super::message::{Fate, TaskEnd};
use super::task::TaskKey;
use super::{HookFailure, Partition};
use crate::config::SendFailurePolicy;
use drakkar_api::{
    DeliveryAction, DeliveryFailure, DeliveryId, Event, Hook, MessageEnd, Offset, Outputs, Payload,
    SinkError, TaskId, WindowId,
};
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most answers are one payload.
type Payloads = SmallVec<[(DeliveryId, Arc<Payload>); 1]>;

/// Whose outputs they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Task(TaskKey),
    Message(Offset),
    Window(WindowId),
}

/// Those payloads of one answer of a hook that go to one sink.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) owner: Owner,
    /// The set that it belongs to, if there are others.
    set: Option<u64>,
    pub(super) lane: usize,
    payloads: Payloads,
    bytes: usize,
    /// Payloads, or letters about them, that are not settled.
    pending: usize,
    /// Payloads that the lane gave up, by index, with all attempts made for them.
    failed: BTreeMap<u32, (SinkError, u32)>,
    /// Attempts before the handler asked for more, by index.
    attempts_before: BTreeMap<u32, u32>,
    handler_retries: u32,
}

/// Who waits for a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetterOwner {
    Message(Offset),
    Group(u64),
}

/// A dead letter on its way.
#[derive(Debug)]
pub(super) struct LetterState {
    owner: LetterOwner,
    offset: Offset,
    kind: &'static str,
    error_kind: String,
    error: String,
}

/// Where outputs come from: what their ids are made of.
struct Origin {
    owner: Owner,
    hook: Hook,
    offset: Offset,
    number: u32,
}

impl Partition {
    pub(super) fn on_hook_answered(&mut self, answer: HookAnswer) {
        if self.is_beyond_drain(&answer) {
            return self.parked.push(answer);
        }
        match answer {
            HookAnswer::TaskComplete { task, result } => self.on_task_hook(task, result),
            HookAnswer::Error { task, result } => self.on_error_hook(task, result),
            HookAnswer::MessageComplete { offset, result } => self.on_message_hook(offset, result),
            HookAnswer::WindowComplete { window, result } => self.on_window_hook(window, result),
            HookAnswer::DeliveryError { group, result } => self.on_delivery_hook(group, result),
        }
    }

    pub(super) fn deliver_task_outputs(&mut self, key: TaskKey, outputs: Outputs) {
        let state = &self.tasks[&key];
        let offset = *state.offsets.first().expect("a started task has a message");
        let origin = Origin {
            owner: Owner::Task(key),
            hook: Hook::OnTaskComplete,
            offset,
            number: state.ordinal,
        };
        self.deliver(origin, outputs);
    }

    pub(super) fn deliver_message_outputs(&mut self, offset: Offset, outputs: Outputs) {
        let origin = Origin {
            owner: Owner::Message(offset),
            hook: Hook::OnMessageComplete,
            offset,
            number: DeliveryId::MESSAGE_HOOK,
        };
        self.deliver(origin, outputs);
    }

    pub(super) fn deliver_window_outputs(&mut self, id: WindowId, outputs: Outputs) {
        let origin = Origin {
            owner: Owner::Window(id),
            hook: Hook::OnWindowComplete,
            offset: self.windows[&id].messages[0],
            number: DeliveryId::WINDOW_HOOK,
        };
        self.deliver(origin, outputs);
    }

    /// Routes all payloads before any is sent: one that routes nowhere stops the whole answer.
    fn deliver(&mut self, origin: Origin, outputs: Outputs) {
        let owner = origin.owner;
        if outputs.is_empty() {
            return self.outputs_done(owner);
        }
        let mut by_lane: SmallVec<[(usize, Payloads); 1]> = SmallVec::new();
        for (index, payload) in outputs.into_payloads().into_iter().enumerate() {
            match self.router.route(&payload) {
                Ok(lane) => {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    let id = DeliveryId::new(self.id.clone(), origin.offset, origin.number, index);
                    let entry = (id, Arc::new(payload));
                    match by_lane.iter_mut().find(|(of, _)| *of == lane) {
                        Some((_, payloads)) => payloads.push(entry),
                        None => by_lane.push((lane, smallvec![entry])),
                    }
                }
                Err(error) => return self.on_unroutable(&origin, error.to_string()),
            }
        }
        let last = match origin.owner {
            Owner::Task(key) => self.tasks[&key].offsets.last().copied(),
            Owner::Message(offset) => Some(offset),
            Owner::Window(id) => self.windows[&id].messages.last().copied(),
        };
        self.mark_started(last.expect("outputs have a message"));
        let set = (by_lane.len() > 1).then(|| {
            let set = self.draw_key();
            self.sets.insert(set, by_lane.len());
            set
        });
        for (lane, payloads) in by_lane {
            let key = self.draw_key();
            let bytes = payloads.iter().map(|(_, payload)| payload.size_bytes()).sum();
            self.held_bytes += bytes;
            self.held_payloads += payloads.len();
            for ((id, payload), index) in payloads.iter().zip(0..) {
                let item = Outgoing {
                    key: ItemKey::Payload { group: key, index },
                    id: id.clone(),
                    payload: Arc::clone(payload),
                };
                self.effects.push(Effect::Deliver { lane, item });
            }
            let group = Group {
                owner: origin.owner,
                set,
                lane,
                pending: payloads.len(),
                payloads,
                bytes,
                failed: BTreeMap::new(),
                attempts_before: BTreeMap::new(),
                handler_retries: 0,
            };
            self.groups.insert(key, Box::new(group));
        }
        if cfg!(drakkar_fault = "task_outputs_not_awaited") && matches!(owner, Owner::Task(_))
            || cfg!(drakkar_fault = "message_outputs_not_awaited")
                && matches!(owner, Owner::Message(_))
        {
            self.groups.retain(|_, group| group.owner != owner);
            self.outputs_done(owner);
        }
    }

    fn on_unroutable(&mut self, origin: &Origin, error: String) {
        let (window, task) = match origin.owner {
            Owner::Task(key) => (self.tasks[&key].window, self.tasks[&key].task.id.as_ref()),
            Owner::Message(offset) => (self.messages[&offset].window, None),
            Owner::Window(id) => (id, None),
        };
        self.observer.observe(&Event::HookFailed {
            hook: origin.hook,
            partition: Some(&self.id),
            window: Some(window),
            offset: Some(origin.offset),
            task: task.map(TaskId::as_str),
            error: &error,
            panicked: false,
        });
        let fate = Fate::from_routing(origin.hook, error);
        match origin.owner {
            Owner::Task(key) => self.fail_task(key, &fate),
            Owner::Message(offset) => {
                self.doom(offset, fate);
                self.message_outputs_done(offset);
            }
            Owner::Window(id) => self.dead_letter_window(id, &fate),
        }
    }

    fn outputs_done(&mut self, owner: Owner) {
        match owner {
            Owner::Task(key) => self.settle_task(key, TaskEnd::Succeeded),
            Owner::Message(offset) => self.message_outputs_done(offset),
            Owner::Window(id) => self.window_outputs_done(id),
        }
    }

    pub(super) fn on_item_ended(&mut self, key: ItemKey, end: ItemEnd) {
        match key {
            ItemKey::Payload { group, index } => self.on_payload_ended(group, index, end),
            ItemKey::Letter(letter) => self.on_letter_ended(letter, &end),
        }
    }

    pub(super) fn on_item_held(&self, key: ItemKey, error: &SinkError) {
        let ItemKey::Letter(letter) = key else { return };
        if let Some(letter) = self.letters.get(&letter) {
            self.observer.observe(&Event::DeadLetterFailed {
                partition: &self.id,
                offset: letter.offset,
                error,
                dropped: false,
            });
        }
    }

    fn on_payload_ended(&mut self, key: u64, index: u32, end: ItemEnd) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.pending -= 1;
        if let ItemEnd::Failed { error, attempts } = end {
            let before = group.attempts_before.get(&index).copied().unwrap_or(0);
            group.failed.insert(index, (error, before.saturating_add(attempts)));
        }
        if group.pending > 0 {
            return;
        }
        if group.failed.is_empty() {
            return self.group_done(key);
        }
        let attempts = group.failed.values().map(|(_, attempts)| *attempts).max();
        let (error, _) = group.failed.values().next_back().expect("not empty");
        let failure = DeliveryFailure {
            sink: self.router.sink(group.lane).clone(),
            error: error.clone(),
            attempts: attempts.unwrap_or(0),
            payloads: group.failed_payloads().map(|(_, (_, p))| p.as_ref().clone()).collect(),
        };
        let offset = self.owner_offset(key);
        self.effects.push(Effect::Hook(HookCall::DeliveryError { group: key, offset, failure }));
    }

    fn on_delivery_hook(&mut self, key: u64, result: Result<DeliveryAction, HookFailure>) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        let retries_left = group.handler_retries < self.config.handler_delivery_retries_max;
        match result {
            Ok(DeliveryAction::Retry) if retries_left => {
                group.handler_retries += 1;
                self.send_again(key);
            }
            Ok(DeliveryAction::Skip) => {
                self.observer.observe(&Event::DeliverySkipped {
                    sink: self.router.sink(group.lane),
                    payloads: group.failed.len(),
                });
                self.group_done(key);
            }
            Ok(_) => self.dead_letter_group(key),
            Err(failure) => {
                // The payloads are kept as payloads, and the message as a message, as for an error
                // of any other hook.
                for offset in self.owner_offsets(key) {
                    self.doom(offset, Fate::from_hook(&failure));
                }
                self.dead_letter_group(key);
            }
        }
    }

    /// Sends what is not confirmed to the lane again (promise DL-3).
    fn send_again(&mut self, key: u64) {
        let group = self.groups.get_mut(&key).expect("the caller found it");
        if cfg!(drakkar_fault = "retry_repeats_confirmed") {
            let (_, failure) = group.failed.first_key_value().expect("something failed");
            let failure = failure.clone();
            let all = (0_u32..).zip(&group.payloads).map(|(index, _)| (index, failure.clone()));
            group.failed = all.collect();
        }
        let items = group.failed_payloads().map(|(index, (id, payload))| Outgoing {
            key: ItemKey::Payload { group: key, index },
            id: id.clone(),
            payload: Arc::clone(payload),
        });
        let items: Vec<_> = items.collect();
        group.pending = items.len();
        let failed = std::mem::take(&mut group.failed);
        group.attempts_before.extend(failed.into_iter().map(|(index, (_, tried))| (index, tried)));
        let lane = group.lane;
        self.effects.extend(items.into_iter().map(|item| Effect::Deliver { lane, item }));
    }

    fn dead_letter_group(&mut self, key: u64) {
        let offset = self.owner_offset(key);
        let (task, hook) = self.owner_origin(key);
        let source = Arc::clone(&self.messages[&offset].source);
        let group = self.groups.get_mut(&key).expect("the caller found it");
        let failed = std::mem::take(&mut group.failed);
        group.pending = failed.len();
        let sink = self.router.sink(group.lane).clone();
        for (index, (error, attempts)) in failed {
            let (id, payload) = self.groups[&key].payloads[index as usize].clone();
            let letter = Letter {
                content: LetterContent::Payload { payload, sink: sink.clone(), id },
                source: Arc::clone(&source),
                task: task.clone(),
                hook: Some(hook),
                error_kind: error.kind().as_str().to_owned(),
                error: error.message().to_owned(),
                attempts,
            };
            self.send_letter(LetterOwner::Group(key), letter);
        }
    }

    /// Returns whether payloads of a group are on their way to the dead letters.
    pub(super) fn has_letter_of(&self, group: u64) -> bool {
        self.letters.values().any(|letter| letter.owner == LetterOwner::Group(group))
    }

    pub(super) fn send_letter(&mut self, owner: LetterOwner, letter: Letter) {
        let key = self.draw_key();
        let state = LetterState {
            owner,
            offset: letter.source.offset,
            kind: match letter.content {
                LetterContent::Message => "message",
                LetterContent::Payload { .. } => "payload",
            },
            error_kind: letter.error_kind.clone(),
            error: letter.error.clone(),
        };
        self.letters.insert(key, state);
        self.effects.push(Effect::DeadLetter { key, letter: Box::new(letter) });
    }

    fn on_letter_ended(&mut self, letter: u64, end: &ItemEnd) {
        let Some(letter) = self.letters.remove(&letter) else { return };
        // Under `hold` the lane goes on trying, so a failed letter is one that may be dropped.
        let dropped = match end {
            ItemEnd::Confirmed => {
                self.observer.observe(&Event::DeadLettered {
                    partition: &self.id,
                    offset: letter.offset,
                    kind: letter.kind,
                    error_kind: &letter.error_kind,
                    error: &letter.error,
                });
                false
            }
            ItemEnd::Failed { error, .. } => {
                debug_assert!(self.config.on_send_failure == SendFailurePolicy::Drop);
                self.observer.observe(&Event::DeadLetterFailed {
                    partition: &self.id,
                    offset: letter.offset,
                    error,
                    dropped: true,
                });
                true
            }
        };
        match letter.owner {
            LetterOwner::Message(offset) => {
                let end = if dropped { MessageEnd::Dropped } else { MessageEnd::DeadLettered };
                self.settle_message(offset, end);
            }
            LetterOwner::Group(key) => {
                let group = self.groups.get_mut(&key).expect("a group outlives its letters");
                group.pending -= 1;
                if group.pending == 0 {
                    self.group_done(key);
                }
            }
        }
    }

    fn group_done(&mut self, key: u64) {
        let group = self.groups.remove(&key).expect("a group is done once");
        self.held_bytes -= group.bytes;
        self.held_payloads -= group.payloads.len();
        if let Some(key) = group.set {
            let set = self.sets.get_mut(&key).expect("a set outlives its groups");
            *set -= 1;
            if *set > 0 {
                return;
            }
            self.sets.remove(&key);
        }
        self.outputs_done(group.owner);
    }

    fn owner(&self, group: u64) -> Owner {
        self.groups[&group].owner
    }

    pub(super) fn owner_offsets(&self, group: u64) -> Vec<Offset> {
        self.offsets_of(self.owner(group))
    }

    /// Returns the messages that outputs belong to; never none.
    pub(super) fn offsets_of(&self, owner: Owner) -> Vec<Offset> {
        match owner {
            Owner::Task(key) => self.tasks[&key].offsets.to_vec(),
            Owner::Message(offset) => vec![offset],
            Owner::Window(id) => self.windows[&id].messages.clone(),
        }
    }

    fn owner_offset(&self, group: u64) -> Offset {
        self.owner_offsets(group)[0]
    }

    fn owner_origin(&self, group: u64) -> (Option<TaskName>, Hook) {
        match self.owner(group) {
            Owner::Task(key) => (Some(TaskName::of(&self.tasks[&key].task)), Hook::OnTaskComplete),
            Owner::Message(_) => (None, Hook::OnMessageComplete),
            Owner::Window(_) => (None, Hook::OnWindowComplete),
        }
    }
}

impl Group {
    /// Returns whether `on_delivery_error` is to say what follows.
    pub(super) fn is_with_handler(&self) -> bool {
        self.pending == 0 && !self.failed.is_empty()
    }

    /// Returns the payloads that failed, with their index.
    pub(super) fn failed_payloads(
        &self,
    ) -> impl Iterator<Item = (u32, &(DeliveryId, Arc<Payload>))> {
        self.failed.keys().map(|&index| (index, &self.payloads[index as usize]))
    }
}
