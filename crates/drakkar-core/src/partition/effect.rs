//! What goes into the state machine of a partition, and what comes out.

use crate::erased::{AnyCompletedWindow, AnyGroup, AnyMessage};
use drakkar_api::{
    CommitOffset, Credit, DeliveryAction, DeliveryFailure, DeliveryId, ErrorAction, Execution,
    Hook, Instant, Offset, Outputs, Payload, PendingTasks, Priority, RunId, Settlement, SinkError,
    SinkId, SourceError, SourceMessage, Task, TaskFailure, TaskId, TaskOutput, WindowId,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What happened. Closed: nothing else reaches a partition.
#[derive(Debug)]
pub(crate) enum Input {
    /// The source handed over messages.
    Messages(Vec<SourceMessage>),
    /// An [`Effect::Arrange`] returned. `messages` are those that were decoded.
    Arranged {
        window: WindowId,
        messages: Vec<(Offset, AnyMessage)>,
        result: Result<Vec<(Arc<Task>, Priority)>, HookFailure>,
    },
    /// An [`Effect::Arrange`] decoded values that do not parse, and did not call `arrange`, as they
    /// may be decoded again.
    Unparsed { window: WindowId, messages: Vec<(Offset, AnyMessage)> },
    /// A run got a slot.
    TaskStarted { task: RunId, slot: usize, queue_wait: Duration },
    /// A run ended.
    TaskFinished { task: RunId, execution: Box<Execution> },
    /// An [`Effect::Hook`] returned.
    HookAnswered(HookAnswer),
    /// Payloads or dead letters are settled by their lane.
    ItemsEnded(Vec<(ItemKey, ItemEnd)>),
    /// A dead letter could not be written, and its lane goes on trying.
    ItemHeld { key: ItemKey, error: SinkError },
    /// The commit in flight was answered.
    Committed(Result<CommitOffset, SourceError>),
    /// Time passed.
    Tick,
    /// Finish what has started and can end by `deadline`, give the rest back.
    Drain { cause: DrainCause, deadline: Instant },
    /// The drain's deadline passed.
    DrainExpired,
    /// The partition belongs to somebody else already.
    Lost,
}

/// Why a partition is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainCause {
    /// It goes to another worker: a commit that fails counts as lost, since the group waits.
    Revoke,
    /// The worker ends, and the partition is ours until then.
    Shutdown,
}

/// What to do. Performed in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Let the source hand over more.
    Request(Credit),
    /// Decode what is not decoded and call `arrange`.
    Arrange(ArrangeCall),
    /// Run an attempt.
    Submit(RunRequest),
    /// Withdraw these runs as far as they wait.
    Withdraw(Vec<RunId>),
    /// Kill these runs.
    Kill(Vec<RunId>),
    /// Kill every run and take every unsent payload out of the lanes.
    Fence,
    /// Call a hook.
    Hook(HookCall),
    /// Hand a payload to lane number `lane`.
    Deliver { lane: usize, item: Outgoing },
    /// Write a dead letter.
    DeadLetter { key: u64, letter: Box<Letter> },
    /// Tell the source what became of a message.
    Settle(Offset, Settlement),
    /// Commit.
    Commit(CommitOffset),
    /// The worker is to end, because of this.
    Stop(String),
    /// The partition is over; nothing comes after this.
    Over { clean: bool },
}

/// One call of `arrange`: for a whole window, or for one message of it.
#[derive(Debug)]
pub(crate) struct ArrangeCall {
    pub(crate) window: WindowId,
    pub(crate) messages: Vec<(Arc<SourceMessage>, Option<AnyMessage>)>,
    pub(crate) pending: PendingTasks,
}

/// An attempt for the executor.
#[derive(Debug)]
pub(crate) struct RunRequest {
    pub(crate) id: RunId,
    pub(crate) task: Arc<Task>,
    pub(crate) priority: Priority,
}

/// One call of a hook other than `arrange`.
#[derive(Debug)]
pub(crate) enum HookCall {
    TaskComplete { task: RunId, window: WindowId, output: Arc<TaskOutput> },
    Error { task: RunId, window: WindowId, failure: TaskFailure },
    MessageComplete { offset: Offset, window: WindowId, group: Box<AnyGroup> },
    WindowComplete { window: AnyCompletedWindow },
    DeliveryError { group: u64, offset: Offset, failure: DeliveryFailure },
}

/// What a hook answered.
#[derive(Debug)]
pub(crate) enum HookAnswer {
    TaskComplete { task: RunId, result: Result<Outputs, HookFailure> },
    Error { task: RunId, result: Result<(ErrorAction, Vec<Priority>), HookFailure> },
    MessageComplete { offset: Offset, result: Result<Outputs, HookFailure> },
    WindowComplete { window: WindowId, result: Result<Outputs, HookFailure> },
    DeliveryError { group: u64, result: Result<DeliveryAction, HookFailure> },
}

/// A hook answered an error or panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookFailure {
    pub(crate) hook: Hook,
    pub(crate) error: String,
    pub(crate) panicked: bool,
}

/// One payload on its way to a lane.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) key: ItemKey,
    pub(crate) id: DeliveryId,
    pub(crate) payload: Arc<Payload>,
}

/// Which item of this partition a lane speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ItemKey {
    Payload { group: u64, index: u32 },
    Letter(u64),
}

/// How a lane settled an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ItemEnd {
    /// The destination has it.
    Confirmed,
    /// Every permitted attempt was made.
    Failed { error: SinkError, attempts: u32 },
}

/// A dead letter before it is written.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) content: LetterContent,
    pub(crate) source: Arc<SourceMessage>,
    pub(crate) task: Option<TaskName>,
    pub(crate) hook: Option<Hook>,
    pub(crate) error_kind: String,
    pub(crate) error: String,
    pub(crate) attempts: u32,
}

/// What a dead letter tells of a task. Not the task itself: a letter may be held for long, and what
/// the task was given need not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskName {
    pub(crate) id: Option<TaskId>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl TaskName {
    pub(crate) fn of(task: &Task) -> Self {
        Self { id: task.id.clone(), labels: task.labels.clone() }
    }
}

/// What a dead letter is about.
#[derive(Debug)]
pub(crate) enum LetterContent {
    /// The source message itself.
    Message,
    /// One payload that its sink did not take.
    Payload { payload: Arc<Payload>, sink: SinkId, id: DeliveryId },
}
