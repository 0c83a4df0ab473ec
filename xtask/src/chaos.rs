//! `cargo xtask chaos`: workers under faults, on a real broker, and a verdict.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::arguments::Arguments;
use crate::services::session::Session;
use crate::services::{Provider, Service, kafka};
use crate::{bench, cargo, integration, workspace};

pub(crate) const HELP: &str = "\
Brings up Kafka as a plain process and runs workers on it while they are killed, stopped and ended, the
broker is restarted and killed, their connections are cut, and their children fail and hang. Then the
topics and the log of commits are read from the beginning, and a verdict is printed as figures. The
services are taken down again.

Usage: cargo xtask chaos [--minutes <N>] [--seed <S>] [--workers <N>] [--protocol <classic|consumer>]
                         [--sabotage <none|drop|repeat>]

Options:
  --minutes   How long faults are made (default: 3)
  --seed      What decides the schedule of faults and what children do (default: the clock); printed
  --workers   How many workers share the source (default: 3)
  --protocol  kafka.group_protocol of the workers (default: classic)
  --sabotage  What the test worker does wrong; such a run must be rejected (default: none)

The harness finds the worker in DRAKKAR_BENCH_WORKER, the broker in DRAKKAR_TEST_KAFKA, and in
DRAKKAR_CHAOS_BROKER and DRAKKAR_CHAOS_PROXY both ends of the proxy that cuts connections.

Exit codes: 0 passed, 1 rejected or no verdict.
";

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    // Asked for before anything is built: the path of a program that was replaced is lost.
    let xtask = std::env::current_exe().context("failed to find the path of xtask")?;
    let worker = bench::build("drakkar-chaos-worker")?;
    let harness = build_harness()?;
    let session = Session::begin(&[Service::Kafka], Provider::Native)?;
    let state = session.state(Service::Kafka)?;
    let detour = kafka::detour(state)?;
    let status = cargo::status(
        Command::new(harness)
            .args(arguments.forwarded())
            .envs(integration::variables(Service::Kafka, state)?)
            .env("DRAKKAR_BENCH_WORKER", worker)
            .env("DRAKKAR_XTASK", xtask)
            .env("DRAKKAR_CHAOS_BROKER", detour.broker.to_string())
            .env("DRAKKAR_CHAOS_PROXY", detour.proxy.to_string()),
    )?;
    session.end()?;
    Ok(cargo::exit_code(status))
}

fn build_harness() -> Result<std::path::PathBuf> {
    const BINARY: &str = "drakkar-chaos";
    let words = ["build", "--release", "--package", "drakkar-integration", "--bin", BINARY];
    cargo::run(&mut cargo::command(&words)?)?;
    Ok(workspace::target()?.join("release").join(BINARY))
}
