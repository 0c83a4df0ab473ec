//! Workers whose place in the group outlives them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use drakkar_integration::{Pipeline, Worker, WorkerCommand, report, wait_until};

use crate::RUN;
use crate::clean_exits::{PARTITIONS, REBALANCE, wait_until_shared};

const BACKLOG: u64 = 1_000;

/// Longer than a restart takes; the broker's own for the newer protocol is as long.
const SESSION_MS: u64 = 6_000;

/// From a second worker of the same name to the end of one of the two.
const FENCING: Duration = Duration::from_secs(30);

/// The documented exit code of a worker whose source ended by itself.
const EXIT_SOURCE_ENDED: i32 = 4;

const NAME: &str = "the-only-one";

// Promise: RB-1
#[test]
fn a_restart_of_a_static_member_moves_no_partition() -> Result<()> {
    restart("classic")
}

// Promise: RB-1
#[test]
fn a_restart_of_a_static_member_of_the_new_protocol_moves_no_partition() -> Result<()> {
    restart("consumer")
}

fn member(pipeline: &Pipeline, id: &str, protocol: &str, instance: &str) -> Result<WorkerCommand> {
    let worker = pipeline.worker(id)?.with("BENCH_GROUP_PROTOCOL", protocol);
    Ok(worker.with("BENCH_SESSION_MS", SESSION_MS).with("BENCH_INSTANCE_ID", instance))
}

fn restart(protocol: &str) -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let start = |id| member(&pipeline, id, protocol, "i-{worker_id}");
    let stays = start("stays")?.start()?;
    let goes = start("goes")?.start()?;
    wait_until_shared(&pipeline, &[&stays, &goes])?;
    let (kept, left) = wait_until("both to know their partitions", REBALANCE, || {
        let (kept, left) = (partitions(&stays)?, partitions(&goes)?);
        Ok((kept.len() + left.len() == 16 && kept.is_disjoint(&left)).then_some((kept, left)))
    })?;
    let rebalances = rebalances(&stays)?;

    goes.terminate()?;
    // Another log, the same name.
    let again = start("goes-again")?.with("BENCH_WORKER_ID", "goes").start()?;
    wait_until("the worker to have its partitions again", REBALANCE, || {
        Ok((partitions(&again)? == left).then_some(()))
    })?;
    wait_until_shared(&pipeline, &[&stays, &again])?;
    ensure!(partitions(&again)? == left, "it has other partitions than before: {left:?}");
    ensure!(partitions(&stays)? == kept, "the other one has other partitions: {kept:?}");
    let told = self::rebalances(&stays)?;
    ensure!(told == rebalances, "the other one was told of {} rebalances", told - rebalances);

    // Who does not come back is missed when the session is over, and only then.
    again.terminate()?;
    let has_all = || {
        let assigned = stays.metrics()?.sum("drakkar_assigned_partitions")?;
        Ok((assigned == PARTITIONS).then_some(()))
    };
    wait_until("the other one to take over", REBALANCE, has_all)?;
    wait_until_shared(&pipeline, &[&stays])?;
    let load = feed.stop()?;
    pipeline.wait_until_committed(load, RUN)?;
    stays.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("restart of a static member ({protocol}): {account}"))?;
    account.exactly_once()
}

// Promise: DL-1, WM-1
#[test]
fn of_two_workers_with_one_name_the_older_ends_and_names_it() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let older = member(&pipeline, "older", "classic", NAME)?.start()?;
    wait_until_shared(&pipeline, &[&older])?;
    let newer = member(&pipeline, "newer", "classic", NAME)?.start()?;
    check_fenced(older)?;
    wait_until_shared(&pipeline, &[&newer])?;
    let load = feed.stop()?;
    pipeline.wait_until_committed(load, RUN)?;
    newer.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("two workers with one name (classic): {account}"))?;
    account.nothing_lost()
}

// Promise: DL-1, WM-1
#[test]
fn of_two_workers_with_one_name_in_the_new_protocol_the_newer_ends_and_names_it() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let older = member(&pipeline, "older", "consumer", NAME)?.start()?;
    wait_until_shared(&pipeline, &[&older])?;
    let newer = member(&pipeline, "newer", "consumer", NAME)?.spawn()?;
    check_fenced(newer)?;
    wait_until_shared(&pipeline, &[&older])?;
    let load = feed.stop()?;
    pipeline.wait_until_committed(load, RUN)?;
    older.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("two workers with one name (consumer): {account}"))?;
    account.exactly_once()
}

fn check_fenced(mut worker: Worker) -> Result<()> {
    let status = worker.wait_exit(FENCING)?;
    ensure!(status.code() == Some(EXIT_SOURCE_ENDED), "it ended with {status}");
    let log = worker.log()?;
    let (_, last_words) = log.split_once("\ndrakkar: ").context("it did not say why it ended")?;
    for culprit in ["group_instance_id", NAME] {
        ensure!(last_words.contains(culprit), "it does not name {culprit}: {last_words}");
    }
    Ok(())
}

/// The partitions that the worker says are its own.
fn partitions(worker: &Worker) -> Result<BTreeSet<i32>> {
    let metrics = worker.metrics()?;
    let is_own =
        |it: &i32| metrics.sum_with("drakkar_consumer_lag", &format!("partition=\"{it}\"")).is_ok();
    Ok((0..16).filter(is_own).collect())
}

/// How often partitions came or went.
fn rebalances(worker: &Worker) -> Result<f64> {
    worker.metrics()?.sum("drakkar_rebalance_events_total")
}
