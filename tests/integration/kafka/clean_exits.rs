//! Workers that are asked to go, and workers that come, in the middle of a run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drakkar_integration::{Pipeline, Worker, report, wait_until};
use rustix::process::Signal;

use crate::RUN;

const BACKLOG: u64 = 1_000;

pub(crate) const PARTITIONS: f64 = 16.0;

/// What is done, at the least, between two changes of the group.
const RECORDS_BETWEEN: u64 = 200;

/// From a worker's coming or going to its partitions being shared out again.
pub(crate) const REBALANCE: Duration = Duration::from_secs(60);

/// How many tasks a message becomes where a drain has to take long.
const LONG_DRAIN_TASKS: u64 = 4_000;

/// The documented exit code of a worker that was interrupted a second time.
const EXIT_INTERRUPTED: i32 = 130;

/// What "at once" means on a busy machine. That it did not drain is shown by what it left undone.
const AT_ONCE: Duration = Duration::from_secs(5);

// Promise: DL-1, WM-1, RB-1
#[test]
fn a_worker_that_is_terminated_leaves_nothing_undone_and_nothing_to_repeat() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let first = pipeline.worker("first")?.start()?;
    pipeline.wait_for_records(2_000, RUN)?;
    first.terminate()?;
    let (committed, ledger) = pipeline.check_commits_are_delivered()?;
    let repeatable = ledger.uncommitted(&committed)?;
    ensure!(repeatable == 0, "{repeatable} tasks were delivered and not committed");
    let load = feed.stop()?;
    ensure!(ledger.records() < load.tasks(), "the signal came after the run");

    let second = pipeline.worker("second")?.start()?;
    pipeline.wait_until_committed(load, RUN)?;
    second.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("SIGTERM: {account}"))?;
    account.exactly_once()
}

// Promise: RB-1
#[test]
fn workers_that_join_and_leave_cleanly_lose_and_repeat_nothing() -> Result<()> {
    join_and_leave("classic")
}

// Promise: RB-1
#[test]
fn workers_that_join_and_leave_a_group_of_the_new_protocol_lose_and_repeat_nothing() -> Result<()> {
    join_and_leave("consumer")
}

fn join_and_leave(protocol: &str) -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let start = |id| pipeline.worker(id)?.with("BENCH_GROUP_PROTOCOL", protocol).start();
    let a = start("a")?;
    wait_until_shared(&pipeline, &[&a])?;
    let b = start("b")?;
    wait_until_shared(&pipeline, &[&a, &b])?;
    let c = start("c")?;
    wait_until_shared(&pipeline, &[&a, &b, &c])?;
    b.terminate()?;
    wait_until_shared(&pipeline, &[&a, &c])?;
    a.terminate()?;
    wait_until_shared(&pipeline, &[&c])?;
    let records = pipeline.records()?;
    let load = feed.stop()?;
    ensure!(records < load.tasks(), "the last rebalance came after the run");

    pipeline.wait_until_committed(load, RUN)?;
    c.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("joining and leaving ({protocol}): {account}"))?;
    account.exactly_once()
}

/// Waits until the workers have all partitions between them and each has got messages since.
pub(crate) fn wait_until_shared(pipeline: &Pipeline, workers: &[&Worker]) -> Result<()> {
    let what = format!("{} workers to share the partitions", workers.len());
    wait_until(&what, REBALANCE, || {
        let assigned = of_each(workers, "drakkar_assigned_partitions")?;
        let is_shared = assigned.iter().sum::<f64>() == PARTITIONS && !assigned.contains(&0.0);
        Ok(is_shared.then_some(()))
    })?;
    let before = of_each(workers, "drakkar_messages_consumed_total")?;
    wait_until("every worker to get messages", RUN, || {
        let now = of_each(workers, "drakkar_messages_consumed_total")?;
        Ok(now.iter().zip(&before).all(|(now, before)| now > before).then_some(()))
    })?;
    pipeline.wait_for_records(pipeline.records()? + RECORDS_BETWEEN, RUN)?;
    Ok(())
}

fn of_each(workers: &[&Worker], metric: &str) -> Result<Vec<f64>> {
    // A worker that was never assigned a partition has no such sample yet.
    workers.iter().map(|worker| Ok(worker.metrics()?.sum(metric).unwrap_or(0.0))).collect()
}

// Promise: DL-1
#[test]
fn a_second_interrupt_ends_the_worker_at_once_and_loses_nothing() -> Result<()> {
    let pipeline = Pipeline::new(LONG_DRAIN_TASKS)?;
    let load = pipeline.produce(2)?;
    let mut first = pipeline.worker("first")?.with("BENCH_MAX_EXECUTORS", 1).start()?;
    pipeline.wait_for_records(1, RUN)?;
    first.signal(Signal::INT)?;
    wait_until("the drain to begin", RUN, || {
        first.ensure_running().context("it drained before the second interrupt")?;
        Ok((first.get("/readyz")?.status == 503).then_some(()))
    })?;
    first.signal(Signal::INT)?;
    let status = first.wait_exit(AT_ONCE)?;
    ensure!(status.code() == Some(EXIT_INTERRUPTED), "it ended with {status}");
    pipeline.wait_until_quiet()?;
    let (committed, ledger) = pipeline.check_commits_are_delivered()?;
    ensure!(ledger.records() < load.tasks(), "the interrupt came after the run");
    let repeatable = ledger.uncommitted(&committed)?;

    let second = pipeline.worker("second")?.start()?;
    pipeline.wait_until_committed(load, RUN)?;
    second.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("two interrupts: {account}; at most {repeatable} could be"))?;
    account.nothing_lost()?;
    ensure!(account.duplicates() <= repeatable, "only {repeatable} were not committed: {account}");
    Ok(())
}
