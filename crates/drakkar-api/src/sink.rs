//! The contract of a sink, and the words with which it reports.

use crate::{CustomPayload, HttpRequest, MongoDocument, PostgresRow, RedisValue};
use crate::{DeliveryId, FileLine, KafkaRecord, Payload, SinkId};
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A destination of payloads.
///
/// The engine calls [`connect`](Sink::connect) once, then [`deliver`](Sink::deliver) any number of
/// times, at most [`BatchLimits::concurrency`] calls at once, then [`close`](Sink::close) once.
///
/// # Contract
///
/// - `connect` talks to the destination and fails loudly; it may be called again after it failed.
/// - `deliver` answers every item of the batch, in the batch's order, with one [`Verdict`].
/// - `confirmed` means that the destination has said so, not that the bytes were handed to a client.
/// - `not_applied` means that the item certainly had no effect: it is always safe to send again.
/// - When it is not known whether the item had an effect, the verdict is `unknown`, never a guess.
/// - `rejected` means that this item can never be taken as it is.
/// - Nothing is retried inside, except what the driver repeats by itself without a double effect.
/// - Every wait has a deadline of its own that is shorter than the engine's.
///
/// # Concurrency
///
/// Calls of `deliver` overlap up to the limit. Two payloads whose [`DeliveryId`]s name the same message
/// are never in two calls at the same time, and the later one comes in no earlier call. What a task
/// of several messages puts out names the first of them.
///
/// # Cancellation
///
/// The engine drops the future of `deliver` at the attempt's deadline and treats every item as
/// `unknown`. The sink must stay usable.
///
/// # Errors
///
/// The sink classifies ([`SinkError`]), the engine decides whether to retry.
///
/// # Example
///
/// ```
/// use drakkar_api::{Batch, BatchLimits, CustomPayload, Sink, SinkError, SinkId, SinkKind, Verdict};
/// use std::sync::Mutex;
///
/// /// Keeps what it is given.
/// struct Keep(Mutex<Vec<CustomPayload>>);
///
/// impl Sink for Keep {
///     type Payload = CustomPayload;
///
///     fn id(&self) -> SinkId {
///         SinkId::new(SinkKind::Custom("keep".into()), "main")
///     }
///
///     async fn connect(&self) -> Result<(), SinkError> {
///         Ok(())
///     }
///
///     async fn deliver(&self, batch: Batch<'_, CustomPayload>) -> Vec<Verdict> {
///         let mut kept = self.0.lock().expect("no panic while it is held");
///         kept.extend(batch.items().iter().map(|item| item.payload.clone()));
///         batch.all(Verdict::Confirmed)
///     }
///
///     async fn close(&self) {}
///
///     fn repeat_is_harmless(&self, _payload: &CustomPayload) -> bool {
///         false
///     }
/// }
/// ```
///
/// # Common mistake
///
/// Answering `not_applied` for a timeout. The request may have arrived; that is `unknown`.
pub trait Sink: Send + Sync + 'static {
    /// The payload type that this sink takes.
    type Payload: SinkPayload;

    /// Returns the type and name of this instance.
    fn id(&self) -> SinkId;

    /// Connects, and proves by a real exchange with the destination that it can be used.
    fn connect(&self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Delivers a batch and answers for each item, in order.
    fn deliver(&self, batch: Batch<'_, Self::Payload>)
    -> impl Future<Output = Vec<Verdict>> + Send;

    /// Releases connections. Called after the last delivery; cannot fail, only log.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Returns whether sending `payload` twice leaves the destination as sending it once does.
    fn repeat_is_harmless(&self, payload: &Self::Payload) -> bool;

    /// Returns what a reader of a dead letter must know of the destination beside the payload's own
    /// [`target`](Payload::target), such as its topic: names and values, without secrets. Asked once,
    /// after `connect`.
    fn target(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Returns the sizes of batches that suit this sink.
    fn limits(&self) -> BatchLimits {
        BatchLimits::default()
    }
}

/// A payload type that some sink takes: one of the structs inside [`Payload`].
pub trait SinkPayload: Sized + Send + Sync + 'static {
    /// Borrows the payload if it is of this type.
    fn from_payload(payload: &Payload) -> Option<&Self>;
}

macro_rules! sink_payload {
    ($($variant:ident($type:ty)),*) => {$(
        impl SinkPayload for $type {
            fn from_payload(payload: &Payload) -> Option<&Self> {
                match payload {
                    Payload::$variant(payload) => Some(payload),
                    _ => None,
                }
            }
        }
    )*};
}

sink_payload!(
    Kafka(KafkaRecord),
    Postgres(PostgresRow),
    Mongo(MongoDocument),
    Redis(RedisValue),
    Http(HttpRequest),
    File(FileLine),
    Custom(CustomPayload)
);

/// How large batches may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most items of one batch, at least 1.
    pub items_max: usize,
    /// The most bytes of one batch; an item that is larger goes alone.
    pub bytes_max: usize,
    /// The most calls of `deliver` at the same time, at least 1.
    pub concurrency: usize,
    /// The most bytes that the destination takes for one item, where it has such a limit.
    pub item_bytes_max: Option<usize>,
    /// The deadline of one call of `deliver`.
    pub attempt_timeout: Duration,
}

