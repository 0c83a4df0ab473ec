//! Assignments that come and go, with their windows, watermark, commits and the backpressure of all,
//! against a naive model: plain lists, of which everything is counted anew at every step.
//!
//! The handler has no hook but `arrange`, and a message gets one task or none. What several tasks and
//! other hooks do is in `accounting`.

use super::*;
use crate::backpressure::{Admission, FlowGate, Thresholds};
use crate::driver::Mail;
use crate::inbox::Inbox;
use crate::shared::Partitions;
use drakkar_api::Flow;

const PARTITIONS: usize = 2;
/// Messages of each partition's log.
const LOG: usize = 40;
const WINDOW: usize = 3;
const BUFFER: usize = 6;
const AHEAD: usize = 8;
const OPEN_WINDOWS: usize = 3;
const ARRANGE_ATTEMPTS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(1);
const COUNT: Thresholds = Thresholds { pause_at: 7, resume_at: 3 };
const BYTES: Thresholds = Thresholds { pause_at: 24, resume_at: 12 };
/// There are none.
const PAYLOADS: Thresholds = Thresholds { pause_at: 1, resume_at: 0 };

/// One thing that happens. What is not possible at the moment does not.
#[derive(Clone, Debug)]
enum Step {
    /// The partition gets an assignment, if it has none.
    Assign {
        on: usize,
    },
    /// The source hands over messages, as far as credit and flow permit.
    HandOver {
        on: usize,
        count: usize,
    },
    /// The source hands over once more what it handed over last.
    Repeat {
        on: usize,
    },
    /// Something that is waited for is answered, also of an assignment that is over. `tasks` are the
    /// messages that get one.
    Answer {
        which: usize,
        good: bool,
        tasks: u8,
    },
    /// Time passes to what is due next.
    Wait {
        on: usize,
    },
    Revoke {
        on: usize,
    },
    /// The deadline of the drain passes.
    Expire {
        on: usize,
    },
    Lose {
        on: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let on = 0..PARTITIONS;
    let answer = (0..32_usize, prop::bool::weighted(0.8), any::<u8>())
        .prop_map(|(which, good, tasks)| Step::Answer { which, good, tasks });
    let step = prop_oneof![
        4 => on.clone().prop_map(|on| Step::Assign { on }),
        20 => (on.clone(), 1..6_usize).prop_map(|(on, count)| Step::HandOver { on, count }),
        1 => on.clone().prop_map(|on| Step::Repeat { on }),
        60 => answer,
        8 => on.clone().prop_map(|on| Step::Wait { on }),
        2 => on.clone().prop_map(|on| Step::Revoke { on }),
        1 => on.clone().prop_map(|on| Step::Expire { on }),
        1 => on.prop_map(|on| Step::Lose { on }),
    ];
    prop::collection::vec(step, 0..200)
}

/// The offset of a message of the log: every fourth is missing.
fn logged(index: usize) -> Offset {
    Offset::new(i64::try_from(index + index / 3).expect("small"))
}

fn size(offset: Offset) -> usize {
    usize::try_from(offset.get() % 4).expect("small") + 1
}

/// Where a message that was put into a window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Arranging,
    /// Its task waits or runs.
    Working,
    /// Its dead letter is not written.
    Lettering,
    Finished,
    /// It left unfinished.
    Left,
}

/// A window whose `arrange` has not answered.
#[derive(Clone, Debug)]
struct Arranging {
    messages: Vec<Offset>,
    formed_at: Instant,
    attempt: u32,
    /// It is to be called again, when its time has come.
    is_retried: bool,
    /// What came of its messages so far, when they are taken one by one.
    one_by_one: Option<Vec<State>>,
}

/// How far the end of an assignment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// Everything up to this is finished first.
    UpTo(Option<Offset>),
    Expired,
    Lost,
}

