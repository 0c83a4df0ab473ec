//! Counts events.

use super::blocked::BlockedCalls;
use super::families::{self as names, Home};
use super::partitions::Partitions;
use drakkar_api::{
    Clock, Event, Execution, Hook, MessageEnd, Observer, PartitionId, Settlement, SinkId, Slots,
    SpawnErrorKind, TaskOutcome, Timestamp,
};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata};
use signal_hook::low_level::signal_name;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What is asked for when the page is made. Each answers at once.
pub(crate) struct Gauges {
    /// How busy the executor is.
    pub(crate) slots: Box<dyn Fn() -> Slots + Send + Sync>,
    /// How many messages and tasks are in the worker.
    pub(crate) load: Box<dyn Fn() -> usize + Send + Sync>,
    /// How far each partition that is ours is behind.
    pub(crate) lags: Box<dyn Fn() -> Vec<(PartitionId, u64)> + Send + Sync>,
    /// Whether Kafka answers.
    pub(crate) is_connected: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Who the worker is, for the info metric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// The worker's name.
    pub(crate) worker_id: String,
    /// The consumer group.
    pub(crate) consumer_group: String,
}

/// Turns events into metrics.
///
/// Handles of the recorder are made once; an event costs a few atomic operations, and for sinks and
/// partitions a look-up in a small map.
pub(crate) struct MetricsObserver {
    pub(super) identity: Identity,
    pub(super) gauges: Gauges,
    clock: Arc<dyn Clock>,
    pub(super) partitions: Partitions,
    pub(super) blocked: BlockedCalls,
    pub(super) idle: Mutex<Idle>,
    closed: AtomicBool,
    handles: Handles,
    sinks: RwLock<HashMap<SinkId, Arc<SinkHandles>>>,
    /// Consumed messages of partitions that are gone, so that idleness is told from a revoke.
    consumed: AtomicU64,
}

impl fmt::Debug for MetricsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsObserver").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Time in which something lay idle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Idle {
    pub(super) slot_seconds: f64,
    pub(super) consumer_seconds: f64,
    consumed_before: u64,
}

impl MetricsObserver {
    /// Makes an observer whose metrics go to the recorder that is installed now.
    pub(crate) fn new(identity: Identity, clock: Arc<dyn Clock>, gauges: Gauges) -> Self {
        Self {
            identity,
            gauges,
            clock,
            partitions: Partitions::default(),
            blocked: BlockedCalls::default(),
            idle: Mutex::default(),
            closed: AtomicBool::new(false),
            handles: Handles::new(),
            sinks: RwLock::default(),
            consumed: AtomicU64::new(0),
        }
    }

    /// Makes the series of a sink, so that they are there before its first delivery.
    pub(crate) fn register_sink(&self, sink: &SinkId) {
        self.sink(sink);
    }

    /// Adds up idle time; to be called about once a second with the time since the last call.
    pub(crate) fn tick(&self, elapsed: Duration) {
        let slots = (self.gauges.slots)();
        let queued = self.partitions.queued();
        let consumed = self.consumed.load(Relaxed);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if queued > 0 {
            let free = slots.total.saturating_sub(slots.active);
            #[expect(clippy::cast_precision_loss, reason = "slots are few")]
            let free = free as f64;
            idle.slot_seconds += free * elapsed.as_secs_f64();
        }
        let nothing_to_do = (self.gauges.load)() == 0 && slots.active == 0 && slots.waiting == 0;
        let nothing_came = consumed == idle.consumed_before;
        if nothing_to_do && nothing_came && !self.closed.load(Relaxed) {
            idle.consumer_seconds += elapsed.as_secs_f64();
        }
        idle.consumed_before = consumed;
    }

