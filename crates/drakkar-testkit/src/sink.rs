//! A sink that keeps what it is given and answers as a script says.

use crate::violations::{Violations, lock};
use crate::{FaultPlan, Random};
use drakkar_api::{
    Batch, BatchLimits, DeliveryId, Offset, PartitionId, Payload, Sink, SinkError, SinkErrorKind,
    SinkId, SinkPayload, Verdict,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// A [`Sink`] for payloads of type `P`. Clones are the same sink, so a test can keep one.
///
/// Each call of `deliver` is answered by the next [`Reaction`] that was
/// [`push`](FakeSink::push)ed; when there is none, by the closure of
/// [`react_with`](FakeSink::react_with), by the fault plan of [`with_faults`](FakeSink::with_faults),
/// or else by confirming everything at once.
///
/// It panics when it is delivered to before it is connected or after it is closed, with an empty
/// batch, over its limits, or with two payloads of one message in two calls at the same time;
/// [`tolerant`](FakeSink::tolerant) makes it answer as a real sink would instead.
pub struct FakeSink<P> {
    id: SinkId,
    limits: BatchLimits,
    is_tolerant: bool,
    watcher: Option<Watcher<P>>,
    shared: Arc<Shared<P>>,
}

type Watcher<P> = Arc<dyn Fn(Sighting<'_, P>) + Send + Sync>;

/// What a watcher of a [`FakeSink`] sees, at the moment when it happens.
#[derive(Clone, Copy, Debug)]
pub enum Sighting<'a, P> {
    /// A call of `deliver` began.
    Offered {
        /// The number of the call, from 0.
        call: usize,
        /// Its items.
        offers: &'a [Offer<P>],
    },
    /// Items of a call took effect.
    Applied {
        /// The number of the call.
        call: usize,
        /// Those items.
        items: &'a [Applied<P>],
    },
    /// A call ended.
    Ended {
        /// The number of the call.
        call: usize,
        /// What was answered; `None` when the call was dropped.
        verdicts: Option<&'a [Verdict]>,
    },
}

/// What the sink does about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It takes the item and says so.
    Confirm,
    /// It does not take the item but says that it did: a broken sink.
    ConfirmButLose,
    /// It does not take the item and says so.
    NotApplied(SinkError),
    /// It takes the item but cannot say so.
    UnknownButApplied(SinkError),
    /// It does not take the item but cannot say so.
    UnknownAndLost(SinkError),
    /// It can never take the item.
    Reject(SinkError),
}

impl Answer {
    /// Does not take the item, as if the connection had been refused.
    pub fn refused() -> Self {
        Self::NotApplied(SinkError::temporary(SinkErrorKind::Connection, "connection refused"))
    }

    /// Takes the item, and then the connection breaks.
    pub fn applied_but_cut_off() -> Self {
        Self::UnknownButApplied(cut_off())
    }

    /// The connection breaks before the item is taken, which the client cannot know.
    pub fn lost() -> Self {
        Self::UnknownAndLost(cut_off())
    }

    /// Rejects the item as invalid.
    pub fn rejected() -> Self {
        Self::Reject(SinkError::permanent(SinkErrorKind::Invalid, "not valid for this sink"))
    }

    fn is_applied(&self) -> bool {
        matches!(self, Self::Confirm | Self::UnknownButApplied(_))
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Confirm | Self::ConfirmButLose => Verdict::Confirmed,
            Self::NotApplied(error) => Verdict::NotApplied(error),
            Self::UnknownButApplied(error) | Self::UnknownAndLost(error) => Verdict::Unknown(error),
            Self::Reject(error) => Verdict::Rejected(error),
        }
    }
}

fn cut_off() -> SinkError {
    SinkError::temporary(SinkErrorKind::Connection, "connection closed before the answer")
}

/// How the sink reacts to one call of `deliver`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// The time before items take effect. A call that is dropped in it has no effect.
    pub before: Duration,
    /// The time between the effect and the answer. A call that is dropped in it had its effect.
    pub after: Duration,
    /// One answer per item; items without one are confirmed.
    pub answers: Vec<Answer>,
}

impl Reaction {
    /// Confirms everything at once.
    pub fn confirm() -> Self {
        Self::default()
    }

