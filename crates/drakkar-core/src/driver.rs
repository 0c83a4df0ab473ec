//! Runs a partition: brings what happened to its state machine and performs what that decides.

use crate::backpressure::{Admission, Load};
use crate::courier::Courier;
use crate::delivery::{LaneHandle, LaneItem, LaneMail, LetterSource, write_letter};
use crate::erased::panic_text;
use crate::hook_watch::HookWatch;
use crate::hooks::{HookRun, run_arrange};
use crate::inbox::Inbox;
use crate::partition::{
    DrainCause, Effect, HookCall, Input, ItemKey, Letter, LetterContent, Outgoing, Partition,
};
use crate::shared::Shared;
use drakkar_api::{
    COMMIT_GRACE, CancelScope, CommitRequest, DeliveryId, Epoch, Event, Execution, Executor,
    Instant, PartitionId, Reply, Run, RunId, RunListener, SourceMessage,
};
use futures_util::FutureExt as _;
use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::task::JoinSet;

/// How late a partition may hear that one of its tasks has started.
const LOOK: Duration = Duration::from_millis(100);

/// What a partition's driver is told.
pub(crate) enum Mail {
    /// For the state machine.
    Input(Input),
    /// Drain until `deadline`; the ticket is dropped when it is done.
    Drain { cause: DrainCause, deadline: Instant, ticket: Arc<DrainTicket> },
    /// A task that calls hooks panicked outside of them: its answers will never come.
    Broken(String),
}

/// Answers when the last partition of a revoke is drained: when the last copy is dropped.
pub(crate) struct DrainTicket {
    reply: Mutex<Option<Reply<()>>>,
}

impl DrainTicket {
    pub(crate) fn new(reply: Reply<()>) -> Arc<Self> {
        Arc::new(Self { reply: Mutex::new(Some(reply)) })
    }
}

impl Drop for DrainTicket {
    fn drop(&mut self) {
        let reply = self.reply.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            reply.send(());
        }
    }
}

/// Starts the driver of a partition that was just assigned.
pub(crate) fn spawn_partition(shared: &Arc<Shared>, id: PartitionId, epoch: Epoch) {
    let inbox = Arc::new(Inbox::new());
    shared.partitions.insert(epoch, id.clone(), Arc::clone(&inbox));
    let mut machine = Partition::new(
        id.clone(),
        epoch,
        Arc::clone(&shared.config),
        Arc::clone(&shared.router),
        Arc::clone(&shared.observer),
        shared.hooks(),
    );
    let executor = Arc::clone(&shared.executor);
    machine.look_up_pids(Arc::new(move |run| executor.pid(epoch, run)));
    let driver = Driver {
        listener: Arc::new(Listener {
            inbox: Arc::clone(&inbox),
            executor: Arc::clone(&shared.executor),
            courier: Arc::clone(&shared.courier),
        }),
        shared: Arc::clone(shared),
        id: id.clone(),
        epoch,
        machine,
        inbox,
        mail: VecDeque::new(),
        hooks: JoinSet::new(),
        watch: shared.watch_hooks_of(id),
        hook_calls: Vec::new(),
        outgoing: shared.lanes.iter().map(|_| Vec::new()).collect(),
        load: Load::default(),
        depth: (0, 0),
        drain: None,
        tickets: Vec::new(),
    };
    shared.runtime.spawn(driver.run());
}

struct Driver {
    shared: Arc<Shared>,
    id: PartitionId,
    epoch: Epoch,
    machine: Partition,
    inbox: Arc<Inbox<Mail>>,
    /// What was taken out of the inbox and is not handled yet.
    mail: VecDeque<Mail>,
    listener: Arc<dyn RunListener>,
    /// Hooks that wait or take long.
    hooks: JoinSet<()>,
    watch: Arc<HookWatch>,
    /// Hook calls of this turn.
    hook_calls: Vec<HookCall>,
    /// Payloads of this turn, by lane.
    outgoing: Vec<Vec<LaneItem>>,
    /// What this partition last contributed to the load.
    load: Load,
    /// What was last reported as its depth.
    depth: (usize, usize),
    drain: Option<DrainClock>,
    tickets: Vec<Arc<DrainTicket>>,
}

/// The deadlines of a drain.
struct DrainClock {
    started: Instant,
    /// When it expires; after that, when the commit is waited for no longer.
    due: Instant,
    expired: bool,
}

/// How an assignment ended.
enum End {
    Drained { clean: bool },
    Lost,
}

