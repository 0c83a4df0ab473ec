//! Whether the worker lives and is ready, as its surroundings see it.

use drakkar_api::{Clock, Event, Instant, Observer, Offset, PartitionId, SinkId, WorkerCall};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What `/healthz` and `/readyz` tell. Shared by the pipeline, which writes, and the server.
///
/// Live means that the source's loop turned not long ago. It counts from its first turn on, because
/// the start may take its time, and until [`stopping`](Self::stopping), because a drain does too.
pub(crate) struct Health {
    clock: Arc<dyn Clock>,
    stall_limit: Duration,
    is_kafka_connected: IsConnected,
    state: Mutex<State>,
}

/// Answers at once whether Kafka answers the source.
pub(crate) type IsConnected = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    ready: bool,
    polled_at: Option<Instant>,
    stopping: bool,
    /// In the order of registration.
    sinks: Vec<SinkState>,
    /// How many partitions are ours.
    assigned: usize,
    /// Why, and whether the worker is not ready for that.
    failed: BTreeMap<PartitionId, (String, bool)>,
    /// Calls of user code that block, by number, and whether the worker is not ready for that.
    blocked: BTreeMap<u64, (WorkerCall, bool)>,
    /// Dead letters that cannot be written at present, by partition and offset.
    held: BTreeMap<PartitionId, BTreeMap<Offset, String>>,
}

/// What is known of a sink.
#[derive(Debug)]
struct SinkState {
    id: SinkId,
    connected: bool,
    last_delivery: Delivery,
}

/// How the last delivery ended.
#[derive(Debug)]
enum Delivery {
    NotTried,
    Confirmed,
    /// With the error.
    Failed(String),
}

/// One thing that is looked at, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// One word, or with a colon and the reason behind it.
    pub(crate) state: String,
    pub(crate) is_ok: bool,
    /// Whether the worker is not ready without it.
    pub(crate) is_required: bool,
}

impl Check {
    fn required(name: impl Into<String>, state: impl Into<String>, is_ok: bool) -> Self {
        Self { name: name.into(), state: state.into(), is_ok, is_required: true }
    }

    /// One that tells only.
    fn shown(name: impl Into<String>, state: impl Into<String>, is_ok: bool) -> Self {
        Self { is_required: false, ..Self::required(name, state, is_ok) }
    }

    /// Returns why the worker is not ready, if this is a reason.
    fn reason(&self) -> Option<String> {
        let is_reason = self.is_required && !self.is_ok;
        is_reason.then(|| match self.name.as_str() {
            WORKER => self.state.clone(),
            name => format!("{name}_{}", self.state),
        })
    }
}

/// The name of the check whether the worker itself runs.
const WORKER: &str = "worker";

impl SinkState {
    fn checks(&self) -> [Check; 2] {
        let Self { id, connected, last_delivery } = self;
        let connection = if *connected { "connected" } else { "not_connected" };
        let (delivery, is_ok) = match last_delivery {
            Delivery::NotTried => ("not_tried".to_owned(), true),
            Delivery::Confirmed => ("confirmed".to_owned(), true),
            Delivery::Failed(error) => (format!("failed: {error}"), false),
        };
        [
            Check::required(format!("sink_{id}"), connection, *connected),
            Check::shown(format!("sink_{id}_delivery"), delivery, is_ok),
        ]
    }
}

impl State {
    /// Returns for how long the source's loop has rested, if it has begun and the worker is not about
    /// to stop.
    fn rested(&self, now: Instant) -> Option<Duration> {
        self.polled_at.filter(|_| !self.stopping).map(|polled_at| now - polled_at)
    }

    fn sink(&mut self, id: &SinkId) -> &mut SinkState {
        let place = self.sinks.iter().position(|sink| sink.id == *id).unwrap_or_else(|| {
            let last_delivery = Delivery::NotTried;
            self.sinks.push(SinkState { id: id.clone(), connected: false, last_delivery });
            self.sinks.len() - 1
        });
        &mut self.sinks[place]
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("state", &*self.lock()).finish_non_exhaustive()
    }
}