    /// Answers these in order; items beyond them are confirmed.
    pub fn answers(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: answers.into_iter().collect(), ..Self::default() }
    }

    /// Never answers and has no effect.
    pub fn hang() -> Self {
        Self { before: Duration::MAX, ..Self::default() }
    }

    /// Takes everything and never answers.
    pub fn apply_and_hang() -> Self {
        Self { after: Duration::MAX, ..Self::default() }
    }

    /// The same, answering this much later.
    #[must_use]
    pub fn taking(mut self, time: Duration) -> Self {
        self.before = time;
        self
    }
}

/// One item as it is offered to a [`FakeSink`], for its closure.
#[derive(Clone, Debug)]
pub struct Offer<P> {
    /// The item's id.
    pub id: DeliveryId,
    /// The item.
    pub payload: P,
    /// How often this id has been offered, from 1.
    pub attempt: u32,
}

/// One call of `deliver`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The items' ids.
    pub ids: Vec<DeliveryId>,
    /// When it began.
    pub began: Instant,
    /// When it ended, with its answer or by being dropped; `None` while it lasts.
    pub ended: Option<Instant>,
    /// What was answered; `None` while it lasts and when it was dropped.
    pub verdicts: Option<Vec<Verdict>>,
}

/// One item that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied<P> {
    /// The item's id; a repeat has the same.
    pub id: DeliveryId,
    /// The item.
    pub payload: P,
}

type Script<P> = Box<dyn FnMut(&[Offer<P>]) -> Reaction + Send>;

struct Shared<P> {
    state: Mutex<State<P>>,
    violations: Violations,
}

struct State<P> {
    life: Life,
    connects: VecDeque<SinkError>,
    reactions: VecDeque<Reaction>,
    script: Option<Script<P>>,
    harmless: fn(&P) -> bool,
    attempts: BTreeMap<DeliveryId, u32>,
    calls: Vec<Call>,
    applied: Vec<Applied<P>>,
    /// The messages with payloads in calls that last, with the number of the call.
    in_flight: BTreeMap<(PartitionId, Offset), usize>,
    active: usize,
    active_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    New,
    Connected,
    Closed,
}

impl<P: SinkPayload + Clone + Into<Payload>> FakeSink<P> {
    /// Makes a sink that confirms everything, with the default limits.
    pub fn new(id: SinkId) -> Self {
        let state = State {
            life: Life::New,
            connects: VecDeque::new(),
            reactions: VecDeque::new(),
            script: None,
            harmless: |_| false,
            attempts: BTreeMap::new(),
            calls: Vec::new(),
            applied: Vec::new(),
            in_flight: BTreeMap::new(),
            active: 0,
            active_max: 0,
        };
        let shared = Shared { state: Mutex::new(state), violations: Violations::default() };
        Self {
            id,
            limits: BatchLimits::default(),
            is_tolerant: false,
            watcher: None,
            shared: Arc::new(shared),
        }
    }

    /// Shows everything to `watcher` as it happens. Only clones that are made later do so, too.
    #[must_use]
    pub fn with_watcher(
        mut self,
        watcher: impl Fn(Sighting<'_, P>) + Send + Sync + 'static,
    ) -> Self {
        self.watcher = Some(Arc::new(watcher));
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: BatchLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets which repeats are harmless; none unless set.
    #[must_use]
    pub fn with_harmless(self, harmless: fn(&P) -> bool) -> Self {
        lock(&self.shared.state).harmless = harmless;
        self
    }

    /// Makes misuse no violation: a delivery without a connection is answered as not applied, and
    /// everything else goes through. For the conformance suite, which misuses sinks on purpose.
    #[must_use]
    pub fn tolerant(mut self) -> Self {
        self.is_tolerant = true;
        self
    }

    /// Answers by a closure that sees the whole batch.
    #[must_use]
    pub fn react_with(self, script: impl FnMut(&[Offer<P>]) -> Reaction + Send + 'static) -> Self {
        lock(&self.shared.state).script = Some(Box::new(script));
        self
    }

    /// Takes times and faults from `plan`.
    #[must_use]
    pub fn with_faults(self, plan: &FaultPlan) -> Self {
        let plan = plan.clone();
        let mut random = plan.random(&format!("sink {}", self.id));
        self.react_with(move |offers| draw(&plan, &mut random, offers.len()))
    }

    /// Adds the reaction to a future call of `deliver`, after those that were added before.
    pub fn push(&self, reaction: Reaction) {
        lock(&self.shared.state).reactions.push_back(reaction);
    }

    /// Makes a future call of `connect` fail, after those that were added before.
    pub fn fail_connect(&self, error: SinkError) {
        lock(&self.shared.state).connects.push_back(error);
    }

    /// Returns the calls of `deliver` in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.state).calls.clone()
    }

    /// Returns everything that took effect, in order, repeats included.
    pub fn applied(&self) -> Vec<Applied<P>> {
        lock(&self.shared.state).applied.clone()
    }

    /// Returns how often each id took effect.
    pub fn applied_counts(&self) -> BTreeMap<DeliveryId, usize> {
        let mut counts = BTreeMap::new();
        for applied in &lock(&self.shared.state).applied {
            *counts.entry(applied.id.clone()).or_default() += 1;
        }
        counts
    }

    /// Returns the largest number of calls at the same time.
    pub fn active_max(&self) -> usize {
        lock(&self.shared.state).active_max
    }

    /// Returns whether the sink was closed.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).life == Life::Closed
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
        self.shared.violations.assert_none(&self.id.to_string());
    }