/// What is known of an assignment.
#[derive(Debug)]
struct Ledger {
    granted: usize,
    arrived: BTreeSet<Offset>,
    queue: Vec<Offset>,
    windows: Vec<Vec<Offset>>,
    states: BTreeMap<Offset, State>,
    arranging: Option<Arranging>,
    newest_started: Option<Offset>,
    ending: Ending,
    settled: BTreeSet<Offset>,
    /// Those of which the source was told that they leave unfinished.
    given_back: BTreeSet<Offset>,
    load: Load,
}

impl Ledger {
    fn new() -> Self {
        Self {
            granted: 0,
            arrived: BTreeSet::new(),
            queue: Vec::new(),
            windows: Vec::new(),
            states: BTreeMap::new(),
            arranging: None,
            newest_started: None,
            ending: Ending::No,
            settled: BTreeSet::new(),
            given_back: BTreeSet::new(),
            load: Load::default(),
        }
    }

    fn in_state(&self, state: State) -> BTreeSet<Offset> {
        self.states.iter().filter(|(_, is)| **is == state).map(|(offset, _)| *offset).collect()
    }

    fn is_open(&self, offset: Offset) -> bool {
        !matches!(self.states[&offset], State::Finished | State::Left)
    }

    fn open_windows(&self) -> usize {
        let is_open = |window: &&Vec<Offset>| window.iter().any(|offset| self.is_open(*offset));
        self.windows.iter().filter(is_open).count()
    }

    /// How many were put into windows, from the oldest unfinished one on.
    fn ahead(&self) -> usize {
        self.states.values().skip_while(|state| **state == State::Finished).count()
    }

    /// The definition of the watermark.
    fn position(&self) -> Option<CommitOffset> {
        let finished = self.states.iter().take_while(|(_, state)| **state == State::Finished);
        finished.last().map(|(offset, _)| offset.next())
    }

    fn may_open_window(&self) -> bool {
        self.open_windows() < OPEN_WINDOWS && self.ahead() < AHEAD
    }

    /// `runs` are with the executor.
    fn count_load(&self, now: Instant, runs: usize) -> Load {
        if matches!(self.ending, Ending::Expired | Ending::Lost) {
            return Load::default();
        }
        let open: Vec<_> = self.states.keys().filter(|offset| self.is_open(**offset)).collect();
        let is_late = |arranging: &&Arranging| now - arranging.formed_at >= PATIENCE;
        let late = self.arranging.as_ref().filter(is_late);
        let is_counted = self.may_open_window() && late.is_none();
        let waiting = if is_counted { self.queue.len() } else { 0 };
        let left_out = late.map_or(0, |arranging| arranging.messages.len());
        let working_bytes = open.iter().map(|offset| size(**offset)).sum();
        let queued_bytes: usize = self.queue.iter().map(|offset| size(*offset)).sum();
        let working_count = open.len() - left_out;
        let arranged = self.arranging.as_ref().map_or(0, |arranging| arranging.messages.len());
        Load {
            count: waiting + working_count,
            working_count,
            active: waiting + arranged - left_out + runs,
            total: self.queue.len() + open.len(),
            bytes: queued_bytes + working_bytes,
            working_bytes,
            ..Load::default()
        }
    }

    /// Takes the next window out of the queue, if there is to be one.
    fn form_window(&mut self, admission: Admission, now: Instant) -> Option<Vec<Offset>> {
        let is_busy = self.arranging.is_some() || self.ending != Ending::No;
        let is_admitted = match admission {
            Admission::Nothing => false,
            Admission::Single | Admission::First => self.open_windows() == 0,
            Admission::Any => true,
        };
        if is_busy || !is_admitted || !self.may_open_window() {
            return None;
        }
        let most = if admission == Admission::Single { 1 } else { WINDOW };
        let room = most.min(AHEAD - self.ahead());
        let mut messages = Vec::new();
        while messages.len() < room && !self.queue.is_empty() {
            let offset = self.queue.remove(0);
            self.states.insert(offset, State::Arranging);
            messages.push(offset);
        }
        if messages.is_empty() {
            return None;
        }
        self.windows.push(messages.clone());
        self.arranging = Some(Arranging {
            messages: messages.clone(),
            formed_at: now,
            attempt: 1,
            is_retried: false,
            one_by_one: None,
        });
        Some(messages)
    }

