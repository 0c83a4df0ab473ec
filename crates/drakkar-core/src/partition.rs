//! All decisions about one assigned partition, in pure code.
//!
//! [`Partition::handle`] takes what happened and answers what to do. It reads no clock, starts
//! nothing and calls no user code: parsing, hooks, processes, deliveries and commits are effects
//! that the driver performs and whose results come back as inputs. So the same code runs in
//! production, in property tests and in a simulation.
//!
//! The life of a message: queued -> in a window that is arranged -> working (tasks) -> completing
//! (`on_message_complete` and its outputs) -> dead-lettering, if it must be -> held, until its
//! window is done (only if there is a window hook) -> finished. Only `Partition::finish_message`
//! finishes an offset, and only a settled message gets there (promise DL-1).
//!
//! Limits: messages waiting for a window (count and bytes, by credit), open windows, tasks of a
//! window, undelivered payloads (over all partitions), length of a chain of replacements, distance between the oldest unfinished offset and
//! the newest one.
//!
//! It refuses to know what a message is made of, what a sink does, and what time it is.

mod arrange;
mod drain;
mod effect;
mod failure;
mod message;
mod output;
mod stall;
mod task;
#[cfg(test)]
mod tests;
mod window;

#[cfg(test)]
pub(crate) use effect::TaskName;
pub(crate) use effect::{
    ArrangeCall, DrainCause, Effect, HookAnswer, HookCall, HookFailure, Input, ItemEnd, ItemKey,
    Letter, LetterContent, Outgoing,
};

use crate::ascending::AscendingMap;
use crate::backpressure::{Admission, Load};
use crate::commit::CommitSchedule;
use crate::config::EngineConfig;
use crate::delivery::Router;
use crate::retry::Jitter;
use crate::watermark::{OutOfOrder, Watermark};
use drain::Drain;
use drakkar_api::{
    Credit, Epoch, Event, Handler, Instant, Observer, Offset, PartitionId, PendingTasks, RunId,
    Settlement, SourceError, SourceErrorKind, SourceMessage, WindowId, WrittenHooks,
};
use message::MessageState;
use output::{Group, LetterState, Owner};
use stall::Progress;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use task::{TaskIds, TaskKey, TaskState};
use window::WindowState;

/// The longest list of effects that is kept for the next input.
const EFFECTS_KEPT_MAX: usize = 1024;

/// The state of one assigned partition.
pub(crate) struct Partition {
    id: PartitionId,
    epoch: Epoch,
    config: Arc<EngineConfig>,
    router: Arc<Router>,
    observer: Arc<dyn Observer>,
    /// Looks up the process of a run, for reports.
    pids: Option<Arc<dyn Fn(RunId) -> Option<u32> + Send + Sync>>,
    now: Instant,
    effects: Vec<Effect>,

    /// Messages that wait for a window, and their bytes.
    queue: VecDeque<SourceMessage>,
    queued_bytes: usize,
    /// The newest offset that the source handed over.
    newest_arrived: Option<Offset>,
    /// What the source may still hand over. Bytes may be negative: one message may exceed them.
    credit_messages: usize,
    credit_bytes: i64,

    watermark: Watermark,
    commit: CommitSchedule,
    jitter: Jitter,

    windows: AscendingMap<WindowId, WindowState>,
    windows_formed: u64,
    /// What windows may be formed, as far as all partitions together go.
    admission: Admission,
    /// Whether what was arranged since then is not in the load of all partitions yet.
    is_admission_stale: bool,
    /// The window whose `arrange` runs or waits for its next attempt, or for one to decode a value.
    arranging: Option<WindowId>,
    messages: AscendingMap<Offset, Box<MessageState>>,
    /// The newest message that has left a trace outside, finished or not: a process of it has
    /// started, an output was handed to a sink, or a dead letter was written.
    newest_started: Option<Offset>,
    tasks: AscendingMap<TaskKey, Box<TaskState>>,
    /// The same, as windows are given it.
    pending: PendingTasks,
    tasks_made: u64,
    task_ids: TaskIds,
    /// Runs that the executor has and that have not started.
    waiting_runs: usize,
    /// Runs that the executor has.
    submitted_runs: usize,
    /// How many groups are open of an answer that goes to several sinks.
    sets: AscendingMap<u64, usize>,
    groups: AscendingMap<u64, Box<Group>>,
    letters: AscendingMap<u64, LetterState>,
    /// Messages of which a failure stopped the worker.
    halted: BTreeSet<Offset>,
    keys_drawn: u64,
    timers: BTreeMap<(Instant, u64), Timer>,

