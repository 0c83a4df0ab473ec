//! What the integration tests are made of: a real broker, real worker processes, and books kept
//! apart from both.
//!
//! A test lays out a [`Pipeline`] (two topics and a group), fills the source with numbered messages,
//! runs and harms [`Worker`]s, and closes the books with [`Pipeline::finish`]. The books are the
//! broker's: what stands in the sink topic and which offsets were committed. Nothing that a worker
//! says about itself counts as evidence, and nothing here shares code with it.
//!
//! Everything fails closed: a missing variable, an unreadable record, a hole in a topic, a fault
//! that came after the run was over, or a deadline that passed is an error, never a skip.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "worker processes are run and watched from outside")]

mod block_on;
mod broker;
pub mod chaos;
mod commit_log;
mod commit_watch;
mod committed;
mod environment;
mod feed;
mod fields;
mod footprint;
mod http;
mod ledger;
mod load;
mod member_log;
mod metrics;
mod pipeline;
mod port;
mod producer;
mod reader;
mod record;
mod report;
mod wait;
mod worker;

pub use broker::Broker;
pub use committed::Committed;
pub use environment::Environment;
pub use feed::Feed;
pub use footprint::{Curve, Footprint};
pub use http::Response;
pub use ledger::{Account, Ledger};
pub use load::Load;
pub use metrics::Metrics;
pub use pipeline::{Books, Completion, Pipeline};
pub use port::closed_port;
pub use record::{Record, TaskKey};
pub use report::report;
pub use wait::wait_until;
pub use worker::{Worker, WorkerCommand};
