//! A source that a test scripts: assignments, messages, rebalances and failing commits.

use crate::broker::FakeBroker;
use crate::violations::{Violations, lock};
use crate::{FaultPlan, Random};
use drakkar_api::{
    Assignment, CommitOffset, CommitRequest, Credit, Epoch, Flow, Offset, PartitionId, Reply,
    Settlement, Source, SourceError, SourceErrorKind, SourceEvents, SourceMessage,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// A [`Source`] whose messages come from a [`FakeBroker`] and whose group life a test scripts.
/// Clones are the same source.
///
/// The engine is called from one task of the runtime on which `start` was called, never from inside
/// a method of the source, and always in the order in which things happened.
///
/// It panics when the engine
///
/// - starts twice, or does anything else before it started;
/// - uses an epoch that was never given out, or one with another's partition;
/// - commits while another commit of the partition is in flight (promise WM-2), commits less than
///   before or beyond what was handed over (WM-1);
/// - settles a message twice, or one that was not handed over.
///
/// Requests and commits for an assignment that has ended are no violations: they cross its end.
/// Such a commit is answered with [`SourceErrorKind::Fenced`].
#[derive(Clone)]
pub struct ScriptedSource {
    shared: Arc<Shared>,
}

/// How a scripted commit is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitAnswer {
    /// It is stored, and the answer says so after this time.
    Store(Duration),
    /// It is not stored, and the answer is this error.
    Fail(SourceError),
    /// It is stored, but the answer is this error.
    StoreButFail(SourceError),
}

struct Shared {
    broker: FakeBroker,
    state: Mutex<State>,
    changed: Notify,
    violations: Violations,
}

struct State {
    /// Where it was started. Whom it tells is known to its own task only: an engine holds its source, and
    /// would otherwise never be freed.
    runtime: Option<Handle>,
    start_error: Option<SourceError>,
    drain_deadline: Duration,
    hand_over_max: usize,
    flow: Flow,
    assignments: BTreeMap<Epoch, Assigned>,
    /// What the engine is told next.
    outbox: VecDeque<Told>,
    commit_script: VecDeque<CommitAnswer>,
    commit_faults: Option<(FaultPlan, Random)>,
    settlements: Vec<(Epoch, Offset, Settlement)>,
    handed_over: Vec<(Epoch, Offset)>,
    closing: bool,
    ended: bool,
}

/// One assignment; it stays known after its end.
struct Assigned {
    partition: PartitionId,
    position: CommitOffset,
    credit: Balance,
    committed: Option<CommitOffset>,
    commit_in_flight: bool,
    unsettled: BTreeSet<Offset>,
    settled: BTreeSet<Offset>,
    ended: bool,
}

/// What is left of the credit of one assignment. A message may exceed the bytes; the next grant makes
/// up for that first.
#[derive(Clone, Copy, Default)]
struct Balance {
    messages: usize,
    bytes: i64,
}

enum Told {
    Assigned(Vec<Assignment>),
    Revoked(Vec<Epoch>, Reply<()>),
    Lost(Vec<Epoch>),
    Committed(Epoch, Result<CommitOffset, SourceError>),
    Messages(Epoch, Vec<SourceMessage>),
    Trouble(SourceError),
    Ended(Result<(), SourceError>),
}

