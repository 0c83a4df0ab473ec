//! Tells events as log lines, under the names that the original's operators look for.

use super::limiter::{Admission, Limiter};
use drakkar_api::{
    Clock, Event, Execution, Hook, MessageEnd, Observer, PartitionId, TaskOutcome, TaskPath,
};
use signal_hook::low_level::signal_name;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Turns events into lines of `tracing`.
///
/// At most ten lines of one name are written in a second; the next one says how many were left out.
/// What happens for every message is told at the level `debug` only.
pub(crate) struct LogObserver {
    clock: Arc<dyn Clock>,
    limiter: Limiter,
    /// A task that takes so long is told at the level `info`.
    slow_after: Duration,
}

impl fmt::Debug for LogObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogObserver").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

/// Writes one line, if its level is wanted and its name not too frequent.
macro_rules! line {
    ($self:ident, $level:ident, $category:literal, $name:literal, $($fields:tt)*) => {
        if tracing::enabled!(tracing::Level::$level)
            && let Admission::Write(suppressed) = $self.limiter.admit($name, $self.clock.now())
        {
            tracing::event!(
                tracing::Level::$level,
                event = $name,
                category = $category,
                suppressed,
                $($fields)*
            );
        }
    };
}

/// The same for a line about an attempt of a task.
macro_rules! task_line {
    ($self:ident, $level:ident, $name:literal, $path:expr, $($fields:tt)*) => {
        let TaskPath { partition, window, attempt, .. } = $path;
        line!(
            $self, $level, "executor", $name,
            partition = partition.partition(),
            window_id = window.get(),
            task_id = $path.task_id(),
            attempt,
            $($fields)*
        );
    };
}

impl LogObserver {
    /// Makes an observer; `clock` decides what a second is. Tasks that take `slow_after` or longer
    /// are told as slow.
    pub(crate) fn new(clock: Arc<dyn Clock>, slow_after: Duration) -> Self {
        Self { clock, limiter: Limiter::default(), slow_after }
    }

    /// Tells what was left out of floods that are over; to be called about once a second.
    pub(crate) fn tick(&self) {
        for (name, suppressed) in self.limiter.settle(self.clock.now()) {
            tracing::warn!(
                event = "log_lines_suppressed",
                category = "lifecycle",
                suppressed_event = name,
                suppressed,
            );
        }
    }

    fn tell_partition(&self, event: &Event<'_>) {
        match event {
            Event::Assigned { partition } => {
                line!(
                    self,
                    INFO,
                    "partition",
                    "partition_processor_started",
                    partition = partition.partition(),
                    topic = partition.topic()
                );
            }
            Event::Revoked { partition, clean: true, given_back, duration } => {
                line!(
                    self,
                    INFO,
                    "partition",
                    "partition_processor_stopped",
                    partition = partition.partition(),
                    given_back,
                    duration_seconds = duration.as_secs_f64()
                );
            }
            Event::Revoked { partition, clean: false, given_back, duration } => {
                line!(
                    self,
                    WARN,
                    "partition",
                    "stop_processor_drain_timeout",
                    partition = partition.partition(),
                    given_back,
                    duration_seconds = duration.as_secs_f64()
                );
            }
            Event::Lost { partition } => {
                line!(self, WARN, "partition", "partition_lost", partition = partition.partition(),);
            }
            Event::Rebalance { kind: "assign", partitions, assigned } => {
                line!(self, INFO, "kafka", "partitions_assigned", partitions, assigned);
            }
            Event::Rebalance { kind: "lost", partitions, assigned } => {
                line!(self, WARN, "kafka", "partitions_lost", partitions, assigned);
            }
            Event::Rebalance { partitions, assigned, .. } => {
                line!(self, INFO, "kafka", "partitions_revoked", partitions, assigned);
            }
            Event::PartitionFailed { partition, reason, .. } => {
                line!(
                    self,
                    ERROR,
                    "partition",
                    "partition_processor_error",
                    partition = partition.partition(),
                    reason
                );
            }
            Event::PartitionRecovered { partition } => {
                line!(
                    self,
                    INFO,
                    "partition",
                    "partition_processor_recovered",
                    partition = partition.partition()
                );
            }
            Event::Committed { partition, offset } => {
                line!(
                    self,
                    DEBUG,
                    "kafka",
                    "offsets_committed",
                    partition = partition.partition(),
                    offset = offset.get()
                );
            }
            Event::CommitFailed { partition, error } => {
                line!(self, WARN, "kafka", "commit_failed",
                    partition = partition.partition(), error_kind = error.kind().as_str(),
                    error = %error);
            }
            Event::Backpressure { active: true, load } => {
                line!(self, INFO, "kafka", "partitions_paused", load);
            }
            Event::Backpressure { active: false, load } => {
                line!(self, INFO, "kafka", "partitions_resumed", load);
            }
            Event::SourceTrouble { error } => {
                line!(self, WARN, "kafka", "consumer_error",
                    error_kind = error.kind().as_str(), error = %error);
            }
            _ => {}
        }
    }

