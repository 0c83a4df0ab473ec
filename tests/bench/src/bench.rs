//! The whole: asks for the rows, one group after the other.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::arguments::{Arguments, HELP};
use crate::broker::Broker;
use crate::figures::Pair;
use crate::measure::{blocked_head, idle, latency, spawn, throughput};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::row::{Group, Row};
use crate::source::{Batches, Source};

/// What every measurement needs.
pub(crate) struct Bench<'b> {
    pub(crate) broker: &'b Broker,
    /// Read from the beginning by each run, in a group of its own.
    pub(crate) backlog: Source<'b>,
    pub(crate) worker: PathBuf,
    pub(crate) plan: Plan,
    /// Records that a bare loop without processes produces in a second: a guess at how many
    /// messages will be wanted, and in no row.
    pub(crate) records_per_second: u64,
}

/// Does what the command line says.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.help {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.list {
        print!("{}", report::list());
        return Ok(ExitCode::SUCCESS);
    }
    let worker = PathBuf::from(variable("DRAKKAR_BENCH_WORKER")?);
    ensure!(worker.is_file(), "there is no worker at {}", worker.display());
    let broker = Broker::connect(&variable("DRAKKAR_BENCH_KAFKA")?)?;
    let mut bench = Bench {
        broker: &broker,
        backlog: Source::create(&broker, Batches::Large)?,
        worker,
        plan: if arguments.quick { Plan::QUICK } else { Plan::FULL },
        records_per_second: 0,
    };
    eprintln!("warming the broker up");
    bench.records_per_second =
        throughput::warm_broker_up(&bench).context("failed to warm the broker up")?;
    let mut report = Report::new(arguments.json);
    if !arguments.json {
        println!("{}", report::head());
    }
    // Rows of one group stand together.
    for rows in arguments.rows.chunk_by(|one, next| one.group == next.group) {
        bench.measure_rows(rows, &mut report)?;
    }
    Ok(report.close().into())
}

impl Bench<'_> {
    /// A group that fails fails its rows; the others are measured all the same.
    fn measure_rows(&self, rows: &[&'static Row], report: &mut Report) -> Result<()> {
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        eprintln!("{}", names.join(", "));
        let start = Instant::now();
        let pairs = rows.first().map_or_else(|| Ok(Vec::new()), |row| self.measure(row.group));
        for row in rows {
            match pairs.as_ref().map(|pairs| row.measured(pairs)) {
                Ok(Ok(measured)) => report.measured(row, &measured)?,
                Ok(Err(error)) => report.failed(row, &error),
                Err(error) => report.failed(row, error),
            }
        }
        eprintln!("  took {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn measure(&self, group: Group) -> Result<Vec<Pair>> {
        match group {
            Group::Spawn { program, slots } => spawn::measure(self, program, slots),
            Group::Precomputed { fanout } => throughput::measure_precomputed(self, fanout),
            Group::Latency => latency::measure(self),
            Group::Idle => idle::measure(self),
            Group::BlockedHead => blocked_head::measure(self),
        }
    }
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set (cargo xtask bench sets it)"))
}
