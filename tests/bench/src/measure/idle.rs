//! A worker with nothing to do: how soon it is ready, and what it holds.

use anyhow::{Context, Result, ensure};

use super::side::{Load, Run, Side};
use crate::bench::Bench;
use crate::figures::{Figure, Figures, Pair};
use crate::program::Program;
use crate::source::{Batches, Source};
use crate::worker::Mode;

/// There is nothing to compare with, so that there is no second side.
pub(crate) fn measure(bench: &Bench<'_>) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for number in 1..=bench.plan.pairs {
        let ours = run(bench).context("the worker could not be measured")?;
        eprintln!("  run {number}/{} worker: {ours}", bench.plan.pairs);
        pairs.push(Pair { ours, reference: None });
    }
    Ok(pairs)
}

fn run(bench: &Bench<'_>) -> Result<Figures> {
    let load = Load { mode: Mode::Run(Program::True), slots: 4, fanout: 1 };
    let source = Source::create(bench.broker, Batches::Large)?;
    let mut run = Run::start(bench, Side::Worker, load, &source)?;
    let ready = run.subject.wait_until_ready(run.metrics_port)?;
    run.subject.run_for(bench.plan.idle)?;
    let idle_mib = run.subject.resident_mib()?;
    run.subject.end()?;
    let records = run.sink.record_count()?;
    ensure!(records == 0, "the worker produced {records} records out of nothing");
    Ok(Figures::default()
        .with(Figure::IdleMib, idle_mib)
        .with(Figure::StartReadyMillis, ready.as_secs_f64() * 1e3))
}
