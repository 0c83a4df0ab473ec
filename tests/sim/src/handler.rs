//! The user's code of the simulation: does what the recipes say, badly when the weather wants it, and
//! enters every call and answer.

use crate::journal::{Journal, WorkerNumber};
use crate::recipe::{TaskRecipe, size};
use crate::scenario::{Rates, Scenario};
use crate::seen::{About, Answered, Arranged, Counts, Number, Planned, Seen};
use crate::text::{is_unparsable, number_of_payload, payload_bytes};
use crate::traced_executor::{NUMBER_LABEL, number_of};
use crate::traced_source::epoch_in;
use crate::weather::Weather;
use drakkar_api::{
    CompletedWindow, Context, DecodeError, DeliveryAction, DeliveryFailure, Epoch, ErrorAction,
    FileLine, Handler, Hook, HookResult, HttpRequest, KafkaRecord, Message, MessageGroup, Offset,
    Outputs, PartitionId, Precomputed, Priority, RawInput, SourceMessage, Task, TaskFailure,
    TaskOutput, Window,
};
use drakkar_testkit::Random;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The label under which a task carries the epoch of its messages.
const EPOCH_LABEL: &str = "epoch";

/// A limit of tasks that no window reaches by accident.
pub(crate) const ROOMY: usize = 60;

const OUTPUTS_LABEL: &str = "outputs";
const FILLING_LABEL: &str = "filling";
const PRIORITY_LABEL: &str = "priority";

/// The handler of one worker.
pub(crate) struct SimHandler {
    scenario: Arc<Scenario>,
    journal: Journal,
    worker: WorkerNumber,
    weather: Weather,
    random: Mutex<Random>,
    /// How often the value of a message did not parse.
    unparsed: Mutex<BTreeMap<(Epoch, Offset), u32>>,
    /// Whether the worker died: nothing goes on in it then.
    dead: Arc<AtomicBool>,
}

/// What befalls a hook after the time that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    None,
    Error,
    Panic,
}

/// Answers for hooks that the handler does not have.
struct Without;

impl Handler for Without {
    type Input = RawInput;

    async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }
}

impl SimHandler {
    pub(crate) fn new(
        scenario: &Arc<Scenario>,
        journal: &Journal,
        worker: WorkerNumber,
        weather: &Weather,
        dead: &Arc<AtomicBool>,
    ) -> Self {
        Self {
            scenario: Arc::clone(scenario),
            journal: journal.clone(),
            worker,
            weather: weather.clone(),
            random: Mutex::new(Random::fork(scenario.seed, &format!("handler {worker}"))),
            unparsed: Mutex::default(),
            dead: Arc::clone(dead),
        }
    }

