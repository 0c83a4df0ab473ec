//! Backpressure over all partitions: closes the flow of messages when too much is in the worker,
//! and opens it again when enough of it is done. It also says what windows may be formed of what the
//! partitions have buffered already.
//!
//! A pure state machine with three dimensions: a count, bytes, and undelivered payloads. The count is queued messages plus
//! unsettled tasks plus messages in their final hooks and deliveries; the bytes are those of
//! messages, inputs of tasks, captured outputs and payloads that are held. The flow closes when
//! any of them reaches its `pause_at` and opens when all are at or below their `resume_at`.
//!
//! What waits for something else than a slot, such as a retry in an hour, a hook that hangs or a dead
//! letter that nobody takes, must not leave the slots idle for ever. So each dimension opens the flow
//! half way between its marks already, when no more of the count than its `resume_at` is queued,
//! arranged or with the executor.
//!
//! Windows depend on what is in windows alone: messages that wait for one would else wait for
//! themselves. When its count reaches `pause_at`, a partition forms a window only if it has none, so
//! that each goes on, however much another made of its messages. That holds until the count is half
//! way between `pause_at` and `resume_at`: the pool must not run dry. When its bytes or the payloads
//! reach theirs, no window is formed until they are at or below `resume_at`; or half way, when no more
//! of the count than its `resume_at` is arranged or with the executor.
//!
//! Outputs come late: a thousand tasks weigh nothing until they end. So bytes that tasks are likely to
//! put out hold windows back as soon as they and what is there reach the mark; then a partition that has
//! none forms one of a single message.
//!
//! A window whose `arrange` is under way is still taken, and what is arranged goes on. So the count
//! may exceed the mark by one window of each partition, and the bytes by what open windows still put
//! out.
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
    /// Those of `count` that are not messages which wait for a window.
    pub working_count: usize,
    /// Those of `count` that `arrange` or a slot attends to, or will: the others wait for something
    /// else.
    pub active: usize,
    /// All messages and tasks, also those that `count` leaves out.
    pub total: usize,
    /// Bytes.
    pub bytes: usize,
    /// Those of `bytes` that are not of messages which wait for a window.
    pub working_bytes: usize,
    /// Payloads that are not settled.
    pub payloads: usize,
    /// Bytes that tasks which have not ended are likely to put out.
    pub expected_bytes: usize,
}

/// What windows a partition may form of what it has buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    /// None.
    Nothing,
    /// One of a single message, if it has none.
    Single,
    /// One, if it has none.
    First,
    /// As many as its own limits permit.
    Any,
}

impl Load {
    /// Adds what somebody else contributes.
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.working_count += other.working_count;
        self.active += other.active;
        self.total += other.total;
        self.bytes += other.bytes;
        self.working_bytes += other.working_bytes;
        self.payloads += other.payloads;
        self.expected_bytes += other.expected_bytes;
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

impl Thresholds {
    /// Returns whether what was open or closed is closed at this load.
    fn closes(self, load: usize, was_closed: bool) -> bool {
        if was_closed { load > self.resume_at } else { load >= self.pause_at }
    }

    /// Returns the thresholds that hold when the slots would lie idle: half way open already.
    fn when_idle(self, is_idle: bool) -> Self {
        let half_way = self.pause_at - (self.pause_at - self.resume_at).div_ceil(2);
        Self { resume_at: if is_idle { half_way } else { self.resume_at }, ..self }
    }
}

/// The gate of all partitions together.
#[derive(Debug)]
pub(crate) struct FlowGate {
    count: Thresholds,
    bytes: Thresholds,
    payloads: Thresholds,
    load: Load,
    flow: Flow,
    /// When windows are crowded, and when no more.
    crowd: Thresholds,
    /// Whether what is in windows is too many.
    is_crowded: bool,
    /// Whether what is in windows is too large, or has put out too many payloads.
    is_heavy: bool,
    is_clogged: bool,
    /// Whether it is likely to become too large.
    will_be_heavy: bool,
}

impl FlowGate {
    /// Starts open and empty.
    pub(crate) fn new(count: Thresholds, bytes: Thresholds, payloads: Thresholds) -> Self {
        Self {
            count,
            bytes,
            payloads,
            load: Load::default(),
            flow: Flow::Open,
            crowd: count.when_idle(true),
            is_crowded: false,
            is_heavy: false,
            is_clogged: false,
            will_be_heavy: false,
        }
    }

