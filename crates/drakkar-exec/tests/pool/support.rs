//! What the tests of processes share.

use drakkar_api::{
    Epoch, Execution, Executor, Offset, Priority, Run, RunId, RunListener, Task, TaskOutcome,
};
use drakkar_exec::{PoolSection, ProcessPool};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything is waited for that must happen. Long, because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a pool with some settings changed.
pub(crate) fn pool(change: impl FnOnce(&mut PoolSection)) -> ProcessPool {
    let mut section = PoolSection { max_executors: 1, ..PoolSection::default() };
    change(&mut section);
    ProcessPool::start(section.validate().expect("the settings are valid")).expect("it starts")
}

/// A task that runs a shell script.
pub(crate) fn sh(script: &str) -> Task {
    Task::for_offset(Offset::new(0)).binary("/bin/sh").args(["-c", script])
}

/// Runs a shell script in a pool of its own.
pub(crate) fn run_sh(script: &str) -> Execution {
    pool(|_| {}).run(sh(script)).wait()
}

/// Waits until `happened`.
#[track_caller]
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; the state follows it.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The process ids that a script wrote, one a line.
pub(crate) fn pids(execution: &Execution) -> Vec<u32> {
    let text = execution.stdout.text();
    text.lines().map(|line| line.parse().expect("a process id")).collect()
}

/// A file that scripts wait for.
pub(crate) struct Barrier(tempfile::TempDir);

impl Barrier {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder can be made"))
    }

    /// A script that ends when the barrier opens.
    pub(crate) fn wait_script(&self) -> String {
        format!("while ! [ -e {} ]; do sleep 0.01; done", self.path().display())
    }

    pub(crate) fn open(&self) {
        fs::write(self.path(), "").expect("it can be written");
    }

    fn path(&self) -> std::path::PathBuf {
        Path::new(self.0.path()).join("open")
    }
}

/// Hears what becomes of runs.
#[derive(Default)]
pub(crate) struct Recorder {
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Default, Clone)]
pub(crate) struct Heard {
    /// In the order of their start.
    pub(crate) started: Vec<u64>,
    pub(crate) finished: BTreeMap<u64, Vec<Execution>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Submits a task under this id.
    pub(crate) fn submit(self: &Arc<Self>, pool: &ProcessPool, owner: u64, id: u64, task: Task) {
        self.submit_with(pool, owner, id, 0, task);
    }

    pub(crate) fn submit_with(
        self: &Arc<Self>,
        pool: &ProcessPool,
        owner: u64,
        id: u64,
        priority: i64,
        task: Task,
    ) {
        pool.submit(Run {
            owner: Epoch::new(owner),
            id: RunId::new(id),
            task: Arc::new(task),
            priority: Priority::new(priority),
            listener: Arc::<Self>::clone(self),
        });
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().expect("no panic").clone()
    }

    /// Waits until what was heard satisfies `condition`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut(&Heard) -> bool) -> Heard {
        let guard = self.heard.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(guard, PATIENCE, |heard| !condition(heard));
        let (heard, timeout) = waited.expect("no panic");
        assert!(!timeout.timed_out(), "never: {what}");
        heard.clone()
    }

    #[track_caller]
    pub(crate) fn wait_started(&self, id: u64) {
        self.wait_for("a run starts", |heard| heard.started.contains(&id));
    }

    /// Waits until a run has ended and returns how. It must have ended once.
    #[track_caller]
    pub(crate) fn wait_finished(&self, id: u64) -> Execution {
        let heard = self.wait_for("a run ends", |heard| heard.finished.contains_key(&id));
        let [execution] = heard.finished[&id].as_slice() else { panic!("run {id} ended twice") };
        execution.clone()
    }
}

impl RunListener for Recorder {
    fn started(&self, id: RunId, _slot: usize, _queue_wait: Duration) {
        self.heard.lock().expect("no panic").started.push(id.get());
        self.changed.notify_all();
    }

    fn finished(&self, id: RunId, execution: Execution) {
        let mut heard = self.heard.lock().expect("no panic");
        heard.finished.entry(id.get()).or_default().push(execution);
        drop(heard);
        self.changed.notify_all();
    }
}

/// Asserts an outcome, showing everything when it is another.
#[track_caller]
pub(crate) fn assert_outcome(execution: &Execution, expect: &TaskOutcome) {
    assert_eq!(&execution.outcome, expect, "{execution:?}");
}
