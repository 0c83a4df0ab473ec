//! The contracts of drakkar: the plain data that flows through a pipeline and the traits that its
//! parts implement.
//!
//! Every other crate of drakkar depends on this one, and this one on none of them. It knows no
//! runtime, no driver and no file format, so that a sink compiles without the engine, the engine
//! without Kafka, and both can be tested against fakes.
//!
//! | You write | Implement | Run by |
//! |---|---|---|
//! | a pipeline | [`Handler`] | the engine (`drakkar-core`) |
//! | a destination | [`Sink`] | the engine's lanes |
//! | an origin of messages | [`Source`] | the engine |
//! | a way to run tasks | [`Executor`] | the engine |
//! | something that watches | [`Observer`] | everybody who emits an [`Event`] |
//!
//! Users of the facade crate `drakkar` find all of this re-exported in its prelude.
#![forbid(unsafe_code)]

mod config;
mod context;
mod error;
mod event;
mod executor;
mod handler;
mod headers;
mod ids;
mod message;
mod payload;
mod pending;
mod reply;
mod sink;
mod source;
mod task;
mod time;
mod window;
mod written;

pub use config::{Field, Kind, Problem, Problems, Secret, Section};
pub use context::{ClientError, Clients, Context, ContextScope, WorkerInfo};
pub use error::{DecodeError, HookError, HookResult};
pub use event::{Event, Hook, MessageEnd, NullObserver, Observer, TaskPath, WorkerCall};
pub use executor::{CancelScope, Executor, Run, RunId, RunListener, Slots};
pub use handler::{DeliveryAction, ErrorAction, Handler, Input, Priority, RawInput};
pub use headers::Headers;
pub use ids::{
    CommitOffset, DeliveryId, Epoch, Offset, PartitionId, SinkId, SinkKind, TaskId, WindowId,
    WorkerId,
};
pub use message::{Message, ParsedPayload, SourceMessage};
pub use payload::{
    CustomPayload, FileLine, HttpRequest, KafkaRecord, MongoDocument, Outputs, Payload,
    PostgresRow, RedisValue,
};
pub use pending::PendingTasks;
pub use reply::{Reply, ReplyDropped, ReplyReceiver};
pub use sink::{
    Batch, BatchItem, BatchLimits, DeliveryFailure, ErrorStatus, Sink, SinkError, SinkErrorKind,
    SinkPayload, Verdict,
};
pub use source::{
    Assignment, COMMIT_GRACE, CommitRequest, Credit, Flow, Settlement, Source, SourceError,
    SourceErrorKind, SourceEvents,
};
pub use task::{
    Captured, Execution, Precomputed, ResourceUsage, SpawnErrorKind, Task, TaskFailure,
    TaskOutcome, TaskOutput,
};
pub use time::{Clock, Instant, Timestamp, TimestampKind};
pub use window::{CompletedWindow, MessageGroup, Window};
pub use written::WrittenHooks;