impl Driver {
    async fn run(mut self) {
        let end = AssertUnwindSafe(self.turn_until_over()).catch_unwind().await;
        if end.is_err() {
            self.fence();
            self.shared.partitions.keep_broken(self.epoch, self.id.clone());
        }
        // Whatever an observer does now, the partition leaves.
        let mut notice = self.watch.notice();
        notice.is_over = true;
        let told = catch_unwind(AssertUnwindSafe(|| self.tell_end(&end)));
        drop(notice);
        self.shared.partitions.remove(self.epoch);
        let forgotten = catch_unwind(AssertUnwindSafe(|| self.forget_load()));
        if told.is_err() || forgotten.is_err() {
            tracing::error!(category = "partition", partition = %self.id, "observer_panicked");
        }
        // Only now may the source end the assignment.
        self.tickets.clear();
    }

    fn tell_end(&self, end: &Result<End, Box<dyn Any + Send>>) {
        let partition = &self.id;
        let observer = &self.shared.observer;
        match end {
            Ok(End::Drained { clean }) => {
                let now = self.shared.clock.now();
                let duration = self.drain.as_ref().map_or(Duration::ZERO, |d| now - d.started);
                let (clean, given_back) = (*clean, self.machine.given_back());
                observer.observe(&Event::Revoked { partition, clean, given_back, duration });
            }
            Ok(End::Lost) => observer.observe(&Event::Lost { partition }),
            Err(panic) => {
                // A broken invariant: this partition stops and commits nothing more; the others go on.
                let text = panic_text(panic.as_ref());
                let reason = format!("a broken invariant of the engine: {text}");
                let (reason, keeps_ready) = (&reason, false);
                observer.observe(&Event::PartitionFailed { partition, reason, keeps_ready });
                self.machine.report_all_left();
            }
        }
    }

    /// Takes this partition out of the load, with the messages that nobody will handle any more.
    fn forget_load(&mut self) {
        let mut load = self.load;
        self.mail.extend(self.inbox.take_now());
        for mail in self.mail.drain(..) {
            if let Mail::Input(Input::Messages(messages)) = mail {
                load.add(arrived_load(&messages));
            }
        }
        self.shared.change_load(load, Load::default());
    }

    async fn turn_until_over(&mut self) -> End {
        let effects = self.machine.start();
        if let Some(end) = self.perform(effects) {
            return end;
        }
        loop {
            let mut mail = std::mem::take(&mut self.mail);
            self.wait(&mut mail).await;
            self.mail = mail;
            let now = self.shared.clock.now();
            if let Some(end) = self.keep_time(now) {
                return end;
            }
            while let Some(mail) = self.mail.pop_front() {
                if let Some(end) = self.on_mail(mail, now) {
                    return end;
                }
            }
            if let Some(end) = self.flush(now) {
                return end;
            }
        }
    }

    async fn wait(&self, mail: &mut VecDeque<Mail>) {
        let drain_due = self.drain.as_ref().map(|drain| drain.due);
        let look_due = self.machine.has_waiting_runs().then(|| self.shared.clock.now() + LOOK);
        let due = [self.machine.next_due(), drain_due, look_due].into_iter().flatten().min();
        let Some(due) = due else {
            return self.inbox.take(mail).await;
        };
        tokio::select! {
            // Mail first: what has happened is more than what is merely due.
            biased;
            () = self.inbox.take(mail) => {}
            () = tokio::time::sleep(due - self.shared.clock.now()) => {}
        }
    }

    /// Tells the machine what time alone has made due.
    fn keep_time(&mut self, now: Instant) -> Option<End> {
        if self.machine.next_due().is_some_and(|due| due <= now)
            && let Some(end) = self.handle(Input::Tick, now)
        {
            return Some(end);
        }
        let drain = self.drain.as_mut().filter(|drain| drain.due <= now)?;
        if drain.expired {
            return Some(End::Drained { clean: false });
        }
        drain.expired = true;
        drain.due = now + COMMIT_GRACE;
        self.handle(Input::DrainExpired, now)
    }

    fn on_mail(&mut self, mail: Mail, now: Instant) -> Option<End> {
        let input = match mail {
            Mail::Input(input) => input,
            Mail::Drain { cause, deadline, ticket } => {
                self.tickets.push(ticket);
                let deadline = match cfg!(drakkar_fault = "drain_without_deadline") {
                    true => deadline + Duration::from_secs(86_400),
                    false => deadline,
                };
                // A drain that is under way keeps its deadline: somebody waits for that one.
                self.drain.get_or_insert(DrainClock {
                    started: now,
                    due: deadline,
                    expired: false,
                });
                Input::Drain { cause, deadline }
            }
            Mail::Broken(panic) => resume_unwind(Box::new(panic)),
        };
        if let Input::Messages(messages) = &input {
            // They count already; from here on it is this partition that answers for them.
            self.load.add(arrived_load(messages));
        }
        let lost = matches!(input, Input::Lost);
        let drains = matches!(input, Input::Drain { .. });
        if let Some(end) = self.handle(input, now) {
            return Some(if lost { End::Lost } else { end });
        }
        // Its deadline may have passed on the way here. What lies behind it in the mail comes too late.
        if drains { self.keep_time(now) } else { None }
    }