    fn tell_task(&self, event: &Event<'_>) {
        match event {
            Event::TaskStarted { path, slot, queue_wait } => {
                task_line!(
                    self,
                    DEBUG,
                    "executor_task_started",
                    path,
                    slot,
                    queue_wait_seconds = queue_wait.as_secs_f64()
                );
            }
            Event::TaskFinished { path, execution } => {
                self.tell_task_end(path, execution);
                self.tell_slow_task(path, execution);
            }
            Event::TaskRetried { path, delay } => {
                task_line!(
                    self,
                    DEBUG,
                    "executor_task_retried",
                    path,
                    delay_seconds = delay.as_secs_f64()
                );
            }
            Event::RetriesExhausted { path } => {
                task_line!(self, WARN, "max_retries_exceeded", path,);
            }
            Event::TaskSkipped { path } => {
                task_line!(self, INFO, "executor_task_skipped", path,);
            }
            Event::TaskReplaced { path, replacements } => {
                task_line!(self, DEBUG, "executor_task_replaced", path, replacements);
            }
            _ => {}
        }
    }

    /// Tells that an attempt took long, unless it was withdrawn.
    fn tell_slow_task(&self, path: &TaskPath<'_>, execution: &Execution) {
        if execution.duration < self.slow_after {
            return;
        }
        let duration_seconds = execution.duration.as_secs_f64();
        match &execution.outcome {
            TaskOutcome::Success => {
                task_line!(self, INFO, "slow_task_completed", path, duration_seconds);
            }
            TaskOutcome::Cancelled => {}
            outcome => {
                let outcome = outcome.as_str();
                task_line!(self, INFO, "slow_task_failed", path, outcome, duration_seconds);
            }
        }
    }

    /// Tells how an attempt ended, and what is odd about it: what is not odd is left out.
    fn tell_task_end(&self, path: &TaskPath<'_>, execution: &Execution) {
        let odd = |is: bool| is.then_some(true);
        let stdout_truncated = odd(execution.stdout.is_truncated());
        let stderr_truncated = odd(execution.stderr.is_truncated());
        let leftovers_killed = odd(execution.leftovers_killed);
        let stdin_closed_early = odd(execution.stdin_closed_early);
        let usage = execution.usage.as_ref();
        let cpu_seconds = usage.map(|usage| (usage.user + usage.system).as_secs_f64());
        let peak_memory_bytes = usage.and_then(|usage| usage.peak_memory_bytes);
        match &execution.outcome {
            TaskOutcome::Success => {
                task_line!(
                    self,
                    DEBUG,
                    "executor_task_completed",
                    path,
                    precomputed = execution.precomputed,
                    duration_seconds = execution.duration.as_secs_f64(),
                    cpu_seconds,
                    peak_memory_bytes,
                    stdout_truncated,
                    stderr_truncated,
                    leftovers_killed,
                    stdin_closed_early
                );
            }
            TaskOutcome::Cancelled => {
                task_line!(self, DEBUG, "executor_task_cancelled", path, pid = execution.pid);
            }
            outcome => {
                let spawn_error_kind = match outcome {
                    TaskOutcome::SpawnFailure { kind, .. } => Some(kind.as_str()),
                    _ => None,
                };
                let signal = match outcome {
                    TaskOutcome::Signal(signal) => signal_name(*signal),
                    _ => None,
                };
                task_line!(self, WARN, "executor_task_failed", path,
                    outcome = outcome.as_str(), exit_code = outcome.exit_code(), signal,
                    pid = execution.pid, error = %outcome, spawn_error_kind,
                    duration_seconds = execution.duration.as_secs_f64(),
                    cpu_seconds, peak_memory_bytes,
                    stdout_truncated, stderr_truncated, leftovers_killed, stdin_closed_early);
            }
        }
        if stdout_truncated.or(stderr_truncated).is_some() {
            // The handler may not look, and at the level `debug` nobody else does.
            task_line!(
                self,
                WARN,
                "executor_task_output_truncated",
                path,
                stdout_bytes = execution.stdout.total_bytes,
                stdout_bytes_kept = execution.stdout.bytes.len(),
                stderr_bytes = execution.stderr.total_bytes,
                stderr_bytes_kept = execution.stderr.bytes.len()
            );
        }
    }

