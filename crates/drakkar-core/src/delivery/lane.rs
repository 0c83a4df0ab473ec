//! A lane: the queue in front of one sink instance.
//!
//! A pure state machine. It gathers what is queued now into batches (natural batching), up to the
//! sink's limits in items, bytes and concurrent calls; it decides from each item's verdict whether
//! to settle it or to send it again; and it keeps the order of payloads of one message: while one of
//! them is in a batch or waits for a retry, later ones are set aside.
//!
//! | verdict | error may pass | attempts left | outcome |
//! |---|---|---|---|
//! | confirmed | | | confirmed |
//! | not applied | yes | yes | sent again after a wait |
//! | unknown, a repeat is harmless | yes | yes | sent again after a wait |
//! | unknown, a repeat is not harmless | | | failed |
//! | rejected | | | failed |
//! | anything else | | | failed |
//!
//! A lane of dead letters that holds offsets sends everything again, for ever. A dead letter that is
//! too large is cut and sent again, whatever the verdict, as long as there is something to cut.
//!
//! Limits: the queue grows only with the load that backpressure bounds.

use super::dead_letter::{Blame, FullLetter, Shrunk};
use crate::partition::{ItemEnd, ItemKey};
use crate::retry::{Backoff, Jitter};
use drakkar_api::{
    BatchLimits, DeliveryId, Epoch, ErrorStatus, Instant, Offset, Payload, SinkError,
    SinkErrorKind, Verdict,
};
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// One payload in a lane.
#[derive(Debug)]
pub(crate) struct LaneItem {
    pub(crate) epoch: Epoch,
    pub(crate) key: ItemKey,
    pub(crate) id: DeliveryId,
    pub(crate) payload: Arc<Payload>,
    pub(crate) bytes: usize,
    pub(crate) repeat_is_harmless: bool,
    /// Attempts made so far.
    pub(crate) attempts: u32,
    /// If this is a dead letter, all of it; `payload` may be a smaller form.
    pub(crate) letter: Option<Box<FullLetter>>,
}

/// How a lane tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LanePolicy {
    pub(crate) retries_max: u32,
    pub(crate) backoff: Backoff,
    /// Never give up: the lane of dead letters under `hold`.
    pub(crate) hold: bool,
}

/// What to do for a lane.
#[derive(Debug)]
pub(crate) enum LaneAction {
    /// Call the sink with these; answer with [`Lane::finished`].
    Deliver { items: Vec<LaneItem> },
}

/// An item that needs nothing more.
#[derive(Debug)]
pub(crate) struct LaneSettled {
    pub(crate) epoch: Epoch,
    pub(crate) key: ItemKey,
    pub(crate) end: ItemEnd,
}

/// An item that is held until the destination takes it.
#[derive(Debug)]
pub(crate) struct LaneHeld {
    pub(crate) epoch: Epoch,
    pub(crate) key: ItemKey,
    pub(crate) error: SinkError,
}

/// Facts about a finished call, for events.
#[derive(Debug, Default)]
pub(crate) struct CallReport {
    pub(crate) confirmed: usize,
    pub(crate) failed: usize,
    pub(crate) first_error: Option<SinkError>,
    pub(crate) attempt: u32,
    pub(crate) retried: usize,
    pub(crate) delay: std::time::Duration,
    /// Items of this call that the lane will try again, with their errors; only under `hold`.
    pub(crate) held: Vec<LaneHeld>,
}

/// Items of equal order are never in two calls at the same time: those whose delivery ids name the same
/// message, also when that comes back in another assignment. Messages of two topics with the same
/// numbers wait for each other without need, which is cheaper than to compare the names.
type Order = (Offset, i32);

impl LaneItem {
    fn order(&self) -> Order {
        (self.id.offset(), self.id.source().partition())
    }

    /// A dead letter was refused for its size: makes it smaller, and answers whether sending it
    /// again has a chance for that.
    fn shrink(&mut self, item_bytes_max: Option<usize>, blame: Blame) -> bool {
        let Some(letter) = &mut self.letter else { return false };
        match letter.shrink(&self.payload, item_bytes_max, blame) {
            Shrunk::To(smaller) => {
                self.bytes = smaller.size_bytes();
                self.payload = Arc::new(smaller);
                true
            }
            Shrunk::NotYet => true,
            Shrunk::Smallest => false,
        }
    }
}

/// What of an order is in a batch or waits for a retry.
#[derive(Debug)]
struct Busy {
    items: usize,
    /// The number of that batch. A later item may join it only while it is made.
    batch: u64,
}

