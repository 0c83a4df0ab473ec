//! What a pipeline needs, in one line: `use drakkar::prelude::*;`.

pub use crate::app::App;
pub use crate::config::Config;
pub use drakkar_api::{
    ClientError, CompletedWindow, Context, CustomPayload, DeliveryAction, DeliveryFailure,
    ErrorAction, Event, FileLine, Handler, Headers, Hook, HttpRequest, KafkaRecord, Message,
    MessageGroup, MongoDocument, Observer, Offset, Outputs, PartitionId, Payload, PostgresRow,
    Precomputed, Priority, RawInput, RedisValue, SinkId, SinkKind, SourceMessage, Task,
    TaskFailure, TaskOutcome, TaskOutput, Timestamp, TimestampKind, Window,
};
pub use drakkar_core::PeriodicErrorPolicy;

/// What hooks answer; any error goes with `?`.
pub type Result<T, E = drakkar_api::HookError> = std::result::Result<T, E>;