    /// Messages that are neither queued nor wait for tasks: arranging, completing, dead-lettering.
    busy_messages: usize,
    /// Bytes of registered messages, inputs of tasks, captured outputs and undelivered payloads.
    held_bytes: usize,
    /// Undelivered payloads.
    held_payloads: usize,
    /// Tasks that have put something out, and not settled.
    tasks_with_output: usize,
    /// What attempts have put out lately, each on average.
    typical_output: usize,
    progress: Progress,
    hooks: HookPresence,
    drain: Drain,
    /// How many messages were given back untouched.
    given_back: usize,
    /// Answers of hooks that came during a drain, about messages that are about to be given back.
    parked: Vec<HookAnswer>,
}

/// Which optional hooks the handler has: known from its type, and learnt when a hook that is written
/// only forwards to a default one. Until then it counts as present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookPresence {
    pub(crate) task_missing: bool,
    pub(crate) message_missing: bool,
    pub(crate) window_missing: bool,
}

/// What a passing of time makes due.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Arrange(WindowId),
    Attempt(TaskKey),
    Hook(Owner),
}

impl HookPresence {
    /// Looks at the type of a handler.
    pub(crate) fn of<H: Handler>() -> Self {
        let written = WrittenHooks::of::<H>();
        Self {
            task_missing: !written.task_complete,
            message_missing: !written.message_complete,
            window_missing: !written.window_complete,
        }
    }
}

impl Partition {
    pub(crate) fn new(
        id: PartitionId,
        epoch: Epoch,
        config: Arc<EngineConfig>,
        router: Arc<Router>,
        observer: Arc<dyn Observer>,
        hooks: HookPresence,
    ) -> Self {
        let seed = config.seed ^ epoch.get();
        Self {
            id,
            epoch,
            commit: CommitSchedule::new(config.commit),
            config,
            router,
            observer,
            pids: None,
            now: Instant::ORIGIN,
            effects: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            newest_arrived: None,
            credit_messages: 0,
            credit_bytes: 0,
            watermark: Watermark::new(),
            jitter: Jitter::new(seed),
            windows: AscendingMap::new(),
            windows_formed: 0,
            admission: Admission::Any,
            is_admission_stale: false,
            arranging: None,
            messages: AscendingMap::new(),
            newest_started: None,
            tasks: AscendingMap::new(),
            pending: PendingTasks::default(),
            tasks_made: 0,
            task_ids: TaskIds::default(),
            waiting_runs: 0,
            submitted_runs: 0,
            sets: AscendingMap::new(),
            groups: AscendingMap::new(),
            letters: AscendingMap::new(),
            halted: BTreeSet::new(),
            keys_drawn: 0,
            timers: BTreeMap::new(),
            busy_messages: 0,
            held_bytes: 0,
            held_payloads: 0,
            tasks_with_output: 0,
            typical_output: 0,
            progress: Progress::default(),
            hooks,
            drain: Drain::default(),
            given_back: 0,
            parked: Vec::new(),
        }
    }

    /// Gives it a way to name the process of a run in its reports.
    pub(crate) fn look_up_pids(&mut self, pids: Arc<dyn Fn(RunId) -> Option<u32> + Send + Sync>) {
        self.pids = Some(pids);
    }

    /// Asks for the first messages.
    pub(crate) fn start(&mut self) -> Vec<Effect> {
        self.grant_credit();
        std::mem::take(&mut self.effects)
    }

