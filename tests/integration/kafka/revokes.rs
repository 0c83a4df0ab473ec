//! What a revoke costs while tasks take long: the time of those that run, and nothing else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use drakkar_integration::{Completion, Pipeline, Worker, report, wait_until};

use crate::RUN;
use crate::clean_exits::REBALANCE;

/// The longest task.
const TASK: Duration = Duration::from_secs(2);

/// Beyond the tasks that run: the last deliveries, the commit, and a busy machine. A revoke that
/// waited for what is queued as well would take a multiple of it.
const MARGIN: Duration = Duration::from_secs(2);

const BACKLOG: u64 = 300;

/// Enough tasks at once for many to end in every second.
const SLOTS: u32 = 16;

/// What the first worker gets done before the second one comes.
const RECORDS: u64 = 100;

/// How long the staying partitions are looked at: for the rate before, and in steps meanwhile. In a
/// step every slot ends a task; in less than the longest task, those that started together need not.
const BEFORE_MS: i64 = 6_000;
const STEP_MS: i64 = 2_000;

// Promise: RB-1, RB-3
#[test]
fn a_revoke_takes_the_time_of_running_tasks_while_the_rest_goes_on() -> Result<()> {
    revoke("classic")
}

// Promise: RB-1, RB-3
#[test]
fn a_revoke_of_the_new_protocol_takes_the_time_of_running_tasks_while_the_rest_goes_on()
-> Result<()> {
    revoke("consumer")
}

/// A second worker comes while the first one is in the middle of long tasks.
fn revoke(protocol: &str) -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let worker = |id| -> Result<Worker> {
        let command = pipeline.worker(id)?.with("BENCH_GROUP_PROTOCOL", protocol);
        let command = command.with("BENCH_MODE", "sleep").with("BENCH_MAX_EXECUTORS", SLOTS);
        command.with("BENCH_SLEEP_SECONDS", TASK.as_secs()).start()
    };
    let first = worker("first")?;
    pipeline.wait_for_records(RECORDS, RUN)?;
    ensure!(revoked(&first)?.is_empty(), "partitions were revoked before anybody else came");

    let coming = now_ms()?;
    let second = worker("second")?;
    wait_until("a revoke to begin", REBALANCE, || {
        Ok(first.log()?.contains("partitions_revoked").then_some(()))
    })?;
    let begun = Instant::now();
    wait_until("the second worker to finish something", RUN, || {
        let finished = second.metrics()?.sum("drakkar_messages_finished_total").unwrap_or(0.0);
        Ok((finished > 0.0).then_some(()))
    })?;
    let handover = begun.elapsed();
    let shared = now_ms()?;
    let revoked = revoked(&first)?;
    let load = feed.stop()?;

    pipeline.wait_until_committed(load, RUN)?;
    let completions = pipeline.completions()?;
    second.terminate()?;
    first.terminate()?;
    let account = pipeline.finish(load)?.account;

    let longest = revoked.iter().map(|(_, took)| *took).max().context("nothing was revoked")?;
    let moved: BTreeSet<i32> = revoked.iter().map(|(partition, _)| *partition).collect();
    let stays = |it: &&Completion| !moved.contains(&it.partition);
    let staying: Vec<i64> = completions.iter().filter(stays).map(|it| it.at).collect();
    let before = count(&staying, coming - BEFORE_MS, coming);
    let steps: Vec<usize> = (coming..shared)
        .step_by(usize::try_from(STEP_MS)?)
        .map(|from| count(&staying, from, from + STEP_MS))
        .collect();
    let in_revoke = count(&staying, shared - ms(handover)?, shared);
    report(&format!(
        "revoke ({protocol}): {} of 16 partitions in {longest:.1?}, the new owner's first result \
         {handover:.1?} after its begin; those that stay: {:.1}/s before, {in_revoke} meanwhile, by \
         two seconds {steps:?}; {account}",
        moved.len(),
        before as f64 * 1_000.0 / BEFORE_MS as f64,
    ))?;
    ensure!(longest <= TASK + MARGIN, "a revoke took {longest:?}, a task at most {TASK:?}");
    ensure!(before > 0, "nothing shows how fast the staying partitions were before");
    ensure!(steps.iter().all(|step| *step > 0), "the staying partitions stood still: {steps:?}");
    account.exactly_once()
}

/// The partitions that the worker has given back, and how long each took.
fn revoked(worker: &Worker) -> Result<Vec<(i32, Duration)>> {
    let mut revoked = Vec::new();
    for line in
        worker.log()?.lines().filter(|line| line.contains("\"partition_processor_stopped\""))
    {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let partition = line["partition"].as_i64().context("a line without a partition")?;
        let seconds = line["duration_seconds"].as_f64().context("a line without a duration")?;
        revoked.push((i32::try_from(partition)?, Duration::from_secs_f64(seconds)));
    }
    Ok(revoked)
}

fn count(sorted: &[i64], from: i64, until: i64) -> usize {
    sorted.iter().filter(|at| (from..until).contains(*at)).count()
}

fn now_ms() -> Result<i64> {
    ms(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

fn ms(duration: Duration) -> Result<i64> {
    Ok(i64::try_from(duration.as_millis())?)
}
