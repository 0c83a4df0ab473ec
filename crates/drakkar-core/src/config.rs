//! The engine's settings.
//!
//! They live in two sections of the configuration, `executor` and `kafka`, and in `sinks.retry` and
//! `dlq`, because that is where users of the original look for them. The facade checks them against
//! these tables and deserialises the raw structs from the same values.

use crate::backpressure::Thresholds;
use crate::commit::CommitPolicy;
use crate::failure::{self, FailureAction, FailurePolicies, RawOnFailure};
use crate::retry::Backoff;
use drakkar_api::{Field, Kind, Problems, Section};
use serde::Deserialize;
use std::time::Duration;

const MAX: i64 = i64::MAX;

/// The engine's settings in the section `executor`.
pub const EXECUTOR_FIELDS: &[Field] = &[
    Field {
        name: "window_size",
        kind: Kind::Int { min: 1, max: 1_000_000 },
        default: Some("100"),
        about: "The most messages given to one `arrange`.",
    },
    Field {
        name: "max_retries",
        kind: Kind::Int { min: 0, max: 1_000_000 },
        default: Some("3"),
        about: "How many `Retry` answers of `on_error` are honoured for each task; then the failure \
                policy decides.",
    },
    Field {
        name: "on_failure",
        kind: Kind::Section(&failure::SECTION),
        default: Some("{}"),
        about: "",
    },
    Field {
        name: "drain_timeout_seconds",
        kind: Kind::Int { min: 1, max: 86_400 },
        default: Some("30"),
        about: "How long a revoke or a shutdown waits for started work, in seconds; what is left is \
                killed. Must be shorter than `kafka.max_poll_interval_ms`.",
    },
    Field {
        name: "backpressure_high_multiplier",
        kind: Kind::Int { min: 1, max: 1_000_000 },
        default: Some("32"),
        about: "No message is polled once `max_executors` times this many messages and tasks are in \
                the worker. Once those in windows alone are as many, a partition forms a window of \
                what is buffered only if it has none, until they are half way down to the lower \
                mark. A partition whose `arrange` takes longer than a second is left out, with \
                the window that is arranged and what waits behind it.",
    },
    Field {
        name: "backpressure_low_multiplier",
        kind: Kind::Int { min: 1, max: 1_000_000 },
        default: Some("4"),
        about: "Polling resumes at `max_executors` times this many; half way down to it when no more \
                than it is buffered, arranged, or with the executor, and the rest waits for something \
                else. Must be lower than `backpressure_high_multiplier`.",
    },
    Field {
        name: "max_tasks_per_window",
        kind: Kind::Int { min: 1, max: 100_000_000 },
        default: Some("10000"),
        about: "The most tasks that one `arrange` may return; more is an error of the hook. When a \
                window is taken message by message because its `arrange` failed, what makes more \
                together waits for its turn, as a window of its own.",
    },
    Field {
        name: "max_replacements",
        kind: Kind::Int { min: 0, max: 1_000_000 },
        default: Some("100"),
        about: "The longest chain of tasks that replace each other; a longer one is an error of \
                `on_error`.",
    },
    Field {
        name: "max_buffered_bytes",
        kind: Kind::Int { min: 1_048_576, max: MAX },
        default: Some("268435456"),
        about: "No message is polled once messages, inputs of tasks, captured outputs and \
                undelivered payloads take this many bytes; polling resumes at half of it, or at three \
                quarters when slots would lie idle, as with `backpressure_low_multiplier`. Once \
                those of messages in windows alone take as many, no window is formed of what is \
                buffered either; only what is arranged already may exceed it. Once they and what \
                tasks are likely to put out, judged by those before them, would take as many, a \
                partition forms a window only if it has none, and of one message.",
    },
    Field {
        name: "max_buffered_payloads",
        kind: Kind::Int { min: 1, max: 100_000_000 },
        default: Some("20000"),
        about: "No message is polled and no window is formed once this many payloads are not \
                delivered; both go on at half of it, or at three quarters when slots would lie idle. \
                What is arranged already may exceed it.",
    },
    Field {
        name: "max_open_windows",
        kind: Kind::Int { min: 1, max: 1_000_000 },
        default: Some("1000"),
        about: "The most windows of one partition that are arranged and not finished; then the \
                partition's messages wait.",
    },
];

