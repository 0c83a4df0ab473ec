//! Tasks: attempts, retries, replacements, and what their end means for their messages.

use super::effect::{Effect, HookCall, RunRequest};
use super::message::{Fate, MessageState, TaskEnd};
use super::output::Owner;
use super::{HookFailure, Partition, Timer};
use crate::failure::FailureAction;
use drakkar_api::{
    Epoch, ErrorAction, Event, Execution, Hook, Offset, Outputs, Priority, RunId, Task,
    TaskFailure, TaskId, TaskOutcome, TaskOutput, TaskPath, WindowId,
};
use smallvec::SmallVec;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The number of a task inside its assignment; also the [`RunId`] of its attempts, of which there
/// is never more than one.
pub(super) type TaskKey = u64;

/// Offsets of one task: most have one.
pub(super) type Offsets = SmallVec<[Offset; 1]>;

/// The state of one task that is not settled.
#[derive(Debug)]
pub(super) struct TaskState {
    pub(super) task: Arc<Task>,
    /// Its messages, each once.
    pub(super) offsets: Offsets,
    pub(super) window: WindowId,
    priority: Priority,
    /// Its number among the tasks of its first message.
    pub(super) ordinal: u32,
    pub(super) attempt: u32,
    /// How many replacements led to it.
    generation: u32,
    /// How often the hook that is called now was called before.
    pub(super) hook_failures: u32,
    pub(super) phase: TaskPhase,
    /// Bytes of `task`.
    input_bytes: usize,
    output: Option<Arc<TaskOutput>>,
    /// Bytes of `output`.
    output_bytes: usize,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskPhase {
    /// It is known, but no attempt was made yet.
    Attached,
    /// Its attempt waits for a slot.
    Waiting,
    /// Its attempt runs.
    Running,
    /// Between two attempts.
    BackingOff,
    /// `on_error` decides.
    Deciding,
    /// `on_task_complete`, or the delivery of its outputs.
    Completing,
    /// A drain asked for it back; it may have started meanwhile.
    Withdrawing,
    /// A drain took it back before it started.
    Withdrawn,
    /// The executor ended it without being asked: it is closing, and takes nothing any more.
    Killed,
    /// Its attempt is being killed, because its partition is stalled.
    Stalled,
    /// It failed, and the settings say that the worker stops.
    Halted,
}

impl TaskPhase {
    /// Returns whether the executor has a run of it that has not started, as far as is known.
    fn is_undecided(self) -> bool {
        matches!(self, Self::Waiting | Self::Withdrawing)
    }
}

/// Makes the ids of tasks. Those of one moment have their beginning in common.
#[derive(Debug, Default)]
pub(super) struct TaskIds {
    micros: u128,
    /// The text of the last id.
    text: String,
    /// How much of `text` is the same for all tasks of the moment.
    common: usize,
}

impl TaskIds {
    fn make(&mut self, micros: u128, partition: i32, epoch: Epoch, key: TaskKey) -> TaskId {
        if self.text.is_empty() || self.micros != micros {
            self.micros = micros;
            self.text.clear();
            write!(self.text, "t-{micros:012x}-{partition}-{:x}-", epoch.get())
                .expect("a string takes all");
            self.common = self.text.len();
        }
        self.text.truncate(self.common);
        write!(self.text, "{key:08x}").expect("a string takes all");
        TaskId::new(self.text.as_str())
    }
}

impl Partition {
    /// Makes a task known to its window and messages, without starting it.
    pub(super) fn attach(
        &mut self,
        window: WindowId,
        mut task: Arc<Task>,
        priority: Priority,
        generation: u32,
    ) -> TaskKey {
        self.tasks_made += 1;
        let key = self.tasks_made;
        let mut offsets = Offsets::from_slice(&task.source_offsets);
        offsets.sort_unstable();
        offsets.dedup();
        // Messages that were settled while the window was taken one by one need the task no more.
        offsets.retain(|offset| self.messages.get(offset).is_some_and(|m| m.takes_arranged()));
        debug_assert!(!offsets.is_empty(), "a task that nobody needs is refused");
        if task.id.is_none() {
            let id = self.make_task_id(key);
            Arc::make_mut(&mut task).id = Some(id);
        }
        let input_bytes = task.size_bytes();
        self.held_bytes += input_bytes;
        let first = offsets.first().and_then(|offset| self.messages.get(offset));
        let ordinal = first.map_or(0, |message| message.tasks_total);
        for &offset in &offsets {
            self.attach_to_message(offset, &task);
        }
        let state = self.windows.get_mut(&window).expect("the caller found it");
        state.open_tasks += 1;
        state.tasks_total += 1;
        let state = TaskState {
            task,
            offsets,
            window,
            priority,
            ordinal,
            attempt: 0,
            generation,
            hook_failures: 0,
            phase: TaskPhase::Attached,
            input_bytes,
            output: None,
            output_bytes: 0,
        };
        self.pending.insert(key, Arc::clone(&state.task));
        self.tasks.insert(key, Box::new(state));
        key
    }