    fn see(&self, seen: Seen) {
        self.journal.see(self.worker, seen);
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random, &Rates) -> T) -> T {
        let rates = self.weather.rates();
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&mut random, &rates)
    }

    fn chance(&self, rate: fn(&Rates) -> u16) -> bool {
        self.draw(|random, rates| random.chance(rate(rates)))
    }

    fn with_unparsed<T>(&self, epoch: Epoch, offset: Offset, f: impl FnOnce(&mut u32) -> T) -> T {
        let mut unparsed = self.unparsed.lock().unwrap_or_else(PoisonError::into_inner);
        f(unparsed.entry((epoch, offset)).or_default())
    }

    /// Lets a hook take its time, and says how it goes.
    async fn endure(&self) -> Mishap {
        let (delay, mishap) = self.draw(|random, rates| {
            let slow = random.chance(rates.hook_slow);
            let delay = if slow { random.duration(rates.hook_longest) } else { Duration::ZERO };
            let mishap = if random.chance(rates.hook_errs) {
                Mishap::Error
            } else if random.chance(rates.hook_panics) {
                Mishap::Panic
            } else {
                Mishap::None
            };
            (delay, mishap)
        });
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.stop_if_dead().await;
        mishap
    }

    async fn stop_if_dead(&self) {
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    /// Fails a hook that is to fail, after that was entered.
    fn fail<T>(&self, mishap: Mishap, failed: Seen) -> Option<HookResult<T>> {
        match mishap {
            Mishap::None => None,
            Mishap::Error => {
                self.see(failed);
                Some(Err("the hook does not feel like it".into()))
            }
            Mishap::Panic => {
                self.see(failed);
                panic!("the hook gives up");
            }
        }
    }

    fn plan(&self, epoch: Epoch, offsets: &[Offset], recipe: TaskRecipe) -> (Task, Planned) {
        self.plan_at(epoch, offsets, recipe, None)
    }

    /// Makes a task by its recipe, which stands at `place` among those of its message.
    fn plan_at(
        &self,
        epoch: Epoch,
        offsets: &[Offset],
        recipe: TaskRecipe,
        place: Option<usize>,
    ) -> (Task, Planned) {
        let number = self.journal.number();
        let mut task = Task::for_offsets(offsets.iter().copied())
            .label(NUMBER_LABEL, number.to_string())
            .label(EPOCH_LABEL, epoch.to_string())
            .label(OUTPUTS_LABEL, recipe.outputs.to_string())
            .label(FILLING_LABEL, recipe.filling.to_string())
            .label(PRIORITY_LABEL, recipe.priority.to_string())
            .stdin("z".repeat(recipe.filling));
        if number.is_multiple_of(3) {
            task = task.id(format!("task-{number}"));
        }
        if let Some(success) = recipe.precomputed {
            let known = Precomputed::stdout("known");
            task = task.precomputed(Precomputed { exit_code: i32::from(!success), ..known });
        }
        let planned = Planned {
            number,
            offsets: offsets.to_vec(),
            recipe: place,
            precomputed: recipe.precomputed,
        };
        (task, planned)
    }

    /// Makes the tasks that the recipes of these messages ask for.
    fn arrange_as_drawn(
        &self,
        epoch: Epoch,
        partition: i32,
        offsets: &[Offset],
    ) -> Vec<(Task, Planned)> {
        let mut tasks = Vec::new();
        for &offset in offsets {
            let recipe = self.scenario.cookbook.of(partition, offset);
            for (place, &task) in recipe.tasks.iter().enumerate() {
                tasks.push(self.plan_at(epoch, &[offset], task, Some(place)));
            }
            if recipe.shares {
                let shared = TaskRecipe { precomputed: None, outputs: 1, filling: 3, priority: 0 };
                tasks.push(self.plan(epoch, offsets, shared));
            }
        }
        tasks
    }

    /// Makes tasks that the engine must refuse, and says why it must.
    fn arrange_badly(&self, epoch: Epoch, offsets: &[Offset]) -> (Vec<Task>, &'static str) {
        let plain = TaskRecipe { precomputed: None, outputs: 0, filling: 0, priority: 0 };
        let one = |offsets: &[Offset]| self.plan(epoch, offsets, plain).0;
        match self.draw(|random, _| random.below(3)) {
            0 => (vec![one(&[])], "no offsets"),
            1 => (vec![one(&[Offset::new(i64::MAX - 1)])], "an unknown offset"),
            _ => {
                let count = self.scenario.config.window_tasks_max + 1;
                ((0..count).map(|_| one(offsets)).collect(), "too many tasks")
            }
        }
    }

    /// Makes so many payloads, and their numbers.
    fn outputs(&self, count: usize, filling: usize) -> (Outputs, Vec<Number>) {
        let mut outputs = Outputs::new();
        let mut numbers = Vec::new();
        for _ in 0..count {
            let number = self.journal.number();
            let bytes = payload_bytes(number, filling);
            if self.draw(|random, _| random.chance(650)) {
                outputs.push(KafkaRecord::bytes(bytes));
            } else {
                outputs.push(FileLine::bytes("lines", bytes));
            }
            numbers.push(number);
        }
        (outputs, numbers)
    }

    /// Answers a hook of outputs, and enters the answer.
    fn put_out(&self, epoch: Epoch, about: About, count: usize, filling: usize) -> Outputs {
        let (mut outputs, numbers) = self.outputs(count, filling);
        let answer = if self.chance(|rates| rates.unroutable) {
            outputs.push(HttpRequest::default());
            Answered::Unroutable
        } else {
            Answered::Outputs(numbers)
        };
        self.see(Seen::HookAnswered { epoch, about, answer });
        outputs
    }

    /// Decides what follows a failed task.
    fn decide(&self, epoch: Epoch, failure: &TaskFailure) -> (ErrorAction, Answered) {
        match self.draw(|random, _| random.below(9)) {
            0..=2 => (ErrorAction::Retry, Answered::Retry(Duration::ZERO)),
            3 => {
                let delay = self.draw(|random, _| random.duration(Duration::from_secs(2)));
                (ErrorAction::RetryAfter(delay), Answered::Retry(delay))
            }
            4 => (ErrorAction::Skip, Answered::Skip),
            5 | 6 => {
                // Two might be too many tasks, depending on what is open at that moment.
                let most = u64::from(self.scenario.config.window_tasks_max >= ROOMY) + 1;
                let count = self.draw(|random, _| random.within(0..=most));
                let (tasks, planned) =
                    (0..count).map(|_| self.replacement(epoch, &failure.task)).unzip();
                (ErrorAction::Replace(tasks), Answered::Replace(planned))
            }
            7 => (ErrorAction::DeadLetter, Answered::DeadLetter),
            _ => (ErrorAction::Policy, Answered::Policy),
        }
    }

    fn replacement(&self, epoch: Epoch, task: &Task) -> (Task, Planned) {
        let precomputed = self.draw(|random, _| random.chance(200).then(|| random.chance(700)));
        let recipe = TaskRecipe {
            precomputed,
            outputs: size(self.draw(|random, _| random.below(3))),
            filling: label(task, FILLING_LABEL),
            priority: 0,
        };
        self.plan(epoch, &task.source_offsets, recipe)
    }
}