/// The engine's settings in the section `kafka`.
pub const KAFKA_FIELDS: &[Field] = &[
    Field {
        name: "on_parse_error",
        kind: Kind::Word(&["pass", "dead_letter", "skip", "stop"]),
        default: Some("pass"),
        about: "What follows when a message's value does not parse: `pass` gives it to the handler \
                without a payload, `dead_letter` writes it to the dead letters, `skip` drops it, \
                `stop` ends the worker with the offset uncommitted, so that its next start begins \
                there. Always counted and logged. Must be left out when \
                `executor.on_failure.parse_error` is there.",
    },
    Field {
        name: "max_ahead_offsets",
        kind: Kind::Int { min: 1, max: 100_000_000 },
        default: Some("100000"),
        about: "How many offsets of a partition may be read beyond the oldest unfinished one; then \
                the partition is not polled and is reported as stalled.",
    },
    Field {
        name: "stall_after_seconds",
        kind: Kind::Int { min: 1, max: 31_536_000 },
        default: Some("600"),
        about: "How long the oldest unfinished offset of a partition may stay the same; then the \
                partition is reported as stalled, with what that offset waits for, in the log and \
                in the metrics. What is finished and cannot be committed for as long is reported \
                too.",
    },
    Field {
        name: "stall_response",
        kind: Kind::Word(&["warn", "kill_task", "fail_ready"]),
        default: Some("fail_ready"),
        about: "What else follows when a partition is stalled: `warn` nothing, `kill_task` the \
                tasks that it waits for are killed once their offset has not moved for \
                `stall_after_seconds`, count as timed out, and are judged as such (if it waits for \
                something else, as `fail_ready`), `fail_ready` the worker is not ready \
                at `/readyz` until the partition goes on.",
    },
    Field {
        name: "buffer_messages",
        kind: Kind::Optional(&Kind::Int { min: 1, max: 10_000_000 }),
        default: Some("null"),
        about: "How many messages of each partition may wait in the worker for a window; null means \
                the larger of `max_poll_records` and twice `executor.window_size`.",
    },
    Field {
        name: "buffer_bytes",
        kind: Kind::Int { min: 1024, max: MAX },
        default: Some("16777216"),
        about: "How many bytes of each partition may wait in the worker for a window; one message \
                may exceed it.",
    },
];

/// The section `sinks.retry`.
pub const RETRY_SECTION: Section = Section {
    about: "How often a payload is sent again by itself, before `on_delivery_error` is asked.",
    fields: &[
        Field {
            name: "max_retries",
            kind: Kind::Int { min: 0, max: 1000 },
            default: Some("3"),
            about: "How often a payload is sent again when that is safe and may help.",
        },
        Field {
            name: "initial_backoff_ms",
            kind: Kind::Int { min: 1, max: 3_600_000 },
            default: Some("100"),
            about: "The wait before the first retry, in milliseconds; it doubles each time, and \
                    jitter takes away up to half.",
        },
        Field {
            name: "max_backoff_ms",
            kind: Kind::Int { min: 1, max: 3_600_000 },
            default: Some("10000"),
            about: "The longest wait between two attempts, in milliseconds.",
        },
        Field {
            name: "handler_retries",
            kind: Kind::Int { min: 0, max: 1000 },
            default: Some("2"),
            about: "How many `Retry` answers of `on_delivery_error` are honoured; then the payloads \
                    go to the dead letters.",
        },
    ],
};

/// The engine's part of the section `executor`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RawExecutor {
    /// See [`EXECUTOR_FIELDS`], as for all fields.
    pub window_size: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_retries: u32,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub on_failure: RawOnFailure,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub drain_timeout_seconds: u64,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub backpressure_high_multiplier: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub backpressure_low_multiplier: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_tasks_per_window: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_replacements: u32,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_buffered_bytes: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_buffered_payloads: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_open_windows: usize,
}

