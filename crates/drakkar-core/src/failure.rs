//! What follows a failure, by how the task or the hook ended: `executor.on_failure`.
//!
//! A policy counts attempts of all kinds: if a task times out once and then exits with an error, its
//! second ending is judged by the policy of exit codes, as the second attempt.

use crate::retry::Backoff;
use drakkar_api::{Field, Kind, Problems, Section, TaskOutcome};
use serde::Deserialize;

/// The section `executor.on_failure`.
pub(crate) const SECTION: Section = Section {
    about: "What follows when a task or a hook fails, by how it ended. For tasks it is what `Policy`, \
            the default answer of `on_error`, means.",
    fields: &[
        policy("exit_code"),
        policy("signal"),
        policy("timeout"),
        policy("spawn_failure"),
        policy("output_over_limit"),
        policy("hook_error"),
        Field { kind: Kind::Section(&ARRANGE_POLICY), ..policy("arrange_error") },
        Field {
            name: "parse_error",
            kind: Kind::Optional(&Kind::Section(&POLICY)),
            default: Some("null"),
            about: "What follows when a value does not parse, with the keys of `exit_code`, for a \
                    `decode` whose error may pass, such as that of a lookup. Only that value is \
                    decoded again; its window waits for it. With null, values are decoded once, and \
                    `kafka.on_parse_error` says what follows; it must be left out beside this.",
        },
    ],
};

const fn policy(name: &'static str) -> Field {
    Field { name, kind: Kind::Section(&POLICY), default: Some("{}"), about: "" }
}

const POLICY: Section = Section {
    about: "What follows one kind of failure. `hook_error` is for an error or a panic of \
            `on_task_complete`, `on_error`, `on_message_complete` and `on_window_complete`.",
    fields: &[ATTEMPTS, INITIAL_BACKOFF, MAX_BACKOFF, THEN],
};

const ARRANGE_POLICY: Section = Section {
    about: "What follows an error or a panic of `arrange`, `decode`, `message_label` or \
            `task_priority`, and tasks of `arrange` that must be refused. `attempts` are those for a \
            whole window; after them it is arranged message by message, and `then` is for each \
            message that still fails.",
    fields: &[
        Field { default: Some("4"), ..ATTEMPTS },
        Field { default: Some("100"), ..INITIAL_BACKOFF },
        Field { default: Some("5000"), ..MAX_BACKOFF },
        THEN,
    ],
};

const ATTEMPTS: Field = Field {
    name: "attempts",
    kind: Kind::Int { min: 1, max: 1_000_000 },
    default: Some("1"),
    about: "How often it is tried in all, the first time included. An attempt that waits for its \
            time holds no slot.",
};

const INITIAL_BACKOFF: Field = Field {
    name: "initial_backoff_ms",
    kind: Kind::Int { min: 1, max: 86_400_000 },
    default: Some("1000"),
    about: "The wait before the second attempt, in milliseconds; it doubles each time, and jitter \
            takes away up to half.",
};

const MAX_BACKOFF: Field = Field {
    name: "max_backoff_ms",
    kind: Kind::Int { min: 1, max: 86_400_000 },
    default: Some("60000"),
    about: "The longest wait between two attempts, in milliseconds.",
};

const THEN: Field = Field {
    name: "then",
    kind: Kind::Word(&["dead_letter", "skip", "stop"]),
    default: Some("dead_letter"),
    about: "What follows the last attempt: `dead_letter` writes the message to the dead letters, \
            `skip` accepts the failure, counted, and `stop` ends the worker with the offset \
            uncommitted, so that its next start begins there.",
};

/// The section as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RawOnFailure {
    /// A task that exited with a code other than 0.
    pub exit_code: RawPolicy,
    /// A task that a signal ended.
    pub signal: RawPolicy,
    /// A task that ran longer than its timeout.
    pub timeout: RawPolicy,
    /// A task whose program could not be started.
    pub spawn_failure: RawPolicy,
    /// A task that wrote more than it may.
    pub output_over_limit: RawPolicy,
    /// A hook that answered an error or panicked.
    pub hook_error: RawPolicy,
    /// A window that could not be arranged.
    pub arrange_error: RawPolicy,
    /// A value that does not parse; without it, `kafka.on_parse_error` says what follows.
    pub parse_error: Option<RawPolicy>,
}

impl Default for RawOnFailure {
    fn default() -> Self {
        let [exit_code, signal, timeout, spawn_failure, output_over_limit, hook_error] =
            std::array::from_fn(|_| RawPolicy::default());
        let arrange_error = RawPolicy {
            attempts: 4,
            initial_backoff_ms: 100,
            max_backoff_ms: 5000,
            ..RawPolicy::default()
        };
        Self {
            exit_code,
            signal,
            timeout,
            spawn_failure,
            output_over_limit,
            hook_error,
            arrange_error,
            parse_error: None,
        }
    }
}

/// One policy as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct RawPolicy {
    /// All attempts, the first one included.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub initial_backoff_ms: u64,
    /// The longest wait.
    pub max_backoff_ms: u64,
    /// What follows the last attempt.
    pub then: FailureAction,
}

impl Default for RawPolicy {
    fn default() -> Self {
        Self {
            attempts: 1,
            initial_backoff_ms: 1000,
            max_backoff_ms: 60_000,
            then: FailureAction::DeadLetter,
        }
    }
}

/// What follows the last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureAction {
    /// The message goes to the dead letters.
    #[default]
    DeadLetter,
    /// The failure is accepted, counted, and the message goes on.
    Skip,
    /// The worker ends, with the offset uncommitted.
    Stop,
}

