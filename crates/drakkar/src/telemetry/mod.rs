//! Metrics and log lines, both derived from the [`Event`](drakkar_api::Event)s of the pipeline.
//!
//! [`MetricsObserver`] counts, [`LogObserver`] tells. Neither waits for anything: counting is a few
//! atomic operations, and log lines go through a bounded queue.

mod blocked;
mod exposition;
mod families;
mod limiter;
mod log_observer;
mod metrics_observer;
mod partitions;
mod process;
#[cfg(test)]
mod tests;
mod upkeep;

pub(crate) use exposition::{Exposition, install_recorder};
pub(crate) use log_observer::LogObserver;
pub(crate) use metrics_observer::{Gauges, Identity, MetricsObserver};
pub(crate) use upkeep::keep_up;
