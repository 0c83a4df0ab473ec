//! Every observable fact, declared once.
//!
//! Metrics, log lines, recorder rows and the live UI derive from [`Event`]; nothing else tells them
//! anything. Events borrow, so that emitting one allocates nothing.

use crate::{
    CommitOffset, DecodeError, Execution, Offset, PartitionId, Settlement, SinkError, SinkId,
    SourceError, Task, Timestamp, WindowId,
};
use std::fmt;
use std::time::Duration;

/// Something that happened. Borrowed for the length of the call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A sink, or the dead letters, has connected.
    SinkConnected {
        /// The sink.
        sink: &'a SinkId,
    },
    /// A partition became ours.
    Assigned {
        /// The partition.
        partition: &'a PartitionId,
    },
    /// A partition was drained and given back.
    Revoked {
        /// The partition.
        partition: &'a PartitionId,
        /// Whether everything that had started was finished and committed in time.
        clean: bool,
        /// How many messages were given back.
        given_back: usize,
        /// How long the drain took.
        duration: Duration,
    },
    /// A partition was taken from us.
    Lost {
        /// The partition.
        partition: &'a PartitionId,
    },
    /// A rebalance began; once per callback.
    Rebalance {
        /// `assign`, `revoke` or `lost`.
        kind: &'static str,
        /// How many partitions it is about.
        partitions: usize,
        /// How many partitions are ours after it.
        assigned: usize,
    },
    /// The source's loop went round; the first time means that it works.
    Polled,
    /// Messages were taken from the source.
    Consumed {
        /// The partition.
        partition: &'a PartitionId,
        /// How many.
        messages: usize,
    },
    /// A message's value could not be decoded; once for each attempt.
    ParseFailed {
        /// The partition.
        partition: &'a PartitionId,
        /// The message.
        offset: Offset,
        /// Why.
        error: &'a DecodeError,
        /// What follows: `retry`, `pass`, `dead_letter`, `skip` or `stop`.
        policy: &'static str,
    },
    /// A message without a value was taken into a window; once per message.
    Tombstone {
        /// The partition.
        partition: &'a PartitionId,
        /// The message.
        offset: Offset,
    },
    /// A window was arranged.
    Arranged {
        /// The partition.
        partition: &'a PartitionId,
        /// The window.
        window: WindowId,
        /// How many messages it has.
        messages: usize,
        /// How many tasks it got.
        tasks: usize,
    },
    /// A hook returned.
    HookFinished {
        /// Which.
        hook: Hook,
        /// How long it took.
        duration: Duration,
    },
    /// A hook answered an error or panicked.
    HookFailed {
        /// Which.
        hook: Hook,
        /// The partition, for hooks that work on one.
        partition: Option<&'a PartitionId>,
        /// The window, where known.
        window: Option<WindowId>,
        /// The message, where it is about one.
        offset: Option<Offset>,
        /// The task, where it is about one.
        task: Option<&'a str>,
        /// The error's text, or the panic's.
        error: &'a str,
        /// Whether it panicked.
        panicked: bool,
    },
    /// An attempt of a task was handed to the executor, or its precomputed result taken.
    TaskScheduled {
        /// Where it belongs.
        path: TaskPath<'a>,
    },
    /// An attempt got a slot.
    TaskStarted {
        /// Where it belongs.
        path: TaskPath<'a>,
        /// The slot, from 0.
        slot: usize,
        /// How long it waited.
        queue_wait: Duration,
    },
    /// An attempt ended.
    TaskFinished {
        /// Where it belongs.
        path: TaskPath<'a>,
        /// How.
        execution: &'a Execution,
    },
    /// A failed attempt will be followed by another.
    TaskRetried {
        /// Where it belongs.
        path: TaskPath<'a>,
        /// After this time.
        delay: Duration,
    },
    /// A task's retries are used up.
    RetriesExhausted {
        /// Where it belongs.
        path: TaskPath<'a>,
    },
    /// A failed task was accepted by the handler.
    TaskSkipped {
        /// Where it belongs.
        path: TaskPath<'a>,
    },
    /// A failed task was replaced.
    TaskReplaced {
        /// Where it belongs.
        path: TaskPath<'a>,
        /// By how many.
        replacements: usize,
    },
    /// Everything that a message produced is settled; its offset may be committed.
    MessageFinished {
        /// The partition.
        partition: &'a PartitionId,
        /// The message.
        offset: Offset,
        /// How.
        end: MessageEnd,
        /// When it was produced or appended, where the source knows.
        written_at: Option<Timestamp>,
        /// From the forming of its window to this moment.
        duration: Duration,
    },
    /// A message left the worker unfinished, because its assignment ended; its next owner gets it.
    /// Each message that was consumed ends with this or with
    /// [`MessageFinished`](Self::MessageFinished).
    MessageLeft {
        /// The partition.
        partition: &'a PartitionId,
        /// The message.
        offset: Offset,
        /// Whether it was given back or abandoned.
        settlement: Settlement,
    },
    /// All tasks and messages of a window are settled, and its hook has run.
    WindowFinished {
        /// The partition.
        partition: &'a PartitionId,
        /// The window.
        window: WindowId,
        /// How many tasks it had.
        tasks: usize,
        /// From its forming to this moment.
        duration: Duration,
    },
    /// A sink took a batch, or part of it.
    Delivered {
        /// The sink.
        sink: &'a SinkId,
        /// How many payloads it confirmed.
        payloads: usize,
        /// How long the call took.
        duration: Duration,
    },
    /// An attempt to deliver failed for some payloads of a batch.
    DeliveryFailed {
        /// The sink.
        sink: &'a SinkId,
        /// How many payloads.
        payloads: usize,
        /// The error of the first of them.
        error: &'a SinkError,
        /// The number of the attempt of the payload that was tried most.
        attempt: u32,
    },
    /// Payloads will be sent again.
    DeliveryRetried {
        /// The sink.
        sink: &'a SinkId,
        /// How many payloads.
        payloads: usize,
        /// After this time.
        delay: Duration,
    },
    /// The handler let payloads go.
    DeliverySkipped {
        /// The sink.
        sink: &'a SinkId,
        /// How many payloads.
        payloads: usize,
    },
    /// A dead letter was confirmed.
    DeadLettered {
        /// The partition of the source message.
        partition: &'a PartitionId,
        /// The source message.
        offset: Offset,
        /// `message` or `payload`.
        kind: &'static str,
        /// Why it became one, as a class.
        error_kind: &'a str,
        /// Why, in words.
        error: &'a str,
    },
    /// A dead letter could not be written.
    DeadLetterFailed {
        /// The partition of the source message.
        partition: &'a PartitionId,
        /// The source message.
        offset: Offset,
        /// Why.
        error: &'a SinkError,
        /// Whether it was dropped, as `dlq.on_send_failure: drop` asks; else the offset is held.
        dropped: bool,
    },
    /// A commit was confirmed.
    Committed {
        /// The partition.
        partition: &'a PartitionId,
        /// The next position to read.
        offset: CommitOffset,
    },
    /// A commit failed; it will be tried again unless the assignment is gone.
    CommitFailed {
        /// The partition.
        partition: &'a PartitionId,
        /// Why.
        error: &'a SourceError,
    },
    /// The flow was closed or opened for all partitions.
    Backpressure {
        /// Whether it is closed now.
        active: bool,
        /// Queued messages and unsettled tasks in all.
        load: usize,
    },
    /// The depth of a partition's queues changed.
    Depth {
        /// The partition.
        partition: &'a PartitionId,
        /// Messages that wait for a window.
        queued: usize,
        /// Messages in windows that are not finished.
        uncommitted: usize,
    },
    /// The source recovered, or will recover, from something.
    SourceTrouble {
        /// What.
        error: &'a SourceError,
    },
    /// A partition cannot go on by itself.
    PartitionFailed {
        /// Whether the worker is ready nevertheless.
        keeps_ready: bool,
        /// The partition.
        partition: &'a PartitionId,
        /// Why, naming the culprit.
        reason: &'a str,
    },
    /// A partition that was reported as failed goes on.
    PartitionRecovered {
        /// The partition.
        partition: &'a PartitionId,
    },
    /// A hook of the whole worker or a periodic task blocks its thread, or computes without a pause.
    CallBlocked {
        /// Whether the worker is ready nevertheless.
        keeps_ready: bool,
        /// Which one.
        call: &'a WorkerCall,
        /// For how long.
        lasted: Duration,
    },
    /// A call that was reported as blocked goes on or has ended.
    CallWentOn {
        /// Which one.
        call: &'a WorkerCall,
    },
    /// A periodic task ran.
    PeriodicRun {
        /// Its name.
        name: &'a str,
        /// How long.
        duration: Duration,
        /// The error's text, if it failed.
        error: Option<&'a str>,
    },
}