    /// Replaces what one partition contributed by what it contributes now, and answers the flow if
    /// that changed it.
    pub(crate) fn update(&mut self, before: Load, after: Load) -> Option<Flow> {
        debug_assert!(self.load.count >= before.count && self.load.bytes >= before.bytes);
        let replace = |sum: &mut usize, part: fn(Load) -> usize| {
            *sum = sum.saturating_sub(part(before)) + part(after);
        };
        replace(&mut self.load.count, |load| load.count);
        replace(&mut self.load.working_count, |load| load.working_count);
        replace(&mut self.load.active, |load| load.active);
        replace(&mut self.load.total, |load| load.total);
        replace(&mut self.load.bytes, |load| load.bytes);
        replace(&mut self.load.working_bytes, |load| load.working_bytes);
        if !cfg!(drakkar_fault = "payloads_unbounded") {
            replace(&mut self.load.payloads, |load| load.payloads);
        }
        replace(&mut self.load.expected_bytes, |load| load.expected_bytes);
        self.is_crowded = self.crowd.closes(self.load.working_count, self.is_crowded);
        // What waits for a window would wait for itself.
        let waiting = self.load.count - self.load.working_count;
        let is_idle = self.load.active.saturating_sub(waiting) <= self.count.resume_at;
        let (bytes, payloads) = (self.bytes.when_idle(is_idle), self.payloads.when_idle(is_idle));
        self.is_heavy = bytes.closes(self.load.working_bytes, self.is_heavy);
        self.is_clogged = payloads.closes(self.load.payloads, self.is_clogged);
        let in_the_end = self.load.working_bytes.saturating_add(self.load.expected_bytes);
        self.will_be_heavy = bytes.closes(in_the_end, self.will_be_heavy);
        let next = self.next_flow();
        (next != self.flow).then(|| {
            self.flow = next;
            next
        })
    }

    fn next_flow(&self) -> Flow {
        let is_closed = self.flow == Flow::Closed;
        let is_idle = self.load.active <= self.count.resume_at;
        let closes = |marks: Thresholds, load| marks.when_idle(is_idle).closes(load, is_closed);
        let closes = closes(self.count, self.load.count)
            || closes(self.bytes, self.load.bytes)
            || closes(self.payloads, self.load.payloads);
        if closes { Flow::Closed } else { Flow::Open }
    }

    /// Returns what is in the worker now.
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// Returns whether messages flow.
    pub(crate) fn flow(&self) -> Flow {
        self.flow
    }

    /// Returns what windows may be formed.
    pub(crate) fn admission(&self) -> Admission {
        match () {
            () if self.is_heavy || self.is_clogged => Admission::Nothing,
            () if self.will_be_heavy && !cfg!(drakkar_fault = "forecast_ignored") => {
                Admission::Single
            }
            () if self.is_crowded => Admission::First,
            () => Admission::Any,
        }
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
            Thresholds { pause_at: 30, resume_at: 15 },
        )
    }

