//! The state machine against a world that answers at random, with a ledger that knows what must
//! have happened before an offset may be finished.

mod accounting;
mod assignments;

use super::*;
use crate::erased::{AnyMessage, DynHandler};
use crate::failure::FailureAction;
use bytes::Bytes;
use drakkar_api::{
    CommitOffset, Context, DeliveryAction, DeliveryId, ErrorAction, Execution, Handler, Headers,
    Hook, HookResult, KafkaRecord, NullObserver, Outputs, Payload, Priority, RawInput, RunId,
    Settlement, SinkError, SinkErrorKind, SinkId, SinkKind, SourceError, SourceErrorKind, Task,
    TaskOutcome, TaskOutput, Window,
};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

/// Gives the answers of default hooks, and decodes.
struct Plain;

impl Handler for Plain {
    type Input = RawInput;

    async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }
}

/// Nothing fails, and there is no hook but `arrange`, which the engine has to find out.
const QUIET: Weather = Weather {
    seed: 1,
    faults: 0,
    has_task_hook: false,
    has_message_hook: false,
    has_window_hook: false,
    knows_hooks: false,
};

/// Makes a partition with the sinks "a" and "b".
fn partition_of(config: EngineConfig, hooks: HookPresence) -> Partition {
    let sinks = vec![SinkId::new(SinkKind::Kafka, "a"), SinkId::new(SinkKind::Kafka, "b")];
    Partition::new(
        PartitionId::new("in", 0),
        Epoch::new(1),
        Arc::new(config),
        Arc::new(Router::new(sinks)),
        Arc::new(NullObserver),
        hooks,
    )
}

/// A drain that has all the time that it wants.
fn drain(cause: DrainCause) -> Input {
    Input::Drain { cause, deadline: Instant::from_origin(Duration::MAX) }
}

fn decode(source: Arc<SourceMessage>) -> AnyMessage {
    DynHandler::decode(&Plain, source).expect("nothing panics")
}

/// Returns what a default hook answers.
fn missing() -> Outputs {
    let worker = drakkar_api::WorkerInfo {
        worker_id: drakkar_api::WorkerId::new("w"),
        cluster: String::new(),
        consumer_group: String::new(),
    };
    let cx = Context::new(Arc::new(worker), Arc::default(), Default::default());
    let output = TaskOutput {
        task: Arc::new(Task::for_offset(Offset::new(0))),
        attempt: 1,
        execution: Execution::without_process(TaskOutcome::Success),
    };
    let answer = Handler::on_task_complete(&Plain, &output, &cx).now_or_never();
    answer.expect("ready at once").expect("no error")
}

/// What waits for an answer.
#[derive(Debug)]
enum Open {
    Arrange(ArrangeCall),
    Waiting(RunId, Vec<Offset>),
    Running(RunId, Vec<Offset>),
    Hook(HookCall),
    Item(ItemKey, DeliveryId),
    Letter(u64, Option<DeliveryId>, Offset),
    Commit(CommitOffset),
}

/// What the world does, as chances in percent, drawn from a seed.
#[derive(Clone, Copy, Debug)]
struct Weather {
    seed: u64,
    faults: u64,
    has_task_hook: bool,
    has_message_hook: bool,
    has_window_hook: bool,
    /// Whether it is known from the start which hooks there are, or learnt by calling them.
    knows_hooks: bool,
}

impl Weather {
    fn hooks(self) -> HookPresence {
        let missing = |has_hook: bool| self.knows_hooks && !has_hook;
        HookPresence {
            task_missing: missing(self.has_task_hook),
            message_missing: missing(self.has_message_hook),
            window_missing: missing(self.has_window_hook),
        }
    }
}

struct World {
    machine: Partition,
    weather: Weather,
    state: u64,
    now: Instant,
    open: Vec<Open>,
    next_offset: i64,
    granted: usize,
    /// Offsets handed over, and those that are finished or given back.
    handed: BTreeSet<Offset>,
    settled: BTreeSet<Offset>,
    given_back: BTreeSet<Offset>,
    abandoned: BTreeSet<Offset>,
    lettered: BTreeSet<Offset>,
    /// Offsets of which a process ran, a payload was sent, or a dead letter was written.
    traced: BTreeSet<Offset>,
    /// The messages of each window.
    windows: BTreeMap<WindowId, BTreeSet<Offset>>,
    /// Payloads without an end.
    unsettled_payloads: BTreeSet<(Offset, String)>,
    message_hooks: BTreeSet<Offset>,
    committed: Option<CommitOffset>,
    commit_faults: usize,
    over: Option<bool>,
}

