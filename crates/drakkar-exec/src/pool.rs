//! The pool: slots, each a thread, that take waiting runs from the gate one after the other.
//!
//! One lock guards the gate and who runs where. It is never held while a listener is called, a
//! child is touched or a file is read.

use crate::bell::Bell;
use crate::child::{Order, Supervisor, failed_to_start};
use crate::config::PoolConfig;
use crate::course::Limits;
use crate::environment::Environment;
use crate::error::{PoolError, PoolErrorKind};
use crate::gate::Gate;
use crate::limits;
use crate::listener::{tell_finished, tell_started};
use crate::reaper::Reaper;
use crate::resolve::{Resolver, SpawnFault, check_executable};
use crate::signal::check_dispositions;
use crate::spawn::dev_null;
use crate::wrap::Wrap;
use drakkar_api::{
    CancelScope, Epoch, Execution, Executor, Priority, Reply, ReplyReceiver, Run, RunId,
    RunListener, Slots, SpawnErrorKind, Task, TaskOutcome,
};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

/// What closing may take beyond the reap timeout: time for threads to be scheduled and to end.
const CLOSE_MARGIN: Duration = Duration::from_secs(1);

/// What is kept of what the tools say that set limits.
const TRIAL_BYTES_MAX: usize = 4096;

/// How long they may take to start a program that does nothing.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A bounded pool of processes: the [`Executor`] that runs tasks as programs.
///
/// Made by [`start`](ProcessPool::start). It is driven through [`Executor`], or without an engine
/// through [`run`](ProcessPool::run).
///
/// Dropping the pool closes it: everything that runs is killed, and the dropping thread waits until
/// it is, at most the reap timeout and a second. Where blocking hurts,
/// [`close`](Executor::close) it before.
pub struct ProcessPool {
    shared: Arc<Shared>,
    own_runs: AtomicU64,
}

/// What the slots' threads share with the pool. They do not keep the pool itself alive.
struct Shared {
    config: PoolConfig,
    environment: Environment,
    resolver: Resolver,
    default_program: Option<Arc<Path>>,
    wrap: Option<Wrap>,
    /// What tasks without input read.
    null: OwnedFd,
    bells: Vec<Bell>,
    /// By slot: the process that runs there, or 0.
    pids: Vec<AtomicU32>,
    reaper: Reaper,
    state: Mutex<State>,
    /// Somebody waits, or the pool closes.
    work: Condvar,
}

struct State {
    gate: Gate<Waiting>,
    /// By slot: on whose behalf it is active, and with which run.
    active: Vec<Option<(Epoch, RunId)>>,
    idle_threads: usize,
    closed: bool,
}

struct Waiting {
    run: Run,
    since: Instant,
}

thread_local! {
    /// Whether this thread belongs to a pool, and so must not wait for one to close.
    static OF_A_POOL: Cell<bool> = const { Cell::new(false) };
}

impl ProcessPool {
    /// The owner of the runs that [`run`](ProcessPool::run) submits.
    const OWN: Epoch = Epoch::new(u64::MAX);

    /// Resolves the default program and the wrap, tries the limits, computes the shared environment
    /// and starts the slots.
    ///
    /// # Errors
    ///
    /// When the default program or one of the wrap is missing or not executable, when no program can
    /// be run with the limits, when this process handles SIGCHLD or SIGPIPE in a way that children
    /// cannot be run with, and when the system refuses a thread or a descriptor.
    pub fn start(config: PoolConfig) -> Result<Self, PoolError> {
        check_dispositions()?;
        let here = std::env::current_dir()
            .map_err(|error| PoolError::resources("the working directory", error))?;
        let resolver = Resolver::new(std::env::var_os("PATH").as_deref(), here);
        let default_program = resolve_default(&config, &resolver)?;
        let wrap = Wrap::new(&config, &resolver)?;
        let bells: Result<Vec<_>, _> = (0..config.slots).map(|_| Bell::new()).collect();
        let inherited = config.env_inherit_parent.then(std::env::vars_os);
        let environment = Environment::new(
            inherited.into_iter().flatten(),
            &config.env_inherit_deny,
            &config.env,
        );
        let state = State {
            gate: Gate::new(),
            active: vec![None; config.slots],
            idle_threads: 0,
            closed: false,
        };
        let shared = Arc::new(Shared {
            environment,
            resolver,
            default_program,
            wrap,
            null: dev_null().map_err(|error| PoolError::resources("/dev/null", error.into()))?,
            pids: (0..config.slots).map(|_| AtomicU32::new(0)).collect(),
            bells: bells.map_err(|error| PoolError::resources("a descriptor", error))?,
            reaper: Reaper::new(),
            state: Mutex::new(state),
            work: Condvar::new(),
            config,
        });
        shared.try_limits()?;
        let reaping = Arc::clone(&shared);
        spawn_thread("drakkar-reaper".to_owned(), move || {
            OF_A_POOL.set(true);
            reaping.reaper.work();
        })?;
        // From here on, dropping the pool ends the threads that were started.
        let pool = Self { shared, own_runs: AtomicU64::new(0) };
        pool.start_slots()?;
        Ok(pool)
    }

