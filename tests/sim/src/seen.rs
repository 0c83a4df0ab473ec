//! What is seen at the fakes, one entry for each fact.
//!
//! Nothing here comes from the engine's account of itself, but for [`Seen::Told`], which is kept
//! apart and only compared with the rest.

use drakkar_api::{CommitOffset, Epoch, Hook, Offset, Settlement, TaskOutcome, WindowId};
use std::time::Duration;

/// A number that names one task or one payload in the whole world.
pub(crate) type Number = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    /// A worker began.
    Started,
    /// A worker was told to end in order.
    ShutdownAsked,
    /// It called `close` on its source: everything is drained.
    SourceClosed,
    /// It ended; whether without an error.
    Ended { clean: bool },
    /// It died; nothing it does after that counts.
    Crashed,
    /// Its source ended by itself.
    SourceFailed,

    /// A partition was given to a worker, to be read from `position`.
    Assigned { epoch: Epoch, partition: i32, position: CommitOffset },
    /// Assignments are to be drained.
    RevokeHeard { epochs: Vec<Epoch> },
    /// The engine answered that they are drained.
    Drained { epochs: Vec<Epoch> },
    /// The source waited for that answer no longer.
    DrainTimedOut,
    /// An assignment was taken away.
    Lost { epoch: Epoch },
    /// The engine opened (`true`) or closed the flow.
    Flow { open: bool },
    /// Messages were handed over.
    HandedOver { epoch: Epoch, messages: Vec<Delivered> },
    /// The source handed over again what it had handed over before.
    Repeated { epoch: Epoch, offset: Offset },
    /// The engine said what became of a message.
    Settled { epoch: Epoch, offset: Offset, how: Settlement },
    /// The engine asked for a commit.
    CommitAsked { epoch: Epoch, offset: CommitOffset },
    /// The engine was told how it went.
    CommitAnswered { epoch: Epoch, result: Result<CommitOffset, String> },

    /// A message was taken into a window: it was decoded, or labelled.
    Taken { epoch: Epoch, offset: Offset },
    /// A message was labelled whose value did not parse.
    Unparsed { epoch: Epoch, offset: Offset },
    /// `decode` or `message_label` panicked.
    TakingFailed { epoch: Epoch, offset: Offset, hook: Hook },
    /// `arrange` was called.
    ArrangeCalled { epoch: Epoch, window: WindowId, offsets: Vec<Offset> },
    /// `arrange` answered.
    ArrangeAnswered { epoch: Epoch, window: WindowId, offsets: Vec<Offset>, answer: Arranged },
    /// `task_priority` panicked.
    PriorityFailed { epoch: Epoch, task: Number },
    /// Another hook was called.
    HookCalled { epoch: Epoch, about: About },
    /// It answered.
    HookAnswered { epoch: Epoch, about: About, answer: Answered },
    /// The engine called a hook that the handler does not have, and learns so.
    HookMissing { epoch: Epoch, hook: Hook },

    /// A run was handed to the executor.
    Submitted { epoch: Epoch, task: Number },
    /// It got a slot.
    RunStarted { epoch: Epoch, task: Number },
    /// Its process is gone.
    RunEnded { epoch: Epoch, task: Number, outcome: TaskOutcome },
    /// The engine was told so.
    RunReported { epoch: Epoch, task: Number, outcome: TaskOutcome },
    /// The engine cancelled runs: all (`None`), or so many waiting ones.
    Cancelled { epoch: Epoch, waiting: Option<usize> },
    /// The engine had runs killed, by name.
    Killed { epoch: Epoch },

    /// A call of `deliver` began.
    Offered { sink: Place, call: usize, items: Vec<Item> },
    /// Items took effect.
    Applied { sink: Place, call: usize, items: Vec<Item> },
    /// A call ended; without verdicts when it was dropped.
    DeliveryEnded { sink: Place, call: usize, verdicts: Option<Vec<Heard>> },

    /// What the engine says of itself.
    Told(Told),
    /// The same in full; only where a trace is asked for.
    ToldInFull(String),
    /// A remark of the script.
    Note(String),
}

/// One message that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) offset: Offset,
    pub(crate) bytes: usize,
    pub(crate) shape: Shape,
}

/// What a message's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Unparsable,
    Tombstone,
}

/// What `arrange` answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arranged {
    Tasks(Vec<Planned>),
    /// Tasks that the engine must refuse.
    Refusable(&'static str),
    Failed,
}

/// One task of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    pub(crate) number: Number,
    pub(crate) offsets: Vec<Offset>,
    /// Its place among the tasks that the seed wants of its message; `None` for any other task.
    pub(crate) recipe: Option<usize>,
    /// Its result, if that is known already: whether it is a success.
    pub(crate) precomputed: Option<bool>,
}

/// What a hook was called for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum About {
    TaskComplete(Number),
    Error(Number),
    Message { offset: Offset, group: Counts },
    Window { window: WindowId, offsets: Vec<Offset>, results: usize },
    Delivery { payloads: Vec<Number>, attempts: u32 },
}

/// The figures of a message group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: usize,
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
}

/// What a hook answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answered {
    /// These payloads.
    Outputs(Vec<Number>),
    /// Payloads of which one routes nowhere.
    Unroutable,
    Retry(Duration),
    Skip,
    DeadLetter,
    /// What the settings say.
    Policy,
    Replace(Vec<Planned>),
    /// An error or a panic.
    Failed,
}

/// A destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Records,
    Lines,
    Letters,
}

/// One item of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Payload(Number),
    Letter(Letter),
}

/// A dead letter, as far as it names what it is about, and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) about: Subject,
    pub(crate) attempts: u32,
    pub(crate) error_kind: String,
    pub(crate) fault: Option<String>,
}

/// What a dead letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Message {
        epoch: Epoch,
        offset: Offset,
    },
    Payload(Number),
    /// It cannot be told.
    Nothing,
}

/// A verdict, as the engine heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Confirmed,
    /// Not applied, and it may pass.
    NotApplied,
    Unknown,
    /// For good.
    Rejected,
}

/// An event of the engine that counts in its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Consumed {
        partition: i32,
        messages: usize,
    },
    Finished {
        partition: i32,
        offset: Offset,
        end: &'static str,
    },
    Left {
        partition: i32,
        offset: Offset,
    },
    TaskFinished,
    TaskRetried,
    TaskSkipped,
    TaskReplaced,
    Committed {
        partition: i32,
    },
    CommitFailed {
        partition: i32,
    },
    DeadLettered,
    LetterDropped,
    DeliverySkipped {
        payloads: usize,
    },
    Tombstone,
    ParseFailed,
    HookFailed,
    /// The worker stops, as the settings say of a failure at this offset.
    Stopped {
        partition: i32,
        offset: Offset,
    },
    /// It waits for this offset, or for a commit.
    Stalled {
        partition: i32,
        offset: Option<Offset>,
        keeps_ready: bool,
    },
    Recovered {
        partition: i32,
    },
    /// A partition, or the engine, says that an invariant of its own is broken.
    Broken(String),
    Backpressure {
        active: bool,
    },
}