    /// `arrange` answers: what becomes of the messages, or which call comes at once.
    fn arranged(&mut self, good: bool, has_task: impl Fn(Offset) -> bool) -> Option<Vec<Offset>> {
        let mut arranging = self.arranging.take().expect("the caller saw it");
        let outcome = |offset: &Offset| match good {
            false => State::Lettering,
            true if has_task(*offset) => State::Working,
            true => State::Finished,
        };
        let outcomes = match arranging.one_by_one.take() {
            Some(mut outcomes) => {
                outcomes.push(outcome(&arranging.messages[outcomes.len()]));
                if let Some(next) = arranging.messages.get(outcomes.len()) {
                    let call = vec![*next];
                    arranging.one_by_one = Some(outcomes);
                    self.arranging = Some(arranging);
                    return Some(call);
                }
                outcomes
            }
            None if good
                || arranging.attempt == ARRANGE_ATTEMPTS && arranging.messages.len() == 1 =>
            {
                arranging.messages.iter().map(outcome).collect()
            }
            None if arranging.attempt == ARRANGE_ATTEMPTS => {
                let call = vec![arranging.messages[0]];
                arranging.one_by_one = Some(Vec::new());
                self.arranging = Some(arranging);
                return Some(call);
            }
            None => {
                arranging.attempt += 1;
                arranging.is_retried = true;
                self.arranging = Some(arranging);
                return None;
            }
        };
        for (offset, outcome) in arranging.messages.into_iter().zip(outcomes) {
            self.states.insert(offset, outcome);
            self.note_started(offset, outcome == State::Lettering);
        }
        None
    }

    fn gives_back(&self, offset: Offset) -> bool {
        matches!(self.ending, Ending::UpTo(frontier) if Some(offset) > frontier)
    }

    fn note_started(&mut self, offset: Offset, is_so: bool) {
        if is_so {
            self.newest_started = self.newest_started.max(Some(offset));
        }
    }

    /// All messages that are here leave, but those up to `frontier`.
    fn leave(&mut self, frontier: Option<Offset>) {
        for (offset, state) in &mut self.states {
            if *state != State::Finished && Some(*offset) > frontier {
                *state = State::Left;
            }
        }
    }
}

/// What waits for an answer.
#[derive(Debug)]
enum Open {
    Arrange(WindowId, Vec<Offset>),
    Waiting(RunId, Offset),
    Running(RunId, Offset),
    Letter(u64, Offset),
    Commit(CommitOffset),
}

/// A real partition and what the model knows of it.
struct Assigned {
    epoch: Epoch,
    machine: Partition,
    inbox: Arc<Inbox<Mail>>,
    ledger: Ledger,
}

struct World {
    now: Instant,
    epochs: u64,
    table: Partitions,
    gate: FlowGate,
    assigned: [Option<Assigned>; PARTITIONS],
    open: Vec<(Epoch, Open)>,
    /// The message of each log that is handed over next.
    cursors: [usize; PARTITIONS],
    /// What the broker has as committed.
    committed: [Option<CommitOffset>; PARTITIONS],
    /// What any assignment finished.
    finished: [BTreeSet<Offset>; PARTITIONS],
    flow: Flow,
    is_crowded: bool,
    is_heavy: bool,
}

