//! Tasks and how they end.
//!
//! A [`Task`] is one run of an external program, or its precomputed stand-in. Every way to end is a
//! variant of [`TaskOutcome`]; there are no magic exit codes.

use crate::{Message, Offset, TaskId};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One piece of work: a program to run, for the messages at `source_offsets`.
///
/// Made by [`Task::for_offset`] or [`Task::for_offsets`] and filled in by chaining:
///
/// ```
/// use drakkar_api::{Offset, Task};
///
/// let task = Task::for_offset(Offset::new(7)).arg("-w").stdin("to count").label("id", "job-7");
/// assert_eq!(task.args, ["-w"]);
/// ```
///
/// A common mistake is a task without offsets: it protects no message, so it is refused as an error
/// of the hook that returned it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Task {
    /// The id; `None` lets the engine make one that sorts by time.
    pub id: Option<TaskId>,
    /// Arguments after the program's name. No shell is involved.
    pub args: Vec<String>,
    /// What the program reads on its standard input; `None` connects `/dev/null`.
    pub stdin: Option<Bytes>,
    /// The messages that wait for this task, all of one partition. At least one.
    pub source_offsets: Vec<Offset>,
    /// Carried through to the hooks, never shown to the program.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Shown in logs, dead letters and the UI.
    pub labels: BTreeMap<String, String>,
    /// Environment variables of the program; they win over `executor.env`.
    pub env: BTreeMap<String, String>,
    /// The program; `None` takes `executor.binary_path`.
    pub binary: Option<PathBuf>,
    /// The deadline of one attempt; `None` takes `executor.task_timeout_seconds`.
    pub timeout: Option<Duration>,
    /// A result that is known already; no program runs.
    pub precomputed: Option<Precomputed>,
    /// The task that this one replaces; filled in by the engine unless set.
    pub parent: Option<TaskId>,
}

impl Task {
    /// Makes a task for the message at `offset`.
    pub fn for_offset(offset: Offset) -> Self {
        Self::for_offsets([offset])
    }

    /// Makes a task that several messages of one partition wait for (fan-in).
    pub fn for_offsets(offsets: impl IntoIterator<Item = Offset>) -> Self {
        Self { source_offsets: offsets.into_iter().collect(), ..Self::default() }
    }

    /// Makes a task for `message`.
    pub fn for_message<T>(message: &Message<T>) -> Self {
        Self::for_offset(message.offset())
    }

    /// Sets the id, which should be unique among the pending tasks of the partition.
    #[must_use]
    pub fn id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = Some(TaskId::new(id));
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets what the program reads on its standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Adds an entry of metadata.
    #[must_use]
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Sets an environment variable of the program.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the program.
    #[must_use]
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = Some(binary.into());
        self
    }

    /// Sets the deadline of one attempt.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Gives a result that is known already, so that no program runs.
    #[must_use]
    pub fn precomputed(mut self, result: Precomputed) -> Self {
        self.precomputed = Some(result);
        self
    }

    /// Returns the bytes of variable size that this task holds in memory.
    pub fn size_bytes(&self) -> usize {
        let args: usize = self.args.iter().map(String::len).sum();
        let pairs = self.env.iter().chain(&self.labels);
        let pairs: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        let result = self.precomputed.as_ref().map_or(0, Precomputed::size_bytes);
        args + pairs
            + self.stdin.as_ref().map_or(0, Bytes::len)
            + object_size(&self.metadata)
            + result
    }
}

/// Returns about how many bytes a JSON object holds.
pub(crate) fn object_size(object: &serde_json::Map<String, serde_json::Value>) -> usize {
    object.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => size_of::<Value>(),
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(object) => object_size(object),
    }
}

/// The result of a task that needs no program, say because a cache had it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precomputed {
    /// Standard output.
    pub stdout: Bytes,
    /// Standard error.
    pub stderr: Bytes,
    /// The exit code; other than 0 is a failure like a program's.
    pub exit_code: i32,
    /// How long the work took when it was done.
    pub duration: Duration,
}

