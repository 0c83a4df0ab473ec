//! An executor without processes: runs last as long, and end, as a script says.

use crate::violations::{Violations, lock};
use crate::{FaultPlan, Random};
use bytes::Bytes;
use drakkar_api::{
    CancelScope, Captured, Epoch, Execution, Executor, Offset, Priority, Run, RunId, Slots,
    SpawnErrorKind, Task, TaskId, TaskOutcome,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

/// An [`Executor`] whose runs take scripted times and end in scripted ways.
///
/// It honours its slots, the order of waiting runs, deadlines (a task's own, else
/// [`task_timeout`](FakeExecutor::task_timeout)) and both scopes of cancelling. Listeners are called
/// from tasks of the runtime on which it was made, never from inside `submit` or `cancel`.
///
/// It panics when the engine submits a precomputed task, a task without an id, or one run id twice.
#[derive(Clone)]
pub struct FakeExecutor {
    shared: Arc<Shared>,
}

/// How one attempt goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeRun {
    /// How long it takes; the run's deadline cuts it short and makes it a timeout.
    pub duration: Duration,
    /// How it ends then.
    pub outcome: TaskOutcome,
    /// Its standard output.
    pub stdout: Bytes,
    /// Its standard error.
    pub stderr: Bytes,
}

impl FakeRun {
    /// A success with this standard output, after no time.
    pub fn success(stdout: impl Into<Bytes>) -> Self {
        Self { stdout: stdout.into(), ..Self::ending(TaskOutcome::Success) }
    }

    /// An exit with `code`; 0 is a success.
    pub fn exit(code: i32) -> Self {
        Self::ending(if code == 0 { TaskOutcome::Success } else { TaskOutcome::ExitCode(code) })
    }

    /// A program that cannot be started.
    pub fn spawn_failure() -> Self {
        Self::ending(TaskOutcome::SpawnFailure {
            kind: SpawnErrorKind::NotFound,
            reason: "no such file".to_owned(),
        })
    }

    /// A run that never ends by itself: its deadline or a cancel must end it.
    pub fn hang() -> Self {
        Self::exit(0).lasting(Duration::MAX)
    }

    /// Any ending, after no time and without output.
    pub fn ending(outcome: TaskOutcome) -> Self {
        Self { duration: Duration::ZERO, outcome, stdout: Bytes::new(), stderr: Bytes::new() }
    }

    /// The same after this time.
    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }
}

/// What became of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// The run.
    pub id: RunId,
    /// Its task.
    pub task: TaskId,
    /// The assignment that it ran for.
    pub owner: Epoch,
    /// The number of the task's attempt, from 1, as this executor counts them.
    pub attempt: u32,
    /// The slot and the moment of its start; `None` if it never got a slot.
    pub started: Option<(usize, Instant)>,
    /// How it ended; `None` while it has not.
    pub outcome: Option<TaskOutcome>,
}

type Script = Box<dyn FnMut(&Task, u32) -> FakeRun + Send>;

struct Shared {
    runtime: Handle,
    state: Mutex<State>,
    script: Mutex<Script>,
    /// Something waits, was cancelled, or a slot became free.
    changed: Notify,
    /// A run ended.
    ended: Notify,
    violations: Violations,
}

struct State {
    slots: BTreeSet<usize>,
    slots_total: usize,
    task_timeout: Duration,
    waiting: Waiting,
    running: BTreeMap<(Epoch, RunId), Arc<Notify>>,
    /// Runs that never got a slot and whose end has not been told yet.
    withdrawn: VecDeque<Run>,
    /// Places in `records`.
    known: BTreeMap<(Epoch, RunId), usize>,
    records: Vec<RunRecord>,
    attempts: BTreeMap<(Epoch, TaskId), u32>,
    active_max: usize,
    closed: bool,
}

/// A run that got a slot.
struct Start {
    run: Run,
    slot: usize,
    queue_wait: Duration,
    attempt: u32,
    timeout: Duration,
    kill: Arc<Notify>,
}