/// What follows one kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePolicy {
    /// All attempts, the first one included; at least 1.
    pub attempts_max: u32,
    /// The waits between them.
    pub backoff: Backoff,
    /// What follows the last one.
    pub then: FailureAction,
}

impl Default for FailurePolicy {
    /// One attempt, then the dead letters.
    fn default() -> Self {
        Self::new("", &RawPolicy::default(), &mut Problems::new())
    }
}

impl FailurePolicy {
    fn new(path: &str, raw: &RawPolicy, problems: &mut Problems) -> Self {
        let (initial, max) = (raw.initial_backoff_ms, raw.max_backoff_ms);
        let backoff = Backoff::checked(path, initial, max, problems);
        Self { attempts_max: raw.attempts, backoff, then: raw.then }
    }
}

/// What follows each kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailurePolicies {
    /// A task that exited with a code other than 0.
    pub exit_code: FailurePolicy,
    /// A task that a signal ended.
    pub signal: FailurePolicy,
    /// A task that ran longer than its timeout.
    pub timeout: FailurePolicy,
    /// A task whose program could not be started.
    pub spawn_failure: FailurePolicy,
    /// A task that wrote more than it may.
    pub output_over_limit: FailurePolicy,
    /// A hook that answered an error or panicked.
    pub hook_error: FailurePolicy,
    /// A window that could not be arranged; `attempts_max` counts those of the whole window.
    pub arrange_error: FailurePolicy,
    /// A value that does not parse. If there is none, it is decoded once, and
    /// [`EngineConfig::on_parse_error`](crate::EngineConfig::on_parse_error) says what follows.
    pub parse_error: Option<FailurePolicy>,
}

impl Default for FailurePolicies {
    fn default() -> Self {
        Self::new(&RawOnFailure::default(), &mut Problems::new())
    }
}

impl FailurePolicies {
    /// Checks the section; problems are noted.
    pub(crate) fn new(raw: &RawOnFailure, problems: &mut Problems) -> Self {
        let mut policy = |name: &str, raw: &RawPolicy| {
            FailurePolicy::new(&format!("executor.on_failure.{name}"), raw, problems)
        };
        Self {
            exit_code: policy("exit_code", &raw.exit_code),
            signal: policy("signal", &raw.signal),
            timeout: policy("timeout", &raw.timeout),
            spawn_failure: policy("spawn_failure", &raw.spawn_failure),
            output_over_limit: policy("output_over_limit", &raw.output_over_limit),
            hook_error: policy("hook_error", &raw.hook_error),
            arrange_error: policy("arrange_error", &raw.arrange_error),
            parse_error: raw.parse_error.as_ref().map(|raw| policy("parse_error", raw)),
        }
    }

    /// Returns the policy for how a task ended, which was no success.
    pub(crate) fn of(&self, outcome: &TaskOutcome) -> FailurePolicy {
        match outcome {
            TaskOutcome::Signal(_) => self.signal,
            TaskOutcome::Timeout { .. } => self.timeout,
            TaskOutcome::SpawnFailure { .. } => self.spawn_failure,
            TaskOutcome::OutputOverLimit { .. } => self.output_over_limit,
            // A cancelled run is never judged, a success neither.
            _ => self.exit_code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_ending_has_its_policy() {
        let of = |attempts_max| FailurePolicy { attempts_max, ..FailurePolicy::default() };
        let policies = FailurePolicies {
            exit_code: of(2),
            signal: of(3),
            timeout: of(4),
            spawn_failure: of(5),
            output_over_limit: of(6),
            hook_error: of(7),
            arrange_error: of(8),
            parse_error: None,
        };
        let check = |outcome: TaskOutcome, expect| {
            assert_eq!(policies.of(&outcome).attempts_max, expect, "{outcome}");
        };
        check(TaskOutcome::ExitCode(1), 2);
        check(TaskOutcome::Signal(9), 3);
        check(TaskOutcome::Timeout { limit: Duration::from_secs(1) }, 4);
        let kind = drakkar_api::SpawnErrorKind::NotFound;
        check(TaskOutcome::SpawnFailure { kind, reason: String::new() }, 5);
        check(TaskOutcome::OutputOverLimit { limit_bytes: 1 }, 6);
    }

    #[test]
    fn the_tables_state_the_defaults_of_each_policy() {
        let stated = SECTION.fields.iter().map(|field| {
            let section = match field.kind {
                Kind::Section(section) => section,
                Kind::Optional(Kind::Section(_)) => {
                    assert_eq!(field.default, Some("null"));
                    return (field.name.to_owned(), serde_json::Value::Null);
                }
                _ => panic!("{} is no policy", field.name),
            };
            let settings = section.fields.iter().map(|setting| {
                let text = setting.default.expect("every setting here has a default");
                let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
                (setting.name.to_owned(), value)
            });
            (field.name.to_owned(), serde_json::Value::Object(settings.collect()))
        });
        let stated = serde_json::Value::Object(stated.collect());
        let stated: RawOnFailure = serde_json::from_value(stated).expect("well typed");
        assert_eq!(stated, RawOnFailure::default());
    }

    #[test]
    fn waits_that_contradict_each_other_are_found_in_each_policy() {
        let bad = RawPolicy { initial_backoff_ms: 2, max_backoff_ms: 1, ..RawPolicy::default() };
        let raw = RawOnFailure { timeout: bad.clone(), hook_error: bad, ..RawOnFailure::default() };
        let mut problems = Problems::new();
        FailurePolicies::new(&raw, &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "executor.on_failure.timeout.initial_backoff_ms",
                "executor.on_failure.hook_error.initial_backoff_ms"
            ]
        );
    }
}