impl Precomputed {
    /// Makes a success with this standard output.
    pub fn stdout(stdout: impl Into<Bytes>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    fn size_bytes(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }
}

/// How one attempt of a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// Exit code 0.
    Success,
    /// Another exit code, 1 to 255.
    ExitCode(i32),
    /// Killed by this signal, which the pool had not sent.
    Signal(i32),
    /// Its deadline passed and its process group was killed.
    Timeout {
        /// The deadline.
        limit: Duration,
    },
    /// The program never ran.
    SpawnFailure {
        /// Why, as a class.
        kind: SpawnErrorKind,
        /// Why, in words.
        reason: String,
    },
    /// A captured stream passed its limit and the pool is set to treat that as a failure.
    OutputOverLimit {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The engine withdrew it: a revoke, a lost partition or the end of a drain.
    Cancelled,
}

impl TaskOutcome {
    /// Returns whether the attempt succeeded.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Returns the exit code, where the program had one.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Success => Some(0),
            Self::ExitCode(code) => Some(*code),
            _ => None,
        }
    }

    /// Returns the class of the ending, as metrics, logs and dead letters spell it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ExitCode(_) => "exit_code",
            Self::Signal(_) => "signal",
            Self::Timeout { .. } => "timeout",
            Self::SpawnFailure { .. } => "spawn_failure",
            Self::OutputOverLimit { .. } => "output_over_limit",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Success => f.write_str("succeeded"),
            Self::ExitCode(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Timeout { limit } => write!(f, "timed out after {} s", limit.as_secs_f64()),
            Self::SpawnFailure { reason, .. } => write!(f, "could not be started: {reason}"),
            Self::OutputOverLimit { limit_bytes } => {
                write!(f, "wrote more than {limit_bytes} bytes")
            }
            Self::Cancelled => f.write_str("was cancelled"),
        }
    }
}

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// Neither the task nor `executor.binary_path` names a program.
    NoBinary,
    /// There is no such file.
    NotFound,
    /// The file is not executable for this user.
    PermissionDenied,
    /// An argument or variable holds a NUL byte, or all of them together are too long.
    InvalidArgument,
    /// The system refused for another reason, such as too many processes.
    System,
}

impl SpawnErrorKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::NoBinary,
        Self::NotFound,
        Self::PermissionDenied,
        Self::InvalidArgument,
        Self::System,
    ];

    /// Returns the word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBinary => "no_binary",
            Self::NotFound => "not_found",
            Self::PermissionDenied => "permission_denied",
            Self::InvalidArgument => "invalid_argument",
            Self::System => "system",
        }
    }
}

/// One captured stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// What was kept: the first bytes, up to the pool's limit.
    pub bytes: Bytes,
    /// How many bytes the program wrote in all.
    pub total_bytes: u64,
}

impl Captured {
    /// Keeps all of `bytes`.
    pub fn whole(bytes: Bytes) -> Self {
        let total_bytes = bytes.len() as u64;
        Self { bytes, total_bytes }
    }

    /// Returns whether something was left out.
    pub fn is_truncated(&self) -> bool {
        self.total_bytes > self.bytes.len() as u64
    }

    /// Returns the bytes as text, with invalid UTF-8 replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

/// What one process used, as the kernel accounts for it and its reaped children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Peak resident memory in bytes, of the program or the largest child it waited for; `None`
    /// where it cannot be told from the worker's own, which is the case for most small programs.
    pub peak_memory_bytes: Option<u64>,
}

/// Everything known about one finished attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// How it ended.
    pub outcome: TaskOutcome,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// The process id; `None` when no process ran.
    pub pid: Option<u32>,
    /// How long the run waited for a slot.
    pub queue_wait: Duration,
    /// How long starting the process took.
    pub spawn: Duration,
    /// From the start of the process to its end; for a precomputed result, what it says.
    pub duration: Duration,
    /// What the process used; `None` when no process ran.
    pub usage: Option<ResourceUsage>,
    /// Whether the leader had ended while others of its group were still there and had to be killed.
    /// One that was just ending by itself may count.
    pub leftovers_killed: bool,
    /// Whether the program closed its standard input, or ended, before all of it was written: not to
    /// read one's input is no error. What fits into the pipe counts as written, and so does
    /// everything once the pool has begun to end the program.
    pub stdin_closed_early: bool,
    /// Whether this was a precomputed result.
    pub precomputed: bool,
}