    fn show(&self, sighting: Sighting<'_, P>) {
        if let Some(watcher) = &self.watcher {
            watcher(sighting);
        }
    }

    /// Notes the beginning of a call and answers its number, the offers and the reaction.
    fn begin(&self, batch: &Batch<'_, P>) -> (usize, Vec<Offer<P>>, Reaction) {
        let mut state = lock(&self.shared.state);
        let problem = state.check(&self.limits, batch);
        if let (Err(problem), false) = (problem, self.is_tolerant) {
            drop(state);
            self.shared.violations.raise(format!("{}: {problem}", self.id));
        }
        let number = state.calls.len();
        let offers: Vec<_> =
            batch.items().iter().map(|item| state.offer(item.id, item.payload)).collect();
        for offer in &offers {
            state.in_flight.insert((offer.id.source().clone(), offer.id.offset()), number);
        }
        state.active += 1;
        state.active_max = state.active_max.max(state.active);
        state.calls.push(Call {
            ids: offers.iter().map(|offer| offer.id.clone()).collect(),
            began: Instant::now(),
            ended: None,
            verdicts: None,
        });
        let reaction = state.react(&offers);
        (number, offers, reaction)
    }
}

impl<P: SinkPayload + Clone + Into<Payload>> Sink for FakeSink<P> {
    type Payload = P;

    fn id(&self) -> SinkId {
        self.id.clone()
    }

    async fn connect(&self) -> Result<(), SinkError> {
        let mut state = lock(&self.shared.state);
        if let Some(error) = state.connects.pop_front() {
            return Err(error);
        }
        state.life = Life::Connected;
        Ok(())
    }

    async fn deliver(&self, batch: Batch<'_, P>) -> Vec<Verdict> {
        if self.is_tolerant && lock(&self.shared.state).life != Life::Connected {
            let error = SinkError::permanent(SinkErrorKind::Internal, "the sink is not connected");
            return batch.all(Verdict::NotApplied(error));
        }
        let (number, offers, mut reaction) = self.begin(&batch);
        let watcher = self.watcher.as_ref();
        let mut call = ActiveCall { shared: &self.shared, watcher, number, verdicts: None };
        self.show(Sighting::Offered { call: number, offers: &offers });
        pass(reaction.before).await;
        reaction.answers.resize(offers.len(), Answer::Confirm);
        let taken =
            offers.into_iter().zip(&reaction.answers).filter(|(_, answer)| answer.is_applied());
        let taken = taken.map(|(offer, _)| Applied { id: offer.id, payload: offer.payload });
        let taken: Vec<_> = taken.collect();
        self.show(Sighting::Applied { call: number, items: &taken });
        lock(&self.shared.state).applied.extend(taken);
        pass(reaction.after).await;
        let verdicts: Vec<_> = reaction.answers.into_iter().map(Answer::verdict).collect();
        call.verdicts = Some(verdicts.clone());
        verdicts
    }

    async fn close(&self) {
        lock(&self.shared.state).life = Life::Closed;
    }

    fn repeat_is_harmless(&self, payload: &P) -> bool {
        let harmless = lock(&self.shared.state).harmless;
        harmless(payload)
    }

    fn limits(&self) -> BatchLimits {
        self.limits
    }
}

/// Lets time pass; no time is no turn of the runtime either.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Draws the reaction of a faulty sink.
fn draw(plan: &FaultPlan, random: &mut Random, items: usize) -> Reaction {
    let rates = plan.rates();
    let before = random.duration(rates.deliver_longest);
    if random.chance(rates.deliver_hangs) {
        return if random.chance(500) { Reaction::hang() } else { Reaction::apply_and_hang() };
    }
    let answers = (0..items).map(|_| {
        if random.chance(rates.deliver_rejected) {
            Answer::rejected()
        } else if random.chance(rates.deliver_not_applied) {
            Answer::refused()
        } else if random.chance(rates.deliver_unknown) {
            if random.chance(500) { Answer::applied_but_cut_off() } else { Answer::lost() }
        } else {
            Answer::Confirm
        }
    });
    Reaction::answers(answers).taking(before)
}