impl World {
    fn new() -> Self {
        Self {
            now: Instant::ORIGIN,
            epochs: 0,
            table: Partitions::default(),
            gate: FlowGate::new(COUNT, BYTES, PAYLOADS),
            assigned: [const { None }; PARTITIONS],
            open: Vec::new(),
            cursors: [0; PARTITIONS],
            committed: [None; PARTITIONS],
            finished: [const { BTreeSet::new() }; PARTITIONS],
            flow: Flow::Open,
            is_crowded: false,
            is_heavy: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Assign { on } => self.assign(on),
            Step::HandOver { on, count } => self.hand_over(on, count),
            Step::Repeat { on } => self.repeat(on),
            Step::Answer { which, good, tasks } => self.answer(which, good, tasks),
            Step::Wait { on } => self.wait(on),
            Step::Revoke { on } => self.revoke(on),
            Step::Expire { on } => self.expire(on),
            Step::Lose { on } => self.lose(on),
        }
    }

    fn assign(&mut self, on: usize) {
        if self.assigned[on].is_some() {
            return;
        }
        self.epochs += 1;
        let epoch = Epoch::new(self.epochs);
        let mut config = EngineConfig {
            window_size: WINDOW,
            buffer_messages: BUFFER,
            ahead_max: AHEAD,
            open_windows_max: OPEN_WINDOWS,
            arrange_patience: PATIENCE,
            ..EngineConfig::default()
        };
        config.on_failure.arrange_error.attempts_max = ARRANGE_ATTEMPTS;
        let id = PartitionId::new("in", i32::try_from(on).expect("small"));
        let none = HookPresence { task_missing: true, message_missing: true, window_missing: true };
        let (router, observer) = (Arc::new(Router::new(Vec::new())), Arc::new(NullObserver));
        let config = Arc::new(config);
        let mut machine = Partition::new(id.clone(), epoch, config, router, observer, none);
        let inbox = Arc::new(Inbox::new());
        self.table.insert(epoch, id, Arc::clone(&inbox));
        let start = self.committed[on].map_or(0, CommitOffset::get);
        self.cursors[on] = (0..LOG).find(|at| logged(*at).get() >= start).unwrap_or(LOG);
        let effects = machine.start();
        self.assigned[on] = Some(Assigned { epoch, machine, inbox, ledger: Ledger::new() });
        self.perform(on, effects, &mut None);
    }

    fn ledger(&mut self, on: usize) -> Option<&mut Ledger> {
        self.assigned[on].as_mut().map(|assigned| &mut assigned.ledger)
    }

    fn hand_over(&mut self, on: usize, count: usize) {
        let cursor = self.cursors[on];
        let flow = self.flow;
        let Some(ledger) = self.ledger(on) else { return };
        let count = count.min(ledger.granted).min(LOG - cursor);
        if flow == Flow::Open && count > 0 {
            self.cursors[on] += count;
            self.give(on, (cursor..cursor + count).map(logged).collect());
        }
    }

    fn repeat(&mut self, on: usize) {
        let cursor = self.cursors[on];
        let Some(ledger) = self.ledger(on) else { return };
        if ledger.granted > 0 && !ledger.arrived.is_empty() {
            self.give(on, vec![logged(cursor - 1)]);
        }
    }

    fn give(&mut self, on: usize, offsets: Vec<Offset>) {
        let partition = PartitionId::new("in", i32::try_from(on).expect("small"));
        let message = |offset: &Offset| SourceMessage {
            partition: partition.clone(),
            offset: *offset,
            key: None,
            value: Some(Bytes::from(vec![b'v'; size(*offset)])),
            timestamp: None,
            headers: Headers::new(),
        };
        let messages = offsets.iter().map(message).collect();
        let ledger = self.ledger(on).expect("the caller saw it");
        ledger.granted -= offsets.len();
        for offset in offsets {
            // A repeat is refused.
            if ledger.arrived.insert(offset) && ledger.ending == Ending::No {
                ledger.queue.push(offset);
            }
        }
        self.handle(on, Input::Messages(messages), None);
    }

    fn wait(&mut self, on: usize) {
        let Some(assigned) = &self.assigned[on] else { return };
        if let Some(due) = assigned.machine.next_due() {
            self.now = self.now.max(due);
        }
        self.handle(on, Input::Tick, None);
    }

