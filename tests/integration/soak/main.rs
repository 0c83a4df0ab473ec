//! The memory of a worker that has far more to do than it can: a long backlog, slow tasks with large
//! outputs, and hooks that hold these outputs for longer than it takes to make them.
//!
//! `cargo xtask integration soak --messages 2000000 --seconds 600` is the full measure; without these
//! it takes less than a minute. Two tests plant what the first one is to find.

#![expect(clippy::disallowed_methods, reason = "a process is watched from outside")]

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drakkar_integration::{Curve, Pipeline, WorkerCommand, report, wait_until};

const MIB: u64 = 1 << 20;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// How long a run is that must be rejected.
const SHORT: Duration = Duration::from_secs(10);

const SLOTS: u64 = 8;

/// The most messages of a window; each becomes one task.
const WINDOW: u64 = 4;

const OUTPUT: u64 = MIB;

/// `executor.max_buffered_bytes`.
const BUFFERED: u64 = 32 * MIB;

/// What the client may fetch ahead of each partition, with the fetch that exceeds it.
const FETCHED: u64 = MIB + MIB / 4;

const PARTITIONS: u64 = 16;

/// A worker without messages, and what its allocator keeps for later.
const ITSELF: u64 = 64 * MIB;

/// What windows that are open when the bytes reach their mark may still put out, and what slots read
/// meanwhile, comes on top of the mark.
const LIMIT: u64 =
    ITSELF + BUFFERED + (PARTITIONS * WINDOW + SLOTS) * OUTPUT + PARTITIONS * FETCHED;

/// What one half of a run may take more than the other.
const SLACK: u64 = 16 * MIB;

// Promise: FT-3
#[test]
fn memory_is_flat_before_a_long_backlog() -> Result<()> {
    let messages = number("DRAKKAR_SOAK_MESSAGES", 200_000)?;
    let seconds = number("DRAKKAR_SOAK_SECONDS", 16)?;
    let curve = watch(messages, Duration::from_secs(seconds), |worker| worker)?;
    report(&format!(
        "{messages} messages, {seconds} s: {curve}; the limit is {} MiB",
        LIMIT / MIB
    ))?;
    curve.ensure_flat(SLACK, LIMIT)
}

#[test]
fn a_leak_is_found() -> Result<()> {
    let curve = watch(2_000, SHORT, |worker| worker.with("BENCH_LEAK_BYTES", 2 * MIB))?;
    let found = curve.ensure_flat(SLACK, u64::MAX);
    ensure!(found.is_err(), "nobody minds a leak: {curve}");
    report(&format!("with a leak: {curve}"))?;
    Ok(())
}

#[test]
fn a_missing_bound_is_found() -> Result<()> {
    let unbounded = |worker: WorkerCommand| {
        worker.with("BENCH_BUFFERED_BYTES", u64::from(u32::MAX)).with("BENCH_BP_HIGH", 10_000)
    };
    let curve = watch(2_000, SHORT, unbounded)?;
    let found = curve.ensure_flat(u64::MAX - LIMIT, LIMIT);
    ensure!(found.is_err(), "nobody minds that bounds are gone: {curve}");
    report(&format!("without bounds: {curve}"))?;
    Ok(())
}

/// Lets a worker work for so long at more messages than it can finish in that time.
fn watch(
    messages: u64,
    lasting: Duration,
    change: impl FnOnce(WorkerCommand) -> WorkerCommand,
) -> Result<Curve> {
    let pipeline = Pipeline::new(1)?;
    pipeline.produce(messages)?;
    let command = pipeline.worker("only")?;
    let command = command
        .with("BENCH_MODE", "loud")
        .with("BENCH_OUTPUT_BYTES", OUTPUT)
        .with("BENCH_SLEEP_SECONDS", 0.1)
        .with("BENCH_HOOK_MS", 4_000)
        .with("BENCH_MAX_EXECUTORS", SLOTS)
        .with("BENCH_WINDOW", WINDOW)
        .with("BENCH_BP_HIGH", 4)
        .with("BENCH_BP_LOW", 1)
        .with("BENCH_BUFFERED_BYTES", BUFFERED);
    let mut worker = change(command).start()?;
    // Until then it has nothing to hold.
    wait_until("the first outputs", Duration::from_secs(60), || {
        Ok((worker.metrics()?.sum("drakkar_executor_tasks_total")? >= 16.0).then_some(()))
    })?;
    let mut curve = Curve::default();
    let began = Instant::now();
    while began.elapsed() < lasting {
        worker.ensure_running()?;
        curve.add(worker.footprint()?);
        thread::sleep(LOOK);
    }
    let done =
        worker.metrics()?.sum_with("drakkar_executor_tasks_total", "status=\"completed\"")?;
    ensure!(done >= lasting.as_secs_f64() * 2.0, "it did {done} tasks only");
    ensure!(done < messages as f64, "nothing was left to do");
    worker.terminate()?;
    let (committed, _) = pipeline.check_commits_are_delivered()?;
    ensure!(committed.count() > 0, "nothing was committed");
    report(&format!("{done} outputs of {} KiB, {} committed", OUTPUT / 1024, committed.count()))?;
    Ok(curve)
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text} is not a number")),
        Err(_) => Ok(default),
    }
}
