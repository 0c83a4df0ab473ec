//! The table of all metrics: the recorder's set-up, the page and the reference derive from it.

/// One metric with all its series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: FamilyKind,
    /// The names of its labels.
    pub(super) labels: &'static [&'static str],
    /// When it changes.
    pub(super) about: &'static str,
    pub(super) home: Home,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl FamilyKind {
    /// Returns the word of the exposition format.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Who holds the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// The global recorder of the `metrics` crate.
    Recorder,
    /// The observer, because series have to go (the recorder cannot remove one), or because the
    /// value is asked for when the page is made.
    Page,
}

use FamilyKind::{Counter, Gauge, Histogram};
use Home::{Page, Recorder};

/// The original's buckets, with finer ones below 0.1 s: typical tasks take 10 ms.
const TASK_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];
const BATCH_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0,
];
/// A message may have waited long before a worker saw it.
const E2E_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0, 3600.0, 21600.0,
];
const HOOK_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
const SINK_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// From 16 MiB to 64 GiB: less is seldom known, see `executor.measure_peak_memory`.
const MEMORY_BUCKETS: &[f64] = &[
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
    2_147_483_648.0,
    4_294_967_296.0,
    8_589_934_592.0,
    17_179_869_184.0,
    34_359_738_368.0,
    68_719_476_736.0,
];
const PERIODIC_BUCKETS: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

/// The buckets of histograms of the user's own.
pub(super) const USER_BUCKETS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

const SINK: &[&str] = &["sink_type", "sink_name"];

const fn family(
    name: &'static str,
    kind: FamilyKind,
    labels: &'static [&'static str],
    home: Home,
    about: &'static str,
) -> Family {
    Family { name, kind, labels, about, home }
}

