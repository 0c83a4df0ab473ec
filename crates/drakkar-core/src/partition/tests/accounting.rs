//! What is counted of tasks, messages and windows, against a naive model: lists of all that ever
//! happened, of which everything is counted anew at every step.
//!
//! Hooks may be there or not; tasks name several messages, also of earlier windows, are tried again,
//! skipped and replaced; hooks put out payloads or fail. Nothing leaves before it is done: that is in
//! `assignments`.

use super::*;
use crate::backpressure::Admission;
use drakkar_api::{Captured, Precomputed};

const WINDOW: usize = 3;
const OPEN_WINDOWS: usize = 4;
const RETRIES: u32 = 2;

/// One thing that happens. What is not possible at the moment does not.
#[derive(Clone, Debug)]
enum Step {
    HandOver {
        count: usize,
    },
    /// Something that is waited for is answered; `how` decides among the answers.
    Answer {
        which: usize,
        how: u8,
        plans: Vec<Plan>,
    },
    Wait,
}

/// A task that a hook returns.
#[derive(Clone, Debug)]
struct Plan {
    /// Which of the messages that it may name.
    messages: u8,
    /// Whether it names a message of an earlier window too.
    names_older: bool,
    is_precomputed: bool,
    size: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let plan = (any::<u8>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0..5_usize)
        .prop_map(|(messages, names_older, is_precomputed, size)| Plan {
            messages,
            names_older,
            is_precomputed,
            size,
        });
    let answer = (0..32_usize, any::<u8>(), prop::collection::vec(plan, 0..4))
        .prop_map(|(which, how, plans)| Step::Answer { which, how, plans });
    let step = prop_oneof![
        3 => (1..5_usize).prop_map(|count| Step::HandOver { count }),
        16 => answer,
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Succeeded,
    Failed,
    Replaced,
}

#[derive(Debug)]
struct KnownTask {
    offsets: BTreeSet<Offset>,
    window: usize,
    is_precomputed: bool,
    attempts: u32,
    input_bytes: usize,
    /// Of its last attempt.
    output_bytes: usize,
    end: End,
}

#[derive(Debug, Default)]
struct KnownMessage {
    window: usize,
    is_arranged: bool,
    hook_is_answered: bool,
    is_doomed: bool,
    is_lettered: bool,
}

#[derive(Debug, Default)]
struct KnownWindow {
    hook_is_answered: bool,
}

/// Whose answer a payload belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Task(usize),
    Message(Offset),
    Window(usize),
}

#[derive(Debug)]
struct KnownPayload {
    of: Of,
    lane: usize,
    bytes: usize,
    is_sent: bool,
    is_confirmed: bool,
}

/// All that ever happened.
#[derive(Debug, Default)]
struct Ledger {
    has_hooks: [bool; 3],
    queue: Vec<Offset>,
    messages: BTreeMap<Offset, KnownMessage>,
    windows: Vec<KnownWindow>,
    tasks: Vec<KnownTask>,
    /// Tasks in the order in which they ended.
    ended: Vec<usize>,
    /// The sizes of all outputs, in the order in which they came.
    outputs: Vec<usize>,
    payloads: Vec<KnownPayload>,
}

/// Every message has this size.
const MESSAGE_BYTES: usize = 1;

impl Ledger {
    fn has_task_hook(&self) -> bool {
        self.has_hooks[0]
    }

    fn has_message_hook(&self) -> bool {
        self.has_hooks[1]
    }

    fn has_window_hook(&self) -> bool {
        self.has_hooks[2]
    }

    fn tasks_of(&self, offset: Offset) -> Vec<usize> {
        let names = |task: &usize| self.tasks[*task].offsets.contains(&offset);
        (0..self.tasks.len()).filter(names).collect()
    }

    fn tasks_in(&self, window: usize) -> Vec<usize> {
        (0..self.tasks.len()).filter(|task| self.tasks[*task].window == window).collect()
    }

