//! How a worker is told what to do: by environment variables alone.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::program::Program;

/// What the tasks of a run do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every task runs the program.
    Run(Program),
    /// Every task has its result already, with the output "ok".
    Precomputed,
}

/// The output of a precomputed task.
pub(crate) const PRECOMPUTED_STDOUT: &str = "ok";

/// How a worker is tuned where no process runs. By default a worker pauses at 32 times as many
/// messages as it has slots: plenty for processes, and next to nothing for messages that take a
/// microsecond and then wait for the broker's acknowledgement.
const PRECOMPUTED_TUNING: [(&str, &str); 4] = [
    ("BENCH_WINDOW", "500"),
    ("BENCH_POLL", "500"),
    ("BENCH_BP_HIGH", "2000"),
    ("BENCH_BP_LOW", "1000"),
];

/// Everything that a worker is told. The bare loops get the same variables, so that the children of
/// both sides inherit the same environment.
#[derive(Debug)]
pub(crate) struct Orders<'a> {
    pub(crate) mode: Mode,
    pub(crate) slots: usize,
    pub(crate) fanout: usize,
    pub(crate) brokers: &'a str,
    pub(crate) source: &'a str,
    pub(crate) sink: &'a str,
    pub(crate) group: &'a str,
    pub(crate) metrics_port: u16,
}

impl Mode {
    /// The value of `BENCH_MODE`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run(program) => program.name(),
            Self::Precomputed => "pre",
        }
    }
}

impl Orders<'_> {
    /// Prepares a program that is given these orders, and nothing else but `PATH`: a variable of the
    /// person who runs the benchmark must not change what is measured.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .env("BENCH_BROKERS", self.brokers)
            .env("BENCH_SOURCE", self.source)
            .env("BENCH_SINK", self.sink)
            .env("BENCH_GROUP", self.group)
            .env("BENCH_MODE", self.mode.name())
            .env("BENCH_FANOUT", self.fanout.to_string())
            .env("BENCH_MAX_EXECUTORS", self.slots.to_string())
            .env("BENCH_METRICS_PORT", self.metrics_port.to_string())
            .env("BENCH_DEBUG", "0")
            .env("BENCH_ALIGN", "false")
            .env("BENCH_WORKER_ID", "drakkar-bench");
        if self.mode == Mode::Precomputed {
            command.envs(PRECOMPUTED_TUNING);
        }
        command
    }
}

/// Finds a port that nobody listens on, so that who answers on it later is the worker.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a port")?;
    Ok(listener.local_addr().context("failed to find a port")?.port())
}