pub(super) const WORKER_INFO: &str = "drakkar_worker_info";
pub(super) const BUILD_INFO: &str = "drakkar_build_info";
pub(super) const CONSUMED: &str = "drakkar_messages_consumed_total";
pub(super) const COMMITTED: &str = "drakkar_offsets_committed_total";
pub(super) const QUEUE_SIZE: &str = "drakkar_partition_queue_size";
pub(super) const OFFSET_LAG: &str = "drakkar_offset_lag";
pub(super) const STALLED: &str = "drakkar_partition_stalled";
pub(super) const BLOCKED_CALLS: &str = "drakkar_blocked_calls";
pub(super) const CONSUMER_LAG: &str = "drakkar_consumer_lag";
pub(super) const KAFKA_CONNECTED: &str = "drakkar_kafka_connected";
pub(super) const TOTAL_QUEUED: &str = "drakkar_total_queued";
pub(super) const POOL_ACTIVE: &str = "drakkar_executor_pool_active";
pub(super) const POOL_WAITING: &str = "drakkar_executor_pool_waiting";
pub(super) const POOL_SIZE: &str = "drakkar_executor_pool_size";
pub(super) const IDLE_SLOT_SECONDS: &str = "drakkar_executor_idle_slot_seconds_total";
pub(super) const CONSUMER_IDLE_SECONDS: &str = "drakkar_consumer_idle_seconds_total";
pub(super) const LOG_LINES_DROPPED: &str = "drakkar_log_lines_dropped_total";
pub(super) const TASKS: &str = "drakkar_executor_tasks_total";
pub(super) const TASK_OUTCOMES: &str = "drakkar_task_outcomes_total";
pub(super) const TASK_SIGNALS: &str = "drakkar_task_signals_total";
pub(super) const SPAWN_FAILURES: &str = "drakkar_task_spawn_failures_total";
pub(super) const OUTPUT_TRUNCATED: &str = "drakkar_task_output_truncated_total";
pub(super) const LEFTOVERS_KILLED: &str = "drakkar_task_leftovers_killed_total";
pub(super) const STDIN_CLOSED_EARLY: &str = "drakkar_task_stdin_closed_early_total";
pub(super) const TASK_DURATION: &str = "drakkar_executor_duration_seconds";
pub(super) const FAILURE_DURATION: &str = "drakkar_executor_failure_duration_seconds";
pub(super) const QUEUE_WAIT: &str = "drakkar_executor_queue_wait_seconds";
pub(super) const SPAWN_DURATION: &str = "drakkar_executor_spawn_seconds";
pub(super) const TASK_CPU: &str = "drakkar_task_cpu_seconds";
pub(super) const TASK_PEAK_MEMORY: &str = "drakkar_task_peak_memory_bytes";
pub(super) const TIMEOUTS: &str = "drakkar_executor_timeouts_total";
pub(super) const RETRIES: &str = "drakkar_task_retries_total";
pub(super) const PRECOMPUTED: &str = "drakkar_tasks_precomputed_total";
pub(super) const PRIORITY_ERRORS: &str = "drakkar_executor_priority_fn_errors_total";
pub(super) const BATCH_DURATION: &str = "drakkar_batch_duration_seconds";
pub(super) const MESSAGE_DURATION: &str = "drakkar_message_duration_seconds";
pub(super) const MESSAGE_E2E: &str = "drakkar_message_e2e_seconds";
pub(super) const MESSAGES_FINISHED: &str = "drakkar_messages_finished_total";
pub(super) const MESSAGES_LEFT: &str = "drakkar_messages_left_total";
pub(super) const PARSE_FAILURES: &str = "drakkar_parse_failures_total";
pub(super) const TOMBSTONES: &str = "drakkar_tombstones_total";
pub(super) const BACKPRESSURE: &str = "drakkar_backpressure_active";
pub(super) const ASSIGNED: &str = "drakkar_assigned_partitions";
pub(super) const REBALANCES: &str = "drakkar_rebalance_events_total";
pub(super) const CONSUMER_ERRORS: &str = "drakkar_consumer_errors_total";
pub(super) const COMMIT_FAILURES: &str = "drakkar_commit_failures_total";
pub(super) const PARTITION_FAILURES: &str = "drakkar_partition_failures_total";
pub(super) const HOOK_DURATION: &str = "drakkar_handler_duration_seconds";
pub(super) const HOOK_FAILURES: &str = "drakkar_hook_failures_total";
pub(super) const HOOK_PANICS: &str = "drakkar_hook_panics_total";
pub(super) const SINK_DURATION: &str = "drakkar_sink_deliver_duration_seconds";
pub(super) const SINK_ERRORS: &str = "drakkar_sink_deliver_errors_total";
pub(super) const SINK_PAYLOADS: &str = "drakkar_sink_payloads_delivered_total";
pub(super) const SINK_RETRIES: &str = "drakkar_sink_delivery_retries_total";
pub(super) const SINK_SKIPPED: &str = "drakkar_sink_deliveries_skipped_total";
pub(super) const DLQ_MESSAGES: &str = "drakkar_sink_dlq_messages_total";
pub(super) const DLQ_FAILURES: &str = "drakkar_dlq_send_failures_total";
pub(super) const DLQ_DROPPED: &str = "drakkar_dlq_dropped_total";
pub(super) const PERIODIC_RUNS: &str = "drakkar_periodic_task_runs_total";
pub(super) const PERIODIC_DURATION: &str = "drakkar_periodic_task_duration_seconds";
pub(super) const PROCESS_CPU_SECONDS: &str = "process_cpu_seconds_total";
pub(super) const PROCESS_RESIDENT_BYTES: &str = "process_resident_memory_bytes";
pub(super) const PROCESS_VIRTUAL_BYTES: &str = "process_virtual_memory_bytes";
pub(super) const PROCESS_OPEN_FDS: &str = "process_open_fds";
pub(super) const PROCESS_MAX_FDS: &str = "process_max_fds";
pub(super) const PROCESS_START_TIME: &str = "process_start_time_seconds";