impl<P: Clone + Into<Payload>> State<P> {
    fn check(&self, limits: &BatchLimits, batch: &Batch<'_, P>) -> Result<(), String> {
        let items = batch.len();
        if self.life != Life::Connected {
            let state = if self.life == Life::New { "before connect" } else { "after close" };
            return Err(format!("deliver {state}"));
        }
        if items == 0 {
            return Err("an empty batch".to_owned());
        }
        if items > limits.items_max {
            return Err(format!("{items} items in a batch of at most {}", limits.items_max));
        }
        let size = |payload: &P| -> usize {
            let payload: Payload = payload.clone().into();
            payload.size_bytes()
        };
        let bytes: usize = batch.items().iter().map(|item| size(item.payload)).sum();
        if bytes > limits.bytes_max && items > 1 {
            return Err(format!("{bytes} bytes in a batch of at most {}", limits.bytes_max));
        }
        if self.active >= limits.concurrency {
            return Err(format!("more than {} calls at once", limits.concurrency));
        }
        let busy = batch.items().iter().find(|item| {
            self.in_flight.contains_key(&(item.id.source().clone(), item.id.offset()))
        });
        match busy {
            Some(item) => Err(format!("{} while its message is in another call", item.id)),
            None => Ok(()),
        }
    }

    fn offer(&mut self, id: &DeliveryId, payload: &P) -> Offer<P> {
        let attempt = self.attempts.entry(id.clone()).or_default();
        *attempt += 1;
        Offer { id: id.clone(), payload: payload.clone(), attempt: *attempt }
    }

    fn react(&mut self, offers: &[Offer<P>]) -> Reaction {
        if let Some(reaction) = self.reactions.pop_front() {
            return reaction;
        }
        self.script.as_mut().map_or_else(Reaction::confirm, |script| script(offers))
    }
}

/// Notes the end of a call, however it ends.
struct ActiveCall<'a, P> {
    shared: &'a Shared<P>,
    watcher: Option<&'a Watcher<P>>,
    number: usize,
    verdicts: Option<Vec<Verdict>>,
}

impl<P> Drop for ActiveCall<'_, P> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.active -= 1;
        let number = self.number;
        state.in_flight.retain(|_, call| *call != number);
        if let Some(call) = state.calls.get_mut(number) {
            call.ended = Some(Instant::now());
            call.verdicts = self.verdicts.clone();
        }
        drop(state);
        if let Some(watcher) = self.watcher {
            watcher(Sighting::Ended { call: number, verdicts: self.verdicts.as_deref() });
        }
    }
}

