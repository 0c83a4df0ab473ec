//! Identifiers, each its own type, so that a partition number is never taken for an offset.
//!
//! Invariant: an [`Offset`] is the position of a message; a [`CommitOffset`] is the *next* position
//! to read. They convert in one direction only, through [`Offset::next`].

use std::fmt;
use std::sync::Arc;

/// The position of one message in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

impl Offset {
    /// Wraps a broker's offset (0 or more).
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// Returns the number that the broker uses.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Returns the position to commit once this message, and all before it, are finished.
    pub const fn next(self) -> CommitOffset {
        CommitOffset(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The next position to read: everything below it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitOffset(i64);

impl CommitOffset {
    /// Wraps a committed position as the broker reports it.
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// Returns the number that the broker uses.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for CommitOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic and one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    topic: Arc<str>,
    partition: i32,
}

impl PartitionId {
    /// Names partition `partition` (0 or more) of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the topic's name without copying it.
    pub fn shared_topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    /// Returns the partition's number inside its topic.
    pub fn partition(&self) -> i32 {
        self.partition
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// One assignment of one partition to this worker.
///
/// Unique in the process: when a partition comes back after a revoke it gets a new epoch, and what
/// still arrives under the old one is discarded (promise RB-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Wraps a number that the source draws from a counter.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a window inside one assignment, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId(u64);

impl WindowId {
    /// Wraps a window's number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a task: given by the handler, or made by the engine so that it sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// Takes any non-empty text; ids should be unique among the pending tasks of a partition.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of this worker in logs, metrics and dead letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Takes any non-empty text.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The type of a sink, as the configuration spells it under `sinks`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SinkKind {
    /// `kafka`: takes [`KafkaRecord`](crate::KafkaRecord).
    Kafka,
    /// `postgres`: takes [`PostgresRow`](crate::PostgresRow).
    Postgres,
    /// `mongo`: takes [`MongoDocument`](crate::MongoDocument).
    Mongo,
    /// `redis`: takes [`RedisValue`](crate::RedisValue).
    Redis,
    /// `http`: takes [`HttpRequest`](crate::HttpRequest).
    Http,
    /// `filesystem`: takes [`FileLine`](crate::FileLine).
    Filesystem,
    /// A sink of the user's own: takes [`CustomPayload`](crate::CustomPayload) of the same name.
    Custom(Arc<str>),
}

impl SinkKind {
    /// Returns the word that the configuration, metrics and dead letters use.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Redis => "redis",
            Self::Http => "http",
            Self::Filesystem => "filesystem",
            Self::Custom(name) => name,
        }
    }
}

impl fmt::Display for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One sink instance: its type and the name it has in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SinkId {
    kind: SinkKind,
    name: Arc<str>,
}

impl SinkId {
    /// Names the instance `name` of type `kind`.
    pub fn new(kind: SinkKind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    /// Returns the type.
    pub fn kind(&self) -> &SinkKind {
        &self.kind
    }

    /// Returns the instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// The stable name of one payload: the same message, handled again the same way, gives the same id.
///
/// It is made of source coordinates and positions, never of time or chance, so that a receiver can
/// recognise a repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    source: PartitionId,
    offset: Offset,
    origin: u32,
    output: u32,
}

impl DeliveryId {
    /// The origin of payloads that come from `on_message_complete`.
    pub const MESSAGE_HOOK: u32 = u32::MAX;
    /// The origin of payloads that come from `on_window_complete`.
    pub const WINDOW_HOOK: u32 = u32::MAX - 1;

    /// Names output number `output` (from 0) of task number `origin` (from 0) of the message at
    /// `offset`; for a hook that is not a task's, `origin` is one of the constants of this type.
    pub fn new(source: PartitionId, offset: Offset, origin: u32, output: u32) -> Self {
        Self { source, offset, origin, output }
    }

    /// Returns the partition of the message that it was made from.
    pub fn source(&self) -> &PartitionId {
        &self.source
    }

    /// Returns the message that it was made from.
    pub fn offset(&self) -> Offset {
        self.offset
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/", self.source.topic(), self.source.partition(), self.offset)?;
        match self.origin {
            Self::MESSAGE_HOOK => write!(f, "m/{}", self.output),
            Self::WINDOW_HOOK => write!(f, "w/{}", self.output),
            task => write!(f, "{task}/{}", self.output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_offset_is_the_next_position() {
        assert_eq!(Offset::new(41).next(), CommitOffset::new(42));
    }

    #[test]
    fn delivery_ids_are_readable_and_distinct() {
        let partition = PartitionId::new("in", 3);
        let of = |origin| DeliveryId::new(partition.clone(), Offset::new(7), origin, 1).to_string();
        assert_eq!(of(0), "in/3/7/0/1");
        assert_eq!(of(DeliveryId::MESSAGE_HOOK), "in/3/7/m/1");
        assert_eq!(of(DeliveryId::WINDOW_HOOK), "in/3/7/w/1");
    }
}
