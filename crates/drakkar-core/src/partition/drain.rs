//! The end of an assignment: a drain, its deadline, or a loss.
//!
//! A drain gives back what has not started and finishes what has. Started is a message of which
//! something is to be seen outside: a process of it began to run, an output was handed to a sink, or
//! a dead letter was written. A message without tasks, or with precomputed ones only, has not started
//! until it puts something out.
//!
//! The line between the two is an offset, the *frontier*: the last message that has started.
//! Everything up to it is finished, because a commit can only pass a closed prefix: giving back a
//! message below a finished one would have the next owner repeat the finished one. Everything beyond
//! it is given back: what hooks still answer about it is parked, and taken up only if the frontier
//! moves beyond it. What is finished beyond it left nothing behind, so its repeat costs next to
//! nothing; waiting for all that is before it could take the whole deadline.
//!
//! What is tried again only after the deadline is not waited for: when nothing else is left, its
//! messages are abandoned as they would be at the deadline.
//!
//! With default priorities runs start in offset order, so what is below the frontier has started,
//! unless something was put out without a process.

use super::effect::{DrainCause, Effect, HookAnswer};
use super::message::MessagePhase;
use super::output::Owner;
use super::task::{TaskKey, TaskPhase, TaskState};
use super::window::WindowPhase;
use super::{Partition, Timer};
use drakkar_api::{Event, Instant, Offset, PendingTasks, RunId, Settlement};
use std::collections::BTreeSet;

/// How far the end of an assignment has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Drain {
    /// It has not begun.
    #[default]
    No,
    /// Messages up to `frontier` are being finished.
    Active {
        /// The last message that is finished; `None` when nothing has started.
        frontier: Option<Offset>,
        cause: DrainCause,
        deadline: Instant,
        commit_failed: bool,
    },
    /// The deadline passed; only the commit is waited for.
    Expired { commit_failed: bool },
    /// Nothing more happens.
    Over,
}

impl Drain {
    /// Returns whether the end has begun: nothing new is taken in.
    pub(super) fn is_active(self) -> bool {
        self != Self::No
    }

    /// Returns whether a message is beyond what is finished.
    pub(super) fn gives_back(self, offset: Offset) -> bool {
        matches!(self, Self::Active { frontier, .. } if Some(offset) > frontier)
    }

    pub(super) fn is_over(self) -> bool {
        self == Self::Over
    }

    /// Remembers how the last commit went. One that fails inside a revoke counts as lost: nothing
    /// waits for another. While work goes on, the next end of a message asks for one again. At a
    /// shutdown it is tried again until the deadline.
    pub(super) fn commit_answered(&mut self, success: bool) {
        if let Self::Active { commit_failed, .. } | Self::Expired { commit_failed } = self {
            *commit_failed = !success;
        }
    }

    /// The partition goes to another worker, or is gone already: no commit is tried again.
    pub(super) fn hurry(&mut self) {
        if let Self::Active { cause, .. } = self {
            *cause = DrainCause::Revoke;
        }
    }
}

impl Partition {
    /// More is finished while the assignment ends: a commit that failed before was not the last.
    pub(super) fn drain_progressed(&mut self) {
        if self.drain.is_active() {
            self.drain.commit_answered(true);
            self.commit.force();
        }
    }

    /// Something of a message is to be seen outside: a drain must finish it, and all before it.
    pub(super) fn mark_started(&mut self, offset: Offset) {
        self.newest_started = self.newest_started.max(Some(offset));
    }

    /// Returns whether a hook answered about messages that are about to be given back.
    pub(super) fn is_beyond_drain(&self, answer: &HookAnswer) -> bool {
        let first = match answer {
            HookAnswer::TaskComplete { task, .. } | HookAnswer::Error { task, .. } => {
                self.tasks.get(&task.get()).and_then(|task| task.offsets.first())
            }
            HookAnswer::MessageComplete { offset, .. } => Some(offset),
            HookAnswer::WindowComplete { window, .. } => {
                self.windows.get(window).and_then(|window| window.messages.first())
            }
            // What is in delivery has started.
            HookAnswer::DeliveryError { .. } => None,
        };
        first.is_some_and(|&offset| self.drain.gives_back(offset))
    }

