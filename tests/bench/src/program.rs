//! The two programs that tasks run.

use anyhow::{Result, bail};

/// A program that is cheap enough to leave the cost of spawning it in view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    True,
    Cat,
}

impl Program {
    pub(crate) fn parse(name: &str) -> Result<Self> {
        match name {
            "true" => Ok(Self::True),
            "cat" => Ok(Self::Cat),
            _ => bail!("unknown program \"{name}\", expected \"true\" or \"cat\""),
        }
    }

    /// The name in rows, on the command line and in `BENCH_MODE`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::Cat => "cat",
        }
    }

    /// Absolute: a bare name would make both sides search `PATH`.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::True => "/bin/true",
            Self::Cat => "/bin/cat",
        }
    }

    /// How much it writes when it is given `stdin_len` bytes.
    pub(crate) fn stdout_len(self, stdin_len: usize) -> usize {
        match self {
            Self::True => 0,
            Self::Cat => stdin_len,
        }
    }
}