    fn revoke(&mut self, on: usize) {
        let Some(ledger) = self.ledger(on) else { return };
        if ledger.ending == Ending::No {
            ledger.ending = Ending::UpTo(ledger.newest_started);
            ledger.queue.clear();
            for offset in ledger.arranging.take().map_or(Vec::new(), |arranging| arranging.messages)
            {
                ledger.states.insert(offset, State::Left);
            }
        }
        self.handle(on, drain(DrainCause::Revoke), None);
    }

    fn expire(&mut self, on: usize) {
        let Some(ledger) = self.ledger(on) else { return };
        if matches!(ledger.ending, Ending::UpTo(_)) {
            ledger.ending = Ending::Expired;
            ledger.leave(None);
            self.handle(on, Input::DrainExpired, None);
        }
    }

    fn lose(&mut self, on: usize) {
        if self.assigned[on].is_some() {
            self.handle(on, Input::Lost, None);
            assert!(self.assigned[on].is_none(), "a lost partition is gone at once");
        }
    }

    /// Answers one open thing. One of an assignment that is over reaches nobody.
    fn answer(&mut self, which: usize, good: bool, tasks: u8) {
        if self.open.is_empty() {
            return;
        }
        let (epoch, open) = self.open.swap_remove(which % self.open.len());
        let is_it =
            |assigned: &Option<Assigned>| assigned.as_ref().is_some_and(|a| a.epoch == epoch);
        let on = self.assigned.iter().position(is_it);
        let ledger = on.and_then(|on| self.assigned[on].as_mut()).map(|a| &mut a.ledger);
        let mut call = None;
        let input = match open {
            Open::Arrange(window, offsets) => {
                let has_task = |offset: Offset| tasks & 1 << (offset.get() % 8) != 0;
                let result = match good {
                    true => {
                        let named = offsets.iter().copied().filter(|offset| has_task(*offset));
                        let task = |at| (Arc::new(Task::for_offset(at)), Priority::default());
                        Ok(named.map(task).collect())
                    }
                    false => Err(super::World::failure(Hook::Arrange)),
                };
                if let Some(ledger) = ledger.filter(|ledger| ledger.arranging.is_some()) {
                    call = ledger.arranged(good, has_task);
                }
                Input::Arranged { window, messages: Vec::new(), result }
            }
            Open::Waiting(task, offset) => {
                self.open.push((epoch, Open::Running(task, offset)));
                if let Some(ledger) = ledger.filter(|ledger| ledger.ending != Ending::Expired) {
                    let is_given_back = ledger.gives_back(offset);
                    assert!(!is_given_back, "{offset} must not start any more");
                    ledger.note_started(offset, true);
                }
                Input::TaskStarted { task, slot: 0, queue_wait: Duration::ZERO }
            }
            Open::Running(task, offset) => {
                if let Some(state) = ledger.and_then(|ledger| ledger.states.get_mut(&offset))
                    && good
                    && *state == State::Working
                {
                    *state = State::Finished;
                }
                let outcome = if good { TaskOutcome::Success } else { TaskOutcome::ExitCode(1) };
                let execution = Box::new(Execution::without_process(outcome));
                Input::TaskFinished { task, execution }
            }
            Open::Letter(key, offset) => {
                if let Some(state) = ledger.and_then(|ledger| ledger.states.get_mut(&offset))
                    && *state == State::Lettering
                {
                    *state = State::Finished;
                }
                Input::ItemsEnded(vec![(ItemKey::Letter(key), ItemEnd::Confirmed)])
            }
            Open::Commit(position) => {
                let result = match good {
                    true => Ok(position),
                    false => Err(SourceError::new(SourceErrorKind::Commit, "not now")),
                };
                if let Some(on) = on.filter(|_| good) {
                    self.committed[on] = Some(position);
                }
                Input::Committed(result)
            }
        };
        match on {
            Some(on) => self.handle(on, input, call),
            None => assert!(!self.table.send(epoch, input), "{epoch:?} is over"),
        }
    }