impl FakeExecutor {
    /// Makes an executor of `slots` slots. `script` is asked at each start of a run, with the task
    /// and the number of its attempt.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or without slots.
    pub fn new(slots: usize, script: impl FnMut(&Task, u32) -> FakeRun + Send + 'static) -> Self {
        assert!(slots > 0, "an executor needs a slot");
        let shared = Arc::new(Shared {
            runtime: Handle::current(),
            state: Mutex::new(State::new(slots)),
            script: Mutex::new(Box::new(script)),
            changed: Notify::new(),
            ended: Notify::new(),
            violations: Violations::default(),
        });
        // Lives as long as the runtime: the executor of a test is never many.
        let dispatcher = Arc::clone(&shared);
        shared.runtime.spawn(async move {
            loop {
                dispatcher.step();
                dispatcher.changed.notified().await;
            }
        });
        Self { shared }
    }

    /// Makes an executor whose runs all succeed at once with empty output.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or without slots.
    pub fn succeeding(slots: usize) -> Self {
        Self::new(slots, |_, _| FakeRun::success(Bytes::new()))
    }

    /// Makes an executor that takes its times and failures from `plan`; a success has the standard
    /// input as its output, as `cat` would.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, or without slots.
    pub fn with_faults(slots: usize, plan: &FaultPlan) -> Self {
        let plan = plan.clone();
        let mut random: Random = plan.random("executor");
        Self::new(slots, move |task, _| {
            let rates = plan.rates();
            let duration = random.duration(rates.task_longest);
            let (hangs, fails) = (random.chance(rates.task_hangs), random.chance(rates.task_fails));
            match (hangs, fails) {
                (true, _) => FakeRun::hang(),
                (false, true) => FakeRun::exit(1).lasting(duration),
                (false, false) => {
                    FakeRun::success(task.stdin.clone().unwrap_or_default()).lasting(duration)
                }
            }
        })
    }

    /// Sets the deadline of runs whose task has none; 120 s unless set.
    #[must_use]
    pub fn task_timeout(self, timeout: Duration) -> Self {
        lock(&self.shared.state).task_timeout = timeout;
        self
    }

    /// Returns what became of all runs, in the order of their submission.
    pub fn records(&self) -> Vec<RunRecord> {
        lock(&self.shared.state).records.clone()
    }

    /// Returns the largest number of runs that were active at once.
    pub fn active_max(&self) -> usize {
        lock(&self.shared.state).active_max
    }

    /// Waits until nothing waits or runs.
    pub async fn idle(&self) {
        loop {
            let ended = self.shared.ended.notified();
            if lock(&self.shared.state).is_idle() {
                return;
            }
            ended.await;
        }
    }

    /// Returns the contract violations that were seen.
    pub fn violations(&self) -> Vec<String> {
        self.shared.violations.list()
    }

    /// Panics if a contract violation was seen.
    ///
    /// # Panics
    ///
    /// See above.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        self.shared.violations.assert_none("the executor");
    }
}

impl Executor for FakeExecutor {
    fn submit(&self, run: Run) {
        let mut state = lock(&self.shared.state);
        let problem = state.take(run);
        drop(state);
        if let Err(problem) = problem {
            self.shared.violations.raise(problem);
        }
        self.shared.changed.notify_one();
    }

    fn cancel(&self, owner: Epoch, scope: CancelScope) {
        lock(&self.shared.state).cancel(owner, &scope);
        self.shared.changed.notify_one();
    }

    fn slots(&self) -> Slots {
        let state = lock(&self.shared.state);
        Slots {
            total: state.slots_total,
            active: state.running.len(),
            waiting: state.waiting.len(),
        }
    }

    /// The number of the run stands for the process.
    fn pid(&self, owner: Epoch, id: RunId) -> Option<u32> {
        let runs = lock(&self.shared.state).running.contains_key(&(owner, id));
        u32::try_from(id.get()).ok().filter(|_| runs)
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            lock(&self.shared.state).close();
            self.shared.changed.notify_one();
            self.idle().await;
        })
    }
}

