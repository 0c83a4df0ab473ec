//! Series that live as long as the assignment of a partition.
//!
//! The exporter cannot remove a single series, and its idle timeout would take quiet counters of the
//! whole worker with it, so these are kept and rendered here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// The series of all assigned partitions, by the partition's number.
///
/// Invariant: a partition has series from its assignment to its end; what arrives late is dropped,
/// so that a series never comes back by itself.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    series: RwLock<BTreeMap<i32, Arc<PartitionSeries>>>,
}

/// The series of one partition.
#[derive(Debug, Default)]
pub(super) struct PartitionSeries {
    pub(super) consumed: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) uncommitted: AtomicU64,
}

impl Partitions {
    /// Begins new series at 0.
    pub(super) fn begin(&self, partition: i32) {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        series.insert(partition, Arc::default());
    }

    /// Removes the series.
    pub(super) fn end(&self, partition: i32) {
        self.series.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    /// Changes the series of a partition, if it is assigned.
    pub(super) fn update(&self, partition: i32, change: impl FnOnce(&PartitionSeries)) {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = series.get(&partition) {
            change(series);
        }
    }

    /// Returns the present values.
    pub(super) fn snapshot(&self) -> BTreeMap<i32, Arc<PartitionSeries>> {
        self.series.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how many messages wait for a window, and how many were ever consumed.
    pub(super) fn totals(&self) -> (u64, u64) {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        series.values().fold((0, 0), |(queued, consumed), series| {
            (queued + series.queued.load(Relaxed), consumed + series.consumed.load(Relaxed))
        })
    }
}
