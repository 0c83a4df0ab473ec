//! Backpressure over all partitions: closes the flow of messages when too much is in the worker,
//! and opens it again when enough of it is done. When it is bytes, no window is formed of what the
//! partitions have buffered already either.
//!
//! A pure state machine with two dimensions, a count and bytes. The count is queued messages plus
//! unsettled tasks plus messages in their final hooks and deliveries; the bytes are those of
//! messages, inputs of tasks, captured outputs and payloads that are held. The flow closes when
//! either reaches its `pause_at` and opens when both are at or below their `resume_at`.
//!
//! Windows stop when the bytes of what is in windows alone reach that `pause_at`: messages that wait
//! for one would else wait for themselves. A window whose `arrange` is under way is still taken, and
//! what is arranged goes on, so the bytes may exceed the mark by what open windows still put out.
//!
//! Messages that wait in a partition which has reached its own limits are left out of the count:
//! its buffer bounds them, and it must not stop the others. So are those of a partition whose
//! `arrange` takes longer than [`arrange_patience`](crate::EngineConfig::arrange_patience), together
//! with the window that is being arranged.

use drakkar_api::Flow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is in the worker, or in one partition of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Messages and tasks that backpressure counts.
    pub count: usize,
    /// All messages and tasks, also those that `count` leaves out.
    pub total: usize,
    /// Bytes.
    pub bytes: usize,
    /// Those of `bytes` that are not of messages which wait for a window.
    pub working_bytes: usize,
}

impl Load {
    /// Adds what somebody else contributes.
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.total += other.total;
        self.bytes += other.bytes;
        self.working_bytes += other.working_bytes;
    }
}

/// Two thresholds of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// At this load the flow closes; at least 1.
    pub pause_at: usize,
    /// At or below this load it opens again; below `pause_at`.
    pub resume_at: usize,
}

/// The gate of all partitions together.
#[derive(Debug)]
pub(crate) struct FlowGate {
    count: Thresholds,
    bytes: Thresholds,
    load: Load,
    flow: Flow,
    windows: Flow,
}

impl FlowGate {
    /// Starts open and empty.
    pub(crate) fn new(count: Thresholds, bytes: Thresholds) -> Self {
        Self { count, bytes, load: Load::default(), flow: Flow::Open, windows: Flow::Open }
    }

    /// Replaces what one partition contributed by what it contributes now, and answers the flow if
    /// that changed it.
    pub(crate) fn update(&mut self, before: Load, after: Load) -> Option<Flow> {
        debug_assert!(self.load.count >= before.count && self.load.bytes >= before.bytes);
        self.load.count = self.load.count.saturating_sub(before.count) + after.count;
        self.load.total = self.load.total.saturating_sub(before.total) + after.total;
        self.load.bytes = self.load.bytes.saturating_sub(before.bytes) + after.bytes;
        self.load.working_bytes =
            self.load.working_bytes.saturating_sub(before.working_bytes) + after.working_bytes;
        self.windows = match self.windows {
            Flow::Open if self.load.working_bytes >= self.bytes.pause_at => Flow::Closed,
            Flow::Closed if self.load.working_bytes <= self.bytes.resume_at => Flow::Open,
            unchanged => unchanged,
        };
        let next = self.next_flow();
        (next != self.flow).then(|| {
            self.flow = next;
            next
        })
    }

    fn next_flow(&self) -> Flow {
        let over = self.load.count >= self.count.pause_at || self.load.bytes >= self.bytes.pause_at;
        let under =
            self.load.count <= self.count.resume_at && self.load.bytes <= self.bytes.resume_at;
        match self.flow {
            Flow::Open if over => Flow::Closed,
            Flow::Closed if under => Flow::Open,
            unchanged => unchanged,
        }
    }

    /// Returns what is in the worker now.
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// Returns whether messages flow.
    pub(crate) fn flow(&self) -> Flow {
        self.flow
    }

    /// Returns whether buffered messages flow into windows.
    pub(crate) fn windows(&self) -> Flow {
        self.windows
    }
}

/// The gate, as all actors of an engine share it.
#[derive(Clone, Debug)]
pub(crate) struct SharedGate(Arc<Mutex<FlowGate>>);

