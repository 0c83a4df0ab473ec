//! Asks the brokers, every few seconds and on a thread of its own, where the partitions end.
//!
//! Librdkafka knows that by itself only as of the last fetch, and it does not fetch what is held
//! back: a worker that is too slow, or stands still, would seem to be nearly there. The same
//! question shows whether any broker answers; that a connection is open would show less.

use crate::config::OffsetReset;
use crate::lag::{LagTable, Watched};
use crate::rebalance::Consumer;
use drakkar_api::{CommitOffset, Epoch, Offset as MessageOffset, PartitionId};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// From the end of one round of questions to the next.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long one question waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the source's end waits for a question that is on its way.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(4);

/// What the source knows of its partitions and brokers beside what it tells the engine.
///
/// A handle: it stays valid after the source has ended, and then knows of no partition.
#[derive(Clone, Debug)]
pub struct SourceGauges {
    watch: Arc<Watch>,
}

/// What the watching thread and those who tell it something share.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
    is_connected: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    table: LagTable,
    /// Whether the next round is to begin now.
    is_due: bool,
    is_closed: bool,
}

impl SourceGauges {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self { watch }
    }

    /// Returns how many messages each partition that is ours is behind: from the committed offset,
    /// or where reading began as long as nothing is committed, to the partition's end.
    ///
    /// Offsets that compaction or transactions left out count as messages. The end is up to 5 s old,
    /// older while brokers do not answer. A partition is missing until both offsets are known.
    pub fn lags(&self) -> Vec<(PartitionId, u64)> {
        self.watch.lock().table.lags()
    }

    /// Returns whether a broker answered when one was asked last, at most 5 s and the time for the
    /// answers (3 s each for up to four questions) ago. `false` before the start and after the end.
    pub fn is_connected(&self) -> bool {
        self.watch.is_connected.load(Ordering::Relaxed)
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new assignment, and has it asked about at once.
    pub(crate) fn open(&self, epoch: Epoch, partition: &PartitionId) {
        let mut state = self.lock();
        state.table.open(epoch, partition.clone());
        state.is_due = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that an assignment has ended.
    pub(crate) fn end(&self, epoch: Epoch) {
        self.lock().table.close(epoch);
    }

    /// Notes the first message of an assignment.
    pub(crate) fn began(&self, epoch: Epoch, first: MessageOffset) {
        self.lock().table.stands_at(epoch, first.get());
    }

    /// Notes a confirmed commit.
    pub(crate) fn committed(&self, epoch: Epoch, offset: CommitOffset) {
        self.lock().table.stands_at(epoch, offset.get());
    }

    /// Notes whether a broker answered.
    pub(crate) fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    /// Lets the watching thread end.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Waits for the next round; `false` if there is none.
    fn wait_for_round(&self) -> bool {
        let is_idle = |state: &mut State| !state.is_due && !state.is_closed;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), INTERVAL, is_idle)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_due = false;
        !state.is_closed
    }
}

/// Runs the watching thread until the watch is closed.
pub(crate) fn run(watch: &Watch, consumer: &Weak<Consumer>, topic: &str, reset: OffsetReset) {
    while watch.wait_for_round() {
        let Some(consumer) = consumer.upgrade() else { return };
        ask(watch, &consumer, topic, reset);
    }
    watch.set_connected(false);
}

/// One round of questions. One that gets no answer is asked again in the next round, and what was
/// known stays.
fn ask(watch: &Watch, consumer: &Consumer, topic: &str, reset: OffsetReset) {
    let unplaced = watch.lock().table.unplaced();
    let known = committed(consumer, &unplaced).unwrap_or_default();
    for (epoch, offset) in known.iter().filter_map(|(epoch, at)| Some((*epoch, (*at)?))) {
        watch.lock().table.begins_at(epoch, offset);
    }
    // Those of which the group has committed nothing begin where the settings say.
    let is_new = |watched: &Watched| known.contains(&(watched.epoch, None));
    let new: Vec<_> = unplaced.into_iter().filter(is_new).collect();
    if watch.is_closed() {
        return;
    }
    let edge = match reset {
        OffsetReset::Earliest => Offset::Beginning,
        OffsetReset::Latest => Offset::End,
    };
    for (epoch, offset) in edges(consumer, &new, edge).unwrap_or_default() {
        watch.lock().table.begins_at(epoch, offset);
    }
    if watch.is_closed() {
        return;
    }
    let watched = watch.lock().table.watched();
    let ends = edges(consumer, &watched, Offset::End).unwrap_or_default();
    let has_answered = !ends.is_empty();
    for (epoch, offset) in ends {
        watch.lock().table.ends_at(epoch, offset);
    }
    if watch.is_closed() {
        return;
    }
    // Where one of the leaders is away, another broker may still answer.
    let is_connected = has_answered || consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT).is_ok();
    watch.set_connected(is_connected);
}

/// Asks what the group has committed; `None` for a partition of which it has nothing.
fn committed(consumer: &Consumer, watched: &[Watched]) -> KafkaResult<Vec<(Epoch, Option<i64>)>> {
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    let answer = consumer.committed_offsets(list(watched, Offset::Invalid)?, ANSWER_TIMEOUT)?;
    Ok(found(&answer, watched, |offset| match offset {
        Offset::Offset(offset) => Some(Some(offset)),
        Offset::Invalid => Some(None),
        _ => None,
    }))
}

/// Asks where partitions begin or end.
fn edges(consumer: &Consumer, watched: &[Watched], edge: Offset) -> KafkaResult<Vec<(Epoch, i64)>> {
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    // The protocol has the same numbers for these "times" as librdkafka has for these offsets.
    let answer = consumer.offsets_for_times(list(watched, edge)?, ANSWER_TIMEOUT)?;
    Ok(found(&answer, watched, |offset| match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }))
}

fn list(watched: &[Watched], offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(watched.len());
    for Watched { partition, .. } in watched {
        list.add_partition_offset(partition.topic(), partition.partition(), offset)?;
    }
    Ok(list)
}

/// Reads what an answer says of each partition, without those that it has an error for.
fn found<T>(
    answer: &TopicPartitionList,
    watched: &[Watched],
    read: impl Fn(Offset) -> Option<T>,
) -> Vec<(Epoch, T)> {
    let elements = watched.iter().filter_map(|Watched { epoch, partition }| {
        let element = answer.find_partition(partition.topic(), partition.partition())?;
        let offset = element.error().is_ok().then(|| element.offset())?;
        Some((*epoch, read(offset)?))
    });
    elements.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_assignment_is_asked_about_at_once() {
        let watch = Watch::default();
        watch.open(Epoch::new(1), &PartitionId::new("in", 0));
        assert!(watch.lock().is_due, "it would wait for its time");
        assert!(watch.wait_for_round());
        assert!(!watch.lock().is_due);
        watch.close();
        assert!(!watch.wait_for_round());
    }

    #[test]
    fn what_an_answer_does_not_know_is_left_out() {
        let watched = |number: i32| Watched {
            epoch: Epoch::new(u64::try_from(number).expect("positive")),
            partition: PartitionId::new("in", number),
        };
        let mut answer = TopicPartitionList::new();
        for (partition, offset) in
            [(1, Offset::Offset(7)), (2, Offset::Invalid), (4, Offset::Offset(9))]
        {
            answer.add_partition_offset("in", partition, offset).expect("valid");
        }
        let asked = [watched(1), watched(2), watched(3)];
        let offset = |offset| match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        assert_eq!(found(&answer, &asked, offset), [(Epoch::new(1), 7)]);
    }
}