impl World {
    fn new(weather: Weather) -> Self {
        let config = EngineConfig {
            window_size: 5,
            buffer_messages: 12,
            ahead_max: 40,
            replacements_max: 3,
            window_tasks_max: 8,
            ..EngineConfig::default()
        };
        let machine = partition_of(config, weather.hooks());
        let mut world = Self {
            machine,
            weather,
            state: weather.seed,
            now: Instant::ORIGIN,
            open: Vec::new(),
            next_offset: 0,
            granted: 0,
            handed: BTreeSet::new(),
            settled: BTreeSet::new(),
            given_back: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            lettered: BTreeSet::new(),
            traced: BTreeSet::new(),
            windows: BTreeMap::new(),
            unsettled_payloads: BTreeSet::new(),
            message_hooks: BTreeSet::new(),
            committed: None,
            commit_faults: 0,
            over: None,
        };
        let effects = world.machine.start();
        world.perform(effects);
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        let mut jitter = Jitter::new(self.state);
        let fraction = jitter.fraction();
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(below | 1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let drawn = (fraction * below as f64) as u64;
        drawn
    }

    fn fault(&mut self) -> bool {
        self.draw(100) < self.weather.faults
    }

    fn handle(&mut self, input: Input) {
        self.machine.set_admission(Admission::Any);
        let effects = self.machine.handle(input, self.now);
        self.perform(effects);
    }

    fn produce(&mut self, count: usize) {
        let count = count.min(self.granted);
        if count == 0 || self.over.is_some() {
            return;
        }
        self.granted -= count;
        let messages = (0..count).map(|_| {
            self.next_offset += 1 + i64::try_from(self.draw(3)).expect("small");
            let offset = Offset::new(self.next_offset);
            self.handed.insert(offset);
            SourceMessage {
                partition: PartitionId::new("in", 0),
                offset,
                key: None,
                value: Some(Bytes::from_static(b"v")),
                timestamp: None,
                headers: Headers::new(),
            }
        });
        let messages = messages.collect();
        self.handle(Input::Messages(messages));
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(self.over.is_none(), "nothing comes after the end: {effect:?}");
            match effect {
                Effect::Request(credit) => self.granted += credit.messages,
                Effect::Arrange(call) => {
                    let offsets = call.messages.iter().map(|(source, _)| source.offset);
                    self.windows.entry(call.window).or_default().extend(offsets);
                    self.open.push(Open::Arrange(call));
                }
                Effect::Submit(run) => {
                    let offsets = run.task.source_offsets.clone();
                    self.open.push(Open::Waiting(run.id, offsets));
                }
                Effect::Withdraw(runs) => self.withdraw(&runs),
                Effect::Kill(runs) => panic!("by default nothing is killed: {runs:?}"),
                Effect::Fence => self.open.retain(|open| matches!(open, Open::Commit(_))),
                Effect::Hook(call) => {
                    if let HookCall::MessageComplete { offset, .. } = &call {
                        assert!(self.message_hooks.insert(*offset), "called twice for {offset}");
                    }
                    self.open.push(Open::Hook(call));
                }
                Effect::Deliver { item, .. } => {
                    let ItemKey::Payload { group, .. } = item.key else {
                        unreachable!("letters have an effect of their own")
                    };
                    self.traced.extend(self.machine.owner_offsets(group));
                    self.unsettled_payloads.insert((item.id.offset(), item.id.to_string()));
                    self.open.push(Open::Item(item.key, item.id));
                }
                Effect::DeadLetter { key, letter } => {
                    let id = match &letter.content {
                        LetterContent::Message => None,
                        LetterContent::Payload { id, .. } => Some(id.clone()),
                    };
                    self.traced.insert(letter.source.offset);
                    self.open.push(Open::Letter(key, id, letter.source.offset));
                }
                Effect::Settle(offset, Settlement::GivenBack) => {
                    assert!(self.given_back.insert(offset));
                }
                Effect::Settle(offset, Settlement::Abandoned) => {
                    assert!(!self.given_back.contains(&offset) && !self.settled.contains(&offset));
                    self.abandoned.insert(offset);
                }
                Effect::Settle(offset, _) => self.check_settled(offset),
                Effect::Commit(position) => self.check_commit(position),
                Effect::Stop(reason) => panic!("by default nothing stops: {reason}"),
                Effect::Over { clean, .. } => self.over = Some(clean),
            }
        }
    }