    fn sink(&self, id: &SinkId) -> Arc<SinkHandles> {
        let sinks = self.sinks.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = sinks.get(id) {
            return Arc::clone(handles);
        }
        drop(sinks);
        let mut sinks = self.sinks.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sinks.entry(id.clone()).or_insert_with(|| Arc::new(SinkHandles::new(id))))
    }

    fn observe_task_end(&self, execution: &Execution) {
        let handles = &self.handles;
        if execution.precomputed {
            handles.precomputed.increment(1);
        }
        handles.observe_process(execution);
        handles.observe_oddities(execution);
        let outcome = &execution.outcome;
        if let Some(counter) = handles.outcomes.get(outcome.as_str()) {
            counter.increment(1);
        }
        match outcome {
            TaskOutcome::Success => {
                handles.tasks_completed.increment(1);
                handles.task_duration.record(execution.duration);
            }
            TaskOutcome::Cancelled => {}
            failure => handles.observe_failure(failure, execution.duration),
        }
    }

    fn observe_delivery(&self, event: &Event<'_>) {
        match event {
            Event::Delivered { sink, payloads, duration } if *payloads > 0 => {
                let handles = self.sink(sink);
                handles.payloads.increment(*payloads as u64);
                handles.duration.record(*duration);
            }
            Event::DeliveryFailed { sink, .. } => self.sink(sink).errors.increment(1),
            Event::DeliveryRetried { sink, .. } => self.sink(sink).retries.increment(1),
            Event::DeliverySkipped { sink, .. } => self.sink(sink).skipped.increment(1),
            Event::DeadLettered { .. } => self.handles.dlq_messages.increment(1),
            Event::DeadLetterFailed { dropped, .. } => {
                self.handles.dlq_failures.increment(1);
                self.handles.dlq_dropped.increment(u64::from(*dropped));
            }
            _ => {}
        }
    }

    fn observe_partition(&self, event: &Event<'_>) {
        match event {
            Event::Assigned { partition } => self.partitions.begin(partition.partition()),
            Event::Revoked { partition, .. } | Event::Lost { partition } => {
                self.partitions.end(partition.partition());
            }
            Event::Consumed { partition, messages } => {
                let messages = *messages as u64;
                self.consumed.fetch_add(messages, Relaxed);
                self.partitions.update(partition.partition(), |series| {
                    series.consumed.fetch_add(messages, Relaxed);
                });
            }
            Event::Depth { partition, queued, uncommitted } => {
                self.partitions.update(partition.partition(), |series| {
                    series.queued.store(*queued as u64, Relaxed);
                    series.uncommitted.store(*uncommitted as u64, Relaxed);
                });
            }
            Event::Committed { partition, .. } => {
                self.partitions.update(partition.partition(), |series| {
                    series.committed.fetch_add(1, Relaxed);
                });
            }
            _ => {}
        }
    }
}

