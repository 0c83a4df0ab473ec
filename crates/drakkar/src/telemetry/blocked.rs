//! Calls of user code that block their thread: a series of each partition that one is about, there
//! only while it blocks.

use drakkar_api::WorkerCall;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The calls that block at present, by number.
#[derive(Debug, Default)]
pub(super) struct BlockedCalls {
    by_number: Mutex<BTreeMap<u64, WorkerCall>>,
}

impl BlockedCalls {
    pub(super) fn begin(&self, call: &WorkerCall) {
        let mut blocked = self.by_number.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.insert(call.number, call.clone());
    }

    pub(super) fn end(&self, number: u64) {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Returns how many calls block, by name and partition, which is empty for those that are about
    /// none.
    pub(super) fn snapshot(&self) -> BTreeMap<(String, String), u64> {
        let blocked = self.by_number.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = BTreeMap::new();
        for call in blocked.values() {
            let mut partitions: Vec<_> =
                call.partitions.iter().map(|id| id.partition().to_string()).collect();
            if partitions.is_empty() {
                partitions.push(String::new());
            }
            for partition in partitions {
                *counts.entry((call.name.clone(), partition)).or_default() += 1;
            }
        }
        counts
    }
}
