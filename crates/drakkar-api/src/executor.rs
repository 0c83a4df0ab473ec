//! The contract between the engine and whatever runs tasks.

use crate::{Epoch, Execution, Priority, Task};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Runs tasks in a bounded number of slots.
///
/// The engine calls [`submit`](Executor::submit) for every attempt that needs a process and learns
/// the rest through the run's [`RunListener`].
///
/// # Contract
///
/// - `submit` and `cancel` never block.
/// - Every submitted run ends with exactly one `finished`, cancelled ones too.
/// - `started` precedes `finished` for a run that got a slot, and is not called otherwise.
/// - Waiting runs start in the order of their [`Priority`]. Among equal ones the assignments take
///   turns, so that no partition starves another; inside one assignment the run with the smallest
///   offset goes first, and of equal offsets the one submitted first.
/// - While the executor lives, no run outlasts its deadline by more than the documented grace.
///
/// # Concurrency
///
/// All methods may be called from any thread; listeners are called from the executor's threads.
pub trait Executor: Send + Sync + 'static {
    /// Takes a run and starts it as soon as a slot is free.
    fn submit(&self, run: Run);

    /// Withdraws the runs of one assignment. Each still ends with `finished`
    /// ([`TaskOutcome::Cancelled`](crate::TaskOutcome::Cancelled)).
    fn cancel(&self, owner: Epoch, scope: CancelScope);

    /// Returns how busy the executor is.
    fn slots(&self) -> Slots;

    /// Returns the process of a run, for a report about it; `None` if it has none, or the executor
    /// does not know.
    fn pid(&self, owner: Epoch, id: RunId) -> Option<u32> {
        let _ = (owner, id);
        None
    }

    /// Kills what still runs and releases the threads. Takes no longer than the bounded reap that
    /// the implementation documents.
    fn close(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// One attempt of one task.
#[derive(Clone)]
pub struct Run {
    /// The assignment on whose behalf it runs.
    pub owner: Epoch,
    /// The engine's number for this run, unique among the unfinished runs of its owner.
    pub id: RunId,
    /// What to run.
    pub task: Arc<Task>,
    /// Its place among the waiting runs.
    pub priority: Priority,
    /// Who is told.
    pub listener: Arc<dyn RunListener>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("owner", &self.owner)
            .field("id", &self.id)
            .field("task", &self.task.id)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// The number of a run inside its assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

impl RunId {
    /// Wraps a number that the engine draws from a counter.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Hears what becomes of a run. Implementations must not block.
pub trait RunListener: Send + Sync {
    /// The run got slot `slot` (from 0) after waiting `queue_wait`; its process is about to start.
    fn started(&self, id: RunId, slot: usize, queue_wait: Duration);

    /// The run ended.
    fn finished(&self, id: RunId, execution: Execution);
}

/// Which runs of an assignment [`Executor::cancel`] withdraws.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelScope {
    /// These, as far as they still wait for a slot; those that started go on.
    Waiting(Vec<RunId>),
    /// These: waiting ones are withdrawn, running ones are killed.
    Runs(Vec<RunId>),
    /// All: waiting ones are withdrawn, running ones are killed.
    All,
}

/// How busy an executor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// How many runs can be active at once.
    pub total: usize,
    /// How many are active.
    pub active: usize,
    /// How many wait for a slot.
    pub waiting: usize,
}