impl Observer for MetricsObserver {
    fn observe(&self, event: &Event<'_>) {
        let handles = &self.handles;
        match event {
            Event::Rebalance { kind, assigned, .. } => {
                if let Some(counter) = handles.rebalances.get(kind) {
                    counter.increment(1);
                }
                handles.assigned.set(count(*assigned));
            }
            Event::ParseFailed { .. } => handles.parse_failures.increment(1),
            Event::Tombstone { .. } => handles.tombstones.increment(1),
            Event::HookFinished { hook, duration } => {
                if let Some(histogram) = handles.hook_durations.get(hook.as_str()) {
                    histogram.record(*duration);
                }
            }
            Event::HookFailed { hook, panicked, .. } => {
                if let Some(counter) = handles.hook_failures.get(hook.as_str()) {
                    counter.increment(1);
                }
                if let Some(counter) = handles.hook_panics.get(hook.as_str()).filter(|_| *panicked)
                {
                    counter.increment(1);
                }
                if *hook == Hook::TaskPriority {
                    handles.priority_errors.increment(1);
                }
            }
            Event::TaskScheduled { .. } => handles.tasks_started.increment(1),
            Event::TaskStarted { queue_wait, .. } => handles.queue_wait.record(*queue_wait),
            Event::TaskFinished { execution, .. } => self.observe_task_end(execution),
            Event::TaskRetried { .. } => handles.retries.increment(1),
            Event::MessageFinished { end, written_at, duration, .. } => {
                if let Some(counter) = handles.messages_finished.get(end.as_str()) {
                    counter.increment(1);
                }
                handles.message_duration.record(*duration);
                if let Some(written_at) = written_at {
                    handles.message_e2e.record(elapsed(*written_at, self.clock.wall()));
                }
            }
            Event::MessageLeft { settlement, .. } => {
                if let Some(counter) = handles.messages_left.get(settlement.as_str()) {
                    counter.increment(1);
                }
            }
            Event::WindowFinished { tasks, duration, .. } if *tasks > 0 => {
                handles.batch_duration.record(*duration);
            }
            Event::CommitFailed { .. } => handles.commit_failures.increment(1),
            Event::Backpressure { active, .. } => {
                self.closed.store(*active, Relaxed);
                handles.backpressure.set(f64::from(u8::from(*active)));
            }
            Event::SourceTrouble { .. } => handles.consumer_errors.increment(1),
            Event::PartitionFailed { partition, .. } => {
                handles.partition_failures.increment(1);
                self.partitions.update(partition.partition(), |it| it.stalled.store(1, Relaxed));
            }
            Event::PartitionRecovered { partition } => {
                self.partitions.update(partition.partition(), |it| it.stalled.store(0, Relaxed));
            }
            Event::CallBlocked { call, .. } => self.blocked.begin(call),
            Event::CallWentOn { call } => self.blocked.end(call.number),
            Event::PeriodicRun { name, duration, error } => {
                let status = if error.is_some() { "error" } else { "ok" };
                counter(names::PERIODIC_RUNS, &[("name", name), ("status", status)]).increment(1);
                histogram(names::PERIODIC_DURATION, &[("name", name)]).record(*duration);
            }
            Event::Delivered { .. }
            | Event::DeliveryFailed { .. }
            | Event::DeliveryRetried { .. }
            | Event::DeliverySkipped { .. }
            | Event::DeadLettered { .. }
            | Event::DeadLetterFailed { .. } => self.observe_delivery(event),
            Event::Assigned { .. }
            | Event::Revoked { .. }
            | Event::Lost { .. }
            | Event::Consumed { .. }
            | Event::Depth { .. }
            | Event::Committed { .. } => self.observe_partition(event),
            _ => {}
        }
    }
}

/// Returns the time between two moments of the wall clocks of different machines, zero if they are
/// the wrong way round.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let millis = to.millis().saturating_sub(from.millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Handles by the value of their one label.
type ByLabel<H> = HashMap<&'static str, H>;

/// The handles of everything that exists once.
struct Handles {
    tasks_started: Counter,
    tasks_completed: Counter,
    tasks_failed: Counter,
    outcomes: ByLabel<Counter>,
    signals: ByLabel<Counter>,
    spawn_failures: ByLabel<Counter>,
    stdout_truncated: Counter,
    stderr_truncated: Counter,
    leftovers_killed: Counter,
    stdin_closed_early: Counter,
    task_duration: Histogram,
    failure_durations: ByLabel<Histogram>,
    queue_wait: Histogram,
    spawn_duration: Histogram,
    task_cpu: Histogram,
    task_peak_memory: Histogram,
    timeouts: Counter,
    retries: Counter,
    precomputed: Counter,
    priority_errors: Counter,
    batch_duration: Histogram,
    message_duration: Histogram,
    message_e2e: Histogram,
    messages_finished: ByLabel<Counter>,
    messages_left: ByLabel<Counter>,
    parse_failures: Counter,
    tombstones: Counter,
    backpressure: Gauge,
    assigned: Gauge,
    rebalances: ByLabel<Counter>,
    consumer_errors: Counter,
    commit_failures: Counter,
    partition_failures: Counter,
    hook_durations: ByLabel<Histogram>,
    hook_failures: ByLabel<Counter>,
    hook_panics: ByLabel<Counter>,
    dlq_messages: Counter,
    dlq_failures: Counter,
    dlq_dropped: Counter,
}

const HOOKS: [Hook; 12] = [
    Hook::Decode,
    Hook::MessageLabel,
    Hook::Arrange,
    Hook::TaskPriority,
    Hook::OnReady,
    Hook::OnTaskComplete,
    Hook::OnMessageComplete,
    Hook::OnWindowComplete,
    Hook::OnError,
    Hook::OnDeliveryError,
    Hook::OnAssign,
    Hook::OnRevoke,
];

