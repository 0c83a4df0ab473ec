//! `cargo xtask bench`: the benchmarks against a real broker.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::arguments::Arguments;
use crate::services::session::Session;
use crate::services::{Provider, Service};
use crate::{cargo, workspace};

pub(crate) const HELP: &str = "\
Brings up Kafka as a plain process, so that no container stands between it and the clock, runs the
benchmarks in release mode, and takes down what it brought up.

Usage: cargo xtask bench [--json] [--quick] [--list] [row..]

The arguments go to the drakkar-bench binary, which finds the broker in DRAKKAR_BENCH_KAFKA
(host:port) and the worker to measure in DRAKKAR_BENCH_WORKER (a path). See docs/benchmarks.md.

Exit codes: 0 every row measured and every floor met, 1 a row could not be measured, 2 a floor missed.
";

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let worker = build_worker()?;
    let bench = build("drakkar-bench")?;
    let session = Session::begin(&[Service::Kafka], Provider::Native)?;
    let status = cargo::status(
        Command::new(bench)
            .args(arguments.forwarded())
            .env("DRAKKAR_BENCH_KAFKA", session.state(Service::Kafka)?.address.to_string())
            .env("DRAKKAR_BENCH_WORKER", worker),
    )?;
    session.end()?;
    Ok(cargo::exit_code(status))
}

/// Builds the worker that benchmarks and integration tests run, and gives its path.
pub(crate) fn build_worker() -> Result<PathBuf> {
    build("drakkar-bench-worker")
}

/// Builds the binary of a package that has the same name, in release mode.
pub(crate) fn build(package: &str) -> Result<PathBuf> {
    cargo::run(&mut cargo::command(&["build", "--release", "--package", package])?)?;
    Ok(workspace::target()?.join("release").join(package))
}