/// The state of one lane.
#[derive(Debug)]
pub(crate) struct Lane {
    limits: BatchLimits,
    policy: LanePolicy,
    jitter: Jitter,
    queue: VecDeque<LaneItem>,
    /// Items whose order is busy, until it is free.
    set_aside: BTreeMap<Order, VecDeque<LaneItem>>,
    /// The orders of which items are in a batch or wait for a retry.
    busy: HashMap<Order, Busy>,
    batches: u64,
    /// Items that wait for a retry: those of one order together, so that they keep their order.
    waiting: BTreeMap<(Instant, u64), Vec<LaneItem>>,
    calls_open: usize,
    keys_drawn: u64,
    /// How many items of an assignment are in open calls.
    in_calls: BTreeMap<Epoch, usize>,
    /// Assignments that are over and have items in open calls.
    fenced: BTreeSet<Epoch>,
}

impl Lane {
    pub(crate) fn new(limits: BatchLimits, policy: LanePolicy, seed: u64) -> Self {
        Self {
            limits,
            policy,
            jitter: Jitter::new(seed),
            queue: VecDeque::new(),
            set_aside: BTreeMap::new(),
            busy: HashMap::new(),
            batches: 0,
            waiting: BTreeMap::new(),
            calls_open: 0,
            keys_drawn: 0,
            in_calls: BTreeMap::new(),
            fenced: BTreeSet::new(),
        }
    }

    /// Hears the most bytes that the destination takes for one item.
    pub(crate) fn learn_item_bytes_max(&mut self, item_bytes_max: Option<usize>) {
        self.limits.item_bytes_max = item_bytes_max;
    }

    /// Takes items in, in the order in which they are to be sent.
    pub(crate) fn enqueue(&mut self, items: impl IntoIterator<Item = LaneItem>) {
        self.queue.extend(items);
    }

    /// Takes everything of an assignment out that is not in a call already; of what is, the verdict
    /// is ignored (promise RB-2).
    pub(crate) fn fence(&mut self, epoch: Epoch) {
        let stays = |item: &LaneItem| item.epoch != epoch;
        self.queue.retain(stays);
        self.set_aside.retain(|_, items| {
            items.retain(stays);
            !items.is_empty()
        });
        // Items of one message can belong to two assignments, when it has come back.
        let mut over = Vec::new();
        for items in self.waiting.values_mut() {
            over.extend(items.extract_if(.., |item| item.epoch == epoch));
        }
        self.waiting.retain(|_, items| !items.is_empty());
        for item in over {
            self.release(&item);
        }
        if self.in_calls.contains_key(&epoch) {
            self.fenced.insert(epoch);
        }
    }

