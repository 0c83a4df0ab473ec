//! Series that live as long as the assignment of a partition.
//!
//! The exporter cannot remove a single series, and its idle timeout would take quiet counters of the
//! whole worker with it, so these are kept and rendered here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// The series of all assigned partitions, by the partition's number.
///
/// Invariant: a partition has series from its assignment to its end; what arrives late is dropped,
/// so that a series never comes back by itself.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    assigned: RwLock<BTreeMap<i32, Assigned>>,
}

/// One assigned partition. When a topic is made anew its next assignment begins before the end of
/// the last one is heard of.
#[derive(Debug, Default)]
struct Assigned {
    assignments: usize,
    series: Arc<PartitionSeries>,
}

/// The series of one partition.
#[derive(Debug, Default)]
pub(super) struct PartitionSeries {
    pub(super) consumed: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) uncommitted: AtomicU64,
    /// 1 while it is stalled or has failed.
    pub(super) stalled: AtomicU64,
}

impl Partitions {
    /// Begins new series at 0.
    pub(super) fn begin(&self, partition: i32) {
        let mut assigned = self.assigned.write().unwrap_or_else(PoisonError::into_inner);
        let entry = assigned.entry(partition).or_default();
        entry.assignments += 1;
        entry.series = Arc::default();
    }

    /// Removes the series, unless another assignment of the partition has begun: then it is not known to
    /// be stalled, as only the last one may have been.
    pub(super) fn end(&self, partition: i32) {
        let mut assigned = self.assigned.write().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = assigned.entry(partition) else { return };
        entry.get_mut().assignments -= 1;
        entry.get().series.stalled.store(0, Relaxed);
        if entry.get().assignments == 0 {
            entry.remove();
        }
    }

    /// Changes the series of a partition, if it is assigned.
    pub(super) fn update(&self, partition: i32, change: impl FnOnce(&PartitionSeries)) {
        let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = assigned.get(&partition) {
            change(&entry.series);
        }
    }

    /// Returns the present values.
    pub(super) fn snapshot(&self) -> BTreeMap<i32, Arc<PartitionSeries>> {
        let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
        assigned.iter().map(|(&partition, entry)| (partition, Arc::clone(&entry.series))).collect()
    }

    /// Returns how many messages wait for a window.
    pub(super) fn queued(&self) -> u64 {
        let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
        assigned.values().map(|entry| entry.series.queued.load(Relaxed)).sum()
    }
}