impl Default for RawExecutor {
    fn default() -> Self {
        Self {
            window_size: 100,
            max_retries: 3,
            on_failure: RawOnFailure::default(),
            drain_timeout_seconds: 30,
            backpressure_high_multiplier: 32,
            backpressure_low_multiplier: 4,
            max_tasks_per_window: 10_000,
            max_replacements: 100,
            max_buffered_bytes: 256 << 20,
            max_buffered_payloads: 20_000,
            max_open_windows: 1000,
        }
    }
}

/// The engine's part of the section `kafka`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RawKafka {
    /// See [`KAFKA_FIELDS`], as for all fields.
    pub on_parse_error: ParsePolicy,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_ahead_offsets: usize,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub stall_after_seconds: u64,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub stall_response: StallResponse,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub buffer_messages: Option<usize>,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub buffer_bytes: usize,
}

impl Default for RawKafka {
    fn default() -> Self {
        Self {
            on_parse_error: ParsePolicy::Pass,
            max_ahead_offsets: 100_000,
            stall_after_seconds: 600,
            stall_response: StallResponse::FailReady,
            buffer_messages: None,
            buffer_bytes: 16 << 20,
        }
    }
}

/// The section `sinks.retry`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RawRetry {
    /// See [`RETRY_SECTION`], as for all fields.
    pub max_retries: u32,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub initial_backoff_ms: u64,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub max_backoff_ms: u64,
    #[expect(missing_docs, reason = "the table above documents every setting")]
    pub handler_retries: u32,
}

impl Default for RawRetry {
    fn default() -> Self {
        Self { max_retries: 3, initial_backoff_ms: 100, max_backoff_ms: 10_000, handler_retries: 2 }
    }
}

/// What follows when a message's value does not parse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParsePolicy {
    /// The handler gets it without a payload.
    #[default]
    Pass,
    /// It goes to the dead letters.
    DeadLetter,
    /// It is dropped, counted.
    Skip,
    /// The worker ends, with the offset uncommitted.
    Stop,
}

impl ParsePolicy {
    /// Returns the word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::DeadLetter => "dead_letter",
            Self::Skip => "skip",
            Self::Stop => "stop",
        }
    }
}

impl From<FailureAction> for ParsePolicy {
    fn from(action: FailureAction) -> Self {
        match action {
            FailureAction::DeadLetter => Self::DeadLetter,
            FailureAction::Skip => Self::Skip,
            FailureAction::Stop => Self::Stop,
        }
    }
}

/// What follows when a partition is stalled, beside the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StallResponse {
    /// Nothing.
    Warn,
    /// The tasks that it waits for are killed and count as timed out.
    KillTask,
    /// The worker is not ready until the partition goes on.
    #[default]
    FailReady,
}

/// What follows when a dead letter cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendFailurePolicy {
    /// The offset is held and the letter tried again, for ever.
    #[default]
    Hold,
    /// After the retries of `sinks.retry` the letter is dropped, counted.
    Drop,
}