impl ScriptedSource {
    /// Makes a source on `broker` that owns nothing yet.
    pub fn new(broker: &FakeBroker) -> Self {
        let state = State {
            runtime: None,
            start_error: None,
            drain_deadline: Duration::from_secs(30),
            hand_over_max: 500,
            flow: Flow::Open,
            assignments: BTreeMap::new(),
            outbox: VecDeque::new(),
            commit_script: VecDeque::new(),
            commit_faults: None,
            settlements: Vec::new(),
            handed_over: Vec::new(),
            closing: false,
            ended: false,
        };
        let shared = Shared {
            broker: broker.clone(),
            state: Mutex::new(state),
            changed: Notify::new(),
            violations: Violations::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets how long a revoke waits for its answer; 30 s unless set.
    #[must_use]
    pub fn with_drain_deadline(self, deadline: Duration) -> Self {
        lock(&self.shared.state).drain_deadline = deadline;
        self
    }

    /// Sets the most messages of one hand-over; 500 unless set.
    #[must_use]
    pub fn with_hand_over_max(self, messages: usize) -> Self {
        lock(&self.shared.state).hand_over_max = messages.max(1);
        self
    }

    /// Takes the faults of commits from `plan`.
    #[must_use]
    pub fn with_faults(self, plan: &FaultPlan) -> Self {
        let faults = (plan.clone(), plan.random("source"));
        lock(&self.shared.state).commit_faults = Some(faults);
        self
    }

    /// Makes the next `start` fail.
    pub fn fail_start(&self, error: SourceError) {
        lock(&self.shared.state).start_error = Some(error);
    }

    /// Gives partitions to this source, from their committed positions on.
    ///
    /// # Panics
    ///
    /// If one of them has an owner: the script of the test is wrong.
    pub fn assign(&self, partitions: &[PartitionId]) -> Vec<Epoch> {
        let assignments: Vec<_> =
            partitions.iter().map(|partition| self.shared.acquire(partition)).collect();
        let epochs = assignments.iter().map(|assignment| assignment.epoch).collect();
        self.shared.tell(Told::Assigned(assignments));
        epochs
    }

    /// Takes partitions back in the orderly way; answers whether the engine drained in time.
    ///
    /// Messages are handed over no longer, commits are taken until the answer. Partitions that are
    /// not assigned are left out.
    pub async fn revoke(&self, partitions: &[PartitionId]) -> bool {
        let epochs = self.shared.current(|partition| partitions.contains(partition));
        self.shared.revoke(epochs).await
    }

    /// Takes partitions away: they are gone when the engine hears of it.
    pub fn lose(&self, partitions: &[PartitionId]) {
        let epochs = self.shared.current(|partition| partitions.contains(partition));
        self.shared.end_assignments(&epochs);
        self.shared.tell(Told::Lost(epochs));
    }

    /// Stands for the death of the worker: all partitions are free, and the engine hears nothing
    /// more.
    pub fn crash(&self) {
        let epochs = self.shared.current(|_| true);
        self.shared.end_assignments(&epochs);
        let mut state = lock(&self.shared.state);
        state.outbox.clear();
        state.ended = true;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Hands over once more the last message of a partition, as no source should, as far as credit and
    /// flow permit. Answers whether it does.
    pub fn repeat(&self, partition: &PartitionId) -> bool {
        let mut broker = self.shared.broker.lock();
        let mut state = lock(&self.shared.state);
        let is_open = state.flow == Flow::Open;
        let mut current = state
            .assignments
            .iter_mut()
            .filter(|(_, assigned)| is_open && !assigned.ended && assigned.partition == *partition);
        let Some((&epoch, assigned)) = current.next() else { return false };
        let Some(message) = assigned.take_again(&mut broker) else { return false };
        state.outbox.push_back(Told::Messages(epoch, vec![message]));
        drop((broker, state));
        self.shared.changed.notify_one();
        true
    }

    /// Tells of something that the source recovers from.
    pub fn trouble(&self, error: SourceError) {
        self.shared.tell(Told::Trouble(error));
    }

    /// Ends by itself with an error; the assignments are gone.
    pub fn fail(&self, error: SourceError) {
        let epochs = self.shared.current(|_| true);
        self.shared.end_assignments(&epochs);
        self.shared.tell(Told::Ended(Err(error)));
    }

    /// Answers a future commit in this way, after those that were scripted before.
    pub fn answer_commit(&self, answer: CommitAnswer) {
        lock(&self.shared.state).commit_script.push_back(answer);
    }

    /// Makes the next `count` commits fail without being stored.
    pub fn fail_commits(&self, count: usize) {
        let error = || CommitAnswer::Fail(refused());
        lock(&self.shared.state).commit_script.extend((0..count).map(|_| error()));
    }

    /// Returns the present epoch of a partition.
    pub fn epoch(&self, partition: &PartitionId) -> Option<Epoch> {
        self.shared.current(|known| known == partition).first().copied()
    }

    /// Returns the messages that were handed over, in order.
    pub fn handed_over(&self) -> Vec<(Epoch, Offset)> {
        lock(&self.shared.state).handed_over.clone()
    }

    /// Returns what the engine said became of messages, in order.
    pub fn settlements(&self) -> Vec<(Epoch, Offset, Settlement)> {
        lock(&self.shared.state).settlements.clone()
    }

    /// Returns the credit that is left of an assignment.
    pub fn credit(&self, epoch: Epoch) -> Option<Credit> {
        let state = lock(&self.shared.state);
        let Balance { messages, bytes } = state.assignments.get(&epoch)?.credit;
        Some(Credit { messages, bytes: usize::try_from(bytes).unwrap_or(0) })
    }

    /// Returns the flow.
    pub fn flow(&self) -> Flow {
        lock(&self.shared.state).flow
    }

    /// Returns whether the source has told the engine that it ended, or crashed.
    pub fn has_ended(&self) -> bool {
        lock(&self.shared.state).ended
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
        self.shared.violations.assert_none("the source");
    }
}

fn refused() -> SourceError {
    SourceError::new(SourceErrorKind::Commit, "the commit was refused")
}

impl Source for ScriptedSource {
    fn start(
        &self,
        events: Arc<dyn SourceEvents>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>> {
        Box::pin(async move {
            let mut state = lock(&self.shared.state);
            if let Some(error) = state.start_error.take() {
                return Err(error);
            }
            if state.runtime.is_some() {
                drop(state);
                self.shared.violations.raise("start was called twice");
            }
            state.runtime = Some(Handle::current());
            drop(state);
            tokio::spawn(Arc::clone(&self.shared).run(events));
            Ok(())
        })
    }

    fn request(&self, epoch: Epoch, credit: Credit) {
        self.shared.change(|state| {
            let assigned = state.assigned(epoch)?;
            assigned.credit.messages = assigned.credit.messages.saturating_add(credit.messages);
            let bytes = i64::try_from(credit.bytes).unwrap_or(i64::MAX);
            assigned.credit.bytes = assigned.credit.bytes.saturating_add(bytes);
            Ok(())
        });
    }

    fn set_flow(&self, flow: Flow) {
        self.shared.change(|state| {
            state.flow = flow;
            Ok(())
        });
    }

    fn commit(&self, request: CommitRequest) {
        let answer = self.shared.change(|state| {
            state.check_commit(&request)?;
            Ok(state.next_commit_answer())
        });
        self.shared.answer_commit(request, answer);
    }

    fn settle(&self, epoch: Epoch, offset: Offset, settlement: Settlement) {
        self.shared.change(|state| {
            let assigned = state.assigned(epoch)?;
            if assigned.settled.contains(&offset) {
                return Err(format!("offset {offset} of epoch {epoch} was settled twice"));
            }
            if !assigned.unsettled.remove(&offset) {
                return Err(format!("offset {offset} of epoch {epoch} was never handed over"));
            }
            assigned.settled.insert(offset);
            state.settlements.push((epoch, offset, settlement));
            Ok(())
        });
    }

    fn close(&self) {
        let first = self.shared.change(|state| Ok(!std::mem::replace(&mut state.closing, true)));
        let runtime = lock(&self.shared.state).runtime.clone();
        if let (true, Some(runtime)) = (first, runtime) {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                let epochs = shared.current(|_| true);
                shared.revoke(epochs).await;
                shared.tell(Told::Ended(Ok(())));
            });
        }
    }
}

impl Shared {
    /// Takes a partition from the broker.
    fn acquire(&self, partition: &PartitionId) -> Assignment {
        let (epoch, position) = self.broker.lock().acquire(partition);
        let assigned = Assigned {
            partition: partition.clone(),
            position,
            credit: Balance::default(),
            committed: None,
            commit_in_flight: false,
            unsettled: BTreeSet::new(),
            settled: BTreeSet::new(),
            ended: false,
        };
        lock(&self.state).assignments.insert(epoch, assigned);
        Assignment { partition: partition.clone(), epoch }
    }

    /// The epochs of the assignments that have not ended and whose partition matches.
    fn current(&self, matches: impl Fn(&PartitionId) -> bool) -> Vec<Epoch> {
        let state = lock(&self.state);
        let current = state.assignments.iter().filter(|(_, assigned)| !assigned.ended);
        current
            .filter(|(_, assigned)| matches(&assigned.partition))
            .map(|(epoch, _)| *epoch)
            .collect()
    }

    /// Applies what the engine asked for, unless that breaks the contract.
    #[track_caller]
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, String>) -> T {
        let mut state = lock(&self.state);
        let result = if state.runtime.is_some() {
            change(&mut state)
        } else {
            Err("the source was used before it was started".to_owned())
        };
        drop(state);
        match result {
            Ok(answer) => {
                self.changed.notify_one();
                answer
            }
            Err(problem) => self.violations.raise(problem),
        }
    }

    fn tell(&self, told: Told) {
        let mut state = lock(&self.state);
        if !state.ended {
            state.outbox.push_back(told);
        }
        drop(state);
        self.changed.notify_one();
    }

    async fn revoke(&self, epochs: Vec<Epoch>) -> bool {
        if epochs.is_empty() {
            return true;
        }
        let deadline = {
            let mut state = lock(&self.state);
            for epoch in &epochs {
                if let Some(assigned) = state.assignments.get_mut(epoch) {
                    // Nothing more is handed over, whatever the credit.
                    assigned.credit = Balance::default();
                    assigned.position = CommitOffset::new(i64::MAX);
                }
            }
            state.drain_deadline
        };
        let (reply, drained) = Reply::channel();
        self.tell(Told::Revoked(epochs.clone(), reply));
        let in_time = matches!(tokio::time::timeout(deadline, drained).await, Ok(Ok(())));
        self.end_assignments(&epochs);
        in_time
    }

    fn end_assignments(&self, epochs: &[Epoch]) {
        let mut broker = self.broker.lock();
        let mut state = lock(&self.state);
        for epoch in epochs {
            if let Some(assigned) = state.assignments.get_mut(epoch) {
                assigned.ended = true;
                broker.release(&assigned.partition, *epoch);
            }
        }
    }

    fn answer_commit(self: &Arc<Self>, request: CommitRequest, answer: CommitAnswer) {
        let shared = Arc::clone(self);
        let answer = async move {
            let (delay, store, error) = match answer {
                CommitAnswer::Store(delay) => (delay, true, None),
                CommitAnswer::Fail(error) => (Duration::ZERO, false, Some(error)),
                CommitAnswer::StoreButFail(error) => (Duration::ZERO, true, Some(error)),
            };
            tokio::time::sleep(delay).await;
            let stored = !store || shared.broker.lock().store(&request);
            let fenced = || SourceError::new(SourceErrorKind::Fenced, "the assignment has ended");
            let result = match (stored, error) {
                (false, _) => Err(fenced()),
                (true, Some(error)) => Err(error),
                (true, None) => Ok(request.offset),
            };
            shared.tell(Told::Committed(request.epoch, result));
        };
        let runtime = lock(&self.state).runtime.clone();
        if let Some(runtime) = runtime {
            runtime.spawn(answer);
        }
    }

    /// The loop of the source: everything that the engine hears comes from here.
    async fn run(self: Arc<Self>, events: Arc<dyn SourceEvents>) {
        let mut produced = self.broker.produced();
        loop {
            while let Some(told) = self.next_told() {
                if self.pass_on(&*events, told) {
                    return;
                }
            }
            while let Some((epoch, messages)) = self.next_messages() {
                events.messages(epoch, messages);
            }
            if lock(&self.state).ended {
                return;
            }
            events.polled();
            // Either only makes the loop go round again.
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                // The broker, whose half this source holds, never closes the channel.
                _ = produced.changed() => {}
            }
        }
    }

