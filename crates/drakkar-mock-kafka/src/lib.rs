//! A Kafka broker inside the process: librdkafka's mock cluster with what drakkar's tests and its
//! quickstart need of it.
//!
//! It listens on loopback ports, speaks the Kafka protocol and serves any client of the machine.
//! [`MockKafka`] can also misbehave on request: brokers go down, requests fail or are slow.
//!
//! # What it does not do
//!
//! - It keeps nothing: topics live in memory, and of each partition the latest 5 MiB as they were
//!   sent; **older messages are dropped silently**.
//! - It honours no transactions and no administration requests.
//! - A fetch that finds nothing is answered only after the client's `fetch.wait.max.ms`, whatever
//!   arrives meanwhile: set it low for short delays.
//! - An unknown topic is created with four partitions as soon as a client that permits it asks.
#![deny(unsafe_code)]

mod cluster;
mod error;
#[expect(unsafe_code, reason = "the mock cluster is reached through librdkafka's C interface only")]
mod native;

pub use cluster::{Broker, MockKafka, RecordedRequest};
pub use error::MockError;
/// A kind of request, to count it or to let it fail.
pub use rdkafka::types::RDKafkaApiKey as ApiKey;
/// What a broker answers to a request that is to fail.
pub use rdkafka::types::RDKafkaRespErr as BrokerError;