    /// Makes an id that sorts by time inside its partition and is unique inside this process.
    fn make_task_id(&mut self, key: TaskKey) -> TaskId {
        let micros = self.now.since_origin().as_micros();
        self.task_ids.make(micros, self.id.partition(), self.epoch, key)
    }

    /// Starts the next attempt of a task.
    pub(super) fn start_attempt(&mut self, key: TaskKey) {
        let Some(state) = self.tasks.get_mut(&key) else { return };
        state.attempt += 1;
        self.observer.observe(&Event::TaskScheduled {
            path: TaskPath {
                partition: &self.id,
                window: state.window,
                task: &state.task,
                attempt: state.attempt,
            },
        });
        match &state.task.precomputed {
            Some(result) => {
                let execution = Execution::from_precomputed(result);
                self.on_attempt_ended(key, execution);
            }
            None => {
                state.phase = TaskPhase::Waiting;
                self.waiting_runs += 1;
                self.submitted_runs += 1;
                let id = RunId::new(key);
                let task = Arc::clone(&state.task);
                let priority = state.priority;
                self.effects.push(Effect::Submit(RunRequest { id, task, priority }));
            }
        }
    }

    pub(super) fn on_task_started(&mut self, run: RunId, slot: usize, queue_wait: Duration) {
        let key = run.get();
        let Some(state) = self.tasks.get_mut(&key) else { return };
        self.waiting_runs -= usize::from(state.phase.is_undecided());
        state.phase = TaskPhase::Running;
        self.observer.observe(&Event::TaskStarted {
            path: TaskPath {
                partition: &self.id,
                window: state.window,
                task: &state.task,
                attempt: state.attempt,
            },
            slot,
            queue_wait,
        });
        let last = *state.offsets.last().expect("a started task has a message");
        self.mark_started(last);
    }

    pub(super) fn on_task_finished(&mut self, run: RunId, mut execution: Execution) {
        let key = run.get();
        let Some(state) = self.tasks.get_mut(&key) else { return };
        self.submitted_runs -= 1;
        self.waiting_runs -= usize::from(state.phase.is_undecided());
        if execution.outcome == TaskOutcome::Cancelled && state.phase == TaskPhase::Stalled {
            execution.outcome = TaskOutcome::Timeout { limit: execution.duration };
        }
        if execution.outcome == TaskOutcome::Cancelled {
            state.attempt -= 1;
            if state.phase == TaskPhase::Withdrawing {
                state.phase = TaskPhase::Withdrawn;
                return self.on_withdrawn(key);
            }
            // Nothing is known of the work, so its messages are not settled: their offsets wait for
            // the end of the assignment, and the next owner does them again.
            state.phase = TaskPhase::Killed;
            return;
        }
        self.on_attempt_ended(key, execution);
    }

    fn on_attempt_ended(&mut self, key: TaskKey, execution: Execution) {
        let state = self.tasks.get_mut(&key).expect("the caller found it");
        self.observer.observe(&Event::TaskFinished {
            path: TaskPath {
                partition: &self.id,
                window: state.window,
                task: &state.task,
                attempt: state.attempt,
            },
            execution: &execution,
        });
        let success = execution.outcome.is_success();
        let output = Arc::new(TaskOutput {
            task: Arc::clone(&state.task),
            attempt: state.attempt,
            execution,
        });
        self.held_bytes -= state.output_bytes;
        state.output_bytes = output.stdout().len() + output.stderr().len();
        self.held_bytes += state.output_bytes;
        self.typical_output = moved_towards(self.typical_output, state.output_bytes);
        self.tasks_with_output += usize::from(state.output.is_none());
        state.output = Some(output);
        state.hook_failures = 0;
        if !success {
            state.phase = TaskPhase::Deciding;
            self.call_task_hook(key);
        } else if self.hooks.task_missing {
            self.settle_task(key, TaskEnd::Succeeded);
        } else {
            state.phase = TaskPhase::Completing;
            self.call_task_hook(key);
        }
    }