    /// Returns the next batches that may be sent now.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<LaneAction> {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let items = entry.remove();
            // What was set aside behind them goes to the front first, so they end up before it.
            for item in &items {
                self.release(item);
            }
            for item in items.into_iter().rev() {
                self.queue.push_front(item);
            }
        }
        let mut actions = Vec::new();
        while self.calls_open < self.limits.concurrency.max(1) {
            let items = self.take_batch();
            if items.is_empty() {
                break;
            }
            self.calls_open += 1;
            actions.push(LaneAction::Deliver { items });
        }
        actions
    }

    fn take_batch(&mut self) -> Vec<LaneItem> {
        let mut batch: Vec<LaneItem> = Vec::new();
        self.batches += 1;
        let mut bytes = 0;
        while batch.len() < self.limits.items_max.max(1) {
            let Some(item) = self.queue.pop_front() else { break };
            let order = item.order();
            let is_set_aside = self.set_aside.contains_key(&order);
            let busy = self.busy.entry(order);
            let is_busy = match &busy {
                Entry::Occupied(busy) => busy.get().batch != self.batches,
                Entry::Vacant(_) => false,
            };
            if is_set_aside || is_busy {
                self.set_aside.entry(order).or_default().push_back(item);
                continue;
            }
            if !batch.is_empty() && bytes + item.bytes > self.limits.bytes_max {
                self.queue.push_front(item);
                break;
            }
            bytes += item.bytes;
            *self.in_calls.entry(item.epoch).or_default() += 1;
            busy.or_insert(Busy { items: 0, batch: self.batches }).items += 1;
            batch.push(item);
        }
        batch
    }

    /// Hears the verdicts of a call, one for each of its items.
    pub(crate) fn finished(
        &mut self,
        items: Vec<LaneItem>,
        verdicts: Vec<Verdict>,
        now: Instant,
    ) -> (Vec<LaneSettled>, CallReport) {
        self.calls_open -= 1;
        let mut settled = Vec::new();
        let mut report = CallReport::default();
        let mut again: BTreeMap<Order, Vec<LaneItem>> = BTreeMap::new();
        for (mut item, verdict) in items.into_iter().zip(verdicts) {
            if self.returns_fenced(item.epoch) {
                self.release(&item);
                continue;
            }
            item.attempts += 1;
            report.attempt = report.attempt.max(item.attempts);
            match self.judge(&mut item, verdict) {
                Judgement::Settle(end) => {
                    match &end {
                        ItemEnd::Confirmed => report.confirmed += 1,
                        ItemEnd::Failed { error, .. } => report.fail(error),
                    }
                    self.release(&item);
                    settled.push(LaneSettled { epoch: item.epoch, key: item.key, end });
                }
                Judgement::Again(error) => {
                    report.fail(&error);
                    report.retried += 1;
                    if self.policy.hold {
                        report.held.push(LaneHeld { epoch: item.epoch, key: item.key, error });
                    }
                    again.entry(item.order()).or_default().push(item);
                }
            }
        }
        for items in again.into_values() {
            if cfg!(drakkar_fault = "retry_lost") {
                continue;
            }
            let attempts = items.iter().map(|item| item.attempts).max().unwrap_or(1);
            let wait = self.policy.backoff.after(attempts, &mut self.jitter);
            report.delay = report.delay.max(wait);
            self.keys_drawn += 1;
            self.waiting.insert((now + wait, self.keys_drawn), items);
        }
        (settled, report)
    }

    /// Notes that an item of this assignment came back from a call, and answers whether the
    /// assignment is over.
    fn returns_fenced(&mut self, epoch: Epoch) -> bool {
        let fenced = self.fenced.contains(&epoch) && !cfg!(drakkar_fault = "verdicts_of_any_epoch");
        let in_calls = self.in_calls.get_mut(&epoch).expect("it was counted when it was sent");
        *in_calls -= 1;
        if *in_calls == 0 {
            self.in_calls.remove(&epoch);
            self.fenced.remove(&epoch);
        }
        fenced
    }

    fn judge(&self, item: &mut LaneItem, verdict: Verdict) -> Judgement {
        let is_rejected = matches!(verdict, Verdict::Rejected(_));
        let (error, safe) = match verdict {
            Verdict::Confirmed => return Judgement::Settle(ItemEnd::Confirmed),
            Verdict::NotApplied(error) => (error, true),
            Verdict::Unknown(error) => {
                (error, item.repeat_is_harmless || cfg!(drakkar_fault = "unknown_repeated"))
            }
            Verdict::Rejected(error) => (error, false),
            _ => {
                let message = "the sink answered a verdict that this engine does not know";
                let kind = SinkErrorKind::Internal;
                (SinkError::permanent(kind, message), false)
            }
        };
        let is_cut = error.kind() == SinkErrorKind::TooLarge && {
            let is_own = is_rejected || error.status() == ErrorStatus::Permanent;
            let blame = if is_own { Blame::Own } else { Blame::Shared };
            item.shrink(self.limits.item_bytes_max, blame)
        };
        if self.policy.hold && cfg!(drakkar_fault = "letter_forgotten_under_hold") {
            return Judgement::Settle(ItemEnd::Confirmed);
        }
        if self.policy.hold || is_cut {
            return Judgement::Again(error);
        }
        let may_pass = error.status() == ErrorStatus::Temporary;
        if safe && may_pass && item.attempts <= self.policy.retries_max {
            return Judgement::Again(error);
        }
        let attempts = item.attempts;
        Judgement::Settle(ItemEnd::Failed { error: error.exhausted(), attempts })
    }

    /// An item left its batch for good, or is about to be sent again: its order is free when no
    /// other item holds it.
    fn release(&mut self, item: &LaneItem) {
        let order = item.order();
        let Some(busy) = self.busy.get_mut(&order) else { return };
        busy.items -= 1;
        if busy.items == 0 {
            self.busy.remove(&order);
            if let Some(items) = self.set_aside.remove(&order) {
                for item in items.into_iter().rev() {
                    self.queue.push_front(item);
                }
            }
        }
    }

    /// Returns when [`poll`](Self::poll) should be asked again, if time alone makes something due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|&(at, _)| at)
    }

    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.calls_open == 0
            && self.queue.is_empty()
            && self.waiting.is_empty()
            && self.set_aside.is_empty()
    }
}

impl CallReport {
    fn fail(&mut self, error: &SinkError) {
        self.failed += 1;
        self.first_error.get_or_insert_with(|| error.clone());
    }
}

