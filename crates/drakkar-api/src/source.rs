//! The contract between the engine and the origin of messages.
//!
//! A source pushes; the engine holds it back with [`Credit`] per assignment and one [`Flow`] for
//! all. Assignments, messages and commits carry an [`Epoch`], so that what arrives late is
//! recognised.

use crate::{CommitOffset, Epoch, Offset, PartitionId, Reply, SourceMessage};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long beyond the deadline of a drain the engine waits for the commit of what was finished.
pub const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// An origin of messages, such as a Kafka consumer.
///
/// # Call order
///
/// `start` once; then anything; `close` once. The source answers through [`SourceEvents`] until it
/// calls [`ended`](SourceEvents::ended), which is its last call.
///
/// # Contract
///
/// - No method blocks; what takes time happens on the source's own threads.
/// - A message is handed over only while its assignment has credit and the flow is open.
/// - Messages of one assignment come in offset order; offsets may have gaps.
/// - At most one commit per partition is in flight; each [`CommitRequest`] gets one answer.
/// - Before an assignment ends in an orderly way, `revoked` is called and its answer waited for, at
///   most the drain deadline, [`COMMIT_GRACE`] and a margin. An assignment that is already gone is
///   reported as `lost`.
/// - `close` gives back all assignments the same way.
pub trait Source: Send + Sync + 'static {
    /// Connects and begins.
    ///
    /// # Errors
    ///
    /// When the settings are refused or nothing answers within the documented deadline. Nothing is
    /// left running then.
    fn start(
        &self,
        events: Arc<dyn SourceEvents>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>>;

    /// Permits that many more messages and bytes of an assignment; adds to what is left.
    fn request(&self, epoch: Epoch, credit: Credit);

    /// Opens or closes the flow of all assignments.
    fn set_flow(&self, flow: Flow);

    /// Commits a position; answered by [`SourceEvents::committed`].
    fn commit(&self, request: CommitRequest);

    /// Tells what became of one message, for sources that acknowledge one by one. A source that
    /// only commits positions does nothing.
    fn settle(&self, epoch: Epoch, offset: Offset, settlement: Settlement);

    /// Leaves: revokes everything, then ends.
    fn close(&self);
}

/// What a source tells the engine. Implementations return at once.
pub trait SourceEvents: Send + Sync {
    /// These partitions are ours from now on.
    fn assigned(&self, assignments: Vec<Assignment>);

    /// These assignments are about to end. The source waits for `drained`; when it is dropped, or
    /// the deadline passes, the assignments end anyway.
    fn revoked(&self, epochs: Vec<Epoch>, drained: Reply<()>);

    /// These assignments have ended already: somebody else may own the partitions.
    fn lost(&self, epochs: Vec<Epoch>);

    /// Messages of one assignment, in offset order, within its credit.
    fn messages(&self, epoch: Epoch, messages: Vec<SourceMessage>);

    /// The answer to a [`CommitRequest`].
    fn committed(&self, epoch: Epoch, result: Result<CommitOffset, SourceError>);

    /// The source's loop went round; the first call means that it works.
    fn polled(&self);

    /// Something went wrong that the source recovers from by itself.
    fn trouble(&self, error: SourceError);

    /// The source has ended: after `close` with `Ok`, by itself with an error.
    fn ended(&self, result: Result<(), SourceError>);
}

/// A partition that became ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: PartitionId,
    /// The number of this assignment.
    pub epoch: Epoch,
}

/// How much more of an assignment may be handed over. The byte count may be exceeded by one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Messages.
    pub messages: usize,
    /// Bytes of key, value and headers.
    pub bytes: usize,
}

/// Whether any message may be handed over at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Messages flow as far as each assignment has credit.
    Open,
    /// Nothing is polled.
    Closed,
}

/// A position to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// The assignment.
    pub epoch: Epoch,
    /// Its partition.
    pub partition: PartitionId,
    /// The next position to read.
    pub offset: CommitOffset,
    /// Opaque text stored beside the position; empty for none.
    pub metadata: String,
}

/// What became of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Everything it produced is confirmed.
    Finished,
    /// It is in the dead letters.
    DeadLettered,
    /// Somebody else will get it: it was not started when its assignment ended.
    GivenBack,
    /// Somebody else will get it again: its assignment ended while it was worked on.
    Abandoned,
}

impl Settlement {
    /// Returns the word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::DeadLettered => "dead_lettered",
            Self::GivenBack => "given_back",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Why a source could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    kind: SourceErrorKind,
    message: String,
}

/// The class of a [`SourceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceErrorKind {
    /// A setting is refused.
    Configuration,
    /// Nothing answers.
    Unreachable,
    /// The topic does not exist, or this client may not read it.
    Topic,
    /// The credentials are refused.
    Authentication,
    /// The assignment is gone.
    Fenced,
    /// A commit failed for another reason.
    Commit,
    /// Anything else.
    Other,
}

impl SourceErrorKind {
    /// Returns the word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
            Self::Topic => "topic",
            Self::Authentication => "authentication",
            Self::Fenced => "fenced",
            Self::Commit => "commit",
            Self::Other => "other",
        }
    }
}

impl SourceError {
    /// Makes an error; the text is lower case and holds no secret.
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Returns the class.
    pub fn kind(&self) -> SourceErrorKind {
        self.kind
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {}