/// They are called for each message or task, too often to be timed.
const UNTIMED_HOOKS: [Hook; 3] = [Hook::Decode, Hook::MessageLabel, Hook::TaskPriority];

const ENDS: [MessageEnd; 4] =
    [MessageEnd::Completed, MessageEnd::DeadLettered, MessageEnd::Skipped, MessageEnd::Dropped];

const OUTCOMES: [&str; 7] = [
    "success",
    "exit_code",
    "signal",
    "timeout",
    "spawn_failure",
    "output_over_limit",
    "cancelled",
];

/// The outcomes that are failures.
const FAILURES: [&str; 5] =
    ["exit_code", "signal", "timeout", "spawn_failure", "output_over_limit"];

/// The signals that have a series of their own.
const SIGNALS: [&str; 16] = [
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGKILL",
    "SIGPIPE",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGXCPU",
    "SIGXFSZ",
    OTHER_SIGNALS,
];
const OTHER_SIGNALS: &str = "other";

impl Handles {
    fn new() -> Self {
        let task = |status| counter(names::TASKS, &[("status", status)]);
        let truncated = |stream| counter(names::OUTPUT_TRUNCATED, &[("stream", stream)]);
        let hooks = HOOKS.map(Hook::as_str);
        let is_timed = |hook: &Hook| !UNTIMED_HOOKS.contains(hook);
        let timed: Vec<_> = HOOKS.into_iter().filter(is_timed).map(Hook::as_str).collect();
        Self {
            tasks_started: task("started"),
            tasks_completed: task("completed"),
            tasks_failed: task("failed"),
            outcomes: counters(names::TASK_OUTCOMES, "outcome", &OUTCOMES),
            signals: counters(names::TASK_SIGNALS, "signal", &SIGNALS),
            spawn_failures: counters(
                names::SPAWN_FAILURES,
                "kind",
                &SpawnErrorKind::ALL.map(SpawnErrorKind::as_str),
            ),
            stdout_truncated: truncated("stdout"),
            stderr_truncated: truncated("stderr"),
            leftovers_killed: counter(names::LEFTOVERS_KILLED, &[]),
            stdin_closed_early: counter(names::STDIN_CLOSED_EARLY, &[]),
            task_duration: histogram(names::TASK_DURATION, &[]),
            failure_durations: histograms(names::FAILURE_DURATION, "outcome", &FAILURES),
            queue_wait: histogram(names::QUEUE_WAIT, &[]),
            spawn_duration: histogram(names::SPAWN_DURATION, &[]),
            task_cpu: histogram(names::TASK_CPU, &[]),
            task_peak_memory: histogram(names::TASK_PEAK_MEMORY, &[]),
            timeouts: counter(names::TIMEOUTS, &[]),
            retries: counter(names::RETRIES, &[]),
            precomputed: counter(names::PRECOMPUTED, &[]),
            priority_errors: counter(names::PRIORITY_ERRORS, &[]),
            batch_duration: histogram(names::BATCH_DURATION, &[]),
            message_duration: histogram(names::MESSAGE_DURATION, &[]),
            message_e2e: histogram(names::MESSAGE_E2E, &[]),
            messages_finished: counters(
                names::MESSAGES_FINISHED,
                "end",
                &ENDS.map(MessageEnd::as_str),
            ),
            messages_left: counters(
                names::MESSAGES_LEFT,
                "how",
                &[Settlement::GivenBack, Settlement::Abandoned].map(Settlement::as_str),
            ),
            parse_failures: counter(names::PARSE_FAILURES, &[]),
            tombstones: counter(names::TOMBSTONES, &[]),
            backpressure: gauge(names::BACKPRESSURE),
            assigned: gauge(names::ASSIGNED),
            rebalances: counters(names::REBALANCES, "type", &["assign", "revoke", "lost"]),
            consumer_errors: counter(names::CONSUMER_ERRORS, &[]),
            commit_failures: counter(names::COMMIT_FAILURES, &[]),
            partition_failures: counter(names::PARTITION_FAILURES, &[]),
            hook_durations: histograms(names::HOOK_DURATION, "hook", &timed),
            hook_failures: counters(names::HOOK_FAILURES, "hook", &hooks),
            hook_panics: counters(names::HOOK_PANICS, "hook", &hooks),
            dlq_messages: counter(names::DLQ_MESSAGES, &[]),
            dlq_failures: counter(names::DLQ_FAILURES, &[]),
            dlq_dropped: counter(names::DLQ_DROPPED, &[]),
        }
    }