    fn ended_as(&self, end: End, which: impl Fn(&KnownTask) -> bool) -> Vec<usize> {
        let is_it = |task: &usize| self.tasks[*task].end == end && which(&self.tasks[*task]);
        self.ended.iter().copied().filter(is_it).collect()
    }

    fn all_ended(&self, tasks: &[usize]) -> bool {
        tasks.iter().all(|task| self.tasks[*task].end != End::Open)
    }

    fn all_confirmed(&self, of: Of) -> bool {
        self.payloads.iter().filter(|payload| payload.of == of).all(|payload| payload.is_confirmed)
    }

    /// Its tasks are done, so that its hook is called.
    fn is_complete(&self, offset: Offset) -> bool {
        self.messages[&offset].is_arranged && self.all_ended(&self.tasks_of(offset))
    }

    /// Its hook has answered, and what that put out is confirmed.
    fn is_put_out(&self, offset: Offset) -> bool {
        let is_answered = !self.has_message_hook() || self.messages[&offset].hook_is_answered;
        self.is_complete(offset) && is_answered && self.all_confirmed(Of::Message(offset))
    }

    fn is_settled(&self, offset: Offset) -> bool {
        let message = &self.messages[&offset];
        self.is_put_out(offset) && (!message.is_doomed || message.is_lettered)
    }

    fn messages_in(&self, window: usize) -> Vec<Offset> {
        let is_in = |(_, message): &(&Offset, &KnownMessage)| message.window == window;
        self.messages.iter().filter(is_in).map(|(offset, _)| *offset).collect()
    }

    /// Its tasks and messages are done, so that its hook is called, if it has one and had tasks.
    fn is_window_complete(&self, window: usize) -> bool {
        // A hook that was called is not called again, though it may have doomed messages.
        self.windows[window].hook_is_answered
            || self.all_ended(&self.tasks_in(window))
                && self.messages_in(window).iter().all(|offset| self.is_settled(*offset))
    }

    fn window_hook_is_due(&self, window: usize) -> bool {
        self.has_window_hook()
            && !self.tasks_in(window).is_empty()
            && self.is_window_complete(window)
    }

    fn is_window_put_out(&self, window: usize) -> bool {
        self.windows[window].hook_is_answered && self.all_confirmed(Of::Window(window))
    }

    fn is_window_done(&self, window: usize) -> bool {
        let is_put_out = !self.window_hook_is_due(window) || self.is_window_put_out(window);
        self.is_window_complete(window)
            && is_put_out
            && self.messages_in(window).iter().all(|offset| self.is_settled(*offset))
    }

    fn is_finished(&self, offset: Offset) -> bool {
        let window = self.messages[&offset].window;
        self.is_settled(offset) && (!self.has_window_hook() || self.is_window_done(window))
    }

    fn finished(&self) -> BTreeSet<Offset> {
        self.messages.keys().copied().filter(|offset| self.is_finished(*offset)).collect()
    }

    fn open_windows(&self) -> usize {
        (0..self.windows.len()).filter(|window| !self.is_window_done(*window)).count()
    }

    /// Those messages, tasks and hooks of windows which are being worked on.
    fn count(&self) -> usize {
        self.counted_queue() + self.in_work()
    }

    fn counted_queue(&self) -> usize {
        if self.open_windows() < OPEN_WINDOWS { self.queue.len() } else { 0 }
    }

    fn in_work(&self) -> usize {
        let tasks = self.tasks.iter().filter(|task| task.end == End::Open).count();
        let is_busy = |offset: &&Offset| {
            let is_arranged = self.messages[*offset].is_arranged;
            !is_arranged || self.is_complete(**offset) && !self.is_settled(**offset)
        };
        let messages = self.messages.keys().filter(is_busy).count();
        let is_completing =
            |window: &usize| self.window_hook_is_due(*window) && !self.is_window_put_out(*window);
        let windows = (0..self.windows.len()).filter(is_completing).count();
        tasks + messages + windows
    }