impl<P> Clone for FakeSink<P> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            limits: self.limits,
            is_tolerant: self.is_tolerant,
            watcher: self.watcher.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P> fmt::Debug for FakeSink<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeSink").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{BatchItem, CustomPayload, SinkKind};

    fn sink() -> FakeSink<CustomPayload> {
        FakeSink::new(SinkId::new(SinkKind::Custom("fake".into()), "main"))
    }

    fn item(text: &str) -> CustomPayload {
        let value = bytes::Bytes::copy_from_slice(text.as_bytes());
        CustomPayload { kind: "fake".into(), sink: None, value, attributes: serde_json::Map::new() }
    }

    fn id(offset: i64) -> DeliveryId {
        DeliveryId::new(PartitionId::new("in", 0), Offset::new(offset), 0, 0)
    }

    /// Delivers one payload for each of `ids`.
    async fn deliver(sink: &FakeSink<CustomPayload>, ids: &[DeliveryId]) -> Vec<Verdict> {
        let payload = item("x");
        let items = ids.iter().map(|id| BatchItem { payload: &payload, id }).collect();
        sink.deliver(Batch::new(items)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_sees_what_happens_when_it_does() {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let book = Arc::clone(&seen);
        let sink = sink().with_watcher(move |sighting| {
            lock(&book).push(match sighting {
                Sighting::Offered { call, offers } => format!("{call}: {} offered", offers.len()),
                Sighting::Applied { call, items } => format!("{call}: {} applied", items.len()),
                Sighting::Ended { call, verdicts } => {
                    format!("{call}: {:?} answered", verdicts.map(<[Verdict]>::len))
                }
            });
        });
        sink.connect().await.expect("no failure is scripted");
        sink.push(Reaction::answers([Answer::refused()]));
        deliver(&sink, &[id(1), id(2)]).await;
        sink.push(Reaction::hang());
        let patience = Duration::from_secs(1);
        assert!(tokio::time::timeout(patience, deliver(&sink, &[id(3)])).await.is_err());
        let expect = ["0: 2 offered", "0: 1 applied", "0: Some(2) answered", "1: 1 offered"];
        assert_eq!(lock(&seen)[..4], expect);
        assert_eq!(lock(&seen)[4..], ["1: None answered"]);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_follow_the_script_and_effects_are_kept() {
        let sink = sink();
        sink.connect().await.expect("no failure is scripted");
        let error = |answer: Answer| answer.verdict();
        sink.push(Reaction::answers([
            Answer::refused(),
            Answer::applied_but_cut_off(),
            Answer::lost(),
        ]));
        let verdicts = deliver(&sink, &[id(1), id(2), id(3), id(4)]).await;
        assert_eq!(
            verdicts,
            [
                error(Answer::refused()),
                error(Answer::lost()),
                error(Answer::lost()),
                Verdict::Confirmed
            ]
        );
        let applied: Vec<_> = sink.applied().into_iter().map(|applied| applied.id).collect();
        assert_eq!(applied, [id(2), id(4)]);
        assert_eq!(deliver(&sink, &[id(1)]).await, [Verdict::Confirmed]);
        assert_eq!(sink.applied_counts()[&id(1)], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_may_have_had_its_effect() {
        let sink = sink();
        sink.connect().await.expect("no failure is scripted");
        for reaction in [Reaction::hang(), Reaction::apply_and_hang()] {
            sink.push(reaction);
            let ids = [id(1)];
            let call = tokio::time::timeout(Duration::from_secs(1), deliver(&sink, &ids));
            assert!(call.await.is_err());
        }
        assert_eq!(sink.applied_counts()[&id(1)], 1);
        assert!(sink.calls().iter().all(|call| call.ended.is_some() && call.verdicts.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn misuse_is_a_violation() {
        let check = async |sink: &FakeSink<CustomPayload>, ids: Vec<DeliveryId>, expect: &str| {
            let other = sink.clone();
            let call = tokio::spawn(async move { deliver(&other, &ids).await });
            assert!(call.await.is_err(), "{expect}");
            assert_eq!(sink.violations().last().map(String::as_str), Some(expect));
        };
        let limits = BatchLimits { items_max: 2, bytes_max: 1, ..BatchLimits::default() };
        let sink = sink().with_limits(limits);
        check(&sink, vec![id(1)], "fake:main: deliver before connect").await;
        sink.connect().await.expect("no failure is scripted");
        check(&sink, vec![], "fake:main: an empty batch").await;
        check(&sink, vec![id(1), id(2), id(3)], "fake:main: 3 items in a batch of at most 2").await;
        check(&sink, vec![id(1), id(2)], "fake:main: 2 bytes in a batch of at most 1").await;
        sink.push(Reaction::hang());
        let hanging = sink.clone();
        let hanging = tokio::spawn(async move { deliver(&hanging, &[id(7)]).await });
        tokio::task::yield_now().await;
        check(&sink, vec![id(7)], "fake:main: in/0/7/0/0 while its message is in another call")
            .await;
        hanging.abort();
        sink.close().await;
        check(&sink, vec![id(1)], "fake:main: deliver after close").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_faulty_sink_repeats_itself_and_heals() {
        let plan = FaultPlan::new(11, crate::FaultRates::rough());
        let run = async |plan: &FaultPlan| {
            let sink = sink().with_faults(plan);
            sink.connect().await.expect("no failure is scripted");
            let mut verdicts = Vec::new();
            for offset in 0..200 {
                let ids = [id(offset)];
                let call = tokio::time::timeout(Duration::from_secs(9), deliver(&sink, &ids)).await;
                verdicts.push(call.ok());
            }
            verdicts
        };
        let first = run(&plan).await;
        assert_eq!(first, run(&plan).await);
        assert!(first.iter().any(|verdicts| *verdicts != Some(vec![Verdict::Confirmed])));
        plan.heal();
        let healed = run(&plan).await;
        assert!(healed.iter().all(|verdicts| *verdicts == Some(vec![Verdict::Confirmed])));
    }
}