    fn next_told(&self) -> Option<Told> {
        let mut state = lock(&self.state);
        let told = state.outbox.pop_front();
        if let Some(Told::Committed(epoch, _)) = &told
            && let Some(assigned) = state.assignments.get_mut(epoch)
        {
            assigned.commit_in_flight = false;
        }
        told
    }

    /// Calls the engine; answers whether that was the last call.
    fn pass_on(&self, events: &dyn SourceEvents, told: Told) -> bool {
        match told {
            Told::Assigned(assignments) => events.assigned(assignments),
            Told::Revoked(epochs, drained) => events.revoked(epochs, drained),
            Told::Lost(epochs) => events.lost(epochs),
            Told::Committed(epoch, result) => events.committed(epoch, result),
            Told::Messages(epoch, messages) => events.messages(epoch, messages),
            Told::Trouble(error) => events.trouble(error),
            Told::Ended(result) => {
                lock(&self.state).ended = true;
                events.ended(result);
                return true;
            }
        }
        false
    }

    /// Takes the next messages that credit and flow permit.
    fn next_messages(&self) -> Option<(Epoch, Vec<SourceMessage>)> {
        let mut broker = self.broker.lock();
        let mut state = lock(&self.state);
        if state.flow == Flow::Closed || !state.outbox.is_empty() {
            return None;
        }
        let most = state.hand_over_max;
        let ready = state.assignments.iter_mut().filter(|(_, assigned)| !assigned.ended);
        let (epoch, messages) = ready
            .map(|(epoch, assigned)| (*epoch, assigned.take(&mut broker, most)))
            .find(|(_, messages)| !messages.is_empty())?;
        state.handed_over.extend(messages.iter().map(|message| (epoch, message.offset)));
        Some((epoch, messages))
    }
}