    /// The bytes of everything that is kept.
    fn bytes(&self) -> usize {
        let mut bytes = 0;
        for offset in self.messages.keys().filter(|offset| !self.is_finished(**offset)) {
            bytes += MESSAGE_BYTES;
            if self.has_message_hook() && !self.is_put_out(*offset) {
                // For `on_message_complete`: tasks, and outputs of those that were not replaced.
                for task in self.tasks_of(*offset) {
                    bytes += match self.tasks[task].end {
                        End::Open => 0,
                        End::Replaced => self.tasks[task].input_bytes,
                        _ => self.tasks[task].input_bytes + self.tasks[task].output_bytes,
                    };
                }
            }
        }
        for task in &self.tasks {
            let is_kept = match task.end {
                End::Open => true,
                End::Replaced => false,
                // For `on_window_complete`.
                _ => self.has_window_hook() && !self.is_window_done(task.window),
            };
            bytes += if is_kept { task.input_bytes + task.output_bytes } else { 0 };
        }
        for payload in &self.payloads {
            bytes += if self.is_held(payload) { payload.bytes } else { 0 };
        }
        bytes
    }

    /// Each output counts an eighth of what all before it came to.
    fn typical_output(&self) -> usize {
        let follow =
            |average: usize, bytes: &usize| average - average.div_ceil(8) + bytes.div_ceil(8);
        self.outputs.iter().fold(0, follow)
    }

    /// Those of one answer to one sink go together.
    fn is_held(&self, payload: &KnownPayload) -> bool {
        let is_open = |other: &KnownPayload| {
            (other.of, other.lane) == (payload.of, payload.lane) && !other.is_confirmed
        };
        self.payloads.iter().any(is_open)
    }

    fn load(&self) -> Load {
        let (queued, working_bytes) = (self.queue.len() * MESSAGE_BYTES, self.bytes());
        let working_count = self.in_work();
        let without_output = |task: &&KnownTask| task.end == End::Open && task.attempts == 0;
        Load {
            count: self.count(),
            working_count,
            // Whoever knows what is with the executor adds it.
            active: 0,
            total: self.queue.len() + working_count,
            bytes: queued + working_bytes,
            working_bytes,
            payloads: self.payloads.iter().filter(|payload| self.is_held(payload)).count(),
            expected_bytes: self.tasks.iter().filter(without_output).count()
                * self.typical_output(),
        }
    }

    fn end(&mut self, task: usize, end: End) {
        self.tasks[task].end = end;
        self.ended.push(task);
    }

    fn fail(&mut self, task: usize) {
        self.end(task, End::Failed);
        for offset in self.tasks[task].offsets.clone() {
            self.doom(offset);
        }
    }

    fn doom(&mut self, offset: Offset) {
        self.messages.get_mut(&offset).expect("it is known").is_doomed = true;
    }
}

/// What waits for an answer.
#[derive(Debug)]
enum Open {
    Arrange(ArrangeCall),
    Run(RunId, usize),
    TaskHook(RunId, usize),
    ErrorHook(RunId, usize),
    MessageHook(Offset),
    WindowHook(usize),
    Item(ItemKey, usize),
    Letter(u64, Offset),
    Commit(CommitOffset),
}

struct World {
    machine: Partition,
    /// How many inputs are being handled, each for an effect of the one before it.
    depth: u32,
    now: Instant,
    granted: usize,
    next_offset: i64,
    open: Vec<Open>,
    ledger: Ledger,
    called_for: BTreeSet<Offset>,
    called_for_windows: BTreeSet<usize>,
    settled: BTreeSet<Offset>,
}

