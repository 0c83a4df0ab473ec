//! The Kafka sink of drakkar: produces [`KafkaRecord`](drakkar_api::KafkaRecord)s to one topic, in
//! batches, and answers for each record by its own delivery report.
//!
//! The same sink, made by [`KafkaSink::dead_letters`], writes dead letters.
//!
//! # Guarantees
//!
//! - `confirmed` means that all in-sync replicas have the record.
//! - The producer is idempotent: the client's own retries make no duplicates and keep the order of a
//!   partition. A record that the engine sends again is a new one, which is why that happens by
//!   itself only when the first certainly never reached the broker.
//! - The client gives up on a record before the engine's attempt ends, so every report precedes the
//!   verdict.
//! - A producer that failed for good is replaced; what it had in flight is `unknown`.
//!
//! # Settings
//!
//! [`FIELDS`], beside the client settings of `drakkar-kafka`.
#![forbid(unsafe_code)]

mod config;
mod sink;

mod error;
mod report;
mod topic;

pub use config::{Compression, FIELDS, KafkaSinkConfig, KafkaSinkSection};
pub use sink::KafkaSink;