    fn load(count: usize, bytes: usize) -> Load {
        Load { count, active: count, total: count, bytes, ..Load::default() }
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

    #[test]
    fn windows_are_crowded_by_count_until_half_way_and_stop_for_bytes_and_payloads() {
        let mut gate = gate();
        let mut before = Load::default();
        let mut check = |active, count, bytes, payloads, expect| {
            let after = Load {
                count,
                working_count: count,
                active,
                total: count,
                bytes,
                working_bytes: bytes,
                payloads,
                ..Load::default()
            };
            gate.update(before, after);
            before = after;
            assert_eq!(gate.admission(), expect, "{after:?}");
            let is_open = gate.flow() == Flow::Open;
            assert!(!is_open || expect == Admission::Any, "{after:?}");
        };
        check(5, 9, 999, 29, Admission::Any);
        check(5, 10, 0, 0, Admission::First);
        check(5, 8, 0, 0, Admission::First);
        check(5, 7, 0, 0, Admission::Any);
        check(5, 10, 1000, 0, Admission::Nothing);
        check(5, 10, 500, 0, Admission::First);
        check(5, 0, 501, 0, Admission::Any);
        check(5, 0, 0, 30, Admission::Nothing);
        check(5, 0, 0, 16, Admission::Nothing);
        check(5, 0, 0, 15, Admission::Any);
        // When slots would lie idle, they do half way.
        check(5, 0, 1000, 30, Admission::Nothing);
        check(4, 0, 751, 23, Admission::Nothing);
        check(4, 0, 750, 23, Admission::Nothing);
        check(5, 0, 750, 22, Admission::Nothing);
        check(4, 0, 750, 22, Admission::Any);
    }

    /// The marks by their definition: what every assignment keeps is added up anew.
    struct Model {
        kept: BTreeMap<u64, Load>,
        flow: Flow,
        is_crowded: bool,
        is_heavy: bool,
        will_be_heavy: bool,
        is_clogged: bool,
    }

    impl Model {
        fn total(&self) -> Load {
            let sum = |part: fn(&Load) -> usize| self.kept.values().map(part).sum();
            Load {
                count: sum(|load| load.count),
                working_count: sum(|load| load.working_count),
                active: sum(|load| load.active),
                total: sum(|load| load.total),
                bytes: sum(|load| load.bytes),
                working_bytes: sum(|load| load.working_bytes),
                payloads: sum(|load| load.payloads),
                expected_bytes: sum(|load| load.expected_bytes),
            }
        }

        /// Between the marks nothing changes.
        fn look(&mut self) {
            let total = self.total();
            let mark = |state: &mut bool, load: usize, pause_at: usize, resume_at: usize| {
                if load >= pause_at {
                    *state = true;
                } else if load <= resume_at {
                    *state = false;
                }
            };
            // Low marks of count, bytes and payloads: while slots have work, and when they would lie idle.
            let low = |active: usize| if active <= 4 { (7, 750, 22) } else { (4, 500, 15) };
            let (count, bytes, payloads) = low(total.active);
            if total.count >= 10 || total.bytes >= 1000 || total.payloads >= 30 {
                self.flow = Flow::Closed;
            } else if total.count <= count && total.bytes <= bytes && total.payloads <= payloads {
                self.flow = Flow::Open;
            }
            let (_, bytes, payloads) = low(total.active - (total.count - total.working_count));
            mark(&mut self.is_crowded, total.working_count, 10, 7);
            mark(&mut self.is_heavy, total.working_bytes, 1000, bytes);
            mark(&mut self.is_clogged, total.payloads, 30, payloads);
            let in_the_end = total.working_bytes + total.expected_bytes;
            mark(&mut self.will_be_heavy, in_the_end, 1000, bytes);
        }

        fn admission(&self) -> Admission {
            if self.is_heavy || self.is_clogged {
                Admission::Nothing
            } else if self.will_be_heavy {
                Admission::Single
            } else if self.is_crowded {
                Admission::First
            } else {
                Admission::Any
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// An assignment keeps this much now.
        Keep { epoch: u64, load: Load },
        /// It is over, and what it kept is gone.
        End { epoch: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = || prop_oneof![Just(0), Just(500), 0_usize..1100];
        let counts = (0_usize..12, 0_usize..6, 0_usize..6, 0_usize..20, 0_usize..=100);
        let keep = (0_u64..4, counts, bytes(), bytes(), bytes()).prop_map(
            |(epoch, counts, working, waiting, expected)| {
                let (working_count, queued, left_out, payloads, percent) = counts;
                let count = working_count + queued;
                let load = Load {
                    count,
                    working_count,
                    active: queued + working_count * percent / 100,
                    total: count + left_out,
                    bytes: working + waiting,
                    working_bytes: working,
                    payloads,
                    expected_bytes: expected,
                };
                Step::Keep { epoch, load }
            },
        );
        let step = prop_oneof![4 => keep, 3 => (0_u64..4).prop_map(|epoch| Step::End { epoch })];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        // Promise: FT-3
        #[test]
        fn agrees_with_the_definition(steps in steps()) {
            let mut gate = gate();
            let mut model = Model {
                kept: BTreeMap::new(),
                flow: Flow::Open,
                is_crowded: false,
                is_heavy: false,
                will_be_heavy: false,
                is_clogged: false,
            };
            for step in steps {
                let (before, after) = match step {
                    Step::Keep { epoch, load } => {
                        (model.kept.insert(epoch, load).unwrap_or_default(), load)
                    }
                    Step::End { epoch } => {
                        (model.kept.remove(&epoch).unwrap_or_default(), Load::default())
                    }
                };
                let flow_before = model.flow;
                model.look();
                let news = (model.flow != flow_before).then_some(model.flow);
                prop_assert_eq!(gate.update(before, after), news);
                prop_assert_eq!((gate.flow(), gate.admission()), (model.flow, model.admission()));
                prop_assert_eq!(gate.load(), model.total());
                let is_held_back = model.is_crowded || model.is_heavy || model.is_clogged;
                prop_assert!(!is_held_back || gate.flow() == Flow::Closed);
            }
        }
    }
}
