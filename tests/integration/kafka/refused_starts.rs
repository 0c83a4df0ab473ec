//! Workers that cannot begin say why and end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drakkar_integration::{Pipeline, WorkerCommand, closed_port};

/// The connection is tried for 30 s by default; the rest is for a busy machine.
const REFUSAL: Duration = Duration::from_secs(45);

/// The documented exit code of a worker that could not reach what it needs.
const EXIT_UNAVAILABLE: i32 = 3;

fn check_refused(worker: WorkerCommand, culprit: &str) -> Result<()> {
    let mut worker = worker.spawn()?;
    let status = worker.wait_exit(REFUSAL)?;
    ensure!(status.code() == Some(EXIT_UNAVAILABLE), "it ended with {status}");
    let log = worker.log()?;
    // Above it are log lines, which name much that is not at fault.
    let (_, last_words) = log.split_once("\ndrakkar: ").context("it did not say why it ended")?;
    ensure!(last_words.contains(culprit), "it does not name {culprit}: {last_words}");
    Ok(())
}

// Promise: FT-2
#[test]
fn a_worker_without_a_broker_ends_and_names_the_broker() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let nowhere = format!("127.0.0.1:{}", closed_port()?);
    check_refused(pipeline.worker("lonely")?.with("BENCH_BROKERS", &nowhere), &nowhere)
}

#[test]
fn a_worker_without_its_source_topic_ends_and_names_the_topic() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let worker = pipeline.worker("misled")?.with("BENCH_SOURCE", "no-such-topic");
    check_refused(worker, "no-such-topic")
}