impl fmt::Debug for FakeExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeExecutor").field("slots", &self.slots()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Tells of withdrawn runs, and starts what can start.
    fn step(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            let Some(run) = state.withdrawn.pop_front() else { break };
            state.record((run.owner, run.id), |record| {
                record.outcome = Some(TaskOutcome::Cancelled)
            });
            drop(state);
            run.listener.finished(run.id, Execution::without_process(TaskOutcome::Cancelled));
            self.ended.notify_waiters();
        }
        while let Some(start) = self.next_start() {
            let shared = Arc::clone(self);
            start.run.listener.started(start.run.id, start.slot, start.queue_wait);
            self.runtime.spawn(async move { shared.perform(start).await });
        }
    }

    fn next_start(&self) -> Option<Start> {
        lock(&self.state).next_start()
    }

    async fn perform(self: Arc<Self>, start: Start) {
        let plan = {
            let mut script = lock(&self.script);
            (*script)(&start.run.task, start.attempt)
        };
        let (outcome, duration, killed) = follow(&plan, &start).await;
        let output = |bytes: &Bytes| match killed {
            true => Captured::default(),
            false => Captured::whole(bytes.clone()),
        };
        let execution = Execution {
            stdout: output(&plan.stdout),
            stderr: output(&plan.stderr),
            queue_wait: start.queue_wait,
            duration,
            pid: (!matches!(outcome, TaskOutcome::SpawnFailure { .. })).then_some(1),
            ..Execution::without_process(outcome.clone())
        };
        {
            let mut state = lock(&self.state);
            state.running.remove(&(start.run.owner, start.run.id));
            state.slots.insert(start.slot);
            state.record((start.run.owner, start.run.id), |record| record.outcome = Some(outcome));
        }
        start.run.listener.finished(start.run.id, execution);
        self.changed.notify_one();
        self.ended.notify_waiters();
    }
}

/// Lets the time of a run pass; answers how it ended, after how long, and whether it was killed.
async fn follow(plan: &FakeRun, start: &Start) -> (TaskOutcome, Duration, bool) {
    let began = Instant::now();
    let lasts = plan.duration.min(start.timeout);
    // A cancel that is there already wins over an end at the same moment.
    tokio::select! {
        biased;
        () = start.kill.notified() => (TaskOutcome::Cancelled, began.elapsed(), true),
        () = tokio::time::sleep(lasts) => match plan.duration > start.timeout {
            true => (TaskOutcome::Timeout { limit: start.timeout }, start.timeout, true),
            false => (plan.outcome.clone(), plan.duration, false),
        },
    }
}

impl State {
    fn new(slots: usize) -> Self {
        Self {
            slots: (0..slots).collect(),
            slots_total: slots,
            task_timeout: Duration::from_secs(120),
            waiting: Waiting::default(),
            running: BTreeMap::new(),
            withdrawn: VecDeque::new(),
            known: BTreeMap::new(),
            records: Vec::new(),
            attempts: BTreeMap::new(),
            active_max: 0,
            closed: false,
        }
    }

    fn take(&mut self, run: Run) -> Result<(), String> {
        let Some(task) = run.task.id.clone() else {
            return Err(format!("run {} has a task without an id", run.id.get()));
        };
        if run.task.precomputed.is_some() {
            return Err(format!("task \"{task}\" is precomputed and must not be submitted"));
        }
        // A number is free again once its run has ended: a retry may use it.
        let place = self.known.get(&(run.owner, run.id));
        if place.is_some_and(|place| self.records[*place].outcome.is_none()) {
            return Err(format!("run {} was submitted twice", run.id.get()));
        }
        let attempt = self.attempts.entry((run.owner, task.clone())).or_default();
        *attempt += 1;
        let (attempt, owner) = (*attempt, run.owner);
        self.known.insert((run.owner, run.id), self.records.len());
        self.records.push(RunRecord {
            id: run.id,
            task,
            owner,
            attempt,
            started: None,
            outcome: None,
        });
        if self.closed {
            self.withdrawn.push_back(run);
        } else {
            self.waiting.push(run);
        }
        Ok(())
    }

    fn next_start(&mut self) -> Option<Start> {
        let slot = *self.slots.first()?;
        let (run, since) = self.waiting.pop()?;
        self.slots.remove(&slot);
        let kill = Arc::new(Notify::new());
        self.running.insert((run.owner, run.id), Arc::clone(&kill));
        self.active_max = self.active_max.max(self.running.len());
        let mut attempt = 0;
        self.record((run.owner, run.id), |record| {
            record.started = Some((slot, Instant::now()));
            attempt = record.attempt;
        });
        let timeout = run.task.timeout.unwrap_or(self.task_timeout);
        Some(Start { slot, queue_wait: since.elapsed(), attempt, timeout, kill, run })
    }