fn label<T: std::str::FromStr + Default>(task: &Task, name: &str) -> T {
    task.labels.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn epoch_of(task: &Task) -> Epoch {
    Epoch::new(label(task, EPOCH_LABEL))
}

impl Handler for SimHandler {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        self.stop_if_dead().await;
        let offsets: Vec<_> = window.messages().map(Message::offset).collect();
        let epoch = window.messages().next().map_or(Epoch::new(0), |it| epoch_in(it.headers()));
        let (window, partition) = (window.id(), window.partition().partition());
        self.see(Seen::ArrangeCalled { epoch, window, offsets: offsets.clone() });
        let mut mishap = self.endure().await;
        if self.chance(|rates| rates.arrange_fails) {
            mishap = Mishap::Error;
        }
        let answered =
            |answer| Seen::ArrangeAnswered { epoch, window, offsets: offsets.clone(), answer };
        if let Some(failed) = self.fail(mishap, answered(Arranged::Failed)) {
            return failed;
        }
        if self.chance(|rates| rates.arrange_refusable) {
            let (tasks, why) = self.arrange_badly(epoch, &offsets);
            self.see(answered(Arranged::Refusable(why)));
            return Ok(tasks);
        }
        let (tasks, planned) =
            self.arrange_as_drawn(epoch, partition, &offsets).into_iter().unzip();
        self.see(answered(Arranged::Tasks(planned)));
        Ok(tasks)
    }

    async fn on_task_complete(&self, done: &TaskOutput, cx: &Context) -> HookResult<Outputs> {
        if !self.scenario.hooks.task {
            let epoch = epoch_of(&done.task);
            self.see(Seen::HookMissing { epoch, hook: Hook::OnTaskComplete });
            return Without.on_task_complete(done, cx).await;
        }
        self.stop_if_dead().await;
        let (epoch, about) = (epoch_of(&done.task), About::TaskComplete(number_of(&done.task)));
        self.see(Seen::HookCalled { epoch, about: about.clone() });
        let mishap = self.endure().await;
        let failed = Seen::HookAnswered { epoch, about: about.clone(), answer: Answered::Failed };
        if let Some(failed) = self.fail(mishap, failed) {
            return failed;
        }
        let (count, filling) = (label(&done.task, OUTPUTS_LABEL), label(&done.task, FILLING_LABEL));
        Ok(self.put_out(epoch, about, count, filling))
    }

    async fn on_message_complete(
        &self,
        group: &MessageGroup<RawInput>,
        cx: &Context,
    ) -> HookResult<Outputs> {
        if !self.scenario.hooks.message {
            let epoch = epoch_in(group.message.headers());
            self.see(Seen::HookMissing { epoch, hook: Hook::OnMessageComplete });
            return Without.on_message_complete(group, cx).await;
        }
        self.stop_if_dead().await;
        let counts =
            Counts { total: group.total(), succeeded: group.succeeded(), failed: group.failed() };
        let epoch = epoch_in(group.message.headers());
        let about = About::Message { offset: group.message.offset(), group: counts };
        self.see(Seen::HookCalled { epoch, about: about.clone() });
        let mishap = self.endure().await;
        let failed = Seen::HookAnswered { epoch, about: about.clone(), answer: Answered::Failed };
        if let Some(failed) = self.fail(mishap, failed) {
            return failed;
        }
        let count = size(self.draw(|random, _| random.below(3)));
        Ok(self.put_out(epoch, about, count, 4))
    }

    async fn on_window_complete(
        &self,
        window: &CompletedWindow<RawInput>,
        cx: &Context,
    ) -> HookResult<Outputs> {
        let epoch = window.messages.first().map_or(Epoch::new(0), |it| epoch_in(it.headers()));
        if !self.scenario.hooks.window {
            self.see(Seen::HookMissing { epoch, hook: Hook::OnWindowComplete });
            return Without.on_window_complete(window, cx).await;
        }
        self.stop_if_dead().await;
        let offsets = window.messages.iter().map(|message| message.offset()).collect();
        let about = About::Window { window: window.id, offsets, results: window.results.len() };
        self.see(Seen::HookCalled { epoch, about: about.clone() });
        let mishap = self.endure().await;
        let failed = Seen::HookAnswered { epoch, about: about.clone(), answer: Answered::Failed };
        if let Some(failed) = self.fail(mishap, failed) {
            return failed;
        }
        let count = size(self.draw(|random, _| random.below(3)));
        Ok(self.put_out(epoch, about, count, 4))
    }

    async fn on_error(&self, failure: &TaskFailure, _cx: &Context) -> HookResult<ErrorAction> {
        self.stop_if_dead().await;
        let (epoch, about) = (epoch_of(&failure.task), About::Error(number_of(&failure.task)));
        self.see(Seen::HookCalled { epoch, about: about.clone() });
        let mishap = self.endure().await;
        let failed = Seen::HookAnswered { epoch, about: about.clone(), answer: Answered::Failed };
        if let Some(failed) = self.fail(mishap, failed) {
            return failed;
        }
        let (action, answer) = self.decide(epoch, failure);
        self.see(Seen::HookAnswered { epoch, about, answer });
        Ok(action)
    }

    async fn on_delivery_error(
        &self,
        failure: &DeliveryFailure,
        _cx: &Context,
    ) -> HookResult<DeliveryAction> {
        self.stop_if_dead().await;
        let payloads = failure.payloads.iter().map(number_of_payload).collect();
        let about = About::Delivery { payloads, attempts: failure.attempts };
        // Whose payloads they are is known by their numbers.
        let epoch = Epoch::new(0);
        self.see(Seen::HookCalled { epoch, about: about.clone() });
        let mishap = self.endure().await;
        let failed = Seen::HookAnswered { epoch, about: about.clone(), answer: Answered::Failed };
        if let Some(failed) = self.fail(mishap, failed) {
            return failed;
        }
        let (action, answer) = match self.draw(|random, _| random.below(4)) {
            0 => (DeliveryAction::Skip, Answered::Skip),
            1 => (DeliveryAction::DeadLetter, Answered::DeadLetter),
            _ => (DeliveryAction::Retry, Answered::Retry(Duration::ZERO)),
        };
        self.see(Seen::HookAnswered { epoch, about, answer });
        Ok(action)
    }

    async fn on_assign(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        match self.endure().await {
            Mishap::None => Ok(()),
            Mishap::Error => Err("no assignment today".into()),
            Mishap::Panic => panic!("the hook gives up"),
        }
    }

    async fn on_revoke(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        match self.endure().await {
            Mishap::None => Ok(()),
            Mishap::Error => Err("no revoke today".into()),
            Mishap::Panic => panic!("the hook gives up"),
        }
    }

    fn message_label(&self, message: &Message<RawInput>) -> String {
        let (epoch, offset) = (epoch_in(message.headers()), message.offset());
        self.see(Seen::Taken { epoch, offset });
        if self.chance(|rates| rates.label_panics) {
            self.see(Seen::TakingFailed { epoch, offset, hook: Hook::MessageLabel });
            panic!("no label for this one");
        }
        if message.parse_error().is_some() {
            self.with_unparsed(epoch, offset, |failures| *failures += 1);
            self.see(Seen::Unparsed { epoch, offset });
        }
        offset.to_string()
    }

    fn task_priority(&self, task: &Task) -> Priority {
        if self.chance(|rates| rates.priority_panics) {
            let (epoch, task) = (epoch_of(task), number_of(task));
            self.see(Seen::PriorityFailed { epoch, task });
            panic!("no priority for this one");
        }
        Priority::new(label(task, PRIORITY_LABEL))
    }

    fn decode(&self, message: &SourceMessage) -> Result<RawInput, DecodeError> {
        let (epoch, offset) = (epoch_in(&message.headers), message.offset);
        self.see(Seen::Taken { epoch, offset });
        if self.chance(|rates| rates.decode_panics) {
            self.see(Seen::TakingFailed { epoch, offset, hook: Hook::Decode });
            panic!("cannot read this one");
        }
        let value = message.value.clone().unwrap_or_default();
        let recipe = self.scenario.cookbook.of(message.partition.partition(), offset);
        let failures = self.with_unparsed(epoch, offset, |failures| *failures);
        let parses = recipe.parses_after.is_some_and(|after| failures >= after);
        match is_unparsable(&value) && !parses {
            true => Err(DecodeError::new("it begins with an exclamation mark")),
            false => Ok(RawInput(value)),
        }
    }
}