    /// Takes in what happened at `now` and answers what to do, in order.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        self.now = now;
        if self.drain.is_over() {
            return Vec::new();
        }
        match input {
            Input::Messages(messages) => self.on_messages(messages),
            Input::Arranged { window, messages, result } => {
                self.on_arranged(window, messages, result);
            }
            Input::Unparsed { window, messages } => self.on_unparsed(window, messages),
            Input::TaskStarted { task, slot, queue_wait } => {
                self.on_task_started(task, slot, queue_wait);
            }
            Input::TaskFinished { task, execution } => self.on_task_finished(task, *execution),
            Input::HookAnswered(answer) => self.on_hook_answered(answer),
            Input::ItemsEnded(ends) => {
                for (key, end) in ends {
                    self.on_item_ended(key, end);
                }
            }
            Input::ItemHeld { key, error } => self.on_item_held(key, &error),
            Input::Committed(result) => self.on_committed(result),
            Input::Tick => self.on_tick(),
            Input::Drain { cause, deadline } => self.on_drain(cause, deadline),
            Input::DrainExpired => self.on_drain_expired(),
            Input::Lost if cfg!(drakkar_fault = "loss_taken_for_revoke") => {
                self.on_drain(DrainCause::Revoke, now + self.config.drain_timeout);
            }
            Input::Lost => self.on_lost(),
        }
        if !self.drain.is_over() {
            self.advance();
        }
        std::mem::take(&mut self.effects)
    }

    /// Hears what windows may be formed, as far as all partitions together go. What is buffered goes
    /// on with the next input.
    pub(crate) fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
        self.is_admission_stale = false;
    }

    /// Returns whether it could form a window now and has to hear first whether it still may, after
    /// its load was told.
    pub(crate) fn asks_for_admission(&self) -> bool {
        self.is_admission_stale && !self.queue.is_empty()
    }

    /// Takes the emptied list of effects back, so that not every input costs an allocation.
    pub(crate) fn recycle(&mut self, effects: Vec<Effect>) {
        debug_assert!(effects.is_empty());
        if self.effects.capacity() == 0 && effects.capacity() <= EFFECTS_KEPT_MAX {
            self.effects = effects;
        }
    }

    /// Does what has become possible: the next window, a commit, more credit, the end of a drain.
    fn advance(&mut self) {
        self.go_on_isolating();
        self.form_window();
        self.extend_drain();
        self.report_stall();
        if let Some(position) = self.commit.poll(self.watermark.position(), self.now) {
            self.effects.push(Effect::Commit(position));
        }
        self.grant_credit();
        self.finish_drain();
    }

    /// Returns when time alone makes something due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|&(at, _)| at);
        let overdue = self.arrange_overdue_at().filter(|&at| at > self.now);
        [timer, self.commit.next_due(), self.stall_due(), overdue].into_iter().flatten().min()
    }

    /// Returns what this partition contributes to backpressure. Messages that wait while no window
    /// may be formed do not count: the buffer bounds them, and one partition that cannot go on must
    /// not stop the others. The same holds when `arrange` takes long, also for its own window.
    pub(crate) fn load(&self) -> Load {
        let overdue = self.arrange_overdue_at().is_some_and(|at| at <= self.now);
        let arranging = self.arranging.filter(|_| overdue);
        let in_arrange = self.arranging.map_or(0, |id| self.windows[&id].messages.len());
        let left_out = if arranging.is_some() { in_arrange } else { 0 };
        let counts = self.may_open_window() && !overdue;
        let queued = if counts { self.queue.len() } else { 0 };
        let in_work = self.tasks.len() + self.busy_messages;
        let working_count = in_work - left_out;
        Load {
            count: queued + working_count,
            working_count,
            active: queued + in_arrange - left_out + self.submitted_runs,
            total: self.queue.len() + in_work,
            bytes: self.queued_bytes + self.held_bytes,
            working_bytes: self.held_bytes,
            payloads: self.held_payloads,
            expected_bytes: (self.tasks.len() - self.tasks_with_output) * self.typical_output,
        }
    }

    /// Returns when the window that is being arranged will have taken long.
    fn arrange_overdue_at(&self) -> Option<Instant> {
        let window = self.arranging.and_then(|id| self.windows.get(&id))?;
        Some(window.formed_at + self.config.arrange_patience)
    }

    /// Returns whether all partitions together leave room for one more window of this one.
    fn is_admitted(&self) -> bool {
        match self.admission {
            _ if self.is_admission_stale => false,
            Admission::Nothing => false,
            Admission::Single | Admission::First => {
                self.windows.is_empty() || cfg!(drakkar_fault = "windows_ignore_the_crowd")
            }
            Admission::Any => true,
        }
    }

    /// Returns whether the limits of this partition permit one more window.
    fn may_open_window(&self) -> bool {
        (self.windows.len() < self.config.open_windows_max
            || cfg!(drakkar_fault = "windows_unbounded"))
            && (self.watermark.ahead() < self.config.ahead_max
                || cfg!(drakkar_fault = "ahead_unbounded"))
    }

    /// Returns the hooks that are known to be missing.
    pub(crate) fn hooks(&self) -> HookPresence {
        self.hooks
    }

    /// Returns how many messages were given back untouched.
    pub(crate) fn given_back(&self) -> usize {
        self.given_back
    }

    /// Returns how many messages wait for a window.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns whether the executor has runs that are not known to have started.
    pub(crate) fn has_waiting_runs(&self) -> bool {
        self.waiting_runs > 0
    }

    /// Returns how many registered offsets are not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.watermark.unfinished()
    }

    fn on_messages(&mut self, messages: Vec<SourceMessage>) {
        let mut consumed = 0;
        self.credit_messages = self.credit_messages.saturating_sub(messages.len());
        for message in messages {
            let bytes = message.size_bytes();
            self.credit_bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
            let is_taken_in = cfg!(drakkar_fault = "repeat_taken_in");
            let newer = self.newest_arrived.filter(|&newest| newest >= message.offset);
            if let Some(newest) = newer.filter(|_| !is_taken_in) {
                self.refuse_repeat(OutOfOrder { offset: message.offset, newest });
                continue;
            }
            self.newest_arrived = Some(message.offset);
            consumed += 1;
            if self.drain.is_active() {
                self.leave(message.offset, Settlement::GivenBack);
            } else {
                self.queued_bytes += bytes;
                self.queue.push_back(message);
            }
        }
        self.observer.observe(&Event::Consumed { partition: &self.id, messages: consumed });
    }

    /// A message that was handed over before has its outcome, or will have it; it gets no other.
    fn refuse_repeat(&self, repeat: OutOfOrder) {
        let error = SourceError::new(SourceErrorKind::Other, repeat.to_string());
        self.observer.observe(&Event::SourceTrouble { error: &error });
    }

    fn on_tick(&mut self) {
        while let Some(entry) = self.timers.first_entry().filter(|timer| timer.key().0 <= self.now)
        {
            match entry.remove() {
                Timer::Arrange(window) => self.arrange_again(window),
                Timer::Attempt(task) => self.start_attempt(task),
                Timer::Hook(owner) => self.call_hook_again(owner),
            }
        }
    }

    fn on_committed(&mut self, result: Result<drakkar_api::CommitOffset, SourceError>) {
        match result {
            Ok(offset) => {
                self.note_commit(None);
                self.commit.confirmed();
                self.drain.commit_answered(true);
                self.observer.observe(&Event::Committed { partition: &self.id, offset });
            }
            Err(error) => {
                self.note_commit(Some(&error));
                self.commit.failed(self.now);
                self.observer.observe(&Event::CommitFailed { partition: &self.id, error: &error });
                self.drain.commit_answered(false);
                if error.kind() == SourceErrorKind::Fenced {
                    self.drain.hurry();
                }
            }
        }
    }

    /// Grants what fits into the buffer, once it is a quarter of it, so that grants are few.
    fn grant_credit(&mut self) {
        let too_far = self.watermark.ahead() >= self.config.ahead_max
            && !cfg!(drakkar_fault = "ahead_unbounded");
        if self.drain.is_active() || too_far {
            return;
        }
        let waiting = match cfg!(drakkar_fault = "buffer_unbounded") {
            true => 0,
            false => self.queue.len(),
        };
        let messages = self.config.buffer_messages.saturating_sub(waiting + self.credit_messages);
        let buffer_bytes = i64::try_from(self.config.buffer_bytes).unwrap_or(i64::MAX);
        let queued_bytes = i64::try_from(self.queued_bytes).unwrap_or(i64::MAX);
        let bytes = buffer_bytes.saturating_sub(queued_bytes).saturating_sub(self.credit_bytes);
        let worth_it = messages * 4 >= self.config.buffer_messages || bytes * 4 >= buffer_bytes;
        if !worth_it || (messages == 0 && bytes <= 0) {
            return;
        }
        let bytes = bytes.max(0);
        self.credit_messages += messages;
        self.credit_bytes += bytes;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.effects.push(Effect::Request(Credit { messages, bytes }));
    }

    fn draw_key(&mut self) -> u64 {
        self.keys_drawn += 1;
        self.keys_drawn
    }

    fn set_timer(&mut self, at: Instant, timer: Timer) {
        let key = self.draw_key();
        self.timers.insert((at, key), timer);
    }
}