/// The engine's checked settings.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The most messages of a window; at least 1.
    pub window_size: usize,
    /// Retries of a failed task.
    pub task_retries_max: u32,
    /// What follows a failure, by how the task or the hook ended.
    pub on_failure: FailurePolicies,
    /// The deadline of a drain.
    pub drain_timeout: Duration,
    /// When the flow of all partitions closes and opens, by count.
    pub load_count: Thresholds,
    /// The same by bytes.
    pub load_bytes: Thresholds,
    /// The same by undelivered payloads.
    pub load_payloads: Thresholds,
    /// The most tasks that one `arrange` may return.
    pub window_tasks_max: usize,
    /// The longest chain of replacements.
    pub replacements_max: u32,
    /// The most unfinished windows of a partition.
    pub open_windows_max: usize,
    /// What follows when a value does not parse, unless `on_failure.parse_error` says it: see
    /// [`parse_policy`](Self::parse_policy).
    pub on_parse_error: ParsePolicy,
    /// How far a partition is read beyond its oldest unfinished offset.
    pub ahead_max: usize,
    /// How long the oldest unfinished offset may stay the same before its partition is reported.
    pub stall_after: Duration,
    /// What follows then, beside the report.
    pub stall_response: StallResponse,
    /// Messages of a partition that may wait for a window.
    pub buffer_messages: usize,
    /// Bytes of a partition that may wait for a window.
    pub buffer_bytes: usize,
    /// How commits are coalesced.
    pub commit: CommitPolicy,
    /// How long a window may be arranged before it and what waits behind it are left out of the
    /// load.
    pub arrange_patience: Duration,
    /// How long one sink may take to connect. Sinks have shorter deadlines of their own and better
    /// reasons; this is for one that has none.
    pub sink_connect_timeout: Duration,
    /// How often a payload is sent again by itself.
    pub delivery_retries_max: u32,
    /// The waits between those.
    pub delivery_backoff: Backoff,
    /// How many `Retry` answers of `on_delivery_error` are honoured.
    pub handler_delivery_retries_max: u32,
    /// What follows when a dead letter cannot be written.
    pub on_send_failure: SendFailurePolicy,
    /// The seed of all jitter.
    pub seed: u64,
}

impl Default for EngineConfig {
    /// What an empty configuration file gives, with 4 executors.
    fn default() -> Self {
        let raw = (RawExecutor::default(), RawKafka::default(), RawRetry::default());
        Self::new(raw.0, raw.1, raw.2, SendFailurePolicy::Hold, 4, 100)
            .expect("the defaults do not contradict each other")
    }
}

/// See [`EngineConfig::sink_connect_timeout`].
const SINK_CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

impl EngineConfig {
    /// Checks settings against each other. `slots` is `executor.max_executors`, `poll_records` is
    /// `kafka.max_poll_records`.
    ///
    /// # Errors
    ///
    /// Every contradiction, with its path.
    pub fn new(
        executor: RawExecutor,
        kafka: RawKafka,
        retry: RawRetry,
        on_send_failure: SendFailurePolicy,
        slots: usize,
        poll_records: usize,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let (high, low) =
            (executor.backpressure_high_multiplier, executor.backpressure_low_multiplier);
        if low >= high {
            problems.push(
                "executor.backpressure_low_multiplier",
                format!(
                    "must be lower than backpressure_high_multiplier, found {low} and {high}; \
                     such as 4 and 32"
                ),
            );
        }
        let delivery_backoff = Backoff::checked(
            "sinks.retry",
            retry.initial_backoff_ms,
            retry.max_backoff_ms,
            &mut problems,
        );
        let on_failure = FailurePolicies::new(&executor.on_failure, &mut problems);
        if on_failure.parse_error.is_some() && kafka.on_parse_error != ParsePolicy::Pass {
            problems.push(
                "executor.on_failure.parse_error",
                format!(
                    "must not be set beside kafka.on_parse_error, found \"{}\": both say what follows \
                     when a value does not parse",
                    kafka.on_parse_error.as_str()
                ),
            );
        }
        let pause_at = slots.saturating_mul(high).max(1);
        let buffer_messages =
            kafka.buffer_messages.unwrap_or_else(|| poll_records.max(2 * executor.window_size));
        problems.into_result(Self {
            window_size: executor.window_size,
            task_retries_max: executor.max_retries,
            on_failure,
            drain_timeout: Duration::from_secs(executor.drain_timeout_seconds),
            load_count: Thresholds {
                pause_at,
                resume_at: slots.saturating_mul(low).clamp(1, pause_at.max(2) - 1),
            },
            load_bytes: Thresholds {
                pause_at: executor.max_buffered_bytes,
                resume_at: executor.max_buffered_bytes / 2,
            },
            load_payloads: Thresholds {
                pause_at: executor.max_buffered_payloads,
                resume_at: executor.max_buffered_payloads / 2,
            },
            window_tasks_max: executor.max_tasks_per_window,
            replacements_max: executor.max_replacements,
            open_windows_max: executor.max_open_windows,
            on_parse_error: kafka.on_parse_error,
            ahead_max: kafka.max_ahead_offsets,
            stall_after: Duration::from_secs(kafka.stall_after_seconds),
            stall_response: kafka.stall_response,
            buffer_messages,
            buffer_bytes: kafka.buffer_bytes,
            commit: CommitPolicy::default(),
            sink_connect_timeout: SINK_CONNECT_TIMEOUT,
            arrange_patience: Duration::from_secs(1),
            delivery_retries_max: retry.max_retries,
            delivery_backoff,
            handler_delivery_retries_max: retry.handler_retries,
            on_send_failure,
            seed: 0,
        })
    }