    pub(super) fn on_drain(&mut self, cause: DrainCause, deadline: Instant) {
        if self.drain.is_active() {
            if cause == DrainCause::Revoke {
                self.drain.hurry();
            }
            return;
        }
        for message in std::mem::take(&mut self.queue) {
            self.leave(message.offset, Settlement::GivenBack);
        }
        self.queued_bytes = 0;
        self.give_back_arranging();
        let frontier = self.compute_frontier();
        self.drain = Drain::Active { frontier, cause, deadline, commit_failed: false };
        self.commit.force();
        self.withdraw_beyond(frontier);
    }

    /// Nothing of a window that is still being arranged has started.
    fn give_back_arranging(&mut self) {
        let Some(id) = self.arranging.take() else { return };
        let window = self.windows.remove(&id).expect("it is being arranged");
        debug_assert!(matches!(
            window.phase,
            WindowPhase::Arranging { .. }
                | WindowPhase::Isolating { .. }
                | WindowPhase::Isolated { .. }
        ));
        for offset in &window.messages {
            let message = self.messages.remove(offset).expect("a window's message is kept");
            self.held_bytes -= message.source.size_bytes();
            self.busy_messages -= 1;
            self.leave(*offset, Settlement::GivenBack);
        }
    }

    /// Returns the last message that must be finished: the last started one, and whatever hangs
    /// together with it by shared tasks or by the window hook.
    fn compute_frontier(&self) -> Option<Offset> {
        if cfg!(drakkar_fault = "drain_waits_for_unstarted") {
            return self.messages.keys().next_back().copied();
        }
        let tasks = self.tasks.values().map(|task| &task.offsets[..]);
        let windows = self.windows.values().map(|window| &window.messages[..]);
        let held_together = windows.filter(|_| !self.hooks.window_missing).chain(tasks);
        let spans = held_together.filter_map(|offsets| Some((*offsets.first()?, *offsets.last()?)));
        Some(reach(self.newest_started?, spans))
    }

    fn withdraw_beyond(&mut self, frontier: Option<Offset>) {
        let beyond = self.tasks.iter_mut().filter(|(_, task)| {
            task.phase == TaskPhase::Waiting && task.offsets.first().copied() > frontier
        });
        let withdraw = |(&key, task): (&TaskKey, &mut Box<TaskState>)| {
            task.phase = TaskPhase::Withdrawing;
            RunId::new(key)
        };
        let runs: Vec<_> = beyond.map(withdraw).collect();
        if !runs.is_empty() {
            self.effects.push(Effect::Withdraw(runs));
        }
    }

    /// A run was withdrawn while the partition is drained. If the frontier has passed it since, it
    /// must run after all.
    pub(super) fn on_withdrawn(&mut self, key: TaskKey) {
        let Drain::Active { frontier, .. } = self.drain else { return };
        if self.tasks.get(&key).is_some_and(|task| task.offsets.first().copied() <= frontier) {
            self.start_attempt(key);
        }
    }

    /// Something started while the partition is drained: if that moves the frontier, what is below it
    /// must be finished after all.
    pub(super) fn extend_drain(&mut self) {
        let Drain::Active { frontier, .. } = self.drain else { return };
        if self.newest_started <= frontier {
            return;
        }
        let moved = self.compute_frontier().max(frontier);
        if let Drain::Active { frontier, .. } = &mut self.drain {
            *frontier = moved;
        }
        let again = self.tasks.iter().filter(|(_, task)| {
            task.phase == TaskPhase::Withdrawn && task.offsets.first().copied() <= moved
        });
        let again: Vec<_> = again.map(|(&key, _)| key).collect();
        for key in again {
            self.start_attempt(key);
        }
        if self.hooks.window_missing {
            self.finish_held();
        }
        for answer in std::mem::take(&mut self.parked) {
            self.on_hook_answered(answer);
        }
    }

