//! The settings of the pool: the part of the `executor` section that concerns processes.

use crate::environment::{DENY_DEFAULT, NamePattern, fault_of};
use crate::limits::{self, LIMITS, LimitsSection};
use drakkar_api::{Field, Kind, Problems, Secret};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of the pool, for the validator and the reference page. They live in the section
/// `executor`, together with those of the engine.
pub const FIELDS: &[Field] = &[
    Field {
        name: "binary_path",
        kind: Kind::Optional(&Kind::Text { min_length: 1 }),
        default: Some("null"),
        about: "The program of tasks that name none. A name without a slash is searched for in the \
                worker's PATH, a relative path starts from the worker's working directory. It must \
                exist at start. Without it, every task must name its own program.",
    },
    Field {
        name: "wrap",
        kind: Kind::List(&Kind::Text { min_length: 1 }),
        default: Some("[]"),
        about: "A program and its first arguments that start every task's program, whose path and \
                arguments follow them: `[nice, -n, \"10\"]`, say, or a sandbox. The program is found \
                as `binary_path` is and must exist at start. It should become the task's program \
                rather than wait for it, and how it tells that it could not is its own affair; exit \
                codes 126 and 127 are usual.",
    },
    Field {
        name: "limits",
        kind: Kind::Section(&LIMITS),
        default: Some("{}"),
        about: "What the processes of tasks may use.",
    },
    Field {
        name: "env",
        kind: Kind::Map(&Kind::Secret),
        default: Some("{}"),
        about: "Environment variables for every task. They win over inherited ones, and the task's \
                own win over them. The values are never shown.",
    },
    Field {
        name: "env_inherit_parent",
        kind: Kind::Bool,
        default: Some("true"),
        about: "Whether tasks get the worker's environment as it was at start, less what \
                `env_inherit_deny` names.",
    },
    Field {
        name: "env_inherit_deny",
        kind: Kind::List(&Kind::Text { min_length: 1 }),
        default: Some(
            r#"["DRAKKAR_*", "*PASSWORD*", "*SECRET*", "*TOKEN*", "*_KEY", "*_DSN", "*CREDENTIAL*", "*PASSWD*", "*PASSPHRASE*", "*_PASS", "*_PWD", "*_SALT", "*_AUTH", "*_AUTH_*", "*APIKEY*", "*PRIVATE_KEY*", "*_CERT", "*_PEM", "*DATABASE_URL"]"#,
        ),
        about: "Patterns of variable names that are not inherited, compared with the whole name in \
                any case: `*` is any text, `?` one character, `[a-z]` and `[!a-z]` one of a set. An \
                empty list trusts the tasks with everything. `env` is not affected.",
    },
    Field {
        name: "max_executors",
        kind: Kind::Int { min: 1, max: SLOTS_MAX as i64 },
        default: Some("4"),
        about: "How many tasks run at once, over all partitions. Each takes one thread and up to \
                five file descriptors of the worker.",
    },
    Field {
        name: "task_timeout_seconds",
        kind: Kind::Float { min: 1.0, max: SECONDS_MAX },
        default: Some("120"),
        about: "How long a task may run from its start, unless it has a timeout of its own. Then \
                its process group gets SIGTERM and the task counts as timed out.",
    },
    Field {
        name: "kill_grace_seconds",
        kind: Kind::Float { min: 0.0, max: SECONDS_MAX },
        default: Some("5"),
        about: "How long a timed out task may take to end after SIGTERM before its process group \
                gets SIGKILL. With 0 it gets SIGKILL at once.",
    },
    Field {
        name: "pipe_drain_seconds",
        kind: Kind::Float { min: 0.0, max: SECONDS_MAX },
        default: Some("0.5"),
        about: "How long to go on reading output that other processes of a task's group hold open \
                after its program has ended. Then they are killed.",
    },
    Field {
        name: "reap_timeout_seconds",
        kind: Kind::Float { min: 0.0, max: SECONDS_MAX },
        default: Some("5"),
        about: "How long to wait for a process to die of SIGKILL, which one in uninterruptible I/O \
                does not. Then the task is reported, its slot is free, and the process is reaped \
                whenever it dies.",
    },
    Field {
        name: "stdout_bytes_max",
        kind: Kind::Int { min: 0, max: BYTES_MAX },
        default: Some("16777216"),
        about: "How many bytes of a task's standard output are kept in memory. What follows when \
                there are more is up to `output_over_limit`.",
    },
    Field {
        name: "stderr_bytes_max",
        kind: Kind::Int { min: 0, max: BYTES_MAX },
        default: Some("1048576"),
        about: "How many bytes of a task's standard error are kept in memory. What follows when \
                there are more is up to `output_over_limit`.",
    },
    Field {
        name: "output_over_limit",
        kind: Kind::Word(&["truncate", "fail"]),
        default: Some(r#""truncate""#),
        about: "What follows when a task writes more than is kept of it. `truncate` reads, counts and \
                drops the rest and leaves it at a mark on the result. `fail` ends the task's process \
                group as at its deadline, and the task has failed, whatever its exit code; what it \
                wrote up to the limit is kept.",
    },
    Field {
        name: "measure_peak_memory",
        kind: Kind::Bool,
        default: Some("false"),
        about: "Whether to read the peak memory of a task that has closed its output and not yet \
                ended. This costs the worker about 15 microseconds a task and often comes too late. \
                Peaks well above the worker's own are known without it.",
    },
];

/// More slots than any machine can serve.
const SLOTS_MAX: usize = 65_536;
/// One year.
const SECONDS_MAX: f64 = 31_536_000.0;
/// 1 GiB.
const BYTES_MAX: i64 = 1 << 30;

/// What follows when a task writes more than is kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum OverLimitPolicy {
    /// The rest is read, counted and dropped; the result is marked.
    #[default]
    Truncate,
    /// The task is ended and has failed.
    Fail,
}