impl Assigned {
    fn take(&mut self, broker: &mut crate::broker::State, most: usize) -> Vec<SourceMessage> {
        let count = self.credit.messages.min(most);
        let bytes = usize::try_from(self.credit.bytes).unwrap_or(0);
        let messages = broker.read(&self.partition, self.position, count, bytes);
        for message in &messages {
            self.credit.messages -= 1;
            let bytes = i64::try_from(message.size_bytes()).unwrap_or(i64::MAX);
            self.credit.bytes = self.credit.bytes.saturating_sub(bytes);
            self.position = message.offset.next();
            self.unsettled.insert(message.offset);
        }
        messages
    }

    /// Takes the last message that was handed over once more, and credit for it.
    fn take_again(&mut self, broker: &mut crate::broker::State) -> Option<SourceMessage> {
        let last = self.commit_bound()?;
        let at = CommitOffset::new(last.get() - 1);
        let bytes = usize::try_from(self.credit.bytes).unwrap_or(0);
        let count = self.credit.messages.min(1);
        let message = broker.read(&self.partition, at, count, bytes).pop()?;
        self.credit.messages -= 1;
        let bytes = i64::try_from(message.size_bytes()).unwrap_or(i64::MAX);
        self.credit.bytes = self.credit.bytes.saturating_sub(bytes);
        Some(message)
    }