    fn cancel(&mut self, owner: Epoch, scope: &CancelScope) {
        let ids = match scope {
            CancelScope::Waiting(ids) | CancelScope::Runs(ids) => {
                Some(ids.iter().copied().collect::<BTreeSet<_>>())
            }
            _ => None,
        };
        let is_meant =
            |of, id: &RunId| of == owner && ids.as_ref().is_none_or(|ids| ids.contains(id));
        self.withdrawn.extend(self.waiting.remove(|run| is_meant(run.owner, &run.id)));
        if !matches!(scope, CancelScope::Waiting(_)) {
            let meant = self.running.iter().filter(|((of, id), _)| is_meant(*of, id));
            meant.for_each(|(_, kill)| kill.notify_one());
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.withdrawn.extend(self.waiting.remove(|_| true));
        self.running.values().for_each(|kill| kill.notify_one());
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.len() == 0 && self.withdrawn.is_empty()
    }

    /// Changes the record of a run.
    fn record(&mut self, id: (Epoch, RunId), change: impl FnOnce(&mut RunRecord)) {
        if let Some(record) = self.known.get(&id).and_then(|place| self.records.get_mut(*place)) {
            change(record);
        }
    }
}

/// The waiting runs in the order that [`Executor`] promises.
#[derive(Default)]
struct Waiting {
    levels: BTreeMap<Priority, Level>,
    submitted: u64,
    len: usize,
}

/// The waiting runs of one priority: the assignments take turns.
#[derive(Default)]
struct Level {
    turns: VecDeque<Epoch>,
    runs: BTreeMap<Epoch, Turn>,
}

/// The waiting runs of one priority and assignment, by smallest offset and then by submission, each
/// with the moment of its submission.
type Turn = BTreeMap<(Option<Offset>, u64), (Run, Instant)>;

impl Waiting {
    fn push(&mut self, run: Run) {
        self.submitted += 1;
        self.len += 1;
        let place = (run.task.source_offsets.iter().min().copied(), self.submitted);
        let level = self.levels.entry(run.priority).or_default();
        let runs = level.runs.entry(run.owner).or_default();
        if runs.is_empty() {
            level.turns.push_back(run.owner);
        }
        runs.insert(place, (run, Instant::now()));
    }

    fn pop(&mut self) -> Option<(Run, Instant)> {
        let mut level = self.levels.first_entry()?;
        let owner = level.get_mut().turns.pop_front()?;
        let runs = level.get_mut().runs.get_mut(&owner)?;
        let (_, taken) = runs.pop_first()?;
        if runs.is_empty() {
            level.get_mut().runs.remove(&owner);
        } else {
            level.get_mut().turns.push_back(owner);
        }
        if level.get().turns.is_empty() {
            level.remove();
        }
        self.len -= 1;
        Some(taken)
    }