    /// DL-1: an offset is finished only when nothing of it is open.
    fn check_settled(&mut self, offset: Offset) {
        assert!(self.settled.insert(offset), "{offset} is finished twice");
        let payload = self.unsettled_payloads.iter().find(|(of, _)| *of == offset);
        assert_eq!(payload, None, "{offset} is finished before its payload");
        let task = self.open.iter().find(|open| match open {
            Open::Waiting(_, offsets) | Open::Running(_, offsets) => offsets.contains(&offset),
            _ => false,
        });
        assert!(task.is_none(), "{offset} is finished before {task:?}");
    }

    /// WM-1: everything below a commit is finished, and it never goes back. WM-2: one at a time.
    fn check_commit(&mut self, position: CommitOffset) {
        assert!(Some(position) > self.committed, "{position} is not beyond {:?}", self.committed);
        assert!(!self.open.iter().any(|open| matches!(open, Open::Commit(_))), "two commits");
        let below = self
            .handed
            .iter()
            .find(|offset| offset.next() <= position && !self.settled.contains(offset));
        assert_eq!(below, None, "a commit of {position} passes it");
        self.open.push(Open::Commit(position));
    }

    fn withdraw(&mut self, runs: &[RunId]) {
        let (gone, kept) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|open| matches!(open, Open::Waiting(id, _) if runs.contains(id)));
        self.open = kept;
        let gone: Vec<Open> = gone;
        for open in gone {
            let Open::Waiting(task, _) = open else { unreachable!("only those were taken") };
            let execution = Box::new(Execution::without_process(TaskOutcome::Cancelled));
            let effects = self.machine.handle(Input::TaskFinished { task, execution }, self.now);
            self.perform(effects);
        }
    }

    /// Answers one open thing, chosen at random.
    fn step(&mut self) {
        if self.open.is_empty() {
            return self.pass_time();
        }
        let at = self.draw(self.open.len() as u64);
        let open = self.open.swap_remove(usize::try_from(at).expect("small"));
        match open {
            Open::Arrange(call) => self.answer_arrange(call),
            Open::Waiting(task, offsets) => {
                self.traced.extend(&offsets);
                self.open.push(Open::Running(task, offsets));
                let queue_wait = Duration::ZERO;
                self.handle(Input::TaskStarted { task, slot: 0, queue_wait });
            }
            Open::Running(task, _) => {
                let outcome = match self.fault() {
                    true => TaskOutcome::ExitCode(1),
                    false => TaskOutcome::Success,
                };
                let execution = Box::new(Execution::without_process(outcome));
                self.handle(Input::TaskFinished { task, execution });
            }
            Open::Hook(call) => self.answer_hook(call),
            Open::Item(key, id) => {
                let end = if self.fault() {
                    let error = SinkError::temporary(SinkErrorKind::Connection, "away");
                    ItemEnd::Failed { error, attempts: 4 }
                } else {
                    self.unsettled_payloads.remove(&(id.offset(), id.to_string()));
                    ItemEnd::Confirmed
                };
                self.handle(Input::ItemsEnded(vec![(key, end)]));
            }
            Open::Letter(key, id, offset) => {
                match id {
                    Some(id) => {
                        self.unsettled_payloads.remove(&(offset, id.to_string()));
                    }
                    None => assert!(self.lettered.insert(offset), "{offset} is lettered twice"),
                }
                let ends = vec![(ItemKey::Letter(key), ItemEnd::Confirmed)];
                self.handle(Input::ItemsEnded(ends));
            }
            Open::Commit(position) => {
                let result = if self.fault() {
                    self.commit_faults += 1;
                    Err(SourceError::new(SourceErrorKind::Commit, "not now"))
                } else {
                    self.committed = Some(position);
                    Ok(position)
                };
                self.handle(Input::Committed(result));
            }
        }
    }

    /// Lets time pass to the next thing that is due.
    fn pass_time(&mut self) {
        if let Some(due) = self.machine.next_due() {
            self.now = due.max(self.now);
            self.handle(Input::Tick);
        }
    }

    fn failure(hook: Hook) -> HookFailure {
        HookFailure { hook, error: "no".to_owned(), panicked: false }
    }

    fn answer_arrange(&mut self, call: ArrangeCall) {
        let offsets: Vec<_> = call.messages.iter().map(|(source, _)| source.offset).collect();
        let messages = call
            .messages
            .into_iter()
            .map(|(source, typed)| (source.offset, typed.unwrap_or_else(|| decode(source))));
        let messages = messages.collect();
        let result = if self.fault() {
            Err(Self::failure(Hook::Arrange))
        } else {
            let mut tasks = Vec::new();
            for offset in &offsets {
                for _ in 0..self.draw(3) {
                    let mut task = Task::for_offset(*offset);
                    if self.draw(10) == 0 {
                        task.precomputed = Some(drakkar_api::Precomputed::stdout("x"));
                    }
                    tasks.push((Arc::new(task), Priority::default()));
                }
            }
            if self.draw(4) == 0 {
                let task = Arc::new(Task::for_offsets(offsets));
                tasks.push((task, Priority::default()));
            }
            Ok(tasks)
        };
        self.handle(Input::Arranged { window: call.window, messages, result });
    }

    fn outputs(&mut self, hook: Hook) -> Result<Outputs, HookFailure> {
        if self.fault() {
            return Err(Self::failure(hook));
        }
        let mut outputs = Outputs::new();
        for _ in 0..self.draw(4) {
            let sink = if self.draw(2) == 0 { "a" } else { "b" };
            outputs.push(KafkaRecord::bytes("x").to(sink));
        }
        if self.fault() {
            outputs.push(Payload::from(KafkaRecord::bytes("x").to("nowhere")));
        }
        Ok(outputs)
    }

    fn answer_hook(&mut self, call: HookCall) {
        let answer = match call {
            HookCall::TaskComplete { task, .. } => {
                let present = self.weather.has_task_hook;
                let result =
                    if present { self.outputs(Hook::OnTaskComplete) } else { Ok(missing()) };
                HookAnswer::TaskComplete { task, result }
            }
            HookCall::Error { task, failure, .. } => {
                let offsets = failure.task.source_offsets.clone();
                let action = match self.draw(7) {
                    0 => Ok(ErrorAction::Policy),
                    1 | 2 => Ok(ErrorAction::Retry),
                    3 => Ok(ErrorAction::RetryAfter(Duration::from_secs(1))),
                    4 => Ok(ErrorAction::Skip),
                    5 => Ok(ErrorAction::Replace(vec![Task::for_offsets(offsets); 2])),
                    _ => Err(Self::failure(Hook::OnError)),
                };
                let result = action.map(|action| (action, vec![Priority::default(); 2]));
                HookAnswer::Error { task, result }
            }
            HookCall::MessageComplete { offset, .. } => {
                let present = self.weather.has_message_hook;
                let result =
                    if present { self.outputs(Hook::OnMessageComplete) } else { Ok(missing()) };
                HookAnswer::MessageComplete { offset, result }
            }
            HookCall::WindowComplete { window } => {
                let present = self.weather.has_window_hook;
                let result =
                    if present { self.outputs(Hook::OnWindowComplete) } else { Ok(missing()) };
                HookAnswer::WindowComplete { window: window.id, result }
            }
            HookCall::DeliveryError { group, .. } => {
                let result = match self.draw(4) {
                    0 => Ok(DeliveryAction::DeadLetter),
                    1 => Ok(DeliveryAction::Retry),
                    2 => {
                        self.skip_group(group);
                        Ok(DeliveryAction::Skip)
                    }
                    _ => Err(Self::failure(Hook::OnDeliveryError)),
                };
                HookAnswer::DeliveryError { group, result }
            }
        };
        self.handle(Input::HookAnswered(answer));
    }

    /// The handler lets the failed payloads of a group go: that is an end, too.
    fn skip_group(&mut self, group: u64) {
        let Some(group) = self.machine.groups.get(&group) else { return };
        for (_, (id, _)) in group.failed_payloads() {
            self.unsettled_payloads.remove(&(id.offset(), id.to_string()));
        }
    }

    fn run_dry(&mut self) {
        for _ in 0..20_000 {
            if self.open.is_empty() && self.machine.next_due().is_none() || self.over.is_some() {
                return;
            }
            self.step();
        }
        panic!("it never comes to rest: {:?}", self.open);
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    (any::<u64>(), 0_u64..30, any::<[bool; 4]>()).prop_map(|(seed, faults, hooks)| Weather {
        seed,
        faults,
        has_task_hook: hooks[0],
        has_message_hook: hooks[1],
        has_window_hook: hooks[2],
        knows_hooks: hooks[3],
    })
}