    /// Returns what follows when a value does not parse and is not decoded again.
    pub fn parse_policy(&self) -> ParsePolicy {
        self.on_failure.parse_error.map_or(self.on_parse_error, |policy| policy.then.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::RawPolicy;

    #[test]
    fn contradictions_are_reported_together() {
        let executor = RawExecutor { backpressure_low_multiplier: 32, ..RawExecutor::default() };
        let retry = RawRetry { initial_backoff_ms: 20_000, ..RawRetry::default() };
        let kafka = RawKafka::default();
        let problems = EngineConfig::new(executor, kafka, retry, SendFailurePolicy::Hold, 4, 100)
            .expect_err("two contradictions");
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["executor.backpressure_low_multiplier", "sinks.retry.initial_backoff_ms"]
        );
    }

    #[test]
    fn what_follows_a_parse_error_is_said_in_one_place() {
        let check = |parse_error: Option<RawPolicy>, on_parse_error, expect: Result<_, &str>| {
            let on_failure = RawOnFailure { parse_error, ..RawOnFailure::default() };
            let executor = RawExecutor { on_failure, ..RawExecutor::default() };
            let kafka = RawKafka { on_parse_error, ..RawKafka::default() };
            let retry = RawRetry::default();
            let config = EngineConfig::new(executor, kafka, retry, SendFailurePolicy::Hold, 4, 100);
            let policy = config.map(|config| config.parse_policy());
            let said = policy.map_err(|problems| problems.to_string());
            let text = |expect: &str| format!("1 problem in the configuration\n  {expect}");
            assert_eq!(said, expect.map_err(text));
        };
        let then = |then| Some(RawPolicy { then, ..RawPolicy::default() });
        check(None, ParsePolicy::Pass, Ok(ParsePolicy::Pass));
        check(None, ParsePolicy::Stop, Ok(ParsePolicy::Stop));
        check(then(FailureAction::Skip), ParsePolicy::Pass, Ok(ParsePolicy::Skip));
        check(
            then(FailureAction::Skip),
            ParsePolicy::Skip,
            Err(
                "executor.on_failure.parse_error: must not be set beside kafka.on_parse_error, found \
                 \"skip\": both say what follows when a value does not parse",
            ),
        );
    }

    #[test]
    fn the_thresholds_are_the_original_ones() {
        let config = EngineConfig::default();
        assert_eq!(config.load_count, Thresholds { pause_at: 128, resume_at: 16 });
        assert_eq!(config.buffer_messages, 200);
    }

    #[test]
    fn the_tables_state_the_defaults() {
        fn filled<T: serde::de::DeserializeOwned>(fields: &[Field]) -> T {
            let pairs = fields.iter().map(|field| {
                let text = field.default.expect("every setting here has a default");
                let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
                (field.name.to_owned(), value)
            });
            serde_json::from_value(serde_json::Value::Object(pairs.collect())).expect("well typed")
        }
        assert_eq!(filled::<RawExecutor>(EXECUTOR_FIELDS), RawExecutor::default());
        assert_eq!(filled::<RawKafka>(KAFKA_FIELDS), RawKafka::default());
        assert_eq!(filled::<RawRetry>(RETRY_SECTION.fields), RawRetry::default());
    }
}