/// The settings as they stand in the configuration; [`validate`](PoolSection::validate) makes a
/// [`PoolConfig`] of them. [`FIELDS`] says what each means.
///
/// Keys of the section that belong to others are ignored here: the facade reports unknown ones.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct PoolSection {
    /// The program of tasks that name none.
    pub binary_path: Option<PathBuf>,
    /// What starts every task's program, if anything.
    pub wrap: Vec<String>,
    /// What the processes of tasks may use.
    pub limits: LimitsSection,
    /// Environment variables for every task.
    pub env: BTreeMap<String, Secret<String>>,
    /// Whether tasks get the worker's environment.
    pub env_inherit_parent: bool,
    /// Patterns of names that are not inherited.
    pub env_inherit_deny: Vec<String>,
    /// How many tasks run at once.
    pub max_executors: usize,
    /// How long a task may run.
    pub task_timeout_seconds: f64,
    /// From SIGTERM to SIGKILL.
    pub kill_grace_seconds: f64,
    /// From the program's end to the end of reading what others hold open.
    pub pipe_drain_seconds: f64,
    /// From SIGKILL to giving up on a process.
    pub reap_timeout_seconds: f64,
    /// How much of standard output is kept.
    pub stdout_bytes_max: usize,
    /// How much of standard error is kept.
    pub stderr_bytes_max: usize,
    /// What follows when there is more.
    pub output_over_limit: OverLimitPolicy,
    /// Whether to read the peak memory of small tasks too.
    pub measure_peak_memory: bool,
}

impl Default for PoolSection {
    fn default() -> Self {
        Self {
            binary_path: None,
            wrap: Vec::new(),
            limits: LimitsSection::default(),
            env: BTreeMap::new(),
            env_inherit_parent: true,
            env_inherit_deny: DENY_DEFAULT.iter().map(|pattern| (*pattern).to_owned()).collect(),
            max_executors: 4,
            task_timeout_seconds: 120.0,
            kill_grace_seconds: 5.0,
            pipe_drain_seconds: 0.5,
            reap_timeout_seconds: 5.0,
            stdout_bytes_max: 16 * 1024 * 1024,
            stderr_bytes_max: 1024 * 1024,
            output_over_limit: OverLimitPolicy::Truncate,
            measure_peak_memory: false,
        }
    }
}