impl Default for BatchLimits {
    /// 500 items, 1 MiB, 4 calls at once, no limit per item, 30 s.
    fn default() -> Self {
        Self {
            items_max: 500,
            bytes_max: 1024 * 1024,
            concurrency: 4,
            item_bytes_max: None,
            attempt_timeout: Duration::from_secs(30),
        }
    }
}

/// The payloads of one call of [`Sink::deliver`]. Never empty.
#[derive(Debug)]
pub struct Batch<'a, P> {
    items: Vec<BatchItem<'a, P>>,
}

/// One payload of a batch.
#[derive(Debug)]
pub struct BatchItem<'a, P> {
    /// The payload.
    pub payload: &'a P,
    /// Its stable id; a repeat of the same message carries the same.
    pub id: &'a DeliveryId,
}

impl<'a, P> Batch<'a, P> {
    /// Makes a batch; the engine and tests call this.
    pub fn new(items: Vec<BatchItem<'a, P>>) -> Self {
        Self { items }
    }

    /// Returns the items in order.
    pub fn items(&self) -> &[BatchItem<'a, P>] {
        &self.items
    }

    /// Returns how many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Answers the same for every item.
    pub fn all(&self, verdict: Verdict) -> Vec<Verdict> {
        vec![verdict; self.items.len()]
    }
}

/// What became of one item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The destination has it.
    Confirmed,
    /// It certainly had no effect; sending it again is safe.
    NotApplied(SinkError),
    /// It may or may not have had its effect.
    Unknown(SinkError),
    /// It can never be taken as it is.
    Rejected(SinkError),
}

impl Verdict {
    /// Returns the error, unless confirmed.
    pub fn error(&self) -> Option<&SinkError> {
        match self {
            Self::Confirmed => None,
            Self::NotApplied(error) | Self::Unknown(error) | Self::Rejected(error) => Some(error),
        }
    }
}

/// Why a sink could not do what it was asked.
///
/// The text must hold no secret; use the destination's name, not its address with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkError {
    kind: SinkErrorKind,
    status: ErrorStatus,
    message: String,
}

/// The class of a [`SinkError`], as metrics and dead letters spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SinkErrorKind {
    /// The destination cannot be reached.
    Connection,
    /// Something took too long.
    Timeout,
    /// The destination refused the credentials or the right to do this.
    Authentication,
    /// The item is larger than the destination takes.
    TooLarge,
    /// The item, or its target, is not valid for the destination.
    Invalid,
    /// The target (topic, table, folder …) does not exist.
    NoTarget,
    /// The destination is short of something: space, memory, quota.
    Exhausted,
    /// The sink itself is wrong: it broke its contract or is not connected.
    Internal,
    /// Anything else.
    Other,
}

impl SinkErrorKind {
    /// Returns the word for metrics and dead letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Authentication => "authentication",
            Self::TooLarge => "too_large",
            Self::Invalid => "invalid",
            Self::NoTarget => "no_target",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorStatus {
    /// Trying again later may succeed.
    Temporary,
    /// Trying again cannot succeed.
    Permanent,
    /// It was temporary and every permitted attempt was made.
    Exhausted,
}

impl SinkError {
    /// Makes an error that may pass by itself.
    pub fn temporary(kind: SinkErrorKind, message: impl Into<String>) -> Self {
        Self { kind, status: ErrorStatus::Temporary, message: message.into() }
    }

    /// Makes an error that will not pass by itself.
    pub fn permanent(kind: SinkErrorKind, message: impl Into<String>) -> Self {
        Self { kind, status: ErrorStatus::Permanent, message: message.into() }
    }

    /// Marks a temporary error as exhausted: every permitted attempt was made.
    #[must_use]
    pub fn exhausted(mut self) -> Self {
        if self.status == ErrorStatus::Temporary {
            self.status = ErrorStatus::Exhausted;
        }
        self
    }

    /// Returns the class.
    pub fn kind(&self) -> SinkErrorKind {
        self.kind
    }

    /// Returns whether trying again can help.
    pub fn status(&self) -> ErrorStatus {
        self.status
    }

    /// Returns the text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SinkError {}

/// A group of payloads, all of one hook's answer and for one sink, that could not be delivered after
/// the automatic retries. What `on_delivery_error` is given.
#[derive(Clone, Debug)]
pub struct DeliveryFailure {
    /// The sink.
    pub sink: SinkId,
    /// The last error.
    pub error: SinkError,
    /// How many attempts were made for the payload that was tried most.
    pub attempts: u32,
    /// The payloads that are not confirmed, in order.
    pub payloads: Vec<Payload>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_errors_can_be_exhausted() {
        let temporary = SinkError::temporary(SinkErrorKind::Timeout, "t").exhausted();
        assert_eq!(temporary.status(), ErrorStatus::Exhausted);
        let permanent = SinkError::permanent(SinkErrorKind::Invalid, "p").exhausted();
        assert_eq!(permanent.status(), ErrorStatus::Permanent);
    }
}
