//! Errors that user code gives to the engine.

/// Any error of a hook. `?` turns every `std` error, and `anyhow`'s, into it.
pub type HookError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a hook answers.
pub type HookResult<T> = Result<T, HookError>;

/// A message's value could not be turned into the handler's input type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to decode the message's value: {reason}")]
pub struct DecodeError {
    reason: String,
}

impl DecodeError {
    /// Says why, in lower case and without a full stop.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    /// Returns why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