impl Health {
    /// Makes the state of a worker that has not started. `stall_limit` is how long the source's loop
    /// may rest before the worker counts as dead; it must exceed the time that a revoke takes.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        stall_limit: Duration,
        is_kafka_connected: IsConnected,
    ) -> Self {
        Self { clock, stall_limit, is_kafka_connected, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source's loop has turned. The first turn makes the worker ready.
    pub(crate) fn polled(&self) {
        let mut state = self.lock();
        state.polled_at = Some(self.clock.now());
        state.ready = !state.stopping;
    }

    /// The worker begins to stop: it is not ready any more, and may rest.
    pub(crate) fn stopping(&self) {
        let mut state = self.lock();
        state.stopping = true;
        state.ready = false;
    }

    /// A sink exists, or has been connected or closed.
    pub(crate) fn set_sink(&self, sink: &SinkId, connected: bool) {
        self.lock().sink(sink).connected = connected;
    }

    /// Returns for how long the source's loop has rested, if that is too long.
    pub(crate) fn stalled_for(&self) -> Option<Duration> {
        let rested = self.lock().rested(self.clock.now())?;
        (rested >= self.stall_limit).then_some(rested)
    }

    /// Returns why the worker is not ready; nothing if it is.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.checks().iter().filter_map(Check::reason).collect()
    }

    /// Returns everything that is looked at, and how it is. Of the partitions only those in trouble
    /// are listed.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let is_connected = (self.is_kafka_connected)();
        let now = self.clock.now();
        let state = self.lock();
        let started = if state.ready { "started" } else { "not_started" };
        let (turns, is_turning) = match state.rested(now) {
            None => ("resting".to_owned(), true),
            Some(rested) if rested < self.stall_limit => ("turning".to_owned(), true),
            Some(rested) => (format!("stalled_for_{}s", rested.as_secs()), false),
        };
        let connection = if is_connected { "connected" } else { "not_connected" };
        let assigned = format!("{} assigned", state.assigned);
        let mut checks = vec![
            Check::required(WORKER, started, state.ready),
            // Whether it is alive, which `/healthz` answers.
            Check::shown("source_loop", turns, is_turning),
            Check::shown("kafka", connection, is_connected),
            Check::shown("partitions", assigned, true),
        ];
        checks.extend(state.sinks.iter().flat_map(SinkState::checks));
        checks.extend(state.failed.iter().map(|(partition, (why, is_required))| {
            let (name, state) = (format!("partition_{partition}"), format!("failed: {why}"));
            Check { name, state, is_ok: false, is_required: *is_required }
        }));
        checks.extend(state.blocked.values().map(|(call, is_required)| {
            let (name, state) = (call.name.replace(' ', "_"), blocked_state(call));
            Check { name, state, is_ok: false, is_required: *is_required }
        }));
        checks.extend(state.held.iter().filter_map(|(partition, letters)| {
            // The oldest one is what holds the partition.
            let (offset, why) = letters.first_key_value()?;
            let others = match letters.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let state = format!("dead_letter_held: offset {offset}: {why}{others}");
            Some(Check::required(format!("partition_{partition}"), state, false))
        }));
        checks
    }
}

fn blocked_state(call: &WorkerCall) -> String {
    let partitions: Vec<_> = call.partitions.iter().map(ToString::to_string).collect();
    match &partitions[..] {
        [] => "blocked".to_owned(),
        all => format!("blocked: for {}", all.join(" ")),
    }
}

