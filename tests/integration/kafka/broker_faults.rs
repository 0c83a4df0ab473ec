//! A broker that goes away in the middle of a run and comes back with its data.

use anyhow::{Result, ensure};
use drakkar_integration::{Broker, Pipeline, report};

use crate::RUN;

const BACKLOG: u64 = 1_000;

/// What is done before the fault, and again after it, while the feed still runs.
const RECORDS: u64 = 1_000;

// Promise: DL-1, WM-1
#[test]
fn a_restart_of_the_broker_loses_nothing() -> Result<()> {
    survive("restart", Broker::restart)
}

// Promise: DL-1, WM-1
#[test]
fn a_killed_broker_loses_nothing() -> Result<()> {
    survive("kill", |broker| {
        broker.kill()?;
        broker.start()
    })
}

/// One worker lives through the fault without being started again.
fn survive(name: &str, fault: impl Fn(&Broker) -> Result<()>) -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let mut worker = pipeline.worker("only")?.start()?;
    pipeline.wait_for_records(RECORDS, RUN)?;
    pipeline.wait_for_commits_beyond(0, RUN)?;
    let committed = pipeline.committed()?.count();
    fault(pipeline.broker())?;
    // Only a worker that has gone on can write and commit more.
    pipeline.wait_for_commits_beyond(committed, RUN)?;
    pipeline.wait_for_records(pipeline.records()? + RECORDS, RUN)?;
    worker.ensure_running()?;
    let records = pipeline.records()?;
    let load = feed.stop()?;
    ensure!(records < load.tasks(), "the fault came after the run");

    pipeline.wait_until_committed(load, RUN)?;
    worker.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("{name} of the broker: {account}"))?;
    account.nothing_lost()
}
