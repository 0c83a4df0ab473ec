//! The two sides on Kafka, started with the same orders.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::broker::{Stamp, Topic};
use crate::source::Source;
use crate::subject::{EndsBy, Subject};
use crate::worker::{Mode, Orders, free_port};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Worker,
    Reference,
}

/// What both sides are told to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) mode: Mode,
    pub(crate) slots: usize,
    pub(crate) fanout: usize,
}

/// One run: a process, and the topic and the group that are only its own.
pub(crate) struct Run<'b> {
    pub(crate) subject: Subject,
    pub(crate) sink: Topic<'b>,
    pub(crate) group: String,
    pub(crate) metrics_port: u16,
}

impl<'b> Run<'b> {
    pub(crate) fn start(
        bench: &Bench<'b>,
        side: Side,
        load: Load,
        source: &Source<'_>,
    ) -> Result<Self> {
        let sink = bench.broker.create_topic("sink", Stamp::Append)?;
        let group = bench.broker.fresh_name("group");
        let metrics_port = free_port()?;
        let orders = Orders {
            mode: load.mode,
            slots: load.slots,
            fanout: load.fanout,
            brokers: bench.broker.address(),
            source: &source.topic.name,
            sink: &sink.name,
            group: &group,
            metrics_port,
        };
        let subject = match side {
            Side::Worker => {
                Subject::start("worker", orders.command(&bench.worker), EndsBy::Signal)?
            }
            Side::Reference => {
                let words = match load.mode {
                    Mode::Precomputed => ["precomputed".to_owned(), load.fanout.to_string()],
                    Mode::Run(_) => ["latency".to_owned(), load.slots.to_string()],
                };
                let mut command = reference_command(&orders)?;
                command.args(words);
                Subject::start("bare loop", command, EndsBy::EndOfInput)?
            }
        };
        Ok(Self { subject, sink, group, metrics_port })
    }
}

/// Prepares `drakkar-bench reference`.
pub(crate) fn reference_command(orders: &Orders<'_>) -> Result<Command> {
    let program = env::current_exe().context("failed to find this program")?;
    let mut command = orders.command(&program);
    command.arg("reference");
    Ok(command)
}
