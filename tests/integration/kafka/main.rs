//! Real workers against a real Apache Kafka: nothing is lost, whatever happens to either.
//!
//! `cargo xtask integration kafka` runs these tests one at a time, because some of them restart the
//! broker.

mod broker_faults;
mod clean_exits;
mod complete_runs;
mod killed_workers;
mod passwords;
mod racks;
mod refused_starts;
mod revokes;
mod server_pages;
mod static_members;

use std::time::Duration;

/// For a run, or a part of one, to get through its messages on a slow and busy machine.
const RUN: Duration = Duration::from_secs(180);