    /// Brings an input to its partition, through the table of epochs, and compares everything that
    /// follows with the model. `call` is the call of `arrange` that is to come at once.
    fn handle(&mut self, on: usize, input: Input, call: Option<Vec<Offset>>) {
        let assigned = self.assigned[on].as_mut().expect("the caller saw it");
        assert!(self.table.send(assigned.epoch, input));
        let Some(Mail::Input(input)) = assigned.inbox.take_now().pop_front() else {
            panic!("the input is in the inbox of its epoch")
        };
        assigned.machine.set_admission(self.gate.admission());
        let is_arranged = matches!(input, Input::Arranged { .. });
        let is_lost = matches!(input, Input::Lost);
        let effects = assigned.machine.handle(input, self.now);
        let load = assigned.machine.load();
        let before = std::mem::replace(&mut assigned.ledger.load, load);
        if is_lost {
            assigned.ledger.ending = Ending::Lost;
        }
        // What was arranged is told first.
        let mut call = call;
        if !is_arranged {
            let admission = self.admission();
            let ledger = &mut self.assigned[on].as_mut().expect("it is there").ledger;
            call = call.or_else(|| ledger.form_window(admission, self.now));
        }
        self.gate.update(before, load);
        self.perform(on, effects, &mut call);
        assert_eq!(call, None, "this was to be arranged");
        self.compare(on);
        self.compare_flow();
        let asks = |assigned: &Assigned| assigned.machine.asks_for_admission();
        if self.assigned[on].as_ref().is_some_and(asks) {
            self.handle(on, Input::Tick, None);
        }
    }

    fn admission(&self) -> Admission {
        match () {
            () if self.is_heavy => Admission::Nothing,
            () if self.is_crowded => Admission::First,
            () => Admission::Any,
        }
    }

    fn compare(&self, on: usize) {
        let Some(Assigned { epoch, machine, ledger, .. }) = &self.assigned[on] else { return };
        let is_run = |(of, open): &&(Epoch, Open)| {
            of == epoch && matches!(open, Open::Waiting(..) | Open::Running(..))
        };
        let runs = self.open.iter().filter(is_run).count();
        assert_eq!(machine.load(), ledger.count_load(self.now, runs), "load of {ledger:?}");
        assert_eq!(ledger.settled, ledger.in_state(State::Finished), "finished of {ledger:?}");
        if ledger.ending != Ending::No {
            let mut kept = ledger.states.keys().filter(|offset| !ledger.gives_back(**offset));
            let waits =
                |(of, open): &(Epoch, Open)| of == epoch && matches!(open, Open::Waiting(..));
            let has_reason = kept.any(|offset| ledger.is_open(*offset))
                || self.open.iter().any(waits)
                || ledger.position().is_some_and(|it| Some(it) > self.committed[on]);
            assert!(has_reason, "it is not over: {ledger:?}");
            return;
        }
        let waiting = ledger.queue.len() + ledger.granted;
        assert!(waiting <= BUFFER, "more than the buffer: {ledger:?}");
        let is_generous = (BUFFER - waiting) * 4 < BUFFER || ledger.ahead() >= AHEAD;
        assert!(is_generous, "no credit: {ledger:?}");
        assert_eq!(machine.unfinished(), ledger.states.len() - ledger.settled.len());
    }

