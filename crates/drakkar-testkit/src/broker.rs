//! What outlives a worker: the logs of partitions and the committed positions.

use crate::violations::lock;
use bytes::Bytes;
use drakkar_api::{
    CommitOffset, CommitRequest, Epoch, Headers, Offset, PartitionId, SourceMessage, Timestamp,
    TimestampKind,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;

/// Holds messages and committed positions, as a broker would, for any number of
/// [`ScriptedSource`](crate::ScriptedSource)s, one after the other or at the same time. Clones are
/// the same broker.
///
/// A second source on the same broker stands for a second worker, or for the same worker after a
/// crash: it reads on from the committed positions.
#[derive(Clone, Debug)]
pub struct FakeBroker {
    state: Arc<Mutex<State>>,
    /// Counts the changes that sources should hear of.
    produced: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    partitions: BTreeMap<PartitionId, Log>,
    commits: Vec<CommitRequest>,
    epochs: u64,
}

#[derive(Debug, Default)]
struct Log {
    messages: BTreeMap<Offset, SourceMessage>,
    end: i64,
    committed: Option<CommitOffset>,
    owner: Option<Epoch>,
}

impl FakeBroker {
    /// Makes a broker without messages.
    pub fn new() -> Self {
        Self { state: Arc::default(), produced: watch::Sender::new(0) }
    }

    /// Changes whenever a message was appended.
    pub(crate) fn produced(&self) -> watch::Receiver<u64> {
        self.produced.subscribe()
    }

    /// Appends a message with this value and answers its offset.
    pub fn produce(&self, partition: &PartitionId, value: impl Into<Bytes>) -> Offset {
        self.append(partition, None, Some(value.into()), Headers::new())
    }

    /// Appends a message and answers its offset; without a value it is a tombstone.
    pub fn append(
        &self,
        partition: &PartitionId,
        key: Option<Bytes>,
        value: Option<Bytes>,
        headers: Headers,
    ) -> Offset {
        let mut state = self.lock();
        let log = state.log(partition);
        let offset = Offset::new(log.end);
        log.end += 1;
        // Timestamps only have to be there and to be the same in every run.
        let timestamp = Some((Timestamp::from_millis(offset.get()), TimestampKind::Create));
        let partition = partition.clone();
        let message = SourceMessage { partition, offset, key, value, timestamp, headers };
        log.messages.insert(offset, message);
        drop(state);
        self.produced.send_modify(|count| *count += 1);
        offset
    }

    /// Leaves out that many offsets, as compaction and transactions do.
    ///
    /// # Panics
    ///
    /// If `count` is greater than `i64::MAX`.
    pub fn leave_gap(&self, partition: &PartitionId, count: u64) {
        let count = i64::try_from(count).expect("a gap fits the numbers of offsets");
        self.lock().log(partition).end += count;
    }

    /// Returns the committed position.
    pub fn committed(&self, partition: &PartitionId) -> Option<CommitOffset> {
        self.lock().log(partition).committed
    }

    /// Returns the position after the last message.
    pub fn end(&self, partition: &PartitionId) -> CommitOffset {
        CommitOffset::new(self.lock().log(partition).end)
    }

    /// Returns how many messages are at or after the committed position.
    pub fn lag(&self, partition: &PartitionId) -> usize {
        let mut state = self.lock();
        let log = state.log(partition);
        log.messages.range(Offset::new(log.position().get())..).count()
    }

    /// Returns the commits that were stored, in order.
    pub fn commits(&self) -> Vec<CommitRequest> {
        self.lock().commits.clone()
    }

    /// Returns the messages of a partition in order.
    pub fn messages(&self, partition: &PartitionId) -> Vec<SourceMessage> {
        self.lock().log(partition).messages.values().cloned().collect()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Default for FakeBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl Log {
    /// Where a new owner begins to read.
    fn position(&self) -> CommitOffset {
        self.committed.unwrap_or(CommitOffset::new(0))
    }
}

impl State {
    fn log(&mut self, partition: &PartitionId) -> &mut Log {
        self.partitions.entry(partition.clone()).or_default()
    }

    /// Gives a partition to a new owner; answers the epoch and where to begin.
    ///
    /// # Panics
    ///
    /// If it has an owner: the script of the test is wrong.
    pub(crate) fn acquire(&mut self, partition: &PartitionId) -> (Epoch, CommitOffset) {
        self.epochs += 1;
        let epoch = Epoch::new(self.epochs);
        let log = self.log(partition);
        assert!(log.owner.is_none(), "partition {partition} is assigned already; revoke it first");
        log.owner = Some(epoch);
        (epoch, log.position())
    }

    pub(crate) fn release(&mut self, partition: &PartitionId, epoch: Epoch) {
        let log = self.log(partition);
        if log.owner == Some(epoch) {
            log.owner = None;
        }
    }

    /// Stores a commit if its epoch still owns the partition; answers whether it did.
    pub(crate) fn store(&mut self, request: &CommitRequest) -> bool {
        let log = self.log(&request.partition);
        if log.owner != Some(request.epoch) {
            return false;
        }
        log.committed = Some(request.offset);
        self.commits.push(request.clone());
        true
    }

    /// Answers the messages from `position` on, at most `messages` of them and at most `bytes`
    /// except for the last.
    pub(crate) fn read(
        &mut self,
        partition: &PartitionId,
        position: CommitOffset,
        messages: usize,
        bytes: usize,
    ) -> Vec<SourceMessage> {
        let mut left = bytes;
        let mut taken = Vec::new();
        for message in self.log(partition).messages.range(Offset::new(position.get())..) {
            if left == 0 || taken.len() == messages {
                break;
            }
            left = left.saturating_sub(message.1.size_bytes());
            taken.push(message.1.clone());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_honours_gaps_and_credit() {
        let broker = FakeBroker::new();
        let partition = PartitionId::new("in", 0);
        for _ in 0..3 {
            broker.produce(&partition, "0123456789");
            broker.leave_gap(&partition, 2);
        }
        let read = |messages, bytes| -> Vec<i64> {
            let read = broker.lock().read(&partition, CommitOffset::new(1), messages, bytes);
            read.iter().map(|message| message.offset.get()).collect()
        };
        assert_eq!(read(9, 100), [3, 6]);
        assert_eq!(read(1, 100), [3]);
        assert_eq!(read(9, 1), [3], "the byte count may be exceeded by one message");
        assert_eq!(read(9, 0), [0_i64; 0]);
        assert_eq!((broker.end(&partition).get(), broker.lag(&partition)), (9, 3));
    }

    #[test]
    fn only_the_owner_commits() {
        let broker = FakeBroker::new();
        let partition = PartitionId::new("in", 0);
        let (old, _) = broker.lock().acquire(&partition);
        broker.lock().release(&partition, old);
        let (new, _) = broker.lock().acquire(&partition);
        let commit = |epoch, offset| CommitRequest {
            epoch,
            partition: partition.clone(),
            offset: CommitOffset::new(offset),
            metadata: String::new(),
        };
        assert!(!broker.lock().store(&commit(old, 9)));
        assert!(broker.lock().store(&commit(new, 5)));
        assert_eq!(broker.committed(&partition), Some(CommitOffset::new(5)));
    }
}
