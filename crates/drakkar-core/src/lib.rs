//! The engine of drakkar: turns windows of messages into tasks, their results into deliveries, and
//! commits an offset only when everything that its message produced is confirmed.
//!
//! It knows no Kafka, no process, no database and no clock: it is given a
//! [`Source`](drakkar_api::Source), an [`Executor`](drakkar_api::Executor) and sinks, and can be
//! used alone with somebody's own.
//!
//! Reading order: [`EngineParts`] and [`Engine`], then the state machine of a partition
//! (`partition.rs`), which makes all decisions in pure code, and its driver, which performs them.
#![forbid(unsafe_code)]

mod engine;

mod driver;
mod partition;
mod watermark;

mod ascending;
mod backpressure;
mod call_watch;
mod commit;
mod delivery;
mod failure;
mod hook_watch;
mod hooks;
mod pace;
mod periodic;
mod retry;

mod clock;
mod config;
mod courier;
mod erased;
mod error;
mod inbox;
mod shared;

pub use backpressure::{Load, LoadGauge, Thresholds};
pub use call_watch::WatchedCalls;
pub use clock::TokioClock;
pub use commit::CommitPolicy;
pub use config::{
    EXECUTOR_FIELDS, EngineConfig, KAFKA_FIELDS, ParsePolicy, RETRY_SECTION, RawExecutor, RawKafka,
    RawRetry, SendFailurePolicy, StallResponse,
};
pub use engine::{Engine, EngineParts, EngineStatus};
pub use erased::AnySink;
pub use error::{EngineError, EngineErrorKind};
pub use failure::{FailureAction, FailurePolicies, FailurePolicy, RawOnFailure, RawPolicy};
pub use periodic::{PeriodicErrorPolicy, PeriodicTask, ZeroInterval};
pub use retry::Backoff;
pub use watermark::{OutOfOrder, Token, Watermark};
