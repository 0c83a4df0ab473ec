//! The log: lines of JSON or text, written by a thread of their own.

pub(crate) mod output;
