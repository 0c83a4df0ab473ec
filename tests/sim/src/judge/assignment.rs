//! The judge's account of one assignment: plain data, and questions that need nothing else.

use crate::journal::WorkerNumber;
use crate::seen::{Delivered, Heard, Number, Place, Shape};
use drakkar_api::{CommitOffset, Epoch, Hook, Offset, Settlement, TaskOutcome, WindowId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One assignment.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) worker: WorkerNumber,
    pub(super) partition: i32,
    pub(super) position: CommitOffset,
    /// Since when it is being drained.
    pub(super) drain: Option<Duration>,
    /// Whether that drain finishes the whole of each window of which something has started.
    pub(super) drains_whole_windows: bool,
    pub(super) end: Option<End>,
    /// Whether all its runs were cancelled: the engine has forgotten its work.
    pub(super) fenced: bool,
    /// Whether it was looked at after its end.
    pub(super) end_checked: bool,
    pub(super) messages: BTreeMap<Offset, Message>,
    pub(super) windows: BTreeMap<WindowId, Window>,
    pub(super) tasks: BTreeMap<Number, Task>,
    /// Messages for which `arrange` was called alone: each may share a window with the one before it.
    pub(super) alone: BTreeSet<Offset>,
    /// Calls of `arrange`, or of what belongs to it, that failed.
    /// Whether messages of the next window that is seen could not be taken at first.
    pub(super) window_was_tried: bool,
    pub(super) arrange_failures: u32,
    /// How many attempts in a row have put out as much as any that succeeds.
    pub(super) full_outputs: u32,
    pub(super) commits: Commits,
    /// The oldest unfinished message, and since when it is that.
    pub(super) oldest: Option<(Offset, Duration)>,
    /// Whether the engine says that it is stalled.
    pub(super) stalled: bool,
    /// The oldest message that is unfinished, in a window or not, and since when it is that.
    pub(super) blocking: Option<(Offset, Duration)>,
    /// Since when tasks must be killed that it waits for.
    pub(super) kill_due: Option<Duration>,
    /// When such tasks were last killed.
    pub(super) killed_at: Option<Duration>,
    /// The first offset at which the engine says that it stops the worker.
    pub(super) stopped_at: Option<Offset>,
    /// Whether the engine has learnt that there is no window hook.
    pub(super) knows_no_window_hook: bool,
}

/// The end of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: Duration,
    pub(super) how: How,
}

/// How an assignment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Drained,
    Lost,
    Crashed,
}

/// The commits of one assignment.
#[derive(Debug, Default)]
pub(super) struct Commits {
    pub(super) asked: Option<CommitOffset>,
    pub(super) asked_at: Option<Duration>,
    pub(super) is_open: bool,
    pub(super) answered_at: Option<Duration>,
    /// Whether one failed since the drain began.
    pub(super) trouble_in_drain: bool,
    /// Whether the newest one failed.
    pub(super) failed: bool,
    /// Messages finished since the newest one was asked for.
    pub(super) finished_since: usize,
    /// Since when there is something to commit.
    pub(super) wanting_since: Option<Duration>,
}

/// One message in one assignment.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: usize,
    pub(super) shape: Shape,
    /// How often its value did not parse.
    pub(super) parse_failures: u32,
    /// When it last did not.
    pub(super) unparsed_at: Option<Duration>,
    /// Whether it is known to be in a window.
    pub(super) taken: bool,
    /// When that became known.
    pub(super) taken_at: Option<Duration>,
    pub(super) window: Option<WindowId>,
    /// The call of `arrange` that gave it its tasks.
    pub(super) arranged: Option<u64>,
    pub(super) tasks: Vec<Number>,
    pub(super) hook: HookState,
    /// Of its hook.
    pub(super) payloads: Vec<Number>,
    /// Of its hook, since the last answer that was no error.
    pub(super) hook_failures: u32,
    pub(super) doom: Option<Doom>,
    /// When a failure of it was known that stops the worker.
    pub(super) halted: Option<Duration>,
    pub(super) letter: Letter,
    pub(super) settled: Option<Settlement>,
    /// When something of it was first certainly known to the engine to be outside.
    pub(super) started: Option<Duration>,
}

/// One window.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) messages: BTreeSet<Offset>,
    pub(super) hook: HookState,
    pub(super) hook_failures: u32,
    pub(super) payloads: Vec<Number>,
}

/// How far a hook has come that is called once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HookState {
    #[default]
    NotCalled,
    Called,
    Answered,
}

