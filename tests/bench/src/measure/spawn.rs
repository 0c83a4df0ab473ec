//! Tasks that run a process each, over a loop that does nothing but spawn.

use anyhow::{Context, Result, ensure};

use super::pairs::alternate;
use super::side::{Load, Side, reference_command};
use super::throughput::{self, task_figures};
use crate::bench::Bench;
use crate::figures::{Figure, Figures, Pair};
use crate::program::Program;
use crate::subject::{EndsBy, Subject};
use crate::worker::{Mode, Orders, free_port};

/// What is likely to be enough for any worker on a small machine.
const TASKS_PER_SECOND: u64 = 5_000;

/// The same program costs the same whoever spawns it, give or take what the kernel charges to the
/// parent of one and to the child of the other. Less than this part of it was not counted.
const CHILDREN_PART_MIN: f64 = 0.5;

pub(crate) fn measure(bench: &Bench<'_>, program: Program, slots: usize) -> Result<Vec<Pair>> {
    let load = Load { mode: Mode::Run(program), slots, fanout: 1 };
    bench.backlog.fill_to(bench.plan.messages_at(TASKS_PER_SECOND))?;
    let run_worker = || throughput::run(bench, Side::Worker, load);
    let run_reference = || run_reference(bench, program, load);
    alternate(bench.plan.pairs, run_reference, run_worker, children_are_counted)
}

/// The bare loop knows nothing of Kafka. It gets the worker's variables for its children to inherit.
fn run_reference(bench: &Bench<'_>, program: Program, load: Load) -> Result<Figures> {
    let orders = Orders {
        mode: load.mode,
        slots: load.slots,
        fanout: load.fanout,
        brokers: bench.broker.address(),
        source: &bench.backlog.topic.name,
        sink: &bench.broker.fresh_name("sink"),
        group: &bench.broker.fresh_name("group"),
        metrics_port: free_port()?,
    };
    let mut command = reference_command(&orders)?;
    command.args(["spawn", program.name(), &load.slots.to_string()]);
    let mut bare = Subject::start("bare loop", command, EndsBy::EndOfInputAfterQuestions)?;
    bare.run_for(bench.plan.warm_up)?;
    let (done_before, before) = (bare.ask()?, bare.sample()?);
    bare.run_for(bench.plan.window)?;
    let (done_after, after) = (bare.ask()?, bare.sample()?);
    let peak_mib = bare.peak_mib()?;
    bare.end()?;
    let tasks = done_after.checked_sub(done_before).context("the bare loop counts backwards")?;
    Ok(task_figures(tasks, &before, &after)?.with(Figure::PeakMib, peak_mib))
}

/// A worker that hides its children from the account, say by ignoring SIGCHLD, would look cheap.
fn children_are_counted(pair: &Pair) -> Result<()> {
    let reference = pair.reference.as_ref().context("there is no reference")?;
    let ours = pair.ours.get(Figure::ChildrenCpuMicrosPerTask)?;
    let reference = reference.get(Figure::ChildrenCpuMicrosPerTask)?;
    ensure!(
        ours >= CHILDREN_PART_MIN * reference,
        "the account shows {ours:.0} us of CPU per child of the worker and {reference:.0} us per \
         child of the bare loop: some are missing"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_children_are_noticed() {
        let figures = |value| Figures::default().with(Figure::ChildrenCpuMicrosPerTask, value);
        let check = |ours, reference| {
            let pair = Pair { ours: figures(ours), reference: Some(figures(reference)) };
            children_are_counted(&pair).is_ok()
        };
        assert!(check(500.0, 500.0) && check(900.0, 500.0) && check(250.0, 500.0));
        assert!(!check(10.0, 500.0));
    }
}
