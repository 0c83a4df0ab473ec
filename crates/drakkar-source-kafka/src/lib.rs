//! The Kafka consumer behind drakkar's trait [`Source`](drakkar_api::Source).
//!
//! [`KafkaSource`] takes partitions of one topic as a member of a consumer group and pushes their
//! messages to the engine as far as the engine permits.
//!
//! # How it works
//!
//! - One thread owns the client. Each partition has a queue of its own, made before its first
//!   message can arrive, and a queue is **simply not polled** while its assignment has no credit or
//!   the flow is closed. Librdkafka then stops fetching by itself. Its `pause` is not used: after a
//!   `resume` the next message takes about a second, and what was fetched is thrown away.
//! - The thread sleeps until librdkafka, the engine or a deadline of 100 ms wakes it.
//! - A second thread commits, one call at a time; what waits meanwhile goes into the next call.
//!   It works also while the first thread waits inside a revoke.
//! - A third thread asks the brokers every 5 s where the partitions end, for [`SourceGauges`].
//!
//! # Invariants
//!
//! - Every assignment has an [`Epoch`](drakkar_api::Epoch) that is unique in the process. Nothing
//!   is handed over under it after its revoke was answered or its loss was reported.
//! - A commit of an assignment that has ended is refused here, before librdkafka sees it: the group
//!   would accept it from a member that is alive and move the new owner's position back.
//! - A revoke holds the group up for at most the drain deadline, the time of its last commit and a
//!   margin, which together are shorter than `max_poll_interval_ms`.
//!
//! - A member with a `group_instance_id` ends without leaving the group, so that a restart within the
//!   session finds its partitions; what has started is drained and committed all the same. A member
//!   whose name another one has taken ends with an error that tells the name.
//!
//! # Limits
//!
//! Librdkafka keeps up to `queued_max_kbytes` of fetched messages *for each partition*, and may
//! exceed that by one fetch. Nothing else is kept here: what is polled is handed over at once.
//!
//! # What it does not do
//!
//! It reads one topic, commits positions only (no outcome of single messages), and knows nothing of
//! handlers, tasks and sinks.
#![deny(unsafe_code)]

mod commit;
mod config;
mod convert;
mod error;
mod flow;
mod lag;
#[expect(unsafe_code, reason = "one call that the client library's wrapper lacks")]
mod membership;
mod poll;
mod rebalance;
mod source;
mod wake;
mod watch;

pub use config::{FIELDS, GroupProtocol, OffsetReset, SourceConfig, SourceSettings, WORKER_ID};
pub use source::KafkaSource;
pub use watch::SourceGauges;