    /// The largest position that may be committed: after the last message that was handed over.
    fn commit_bound(&self) -> Option<CommitOffset> {
        let last = self.unsettled.last().max(self.settled.last())?;
        Some(last.next())
    }
}

impl State {
    fn assigned(&mut self, epoch: Epoch) -> Result<&mut Assigned, String> {
        let unknown = || format!("epoch {epoch} was never assigned");
        self.assignments.get_mut(&epoch).ok_or_else(unknown)
    }

    fn check_commit(&mut self, request: &CommitRequest) -> Result<(), String> {
        let offset = request.offset;
        let assigned = self.assigned(request.epoch)?;
        let partition = &assigned.partition;
        if *partition != request.partition {
            let (epoch, other) = (request.epoch, &request.partition);
            return Err(format!("epoch {epoch} is of {partition}, not of {other}"));
        }
        if assigned.commit_in_flight {
            return Err(format!("a second commit of {partition} while one is in flight"));
        }
        if assigned.committed.is_some_and(|earlier| offset < earlier) {
            return Err(format!("the commit of {partition} goes back to {offset}"));
        }
        if assigned.commit_bound().is_none_or(|bound| offset > bound) {
            return Err(format!("commit {offset} of {partition} passes what was handed over"));
        }
        assigned.committed = Some(offset);
        assigned.commit_in_flight = true;
        Ok(())
    }

    fn next_commit_answer(&mut self) -> CommitAnswer {
        if let Some(answer) = self.commit_script.pop_front() {
            return answer;
        }
        let Some((plan, random)) = &mut self.commit_faults else {
            return CommitAnswer::Store(Duration::ZERO);
        };
        let rates = plan.rates();
        let delay = random.duration(rates.commit_longest);
        match (random.chance(rates.commit_fails), random.chance(500)) {
            (false, _) => CommitAnswer::Store(delay),
            (true, false) => CommitAnswer::Fail(refused()),
            (true, true) => CommitAnswer::StoreButFail(refused()),
        }
    }
}