    fn start_slots(&self) -> Result<(), PoolError> {
        for slot in 0..self.shared.bells.len() {
            let shared = Arc::clone(&self.shared);
            self.shared.reaper.slot_expected();
            let thread = spawn_thread(format!("drakkar-slot-{slot}"), move || {
                shared.serve(slot);
                shared.reaper.slot_left();
            });
            match thread {
                Ok(thread) => self.shared.reaper.slot_started(thread),
                Err(error) => {
                    self.shared.reaper.slot_left();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Runs one task, for users without an engine. Such tasks start in the order of their smallest
    /// offset, and those without offsets before them, first come, first served.
    ///
    /// Nothing bounds how many may wait; that is up to the caller.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not end the task.
    pub fn run(&self, task: impl Into<Arc<Task>>) -> Running {
        let (reply, receiver) = Reply::channel();
        self.submit(Run {
            owner: Self::OWN,
            id: RunId::new(self.own_runs.fetch_add(1, Ordering::Relaxed)),
            task: task.into(),
            priority: Priority::default(),
            listener: Arc::new(Answer(Mutex::new(Some(reply)))),
        });
        Running(receiver)
    }

    /// Stops everything and has `reply` answered when it is done.
    fn close_with(&self, reply: Reply<()>) {
        let mut state = self.shared.lock();
        state.closed = true;
        let waiting = state.gate.drain();
        self.shared.ring(&state, |_| true);
        drop(state);
        self.shared.work.notify_all();
        self.shared.withdraw(waiting);
        self.shared.reaper.close(reply, self.shared.config.reap_timeout + CLOSE_MARGIN);
    }
}

impl Executor for ProcessPool {
    /// Takes a run. A precomputed one ends without a slot. After the pool was closed, a run ends
    /// as cancelled.
    fn submit(&self, run: Run) {
        if let Some(result) = &run.task.precomputed {
            let execution = Execution::from_precomputed(result);
            return self.shared.reaper.tell(vec![(run, execution)]);
        }
        let waiting = Waiting { run, since: Instant::now() };
        let mut state = self.shared.lock();
        if state.closed {
            drop(state);
            return self.shared.withdraw(vec![waiting]);
        }
        let run = &waiting.run;
        let offset = run.task.source_offsets.iter().min().copied();
        let (owner, id, priority) = (run.owner, run.id, run.priority);
        state.gate.push(owner, id, priority, offset, waiting);
        let wake = state.idle_threads > 0;
        drop(state);
        if wake {
            self.shared.work.notify_one();
        }
    }

    fn cancel(&self, owner: Epoch, scope: CancelScope) {
        let mut state = self.shared.lock();
        let withdrawn = match scope {
            CancelScope::Waiting(ids) => {
                ids.into_iter().flat_map(|id| state.gate.withdraw(owner, id)).collect()
            }
            CancelScope::Runs(ids) => {
                self.shared.ring(&state, |active| active.0 == owner && ids.contains(&active.1));
                ids.into_iter().flat_map(|id| state.gate.withdraw(owner, id)).collect()
            }
            CancelScope::All => {
                self.shared.ring(&state, |active| active.0 == owner);
                state.gate.withdraw_all(owner)
            }
            _ => Vec::new(),
        };
        drop(state);
        self.shared.withdraw(withdrawn);
    }

    fn slots(&self) -> Slots {
        let state = self.shared.lock();
        Slots {
            total: state.active.len(),
            active: state.active.iter().flatten().count(),
            waiting: state.gate.len(),
        }
    }

    fn pid(&self, owner: Epoch, id: RunId) -> Option<u32> {
        let state = self.shared.lock();
        let slot = state.active.iter().position(|active| *active == Some((owner, id)))?;
        Some(self.shared.pids[slot].load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Kills everything at once, whether or not the future is awaited. The future is ready when all
    /// endings are told and all threads have ended, at the latest after the reap timeout and a
    /// second: a thread that the system does not let go, say because a program lies on a network
    /// drive that hangs, is left behind.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let (reply, done) = Reply::channel();
        self.close_with(reply);
        Box::pin(async move {
            done.await.ok();
        })
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        let (reply, done) = Reply::channel();
        self.close_with(reply);
        if !OF_A_POOL.get() {
            // The reaper answers within a limit of its own; this one is for good measure.
            drop(done.wait_timeout(self.shared.config.reap_timeout + 2 * CLOSE_MARGIN));
        }
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool").field("slots", &self.slots()).finish_non_exhaustive()
    }
}

impl Shared {
    /// A slot's thread: takes runs until the pool closes.
    fn serve(&self, slot: usize) {
        OF_A_POOL.set(true);
        let config = &self.config;
        let mut supervisor = Supervisor::new(config.stdout_bytes_max, config.stderr_bytes_max);
        while let Some(Waiting { run, since }) = self.next(slot) {
            let queue_wait = since.elapsed();
            tell_started(&run, slot, queue_wait);
            let execution = self.execute(&run.task, &mut supervisor, slot);
            tell_finished(run, Execution { queue_wait, ..execution });
        }
    }

    /// Frees the slot, and waits for the next run to take it. `None` when the pool has closed.
    fn next(&self, slot: usize) -> Option<Waiting> {
        let mut state = self.lock();
        state.active[slot] = None;
        loop {
            if let Some(waiting) = state.gate.pop() {
                state.active[slot] = Some((waiting.run.owner, waiting.run.id));
                // Under the lock, so that whoever cancels from now on rings for this run.
                self.bells[slot].reset();
                return Some(waiting);
            }
            if state.closed {
                return None;
            }
            state.idle_threads += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle_threads -= 1;
        }
    }

    /// Runs a task in this thread. A panic of ours ends the task, not the slot.
    fn execute(&self, task: &Task, supervisor: &mut Supervisor, slot: usize) -> Execution {
        let guarded = catch_unwind(AssertUnwindSafe(|| self.run_child(task, supervisor, slot)));
        guarded.unwrap_or_else(|_| {
            self.pids[slot].store(0, Ordering::Relaxed);
            let config = &self.config;
            *supervisor = Supervisor::new(config.stdout_bytes_max, config.stderr_bytes_max);
            let reason = "the process pool panicked, which is a defect of drakkar";
            failed_to_start(SpawnFault::new(SpawnErrorKind::System, reason), Duration::ZERO)
        })
    }

    fn run_child(&self, task: &Task, supervisor: &mut Supervisor, slot: usize) -> Execution {
        let (bell, pid) = (&self.bells[slot], &self.pids[slot]);
        if bell.is_rung() {
            return Execution::without_process(TaskOutcome::Cancelled);
        }
        let execution = match self.program_of(task) {
            Ok(program) => supervisor.run(&self.order(task, &program, pid), bell, &self.reaper),
            Err(fault) => failed_to_start(fault, Duration::ZERO),
        };
        if let TaskOutcome::SpawnFailure { kind: SpawnErrorKind::NotFound, .. } = execution.outcome
        {
            task.binary.iter().for_each(|program| self.resolver.forget(program));
        }
        execution
    }

    fn program_of(&self, task: &Task) -> Result<Arc<Path>, SpawnFault> {
        let program = match (&task.binary, &self.default_program) {
            (Some(program), _) => self.resolver.resolve(program)?,
            (None, Some(program)) => Arc::clone(program),
            (None, None) => {
                let reason = "the task has no binary and executor.binary_path is not set";
                return Err(SpawnFault::new(SpawnErrorKind::NoBinary, reason));
            }
        };
        // Started by a wrap, a program that is not there would be an exit code of the wrap's.
        if self.wrap.as_ref().is_some_and(Wrap::shares_paths) {
            check_executable(&program)?;
        }
        Ok(program)
    }

    fn order<'a>(&'a self, task: &'a Task, program: &'a Path, pid: &'a AtomicU32) -> Order<'a> {
        Order {
            pid,
            task,
            program,
            wrap: self.wrap.as_ref(),
            environment: &self.environment,
            null: self.null.as_fd(),
            limits: self.limits_of(task),
            output_over_limit: self.config.output_over_limit,
            measure_peak_memory: self.config.measure_peak_memory,
        }
    }

    /// Runs a program that does nothing with `executor.limits`, if anything is set there: better one
    /// error at start than one for each task.
    fn try_limits(&self) -> Result<(), PoolError> {
        let Some(tool) = self.wrap.as_ref().and_then(Wrap::tool) else { return Ok(()) };
        let task = Task::default().arg("--version").timeout(TRIAL_TIMEOUT);
        let mut supervisor = Supervisor::new(TRIAL_BYTES_MAX, TRIAL_BYTES_MAX);
        let tried =
            supervisor.run(&self.order(&task, tool, &self.pids[0]), &self.bells[0], &self.reaper);
        if tried.outcome.is_success() {
            return Ok(());
        }
        let (path, outcome, stderr) = (limits::PATH, &tried.outcome, tried.stderr.text());
        let message =
            format!("{path}: no program runs with them; one {outcome}: {}", stderr.trim());
        Err(PoolError::new(PoolErrorKind::LimitsUnusable, message))
    }

    fn limits_of(&self, task: &Task) -> Limits {
        Limits {
            deadline: task.timeout.unwrap_or(self.config.task_timeout),
            grace: self.config.kill_grace,
            drain: self.config.pipe_drain,
            reap: self.config.reap_timeout,
        }
    }

    /// Cancels what runs in the slots of which `is_meant` says so.
    fn ring(&self, state: &State, is_meant: impl Fn((Epoch, RunId)) -> bool) {
        for (active, bell) in state.active.iter().zip(&self.bells) {
            if active.is_some_and(&is_meant) {
                bell.ring();
            }
        }
    }

    /// Ends runs that never got a slot.
    fn withdraw(&self, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let cancelled = |waiting: Waiting| {
            let queue_wait = waiting.since.elapsed();
            let execution = Execution::without_process(TaskOutcome::Cancelled);
            (waiting.run, Execution { queue_wait, ..execution })
        };
        self.reaper.tell(waiting.into_iter().map(cancelled).collect());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic half-way is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resolve_default(
    config: &PoolConfig,
    resolver: &Resolver,
) -> Result<Option<Arc<Path>>, PoolError> {
    let Some(program) = &config.binary else { return Ok(None) };
    let resolved = resolver.resolve_executable(program);
    resolved.map(Some).map_err(|fault| {
        let kind = match fault.kind {
            SpawnErrorKind::PermissionDenied => PoolErrorKind::BinaryNotExecutable,
            _ => PoolErrorKind::BinaryNotFound,
        };
        let reason = fault.reason;
        PoolError::new(kind, format!("executor.binary_path \"{}\": {reason}", program.display()))
    })
}

fn spawn_thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, PoolError> {
    let builder = thread::Builder::new().name(name);
    builder.spawn(work).map_err(|error| PoolError::resources("a thread", error))
}

/// A task that [`ProcessPool::run`] has submitted: a future, or [`wait`](Running::wait) on a thread.
#[derive(Debug)]
#[must_use = "the task runs anyway, but nobody learns how it ends"]
pub struct Running(ReplyReceiver<Execution>);

impl Running {
    /// Blocks the thread until the task has ended.
    pub fn wait(self) -> Execution {
        let mut receiver = self.0;
        loop {
            receiver = match receiver.wait_timeout(Duration::MAX) {
                Ok(answer) => return answer.unwrap_or_else(|_| unanswered()),
                Err(receiver) => receiver,
            };
        }
    }
}

impl Future for Running {
    type Output = Execution;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Execution> {
        let answer = Pin::new(&mut self.0).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| unanswered()))
    }
}

/// Every run is answered, so this is never seen; if it were, the task would not have succeeded.
fn unanswered() -> Execution {
    Execution::without_process(TaskOutcome::Cancelled)
}

/// Answers when the run has ended.
struct Answer(Mutex<Option<Reply<Execution>>>);

impl RunListener for Answer {
    fn started(&self, _id: RunId, _slot: usize, _queue_wait: Duration) {}

    fn finished(&self, _id: RunId, execution: Execution) {
        let reply = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            reply.send(execution);
        }
    }
}