impl Observer for Health {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Polled => self.polled(),
            Event::SinkConnected { sink } => self.set_sink(sink, true),
            Event::Delivered { sink, payloads, .. } if *payloads > 0 => {
                self.lock().sink(sink).last_delivery = Delivery::Confirmed;
            }
            Event::DeliveryFailed { sink, error, .. } => {
                self.lock().sink(sink).last_delivery = Delivery::Failed(error.to_string());
            }
            Event::Rebalance { assigned, .. } => self.lock().assigned = *assigned,
            Event::PartitionFailed { partition, reason, keeps_ready } => {
                let why = ((*reason).to_owned(), !keeps_ready);
                self.lock().failed.insert((*partition).clone(), why);
            }
            Event::PartitionRecovered { partition } => {
                self.lock().failed.remove(*partition);
            }
            Event::CallBlocked { call, keeps_ready, .. } => {
                self.lock().blocked.insert(call.number, ((*call).clone(), !keeps_ready));
            }
            Event::CallWentOn { call } => {
                self.lock().blocked.remove(&call.number);
            }
            Event::DeadLetterFailed { partition, offset, error, dropped: false } => {
                let mut state = self.lock();
                let letters = state.held.entry((*partition).clone()).or_default();
                letters.insert(*offset, error.to_string());
            }
            Event::DeadLettered { partition, offset, .. }
            | Event::DeadLetterFailed { partition, offset, dropped: true, .. } => {
                if let Some(letters) = self.lock().held.get_mut(*partition) {
                    letters.remove(offset);
                }
            }
            Event::Assigned { partition }
            | Event::Revoked { partition, .. }
            | Event::Lost { partition } => {
                let mut state = self.lock();
                state.failed.remove(*partition);
                state.held.remove(*partition);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{SinkError, SinkErrorKind};
    use drakkar_testkit::TokioClock;

    // Promise: FT-1
    #[test]
    fn a_call_that_blocks_shows_until_it_goes_on() {
        let clock = Arc::new(TokioClock::new());
        let health = Health::new(clock, Duration::from_secs(30), Box::new(|| true));
        health.observe(&Event::Polled);
        let call = |number, name: &str, partitions| WorkerCall {
            number,
            name: name.to_owned(),
            partitions,
        };
        let both = vec![PartitionId::new("in", 3), PartitionId::new("in", 4)];
        let calls = [
            call(1, "on_assign", both.clone()),
            call(2, "on_assign", both),
            call(3, "periodic task refresh", Vec::new()),
        ];
        let lasted = Duration::from_secs(60);
        for call in &calls {
            health.observe(&Event::CallBlocked { call, lasted, keeps_ready: false });
        }
        let [on_assign, refresh] =
            ["on_assign_blocked: for in:3 in:4", "periodic_task_refresh_blocked"];
        assert_eq!(health.reasons(), [on_assign, on_assign, refresh]);
        health.observe(&Event::CallWentOn { call: &calls[0] });
        assert_eq!(health.reasons(), [on_assign, refresh]);
        health.observe(&Event::CallWentOn { call: &calls[1] });
        health.observe(&Event::CallBlocked { call: &calls[2], lasted, keeps_ready: true });
        assert_eq!(health.reasons(), Vec::<String>::new(), "it is only told");
        assert!(health.checks().iter().any(|check| check.name == "periodic_task_refresh"));
    }

    // Promise: DL-4, FT-1
    #[test]
    fn a_dead_letter_that_is_held_shows_until_it_is_written() {
        let clock = Arc::new(TokioClock::new());
        let health = Health::new(clock, Duration::from_secs(30), Box::new(|| true));
        health.observe(&Event::Polled);
        assert_eq!(health.reasons(), Vec::<String>::new());
        let partition = PartitionId::new("in", 3);
        let error = SinkError::permanent(SinkErrorKind::NoTarget, "no such topic");
        let partition = &partition;
        let failed = |offset, dropped| {
            let offset = Offset::new(offset);
            health.observe(&Event::DeadLetterFailed { partition, offset, error: &error, dropped });
        };
        let written = |offset| {
            health.observe(&Event::DeadLettered {
                partition,
                offset: Offset::new(offset),
                kind: "message",
                error_kind: "timeout",
                error: "too late",
            });
        };
        failed(7, true);
        assert_eq!(health.reasons(), Vec::<String>::new(), "it was dropped, as was asked");
        failed(8, false);
        failed(7, false);
        failed(7, false);
        let reason = |text: &str| vec![format!("partition_in:3_dead_letter_held: {text}")];
        assert_eq!(health.reasons(), reason("offset 7: no such topic (and 1 more)"));
        written(9);
        assert_eq!(health.reasons(), reason("offset 7: no such topic (and 1 more)"));
        written(7);
        assert_eq!(health.reasons(), reason("offset 8: no such topic"));
        written(8);
        assert_eq!(health.reasons(), Vec::<String>::new());
    }
}
