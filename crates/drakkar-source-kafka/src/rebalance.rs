//! What librdkafka tells the source while it is polled: partitions that come and go, errors, logs.
//!
//! All of it runs on the source's thread, inside a poll of the client's main queue.

use crate::error;
use crate::source::Shared;
use drakkar_api::{
    Assignment, Epoch, Offset, PartitionId, Reply, ReplyReceiver, SourceError, SourceErrorKind,
    SourceEvents, SourceMessage,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

pub(crate) type Consumer = BaseConsumer<SourceContext>;

/// How often a revoke that waits looks whether the assignment was lost meanwhile.
const LOSS_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The source's side of the client.
pub(crate) struct SourceContext {
    shared: Arc<Shared>,
    events: Arc<dyn SourceEvents>,
    topic: Arc<str>,
    /// The name of the static membership, if there is one.
    instance_id: Option<String>,
    revoke_timeout: Duration,
    /// The client that this context belongs to. Weak, since the client owns the context.
    consumer: OnceLock<Weak<Consumer>>,
    /// The partitions that are ours. Each holds the client, so this must be emptied at the end.
    partitions: Mutex<Vec<Partition>>,
    /// Counts what was served without being returned by a poll.
    served: AtomicU64,
    /// Whether the engine was told that the source has started; before, errors are only kept.
    is_started: AtomicBool,
    last_error: Mutex<Option<SourceError>>,
}

/// A partition that is ours, with the queue of its messages.
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) epoch: Epoch,
    pub(crate) queue: PartitionQueue<SourceContext>,
    /// Raised when the queue is no longer empty.
    pub(crate) is_ready: Arc<AtomicBool>,
    /// Messages that librdkafka put into the main queue all the same; they come first.
    pub(crate) strays: VecDeque<SourceMessage>,
    /// The offset of the last message that was handed over under the epoch.
    pub(crate) newest: Option<Offset>,
}

/// How the wait for a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Answered,
    TimedOut,
    Lost,
}

impl Partition {
    /// Returns whether a message goes on from what was handed over under the epoch.
    ///
    /// Librdkafka resets a position that the broker does not know any more inside the assignment.
    pub(crate) fn goes_on_with(&self, next: Offset) -> bool {
        goes_on(self.newest, next)
    }
}

impl SourceContext {
    pub(crate) fn new(
        shared: Arc<Shared>,
        events: Arc<dyn SourceEvents>,
        topic: Arc<str>,
        instance_id: Option<String>,
        revoke_timeout: Duration,
    ) -> Self {
        Self {
            shared,
            events,
            topic,
            instance_id,
            revoke_timeout,
            consumer: OnceLock::new(),
            partitions: Mutex::new(Vec::new()),
            served: AtomicU64::new(0),
            is_started: AtomicBool::new(false),
            last_error: Mutex::new(None),
        }
    }