/// Checked settings of a [`ProcessPool`](crate::ProcessPool).
#[derive(Clone, Debug)]
pub struct PoolConfig {
    pub(crate) binary: Option<PathBuf>,
    pub(crate) wrap: Vec<String>,
    pub(crate) limits: LimitsSection,
    pub(crate) env: BTreeMap<String, Secret<String>>,
    pub(crate) env_inherit_parent: bool,
    pub(crate) env_inherit_deny: Vec<NamePattern>,
    pub(crate) slots: usize,
    pub(crate) task_timeout: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) pipe_drain: Duration,
    pub(crate) reap_timeout: Duration,
    pub(crate) stdout_bytes_max: usize,
    pub(crate) stderr_bytes_max: usize,
    pub(crate) output_over_limit: OverLimitPolicy,
    pub(crate) measure_peak_memory: bool,
}

impl PoolSection {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with paths such as `executor.max_executors`.
    pub fn validate(self) -> Result<PoolConfig, Problems> {
        let mut problems = Problems::new();
        self.check_binary(&mut problems);
        self.check_wrap(&mut problems);
        self.limits.check(&mut problems);
        self.check_env(&mut problems);
        self.check_sizes(&mut problems);
        let mut seconds = |name, least, value| seconds(name, least, value, &mut problems);
        let config = PoolConfig {
            task_timeout: seconds("task_timeout_seconds", 1.0, self.task_timeout_seconds),
            kill_grace: seconds("kill_grace_seconds", 0.0, self.kill_grace_seconds),
            pipe_drain: seconds("pipe_drain_seconds", 0.0, self.pipe_drain_seconds),
            reap_timeout: seconds("reap_timeout_seconds", 0.0, self.reap_timeout_seconds),
            binary: self.binary_path,
            wrap: self.wrap,
            limits: self.limits,
            env: self.env,
            env_inherit_parent: self.env_inherit_parent,
            env_inherit_deny: self.env_inherit_deny.iter().map(|p| NamePattern::new(p)).collect(),
            slots: self.max_executors,
            stdout_bytes_max: self.stdout_bytes_max,
            stderr_bytes_max: self.stderr_bytes_max,
            output_over_limit: self.output_over_limit,
            measure_peak_memory: self.measure_peak_memory,
        };
        problems.into_result(config)
    }

    fn check_binary(&self, problems: &mut Problems) {
        if self.binary_path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            problems.push(path_of("binary_path"), "must not be empty; leave it out to have none");
        }
    }

    fn check_wrap(&self, problems: &mut Problems) {
        if self.wrap.first().is_some_and(String::is_empty) {
            problems.push(path_of("wrap"), "must begin with a program, such as [nice, -n, \"10\"]");
        }
        if self.wrap.iter().any(|word| word.contains('\0')) {
            problems.push(path_of("wrap"), "must not hold a NUL byte");
        }
        if !self.wrap.is_empty() && !self.limits.is_empty() {
            let message = format!(
                "must be empty when {} sets something, which makes a wrap of its own; or say it all \
                 here, such as [prlimit, --cpu=60, nice]",
                limits::PATH,
            );
            problems.push(path_of("wrap"), message);
        }
    }

    fn check_env(&self, problems: &mut Problems) {
        for fault in self.env.iter().filter_map(|(name, value)| fault_of(name, value.expose())) {
            problems.push(path_of("env"), fault);
        }
        if self.env_inherit_deny.iter().any(String::is_empty) {
            problems.push(path_of("env_inherit_deny"), "must not hold an empty pattern");
        }
    }

    fn check_sizes(&self, problems: &mut Problems) {
        let slots = self.max_executors;
        if !(1..=SLOTS_MAX).contains(&slots) {
            let message = format!("must be between 1 and {SLOTS_MAX}, found {slots}");
            problems.push(path_of("max_executors"), message);
        }
        for (name, bytes) in [
            ("stdout_bytes_max", self.stdout_bytes_max),
            ("stderr_bytes_max", self.stderr_bytes_max),
        ] {
            if i64::try_from(bytes).is_ok_and(|bytes| bytes <= BYTES_MAX) {
                continue;
            }
            problems.push(path_of(name), format!("must be at most {BYTES_MAX}, found {bytes}"));
        }
    }
}

