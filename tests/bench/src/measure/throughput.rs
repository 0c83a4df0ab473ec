//! How fast a side works through a full source topic.
//!
//! Counted are the records that the broker appended to the sink topic in a window in the middle of
//! the run: after the warm-up, and before the side is told to end. CPU time is read at the edges of
//! the same window. The source must have messages left in every partition when the side has ended,
//! else the run is done again with more.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::side::{Load, Run, Side};
use crate::account::Cpu;
use crate::bench::Bench;
use crate::census::{self, Expected};
use crate::figures::{Figure, Figures, Pair};
use crate::measure::pairs::alternate;
use crate::message::VALUE_LEN;
use crate::subject::Sample;
use crate::worker::{Mode, PRECOMPUTED_STDOUT};

/// Runs with twice the messages of the one before.
const ATTEMPTS_MAX: usize = 5;

/// From the start of a process to its first record.
const FIRST_RECORD_TIMEOUT: Duration = Duration::from_secs(60);

/// What is there at least: far more than a client buffers, so that the peak of memory is that of a
/// side with work before it.
const BACKLOG_MIN: u64 = 1_000_000;

/// A machine that takes longer for the smallest backlog is not worth measuring on.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(120);

/// Measures messages without processes.
pub(crate) fn measure_precomputed(bench: &Bench<'_>, fanout: usize) -> Result<Vec<Pair>> {
    let load = Load { mode: Mode::Precomputed, slots: 4, fanout };
    // The warm-up was slow: it has the start of the process in it, and a cold broker.
    let messages_per_second = bench.records_per_second * 5 / 2 / fanout as u64;
    bench.backlog.fill_to(bench.plan.messages_at(messages_per_second))?;
    let run = |side| run(bench, side, load);
    alternate(bench.plan.pairs, || run(Side::Reference), || run(Side::Worker), |_| Ok(()))
}

/// Runs one side on the backlog until it is measured.
pub(crate) fn run(bench: &Bench<'_>, side: Side, load: Load) -> Result<Figures> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(figures) = run_once(bench, side, load)? {
            return Ok(figures);
        }
        let count = bench.backlog.count();
        eprintln!("  {count} messages did not last: once more with twice as many");
        bench.backlog.fill_to(count * 2)?;
    }
    bail!("{} messages do not last for a run", bench.backlog.count());
}

/// Runs a bare loop that is in no row, for the compilers of the broker's virtual machine to do their
/// work before the first one. Gives the records that it produced in a second.
pub(crate) fn warm_broker_up(bench: &Bench<'_>) -> Result<u64> {
    let load = Load { mode: Mode::Precomputed, slots: 4, fanout: 1 };
    bench.backlog.fill_to(BACKLOG_MIN)?;
    let mut run = Run::start(bench, Side::Reference, load, &bench.backlog)?;
    let (start, sink) = (Instant::now(), &run.sink);
    let has_all = || Ok(sink.record_count()? >= BACKLOG_MIN);
    run.subject.wait_until("record of the last message", WARM_UP_TIMEOUT, has_all)?;
    let elapsed = start.elapsed().as_secs_f64();
    run.subject.end()?;
    Ok((BACKLOG_MIN as f64 / elapsed) as u64)
}

/// Gives nothing if the messages ran out.
fn run_once(bench: &Bench<'_>, side: Side, load: Load) -> Result<Option<Figures>> {
    let source = &bench.backlog;
    let mut run = Run::start(bench, side, load, source)?;
    let sink = &run.sink;
    let has_record = || Ok(sink.record_count()? > 0);
    run.subject.wait_until("sink record", FIRST_RECORD_TIMEOUT, has_record)?;
    run.subject.run_for(bench.plan.warm_up)?;
    let before = run.subject.sample()?;
    run.subject.run_for(bench.plan.window)?;
    let after = run.subject.sample()?;
    let peak_mib = run.subject.peak_mib()?;
    run.subject.end()?;

    let committed = source.topic.committed_by(&run.group)?;
    if source.ran_dry(&committed) {
        return Ok(None);
    }
    let stdout_len = match load.mode {
        Mode::Run(program) => program.stdout_len(VALUE_LEN),
        Mode::Precomputed => PRECOMPUTED_STDOUT.len(),
    };
    let expected = Expected { fanout: load.fanout, stdout_len, committed };
    // Edges are known to the microsecond, append times to the millisecond.
    let window = before.at.unix_micros..after.at.unix_micros;
    let mut tasks = 0;
    census::take(&run.sink, expected, |arrival| {
        tasks += u64::from(window.contains(&(arrival.append_millis * 1000)));
    })?;
    let figures = task_figures(tasks, &before, &after)?;
    let messages_per_second = figures.get(Figure::TasksPerSecond)? / load.fanout as f64;
    Ok(Some(
        figures
            .with(Figure::MessagesPerSecond, messages_per_second)
            .with(Figure::PeakMib, peak_mib),
    ))
}

/// Divides what was used between two samples by the tasks that were done between them.
pub(crate) fn task_figures(tasks: u64, before: &Sample, after: &Sample) -> Result<Figures> {
    ensure!(tasks > 0, "no task was done in the window");
    let seconds = after.at.since(&before.at)?.as_secs_f64();
    let used: Cpu = after.cpu.since(&before.cpu);
    let per_task = |cpu_seconds: f64| cpu_seconds * 1e6 / tasks as f64;
    Ok(Figures::default()
        .with(Figure::TasksPerSecond, tasks as f64 / seconds)
        .with(Figure::CpuMicrosPerTask, per_task(used.whole()))
        .with(Figure::OwnCpuMicrosPerTask, per_task(used.own))
        .with(Figure::ChildrenCpuMicrosPerTask, per_task(used.children)))
}
