//! Every event against the page of metrics and against the log.

use super::exposition::recorder;
use super::families::{FAMILIES, Home};
use super::{
    Exposition, Gauges, Identity, LogObserver, MetricsObserver, install_recorder, keep_up,
};
use bytes::Bytes;
use drakkar_api::{
    Captured, Clock, CommitOffset, DecodeError, Event, Execution, Hook, Instant, MessageEnd,
    Observer, Offset, PartitionId, Precomputed, ResourceUsage, Settlement, SinkError,
    SinkErrorKind, SinkId, SinkKind, Slots, SourceError, SourceErrorKind, SpawnErrorKind, Task,
    TaskOutcome, TaskPath, Timestamp, WindowId, WorkerCall,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The present on the wall clock.
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// An observer with a recorder of its own.
struct World {
    recorder: metrics_exporter_prometheus::PrometheusRecorder,
    observer: Arc<MetricsObserver>,
}

impl World {
    fn new() -> Self {
        let recorder = recorder();
        let identity = Identity { worker_id: "w\"1".into(), consumer_group: "g".into() };
        let gauges = Gauges {
            slots: Box::new(|| Slots { total: 4, active: 1, waiting: 2 }),
            load: Box::new(|| 7),
            lags: Box::new(|| {
                vec![(PartitionId::new("in", 6), 40), (PartitionId::new("in", 5), 0)]
            }),
            is_connected: Box::new(|| true),
        };
        let observer = metrics::with_local_recorder(&recorder, || {
            Arc::new(MetricsObserver::new(identity, Arc::new(StillClock), gauges))
        });
        Self { recorder, observer }
    }

    fn observe(&self, event: &Event<'_>) {
        metrics::with_local_recorder(&self.recorder, || self.observer.observe(event));
    }

    fn page(&self) -> String {
        Exposition::new(Some(self.recorder.handle()), Arc::clone(&self.observer)).render()
    }

    /// Expects exactly this line on the page.
    fn expect(&self, line: &str) {
        let page = self.page();
        let name = line.split(['{', ' ']).next().expect("a name");
        let similar: Vec<_> = page.lines().filter(|other| other.starts_with(name)).collect();
        assert!(similar.contains(&line), "{line} is not among {similar:#?}");
    }
}

/// Emits every event at least once.
fn emit_all(observe: &dyn Fn(&Event<'_>)) {
    let partition = &PartitionId::new("in", 3);
    let gone = &PartitionId::new("in", 4);
    let offset = Offset::new(7);
    let window = WindowId::new(1);
    let sink = &SinkId::new(SinkKind::Kafka, "out");
    let task = &Task::for_offset(offset).id("t-1");
    let path = TaskPath { partition, window, task, attempt: 1 };
    let error = &SinkError::temporary(SinkErrorKind::Timeout, "too slow");
    let trouble = &SourceError::new(SourceErrorKind::Unreachable, "no broker");
    observe(&Event::SinkConnected { sink });
    observe(&Event::Rebalance { kind: "assign", partitions: 2, assigned: 2 });
    observe(&Event::Assigned { partition });
    observe(&Event::Assigned { partition: gone });
    observe(&Event::Consumed { partition, messages: 5 });
    observe(&Event::Consumed { partition: gone, messages: 5 });
    observe(&Event::Depth { partition, queued: 2, uncommitted: 5 });
    let decode = &DecodeError::new("not JSON");
    observe(&Event::ParseFailed { partition, offset, error: decode, policy: "pass" });
    observe(&Event::Tombstone { partition, offset });
    observe(&Event::Arranged { partition, window, messages: 3, tasks: 3 });
    observe(&Event::HookFinished { hook: Hook::Arrange, duration: SECOND });
    for hook in [Hook::TaskPriority, Hook::OnMessageComplete, Hook::OnError] {
        observe(&Event::HookFailed {
            hook,
            partition: Some(partition),
            window: None,
            offset: Some(offset),
            task: None,
            error: "boom",
            panicked: hook != Hook::OnError,
        });
    }
    observe(&Event::TaskScheduled { path });
    observe(&Event::TaskStarted { path, slot: 0, queue_wait: Duration::from_millis(20) });
    let spawn_failure =
        |kind| TaskOutcome::SpawnFailure { kind, reason: "it cannot be started".to_owned() };
    for outcome in [
        TaskOutcome::Success,
        TaskOutcome::ExitCode(3),
        TaskOutcome::Signal(9),
        TaskOutcome::Signal(40),
        TaskOutcome::Timeout { limit: SECOND },
        spawn_failure(SpawnErrorKind::NotFound),
        spawn_failure(SpawnErrorKind::PermissionDenied),
        TaskOutcome::OutputOverLimit { limit_bytes: 5 },
        TaskOutcome::Cancelled,
    ] {
        let execution = Execution { duration: SECOND, ..Execution::without_process(outcome) };
        observe(&Event::TaskFinished { path, execution: &execution });
    }
    let flooded = || Captured { bytes: Bytes::from_static(b"ab"), total_bytes: 3_000_000 };
    let odd = Execution { stdout: flooded(), ..Execution::without_process(TaskOutcome::Success) };
    observe(&Event::TaskFinished { path, execution: &odd });
    let odd = Execution {
        stderr: flooded(),
        pid: Some(7),
        spawn: Duration::from_millis(2),
        usage: Some(ResourceUsage {
            user: Duration::from_millis(30),
            system: Duration::from_millis(15),
            peak_memory_bytes: Some(100_000_000),
        }),
        leftovers_killed: true,
        stdin_closed_early: true,
        ..Execution::without_process(TaskOutcome::ExitCode(1))
    };
    observe(&Event::TaskFinished { path, execution: &odd });
    let small = ResourceUsage { user: SECOND, ..ResourceUsage::default() };
    let killed = Execution {
        pid: Some(8),
        usage: Some(small),
        ..Execution::without_process(TaskOutcome::Cancelled)
    };
    observe(&Event::TaskFinished { path, execution: &killed });
    let precomputed = &Execution::from_precomputed(&Precomputed::stdout("x"));
    observe(&Event::TaskFinished { path, execution: precomputed });
    observe(&Event::TaskRetried { path, delay: SECOND });
    observe(&Event::RetriesExhausted { path });
    observe(&Event::TaskSkipped { path });
    observe(&Event::TaskReplaced { path, replacements: 2 });
    let ago = |millis| Some(Timestamp::from_millis(NOW.millis() - millis));
    for (end, written_at) in [
        (MessageEnd::Completed, ago(40)),
        (MessageEnd::Dropped, ago(100_000)),
        // The producer's clock is ahead.
        (MessageEnd::Completed, ago(-5000)),
        (MessageEnd::Completed, None),
    ] {
        let duration = SECOND;
        observe(&Event::MessageFinished { partition, offset, end, written_at, duration });
    }
    for settlement in [Settlement::GivenBack, Settlement::GivenBack, Settlement::Abandoned] {
        observe(&Event::MessageLeft { partition, offset, settlement });
    }
    observe(&Event::WindowFinished { partition, window, tasks: 3, duration: SECOND });
    observe(&Event::WindowFinished { partition, window, tasks: 0, duration: SECOND });
    observe(&Event::Delivered { sink, payloads: 3, duration: SECOND });
    observe(&Event::DeliveryFailed { sink, payloads: 1, error, attempt: 1 });
    observe(&Event::DeliveryRetried { sink, payloads: 1, delay: SECOND });
    observe(&Event::DeliverySkipped { sink, payloads: 1 });
    for kind in ["payload", "message"] {
        let (error_kind, error) = ("timeout", "too slow");
        observe(&Event::DeadLettered { partition, offset, kind, error_kind, error });
    }
    for dropped in [false, true] {
        observe(&Event::DeadLetterFailed { partition, offset, error, dropped });
    }
    observe(&Event::Committed { partition, offset: CommitOffset::new(8) });
    observe(&Event::CommitFailed { partition, error: trouble });
    observe(&Event::Backpressure { active: true, load: 128 });
    observe(&Event::SourceTrouble { error: trouble });
    observe(&Event::PartitionFailed { partition, reason: "arrange panics", keeps_ready: false });
    let call = |number, name: &str, partitions: &[&PartitionId]| WorkerCall {
        number,
        name: name.to_owned(),
        partitions: partitions.iter().copied().cloned().collect(),
    };
    let other = &PartitionId::new("in", 5);
    let (keeps_ready, lasted) = (false, SECOND);
    for call in &[
        call(1, "on_assign", &[partition, other]),
        call(2, "on_assign", &[other]),
        call(3, "on_revoke", &[other]),
        call(4, "periodic task refresh", &[]),
    ] {
        observe(&Event::CallBlocked { call, lasted, keeps_ready });
    }
    observe(&Event::CallWentOn { call: &call(3, "on_revoke", &[other]) });
    observe(&Event::PeriodicRun { name: "refresh", duration: SECOND, error: None });
    observe(&Event::PeriodicRun { name: "refresh", duration: SECOND, error: Some("boom") });
    observe(&Event::Rebalance { kind: "revoke", partitions: 1, assigned: 1 });
    let clean = true;
    observe(&Event::Revoked { partition: gone, clean, given_back: 5, duration: SECOND });
}

#[test]
fn every_event_is_counted() {
    let world = World::new();
    emit_all(&|event| world.observe(event));
    for line in [
        "drakkar_worker_info{worker_id=\"w\\\"1\",version=\"0.1.0\",consumer_group=\"g\"} 1",
        "drakkar_build_info{version=\"0.1.0\"} 1",
        "drakkar_messages_consumed_total{partition=\"3\"} 5",
        "drakkar_partition_queue_size{partition=\"3\"} 2",
        "drakkar_offset_lag{partition=\"3\"} 5",
        "drakkar_partition_stalled{partition=\"3\"} 1",
        "drakkar_blocked_calls{call=\"on_assign\",partition=\"3\"} 1",
        "drakkar_blocked_calls{call=\"on_assign\",partition=\"5\"} 2",
        "drakkar_blocked_calls{call=\"periodic task refresh\",partition=\"\"} 1",
        "drakkar_consumer_lag{partition=\"6\"} 40",
        "drakkar_consumer_lag{partition=\"5\"} 0",
        "drakkar_kafka_connected 1",
        "drakkar_offsets_committed_total{partition=\"3\"} 1",
        "drakkar_commit_failures_total 1",
        "drakkar_parse_failures_total 1",
        "drakkar_tombstones_total 1",
        "drakkar_messages_finished_total{end=\"completed\"} 3",
        "drakkar_messages_finished_total{end=\"dropped\"} 1",
        "drakkar_messages_finished_total{end=\"skipped\"} 0",
        "drakkar_messages_left_total{how=\"given_back\"} 2",
        "drakkar_messages_left_total{how=\"abandoned\"} 1",
        "drakkar_message_duration_seconds_count 4",
        "drakkar_message_e2e_seconds_count 3",
        "drakkar_message_e2e_seconds_sum 100.04",
        "drakkar_message_e2e_seconds_bucket{le=\"0.005\"} 1",
        "drakkar_message_e2e_seconds_bucket{le=\"0.025\"} 1",
        "drakkar_message_e2e_seconds_bucket{le=\"0.05\"} 2",
        "drakkar_message_e2e_seconds_bucket{le=\"120\"} 3",
        "drakkar_batch_duration_seconds_count 1",
        "drakkar_executor_tasks_total{status=\"started\"} 1",
        "drakkar_executor_tasks_total{status=\"completed\"} 3",
        "drakkar_executor_tasks_total{status=\"failed\"} 8",
        "drakkar_task_outcomes_total{outcome=\"success\"} 3",
        "drakkar_task_outcomes_total{outcome=\"exit_code\"} 2",
        "drakkar_task_outcomes_total{outcome=\"signal\"} 2",
        "drakkar_task_outcomes_total{outcome=\"timeout\"} 1",
        "drakkar_task_outcomes_total{outcome=\"spawn_failure\"} 2",
        "drakkar_task_outcomes_total{outcome=\"output_over_limit\"} 1",
        "drakkar_task_outcomes_total{outcome=\"cancelled\"} 2",
        "drakkar_task_signals_total{signal=\"SIGKILL\"} 1",
        "drakkar_task_signals_total{signal=\"SIGSEGV\"} 0",
        "drakkar_task_signals_total{signal=\"other\"} 1",
        "drakkar_executor_failure_duration_seconds_count{outcome=\"exit_code\"} 2",
        "drakkar_executor_failure_duration_seconds_sum{outcome=\"exit_code\"} 1",
        "drakkar_executor_failure_duration_seconds_bucket{outcome=\"timeout\",le=\"0.5\"} 0",
        "drakkar_executor_failure_duration_seconds_bucket{outcome=\"timeout\",le=\"1\"} 1",
        "drakkar_task_spawn_failures_total{kind=\"not_found\"} 1",
        "drakkar_task_spawn_failures_total{kind=\"permission_denied\"} 1",
        "drakkar_task_spawn_failures_total{kind=\"no_binary\"} 0",
        "drakkar_task_output_truncated_total{stream=\"stdout\"} 1",
        "drakkar_task_output_truncated_total{stream=\"stderr\"} 1",
        "drakkar_task_leftovers_killed_total 1",
        "drakkar_task_stdin_closed_early_total 1",
        "drakkar_executor_duration_seconds_count 3",
        "drakkar_executor_duration_seconds_bucket{le=\"1\"} 3",
        "drakkar_executor_queue_wait_seconds_bucket{le=\"0.01\"} 0",
        "drakkar_executor_queue_wait_seconds_bucket{le=\"0.025\"} 1",
        "drakkar_executor_spawn_seconds_count 2",
        "drakkar_executor_spawn_seconds_bucket{le=\"0.001\"} 1",
        "drakkar_executor_spawn_seconds_bucket{le=\"0.0025\"} 2",
        "drakkar_task_cpu_seconds_count 2",
        "drakkar_task_cpu_seconds_sum 1.045",
        "drakkar_task_peak_memory_bytes_count 1",
        "drakkar_task_peak_memory_bytes_bucket{le=\"67108864\"} 0",
        "drakkar_task_peak_memory_bytes_bucket{le=\"134217728\"} 1",
        "drakkar_executor_timeouts_total 1",
        "drakkar_task_retries_total 1",
        "drakkar_tasks_precomputed_total 1",
        "drakkar_executor_priority_fn_errors_total 1",
        "drakkar_executor_pool_active 1",
        "drakkar_executor_pool_waiting 2",
        "drakkar_executor_pool_size 4",
        "drakkar_total_queued 7",
        "drakkar_backpressure_active 1",
        "drakkar_assigned_partitions 1",
        "drakkar_rebalance_events_total{type=\"assign\"} 1",
        "drakkar_rebalance_events_total{type=\"revoke\"} 1",
        "drakkar_consumer_errors_total 1",
        "drakkar_partition_failures_total 1",
        "drakkar_handler_duration_seconds_count{hook=\"arrange\"} 1",
        "drakkar_hook_failures_total{hook=\"on_error\"} 1",
        "drakkar_hook_panics_total{hook=\"on_error\"} 0",
        "drakkar_hook_panics_total{hook=\"on_message_complete\"} 1",
        "drakkar_sink_deliver_duration_seconds_count{sink_type=\"kafka\",sink_name=\"out\"} 1",
        "drakkar_sink_deliver_errors_total{sink_type=\"kafka\",sink_name=\"out\"} 1",
        "drakkar_sink_payloads_delivered_total{sink_type=\"kafka\",sink_name=\"out\"} 3",
        "drakkar_sink_delivery_retries_total{sink_type=\"kafka\",sink_name=\"out\"} 1",
        "drakkar_sink_deliveries_skipped_total{sink_type=\"kafka\",sink_name=\"out\"} 1",
        "drakkar_sink_dlq_messages_total 2",
        "drakkar_dlq_send_failures_total 2",
        "drakkar_dlq_dropped_total 1",
        "drakkar_periodic_task_runs_total{name=\"refresh\",status=\"ok\"} 1",
        "drakkar_periodic_task_runs_total{name=\"refresh\",status=\"error\"} 1",
        "drakkar_periodic_task_duration_seconds_count{name=\"refresh\"} 2",
    ] {
        world.expect(line);
    }
}

#[test]
fn the_page_is_valid_and_complete() {
    let world = World::new();
    emit_all(&|event| world.observe(event));
    metrics::with_local_recorder(&world.recorder, || {
        metrics::counter!("my_jobs_total", "kind" => "a").increment(2);
        metrics::histogram!("my_seconds").record(0.2);
        // A name of ours in the recorder must not make the page invalid.
        metrics::gauge!("drakkar_offset_lag").set(1.0);
    });
    let page = world.page();
    for hook in ["decode", "message_label", "task_priority"] {
        let series = format!("drakkar_handler_duration_seconds_count{{hook=\"{hook}\"}}");
        assert!(!page.contains(&series), "{hook} is never timed");
    }
    let described: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(described.is_sorted_by(|left, right| left < right), "sorted, and each once");
    for family in FAMILIES {
        assert!(described.contains(&family.name), "{} is missing", family.name);
        assert!(page.contains(&format!("# HELP {} ", family.name)), "{}", family.name);
    }
    let is_ours = |name: &str| name.starts_with("drakkar_") || name.starts_with("process_");
    let ours = described.iter().filter(|name| is_ours(name)).count();
    assert_eq!(ours, FAMILIES.len(), "nothing is on the page that is not in the table");
    assert!(page.contains("my_jobs_total{kind=\"a\"} 2"), "{page}");
    assert!(page.contains("my_seconds_bucket{le=\"0.25\"} 1"), "{page}");
    assert!(!page.contains("drakkar_offset_lag 1"), "{page}");
    let mut current = "";
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            current = kind.split(' ').next().expect("a name");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(series.starts_with(current), "{line} is not below its type");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(page.ends_with('\n') && !page.contains("partition=\"4\""), "{page}");
}

#[test]
fn metrics_of_the_application_are_told_once() {
    let world = World::new();
    let exposition = Exposition::new(Some(world.recorder.handle()), Arc::clone(&world.observer));
    let lines = crate::logging::capture(|| {
        exposition.render();
        metrics::with_local_recorder(&world.recorder, || {
            metrics::counter!("my_jobs_total", "kind" => "a").increment(2);
            metrics::gauge!("my_depth").set(1.0);
            // A name of ours, in the wrong place.
            metrics::gauge!("drakkar_offset_lag").set(1.0);
        });
        exposition.render();
        exposition.clone().render();
        metrics::with_local_recorder(&world.recorder, || metrics::counter!("more").increment(1));
        exposition.render();
    });
    let told: Vec<_> = lines.iter().map(|line| (&line["event"], &line["metrics"])).collect();
    let event = &serde_json::json!("user_metrics_discovered");
    assert_eq!(told, [(event, &"my_depth my_jobs_total".into()), (event, &"more".into())]);
}

#[test]
fn labels_are_those_of_the_table() {
    let world = World::new();
    emit_all(&|event| world.observe(event));
    let page = world.page();
    for family in FAMILIES {
        let sample = page
            .lines()
            .find(|line| line.starts_with(family.name) && !line.contains("_bucket"))
            .unwrap_or_else(|| panic!("{} has no sample", family.name));
        for label in family.labels {
            assert!(sample.contains(&format!("{label}=\"")), "{label} is missing in {sample}");
        }
        assert_eq!(sample.matches("=\"").count(), family.labels.len(), "{sample}");
    }
    assert!(FAMILIES.iter().any(|family| family.home == Home::Page));
}

#[test]
fn series_of_a_partition_go_and_stay_away() {
    let world = World::new();
    let partition = &PartitionId::new("in", 3);
    world.observe(&Event::Assigned { partition });
    world.observe(&Event::Consumed { partition, messages: 5 });
    world.expect("drakkar_messages_consumed_total{partition=\"3\"} 5");
    world.observe(&Event::Lost { partition });
    world.observe(&Event::Depth { partition, queued: 1, uncommitted: 1 });
    assert!(!world.page().contains("partition=\"3\""));
    world.observe(&Event::Assigned { partition });
    world.expect("drakkar_messages_consumed_total{partition=\"3\"} 0");
    // A topic was made anew: the new assignment is told before the end of the old one.
    world.observe(&Event::Assigned { partition });
    world.observe(&Event::Lost { partition });
    world.observe(&Event::Consumed { partition, messages: 7 });
    world.expect("drakkar_messages_consumed_total{partition=\"3\"} 7");
    world.observe(&Event::Lost { partition });
    assert!(!world.page().contains("partition=\"3\""));
}

#[test]
fn a_sink_is_on_the_page_before_its_first_delivery() {
    let world = World::new();
    let sink = SinkId::new(SinkKind::Filesystem, "out");
    metrics::with_local_recorder(&world.recorder, || world.observer.register_sink(&sink));
    let exposition = Exposition::new(Some(world.recorder.handle()), Arc::clone(&world.observer));
    exposition.run_upkeep();
    let line = "drakkar_sink_deliver_errors_total{sink_type=\"filesystem\",sink_name=\"out\"} 0";
    world.expect(line);
}

#[test]
fn idle_time_adds_up() {
    let world = World::new();
    let partition = &PartitionId::new("in", 3);
    world.observer.tick(SECOND);
    world.expect("drakkar_executor_idle_slot_seconds_total 0");
    world.expect("drakkar_consumer_idle_seconds_total 0");
    world.observe(&Event::Assigned { partition });
    world.observe(&Event::Depth { partition, queued: 1, uncommitted: 1 });
    world.observer.tick(SECOND / 2);
    world.expect("drakkar_executor_idle_slot_seconds_total 1.5");
    let load = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&load);
    let gauges = Gauges {
        slots: Box::new(Slots::default),
        load: Box::new(move || asked.load(SeqCst)),
        lags: Box::new(Vec::new),
        is_connected: Box::new(|| false),
    };
    let idle = MetricsObserver::new(Identity::default(), Arc::new(StillClock), gauges);
    idle.tick(SECOND);
    idle.observe(&Event::Consumed { partition, messages: 1 });
    idle.tick(SECOND);
    // Its sink is slow: no slot is taken, and yet it has something to do.
    load.store(1, SeqCst);
    idle.tick(SECOND);
    load.store(0, SeqCst);
    idle.observe(&Event::Backpressure { active: true, load: 0 });
    idle.tick(SECOND);
    let page = Exposition::new(None, Arc::new(idle)).render();
    assert!(page.contains("drakkar_consumer_idle_seconds_total 1\n"), "{page}");
    assert!(page.contains("drakkar_kafka_connected 0\n"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn samples_do_not_pile_up_until_somebody_asks() {
    let world = World::new();
    let log = Arc::new(LogObserver::new(Arc::new(StillClock), SECOND));
    let exposition = Exposition::new(Some(world.recorder.handle()), Arc::clone(&world.observer));
    let duration = SECOND;
    world.observe(&Event::HookFinished { hook: Hook::Arrange, duration });
    // The recorder shows no other way what it has counted and what it only keeps.
    let counted =
        || format!("{:?}", world.recorder).contains("drakkar_handler_duration_seconds\": {");
    assert!(!counted());
    let partition = &PartitionId::new("in", 3);
    world.observe(&Event::Assigned { partition });
    world.observe(&Event::Depth { partition, queued: 1, uncommitted: 1 });
    let upkeep = keep_up(Arc::clone(&world.observer), log, exposition);
    tokio::time::sleep(SECOND * 6).await;
    assert!(counted());
    // Three free slots for six seconds, of which the last may not be over.
    let page = world.page();
    let line = |seconds| format!("drakkar_executor_idle_slot_seconds_total {seconds}\n");
    assert!([15, 18].iter().any(|seconds| page.contains(&line(seconds))), "{page}");
    drop(upkeep);
}

#[test]
fn a_partition_that_goes_on_is_stalled_no_more() {
    let world = World::new();
    let partition = &PartitionId::new("in", 3);
    let has = |value| world.page().contains(&format!("stalled{{partition=\"3\"}} {value}\n"));
    world.observe(&Event::Assigned { partition });
    assert!(has(0));
    world.observe(&Event::PartitionFailed { partition, reason: "stalled", keeps_ready: true });
    assert!(has(1));
    world.observe(&Event::PartitionRecovered { partition });
    assert!(has(0));
}

#[test]
fn a_partition_is_not_stalled_because_its_last_assignment_was() {
    let world = World::new();
    let partition = &PartitionId::new("in", 3);
    world.observe(&Event::Assigned { partition });
    world.observe(&Event::Assigned { partition });
    // The one before is not heard of as lost yet.
    world.observe(&Event::PartitionFailed { partition, reason: "stalled", keeps_ready: true });
    world.observe(&Event::Lost { partition });
    world.expect("drakkar_partition_stalled{partition=\"3\"} 0");
}

#[test]
fn a_second_recorder_is_the_first() {
    let first = install_recorder().expect("nobody else installs one");
    let second = install_recorder().expect("the same one");
    metrics::counter!("installed_total").increment(1);
    assert!(first.render().contains("installed_total 1"));
    assert!(second.render().contains("installed_total 1"));
}

struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn wall(&self) -> Timestamp {
        NOW
    }
}

#[test]
fn every_event_is_told_under_its_name() {
    let lines = crate::logging::capture(|| {
        let observer = LogObserver::new(Arc::new(StillClock), SECOND);
        emit_all(&|event| observer.observe(event));
    });
    let expect = |level: &str, category: &str, event: &str, field: &str| {
        let hit = lines.iter().any(|line| {
            line["event"] == event
                && line["level"] == level
                && line["category"] == category
                && line.get(field).is_some()
        });
        assert!(hit, "{level} {category} {event} with {field} is not among {lines:#?}");
    };
    expect("info", "sink", "sink_connected", "sink_name");
    expect("info", "kafka", "partitions_assigned", "assigned");
    expect("info", "kafka", "partitions_revoked", "partitions");
    expect("info", "partition", "partition_processor_started", "topic");
    expect("info", "partition", "partition_processor_stopped", "given_back");
    expect("warning", "handler", "message_parse_failed", "policy");
    expect("debug", "handler", "tombstone_received", "offset");
    expect("debug", "handler", "window_arranged", "tasks");
    expect("error", "handler", "priority_fn_failed", "error");
    expect("error", "handler", "on_message_complete_failed", "offset");
    expect("error", "handler", "hook_failed", "hook");
    expect("error", "handler", "hook_blocked", "partitions");
    expect("info", "handler", "hook_went_on", "hook");
    expect("debug", "executor", "executor_task_started", "slot");
    expect("debug", "executor", "executor_task_completed", "duration_seconds");
    expect("warning", "executor", "executor_task_failed", "exit_code");
    expect("debug", "executor", "executor_task_completed", "stdout_truncated");
    for field in [
        "signal",
        "spawn_error_kind",
        "cpu_seconds",
        "peak_memory_bytes",
        "stderr_truncated",
        "leftovers_killed",
        "stdin_closed_early",
    ] {
        expect("warning", "executor", "executor_task_failed", field);
    }
    expect("warning", "executor", "executor_task_output_truncated", "stderr_bytes");
    expect("info", "executor", "slow_task_completed", "task_id");
    expect("info", "executor", "slow_task_failed", "partition");
    expect("warning", "executor", "max_retries_exceeded", "task_id");
    expect("error", "partition", "message_dropped", "offset");
    expect("warning", "sink", "sink_delivery_failed", "error_kind");
    expect("warning", "sink", "sink_delivery_retry", "sink_type");
    expect("warning", "sink", "sink_delivery_skipped", "sink_name");
    expect("warning", "sink", "sink_delivery_failed_to_dlq", "error");
    expect("warning", "sink", "message_dead_lettered", "error_kind");
    expect("error", "sink", "dlq_send_failed", "dropped");
    expect("warning", "kafka", "commit_failed", "partition");
    expect("debug", "kafka", "offsets_committed", "offset");
    expect("info", "kafka", "partitions_paused", "load");
    expect("warning", "kafka", "consumer_error", "error_kind");
    expect("error", "partition", "partition_processor_error", "reason");
    expect("warning", "periodic", "periodic_task_failed", "name");
    let page = include_str!("../../../../docs/logs.md");
    for event in lines.iter().filter_map(|line| line["event"].as_str()) {
        assert!(page.contains(&format!("`{event}`")), "docs/logs.md does not name {event}");
    }
    let first = lines.iter().find(|line| line["event"] == "executor_task_failed");
    let field = |name| first.and_then(|line| line.get(name));
    assert_eq!(field("suppressed"), None, "nothing was left out yet");
    assert_eq!(field("stdout_truncated"), None, "what is not odd is not told");
}

#[test]
fn a_task_is_slow_from_the_threshold_on() {
    let partition = &PartitionId::new("in", 3);
    let task = &Task::for_offset(Offset::new(7)).id("t-1");
    let path = TaskPath { partition, window: WindowId::new(1), task, attempt: 1 };
    let check = |outcome, millis, expect: &[&str]| {
        let duration = Duration::from_millis(millis);
        let execution = &Execution { duration, ..Execution::without_process(outcome) };
        let lines = crate::logging::capture(|| {
            let observer = LogObserver::new(Arc::new(StillClock), Duration::from_millis(500));
            observer.observe(&Event::TaskFinished { path, execution });
        });
        let slow = |name: &&str| name.starts_with("slow_");
        let told: Vec<_> =
            lines.iter().filter_map(|line| line["event"].as_str()).filter(slow).collect();
        assert_eq!(told, expect, "{:?} after {duration:?}", execution.outcome);
    };
    check(TaskOutcome::Success, 499, &[]);
    check(TaskOutcome::Success, 500, &["slow_task_completed"]);
    check(TaskOutcome::ExitCode(1), 499, &[]);
    check(TaskOutcome::ExitCode(1), 500, &["slow_task_failed"]);
    check(TaskOutcome::Timeout { limit: SECOND }, 1000, &["slow_task_failed"]);
    check(TaskOutcome::Cancelled, 1000, &[]);
}

#[test]
fn a_flood_of_failures_is_cut() {
    let partition = &PartitionId::new("in", 3);
    let task = &Task::for_offset(Offset::new(7)).id("t-1");
    let path = TaskPath { partition, window: WindowId::new(1), task, attempt: 1 };
    let execution = &Execution::without_process(TaskOutcome::ExitCode(1));
    let lines = crate::logging::capture(|| {
        let observer = LogObserver::new(Arc::new(StillClock), SECOND);
        (0..1000).for_each(|_| observer.observe(&Event::TaskFinished { path, execution }));
        observer.tick();
    });
    assert_eq!(lines.len(), 10);
}