    /// Lets the machine decide, performs that, and tells the gate what it did to the load.
    fn handle(&mut self, input: Input, now: Instant) -> Option<End> {
        let others_drain = cfg!(drakkar_fault = "drain_stops_others")
            && self.drain.is_none()
            && self.shared.partitions.some_leave();
        self.machine.set_admission(match others_drain {
            true => Admission::Nothing,
            false => self.shared.admission(),
        });
        let mut notice = self.watch.notice();
        if notice.hand_over() {
            self.machine.take_over_stall(now);
        }
        let effects = self.machine.handle(input, now);
        notice.is_reported = self.machine.is_stalled();
        drop(notice);
        let end = self.perform(effects);
        let load = self.machine.load();
        self.shared.change_load(std::mem::replace(&mut self.load, load), load);
        if end.is_none() && self.machine.asks_for_admission() {
            return self.handle(Input::Tick, now);
        }
        end
    }

    /// Performs effects in order. Hook calls and payloads are gathered until the end of the turn.
    fn perform(&mut self, mut effects: Vec<Effect>) -> Option<End> {
        for effect in effects.drain(..) {
            match effect {
                Effect::Request(credit) => self.shared.source.request(self.epoch, credit),
                Effect::Arrange(call) => {
                    let shared = Arc::clone(&self.shared);
                    let (watch, inbox) = (Arc::clone(&self.watch), Arc::clone(&self.inbox));
                    self.spawn(async move {
                        inbox.push(Mail::Input(run_arrange(shared, watch, call).await));
                    });
                }
                Effect::Submit(run) => self.shared.executor.submit(Run {
                    owner: self.epoch,
                    id: run.id,
                    task: run.task,
                    priority: run.priority,
                    listener: Arc::clone(&self.listener),
                }),
                Effect::Withdraw(runs) => {
                    self.shared.executor.cancel(self.epoch, CancelScope::Waiting(runs));
                }
                Effect::Kill(runs) => {
                    self.shared.executor.cancel(self.epoch, CancelScope::Runs(runs));
                }
                Effect::Fence => self.fence(),
                Effect::Hook(call) => self.hook_calls.push(call),
                Effect::Deliver { lane, item } => self.gather(lane, item),
                Effect::DeadLetter { key, letter } => self.send_letter(key, &letter),
                Effect::Settle(offset, settlement) => {
                    self.shared.source.settle(self.epoch, offset, settlement);
                }
                Effect::Commit(offset) => self.shared.source.commit(CommitRequest {
                    epoch: self.epoch,
                    partition: self.id.clone(),
                    offset,
                    metadata: String::new(),
                }),
                Effect::Stop(reason) => self.shared.stop(reason),
                Effect::Over { clean } => return Some(End::Drained { clean }),
            }
        }
        self.machine.recycle(effects);
        None
    }

    fn gather(&mut self, lane: usize, item: Outgoing) {
        let sink = self.shared.lanes[lane].sink();
        self.outgoing[lane].push(LaneItem {
            epoch: self.epoch,
            key: item.key,
            bytes: item.payload.size_bytes(),
            repeat_is_harmless: sink.repeat_is_harmless(&item.payload),
            id: item.id,
            payload: item.payload,
            attempts: 0,
            letter: None,
        });
    }

    fn send_letter(&self, key: u64, letter: &Letter) {
        let lane = &self.shared.dead_letters;
        let failed = self.shared.lanes.iter().find(|lane| match &letter.content {
            LetterContent::Payload { sink, .. } => lane.sink().id() == sink,
            LetterContent::Message => false,
        });
        let from = LetterSource {
            sink_target: failed.map_or(&[], LaneHandle::target),
            worker: self.shared.context.worker_id(),
            failed_at: self.shared.clock.wall(),
        };
        let full = write_letter(letter, from);
        let payload = full.fit(lane.item_bytes_max());
        let offset = letter.source.offset;
        let id = match &letter.content {
            LetterContent::Payload { id, .. } => id.clone(),
            LetterContent::Message => {
                DeliveryId::new(self.id.clone(), offset, DeliveryId::MESSAGE_HOOK, u32::MAX)
            }
        };
        lane.send(LaneMail::Items(vec![LaneItem {
            epoch: self.epoch,
            key: ItemKey::Letter(key),
            id,
            bytes: payload.size_bytes(),
            // A dead letter that is there twice is worse than none only in looks.
            repeat_is_harmless: true,
            payload: Arc::new(payload),
            attempts: 0,
            letter: Some(Box::new(full)),
        }]));
    }