/// Why a message must go to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    Hook(Hook),
    Task,
    Parse,
}

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) offsets: Vec<Offset>,
    pub(super) window: WindowId,
    pub(super) origin: Origin,
    /// Its place among the tasks that the seed wants of its message.
    pub(super) recipe: Option<usize>,
    pub(super) generation: u32,
    pub(super) phase: TaskPhase,
    pub(super) run: RunPhase,
    /// How its last run ended; `None` for a result that was known.
    pub(super) outcome: Option<TaskOutcome>,
    /// Attempts for which `on_error` has decided.
    pub(super) errors: u32,
    /// Calls of a hook for the same attempt that failed.
    pub(super) hook_failures: u32,
    /// Replacements that must be refused, and the messages that are doomed by that.
    pub(super) refused: Option<(Vec<Number>, Vec<Offset>)>,
    pub(super) payloads: Vec<Number>,
}

/// Where a task comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Arrange(u64),
    Replaces(Number),
}

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskPhase {
    Open,
    Succeeded,
    /// Its failure was accepted.
    Skipped,
    Failed,
    Replaced,
}

/// Where the run of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunPhase {
    None,
    Waiting,
    Running(Duration),
    /// It ended, but the engine was not told.
    Unreported,
}

/// One payload.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) epoch: Epoch,
    pub(super) owner: Owner,
    /// Where it was sent.
    pub(super) sink: Option<Place>,
    pub(super) offers: u32,
    /// Offers before the handler asked for more.
    pub(super) offers_before: u32,
    pub(super) handler_retries: u32,
    /// Whether the handler's wish for another attempt is not used yet.
    pub(super) granted: bool,
    pub(super) in_flight: bool,
    pub(super) last: Option<Heard>,
    pub(super) skipped: bool,
    /// Whether `on_delivery_error` was called since it failed.
    pub(super) asked: bool,
    /// Whether it must go to the dead letters.
    pub(super) lettering: bool,
    pub(super) letter: Letter,
    pub(super) applied: u32,
}

/// Whose payload it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Task(Number),
    Message(Offset),
    Window(WindowId),
}

/// The attempts to write a dead letter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Letter {
    pub(super) offers: u32,
    pub(super) in_flight: bool,
    pub(super) last: Option<Heard>,
}

impl Assignment {
    pub(super) fn new(worker: WorkerNumber, partition: i32, position: CommitOffset) -> Self {
        Self {
            worker,
            partition,
            position,
            drain: None,
            drains_whole_windows: false,
            end: None,
            fenced: false,
            end_checked: false,
            messages: BTreeMap::new(),
            windows: BTreeMap::new(),
            tasks: BTreeMap::new(),
            alone: BTreeSet::new(),
            window_was_tried: false,
            arrange_failures: 0,
            full_outputs: 0,
            commits: Commits::default(),
            oldest: None,
            stalled: false,
            blocking: None,
            kill_due: None,
            killed_at: None,
            stopped_at: None,
            knows_no_window_hook: false,
        }
    }

    /// The position after the last message of which, and of all before it, the engine said that it
    /// is finished.
    pub(super) fn finished_position(&self) -> CommitOffset {
        let finished = self.messages.iter().take_while(|(_, message)| message.is_finished());
        finished.last().map_or(self.position, |(offset, _)| offset.next())
    }

    pub(super) fn move_to_window(&mut self, offset: Offset, window: WindowId) {
        let Some(message) = self.messages.get_mut(&offset) else { return };
        if let Some(other) = message.window.replace(window).filter(|it| *it != window) {
            self.windows.entry(other).or_default().messages.remove(&offset);
        }
        self.windows.entry(window).or_default().messages.insert(offset);
    }

    /// The first message that may be in a window: `arrange` is not told of those that do not parse, so
    /// any before it that are in no other window may be.
    pub(super) fn first_of(&self, window: &Window) -> Option<Offset> {
        let first = *window.messages.first()?;
        let before = self.messages.range(..first).rev();
        let loose = before.take_while(|(_, message)| message.taken && message.window.is_none());
        Some(loose.last().map_or(first, |(offset, _)| *offset))
    }

    /// A message is arranged in another window than before: its window was divided at the message
    /// before it, and what comes from there on belongs to the new one.
    pub(super) fn note_division(&mut self, offset: Offset, rest: WindowId) {
        let window = self.messages.get(&offset).and_then(|message| message.window);
        let Some(window) = window.filter(|window| *window != rest) else { return };
        let Some(divided) = self.windows.get(&window) else { return };
        let before = divided.messages.range(..offset).next_back().copied();
        let moved = divided.messages.range(before.unwrap_or(offset)..).copied();
        for offset in moved.collect::<Vec<_>>() {
            self.move_to_window(offset, rest);
        }
        for task in self.tasks.values_mut() {
            if before.is_some() && task.first() == before {
                task.window = rest;
            }
        }
    }

