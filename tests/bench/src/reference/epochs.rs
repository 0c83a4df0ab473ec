//! Which offsets may be committed, with as little bookkeeping as is safe.
//!
//! Time is cut into epochs at every commit. An offset is committable when everything that was
//! produced for the messages of its epoch and of all epochs before is acknowledged. A report
//! therefore costs one addition, and nothing ever waits for a flush.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail, ensure};
use rdkafka::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use crate::message::PARTITIONS;

/// Epochs that can be open at once: half a minute of them. A broker that is slower has failed.
const OPEN_MAX: usize = 64;

/// The position after the last message that was read, for each partition that gave one.
pub(crate) type Positions = [Option<i64>; PARTITIONS];

/// Counts the reports of the producer. Each record carries the number of its epoch.
#[derive(Debug)]
pub(crate) struct Reports {
    acknowledged: [AtomicU64; OPEN_MAX],
    refused: OnceLock<String>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { acknowledged: [const { AtomicU64::new(0) }; OPEN_MAX], refused: OnceLock::new() }
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, epoch: usize) {
        match result {
            Ok(_) => self.acknowledge(epoch),
            // Only the first one is kept.
            Err((error, _)) => drop(self.refused.set(error.to_string())),
        }
    }
}

impl Reports {
    fn acknowledge(&self, epoch: usize) {
        self.acknowledged[epoch % OPEN_MAX].fetch_add(1, Ordering::Release);
    }
}

/// The epochs that are not committable yet.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    closed: VecDeque<Closed>,
    /// The number of the open epoch.
    current: usize,
    produced: u64,
    positions: Positions,
}

#[derive(Debug)]
struct Closed {
    number: usize,
    produced: u64,
    positions: Positions,
}

impl Epochs {
    /// Notes a message that was read and how many records will be produced for it. Gives the epoch
    /// for those records to carry.
    pub(crate) fn note(&mut self, partition: usize, offset: i64, records: usize) -> usize {
        self.positions[partition] = Some(offset + 1);
        self.produced += records as u64;
        self.current
    }

    /// Ends the open epoch and begins the next one.
    pub(crate) fn close(&mut self) -> Result<()> {
        ensure!(self.closed.len() + 1 < OPEN_MAX, "acknowledgements stay out");
        let (number, produced, positions) = (self.current, self.produced, self.positions);
        self.closed.push_back(Closed { number, produced, positions });
        self.current += 1;
        self.produced = 0;
        Ok(())
    }

    /// Takes the closed epochs that are acknowledged whole, and gives what to commit.
    pub(crate) fn committable(&mut self, reports: &Reports) -> Result<Option<Positions>> {
        if let Some(error) = reports.refused.get() {
            bail!("the broker refused a record: {error}");
        }
        let mut positions = None;
        while let Some(oldest) = self.closed.front() {
            let acknowledged = &reports.acknowledged[oldest.number % OPEN_MAX];
            if acknowledged.load(Ordering::Acquire) < oldest.produced {
                break;
            }
            acknowledged.store(0, Ordering::Relaxed);
            positions = Some(oldest.positions);
            self.closed.pop_front();
        }
        Ok(positions)
    }

    /// Says whether everything that was closed is committable.
    pub(crate) fn is_settled(&self) -> bool {
        self.closed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(positions: Option<Positions>) -> Option<i64> {
        positions.and_then(|positions| positions[0])
    }

    #[test]
    fn an_epoch_waits_for_the_one_before() {
        let (mut epochs, reports) = (Epochs::default(), Reports::default());
        let one = epochs.note(0, 0, 2);
        epochs.close().expect("has room");
        let two = epochs.note(0, 1, 1);
        epochs.close().expect("has room");
        reports.acknowledge(two);
        reports.acknowledge(one);
        assert_eq!(first(epochs.committable(&reports).expect("no refusal")), None);
        reports.acknowledge(one);
        assert_eq!(first(epochs.committable(&reports).expect("no refusal")), Some(2));
        assert!(epochs.is_settled());
    }

    #[test]
    fn numbers_are_used_again() {
        let (mut epochs, reports) = (Epochs::default(), Reports::default());
        for offset in 0..3 * OPEN_MAX as i64 {
            let epoch = epochs.note(0, offset, 1);
            epochs.close().expect("has room");
            assert_eq!(first(epochs.committable(&reports).expect("no refusal")), None);
            reports.acknowledge(epoch);
            let committable = epochs.committable(&reports).expect("no refusal");
            assert_eq!(first(committable), Some(offset + 1));
        }
    }

    #[test]
    fn too_many_open_epochs_are_an_error() {
        let mut epochs = Epochs::default();
        let closed = (0..OPEN_MAX).try_for_each(|_| epochs.close());
        assert!(closed.is_err());
    }

    #[test]
    fn a_refusal_is_an_error() {
        let reports = Reports::default();
        reports.refused.set("too large".to_owned()).expect("is the first");
        assert!(Epochs::default().committable(&reports).is_err());
    }
}
