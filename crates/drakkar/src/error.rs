//! Why an application could not start, or ended.

use crate::config::ConfigError;
use drakkar_api::HookError;
use drakkar_core::{EngineError, EngineErrorKind};
use std::fmt;

/// The application could not start, or ended by itself.
///
/// `Display` says what, [`source`](std::error::Error::source) why; `Debug` says both on one line, so
/// that a `main` that returns it prints something readable.
pub struct Error {
    kind: ErrorKind,
}

/// The class of an [`Error`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong; every problem is listed. Nothing was started.
    Config(ConfigError),
    /// A part could not start.
    Start {
        /// Which: the section of the configuration that it belongs to, or the hook.
        part: &'static str,
        /// Why.
        source: HookError,
    },
    /// The engine could not start, or the source ended by itself.
    Engine(EngineError),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind }
    }

    pub(crate) fn start(
        part: &'static str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(ErrorKind::Start { part, source: Box::new(error) })
    }

    pub(crate) fn hook(part: &'static str, source: HookError) -> Self {
        Self::new(ErrorKind::Start { part, source })
    }

    pub(crate) fn io(part: &'static str, error: std::io::Error) -> Self {
        Self::start(part, error)
    }

    /// Returns the class.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Returns the exit code of the documented table: 2 for the configuration, 3 for a start that
    /// failed, 4 for a pipeline that ended by itself, 5 for one that a failure stopped.
    pub fn exit_code(&self) -> u8 {
        match &self.kind {
            ErrorKind::Config(_) => 2,
            ErrorKind::Start { .. } => 3,
            ErrorKind::Engine(error) => exit_code_of_engine(error.kind()),
        }
    }
}

fn exit_code_of_engine(kind: &EngineErrorKind) -> u8 {
    match kind {
        EngineErrorKind::SourceEnded(_) => 4,
        EngineErrorKind::Stopped(_) => 5,
        _ => 3,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Config(error) => error.fmt(f),
            ErrorKind::Start { part, .. } => write!(f, "failed to start ({part})"),
            ErrorKind::Engine(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            ErrorKind::Config(error) => error.source(),
            ErrorKind::Start { source, .. } => Some(source.as_ref()),
            ErrorKind::Engine(error) => error.source(),
        }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Self::new(ErrorKind::Engine(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use drakkar_api::{SinkError, SinkErrorKind, SinkId, SinkKind, SourceError, SourceErrorKind};

    #[test]
    fn every_kind_has_the_exit_code_of_the_table() {
        let check = |error: Error, code: u8| assert_eq!(error.exit_code(), code, "{error:?}");
        let config = Config::from_yaml_str("kafka: {brokerz: x}", []).expect_err("unknown");
        check(config.into(), 2);
        check(Error::hook("on_startup", "no".into()), 3);
        check(Error::start("metrics", std::io::Error::other("taken")), 3);
        check(Error::io("failed to listen for signals", std::io::Error::other("no")), 3);
        let check = |kind, code| assert_eq!(exit_code_of_engine(&kind), code, "{kind:?}");
        let sink = SinkId::new(SinkKind::Kafka, "out");
        let error = SinkError::permanent(SinkErrorKind::Connection, "refused");
        let source = SourceError::new(SourceErrorKind::Unreachable, "no broker");
        check(EngineErrorKind::NoSinks, 3);
        check(EngineErrorKind::DuplicateSink(sink.clone()), 3);
        check(EngineErrorKind::Connect { sink, error }, 3);
        check(EngineErrorKind::OnReady("boom".to_owned()), 3);
        check(EngineErrorKind::Source(source.clone()), 3);
        check(EngineErrorKind::SourceEnded(source), 4);
    }
}