    /// Counts a failed attempt.
    fn observe_failure(&self, outcome: &TaskOutcome, duration: Duration) {
        self.tasks_failed.increment(1);
        if let Some(histogram) = self.failure_durations.get(outcome.as_str()) {
            histogram.record(duration);
        }
        let counter = match outcome {
            TaskOutcome::Timeout { .. } => Some(&self.timeouts),
            TaskOutcome::SpawnFailure { kind, .. } => self.spawn_failures.get(kind.as_str()),
            TaskOutcome::Signal(signal) => {
                let named = signal_name(*signal).and_then(|name| self.signals.get(name));
                named.or_else(|| self.signals.get(OTHER_SIGNALS))
            }
            _ => None,
        };
        if let Some(counter) = counter {
            counter.increment(1);
        }
    }

    /// Counts what the process of an attempt cost, if there was one, however it ended.
    fn observe_process(&self, execution: &Execution) {
        if execution.pid.is_some() {
            self.spawn_duration.record(execution.spawn);
        }
        let Some(usage) = &execution.usage else { return };
        self.task_cpu.record(usage.user + usage.system);
        if let Some(bytes) = usage.peak_memory_bytes {
            #[expect(clippy::cast_precision_loss, reason = "no memory has 2^53 bytes")]
            let bytes = bytes as f64;
            self.task_peak_memory.record(bytes);
        }
    }

    /// Counts what an attempt may have beside its outcome, a success too.
    fn observe_oddities(&self, execution: &Execution) {
        for (odd, counter) in [
            (execution.stdout.is_truncated(), &self.stdout_truncated),
            (execution.stderr.is_truncated(), &self.stderr_truncated),
            (execution.leftovers_killed, &self.leftovers_killed),
            (execution.stdin_closed_early, &self.stdin_closed_early),
        ] {
            if odd {
                counter.increment(1);
            }
        }
    }
}

/// The handles of one sink.
struct SinkHandles {
    duration: Histogram,
    errors: Counter,
    payloads: Counter,
    retries: Counter,
    skipped: Counter,
}

impl SinkHandles {
    fn new(id: &SinkId) -> Self {
        let labels = [("sink_type", id.kind().as_str()), ("sink_name", id.name())];
        Self {
            duration: histogram(names::SINK_DURATION, &labels),
            errors: counter(names::SINK_ERRORS, &labels),
            payloads: counter(names::SINK_PAYLOADS, &labels),
            retries: counter(names::SINK_RETRIES, &labels),
            skipped: counter(names::SINK_SKIPPED, &labels),
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new("drakkar", Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    debug_assert!(
        names::family_of(name).is_some_and(|family| {
            family.home == Home::Recorder
                && family.labels.iter().eq(labels.iter().map(|(key, _)| key))
        }),
        "{name} is not in the table like this"
    );
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

fn counter(name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
    metrics::with_recorder(|recorder| recorder.register_counter(&key(name, labels), &METADATA))
}

fn gauge(name: &'static str) -> Gauge {
    metrics::with_recorder(|recorder| recorder.register_gauge(&key(name, &[]), &METADATA))
}

fn histogram(name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
    metrics::with_recorder(|recorder| recorder.register_histogram(&key(name, labels), &METADATA))
}

fn histograms(
    name: &'static str,
    label: &'static str,
    values: &[&'static str],
) -> ByLabel<Histogram> {
    values.iter().map(|value| (*value, histogram(name, &[(label, value)]))).collect()
}

fn counters(name: &'static str, label: &'static str, values: &[&'static str]) -> ByLabel<Counter> {
    values.iter().map(|value| (*value, counter(name, &[(label, value)]))).collect()
}

/// Turns a count into a gauge's value.
#[expect(clippy::cast_precision_loss, reason = "counts of partitions and slots are small")]
pub(super) fn count(value: usize) -> f64 {
    value as f64
}