    /// Calls the hook that a task's phase asks for.
    pub(super) fn call_task_hook(&mut self, key: TaskKey) {
        let Some(state) = self.tasks.get(&key) else { return };
        let (task, window) = (RunId::new(key), state.window);
        let output = Arc::clone(state.output.as_ref().expect("an attempt has ended"));
        let call = match state.phase {
            TaskPhase::Deciding => {
                let retries_left = self.config.task_retries_max.saturating_sub(state.attempt - 1);
                HookCall::Error { task, window, failure: TaskFailure { output, retries_left } }
            }
            _ => HookCall::TaskComplete { task, window, output },
        };
        self.effects.push(Effect::Hook(call));
    }

    pub(super) fn on_task_hook(&mut self, run: RunId, result: Result<Outputs, HookFailure>) {
        let key = run.get();
        if !self.tasks.contains_key(&key) {
            return;
        }
        match result {
            Ok(outputs) if outputs.is_hook_missing() => {
                self.hooks.task_missing = true;
                self.settle_task(key, TaskEnd::Succeeded);
            }
            Ok(outputs) => self.deliver_task_outputs(key, outputs),
            Err(failure) => self.on_hook_failed(Owner::Task(key), &failure),
        }
    }

    pub(super) fn on_error_hook(
        &mut self,
        run: RunId,
        result: Result<(ErrorAction, Vec<Priority>), HookFailure>,
    ) {
        let key = run.get();
        let Some(state) = self.tasks.get(&key) else { return };
        let policy = Fate::from_task(state.output.as_ref().expect("an attempt has ended"));
        match result {
            Err(failure) => self.on_hook_failed(Owner::Task(key), &failure),
            Ok((ErrorAction::Policy, _)) => self.follow_policy(key, &policy),
            Ok((ErrorAction::Retry, _)) => self.retry_task(key, Duration::ZERO, &policy),
            Ok((ErrorAction::RetryAfter(delay), _)) => self.retry_task(key, delay, &policy),
            Ok((ErrorAction::Skip, _)) => self.skip_task(key),
            Ok((ErrorAction::Replace(tasks), priorities)) => {
                self.replace_task(key, tasks, priorities);
            }
            Ok((_, _)) if cfg!(drakkar_fault = "task_failure_forgotten") => {
                self.settle_task(key, TaskEnd::Failed);
            }
            Ok((_, _)) => self.fail_task(key, &policy),
        }
    }

    fn retry_task(&mut self, key: TaskKey, delay: Duration, policy: &Fate) {
        if self.tasks[&key].attempt > self.config.task_retries_max {
            self.observer.observe(&Event::RetriesExhausted { path: self.path(key) });
            return self.follow_policy(key, policy);
        }
        self.run_again(key, delay);
    }

    /// Does what the settings say of tasks that ended like this one.
    fn follow_policy(&mut self, key: TaskKey, fate: &Fate) {
        let state = &self.tasks[&key];
        let output = state.output.as_ref().expect("an attempt has ended");
        let policy = self.config.on_failure.of(output.outcome());
        if state.attempt < policy.attempts_max {
            let delay = policy.backoff.after(state.attempt, &mut self.jitter);
            return self.run_again(key, delay);
        }
        match policy.then {
            FailureAction::DeadLetter => self.fail_task(key, fate),
            FailureAction::Skip => self.skip_task(key),
            FailureAction::Stop => self.halt(Owner::Task(key), "executor.on_failure", fate),
        }
    }

    pub(super) fn skip_task(&mut self, key: TaskKey) {
        self.observer.observe(&Event::TaskSkipped { path: self.path(key) });
        self.settle_task(key, TaskEnd::Failed);
    }

    fn run_again(&mut self, key: TaskKey, delay: Duration) {
        let state = self.tasks.get_mut(&key).expect("the caller found it");
        state.phase = TaskPhase::BackingOff;
        self.observer.observe(&Event::TaskRetried { path: self.path(key), delay });
        if delay.is_zero() {
            self.start_attempt(key);
        } else {
            self.set_timer(self.now + delay, Timer::Attempt(key));
        }
    }