impl fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("ScriptedSource")
            .field("assignments", &state.assignments.len())
            .field("ended", &state.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what it is told, and gives the revokes to the test.
    #[derive(Default)]
    struct Engine {
        heard: Mutex<Vec<String>>,
        revokes: Mutex<Vec<Reply<()>>>,
    }

    impl Engine {
        fn hear(&self, what: String) {
            lock(&self.heard).push(what);
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut lock(&self.heard))
        }
    }

    impl SourceEvents for Engine {
        fn assigned(&self, assignments: Vec<Assignment>) {
            let list: Vec<_> =
                assignments.iter().map(|a| format!("{}={}", a.partition, a.epoch)).collect();
            self.hear(format!("assigned {}", list.join(" ")));
        }
        fn revoked(&self, epochs: Vec<Epoch>, drained: Reply<()>) {
            lock(&self.revokes).push(drained);
            self.hear(format!("revoked {epochs:?}"));
        }
        fn lost(&self, epochs: Vec<Epoch>) {
            self.hear(format!("lost {epochs:?}"));
        }
        fn messages(&self, epoch: Epoch, messages: Vec<SourceMessage>) {
            let offsets: Vec<_> = messages.iter().map(|message| message.offset.get()).collect();
            self.hear(format!("messages {epoch} {offsets:?}"));
        }
        fn committed(&self, epoch: Epoch, result: Result<CommitOffset, SourceError>) {
            let result = result.map_err(|error| error.kind());
            self.hear(format!("committed {epoch} {result:?}"));
        }
        fn polled(&self) {}
        fn trouble(&self, error: SourceError) {
            self.hear(format!("trouble {error}"));
        }
        fn ended(&self, result: Result<(), SourceError>) {
            self.hear(format!("ended {result:?}"));
        }
    }

    struct World {
        broker: FakeBroker,
        source: ScriptedSource,
        engine: Arc<Engine>,
        partition: PartitionId,
    }

    /// A started source that owns one partition of ten messages.
    async fn world() -> World {
        let broker = FakeBroker::new();
        let partition = PartitionId::new("in", 0);
        for _ in 0..10 {
            broker.produce(&partition, "x");
        }
        let source = ScriptedSource::new(&broker).with_drain_deadline(Duration::from_secs(5));
        let engine = Arc::new(Engine::default());
        source.start(Arc::clone(&engine) as Arc<dyn SourceEvents>).await.expect("not scripted");
        source.assign(std::slice::from_ref(&partition));
        settle_down().await;
        assert_eq!(engine.take(), ["assigned in:0=1"]);
        World { broker, source, engine, partition }
    }

    /// With paused time a sleep ends when every other task waits.
    async fn settle_down() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    impl World {
        fn commit(&self, epoch: u64, offset: i64) {
            self.source.commit(CommitRequest {
                epoch: Epoch::new(epoch),
                partition: self.partition.clone(),
                offset: CommitOffset::new(offset),
                metadata: String::new(),
            });
        }

        fn request(&self, epoch: u64, messages: usize) {
            self.source.request(Epoch::new(epoch), Credit { messages, bytes: 1000 });
        }

        #[track_caller]
        fn expect_violation(&self, act: impl FnOnce(&Self), expect: &str) {
            let act = std::panic::AssertUnwindSafe(|| act(self));
            assert!(std::panic::catch_unwind(act).is_err(), "{expect}");
            assert_eq!(self.source.violations().last().map(String::as_str), Some(expect));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_need_credit_and_an_open_flow() {
        let world = world().await;
        world.request(1, 2);
        settle_down().await;
        assert_eq!(world.engine.take(), ["messages 1 [0, 1]"]);
        world.source.set_flow(Flow::Closed);
        world.request(1, 100);
        settle_down().await;
        assert_eq!(world.engine.take(), [""; 0]);
        world.source.set_flow(Flow::Open);
        settle_down().await;
        assert_eq!(world.engine.take(), ["messages 1 [2, 3, 4, 5, 6, 7, 8, 9]"]);
        world.broker.produce(&world.partition, "late");
        settle_down().await;
        assert_eq!(world.engine.take(), ["messages 1 [10]"]);
        let left = Credit { messages: 91, bytes: 2000 - 14 };
        assert_eq!(world.source.credit(Epoch::new(1)), Some(left));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_exceeds_the_bytes_is_made_up_for() {
        let world = world().await;
        world.source.request(Epoch::new(1), Credit { messages: 9, bytes: 1 });
        for _ in 0..3 {
            world.broker.produce(&world.partition, "0123456789");
        }
        settle_down().await;
        assert_eq!(world.engine.take(), ["messages 1 [0]"]);
        world.source.request(Epoch::new(1), Credit { messages: 9, bytes: 10 });
        settle_down().await;
        assert_eq!(world.engine.take(), ["messages 1 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"]);
        world.source.request(Epoch::new(1), Credit { messages: 9, bytes: 9 });
        settle_down().await;
        assert_eq!(world.engine.take(), [""; 0], "nine bytes too many were handed over");
    }

    #[tokio::test(start_paused = true)]
    async fn commits_are_answered_as_scripted() {
        let world = world().await;
        world.request(1, 10);
        settle_down().await;
        world.engine.take();
        world.source.fail_commits(1);
        world.commit(1, 3);
        settle_down().await;
        assert_eq!(world.broker.committed(&world.partition), None);
        world.commit(1, 4);
        settle_down().await;
        assert_eq!(world.broker.committed(&world.partition), Some(CommitOffset::new(4)));
        let heard = world.engine.take();
        assert_eq!(heard, ["committed 1 Err(Commit)", "committed 1 Ok(CommitOffset(4))"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoke_waits_for_its_answer_and_takes_commits_meanwhile() {
        let world = world().await;
        world.request(1, 3);
        settle_down().await;
        let revoke = world.source.clone();
        let partition = world.partition.clone();
        let revoke = tokio::spawn(async move { revoke.revoke(&[partition]).await });
        settle_down().await;
        world.request(1, 5);
        world.commit(1, 2);
        settle_down().await;
        let heard = world.engine.take();
        assert_eq!(heard[1..], ["revoked [Epoch(1)]", "committed 1 Ok(CommitOffset(2))"]);
        lock(&world.engine.revokes).pop().expect("a revoke was heard").send(());
        assert!(revoke.await.expect("no panic"));
        world.commit(1, 3);
        settle_down().await;
        assert_eq!(world.engine.take(), ["committed 1 Err(Fenced)"]);
        // The next owner reads on from the committed position.
        world.source.assign(std::slice::from_ref(&world.partition));
        world.request(2, 1);
        settle_down().await;
        assert_eq!(world.engine.take(), ["assigned in:0=2", "messages 2 [2]"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoke_ends_at_its_deadline() {
        let world = world().await;
        let began = tokio::time::Instant::now();
        assert!(!world.source.revoke(std::slice::from_ref(&world.partition)).await);
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_assignment_is_gone_at_once() {
        let world = world().await;
        world.request(1, 1);
        settle_down().await;
        world.source.lose(std::slice::from_ref(&world.partition));
        world.commit(1, 1);
        settle_down().await;
        let heard = world.engine.take();
        assert_eq!(heard[1..], ["lost [Epoch(1)]", "committed 1 Err(Fenced)"]);
        assert_eq!(world.source.epoch(&world.partition), None);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_revokes_and_then_ends() {
        let world = world().await;
        world.source.close();
        settle_down().await;
        lock(&world.engine.revokes).pop().expect("a revoke was heard").send(());
        settle_down().await;
        assert_eq!(world.engine.take(), ["revoked [Epoch(1)]", "ended Ok(())"]);
        assert!(world.source.has_ended());
        world.source.assert_no_violations();
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_commits_are_violations() {
        let world = world().await;
        world.request(1, 3);
        settle_down().await;
        world.expect_violation(
            |world| world.commit(1, 4),
            "commit 4 of in:0 passes what was handed over",
        );
        world.commit(1, 2);
        world.expect_violation(
            |world| world.commit(1, 3),
            "a second commit of in:0 while one is in flight",
        );
        settle_down().await;
        world.expect_violation(|world| world.commit(1, 1), "the commit of in:0 goes back to 1");
        world.expect_violation(|world| world.commit(9, 1), "epoch 9 was never assigned");
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_settlements_are_violations() {
        let world = world().await;
        world.request(1, 1);
        settle_down().await;
        let settle = |world: &World, offset| {
            world.source.settle(Epoch::new(1), Offset::new(offset), Settlement::Finished);
        };
        settle(&world, 0);
        world.expect_violation(|world| settle(world, 0), "offset 0 of epoch 1 was settled twice");
        world.expect_violation(
            |world| settle(world, 5),
            "offset 5 of epoch 1 was never handed over",
        );
    }

    #[tokio::test(start_paused = true)]
    async fn use_before_start_is_a_violation() {
        let source = ScriptedSource::new(&FakeBroker::new());
        let act = std::panic::AssertUnwindSafe(|| source.set_flow(Flow::Open));
        assert!(std::panic::catch_unwind(act).is_err());
        assert_eq!(source.violations(), ["the source was used before it was started"]);
    }
}