    /// Returns the name of the static membership, if there is one.
    pub(crate) fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }

    /// Ties the context to its client, before the first poll.
    pub(crate) fn set_consumer(&self, consumer: &Arc<Consumer>) {
        // Set once by the thread that made both; a second call would change nothing.
        drop(self.consumer.set(Arc::downgrade(consumer)));
    }

    /// Lets errors reach the engine from now on.
    pub(crate) fn set_started(&self) {
        self.is_started.store(true, Ordering::SeqCst);
    }

    /// Returns the partitions that are ours. Only the source's thread ever takes the lock.
    pub(crate) fn partitions(&self) -> MutexGuard<'_, Vec<Partition>> {
        lock(&self.partitions)
    }

    /// Returns a number that grows with everything served.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Returns the last error that was kept before the start.
    pub(crate) fn last_error(&self) -> Option<SourceError> {
        lock(&self.last_error).clone()
    }

    /// Tells the engine of an error that is recovered from, or keeps it before the start.
    pub(crate) fn report(&self, error: SourceError) {
        if self.is_started.load(Ordering::SeqCst) {
            self.events.trouble(error);
        } else {
            *lock(&self.last_error) = Some(error);
        }
    }

    /// Returns whether an error only sums up others of which the start has one to show.
    fn is_summary(&self, error: &KafkaError) -> bool {
        let is_sum = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        is_sum && !self.is_started.load(Ordering::SeqCst) && self.last_error().is_some()
    }

    /// Gives up all partitions as lost.
    pub(crate) fn lose_all(&self) {
        let partitions = std::mem::take(&mut *self.partitions());
        self.lose(epochs_of(&partitions));
    }

    fn assign(&self, list: &TopicPartitionList) {
        if self.shared.is_closing() {
            // It would be revoked at once; nobody hears of it.
            return;
        }
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else { return };
        let mut assignments = Vec::new();
        for element in list.elements() {
            let id = self.partition_id(element.topic(), element.partition());
            self.lose_leftover(&id);
            let Some(partition) = self.open_partition(&consumer, id) else { return };
            assignments
                .push(Assignment { partition: partition.id.clone(), epoch: partition.epoch });
            self.partitions().push(partition);
        }
        if !assignments.is_empty() {
            self.events.assigned(assignments);
        }
    }

    /// Makes the partition's queue and its accounts. Must happen before librdkafka starts to fetch,
    /// so that no message reaches the main queue.
    fn open_partition(&self, consumer: &Arc<Consumer>, id: PartitionId) -> Option<Partition> {
        let Some(mut queue) = consumer.split_partition_queue(id.topic(), id.partition()) else {
            let text = format!("librdkafka has no queue for the partition \"{id}\"");
            self.shared.fail(SourceError::new(SourceErrorKind::Other, text));
            return None;
        };
        let is_ready = Arc::new(AtomicBool::new(true));
        queue.set_nonempty_callback({
            let shared = Arc::clone(&self.shared);
            let is_ready = Arc::clone(&is_ready);
            move || {
                is_ready.store(true, Ordering::SeqCst);
                shared.wake();
            }
        });
        let epoch = self.open_epoch(&id);
        Some(Partition { id, epoch, queue, is_ready, strays: VecDeque::new(), newest: None })
    }

    fn open_epoch(&self, partition: &PartitionId) -> Epoch {
        let epoch = next_epoch();
        self.shared.watch().open(epoch, partition);
        self.shared.flow().open(epoch);
        self.shared.commits().open(epoch);
        epoch
    }

    /// Ends the partition's assignment and begins another one, since its offsets begin anew at
    /// `next`: to the engine they would be repeats of what it had.
    pub(crate) fn restart(&self, partition: &mut Partition, next: Offset) {
        let Some(newest) = partition.newest.take() else { return };
        let text = format!(
            "the offsets of \"{}\" went back from {newest} to {next}: the topic was made anew or cut \
             off; messages from {next} on count as new ones, and what is unfinished of the earlier \
             ones is given up",
            partition.id
        );
        self.report(SourceError::new(SourceErrorKind::Topic, text));
        self.lose(vec![partition.epoch]);
        partition.epoch = self.open_epoch(&partition.id);
        let epoch = partition.epoch;
        self.events.assigned(vec![Assignment { partition: partition.id.clone(), epoch }]);
    }

    /// Reports a partition as lost that comes to us while we think it is ours.
    ///
    /// Librdkafka revokes before it assigns, so this does not happen; but two assignments of one
    /// partition must never be alive.
    fn lose_leftover(&self, id: &PartitionId) {
        let leftover = {
            let mut partitions = self.partitions();
            let found = partitions.iter().position(|partition| partition.id == *id);
            found.map(|index| partitions.remove(index))
        };
        if let Some(leftover) = leftover {
            self.lose(vec![leftover.epoch]);
        }
    }

    fn revoke(&self, consumer: &Consumer, list: &TopicPartitionList) {
        // Dropping the queues comes first: nothing more is handed over under these epochs.
        let epochs = epochs_of(&self.take_partitions(list));
        if epochs.is_empty() {
            return;
        }
        if consumer.assignment_lost() {
            self.lose(epochs);
            return;
        }
        let deadline = Instant::now() + self.revoke_timeout;
        self.shared.commits().announce_end(&epochs);
        let (drained, answer) = Reply::channel();
        self.events.revoked(epochs.clone(), drained);
        match wait_for_drain(answer, deadline, || consumer.assignment_lost()) {
            Drain::Lost => self.lose(epochs),
            Drain::Answered => self.end(&epochs, deadline),
            Drain::TimedOut => {
                tracing::warn!(
                    partitions = epochs.len(),
                    waited_seconds = self.revoke_timeout.as_secs_f64(),
                    "partitions are given back though their work has not ended"
                );
                self.end(&epochs, deadline);
            }
        }
    }

    fn take_partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let elements = list.elements();
        let is_listed = |partition: &Partition| {
            elements.iter().any(|element| {
                element.partition() == partition.id.partition()
                    && element.topic() == partition.id.topic()
            })
        };
        self.partitions().extract_if(.., |partition| is_listed(partition)).collect()
    }

    /// Reports assignments that have ended already, and ends them here.
    fn lose(&self, epochs: Vec<Epoch>) {
        if epochs.is_empty() {
            return;
        }
        // No wait for a commit that is on its way: the group judges it by itself.
        self.end(&epochs, Instant::now());
        self.events.lost(epochs);
    }

    /// Ends assignments: no credit, no commit. Waits for a commit on its way until `deadline`.
    ///
    /// A commit that left before the unassign and is delayed by librdkafka until after the next
    /// rebalance would be accepted, and could move the new owner's position back.
    fn end(&self, epochs: &[Epoch], deadline: Instant) {
        for epoch in epochs {
            self.shared.flow().close(*epoch);
            self.shared.watch().end(*epoch);
        }
        for refused in self.shared.commits().retire(epochs, deadline) {
            self.events.committed(refused, Err(error::ended_assignment()));
        }
    }

    fn partition_id(&self, topic: &str, partition: i32) -> PartitionId {
        if *self.topic == *topic {
            PartitionId::new(Arc::clone(&self.topic), partition)
        } else {
            PartitionId::new(topic, partition)
        }
    }

    fn count_served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConsumerContext for SourceContext {
    fn pre_rebalance(&self, consumer: &Consumer, rebalance: &Rebalance<'_>) {
        self.count_served();
        match rebalance {
            Rebalance::Assign(list) => self.assign(list),
            Rebalance::Revoke(list) => self.revoke(consumer, list),
            // The client's default then unassigns everything.
            Rebalance::Error(error) => {
                self.lose_all();
                self.report(error::trouble(error, ""));
            }
        }
    }
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.count_served();
        match level {
            // What librdkafka calls an error it recovers from, as far as this crate must know.
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, text, "client message");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, text, "client message");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", facility, text, "client message");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.count_served();
        if !self.is_summary(&error) {
            self.report(error::trouble(&error, reason));
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {
        self.count_served();
    }
}

