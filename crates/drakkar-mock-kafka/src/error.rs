//! What can go wrong with a mock cluster.

use rdkafka::types::RDKafkaErrorCode;

/// The mock cluster refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MockError {
    /// The client that hosts the cluster could not be made.
    #[error("failed to make the client that hosts the mock cluster")]
    Host(#[source] rdkafka::error::KafkaError),
    /// The cluster could not be started.
    #[error("failed to start a mock cluster with {brokers} brokers")]
    Start {
        /// How many brokers were asked for.
        brokers: i32,
    },
    /// A call failed.
    #[error("the mock cluster refused to {action}: {code}")]
    Refused {
        /// What it was asked to do.
        action: &'static str,
        /// librdkafka's answer.
        code: RDKafkaErrorCode,
    },
    /// A name holds a NUL byte.
    #[error("the name {name:?} holds a NUL byte")]
    Name {
        /// The name.
        name: String,
    },
}