proptest! {
    // Promise: DL-1, DL-2, WM-1, WM-2, FT-1
    #[test]
    fn everything_is_settled_before_it_is_committed(weather in weather(), rounds in 1_usize..12) {
        let mut world = World::new(weather);
        for round in 0..rounds {
            world.produce(1 + round % 7);
            for _ in 0..world.draw(60) {
                world.step();
            }
        }
        world.run_dry();
        prop_assert_eq!(&world.settled, &world.handed, "something is left");
        prop_assert!(world.unsettled_payloads.is_empty());
        let last = world.handed.last().map(|offset| offset.next());
        prop_assert_eq!(world.committed, last);
        let machine = &world.machine;
        prop_assert_eq!(machine.load(), Load::default());
        prop_assert!(machine.windows.is_empty() && machine.tasks.is_empty());
        prop_assert!(machine.sets.is_empty() && machine.groups.is_empty());
        prop_assert!(machine.letters.is_empty() && machine.messages.is_empty());
    }
}

proptest! {
    // Promise: RB-1, WM-1
    #[test]
    fn a_drain_finishes_a_prefix_and_gives_the_rest_back(weather in weather(), steps in 0_u64..200) {
        let mut world = World::new(weather);
        world.produce(12);
        for _ in 0..steps {
            world.step();
            if world.draw(5) == 0 {
                world.produce(3);
            }
        }
        world.commit_faults = 0;
        let before = world.settled.clone();
        let last = world.traced.last().and_then(|traced| {
            world.windows.values().filter(|window| window.contains(traced)).flatten().max()
        });
        let last = last.copied();
        world.handle(drain(DrainCause::Revoke));
        world.run_dry();
        let clean = world.over.expect("a drain ends by itself");
        prop_assert!(clean || world.commit_faults > 0, "unclean without a cause");
        if clean {
            // Nothing that left a trace will be done again by the next owner.
            let again = world.traced.iter().filter(|offset| {
                world.committed.is_none_or(|committed| offset.next() > committed)
            });
            prop_assert_eq!(again.count(), 0, "it left a trace, but is not committed");
        }
        prop_assert!(world.settled.is_disjoint(&world.given_back));
        // Nothing is waited for that was not before a trace, or in one window with it.
        let waited_for = world.settled.difference(&before).max().copied();
        prop_assert!(waited_for <= last, "{waited_for:?} had not started");
    }
}