    /// Takes out of a window what is not among these, but for what could not even be decoded.
    pub(super) fn leave_window(&mut self, id: WindowId, stay: &[Offset]) {
        let Some(window) = self.windows.get_mut(&id) else { return };
        window.messages.retain(|offset| {
            let message = self.messages.get_mut(offset);
            let decoded = message.filter(|it| it.arranged.is_some() || it.doom.is_none());
            let leaves = decoded.filter(|_| !stay.contains(offset));
            leaves.map(|message| message.window = None).is_none()
        });
    }

    /// Returns whether a run is with the executor.
    pub(super) fn has_runs(&self) -> bool {
        self.tasks.values().any(|task| matches!(task.run, RunPhase::Running(_)))
    }

    /// Returns whether something is not finished.
    pub(super) fn has_work(&self) -> bool {
        self.messages.values().any(|message| message.taken && message.settled.is_none())
    }

    /// The last message that may have left a trace outside, with all that hangs together with it:
    /// what a drain may finish. No later message may be begun.
    pub(super) fn frontier(&self, window_hook: bool) -> Option<Offset> {
        // One that could not be arranged may be on its way to the dead letters.
        let given_up =
            |it: &Message| self.arrange_failures > 0 && it.taken && it.arranged.is_none();
        let touched = self.messages.iter().filter(|(_, it)| it.may_have_started() || given_up(it));
        let by_messages = touched.map(|(offset, _)| *offset).max();
        let ran = self.tasks.values().filter(|task| task.may_have_started());
        let by_tasks = ran.filter_map(|task| task.offsets.iter().max()).max().copied();
        let outputs = self.windows.values().filter(|window| !window.payloads.is_empty());
        let by_windows = outputs.filter_map(|window| window.messages.last()).max().copied();
        let mut frontier = by_messages.max(by_tasks).max(by_windows)?;
        loop {
            let tasks = self.tasks.values().filter(|task| task.first() <= Some(frontier));
            let tasks = tasks.filter_map(|task| task.offsets.iter().max()).max().copied();
            let windows = self.windows.values().filter(|_| window_hook);
            let windows = windows.filter(|window| self.first_of(window) <= Some(frontier));
            let windows = windows.filter_map(|window| window.messages.last()).max().copied();
            let alone = self.alone.iter().filter(|_| window_hook);
            let alone = alone.filter(|at| {
                let before = self.messages.range(..**at).next_back();
                before.is_some_and(|(before, _)| *before <= frontier)
            });
            let next = tasks.max(windows).max(alone.max().copied()).max(Some(frontier))?;
            if next == frontier {
                return Some(frontier);
            }
            frontier = next;
        }
    }
}

impl Message {
    pub(super) fn new(delivered: Delivered) -> Self {
        Self {
            bytes: delivered.bytes,
            shape: delivered.shape,
            parse_failures: 0,
            unparsed_at: None,
            taken: false,
            taken_at: None,
            window: None,
            arranged: None,
            tasks: Vec::new(),
            hook: HookState::NotCalled,
            payloads: Vec::new(),
            hook_failures: 0,
            doom: None,
            halted: None,
            letter: Letter::default(),
            settled: None,
            started: None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.settled, Some(Settlement::Finished | Settlement::DeadLettered))
    }

    fn may_have_started(&self) -> bool {
        self.doom.is_some()
            || self.halted.is_some()
            || !self.payloads.is_empty()
            || self.started.is_some()
    }
}

impl Task {
    pub(super) fn first(&self) -> Option<Offset> {
        self.offsets.iter().min().copied()
    }

    fn may_have_started(&self) -> bool {
        !self.payloads.is_empty() || matches!(self.run, RunPhase::Running(_) | RunPhase::Unreported)
    }
}

impl Letter {
    pub(super) fn is_confirmed(&self) -> bool {
        self.last == Some(Heard::Confirmed)
    }

    /// Returns whether nobody would try it again after so many retries.
    pub(super) fn is_given_up(&self, retries_max: u32) -> bool {
        match self.last {
            Some(Heard::Rejected) => !self.in_flight,
            Some(Heard::NotApplied | Heard::Unknown) => {
                !self.in_flight && self.offers > retries_max
            }
            _ => false,
        }
    }
}