    /// The flow by its definition, of the loads of all that are assigned.
    fn compare_flow(&mut self) {
        let loads = self.assigned.iter().flatten().map(|assigned| assigned.ledger.load);
        let count: usize = loads.clone().map(|load| load.count).sum();
        let active: usize = loads.clone().map(|load| load.active).sum();
        let total: usize = loads.clone().map(|load| load.total).sum();
        let bytes: usize = loads.clone().map(|load| load.bytes).sum();
        let working_count: usize = loads.clone().map(|load| load.working_count).sum();
        let working: usize = loads.map(|load| load.working_bytes).sum();
        let half_way = COUNT.pause_at.midpoint(COUNT.resume_at);
        let low = |active: usize| match active <= COUNT.resume_at {
            true => (half_way, BYTES.pause_at.midpoint(BYTES.resume_at)),
            false => (COUNT.resume_at, BYTES.resume_at),
        };
        let (low_count, low_bytes) = low(active);
        if count >= COUNT.pause_at || bytes >= BYTES.pause_at {
            self.flow = Flow::Closed;
        } else if count <= low_count && bytes <= low_bytes {
            self.flow = Flow::Open;
        }
        let (_, low_bytes) = low(active - (count - working_count));
        if working >= BYTES.pause_at {
            self.is_heavy = true;
        } else if working <= low_bytes {
            self.is_heavy = false;
        }
        // Windows go on from half way between the marks.
        if working_count >= COUNT.pause_at {
            self.is_crowded = true;
        } else if working_count <= half_way {
            self.is_crowded = false;
        }
        let working_bytes = working;
        let rest = Load::default();
        let load = Load { count, working_count, active, total, bytes, working_bytes, ..rest };
        assert_eq!(self.gate.load(), load);
        assert_eq!((self.gate.flow(), self.gate.admission()), (self.flow, self.admission()));
    }

    fn perform(&mut self, on: usize, effects: Vec<Effect>, call: &mut Option<Vec<Offset>>) {
        let mut failed = Vec::new();
        for effect in effects {
            let assigned = self.assigned[on].as_mut().expect("nothing comes after the end");
            let (epoch, ledger) = (assigned.epoch, &mut assigned.ledger);
            match effect {
                Effect::Request(credit) => {
                    assert!(ledger.ending == Ending::No && ledger.ahead() < AHEAD, "{ledger:?}");
                    ledger.granted += credit.messages;
                }
                Effect::Arrange(arrange) => {
                    let offsets: Vec<_> = arrange.messages.iter().map(|(m, _)| m.offset).collect();
                    let expected = call.take().or_else(|| {
                        let again = ledger.arranging.as_mut().filter(|it| it.is_retried)?;
                        again.is_retried = false;
                        Some(again.messages.clone())
                    });
                    assert_eq!(Some(&offsets), expected.as_ref(), "of {ledger:?}");
                    self.open.push((epoch, Open::Arrange(arrange.window, offsets)));
                }
                Effect::Submit(run) => {
                    let offset = run.task.source_offsets[0];
                    assert_eq!(ledger.states[&offset], State::Working);
                    self.open.push((epoch, Open::Waiting(run.id, offset)));
                }
                Effect::Withdraw(runs) => self.withdraw(on, &runs),
                Effect::Hook(HookCall::Error { task, .. }) => failed.push(task),
                Effect::DeadLetter { key, letter } => {
                    let offset = letter.source.offset;
                    assert_eq!(ledger.states[&offset], State::Lettering);
                    self.open.push((epoch, Open::Letter(key, offset)));
                }
                Effect::Settle(offset, Settlement::GivenBack | Settlement::Abandoned) => {
                    assert!(ledger.ending != Ending::No && !ledger.settled.contains(&offset));
                    assert!(ledger.given_back.insert(offset), "{offset} leaves twice");
                }
                Effect::Settle(offset, _) => {
                    assert!(ledger.settled.insert(offset), "{offset} is finished twice");
                    self.finished[on].insert(offset);
                }
                Effect::Commit(position) => self.ask_commit(on, position),
                Effect::Over { clean } => self.end(on, clean),
                Effect::Fence => {}
                other => panic!("there is no reason for {other:?}"),
            }
        }
        // What follows is compared when all of this was done.
        failed.into_iter().for_each(|task| self.fail(on, task));
    }

