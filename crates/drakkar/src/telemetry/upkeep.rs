//! What telemetry does by itself while a worker runs.

use super::{Exposition, LogObserver, MetricsObserver};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often idle time is added up and floods of log lines are settled.
const TICK: Duration = Duration::from_secs(1);

/// How often the recorder's buffers are emptied.
const UPKEEP: Duration = Duration::from_secs(5);

/// Ticks, and empties the recorder's buffers, until what it answers is dropped.
pub(crate) fn keep_up(
    metrics: Arc<MetricsObserver>,
    log: Arc<LogObserver>,
    exposition: Exposition,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            metrics.tick(TICK);
            log.tick();
        }
    });
    tasks.spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            exposition.run_upkeep();
        }
    });
    tasks
}
