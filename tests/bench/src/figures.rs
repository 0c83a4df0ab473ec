//! What one run of one side gives.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

/// A number that a run can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    TasksPerSecond,
    MessagesPerSecond,
    /// Of the process and its children.
    CpuMicrosPerTask,
    /// Of the process without its children.
    OwnCpuMicrosPerTask,
    /// Of the children alone.
    ChildrenCpuMicrosPerTask,
    /// Milliseconds that this many percent of the messages did not exceed.
    LatencyMillis(usize),
    PeakMib,
    IdleMib,
    StartReadyMillis,
    Seconds,
}

/// The figures of one run.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<Figure, f64>);

impl Figures {
    pub(crate) fn with(mut self, figure: Figure, value: f64) -> Self {
        self.0.insert(figure, value);
        self
    }

    pub(crate) fn get(&self, figure: Figure) -> Result<f64> {
        self.0.get(&figure).copied().with_context(|| format!("{figure:?} was not measured"))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (figure, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(formatter, "{comma}{figure:?} {value:.3}")?;
        }
        Ok(())
    }
}

/// One run of the worker and, where there is something to compare with, one of the bare loop.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ours: Figures,
    pub(crate) reference: Option<Figures>,
}