enum Judgement {
    Settle(ItemEnd),
    Again(SinkError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{KafkaRecord, PartitionId};
    use std::time::Duration;

    const NOW: Instant = Instant::ORIGIN;

    fn limits(items_max: usize, concurrency: usize) -> BatchLimits {
        BatchLimits { items_max, concurrency, bytes_max: 100, ..BatchLimits::default() }
    }

    fn policy() -> LanePolicy {
        let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
        LanePolicy { retries_max: 2, backoff, hold: false }
    }

    fn item(offset: i64, number: u64) -> LaneItem {
        let partition = PartitionId::new("in", 0);
        let offset = Offset::new(offset);
        LaneItem {
            epoch: Epoch::new(1),
            key: ItemKey::Letter(number),
            id: DeliveryId::new(partition, offset, 0, 0),
            payload: Arc::new(KafkaRecord::bytes("x").into()),
            bytes: 1,
            repeat_is_harmless: false,
            attempts: 0,
            letter: None,
        }
    }

    fn batches(lane: &mut Lane, now: Instant) -> Vec<Vec<LaneItem>> {
        let actions = lane.poll(now).into_iter();
        actions.map(|LaneAction::Deliver { items }| items).collect()
    }

    fn numbers(items: &[LaneItem]) -> Vec<u64> {
        let number = |item: &LaneItem| match item.key {
            ItemKey::Letter(number) => number,
            ItemKey::Payload { .. } => u64::MAX,
        };
        items.iter().map(number).collect()
    }

    fn temporary() -> SinkError {
        SinkError::temporary(SinkErrorKind::Connection, "away")
    }

    #[test]
    fn what_is_queued_goes_out_in_batches_up_to_the_limits() {
        let mut lane = Lane::new(limits(2, 2), policy(), 1);
        lane.enqueue((0..5).map(|n| item(i64::try_from(n).expect("small"), n)));
        let sent = batches(&mut lane, NOW);
        assert_eq!(sent.iter().map(|b| numbers(b)).collect::<Vec<_>>(), [[0, 1], [2, 3]]);
        assert!(batches(&mut lane, NOW).is_empty(), "two calls are open");
        let first = sent.into_iter().next().expect("two batches");
        let (settled, report) = lane.finished(first, vec![Verdict::Confirmed; 2], NOW);
        assert_eq!((settled.len(), report.confirmed), (2, 2));
        assert_eq!(numbers(&batches(&mut lane, NOW)[0]), [4]);
    }

    #[test]
    fn payloads_of_one_message_wait_for_each_other() {
        let mut lane = Lane::new(limits(2, 4), policy(), 1);
        lane.enqueue([item(7, 0), item(7, 1), item(7, 2), item(8, 3)]);
        let mut sent = batches(&mut lane, NOW);
        let all: Vec<_> = sent.iter().map(|b| numbers(b)).collect();
        assert_eq!(all, [vec![0, 1], vec![3]], "2 is set aside, 3 overtakes it");
        let error = Verdict::NotApplied(temporary());
        let first = sent.remove(0);
        let (settled, report) = lane.finished(first, vec![error, Verdict::Confirmed], NOW);
        assert_eq!((settled.len(), report.retried), (1, 1));
        assert!(batches(&mut lane, NOW).is_empty(), "0 waits, so 2 waits");
        let later = lane.next_due().expect("a retry waits");
        assert_eq!(numbers(&batches(&mut lane, later)[0]), [0, 2], "the retry goes first");
    }

    // Promise: DL-3
    #[test]
    fn only_what_is_safe_is_sent_again() {
        let unknown = || Verdict::Unknown(temporary());
        let permanent = SinkError::permanent(SinkErrorKind::Invalid, "bad");
        let check = |verdict: Verdict, harmless: bool, again: bool| {
            let mut lane = Lane::new(limits(1, 1), policy(), 1);
            lane.enqueue([LaneItem { repeat_is_harmless: harmless, ..item(1, 0) }]);
            let sent = batches(&mut lane, NOW).remove(0);
            let (settled, _) = lane.finished(sent, vec![verdict.clone()], NOW);
            assert_eq!(settled.is_empty(), again, "{verdict:?}, harmless: {harmless}");
        };
        check(Verdict::NotApplied(temporary()), false, true);
        check(unknown(), true, true);
        check(unknown(), false, false);
        check(Verdict::NotApplied(permanent.clone()), false, false);
        check(Verdict::Rejected(permanent), true, false);
    }

    #[test]
    fn retries_of_one_message_keep_their_order() {
        for seed in 0..50 {
            let mut lane = Lane::new(limits(3, 4), policy(), seed);
            lane.enqueue((0..5).map(|number| item(7, number)));
            let sent = batches(&mut lane, NOW).remove(0);
            let refused = vec![Verdict::NotApplied(temporary()); 3];
            assert!(lane.finished(sent, refused, NOW).0.is_empty());
            let later = lane.next_due().expect("a retry waits");
            let sent = batches(&mut lane, later).remove(0);
            assert_eq!(numbers(&sent), [0, 1, 2], "seed {seed}");
            lane.finished(sent, vec![Verdict::Confirmed; 3], later);
            assert_eq!(numbers(&batches(&mut lane, later)[0]), [3, 4], "seed {seed}");
        }
    }

    #[test]
    fn retries_end() {
        let mut lane = Lane::new(limits(1, 1), policy(), 1);
        lane.enqueue([item(1, 0)]);
        let mut now = NOW;
        for attempt in 1..=3 {
            let sent = batches(&mut lane, now).remove(0);
            let (settled, _) = lane.finished(sent, vec![Verdict::NotApplied(temporary())], now);
            match settled.first() {
                None => now = lane.next_due().expect("a retry waits"),
                Some(end) => {
                    assert_eq!(attempt, 3);
                    let ItemEnd::Failed { error, attempts } = &end.end else { panic!("{end:?}") };
                    assert_eq!((*attempts, error.status()), (3, ErrorStatus::Exhausted));
                }
            }
        }
        assert!(lane.is_idle());
    }

    // Promise: DL-4
    #[test]
    fn a_holding_lane_never_gives_up() {
        let mut lane = Lane::new(limits(1, 1), LanePolicy { hold: true, ..policy() }, 1);
        lane.enqueue([item(1, 0)]);
        let mut now = NOW;
        let permanent = SinkError::permanent(SinkErrorKind::NoTarget, "no topic");
        for _ in 0..100 {
            let sent = batches(&mut lane, now).remove(0);
            let rejected = vec![Verdict::Rejected(permanent.clone())];
            let (settled, report) = lane.finished(sent, rejected, now);
            assert!(settled.is_empty() && report.held.len() == 1);
            now = lane.next_due().expect("a retry waits");
        }
    }

    // Promise: RB-2
    #[test]
    fn a_fenced_assignment_sends_nothing_more_and_is_not_heard() {
        let mut lane = Lane::new(limits(1, 1), policy(), 1);
        let other = LaneItem { epoch: Epoch::new(2), ..item(9, 9) };
        lane.enqueue([item(1, 0), item(2, 1), other]);
        let sent = batches(&mut lane, NOW).remove(0);
        assert_eq!(numbers(&sent), [0]);
        lane.fence(Epoch::new(1));
        let (settled, report) = lane.finished(sent, vec![Verdict::Confirmed], NOW);
        assert!(settled.is_empty() && report.confirmed == 0);
        assert_eq!(numbers(&batches(&mut lane, NOW)[0]), [9]);
        assert!(lane.fenced.is_empty(), "what is over is not remembered for ever");
    }

    // Promise: RB-2, DL-1
    #[test]
    fn a_fence_spares_what_waits_together_with_what_is_over() {
        let mut lane = Lane::new(limits(10, 1), policy(), 1);
        let back = |number| LaneItem { epoch: Epoch::new(2), ..item(1, number) };
        lane.enqueue([item(1, 0), back(1)]);
        let sent = batches(&mut lane, NOW).remove(0);
        lane.finished(sent, vec![Verdict::NotApplied(temporary()); 2], NOW);
        lane.fence(Epoch::new(1));
        lane.enqueue([back(2)]);
        assert!(batches(&mut lane, NOW).is_empty(), "the message is still busy");
        let later = lane.next_due().expect("a retry waits");
        let sent = batches(&mut lane, later).remove(0);
        assert_eq!(numbers(&sent), [1, 2]);
        let (settled, _) = lane.finished(sent, vec![Verdict::Confirmed; 2], later);
        assert_eq!(settled.len(), 2);
        assert!(lane.is_idle() && lane.busy.is_empty());
    }

    #[test]
    fn an_item_larger_than_a_batch_goes_alone() {
        let mut lane = Lane::new(limits(10, 10), policy(), 1);
        let large = LaneItem { bytes: 1000, ..item(2, 1) };
        lane.enqueue([item(1, 0), large, item(3, 2)]);
        let sent = batches(&mut lane, NOW);
        let all: Vec<_> = sent.iter().map(|b| numbers(b)).collect();
        assert_eq!(all, [vec![0], vec![1], vec![2]]);
    }
}