impl PoolConfig {
    /// Returns how many tasks run at once.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Returns how long a task may run that has no timeout of its own.
    pub fn task_timeout(&self) -> Duration {
        self.task_timeout
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolSection::default().validate().expect("the defaults are valid, which a test shows")
    }
}

fn path_of(field: &str) -> String {
    format!("executor.{field}")
}

fn seconds(name: &str, least: f64, value: f64, problems: &mut Problems) -> Duration {
    if (least..=SECONDS_MAX).contains(&value) {
        return Duration::from_secs_f64(value);
    }
    let message = format!("must be between {least} and {SECONDS_MAX} seconds, found {value}");
    problems.push(path_of(name), message);
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JSON is YAML, and the defaults are written in the part that both have in common.
    fn table_of_defaults() -> serde_json::Map<String, serde_json::Value> {
        let parse = |text: &str| serde_json::from_str(text).expect("a default is JSON");
        let default = |field: &Field| field.default.expect("every setting has a default");
        FIELDS.iter().map(|field| (field.name.to_owned(), parse(default(field)))).collect()
    }

    #[test]
    fn the_table_has_the_defaults_of_the_section() {
        let table = table_of_defaults();
        let section: PoolSection =
            serde_json::from_value(table.clone().into()).expect("the table fits the section");
        assert_eq!(section, PoolSection::default());

        // A field that the section does not know would be ignored above.
        for name in table.keys() {
            let wrong = serde_json::json!({ name: { "no": ["such", "value"] } });
            assert!(serde_json::from_value::<PoolSection>(wrong).is_err(), "{name} is no setting");
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = PoolConfig::default();
        assert_eq!((config.slots(), config.task_timeout()), (4, Duration::from_secs(120)));
    }

    #[test]
    fn every_problem_is_reported_with_its_path() {
        let section = PoolSection {
            binary_path: Some(PathBuf::new()),
            wrap: vec![String::new(), "a\0b".to_owned()],
            limits: LimitsSection { cpu_seconds: Some(0), ..LimitsSection::default() },
            env: BTreeMap::from([("A=B".to_owned(), Secret::new("hunter2".to_owned()))]),
            env_inherit_deny: vec![String::new()],
            max_executors: 0,
            task_timeout_seconds: 0.5,
            kill_grace_seconds: -1.0,
            pipe_drain_seconds: f64::NAN,
            reap_timeout_seconds: f64::INFINITY,
            stdout_bytes_max: usize::MAX,
            stderr_bytes_max: 1 << 31,
            ..PoolSection::default()
        };
        assert!(!format!("{section:?}").contains("hunter2"), "{section:?}");
        let problems = section.validate().expect_err("everything is wrong");
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "executor.binary_path",
                // It is empty, it holds a NUL byte, and there are limits.
                "executor.wrap",
                "executor.wrap",
                "executor.wrap",
                "executor.limits.cpu_seconds",
                "executor.env",
                "executor.env_inherit_deny",
                "executor.max_executors",
                "executor.stdout_bytes_max",
                "executor.stderr_bytes_max",
                "executor.task_timeout_seconds",
                "executor.kill_grace_seconds",
                "executor.pipe_drain_seconds",
                "executor.reap_timeout_seconds",
            ]
        );
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
}