proptest! {
    // Promise: RB-1, RB-2
    #[test]
    fn a_lost_partition_is_fenced_and_commits_nothing(weather in weather(), steps in 0_u64..200) {
        let mut world = World::new(weather);
        world.produce(12);
        for _ in 0..steps {
            world.step();
        }
        world.open.retain(|open| !matches!(open, Open::Commit(_)));
        world.handle(Input::Lost);
        prop_assert_eq!(world.over, Some(false));
        prop_assert!(world.open.is_empty(), "everything was withdrawn: {:?}", world.open);
        prop_assert_eq!(world.machine.load(), Load::default());
        let late = Input::Committed(Ok(CommitOffset::new(1)));
        prop_assert!(world.machine.handle(late, world.now).is_empty());
    }
}

// Promise: RB-1
#[test]
fn an_expired_drain_commits_what_is_finished() {
    let mut world = World::new(QUIET);
    world.machine.hooks =
        HookPresence { task_missing: true, message_missing: true, window_missing: true };
    world.produce(2);
    let Some(Open::Arrange(call)) = world.open.pop() else { panic!("a window is arranged") };
    let offsets: Vec<_> = call.messages.iter().map(|(source, _)| source.offset).collect();
    let task = |offset: Offset| (Arc::new(Task::for_offset(offset)), Priority::default());
    let result = Ok(offsets.iter().map(|&offset| task(offset)).collect());
    world.handle(Input::Arranged { window: call.window, messages: Vec::new(), result });
    for task in [RunId::new(1), RunId::new(2)] {
        world.handle(Input::TaskStarted { task, slot: 0, queue_wait: Duration::ZERO });
    }
    world.open.clear();
    let execution = Box::new(Execution::without_process(TaskOutcome::Success));
    world.handle(Input::TaskFinished { task: RunId::new(1), execution });
    world.handle(drain(DrainCause::Revoke));
    assert_eq!(world.over, None, "the second task runs");
    world.open.retain(|open| matches!(open, Open::Commit(_)));
    world.handle(Input::DrainExpired);
    while world.over.is_none() {
        world.step();
    }
    assert_eq!(world.over, Some(false));
    assert_eq!(world.committed, Some(offsets[0].next()));
    assert!(world.abandoned.iter().eq(&offsets[1..]), "{:?}", world.abandoned);
}