    /// Attaches the replacements before the replaced task is detached, so that no message completes
    /// in between.
    fn replace_task(&mut self, key: TaskKey, tasks: Vec<Task>, priorities: Vec<Priority>) {
        let state = &self.tasks[&key];
        let generation = state.generation + 1;
        let (window, parent) = (state.window, state.task.id.clone());
        if let Err(error) = self.check_replacements(window, generation, &tasks) {
            let failure = HookFailure { hook: Hook::OnError, error, panicked: false };
            self.observer.observe(&Event::HookFailed {
                hook: Hook::OnError,
                partition: Some(&self.id),
                window: Some(window),
                offset: self.tasks[&key].offsets.first().copied(),
                task: parent.as_ref().map(TaskId::as_str),
                error: &failure.error,
                panicked: false,
            });
            return self.fail_task(key, &Fate::from_hook(&failure));
        }
        let replacements = tasks.len();
        self.observer.observe(&Event::TaskReplaced { path: self.path(key), replacements });
        let keys: Vec<_> = tasks
            .into_iter()
            .zip(priorities)
            .map(|(mut task, priority)| {
                task.parent = task.parent.or_else(|| parent.clone());
                self.attach(window, Arc::new(task), priority, generation)
            })
            .collect();
        self.settle_task(key, TaskEnd::Replaced);
        for key in keys {
            self.start_attempt(key);
        }
    }

    /// A chain of replacements must end, must not fan out without a limit, and its tasks must name
    /// open messages.
    fn check_replacements(
        &self,
        window: WindowId,
        generation: u32,
        tasks: &[Task],
    ) -> Result<(), String> {
        let limit = self.config.replacements_max;
        if generation > limit && !tasks.is_empty() {
            return Err(format!(
                "a chain of more than {limit} replacements (executor.max_replacements)"
            ));
        }
        let limit = self.config.window_tasks_max;
        let open = self.windows[&window].open_tasks - 1 + tasks.len();
        if tasks.len() > 1 && open > limit {
            return Err(format!(
                "{open} open tasks of one window, the limit is {limit} \
                 (executor.max_tasks_per_window)"
            ));
        }
        let takes = MessageState::takes_replacement;
        tasks.iter().try_for_each(|task| self.check_offsets(task, takes))
    }

    /// The task failed for good: its messages go to the dead letters.
    pub(super) fn fail_task(&mut self, key: TaskKey, fate: &Fate) {
        let offsets = self.tasks[&key].offsets.clone();
        for offset in offsets {
            self.doom(offset, fate.clone());
        }
        self.settle_task(key, TaskEnd::Failed);
    }

    /// The task needs nothing more.
    pub(super) fn settle_task(&mut self, key: TaskKey, end: TaskEnd) {
        let state = self.tasks.remove(&key).expect("a task is settled once");
        let was_pending = self.pending.remove(key);
        debug_assert!(was_pending, "a task pends until it is settled");
        self.held_bytes -= state.input_bytes + state.output_bytes;
        self.tasks_with_output -= usize::from(state.output.is_some());
        let keep = !self.hooks.window_missing && end != TaskEnd::Replaced;
        let window = self.windows.get_mut(&state.window).expect("a window outlives its tasks");
        window.open_tasks -= 1;
        if let Some(output) = state.output.as_ref().filter(|_| keep) {
            window.results.push(Arc::clone(output));
            // An output keeps its task.
            let bytes = state.input_bytes + state.output_bytes;
            window.results_bytes += bytes;
            self.held_bytes += bytes;
        }
        for &offset in &state.offsets {
            self.detach_from_message(offset, state.output.as_ref(), state.input_bytes, end);
        }
        self.check_window(state.window);
    }

    pub(super) fn path(&self, key: TaskKey) -> TaskPath<'_> {
        let state = &self.tasks[&key];
        TaskPath {
            partition: &self.id,
            window: state.window,
            task: &state.task,
            attempt: state.attempt,
        }
    }
}

/// Returns an average that follows what comes: a new value makes an eighth of it.
fn moved_towards(average: usize, value: usize) -> usize {
    average - average.div_ceil(8) + value.div_ceil(8)
}
