//! Why a pool could not be started.

use std::fmt;
use std::io;

/// A pool could not be started. What goes wrong with a single task is no error of the pool but a
/// [`TaskOutcome`](drakkar_api::TaskOutcome).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PoolError {
    kind: PoolErrorKind,
    message: String,
    source: Option<io::Error>,
}

/// The class of a [`PoolError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolErrorKind {
    /// `executor.binary_path` names no file.
    BinaryNotFound,
    /// `executor.binary_path` names something that this user cannot execute.
    BinaryNotExecutable,
    /// A program of `executor.wrap`, or one that `executor.limits` needs, is missing.
    WrapNotFound,
    /// A program of `executor.wrap`, or one that `executor.limits` needs, cannot be executed by this
    /// user.
    WrapNotExecutable,
    /// Nothing can be run with `executor.limits`: they are higher than this user may set, or too low
    /// for any program.
    LimitsUnusable,
    /// The process handles a signal in a way that children cannot be run with.
    SignalDisposition,
    /// The system refused a thread or a descriptor.
    Resources,
}

impl PoolError {
    pub(crate) fn new(kind: PoolErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn resources(what: impl fmt::Display, source: io::Error) -> Self {
        let message = format!("failed to get {what} for the process pool");
        Self { kind: PoolErrorKind::Resources, message, source: Some(source) }
    }

    /// Returns the class.
    pub fn kind(&self) -> PoolErrorKind {
        self.kind
    }
}