/// Draws the next epoch. One counter serves all sources of the process.
fn next_epoch() -> Epoch {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Epoch::new(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns whether `next` is above the newest offset so far. Offsets may have gaps.
fn goes_on(newest: Option<Offset>, next: Offset) -> bool {
    newest.is_none_or(|newest| newest < next)
}

fn epochs_of(partitions: &[Partition]) -> Vec<Epoch> {
    partitions.iter().map(|partition| partition.epoch).collect()
}

fn wait_for_drain(
    mut answer: ReplyReceiver<()>,
    deadline: Instant,
    is_lost: impl Fn() -> bool,
) -> Drain {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answer.wait_timeout(left.min(LOSS_CHECK_INTERVAL)) {
            Ok(_) => return Drain::Answered,
            Err(receiver) => answer = receiver,
        }
        if is_lost() {
            return Drain::Lost;
        }
        if left.is_zero() {
            return Drain::TimedOut;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_an_hour() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_drain_ends_with_the_engines_answer() {
        let (drained, answer) = Reply::channel();
        drained.send(());
        assert_eq!(wait_for_drain(answer, in_an_hour(), || true), Drain::Answered);
        // An engine that drops the reply has nothing to drain any more.
        let (drained, answer) = Reply::channel();
        drop(drained);
        assert_eq!(wait_for_drain(answer, in_an_hour(), || false), Drain::Answered);
    }

    // Promise: RB-1
    #[test]
    fn a_drain_ends_soon_after_the_assignment_is_lost() {
        let (_drained, answer) = Reply::channel();
        // Nothing else would end it within the hour.
        assert_eq!(wait_for_drain(answer, in_an_hour(), || true), Drain::Lost);
    }

    // Promise: FT-2
    #[test]
    fn a_drain_without_an_answer_ends_at_the_deadline() {
        let (_drained, answer) = Reply::channel();
        let deadline = Instant::now() + LOSS_CHECK_INTERVAL / 2;
        assert_eq!(wait_for_drain(answer, deadline, || false), Drain::TimedOut);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn offsets_go_on_as_long_as_they_grow() {
        let check = |newest: Option<i64>, next, expect| {
            assert_eq!(goes_on(newest.map(Offset::new), Offset::new(next)), expect);
        };
        check(None, 0, true);
        check(None, 7, true);
        check(Some(7), 8, true);
        check(Some(7), 100, true);
        check(Some(7), 7, false);
        check(Some(7), 0, false);
    }
}