    /// Takes out the runs that match, in their order of waiting.
    fn remove(&mut self, matches: impl Fn(&Run) -> bool) -> Vec<Run> {
        let mut removed = Vec::new();
        for level in self.levels.values_mut() {
            for runs in level.runs.values_mut() {
                let places: Vec<_> = runs
                    .iter()
                    .filter_map(|(place, (run, _))| matches(run).then_some(*place))
                    .collect();
                removed.extend(
                    places.iter().filter_map(|place| runs.remove(place)).map(|(run, _)| run),
                );
            }
            level.runs.retain(|_, runs| !runs.is_empty());
            let runs = &level.runs;
            level.turns.retain(|owner| runs.contains_key(owner));
        }
        self.levels.retain(|_, level| !level.turns.is_empty());
        self.len -= removed.len();
        removed
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::RunListener;

    /// Remembers the order of calls.
    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.0))
        }
    }

    impl RunListener for Heard {
        fn started(&self, id: RunId, slot: usize, queue_wait: Duration) {
            let wait = queue_wait.as_secs();
            lock(&self.0).push(format!("start {} in {slot} after {wait}", id.get()));
        }

        fn finished(&self, id: RunId, execution: Execution) {
            lock(&self.0).push(format!("end {} {}", id.get(), execution.outcome.as_str()));
        }
    }

    fn run(heard: &Arc<Heard>, id: u64, owner: u64, offset: i64, priority: i64) -> Run {
        let task = Task::for_offset(Offset::new(offset)).id(format!("t{id}"));
        Run {
            owner: Epoch::new(owner),
            id: RunId::new(id),
            task: Arc::new(task),
            priority: Priority::new(priority),
            listener: Arc::clone(heard) as Arc<dyn RunListener>,
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn waiting_runs_start_in_the_promised_order() {
        let heard = Arc::new(Heard::default());
        let executor = FakeExecutor::new(1, |_, _| FakeRun::exit(0).lasting(SECOND));
        executor.submit(run(&heard, 1, 1, 9, 0));
        tokio::task::yield_now().await;
        // Assignment 1 has three runs, assignment 2 one, and one run is more urgent.
        executor.submit(run(&heard, 2, 1, 8, 0));
        executor.submit(run(&heard, 3, 1, 5, 0));
        executor.submit(run(&heard, 4, 2, 7, 0));
        executor.submit(run(&heard, 5, 1, 6, -1));
        assert_eq!(executor.slots(), Slots { total: 1, active: 1, waiting: 4 });
        executor.idle().await;
        let starts: Vec<_> =
            heard.take().into_iter().filter(|line| line.starts_with("start")).collect();
        assert_eq!(
            starts,
            [
                "start 1 in 0 after 0",
                "start 5 in 0 after 1",
                "start 3 in 0 after 2",
                "start 4 in 0 after 3",
                "start 2 in 0 after 4"
            ]
        );
        assert_eq!(executor.active_max(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_runs_end_exactly_once() {
        let heard = Arc::new(Heard::default());
        let executor = FakeExecutor::new(1, |_, _| FakeRun::hang());
        for id in 1..=3 {
            executor.submit(run(&heard, id, 1, 0, 0));
        }
        executor.submit(run(&heard, 4, 2, 0, 0));
        tokio::task::yield_now().await;
        executor.cancel(Epoch::new(1), CancelScope::Waiting(vec![RunId::new(1), RunId::new(2)]));
        tokio::task::yield_now().await;
        assert_eq!(heard.take(), ["start 1 in 0 after 0", "end 2 cancelled"]);
        executor.cancel(Epoch::new(1), CancelScope::All);
        executor.close().await;
        let mut rest = heard.take();
        rest.retain(|line| line.starts_with("end"));
        rest.sort();
        assert_eq!(rest, ["end 1 cancelled", "end 3 cancelled", "end 4 cancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_never_outlives_its_deadline() {
        let heard = Arc::new(Heard::default());
        let executor = FakeExecutor::new(1, |_, _| FakeRun::hang()).task_timeout(SECOND);
        executor.submit(run(&heard, 1, 1, 0, 0));
        let began = Instant::now();
        executor.idle().await;
        assert_eq!(began.elapsed(), SECOND);
        assert_eq!(heard.take(), ["start 1 in 0 after 0", "end 1 timeout"]);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted_per_task() {
        let heard = Arc::new(Heard::default());
        let executor = FakeExecutor::new(2, |_, attempt| FakeRun::exit(i32::from(attempt < 2)));
        for id in 1..=2 {
            let mut run = run(&heard, id, 1, 0, 0);
            run.task = Arc::new(Task::for_offset(Offset::new(0)).id("same"));
            executor.submit(run);
            executor.idle().await;
        }
        let ends: Vec<_> = executor.records().into_iter().map(|record| record.outcome).collect();
        assert_eq!(ends, [Some(TaskOutcome::ExitCode(1)), Some(TaskOutcome::Success)]);
    }

    #[tokio::test]
    async fn one_run_id_twice_is_a_violation() {
        let heard = Arc::new(Heard::default());
        let executor = FakeExecutor::succeeding(1);
        executor.submit(run(&heard, 1, 1, 0, 0));
        let again = std::panic::AssertUnwindSafe(|| executor.submit(run(&heard, 1, 1, 0, 0)));
        assert!(std::panic::catch_unwind(again).is_err());
        assert_eq!(executor.violations(), ["run 1 was submitted twice"]);
    }
}