impl World {
    fn new(has_hooks: [bool; 3]) -> Self {
        let config = EngineConfig {
            window_size: WINDOW,
            buffer_messages: 8,
            open_windows_max: OPEN_WINDOWS,
            task_retries_max: RETRIES,
            arrange_patience: Duration::MAX / 2,
            ..EngineConfig::default()
        };
        let hooks = HookPresence {
            task_missing: !has_hooks[0],
            message_missing: !has_hooks[1],
            window_missing: !has_hooks[2],
        };
        let machine = partition_of(config, hooks);
        let mut world = Self {
            machine,
            depth: 0,
            now: Instant::ORIGIN,
            granted: 0,
            next_offset: 0,
            open: Vec::new(),
            ledger: Ledger { has_hooks, ..Ledger::default() },
            called_for: BTreeSet::new(),
            called_for_windows: BTreeSet::new(),
            settled: BTreeSet::new(),
        };
        let effects = world.machine.start();
        world.perform(effects);
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::HandOver { count } => self.hand_over(count),
            Step::Answer { which, how, plans } if !self.open.is_empty() => {
                let open = self.open.swap_remove(which % self.open.len());
                self.answer(open, how, &plans);
            }
            Step::Answer { .. } => {}
            Step::Wait => {
                self.now = self.now + EngineConfig::default().commit.interval;
                self.handle(Input::Tick);
            }
        }
    }

    fn hand_over(&mut self, count: usize) {
        let count = count.min(self.granted);
        self.granted -= count;
        let mut messages = Vec::new();
        for _ in 0..count {
            let offset = Offset::new(self.next_offset);
            self.next_offset += 1;
            self.ledger.queue.push(offset);
            messages.push(SourceMessage {
                partition: PartitionId::new("in", 0),
                offset,
                key: None,
                value: Some(Bytes::from_static(&[b'v'; MESSAGE_BYTES])),
                timestamp: None,
                headers: Headers::new(),
            });
        }
        self.handle(Input::Messages(messages));
    }

    fn answer(&mut self, open: Open, how: u8, plans: &[Plan]) {
        match open {
            Open::Arrange(call) => self.answer_arrange(call, plans),
            Open::Run(task, known) => {
                // Until it has ended it is still with the executor.
                self.open.insert(0, Open::Run(task, known));
                self.handle(Input::TaskStarted { task, slot: 0, queue_wait: Duration::ZERO });
                self.open.remove(0);
                let is_success = how % 2 == 1;
                let bytes = usize::from(how / 16);
                self.ledger.tasks[known].attempts += 1;
                self.ledger.tasks[known].output_bytes = bytes;
                self.ledger.outputs.push(bytes);
                if is_success && !self.ledger.has_task_hook() {
                    self.ledger.end(known, End::Succeeded);
                }
                let outcome =
                    if is_success { TaskOutcome::Success } else { TaskOutcome::ExitCode(1) };
                let mut execution = Execution::without_process(outcome);
                execution.stdout = Captured::whole(Bytes::from(vec![b'o'; bytes]));
                let execution = Box::new(execution);
                self.handle(Input::TaskFinished { task, execution });
            }
            Open::TaskHook(task, known) => {
                let result = self.outputs(Of::Task(known), Hook::OnTaskComplete, how);
                match &result {
                    Err(_) => self.ledger.fail(known),
                    Ok(outputs) if outputs.is_empty() => self.ledger.end(known, End::Succeeded),
                    Ok(_) => {}
                }
                self.handle(Input::HookAnswered(HookAnswer::TaskComplete { task, result }));
            }
            Open::ErrorHook(task, known) => self.answer_error(task, known, how, plans),
            Open::MessageHook(offset) => {
                let result = self.outputs(Of::Message(offset), Hook::OnMessageComplete, how);
                let message = self.ledger.messages.get_mut(&offset).expect("it is known");
                message.hook_is_answered = true;
                message.is_doomed |= result.is_err();
                self.handle(Input::HookAnswered(HookAnswer::MessageComplete { offset, result }));
            }
            Open::WindowHook(window) => {
                let result = self.outputs(Of::Window(window), Hook::OnWindowComplete, how);
                self.ledger.windows[window].hook_is_answered = true;
                if result.is_err() {
                    let messages = self.ledger.messages_in(window);
                    messages.into_iter().for_each(|offset| self.ledger.doom(offset));
                }
                let window = WindowId::new(window as u64 + 1);
                self.handle(Input::HookAnswered(HookAnswer::WindowComplete { window, result }));
            }
            Open::Item(key, payload) => {
                self.ledger.payloads[payload].is_confirmed = true;
                let of = self.ledger.payloads[payload].of;
                if let Of::Task(known) = of
                    && self.ledger.all_confirmed(of)
                {
                    self.ledger.end(known, End::Succeeded);
                }
                self.handle(Input::ItemsEnded(vec![(key, ItemEnd::Confirmed)]));
            }
            Open::Letter(key, offset) => {
                self.ledger.messages.get_mut(&offset).expect("it is known").is_lettered = true;
                let key = ItemKey::Letter(key);
                self.handle(Input::ItemsEnded(vec![(key, ItemEnd::Confirmed)]));
            }
            Open::Commit(position) => self.handle(Input::Committed(Ok(position))),
        }
    }

    fn answer_arrange(&mut self, call: ArrangeCall, plans: &[Plan]) {
        let own: Vec<_> = call.messages.iter().map(|(source, _)| source.offset).collect();
        let messages = call.messages.into_iter().map(|(m, _)| (m.offset, decode(m))).collect();
        let window = self.ledger.messages[&own[0]].window;
        let is_working =
            |offset: &&Offset| self.ledger.messages[*offset].is_arranged && !self.is_over(**offset);
        let older = self.ledger.messages.keys().find(is_working).copied();
        let mut tasks = Vec::new();
        for plan in plans {
            let older = older.filter(|_| plan.names_older);
            tasks.push(self.make_task(plan, &own, older, window));
        }
        for offset in own {
            self.ledger.messages.get_mut(&offset).expect("it is known").is_arranged = true;
        }
        self.end_precomputed();
        let result =
            Ok(tasks.into_iter().map(|task| (Arc::new(task), Priority::default())).collect());
        self.handle(Input::Arranged { window: call.window, messages, result });
    }

    /// Whether all its tasks are done: another one cannot name it.
    fn is_over(&self, offset: Offset) -> bool {
        self.ledger.is_complete(offset)
    }

    fn make_task(
        &mut self,
        plan: &Plan,
        own: &[Offset],
        older: Option<Offset>,
        window: usize,
    ) -> Task {
        let is_named = |at: usize| plan.messages & 1 << (at % 8) != 0;
        let mut named: Vec<_> =
            (0..own.len()).filter(|at| is_named(*at)).map(|at| own[at]).collect();
        if named.is_empty() {
            named.push(own[0]);
        }
        // A message that is named twice counts once.
        named.extend(named.first().copied());
        named.extend(older);
        let number = self.ledger.tasks.len();
        let mut task = Task::for_offsets(named.clone()).id(number.to_string());
        task.stdin = Some(Bytes::from(vec![b'i'; plan.size]));
        let mut output_bytes = 0;
        if plan.is_precomputed {
            task.precomputed = Some(Precomputed::stdout("12"));
            output_bytes = 2;
            self.ledger.outputs.push(output_bytes);
        }
        self.ledger.tasks.push(KnownTask {
            offsets: named.into_iter().collect(),
            window,
            is_precomputed: plan.is_precomputed,
            attempts: u32::from(plan.is_precomputed),
            input_bytes: task.size_bytes(),
            output_bytes,
            end: End::Open,
        });
        task
    }

    /// A result that is known has ended when it begins; its hook is all that may be to come.
    fn end_precomputed(&mut self) {
        if self.ledger.has_task_hook() {
            return;
        }
        for task in 0..self.ledger.tasks.len() {
            let KnownTask { is_precomputed, end, .. } = self.ledger.tasks[task];
            if is_precomputed && end == End::Open {
                self.ledger.end(task, End::Succeeded);
            }
        }
    }

    fn answer_error(&mut self, task: RunId, known: usize, how: u8, plans: &[Plan]) {
        let mut priorities = Vec::new();
        let result = match how % 8 {
            0..=3 => {
                // The first attempt is no retry.
                if self.ledger.tasks[known].attempts > RETRIES {
                    self.ledger.fail(known);
                }
                Ok(ErrorAction::Retry)
            }
            4 => {
                self.ledger.end(known, End::Failed);
                Ok(ErrorAction::Skip)
            }
            5 => {
                self.ledger.fail(known);
                Ok(ErrorAction::Policy)
            }
            6 => {
                let KnownTask { offsets, window, .. } = &self.ledger.tasks[known];
                let (own, window) = (offsets.iter().copied().collect::<Vec<_>>(), *window);
                let mut replacements = Vec::new();
                for plan in plans {
                    replacements.push(self.make_task(plan, &own, None, window));
                }
                self.ledger.end(known, End::Replaced);
                self.end_precomputed();
                priorities = vec![Priority::default(); replacements.len()];
                Ok(ErrorAction::Replace(replacements))
            }
            _ => {
                self.ledger.fail(known);
                Err(super::World::failure(Hook::OnError))
            }
        };
        let result = result.map(|action| (action, priorities));
        self.handle(Input::HookAnswered(HookAnswer::Error { task, result }));
    }

    fn outputs(&mut self, of: Of, hook: Hook, how: u8) -> Result<Outputs, HookFailure> {
        if how.is_multiple_of(8) {
            return Err(super::World::failure(hook));
        }
        let mut outputs = Outputs::new();
        for index in 0..how % 4 {
            let lane = usize::from(how >> index & 1);
            let payload = Payload::from(KafkaRecord::bytes("12").to(["a", "b"][lane]));
            let bytes = payload.size_bytes();
            let (is_sent, is_confirmed) = (false, false);
            self.ledger.payloads.push(KnownPayload { of, lane, bytes, is_sent, is_confirmed });
            outputs.push(payload);
        }
        Ok(outputs)
    }

    fn handle(&mut self, input: Input) {
        self.machine.set_admission(Admission::Any);
        let effects = self.machine.handle(input, self.now);
        self.depth += 1;
        self.perform(effects);
        self.depth -= 1;
        if self.depth > 0 {
            // Not all effects of the input before it are done.
            return;
        }
        self.compare();
        if self.machine.asks_for_admission() {
            self.handle(Input::Tick);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Request(credit) => self.granted += credit.messages,
                Effect::Arrange(call) => {
                    let window = self.ledger.windows.len();
                    assert_eq!(call.window.get(), window as u64 + 1);
                    self.ledger.windows.push(KnownWindow::default());
                    for (source, _) in &call.messages {
                        assert_eq!(source.offset, self.ledger.queue.remove(0));
                        let message = KnownMessage { window, ..KnownMessage::default() };
                        self.ledger.messages.insert(source.offset, message);
                    }
                    self.open.push(Open::Arrange(call));
                }
                Effect::Submit(run) => self.open.push(Open::Run(run.id, number_of(&run.task))),
                Effect::Hook(call) => self.note_hook(call),
                Effect::Deliver { lane, item } => {
                    let is_next = |payload: &KnownPayload| !payload.is_sent && payload.lane == lane;
                    let next = self.ledger.payloads.iter().position(is_next);
                    let next = next.expect("a hook put it out");
                    self.ledger.payloads[next].is_sent = true;
                    self.open.push(Open::Item(item.key, next));
                }
                Effect::DeadLetter { key, letter } => {
                    let offset = letter.source.offset;
                    let message = &self.ledger.messages[&offset];
                    assert!(message.is_doomed && !message.is_lettered, "{offset}");
                    self.open.push(Open::Letter(key, offset));
                }
                Effect::Settle(offset, settlement) => {
                    assert!(self.settled.insert(offset), "{offset} is finished twice");
                    let expect = match self.ledger.messages[&offset].is_lettered {
                        true => Settlement::DeadLettered,
                        false => Settlement::Finished,
                    };
                    assert_eq!(settlement, expect);
                }
                Effect::Commit(position) => self.open.push(Open::Commit(position)),
                other => panic!("there is no reason for {other:?}"),
            }
        }
    }

    fn note_hook(&mut self, call: HookCall) {
        let numbers = |outputs: &[Arc<TaskOutput>]| -> Vec<usize> {
            outputs.iter().map(|output| number_of(&output.task)).collect()
        };
        match call {
            HookCall::TaskComplete { task, output, .. } => {
                self.open.push(Open::TaskHook(task, number_of(&output.task)));
            }
            HookCall::Error { task, failure, .. } => {
                let known = number_of(&failure.task);
                let attempts = self.ledger.tasks[known].attempts;
                assert_eq!(failure.retries_left, (RETRIES + 1).saturating_sub(attempts));
                self.open.push(Open::ErrorHook(task, known));
            }
            HookCall::MessageComplete { offset, group, .. } => {
                assert!(self.called_for.insert(offset), "called twice for {offset}");
                let tasks: Vec<_> = group.tasks.iter().map(|task| number_of(task)).collect();
                let names = |task: &KnownTask| task.offsets.contains(&offset);
                assert_eq!(tasks, self.ledger.tasks_of(offset));
                let results = self.ledger.ended_as(End::Succeeded, names);
                assert_eq!(numbers(&group.results), results);
                assert_eq!(numbers(&group.errors), self.ledger.ended_as(End::Failed, names));
                self.open.push(Open::MessageHook(offset));
            }
            HookCall::WindowComplete { window } => {
                let at = usize::try_from(window.id.get() - 1).expect("small");
                assert!(self.called_for_windows.insert(at), "called twice for {}", window.id);
                let is_result = |task: &usize| {
                    let task = &self.ledger.tasks[*task];
                    task.window == at && task.end != End::Replaced
                };
                let results: Vec<_> = self.ledger.ended.iter().copied().filter(is_result).collect();
                assert_eq!(numbers(&window.results), results);
                assert_eq!(window.messages.len(), self.ledger.messages_in(at).len());
                self.open.push(Open::WindowHook(at));
            }
            HookCall::DeliveryError { .. } => panic!("nothing fails in delivery"),
        }
    }

    fn compare(&self) {
        let ledger = &self.ledger;
        assert_eq!(self.settled, ledger.finished(), "of {ledger:?}");
        if ledger.has_message_hook() {
            let complete = ledger.messages.keys().filter(|offset| ledger.is_complete(**offset));
            assert!(complete.eq(&self.called_for), "on_message_complete of {ledger:?}");
        }
        let windows = (0..ledger.windows.len()).filter(|at| ledger.window_hook_is_due(*at));
        assert!(windows.eq(self.called_for_windows.iter().copied()), "of {ledger:?}");
        let active = |open: &Open| match open {
            Open::Arrange(call) => call.messages.len(),
            Open::Run(..) => 1,
            _ => 0,
        };
        let active = ledger.counted_queue() + self.open.iter().map(active).sum::<usize>();
        let load = Load { active, ..ledger.load() };
        assert_eq!(self.machine.load(), load, "of {ledger:?}");
    }

    /// Everything is answered well: nothing is left.
    fn come_to_rest(&mut self) {
        while !self.open.is_empty() || self.machine.next_due().is_some() {
            match self.open.is_empty() {
                true => self.step(Step::Wait),
                false => self.step(Step::Answer { which: 0, how: 1, plans: Vec::new() }),
            }
        }
        assert_eq!(self.settled.len(), usize::try_from(self.next_offset).expect("small"));
        assert_eq!(self.machine.load(), Load::default());
    }
}

fn number_of(task: &Task) -> usize {
    let id = task.id.as_ref().expect("every task has an id");
    id.as_str().parse().expect("ids are numbers")
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    // Promise: DL-1, DL-2, FT-3
    #[test]
    fn accounts_agree_with_the_model(hooks in any::<[bool; 3]>(), steps in steps()) {
        let mut world = World::new(hooks);
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
    }
}