    /// The executor gives runs back that have not started.
    fn withdraw(&mut self, on: usize, runs: &[RunId]) {
        let epoch = self.assigned[on].as_ref().expect("it asks for them").epoch;
        for &task in runs {
            let is_it = |(of, open): &(Epoch, Open)| {
                *of == epoch && matches!(open, Open::Waiting(id, _) if *id == task)
            };
            let at = self.open.iter().position(is_it).expect("what waits is withdrawn");
            self.open.remove(at);
            let execution = Box::new(Execution::without_process(TaskOutcome::Cancelled));
            self.handle(on, Input::TaskFinished { task, execution }, None);
        }
    }

    /// A task has failed for good: its message goes to the dead letters.
    fn fail(&mut self, on: usize, task: RunId) {
        let Assigned { machine, ledger, .. } = self.assigned[on].as_mut().expect("its hook");
        let offset = machine.tasks[&task.get()].offsets[0];
        ledger.states.insert(offset, State::Lettering);
        let result = Ok((ErrorAction::Policy, Vec::new()));
        self.handle(on, Input::HookAnswered(HookAnswer::Error { task, result }), None);
    }

    fn ask_commit(&mut self, on: usize, position: CommitOffset) {
        let Assigned { epoch, ledger, .. } = self.assigned[on].as_ref().expect("it asks");
        assert_eq!(Some(position), ledger.position(), "of {ledger:?}");
        assert!(Some(position) > self.committed[on], "{position} is committed already");
        let is_another =
            |(of, open): &(Epoch, Open)| of == epoch && matches!(open, Open::Commit(_));
        assert!(!self.open.iter().any(is_another), "two commits in flight");
        let mut below = (0..LOG).map(logged).filter(|offset| offset.next() <= position);
        assert!(below.all(|offset| self.finished[on].contains(&offset)), "{position} passes one");
        self.open.push((*epoch, Open::Commit(position)));
    }

    fn end(&mut self, on: usize, clean: bool) {
        let Assigned { epoch, ledger, .. } = self.assigned[on].take().expect("it ends once");
        self.table.remove(epoch);
        if ledger.ending != Ending::Lost {
            let told: BTreeSet<_> = ledger.settled.union(&ledger.given_back).copied().collect();
            assert_eq!(told, ledger.arrived, "each has one outcome");
        }
        match ledger.ending {
            Ending::No => panic!("nobody asked for an end"),
            Ending::Expired | Ending::Lost => assert!(!clean),
            Ending::UpTo(frontier) => {
                let up_to_it = ledger.states.iter().filter(|(at, _)| Some(**at) <= frontier);
                let mut left = up_to_it.filter(|(_, state)| **state != State::Finished);
                assert_eq!(left.next(), None, "it had started");
                let is_committed = ledger.position().is_none_or(|p| Some(p) <= self.committed[on]);
                assert_eq!(clean, is_committed, "of {ledger:?}");
            }
        }
    }

    /// From here on everything goes well: all that is in the logs is finished and committed.
    fn come_to_rest(&mut self) {
        let end = [Some(logged(LOG - 1).next()); PARTITIONS];
        for _ in 0..2000 {
            if self.committed == end && self.open.is_empty() {
                break;
            }
            for on in 0..PARTITIONS {
                self.assign(on);
                self.hand_over(on, BUFFER);
                self.wait(on);
            }
            self.answer(0, true, 0b1010_1010);
        }
        assert_eq!(self.committed, end, "it does not come to rest: {:?}", self.open);
        let all: BTreeSet<_> = (0..LOG).map(logged).collect();
        assert!(self.finished.iter().all(|finished| *finished == all));
        assert_eq!(self.gate.load(), Load::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    // Promise: WM-1, WM-2, RB-1, RB-2, FT-3
    #[test]
    fn assignments_agree_with_the_model(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.come_to_rest();
    }
}