/// All metrics of this build, in the order of the reference page.
pub(super) const FAMILIES: &[Family] = &[
    family(
        WORKER_INFO,
        Gauge,
        &["worker_id", "version", "consumer_group"],
        Page,
        "Always 1; the labels say who this is.",
    ),
    family(BUILD_INFO, Gauge, &["version"], Page, "Always 1; the label names the build."),
    family(
        CONSUMED,
        Counter,
        &["partition"],
        Page,
        "Messages taken from the source. Goes when the partition goes.",
    ),
    family(
        QUEUE_SIZE,
        Gauge,
        &["partition"],
        Page,
        "Messages that wait for a window. Goes when the partition goes.",
    ),
    family(
        OFFSET_LAG,
        Gauge,
        &["partition"],
        Page,
        "Messages in windows that are not finished. Goes when the partition goes.",
    ),
    family(
        STALLED,
        Gauge,
        &["partition"],
        Page,
        "1 while the partition is stalled or has failed; the log names what it waits for.",
    ),
    family(
        BLOCKED_CALLS,
        Gauge,
        &["call", "partition"],
        Page,
        "Calls that block their thread: `on_ready`, `on_assign` and `on_revoke`, these two by partition, \
         and periodic tasks by their names. Only while there are some.",
    ),
    family(
        CONSUMER_LAG,
        Gauge,
        &["partition"],
        Page,
        "Messages from the committed offset to the partition's end, of which the brokers are asked \
         every 5 s. Begins with their first answer, goes when the partition goes.",
    ),
    family(
        KAFKA_CONNECTED,
        Gauge,
        &[],
        Page,
        "1 while a broker answers the source, else 0; they are asked every 5 s and have 3 s to answer.",
    ),
    family(
        COMMITTED,
        Counter,
        &["partition"],
        Page,
        "Confirmed commits. Goes when the partition goes.",
    ),
    family(COMMIT_FAILURES, Counter, &[], Recorder, "Failed commits."),
    family(
        PARSE_FAILURES,
        Counter,
        &[],
        Recorder,
        "Values that could not be decoded, once for each attempt.",
    ),
    family(TOMBSTONES, Counter, &[], Recorder, "Messages without a value, which are no failure."),
    family(
        MESSAGES_FINISHED,
        Counter,
        &["end"],
        Recorder,
        "Settled messages: `completed`, `dead_lettered`, `skipped` or `dropped` (data lost).",
    ),
    family(
        MESSAGES_LEFT,
        Counter,
        &["how"],
        Recorder,
        "Messages that left unfinished when their partition went, for its next owner: `given_back` \
         (not started) or `abandoned` (killed at the deadline of a revoke, or the partition was lost).",
    ),
    family(
        MESSAGE_DURATION,
        Histogram(BATCH_BUCKETS),
        &[],
        Recorder,
        "From the forming of a message's window to the message's end.",
    ),
    family(
        MESSAGE_E2E,
        Histogram(E2E_BUCKETS),
        &[],
        Recorder,
        "From a message's timestamp in Kafka to the message's end, by the clocks of both; 0 if they \
         disagree. Messages without a timestamp are left out.",
    ),
    family(
        BATCH_DURATION,
        Histogram(BATCH_BUCKETS),
        &[],
        Recorder,
        "From the forming of a window to its end; windows without tasks are left out.",
    ),
    family(
        TASKS,
        Counter,
        &["status"],
        Recorder,
        "Attempts of tasks: `started` when scheduled, before there is a slot; then `completed` or \
         `failed`, unless withdrawn. Precomputed results count like programs.",
    ),
    family(
        TASK_OUTCOMES,
        Counter,
        &["outcome"],
        Recorder,
        "Ended attempts: `success`, `exit_code`, `signal`, `timeout`, `spawn_failure`, \
         `output_over_limit` or `cancelled`.",
    ),
    family(
        TASK_SIGNALS,
        Counter,
        &["signal"],
        Recorder,
        "Attempts whose program was killed by a signal that the worker did not send: `SIGKILL` (want of \
         memory, often), `SIGSEGV` and others by name; `other` is the rest.",
    ),
    family(
        SPAWN_FAILURES,
        Counter,
        &["kind"],
        Recorder,
        "Attempts whose program never ran: `no_binary`, `not_found`, `permission_denied`, \
         `invalid_argument` or `system`.",
    ),
    family(
        OUTPUT_TRUNCATED,
        Counter,
        &["stream"],
        Recorder,
        "Attempts that wrote more to `stdout` or `stderr` than is kept of it; they may succeed.",
    ),
    family(
        LEFTOVERS_KILLED,
        Counter,
        &[],
        Recorder,
        "Attempts whose program ended and left others of its group behind, which were killed.",
    ),
    family(
        STDIN_CLOSED_EARLY,
        Counter,
        &[],
        Recorder,
        "Attempts whose program closed its standard input, or ended, before all was written to it.",
    ),
    family(
        TASK_DURATION,
        Histogram(TASK_BUCKETS),
        &[],
        Recorder,
        "How long successful attempts took; precomputed results count with the time they state.",
    ),
    family(
        FAILURE_DURATION,
        Histogram(TASK_BUCKETS),
        &["outcome"],
        Recorder,
        "How long failed attempts took; withdrawn ones are left out.",
    ),
    family(
        QUEUE_WAIT,
        Histogram(TASK_BUCKETS),
        &[],
        Recorder,
        "How long attempts waited for a slot.",
    ),
    family(
        SPAWN_DURATION,
        Histogram(TASK_BUCKETS),
        &[],
        Recorder,
        "How long it took to start the programs of attempts: until the program was loaded, or what \
         `executor.wrap` or `executor.limits` puts before it.",
    ),
    family(
        TASK_CPU,
        Histogram(TASK_BUCKETS),
        &[],
        Recorder,
        "CPU time of attempts, in user code and in the kernel: of the program and of the children that \
         it waited for.",
    ),
    family(
        TASK_PEAK_MEMORY,
        Histogram(MEMORY_BUCKETS),
        &[],
        Recorder,
        "Peak memory of attempts, of the program or the largest child that it waited for, in bytes. \
         Only where it is known: see `executor.measure_peak_memory`.",
    ),
    family(TIMEOUTS, Counter, &[], Recorder, "Attempts that ended at their deadline."),
    family(RETRIES, Counter, &[], Recorder, "Failed attempts that are followed by another."),
    family(PRECOMPUTED, Counter, &[], Recorder, "Precomputed results taken."),
    family(PRIORITY_ERRORS, Counter, &[], Recorder, "Failures of `task_priority`."),
    family(POOL_ACTIVE, Gauge, &[], Page, "Slots that are taken."),
    family(POOL_WAITING, Gauge, &[], Page, "Attempts that wait for a slot."),
    family(POOL_SIZE, Gauge, &[], Page, "Slots in all."),
    family(
        IDLE_SLOT_SECONDS,
        Counter,
        &[],
        Page,
        "Free slots times seconds while messages waited; looked at once a second.",
    ),
    family(
        CONSUMER_IDLE_SECONDS,
        Counter,
        &[],
        Page,
        "Seconds in which nothing came, nothing was in the worker and backpressure was off; looked at once \
         a second.",
    ),
    family(
        TOTAL_QUEUED,
        Gauge,
        &[],
        Page,
        "Messages and tasks in the worker: messages that wait for a window, are being arranged, or are in \
         their last hooks and deliveries, and tasks that are not settled. Backpressure counts them, but for \
         those of partitions that have reached their own limits.",
    ),
    family(
        BACKPRESSURE,
        Gauge,
        &[],
        Recorder,
        "1 while no partition is polled because too much is in the worker, else 0.",
    ),
    family(ASSIGNED, Gauge, &[], Recorder, "Partitions that are assigned."),
    family(
        REBALANCES,
        Counter,
        &["type"],
        Recorder,
        "Rebalance callbacks: `assign`, `revoke` or `lost`.",
    ),
    family(
        CONSUMER_ERRORS,
        Counter,
        &[],
        Recorder,
        "Troubles of the source that it recovers from.",
    ),
    family(
        PARTITION_FAILURES,
        Counter,
        &[],
        Recorder,
        "Partitions that could not go on by themselves.",
    ),
    family(
        HOOK_DURATION,
        Histogram(HOOK_BUCKETS),
        &["hook"],
        Recorder,
        "How long hooks took; `decode`, `message_label` and `task_priority` are not timed.",
    ),
    family(HOOK_FAILURES, Counter, &["hook"], Recorder, "Errors and panics of hooks."),
    family(
        HOOK_PANICS,
        Counter,
        &["hook"],
        Recorder,
        "Panics of hooks, which are among the failures.",
    ),
    family(
        SINK_DURATION,
        Histogram(SINK_BUCKETS),
        SINK,
        Recorder,
        "How long successful deliveries took.",
    ),
    family(SINK_ERRORS, Counter, SINK, Recorder, "Failed attempts to deliver a batch."),
    family(SINK_PAYLOADS, Counter, SINK, Recorder, "Payloads that the sink confirmed."),
    family(SINK_RETRIES, Counter, SINK, Recorder, "Deliveries that are followed by another."),
    family(SINK_SKIPPED, Counter, SINK, Recorder, "Deliveries that the handler gave up."),
    family(DLQ_MESSAGES, Counter, &[], Recorder, "Confirmed dead letters."),
    family(DLQ_FAILURES, Counter, &[], Recorder, "Dead letters that could not be written."),
    family(
        DLQ_DROPPED,
        Counter,
        &[],
        Recorder,
        "Dead letters given up, as `dlq.on_send_failure: drop` asks: data lost.",
    ),
    family(
        PERIODIC_RUNS,
        Counter,
        &["name", "status"],
        Recorder,
        "Ended runs of periodic tasks: `ok` or `error`.",
    ),
    family(
        PERIODIC_DURATION,
        Histogram(PERIODIC_BUCKETS),
        &["name"],
        Recorder,
        "How long runs of periodic tasks took.",
    ),
    family(
        LOG_LINES_DROPPED,
        Counter,
        &[],
        Page,
        "Log lines lost because the writer could not keep up or failed.",
    ),
    family(
        PROCESS_CPU_SECONDS,
        Counter,
        &[],
        Page,
        "CPU time of the worker itself, in user code and in the kernel; programs that it runs have \
         their own.",
    ),
    family(
        PROCESS_RESIDENT_BYTES,
        Gauge,
        &[],
        Page,
        "Memory of the worker itself that is in RAM, in bytes.",
    ),
    family(PROCESS_VIRTUAL_BYTES, Gauge, &[], Page, "Address space of the worker, in bytes."),
    family(PROCESS_OPEN_FDS, Gauge, &[], Page, "File descriptors that are open."),
    family(PROCESS_MAX_FDS, Gauge, &[], Page, "File descriptors that may be open."),
    family(
        PROCESS_START_TIME,
        Gauge,
        &[],
        Page,
        "When the worker started, in seconds since 1970-01-01T00:00:00Z.",
    ),
];

