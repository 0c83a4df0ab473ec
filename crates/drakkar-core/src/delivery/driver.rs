//! Runs a lane: performs what its state machine decides.

use super::lane::{CallReport, Lane, LaneAction, LaneHeld, LaneItem, LanePolicy, LaneSettled};
use crate::driver::Mail;
use crate::erased::{AnySink, panic_text};
use crate::inbox::Inbox;
use crate::partition::{Input, ItemEnd, ItemKey};
use crate::shared::Partitions;
use drakkar_api::{
    Clock, Epoch, Event, Instant, Observer, Reply, SinkError, SinkErrorKind, SinkId, Verdict,
};
use futures_util::FutureExt as _;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a lane is told.
pub(crate) enum LaneMail {
    /// Send these.
    Items(Vec<LaneItem>),
    /// An assignment is over.
    Fence(Epoch),
    /// A call returned.
    Finished { items: Vec<LaneItem>, verdicts: Vec<Verdict>, duration: Duration },
    /// Stop: drop the calls that are open, then answer.
    Close(Reply<()>),
}

/// The way into a lane.
#[derive(Clone)]
pub(crate) struct LaneHandle {
    inbox: Arc<Inbox<LaneMail>>,
    sink: AnySink,
    target: Arc<[(&'static str, String)]>,
}

impl LaneHandle {
    pub(crate) fn send(&self, mail: LaneMail) {
        self.inbox.push(mail);
    }

    pub(crate) fn sink(&self) -> &AnySink {
        &self.sink
    }

    /// Returns what the sink says of its destination, for dead letters about its payloads.
    pub(crate) fn target(&self) -> &[(&'static str, String)] {
        &self.target
    }

    /// Returns the most bytes that the sink takes for one item, as far as it knows by now.
    pub(crate) fn item_bytes_max(&self) -> Option<usize> {
        self.sink.limits().item_bytes_max
    }
}

/// Starts the lane of a connected sink.
pub(crate) fn spawn_lane(
    sink: AnySink,
    policy: LanePolicy,
    seed: u64,
    partitions: Arc<Partitions>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
) -> LaneHandle {
    let inbox = Arc::new(Inbox::new());
    let limits = sink.limits();
    let target = sink.target().into();
    let handle = LaneHandle { inbox: Arc::clone(&inbox), sink: sink.clone(), target };
    let driver = LaneDriver {
        lane: Lane::new(limits, policy, seed),
        policy,
        seed,
        attempt_timeout: limits.attempt_timeout,
        sink,
        inbox,
        calls: JoinSet::new(),
        partitions,
        observer,
        clock,
    };
    tokio::spawn(driver.run());
    handle
}

struct LaneDriver {
    lane: Lane,
    policy: LanePolicy,
    seed: u64,
    attempt_timeout: Duration,
    sink: AnySink,
    inbox: Arc<Inbox<LaneMail>>,
    /// The calls of the sink that are open.
    calls: JoinSet<()>,
    partitions: Arc<Partitions>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
}

impl LaneDriver {
    async fn run(mut self) {
        loop {
            let panic = match AssertUnwindSafe(self.run_until_closed()).catch_unwind().await {
                Ok(()) => return,
                Err(panic) => panic_text(panic.as_ref()),
            };
            // A broken invariant: what was in here is lost, so no partition may wait for it. They
            // stop and commit nothing more; their next owners start over.
            let reason = format!("the lane of sink {}: {panic}", self.sink.id());
            for epoch in self.partitions.epochs() {
                self.partitions.mail(epoch, Mail::Broken(reason.clone()));
            }
            self.calls.shutdown().await;
            drop(self.inbox.take_now());
            self.lane = Lane::new(self.sink.limits(), self.policy, self.seed);
        }
    }

    async fn run_until_closed(&mut self) {
        let mut mail = VecDeque::new();
        loop {
            let now = self.clock.now();
            for LaneAction::Deliver { items } in self.lane.poll(now) {
                self.call(items);
            }
            self.wait(&mut mail, now).await;
            while self.calls.try_join_next().is_some() {}
            for mail in mail.drain(..) {
                match mail {
                    LaneMail::Items(items) => self.lane.enqueue(items),
                    LaneMail::Fence(epoch) => self.lane.fence(epoch),
                    LaneMail::Finished { items, verdicts, duration } => {
                        self.on_finished(items, verdicts, duration);
                    }
                    LaneMail::Close(closed) => {
                        self.calls.shutdown().await;
                        return closed.send(());
                    }
                }
            }
        }
    }

    async fn wait(&self, mail: &mut VecDeque<LaneMail>, now: Instant) {
        match self.lane.next_due() {
            None => self.inbox.take(mail).await,
            Some(due) => {
                tokio::select! {
                    // Mail first: a retry can wait, a fence cannot.
                    biased;
                    () = self.inbox.take(mail) => {}
                    () = tokio::time::sleep(due - now) => {}
                }
            }
        }
    }

    /// Calls the sink in a task of its own. Whatever happens in there, each item has a verdict.
    fn call(&mut self, items: Vec<LaneItem>) {
        let sink = self.sink.clone();
        let inbox = Arc::clone(&self.inbox);
        let clock = Arc::clone(&self.clock);
        let timeout = match cfg!(drakkar_fault = "attempt_without_deadline") {
            true => Duration::MAX,
            false => self.attempt_timeout,
        };
        self.calls.spawn(async move {
            let started = clock.now();
            let batch: Vec<_> =
                items.iter().map(|item| (Arc::clone(&item.payload), item.id.clone())).collect();
            let attempt = AssertUnwindSafe(sink.deliver(&batch)).catch_unwind();
            let verdicts = match tokio::time::timeout(timeout, attempt).await {
                Ok(Ok(verdicts)) => verdicts,
                Ok(Err(_panic)) => {
                    let error = SinkError::permanent(SinkErrorKind::Internal, "the sink panicked");
                    vec![Verdict::Unknown(error); batch.len()]
                }
                Err(_elapsed) => {
                    let message = format!("no answer within {} s", timeout.as_secs_f64());
                    let error = SinkError::temporary(SinkErrorKind::Timeout, message);
                    vec![Verdict::Unknown(error); batch.len()]
                }
            };
            drop(batch);
            let duration = clock.now() - started;
            inbox.push(LaneMail::Finished { items, verdicts, duration });
        });
    }

    fn on_finished(&mut self, items: Vec<LaneItem>, verdicts: Vec<Verdict>, duration: Duration) {
        if items.iter().any(|item| item.letter.is_some()) {
            // The sink may have learnt it by what was refused.
            self.lane.learn_item_bytes_max(self.sink.limits().item_bytes_max);
        }
        let (settled, report) = self.lane.finished(items, verdicts, self.clock.now());
        self.emit(&report, duration);
        self.tell_held(report.held);
        self.answer(settled);
    }

    fn emit(&self, report: &CallReport, duration: Duration) {
        let sink: &SinkId = self.sink.id();
        if report.confirmed > 0 {
            let payloads = report.confirmed;
            self.observer.observe(&Event::Delivered { sink, payloads, duration });
        }
        if let Some(error) = &report.first_error {
            self.observer.observe(&Event::DeliveryFailed {
                sink,
                payloads: report.failed,
                error,
                attempt: report.attempt,
            });
        }
        if report.retried > 0 {
            let (payloads, delay) = (report.retried, report.delay);
            self.observer.observe(&Event::DeliveryRetried { sink, payloads, delay });
        }
    }

    /// Has the partitions tell what is held of theirs: those that have left do not.
    fn tell_held(&self, held: Vec<LaneHeld>) {
        for LaneHeld { epoch, key, error } in held {
            self.partitions.send(epoch, Input::ItemHeld { key, error });
        }
    }

    /// Tells each partition once about all of its items.
    fn answer(&self, settled: Vec<LaneSettled>) {
        let mut ends: Vec<(ItemKey, ItemEnd)> = Vec::new();
        let mut settled = settled.into_iter().peekable();
        while let Some(item) = settled.next() {
            ends.push((item.key, item.end));
            if settled.peek().is_none_or(|next| next.epoch != item.epoch) {
                self.partitions.send(item.epoch, Input::ItemsEnded(std::mem::take(&mut ends)));
            }
        }
    }
}
