//! The log: lines of JSON, or text for people, written by a thread of their own.
//!
//! Nothing that writes a line ever waits: lines go into a queue that is bounded by count and bytes,
//! and what does not fit is dropped and counted (`drakkar_log_lines_dropped_total`). The guard that
//! [`init`] answers writes out the queue when it is dropped. A file is opened anew at SIGHUP.

#[cfg(test)]
mod hook_tests;
mod layer;
mod line;
pub(crate) mod output;
mod setup;
mod writer;

pub(crate) use line::LineIdentity;
#[cfg(test)]
pub(crate) use setup::{LogError, capture, capture_through};
pub(crate) use setup::{LogGuard, check_filter, goes_to_a_file, init, reopen};
pub(crate) use writer::dropped_lines;