    fn tell_handler(&self, event: &Event<'_>) {
        match event {
            Event::ParseFailed { partition, offset, error, policy } => {
                line!(
                    self,
                    WARN,
                    "handler",
                    "message_parse_failed",
                    partition = partition.partition(),
                    offset = offset.get(),
                    policy,
                    error = error.reason()
                );
            }
            Event::Tombstone { partition, offset } => {
                line!(
                    self,
                    DEBUG,
                    "handler",
                    "tombstone_received",
                    partition = partition.partition(),
                    offset = offset.get()
                );
            }
            Event::HookFailed { hook, partition, window, offset, task, error, panicked } => {
                let partition = partition.map(PartitionId::partition);
                let (window_id, offset) = (window.map(|id| id.get()), offset.map(|at| at.get()));
                let task_id = task.unwrap_or_default();
                let hook_name = hook.as_str();
                match hook {
                    Hook::OnMessageComplete => {
                        line!(
                            self,
                            ERROR,
                            "handler",
                            "on_message_complete_failed",
                            hook = hook_name,
                            partition,
                            window_id,
                            offset,
                            task_id,
                            panicked,
                            error
                        );
                    }
                    Hook::TaskPriority => {
                        line!(
                            self,
                            ERROR,
                            "handler",
                            "priority_fn_failed",
                            hook = hook_name,
                            partition,
                            window_id,
                            offset,
                            task_id,
                            panicked,
                            error
                        );
                    }
                    _ => {
                        line!(
                            self,
                            ERROR,
                            "handler",
                            "hook_failed",
                            hook = hook_name,
                            partition,
                            window_id,
                            offset,
                            task_id,
                            panicked,
                            error
                        );
                    }
                }
            }
            Event::CallBlocked { call, lasted, .. } => {
                let partitions = numbers(&call.partitions);
                let seconds = lasted.as_secs_f64();
                line!(
                    self,
                    ERROR,
                    "handler",
                    "hook_blocked",
                    hook = call.name,
                    partitions,
                    seconds
                );
            }
            Event::CallWentOn { call } => {
                let partitions = numbers(&call.partitions);
                line!(self, INFO, "handler", "hook_went_on", hook = call.name, partitions);
            }
            Event::Arranged { partition, window, messages, tasks } => {
                line!(
                    self,
                    DEBUG,
                    "handler",
                    "window_arranged",
                    partition = partition.partition(),
                    window_id = window.get(),
                    messages,
                    tasks
                );
            }
            Event::MessageFinished { partition, offset, end: MessageEnd::Dropped, .. } => {
                line!(
                    self,
                    ERROR,
                    "partition",
                    "message_dropped",
                    partition = partition.partition(),
                    offset = offset.get()
                );
            }
            Event::WindowFinished { partition, window, tasks, duration } => {
                line!(
                    self,
                    DEBUG,
                    "partition",
                    "window_finished",
                    partition = partition.partition(),
                    window_id = window.get(),
                    tasks,
                    duration_seconds = duration.as_secs_f64()
                );
            }
            Event::PeriodicRun { name, duration, error: Some(error) } => {
                line!(
                    self,
                    WARN,
                    "periodic",
                    "periodic_task_failed",
                    name,
                    error,
                    duration_seconds = duration.as_secs_f64()
                );
            }
            Event::PeriodicRun { name, duration, error: None } => {
                line!(
                    self,
                    DEBUG,
                    "periodic",
                    "periodic_task_completed",
                    name,
                    duration_seconds = duration.as_secs_f64()
                );
            }
            _ => {}
        }
    }

