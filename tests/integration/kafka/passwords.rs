//! Workers that must show a password, to the broker's listener with SASL.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drakkar_integration::{Pipeline, WorkerCommand, wait_until};

use crate::RUN;

/// A refusal is told at once, not after `connect_timeout_seconds` (30 s); the rest is for a busy
/// machine.
const REFUSAL: Duration = Duration::from_secs(20);

/// The documented exit code of a worker that could not reach what it needs.
const EXIT_UNAVAILABLE: i32 = 3;

const MESSAGES: u64 = 200;

const WRONG: &str = "not-the-password";

#[test]
fn source_sink_and_dead_letters_come_in_with_the_right_password() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let load = pipeline.produce(MESSAGES)?;
    let password = pipeline.environment().kafka_password.clone();
    let worker = pipeline.worker_with_password("trusted", &password)?;
    let worker = worker.with("BENCH_ON_PARSE_ERROR", "dead_letter").start()?;
    pipeline.wait_until_committed(load, RUN)?;
    let (_, ledger) = pipeline.check_commits_are_delivered()?;
    ledger.account(load).exactly_once()?;
    ensure!(pipeline.dead_letters()? == 0, "good messages were dead-lettered");
    pipeline.produce_nonsense()?;
    wait_until("a dead letter", RUN, || Ok((pipeline.dead_letters()? == 1).then_some(())))?;
    let log = worker.log()?;
    worker.terminate()?;
    ensure!(!log.contains(&password), "the log tells the password: {log}");
    Ok(())
}

// Promise: FT-2
#[test]
fn a_sink_with_a_wrong_password_ends_the_worker_and_names_broker_and_mechanism() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let worker = pipeline.worker_with_password("stranger", WRONG)?;
    check_refused(&pipeline, worker, "sink")
}

// Promise: FT-2
#[test]
fn a_source_with_a_wrong_password_ends_the_worker_and_names_broker_and_mechanism() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let worker = pipeline.worker_with_password("stranger", WRONG)?;
    // The sinks come in by the other door.
    let worker = worker.with("BENCH_SINK_BROKERS", pipeline.broker().address());
    check_refused(&pipeline, worker, "source")
}

fn check_refused(pipeline: &Pipeline, worker: WorkerCommand, part: &str) -> Result<()> {
    let mut worker = worker.spawn()?;
    let status = worker.wait_exit(REFUSAL)?;
    ensure!(status.code() == Some(EXIT_UNAVAILABLE), "it ended with {status}");
    let log = worker.log()?;
    let (_, last_words) = log.split_once("\ndrakkar: ").context("it did not say why it ended")?;
    for culprit in [part, &pipeline.environment().kafka_auth, "SASL/PLAIN"] {
        ensure!(last_words.contains(culprit), "it does not name {culprit}: {last_words}");
    }
    ensure!(!log.contains(WRONG), "the log tells the password: {log}");
    Ok(())
}
