//! Whether the worker lives and is ready, as its surroundings see it.

use drakkar_api::{Clock, Event, Instant, Observer, PartitionId, SinkId};
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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    polled_at: Option<Instant>,
    stopping: bool,
    /// In the order of registration, with whether each is connected.
    sinks: Vec<(SinkId, bool)>,
    failed: BTreeMap<PartitionId, String>,
    /// Partitions with a dead letter that cannot be written, with the last one of which that was told.
    held: BTreeMap<PartitionId, String>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("state", &*self.lock()).finish_non_exhaustive()
    }
}

impl Health {
    /// Makes the state of a worker that has not started. `stall_limit` is how long the source's loop
    /// may rest before the worker counts as dead; it must exceed the time that a revoke takes.
    pub(crate) fn new(clock: Arc<dyn Clock>, stall_limit: Duration) -> Self {
        Self { clock, stall_limit, state: Mutex::default() }
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
        let mut state = self.lock();
        match state.sinks.iter_mut().find(|(id, _)| id == sink) {
            Some((_, flag)) => *flag = connected,
            None => state.sinks.push((sink.clone(), connected)),
        }
    }

    /// Returns for how long the source's loop has rested, if that is too long.
    pub(crate) fn stalled_for(&self) -> Option<Duration> {
        let state = self.lock();
        let rested = self.clock.now() - state.polled_at?;
        (!state.stopping && rested >= self.stall_limit).then_some(rested)
    }

    /// Returns why the worker is not ready; nothing if it is.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        let mut reasons = Vec::new();
        if !state.ready {
            reasons.push("not_started".to_owned());
        }
        let unconnected = state.sinks.iter().filter(|(_, connected)| !connected);
        reasons.extend(unconnected.map(|(sink, _)| format!("sink_{sink}_not_connected")));
        let failed = state.failed.iter();
        reasons
            .extend(failed.map(|(partition, why)| format!("partition_{partition}_failed: {why}")));
        let held = state.held.iter();
        reasons.extend(
            held.map(|(partition, why)| format!("partition_{partition}_dead_letter_held: {why}")),
        );
        reasons
    }
}

impl Observer for Health {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Polled => self.polled(),
            Event::SinkConnected { sink } => self.set_sink(sink, true),
            Event::PartitionFailed { partition, reason } => {
                self.lock().failed.insert((*partition).clone(), (*reason).to_owned());
            }
            Event::PartitionRecovered { partition } => {
                self.lock().failed.remove(*partition);
            }
            Event::DeadLetterFailed { partition, offset, error, dropped: false } => {
                let why = format!("offset {offset}: {error}");
                self.lock().held.insert((*partition).clone(), why);
            }
            Event::DeadLettered { partition, .. } => {
                self.lock().held.remove(*partition);
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
    use drakkar_api::{Offset, SinkError, SinkErrorKind};
    use drakkar_testkit::TokioClock;

    // Promise: DL-4, FT-1
    #[test]
    fn a_dead_letter_that_is_held_shows_until_one_is_written() {
        let health = Health::new(Arc::new(TokioClock::new()), Duration::from_secs(30));
        health.observe(&Event::Polled);
        assert_eq!(health.reasons(), Vec::<String>::new());
        let partition = PartitionId::new("in", 3);
        let error = SinkError::permanent(SinkErrorKind::NoTarget, "no such topic");
        let (offset, partition) = (Offset::new(7), &partition);
        let failed =
            |dropped| Event::DeadLetterFailed { partition, offset, error: &error, dropped };
        health.observe(&failed(true));
        assert_eq!(health.reasons(), Vec::<String>::new(), "it was dropped, as was asked");
        health.observe(&failed(false));
        let reasons = health.reasons();
        assert_eq!(reasons, ["partition_in:3_dead_letter_held: offset 7: no such topic"]);
        health.observe(&Event::DeadLettered {
            partition,
            offset,
            kind: "message",
            error_kind: "timeout",
            error: "too late",
        });
        assert_eq!(health.reasons(), Vec::<String>::new());
    }
}