    /// Ends the assignment once everything up to the frontier is finished and committed, as far as it
    /// can be by the deadline, and no run beyond it can start any more.
    pub(super) fn finish_drain(&mut self) {
        match self.drain {
            Drain::Active { frontier, cause, deadline, commit_failed } => {
                let unfinished = self
                    .messages
                    .iter()
                    .take_while(|&(&offset, _)| Some(offset) <= frontier)
                    .any(|(&offset, message)| !self.is_halted(offset, message));
                let comes_too_late = unfinished && !self.goes_on_by(deadline, frontier);
                let waits = (unfinished && !comes_too_late) || self.waiting_runs > 0;
                if waits && !cfg!(drakkar_fault = "drain_waits_for_nothing") {
                    return;
                }
                let settled = self.commit.is_settled(self.watermark.position())
                    || cfg!(drakkar_fault = "drain_without_commit");
                let is_lost = commit_failed && cause == DrainCause::Revoke;
                if settled || (is_lost && !self.commit.is_in_flight()) {
                    let is_cut_short = comes_too_late || !self.halted.is_empty();
                    if is_cut_short {
                        // What else their messages made goes on until then.
                        self.effects.push(Effect::Fence);
                    }
                    self.leave_started(frontier);
                    self.over(settled && !is_cut_short);
                }
            }
            Drain::Expired { commit_failed } => {
                let settled = self.commit.is_settled(self.watermark.position());
                if settled || (commit_failed && !self.commit.is_in_flight()) {
                    self.over(false);
                }
            }
            Drain::No | Drain::Over => {}
        }
    }

    /// Returns whether anything up to the frontier runs, is in delivery or in a hook, or is tried
    /// again by `deadline`.
    fn goes_on_by(&self, deadline: Instant, frontier: Option<Offset>) -> bool {
        let late: BTreeSet<_> = self.timers.range((deadline, u64::MAX)..).map(owner_of).collect();
        if late.is_empty() {
            return true;
        }
        let is_in = |offset: Option<&Offset>| offset.copied() <= frontier;
        let goes_on = |owner| !late.contains(&owner);
        let stands =
            |phase| matches!(phase, TaskPhase::Withdrawn | TaskPhase::Killed | TaskPhase::Halted);
        let tasks = self.tasks.iter().any(|(&key, task)| {
            is_in(task.offsets.first()) && !stands(task.phase) && goes_on(Owner::Task(key))
        });
        let messages = || {
            self.messages.iter().any(|(&offset, message)| {
                let is_busy = match message.phase {
                    MessagePhase::Completing => goes_on(Owner::Message(offset)),
                    MessagePhase::DeadLettering => true,
                    MessagePhase::Arranging | MessagePhase::Working | MessagePhase::Held => false,
                };
                is_busy && is_in(Some(&offset)) && !self.halted.contains(&offset)
            })
        };
        let windows = || {
            self.windows.iter().any(|(&id, window)| {
                window.phase == WindowPhase::Completing
                    && is_in(window.messages.first())
                    && !window.messages.iter().any(|offset| self.halted.contains(offset))
                    && goes_on(Owner::Window(id))
            })
        };
        tasks || messages() || windows()
    }

    /// Kills what is left; what is finished is still committed.
    pub(super) fn on_drain_expired(&mut self) {
        let Drain::Active { frontier, commit_failed, .. } = self.drain else { return };
        self.effects.push(Effect::Fence);
        if cfg!(drakkar_fault = "drain_finishes_the_unfinished") {
            for offset in self.open_offsets() {
                self.finish_message(offset);
            }
        }
        for offset in self.open_offsets() {
            let is_beyond = Some(offset) > frontier;
            let how = if is_beyond { Settlement::GivenBack } else { Settlement::Abandoned };
            self.leave(offset, how);
        }
        self.abandon();
        self.commit.force();
        self.drain = Drain::Expired { commit_failed };
    }

    /// Somebody else may own the partition: no drain and no commit.
    pub(super) fn on_lost(&mut self) {
        self.effects.push(Effect::Fence);
        self.report_all_left();
        self.abandon();
        self.over(false);
    }

    /// A message leaves unfinished.
    pub(super) fn leave(&mut self, offset: Offset, settlement: Settlement) {
        self.given_back += usize::from(settlement == Settlement::GivenBack);
        self.effects.push(Effect::Settle(offset, settlement));
        self.report_left(offset, settlement);
    }