// Promise: RB-1
#[test]
fn an_answer_beyond_the_line_waits_until_the_line_moves() {
    let mut world = World::new(Weather { has_message_hook: true, knows_hooks: true, ..QUIET });
    world.produce(3);
    let Some(Open::Arrange(call)) = world.open.pop() else { panic!("a window is arranged") };
    let messages: Vec<_> = call.messages.into_iter().map(|(m, _)| (m.offset, decode(m))).collect();
    let offsets: Vec<_> = messages.iter().map(|(offset, _)| *offset).collect();
    let task = |offset: Offset| (Arc::new(Task::for_offset(offset)), Priority::default());
    let result = Ok(vec![task(offsets[0]), task(offsets[2])]);
    world.handle(Input::Arranged { window: call.window, messages, result });
    let start = |task| Input::TaskStarted { task, slot: 0, queue_wait: Duration::ZERO };
    world.handle(start(RunId::new(1)));
    let effects = world.machine.handle(drain(DrainCause::Revoke), world.now);
    let withdrawn = |effect: &Effect| matches!(effect, Effect::Withdraw(runs) if runs.len() == 1);
    assert!(effects.iter().any(withdrawn), "{effects:?}");
    let result = Ok(Outputs::new().with(KafkaRecord::bytes("x").to("a")));
    let answer = HookAnswer::MessageComplete { offset: offsets[1], result };
    let effects = world.machine.handle(Input::HookAnswered(answer), world.now);
    assert!(effects.is_empty(), "the second message is about to be given back: {effects:?}");
    // The third was on its way into a slot when it was asked back.
    let effects = world.machine.handle(start(RunId::new(2)), world.now);
    let sent = effects.iter().filter(|effect| matches!(effect, Effect::Deliver { .. }));
    assert_eq!(sent.count(), 1, "{effects:?}");
    world.open.retain(|open| !matches!(open, Open::Waiting(..) | Open::Hook(_)));
    world.perform(effects);
    for run in 1..=2 {
        let execution = Box::new(Execution::without_process(TaskOutcome::Success));
        world.handle(Input::TaskFinished { task: RunId::new(run), execution });
    }
    world.run_dry();
    assert_eq!((world.over, world.committed), (Some(true), Some(offsets[2].next())));
    assert!(world.given_back.is_empty());
}

