//! Why an engine could not start, or ended.

use drakkar_api::{SinkError, SinkId, SourceError};
use std::fmt;

/// The engine could not start, or ended by itself.
#[derive(Debug)]
pub struct EngineError {
    kind: EngineErrorKind,
}

/// The class of an [`EngineError`].
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineErrorKind {
    /// No sink was given.
    NoSinks,
    /// Two sinks have the same type and name.
    DuplicateSink(SinkId),
    /// A sink, or the dead letters, could not connect.
    Connect {
        /// Which.
        sink: SinkId,
        /// Why.
        error: SinkError,
    },
    /// `on_ready` failed.
    OnReady(String),
    /// The source could not start.
    Source(SourceError),
    /// The source ended by itself.
    SourceEnded(SourceError),
    /// A failure is one of those at which `executor.on_failure` or `kafka.on_parse_error` has the
    /// worker stop: which one, and where.
    Stopped(String),
}

impl EngineError {
    pub(crate) fn new(kind: EngineErrorKind) -> Self {
        Self { kind }
    }

    /// Returns the class.
    pub fn kind(&self) -> &EngineErrorKind {
        &self.kind
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EngineErrorKind::NoSinks => {
                f.write_str("no sinks configured; add at least one under sinks")
            }
            EngineErrorKind::DuplicateSink(sink) => write!(f, "sink {sink} is given twice"),
            EngineErrorKind::Connect { sink, .. } => write!(f, "failed to connect sink {sink}"),
            EngineErrorKind::OnReady(error) => write!(f, "on_ready failed: {error}"),
            EngineErrorKind::Source(_) => f.write_str("failed to start the source"),
            EngineErrorKind::SourceEnded(_) => f.write_str("the source ended by itself"),
            EngineErrorKind::Stopped(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            EngineErrorKind::Connect { error, .. } => Some(error),
            EngineErrorKind::Source(error) | EngineErrorKind::SourceEnded(error) => Some(error),
            _ => None,
        }
    }
}