/// Returns the metric of this name.
pub(super) fn family_of(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    const INTRODUCTION: &str = "\
# Metrics

<!-- Made from `telemetry/families.rs`; a test compares. To renew it, run the tests of the crate
drakkar with DRAKKAR_UPDATE_REFERENCE=1. -->

`GET /metrics` on `metrics.port` answers in the Prometheus text format. Names and labels are those of
the original where it has them. Metrics that a handler makes with the `metrics` crate are on the same
page, if it is the version that `drakkar::metrics` is; histograms of its own get general-purpose buckets.
`on_ready` is the place to describe them: what is described before the worker runs is forgotten. An
application that has installed a recorder of its own keeps it: then only the metrics marked \"page\" are
here, and the others go there.

Series of a partition disappear when it is revoked or lost, so that sums over all workers are right.

| metric | type | labels | meaning | held by |
|---|---|---|---|---|
";

    fn reference() -> String {
        let mut page = INTRODUCTION.to_owned();
        let mut buckets =
            String::from("\n## Buckets\n\nUpper bounds, in the unit that the name ends with.\n\n");
        for Family { name, kind, labels, about, home } in FAMILIES {
            let home = if *home == Home::Page { "page" } else { "recorder" };
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind_name, labels) = (kind.as_str(), labels.join(", "));
            writeln!(page, "| `{name}` | {kind_name} | {labels} | {about} | {home} |")
                .expect("a string takes all");
            if let Histogram(bounds) = kind {
                let bounds: Vec<_> = bounds.iter().map(ToString::to_string).collect();
                writeln!(buckets, "- `{name}`: {}", bounds.join(" ")).expect("a string takes all");
            }
        }
        page + &buckets
    }

    const TASK: &[f64] = &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
    const BATCH: &[f64] = &[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    const SINK_TIMES: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
    const HOOK: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
    const PERIODIC: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

    /// The metrics of the original that this build can have. (Its type "info" is a gauge on the page.)
    const ORIGINAL: &[(&str, FamilyKind, &[&str])] = &[
        ("drakkar_worker_info", Gauge, &["worker_id", "version", "consumer_group"]),
        ("drakkar_messages_consumed_total", Counter, &["partition"]),
        ("drakkar_executor_tasks_total", Counter, &["status"]),
        ("drakkar_executor_duration_seconds", Histogram(TASK), &[]),
        ("drakkar_executor_pool_active", Gauge, &[]),
        ("drakkar_executor_timeouts_total", Counter, &[]),
        ("drakkar_task_retries_total", Counter, &[]),
        ("drakkar_tasks_precomputed_total", Counter, &[]),
        ("drakkar_executor_priority_fn_errors_total", Counter, &[]),
        ("drakkar_batch_duration_seconds", Histogram(BATCH), &[]),
        ("drakkar_partition_queue_size", Gauge, &["partition"]),
        ("drakkar_offset_lag", Gauge, &["partition"]),
        ("drakkar_backpressure_active", Gauge, &[]),
        ("drakkar_total_queued", Gauge, &[]),
        ("drakkar_assigned_partitions", Gauge, &[]),
        ("drakkar_executor_idle_slot_seconds_total", Counter, &[]),
        ("drakkar_consumer_idle_seconds_total", Counter, &[]),
        ("drakkar_consumer_errors_total", Counter, &[]),
        ("drakkar_offsets_committed_total", Counter, &["partition"]),
        ("drakkar_rebalance_events_total", Counter, &["type"]),
        ("drakkar_sink_deliver_duration_seconds", Histogram(SINK_TIMES), SINK),
        ("drakkar_sink_deliver_errors_total", Counter, SINK),
        ("drakkar_sink_payloads_delivered_total", Counter, SINK),
        ("drakkar_sink_delivery_retries_total", Counter, SINK),
        ("drakkar_sink_deliveries_skipped_total", Counter, SINK),
        ("drakkar_sink_dlq_messages_total", Counter, &[]),
        ("drakkar_dlq_send_failures_total", Counter, &[]),
        ("drakkar_handler_duration_seconds", Histogram(HOOK), &["hook"]),
        ("drakkar_periodic_task_runs_total", Counter, &["name", "status"]),
        ("drakkar_periodic_task_duration_seconds", Histogram(PERIODIC), &["name"]),
    ];

    #[test]
    fn dashboards_of_the_original_find_what_they_ask_for() {
        for (name, kind, labels) in ORIGINAL {
            let family = family_of(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(family.labels, *labels, "{name}");
            match (family.kind, kind) {
                (Histogram(ours), Histogram(theirs)) => {
                    let lost: Vec<_> = theirs.iter().filter(|le| !ours.contains(le)).collect();
                    assert!(lost.is_empty(), "{name} has lost {lost:?}");
                    let fine = [0.001, 0.01];
                    assert!(fine.iter().all(|le| ours.contains(le)), "{name} is coarse");
                }
                (ours, theirs) => assert_eq!(ours, *theirs, "{name}"),
            }
        }
    }

    #[test]
    fn the_committed_page_is_up_to_date() {
        crate::pages::check_page("metrics.md", &reference());
    }

    #[test]
    fn names_follow_the_conventions() {
        for Family { name, kind, .. } in FAMILIES {
            assert!(name.starts_with("drakkar_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            if let Histogram(bounds) = kind {
                assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}");
                assert!(bounds.is_sorted(), "{name}");
            }
            let same = FAMILIES.iter().filter(|family| family.name == *name).count();
            assert_eq!(same, 1, "{name}");
        }
    }
}