// Promise: RB-1
#[test]
fn an_executor_that_closes_during_a_drain_is_not_asked_again() {
    let mut world = World::new(QUIET);
    world.produce(1);
    let Some(Open::Arrange(call)) = world.open.pop() else { panic!("a window is arranged") };
    let offset = call.messages[0].0.offset;
    let tasks = vec![(Arc::new(Task::for_offset(offset)), Priority::default()); 2];
    let messages = Vec::new();
    world.handle(Input::Arranged { window: call.window, messages, result: Ok(tasks) });
    world.handle(Input::TaskStarted { task: RunId::new(1), slot: 0, queue_wait: Duration::ZERO });
    world.handle(drain(DrainCause::Revoke));
    world.open.clear();
    for task in [RunId::new(1), RunId::new(2)] {
        let execution = Box::new(Execution::without_process(TaskOutcome::Cancelled));
        world.handle(Input::TaskFinished { task, execution });
    }
    assert!(world.open.is_empty(), "nothing is submitted again: {:?}", world.open);
    world.handle(Input::DrainExpired);
    assert_eq!((world.over, world.committed), (Some(false), None));
}

// Promise: WM-1
#[test]
fn a_message_that_is_handed_over_again_is_refused_and_told() {
    let seen = drakkar_testkit::RecordingObserver::new();
    let mut machine = Partition::new(
        PartitionId::new("in", 0),
        Epoch::new(1),
        Arc::new(EngineConfig::default()),
        Arc::new(Router::new(Vec::new())),
        Arc::new(seen.clone()),
        HookPresence { task_missing: true, message_missing: true, window_missing: true },
    );
    machine.start();
    let mut give = |offsets: &[i64]| {
        let message = |offset: &i64| SourceMessage {
            partition: PartitionId::new("in", 0),
            offset: Offset::new(*offset),
            key: None,
            value: Some(Bytes::from_static(b"v")),
            timestamp: None,
            headers: Headers::new(),
        };
        machine.handle(Input::Messages(offsets.iter().map(message).collect()), Instant::ORIGIN)
    };
    let effects = give(&[4, 7, 7]);
    let [Effect::Arrange(call)] = &effects[..] else { panic!("one window: {effects:?}") };
    assert_eq!(call.messages.len(), 2);
    assert!(give(&[7, 4]).is_empty(), "both are in work");
    assert!(give(&[8]).is_empty(), "it waits for its window");
    assert!(give(&[8]).is_empty());
    let effects = machine.handle(drain(DrainCause::Revoke), Instant::ORIGIN);
    let left: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Settle(offset, Settlement::GivenBack) => Some(offset.get()),
            _ => None,
        })
        .collect();
    assert_eq!(left, [8, 4, 7], "each leaves once");
    assert_eq!(seen.count("SourceTrouble"), 4);
    assert!(seen.named("SourceTrouble")[0].text.contains("offset 7 was delivered after offset 7"));
}

// Promise: RB-2
#[test]
fn a_partition_that_stopped_leaves_nothing_running() {
    let mut world = World::new(Weather { knows_hooks: true, ..QUIET });
    let config = Arc::make_mut(&mut world.machine.config);
    config.on_failure.exit_code.attempts_max = 1;
    config.on_failure.exit_code.then = FailureAction::Stop;
    world.produce(1);
    let Some(Open::Arrange(call)) = world.open.pop() else { panic!("a window is arranged") };
    let offset = call.messages[0].0.offset;
    let task = || (Arc::new(Task::for_offset(offset)), Priority::default());
    let result = Ok(vec![task(), task()]);
    world.handle(Input::Arranged { window: call.window, messages: Vec::new(), result });
    let (failing, running) = (RunId::new(1), RunId::new(2));
    for task in [failing, running] {
        world.handle(Input::TaskStarted { task, slot: 0, queue_wait: Duration::ZERO });
    }
    let execution = Box::new(Execution::without_process(TaskOutcome::ExitCode(1)));
    world.machine.handle(Input::TaskFinished { task: failing, execution }, world.now);
    let result = Ok((ErrorAction::Policy, Vec::new()));
    let answer = Input::HookAnswered(HookAnswer::Error { task: failing, result });
    let effects = world.machine.handle(answer, world.now);
    assert!(matches!(effects[..], [.., Effect::Stop(_)]), "{effects:?}");
    let effects = world.machine.handle(drain(DrainCause::Shutdown), world.now);
    let at = |is: fn(&Effect) -> bool| effects.iter().position(is);
    let (fence, over) =
        (at(|it| matches!(it, Effect::Fence)), at(|it| matches!(it, Effect::Over { .. })));
    assert!(fence.is_some() && fence < over, "the other task runs on: {effects:?}");
}