/// A call of user code beside the partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCall {
    /// Tells the calls of an engine apart.
    pub number: u64,
    /// The hook, such as `on_assign`, or `periodic task` and that one's name.
    pub name: String,
    /// The partitions that the hook was told of, if it is about some.
    pub partitions: Vec<PartitionId>,
}

/// Where an attempt of a task belongs.
#[derive(Clone, Copy, Debug)]
pub struct TaskPath<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// The window.
    pub window: WindowId,
    /// The task; its id is set.
    pub task: &'a Task,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

impl TaskPath<'_> {
    /// Returns the task's id.
    pub fn task_id(&self) -> &str {
        self.task.id.as_ref().map_or("", crate::TaskId::as_str)
    }
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageEnd {
    /// All its outputs are confirmed, dead-lettered or skipped.
    Completed,
    /// The message itself is in the dead letters.
    DeadLettered,
    /// It did not parse, or it could not be arranged, and the settings say `skip`.
    Skipped,
    /// It should be in the dead letters, which refused it, and `dlq.on_send_failure` is `drop`.
    Dropped,
}

impl MessageEnd {
    /// Returns the word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::DeadLettered => "dead_lettered",
            Self::Skipped => "skipped",
            Self::Dropped => "dropped",
        }
    }
}

/// The hooks of a [`Handler`](crate::Handler).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Hook {
    /// `decode`
    Decode,
    /// `message_label`
    MessageLabel,
    /// `arrange`
    Arrange,
    /// `task_priority`
    TaskPriority,
    /// `on_ready`
    OnReady,
    /// `on_task_complete`
    OnTaskComplete,
    /// `on_message_complete`
    OnMessageComplete,
    /// `on_window_complete`
    OnWindowComplete,
    /// `on_error`
    OnError,
    /// `on_delivery_error`
    OnDeliveryError,
    /// `on_assign`
    OnAssign,
    /// `on_revoke`
    OnRevoke,
}

impl Hook {
    /// Returns the hook's name as it is written in code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::MessageLabel => "message_label",
            Self::Arrange => "arrange",
            Self::TaskPriority => "task_priority",
            Self::OnReady => "on_ready",
            Self::OnTaskComplete => "on_task_complete",
            Self::OnMessageComplete => "on_message_complete",
            Self::OnWindowComplete => "on_window_complete",
            Self::OnError => "on_error",
            Self::OnDeliveryError => "on_delivery_error",
            Self::OnAssign => "on_assign",
            Self::OnRevoke => "on_revoke",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Watches. Called in the pipeline's own threads, so it must be quick and must never block: an
/// observer that writes somewhere puts the event into a bounded queue, and drops and counts when
/// that is full.
pub trait Observer: Send + Sync + 'static {
    /// Hears of one event.
    fn observe(&self, event: &Event<'_>);
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullObserver;

impl Observer for NullObserver {
    fn observe(&self, _event: &Event<'_>) {}
}
