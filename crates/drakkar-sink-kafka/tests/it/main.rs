//! Tests of the Kafka sink over the in-process mock cluster.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
mod conformance;
mod connect;
mod delivery;
mod outage;