impl Execution {
    /// Makes an ending without a process.
    pub fn without_process(outcome: TaskOutcome) -> Self {
        Self {
            outcome,
            stdout: Captured::default(),
            stderr: Captured::default(),
            pid: None,
            queue_wait: Duration::ZERO,
            spawn: Duration::ZERO,
            duration: Duration::ZERO,
            usage: None,
            leftovers_killed: false,
            stdin_closed_early: false,
            precomputed: false,
        }
    }

    /// Makes the ending that a precomputed result stands for.
    pub fn from_precomputed(result: &Precomputed) -> Self {
        let outcome = match result.exit_code {
            0 => TaskOutcome::Success,
            code => TaskOutcome::ExitCode(code),
        };
        Self {
            stdout: Captured::whole(result.stdout.clone()),
            stderr: Captured::whole(result.stderr.clone()),
            duration: result.duration,
            precomputed: true,
            ..Self::without_process(outcome)
        }
    }
}

/// One attempt of a task and how it ended; what hooks are given.
#[derive(Clone, Debug)]
pub struct TaskOutput {
    /// The task; its `id` is always set here.
    pub task: Arc<Task>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub execution: Execution,
}

impl TaskOutput {
    /// Returns the task's id.
    pub fn id(&self) -> &str {
        self.task.id.as_ref().map_or("", TaskId::as_str)
    }

    /// Returns standard output, as far as it was kept.
    pub fn stdout(&self) -> &Bytes {
        &self.execution.stdout.bytes
    }

    /// Returns standard output as text, with invalid UTF-8 replaced.
    pub fn stdout_text(&self) -> Cow<'_, str> {
        self.execution.stdout.text()
    }

    /// Returns standard error, as far as it was kept.
    pub fn stderr(&self) -> &Bytes {
        &self.execution.stderr.bytes
    }

    /// Returns standard error as text, with invalid UTF-8 replaced.
    pub fn stderr_text(&self) -> Cow<'_, str> {
        self.execution.stderr.text()
    }

    /// Returns how the attempt ended.
    pub fn outcome(&self) -> &TaskOutcome {
        &self.execution.outcome
    }

    /// Returns the exit code, where the program had one.
    pub fn exit_code(&self) -> Option<i32> {
        self.execution.outcome.exit_code()
    }

    /// Returns the value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.task.labels.get(name).map(String::as_str)
    }

    /// Returns an entry of the task's metadata.
    pub fn meta(&self, name: &str) -> Option<&serde_json::Value> {
        self.task.metadata.get(name)
    }

    /// Returns the first message that the task is for.
    pub fn offset(&self) -> Option<Offset> {
        self.task.source_offsets.first().copied()
    }
}

/// A failed attempt, as `on_error` sees it.
#[derive(Clone, Debug)]
pub struct TaskFailure {
    /// The attempt.
    pub output: Arc<TaskOutput>,
    /// How many retries the settings still allow for this task.
    pub retries_left: u32,
}

impl std::ops::Deref for TaskFailure {
    type Target = TaskOutput;

    fn deref(&self) -> &TaskOutput {
        &self.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precomputed_failure_is_an_exit_code() {
        let result = Precomputed { exit_code: 3, ..Precomputed::stdout("x") };
        let execution = Execution::from_precomputed(&result);
        assert_eq!(execution.outcome, TaskOutcome::ExitCode(3));
        assert_eq!(execution.stdout.text(), "x");
        assert!(execution.precomputed && execution.pid.is_none());
    }

    // Promise: FT-3
    #[test]
    fn everything_that_a_task_carries_counts() {
        let size = |task: Task| task.size_bytes();
        let task = || Task::for_offset(Offset::new(1));
        assert_eq!(size(task()), 0);
        assert_eq!(size(task().arg("1234").stdin("123").env("12", "3")), 10);
        assert_eq!(size(task().label("12", "345")), 5);
        assert_eq!(size(task().precomputed(Precomputed::stdout("1234"))), 4);
        let document = serde_json::json!({"text": "1234", "list": ["12", {"a": "3"}]});
        let metadata = document.as_object().cloned().expect("an object");
        assert_eq!(size(Task { metadata, ..task() }), 4 + 4 + 4 + 2 + 1 + 1);
    }

    #[test]
    fn truncation_is_visible() {
        let kept = Captured { bytes: Bytes::from_static(b"ab"), total_bytes: 3 };
        assert!(kept.is_truncated());
        assert!(!Captured::whole(Bytes::from_static(b"ab")).is_truncated());
    }
}
