//! drakkar: polls Kafka, runs a program for each message, and delivers what it produced.
//!
//! A worker joins a consumer group, turns windows of messages into tasks through a [`Handler`], runs
//! each task as an external process, delivers the results to its sinks, and commits an offset only
//! when everything that its message produced is confirmed.
//!
//! [`Handler`]: prelude::Handler
//!
//! # Example
//!
//! ```no_run
//! use drakkar::prelude::*;
//! use std::process::ExitCode;
//!
//! #[derive(serde::Deserialize)]
//! struct Job {
//!     id: String,
//!     text: String,
//! }
//!
//! struct CountWords;
//!
//! impl Handler for CountWords {
//!     type Input = Job;
//!
//!     async fn arrange(&self, window: &Window<Job>, _cx: &Context) -> Result<Vec<Task>> {
//!         let jobs = window.messages().filter_map(Message::payload_with_offset);
//!         let task = |(job, offset): (&Job, Offset)| {
//!             Task::for_offset(offset).arg("-w").stdin(job.text.clone()).label("id", &job.id)
//!         };
//!         Ok(jobs.map(task).collect())
//!     }
//!
//!     async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> Result<Outputs> {
//!         let words: u64 = done.stdout_text().trim().parse()?;
//!         Ok(Outputs::new().with(KafkaRecord::json(&words)?))
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     App::new(CountWords).config_file("drakkar.yaml").run_to_exit_code().await
//! }
//! ```
//!
//! # Features
//!
//! | feature | what it links | default |
//! |---|---|---|
//! | `sink-kafka` | Kafka sinks | yes |
//! | `sink-file` | file sinks | yes |
//! | `kafka-tls` | TLS, SASL/SCRAM and OAUTHBEARER to Kafka, with a vendored OpenSSL (needs perl) | |
//! | `kafka-tls-system` | the same with the system's OpenSSL | |
//! | `kafka-oidc` | OAUTHBEARER with tokens of an OpenID Connect provider, and `kafka-tls-system` | |
//! | `kafka-gssapi` | Kerberos | |
//! | `full` | everything that needs no system header | |
//!
//! # Exit codes
//!
//! [`App::run_to_exit_code`] ends a program with 0 after an orderly end (also when the drain ran out of
//! time), 2 when the configuration is wrong, 3 when a part could not start, 4 when the source ended by
//! itself, 5 when a failure stopped the worker as `executor.on_failure` or `kafka.on_parse_error` says,
//! and 130 after a second signal.
#![forbid(unsafe_code)]

mod app;
pub mod config;
mod error;
pub mod prelude;

mod align;
mod cpus;
mod exit;
mod health;
mod logging;
mod observers;
mod parts;
mod server;
mod signals;
mod telemetry;
mod watchdog;

#[cfg(test)]
mod pages;

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub use app::App;
pub use drakkar_exec::Cpus;
pub use error::{Error, ErrorKind};
/// The crate by which an application makes metrics of its own, in the version whose metrics are on the
/// page of `/metrics`: those of another version go nowhere.
pub use metrics;

/// What the application answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;
