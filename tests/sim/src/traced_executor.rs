//! An executor between the engine and the fake one, which enters what passes, and which reports some
//! ends late, as a busy machine would.

use crate::journal::{Journal, WorkerNumber};
use crate::seen::{Number, Seen};
use crate::weather::Weather;
use drakkar_api::{CancelScope, Epoch, Execution, Executor, Run, RunId, RunListener, Slots, Task};
use drakkar_testkit::{FakeExecutor, Random};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The label under which a task carries its number.
pub(crate) const NUMBER_LABEL: &str = "number";

/// Returns the number of a task.
pub(crate) fn number_of(task: &Task) -> Number {
    let number = task.labels.get(NUMBER_LABEL).and_then(|number| number.parse().ok());
    number.unwrap_or(0)
}

/// The executor that an engine of the simulation is given.
pub(crate) struct TracedExecutor {
    pub(crate) inner: FakeExecutor,
    pub(crate) journal: Journal,
    pub(crate) worker: WorkerNumber,
    pub(crate) weather: Weather,
    pub(crate) random: Arc<Mutex<Random>>,
}

impl Executor for TracedExecutor {
    fn submit(&self, run: Run) {
        let (epoch, task) = (run.owner, number_of(&run.task));
        self.journal.see(self.worker, Seen::Submitted { epoch, task });
        let listener = TracedListener {
            inner: run.listener,
            journal: self.journal.clone(),
            worker: self.worker,
            weather: self.weather.clone(),
            random: Arc::clone(&self.random),
            epoch,
            task,
        };
        self.inner.submit(Run { listener: Arc::new(listener), ..run });
    }

    fn cancel(&self, owner: Epoch, scope: CancelScope) {
        let seen = match &scope {
            CancelScope::Waiting(runs) => {
                Seen::Cancelled { epoch: owner, waiting: Some(runs.len()) }
            }
            CancelScope::Runs(_) => Seen::Killed { epoch: owner },
            _ => Seen::Cancelled { epoch: owner, waiting: None },
        };
        self.journal.see(self.worker, seen);
        self.inner.cancel(owner, scope);
    }

    fn slots(&self) -> Slots {
        self.inner.slots()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.inner.close()
    }
}

struct TracedListener {
    inner: Arc<dyn RunListener>,
    journal: Journal,
    worker: WorkerNumber,
    weather: Weather,
    random: Arc<Mutex<Random>>,
    epoch: Epoch,
    task: Number,
}

impl TracedListener {
    /// How much later than the end of a run the engine hears of it.
    fn delay(&self) -> Duration {
        let rates = self.weather.rates();
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        match random.chance(rates.report_late) {
            true => random.duration(rates.report_longest),
            false => Duration::ZERO,
        }
    }
}

impl RunListener for TracedListener {
    fn started(&self, id: RunId, slot: usize, queue_wait: Duration) {
        self.journal.see(self.worker, Seen::RunStarted { epoch: self.epoch, task: self.task });
        self.inner.started(id, slot, queue_wait);
    }

    fn finished(&self, id: RunId, execution: Execution) {
        let (epoch, task) = (self.epoch, self.task);
        let outcome = execution.outcome.clone();
        self.journal.see(self.worker, Seen::RunEnded { epoch, task, outcome: outcome.clone() });
        let (journal, worker) = (self.journal.clone(), self.worker);
        let inner = Arc::clone(&self.inner);
        let report = move || {
            journal.see(worker, Seen::RunReported { epoch, task, outcome });
            inner.finished(id, execution);
        };
        let delay = self.delay();
        if delay.is_zero() {
            report();
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                report();
            });
        }
    }
}