    fn tell_delivery(&self, event: &Event<'_>) {
        match event {
            Event::SinkConnected { sink } => {
                line!(
                    self,
                    INFO,
                    "sink",
                    "sink_connected",
                    sink_type = sink.kind().as_str(),
                    sink_name = sink.name(),
                );
            }
            Event::Delivered { sink, payloads, duration } => {
                line!(
                    self,
                    DEBUG,
                    "sink",
                    "sink_delivered",
                    sink_type = sink.kind().as_str(),
                    sink_name = sink.name(),
                    payloads,
                    duration_seconds = duration.as_secs_f64()
                );
            }
            Event::DeliveryFailed { sink, payloads, error, attempt } => {
                line!(self, WARN, "sink", "sink_delivery_failed",
                    sink_type = sink.kind().as_str(), sink_name = sink.name(), payloads, attempt,
                    error_kind = error.kind().as_str(), error = %error);
            }
            Event::DeliveryRetried { sink, payloads, delay } => {
                line!(
                    self,
                    WARN,
                    "sink",
                    "sink_delivery_retry",
                    sink_type = sink.kind().as_str(),
                    sink_name = sink.name(),
                    payloads,
                    delay_seconds = delay.as_secs_f64()
                );
            }
            Event::DeliverySkipped { sink, payloads } => {
                line!(
                    self,
                    WARN,
                    "sink",
                    "sink_delivery_skipped",
                    sink_type = sink.kind().as_str(),
                    sink_name = sink.name(),
                    payloads
                );
            }
            Event::DeadLettered { partition, offset, kind: "payload", error_kind, error } => {
                line!(
                    self,
                    WARN,
                    "sink",
                    "sink_delivery_failed_to_dlq",
                    partition = partition.partition(),
                    offset = offset.get(),
                    error_kind,
                    error
                );
            }
            Event::DeadLettered { partition, offset, kind, error_kind, error } => {
                line!(
                    self,
                    WARN,
                    "sink",
                    "message_dead_lettered",
                    partition = partition.partition(),
                    offset = offset.get(),
                    kind,
                    error_kind,
                    error
                );
            }
            Event::DeadLetterFailed { partition, offset, error, dropped } => {
                line!(self, ERROR, "sink", "dlq_send_failed",
                    partition = partition.partition(), offset = offset.get(), dropped,
                    error_kind = error.kind().as_str(), error = %error);
            }
            _ => {}
        }
    }
}

impl Observer for LogObserver {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::TaskStarted { .. }
            | Event::TaskFinished { .. }
            | Event::TaskRetried { .. }
            | Event::RetriesExhausted { .. }
            | Event::TaskSkipped { .. }
            | Event::TaskReplaced { .. } => self.tell_task(event),
            Event::ParseFailed { .. }
            | Event::Tombstone { .. }
            | Event::HookFailed { .. }
            | Event::Arranged { .. }
            | Event::MessageFinished { .. }
            | Event::WindowFinished { .. }
            | Event::CallBlocked { .. }
            | Event::CallWentOn { .. }
            | Event::PeriodicRun { .. } => self.tell_handler(event),
            Event::SinkConnected { .. }
            | Event::Delivered { .. }
            | Event::DeliveryFailed { .. }
            | Event::DeliveryRetried { .. }
            | Event::DeliverySkipped { .. }
            | Event::DeadLettered { .. }
            | Event::DeadLetterFailed { .. } => self.tell_delivery(event),
            // What happens for every poll or hook call is for the metrics only.
            Event::Consumed { .. }
            | Event::Depth { .. }
            | Event::HookFinished { .. }
            | Event::MessageLeft { .. }
            | Event::TaskScheduled { .. } => {}
            _ => self.tell_partition(event),
        }
    }
}

/// Writes the numbers of partitions with blanks between them.
fn numbers(partitions: &[PartitionId]) -> String {
    let numbers: Vec<_> = partitions.iter().map(|id| id.partition().to_string()).collect();
    numbers.join(" ")
}
