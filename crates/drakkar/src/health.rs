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
            Event::Assigned { partition }
            | Event::PartitionRecovered { partition }
            | Event::Revoked { partition, .. }
            | Event::Lost { partition } => {
                self.lock().failed.remove(*partition);
            }
            _ => {}
        }
    }
}