impl SharedGate {
    pub(crate) fn new(gate: FlowGate) -> Self {
        Self(Arc::new(Mutex::new(gate)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, FlowGate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows the load of an engine. It keeps nothing else of the engine alive, so that an observer may
/// have it.
#[derive(Clone, Debug)]
pub struct LoadGauge(pub(crate) SharedGate);

impl LoadGauge {
    /// Returns what is in the worker now.
    pub fn load(&self) -> Load {
        self.0.lock().load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn gate() -> FlowGate {
        FlowGate::new(
            Thresholds { pause_at: 10, resume_at: 4 },
            Thresholds { pause_at: 1000, resume_at: 500 },
        )
    }

    fn load(count: usize, bytes: usize) -> Load {
        Load { count, total: count, bytes, working_bytes: 0 }
    }

    #[test]
    fn closes_at_the_high_mark_and_opens_at_the_low_one() {
        let mut gate = gate();
        assert_eq!(gate.update(load(0, 0), load(9, 0)), None);
        assert_eq!(gate.update(load(9, 0), load(10, 0)), Some(Flow::Closed));
        assert_eq!(gate.update(load(10, 0), load(5, 0)), None);
        assert_eq!(gate.update(load(5, 0), load(4, 0)), Some(Flow::Open));
    }

    #[test]
    fn bytes_close_it_too_and_both_must_be_low_to_open() {
        let mut gate = gate();
        assert_eq!(gate.update(load(0, 0), load(6, 1000)), Some(Flow::Closed));
        assert_eq!(gate.update(load(6, 1000), load(6, 0)), None);
        assert_eq!(gate.update(load(6, 0), load(4, 500)), Some(Flow::Open));
    }

    /// The marks by their definition: what every assignment keeps is added up anew.
    struct Model {
        kept: BTreeMap<u64, Load>,
        flow: Flow,
        windows: Flow,
    }

    impl Model {
        fn total(&self) -> Load {
            Load {
                count: self.kept.values().map(|load| load.count).sum(),
                total: self.kept.values().map(|load| load.total).sum(),
                bytes: self.kept.values().map(|load| load.bytes).sum(),
                working_bytes: self.kept.values().map(|load| load.working_bytes).sum(),
            }
        }

        /// Between the marks nothing changes.
        fn look(&mut self) {
            let total = self.total();
            if total.count >= 10 || total.bytes >= 1000 {
                self.flow = Flow::Closed;
            } else if total.count <= 4 && total.bytes <= 500 {
                self.flow = Flow::Open;
            }
            if total.working_bytes >= 1000 {
                self.windows = Flow::Closed;
            } else if total.working_bytes <= 500 {
                self.windows = Flow::Open;
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// An assignment keeps this much now.
        Keep { epoch: u64, count: usize, working: usize, waiting: usize },
        /// It is over, and what it kept is gone.
        End { epoch: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = || prop_oneof![Just(0), Just(500), 0_usize..1100];
        let keep = (0_u64..4, 0_usize..12, bytes(), bytes()).prop_map(
            |(epoch, count, working, waiting)| Step::Keep { epoch, count, working, waiting },
        );
        let step = prop_oneof![4 => keep, 3 => (0_u64..4).prop_map(|epoch| Step::End { epoch })];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        // Promise: FT-3
        #[test]
        fn agrees_with_the_definition(steps in steps()) {
            let mut gate = gate();
            let (flow, windows) = (Flow::Open, Flow::Open);
            let mut model = Model { kept: BTreeMap::new(), flow, windows };
            for step in steps {
                let (before, after) = match step {
                    Step::Keep { epoch, count, working, waiting } => {
                        let bytes = working + waiting;
                        let total = count + waiting;
                        let after = Load { count, total, bytes, working_bytes: working };
                        (model.kept.insert(epoch, after).unwrap_or_default(), after)
                    }
                    Step::End { epoch } => {
                        (model.kept.remove(&epoch).unwrap_or_default(), Load::default())
                    }
                };
                let flow_before = model.flow;
                model.look();
                let news = (model.flow != flow_before).then_some(model.flow);
                prop_assert_eq!(gate.update(before, after), news);
                prop_assert_eq!((gate.flow(), gate.windows()), (model.flow, model.windows));
                prop_assert_eq!(gate.load(), model.total());
                prop_assert!(gate.windows() == Flow::Open || gate.flow() == Flow::Closed);
            }
        }
    }
}