    /// Ends a turn: calls hooks, hands payloads to the lanes, and reports depths.
    fn flush(&mut self, now: Instant) -> Option<End> {
        while self.hooks.try_join_next().is_some() {}
        while !self.hook_calls.is_empty() {
            // An answer may ask for the next call.
            for call in std::mem::take(&mut self.hook_calls) {
                if let Some(end) = self.call_hook(call, now) {
                    return Some(end);
                }
            }
        }
        for (lane, items) in self.shared.lanes.iter().zip(&mut self.outgoing) {
            if !items.is_empty() {
                lane.send(LaneMail::Items(std::mem::take(items)));
            }
        }
        self.shared.learn_hooks(self.machine.hooks());
        let depth = (self.machine.queued(), self.machine.unfinished());
        if depth != self.depth {
            self.depth = depth;
            self.shared.observer.observe(&Event::Depth {
                partition: &self.id,
                queued: depth.0,
                uncommitted: depth.1,
            });
        }
        None
    }

    /// Calls a hook. While hooks are quick it is tried right here, and goes on in a task of the
    /// runtime only if it waits for something; else it gets a task at once, to run on any core.
    fn call_hook(&mut self, call: HookCall, now: Instant) -> Option<End> {
        let mut hook = HookRun::new(&self.shared, &self.id, call);
        if self.watch.pace.is_quick(now) {
            let mut unheard = std::task::Context::from_waker(Waker::noop());
            let tried = hook.poll(&self.shared, &self.id, &self.watch, &mut unheard);
            if let Poll::Ready(answer) = tried {
                if self.watch.pace.is_quick(now) {
                    return self.handle(Input::HookAnswered(answer), now);
                }
                // It took long, so the answer takes the way of slow ones. What came meanwhile goes
                // first: the partition may be somebody else's by now.
                let inbox = Arc::clone(&self.inbox);
                self.spawn(async move { inbox.push(Mail::Input(Input::HookAnswered(answer))) });
                return None;
            }
        }
        // The task polls it anew, and so it is the task that is woken.
        let shared = Arc::clone(&self.shared);
        let (id, watch, inbox) =
            (self.id.clone(), Arc::clone(&self.watch), Arc::clone(&self.inbox));
        self.spawn(async move {
            let answer = poll_fn(|cx| hook.poll(&shared, &id, &watch, cx)).await;
            inbox.push(Mail::Input(Input::HookAnswered(answer)));
        });
        None
    }

    /// Runs what calls hooks. Panics of hooks are answers; any other is a broken invariant.
    fn spawn(&mut self, calls: impl Future<Output = ()> + Send + 'static) {
        let inbox = Arc::clone(&self.inbox);
        self.hooks.spawn_on(
            async move {
                if let Err(panic) = AssertUnwindSafe(calls).catch_unwind().await {
                    inbox.push(Mail::Broken(panic_text(panic.as_ref()).to_string()));
                }
            },
            &self.shared.runtime,
        );
    }

    /// Kills all runs of this assignment and takes its payloads out of the lanes.
    fn fence(&mut self) {
        self.hooks.abort_all();
        self.hook_calls.clear();
        self.outgoing.iter_mut().for_each(Vec::clear);
        if !cfg!(drakkar_fault = "runs_outlive_assignment") {
            self.shared.executor.cancel(self.epoch, CancelScope::All);
        }
        for lane in self.shared.lanes.iter().chain([&self.shared.dead_letters]) {
            if !cfg!(drakkar_fault = "lanes_not_fenced") {
                lane.send(LaneMail::Fence(self.epoch));
            }
        }
    }
}

/// Returns what messages contribute to the load while they are in the mail.
pub(crate) fn arrived_load(messages: &[SourceMessage]) -> Load {
    let bytes = messages.iter().map(SourceMessage::size_bytes).sum();
    let count = messages.len();
    Load { count, active: count, total: count, bytes, ..Load::default() }
}

/// Brings what the executor tells to the partition.
struct Listener {
    inbox: Arc<Inbox<Mail>>,
    executor: Arc<dyn Executor>,
    courier: Arc<Courier>,
}

impl RunListener for Listener {
    fn started(&self, task: RunId, slot: usize, queue_wait: Duration) {
        // Most tasks end soon, and then both are dealt with in one turn.
        self.inbox.push_quietly(Mail::Input(Input::TaskStarted { task, slot, queue_wait }));
    }

    fn finished(&self, task: RunId, execution: Execution) {
        let execution = Box::new(execution);
        let mail = Mail::Input(Input::TaskFinished { task, execution });
        // With no other run waiting, a slot may lie idle until this one's end has been heard.
        if self.executor.slots().waiting == 0 {
            self.courier.bring(&self.inbox, mail);
        } else {
            self.courier.post(&self.inbox, mail);
        }
    }
}