    /// Reports all messages that are here as leaving. The source is not told: its assignment is gone.
    pub(crate) fn report_all_left(&self) {
        for &offset in self.messages.keys() {
            let has_started = Some(offset) <= self.newest_started;
            let how = if has_started { Settlement::Abandoned } else { Settlement::GivenBack };
            self.report_left(offset, how);
        }
        for message in &self.queue {
            self.report_left(message.offset, Settlement::GivenBack);
        }
    }

    fn report_left(&self, offset: Offset, settlement: Settlement) {
        self.observer.observe(&Event::MessageLeft { partition: &self.id, offset, settlement });
    }

    fn open_offsets(&self) -> Vec<Offset> {
        self.messages.keys().copied().collect()
    }

    /// Forgets all work, so that a late answer about it finds nothing.
    fn abandon(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.windows.clear();
        self.arranging = None;
        self.messages.clear();
        self.tasks.clear();
        self.pending = PendingTasks::default();
        self.sets.clear();
        self.groups.clear();
        self.letters.clear();
        self.timers.clear();
        self.parked.clear();
        self.waiting_runs = 0;
        self.submitted_runs = 0;
        self.busy_messages = 0;
        self.held_bytes = 0;
        self.held_payloads = 0;
        self.tasks_with_output = 0;
    }

    /// What is up to the frontier and unfinished had started.
    fn leave_started(&mut self, frontier: Option<Offset>) {
        let started = self.messages.keys().filter(|&&offset| Some(offset) <= frontier);
        let started: Vec<_> = started.copied().collect();
        for offset in started {
            self.messages.remove(&offset);
            self.leave(offset, Settlement::Abandoned);
        }
    }

    fn over(&mut self, clean: bool) {
        for offset in self.open_offsets() {
            self.leave(offset, Settlement::GivenBack);
        }
        self.abandon();
        self.drain = Drain::Over;
        self.effects.push(Effect::Over { clean });
    }
}

/// Returns what waits for a timer.
fn owner_of((_, timer): (&(Instant, u64), &Timer)) -> Owner {
    match *timer {
        Timer::Arrange(id) => Owner::Window(id),
        Timer::Attempt(key) => Owner::Task(key),
        Timer::Hook(owner) => owner,
    }
}

/// Returns how far one gets from `start` on by spans, each of which leads from its first place or any
/// later one to its last.
fn reach<T: Ord + Copy>(start: T, spans: impl Iterator<Item = (T, T)>) -> T {
    let mut ahead: Vec<_> = spans.filter(|(_, last)| *last > start).collect();
    ahead.sort_unstable_by_key(|(first, _)| *first);
    let mut reached = start;
    for (first, last) in ahead {
        if first > reached {
            break;
        }
        reached = reached.max(last);
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::reach;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::cmp::Ordering;

    /// A place that counts how often places are compared.
    #[derive(Clone, Copy)]
    struct Counted<'a>(u32, &'a Cell<u32>);

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get() + 1);
            assert!(self.1.get() <= 40 * LENGTH, "too many comparisons");
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Counted<'_> {}

    const LENGTH: u32 = 100_000;

    #[test]
    fn a_long_chain_is_followed_in_few_steps() {
        let compared = Cell::new(0);
        let at = |place| Counted(place, &compared);
        // All of them, in no order.
        let links = (0..LENGTH).map(|index| index * 7919 % LENGTH);
        let spans = links.map(|link| (at(link), at(link + 1)));
        assert_eq!(reach(at(0), spans).0, LENGTH);
    }

    proptest! {
        // Promise: RB-1
        #[test]
        fn agrees_with_one_link_after_the_other(
            start in 0_u8..40,
            spans in prop::collection::vec((0_u8..40, 0_u8..6), 0..30),
        ) {
            let spans: Vec<_> = spans.into_iter().map(|(first, more)| (first, first + more)).collect();
            let mut expect = start;
            while let Some((_, last)) =
                spans.iter().find(|(first, last)| *first <= expect && *last > expect)
            {
                expect = *last;
            }
            prop_assert_eq!(reach(start, spans.into_iter()), expect);
        }
    }
}
