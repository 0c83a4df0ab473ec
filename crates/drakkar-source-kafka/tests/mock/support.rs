//! What the tests share: a broker, a producer, and an engine that records what it is told.

use drakkar_api::{
    Assignment, CommitOffset, CommitRequest, Credit, Epoch, PartitionId, Reply, Source,
    SourceError, SourceEvents, SourceMessage, WorkerId,
};
use drakkar_kafka::ClientSection;
use drakkar_mock_kafka::{ApiKey, MockKafka};
use drakkar_source_kafka::{GroupProtocol, KafkaSource, SourceConfig};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const TOPIC: &str = "events";
pub(crate) const PLENTY: Credit = Credit { messages: 1_000_000, bytes: 1 << 40 };

/// What the engine was told, in order.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Assigned(Vec<Assignment>),
    Revoked(Vec<Epoch>),
    /// A revoke was answered.
    Answered,
    Lost(Vec<Epoch>),
    Messages(Epoch, Vec<SourceMessage>, Instant),
    Committed(Epoch, Result<CommitOffset, SourceError>),
    Trouble(SourceError),
    Ended(Result<(), SourceError>),
}

/// What the engine does when it is told that partitions are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnRevoke {
    Answer,
    Keep,
}

/// An engine that records.
pub(crate) struct Recorder {
    state: Mutex<State>,
    changed: Condvar,
    on_revoke: OnRevoke,
}

#[derive(Default)]
struct State {
    is_stalled: bool,
    told: Vec<Told>,
    kept: Vec<Reply<()>>,
    polled: usize,
    /// Where `/proc` shows the thread that the source calls from.
    source_thread: Option<String>,
}

impl Recorder {
    pub(crate) fn new(on_revoke: OnRevoke) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), on_revoke })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, told: Told) {
        self.lock().told.push(told);
        self.changed.notify_all();
    }

    /// Returns everything told so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.lock().told.clone()
    }

    /// Waits until `find` answers something.
    pub(crate) fn wait_for<T>(&self, what: &str, find: impl FnMut(&[Told]) -> Option<T>) -> T {
        self.wait_within(PATIENCE, find).unwrap_or_else(|| {
            let told = self.told().into_iter();
            let troubles: Vec<_> =
                told.filter(|told| !matches!(told, Told::Messages(..))).collect();
            panic!("no {what} in time; told: {troubles:#?}")
        })
    }

    /// Waits until `find` answers something, for at most so long.
    pub(crate) fn wait_within<T>(
        &self,
        patience: Duration,
        mut find: impl FnMut(&[Told]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            let found = find(&state.told);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            (state, _) =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until that many messages have come, and returns them with their epochs.
    pub(crate) fn wait_for_messages(&self, count: usize) -> Vec<(Epoch, SourceMessage)> {
        self.wait_for("messages", |told| {
            let messages = messages_of(told);
            (messages.len() >= count).then_some(messages)
        })
    }

    pub(crate) fn wait_for_assigned(&self, partitions: usize) -> BTreeMap<PartitionId, Epoch> {
        self.wait_for("assignment", |told| {
            let held = held_by(told);
            (held.len() == partitions).then_some(held)
        })
    }

    pub(crate) fn wait_for_end(&self) -> Result<(), SourceError> {
        self.wait_for("end", |told| match told.last() {
            Some(Told::Ended(result)) => Some(result.clone()),
            _ => None,
        })
    }

    pub(crate) fn wait_for_commit(
        &self,
        epoch: Epoch,
        nth: usize,
    ) -> Result<CommitOffset, SourceError> {
        self.wait_for("commit", |told| {
            let mut commits = told.iter().filter_map(|told| match told {
                Told::Committed(of, result) if *of == epoch => Some(result.clone()),
                _ => None,
            });
            commits.nth(nth)
        })
    }

    /// Lets whoever hands messages over or answers a commit hang, until it is told otherwise.
    pub(crate) fn set_stalled(&self, is_stalled: bool) {
        self.lock().is_stalled = is_stalled;
        self.changed.notify_all();
    }

    fn hang_if_stalled(&self) {
        let stalled = self.changed.wait_while(self.lock(), |state| state.is_stalled);
        drop(stalled.unwrap_or_else(PoisonError::into_inner));
    }

    /// Answers the revokes that were kept.
    pub(crate) fn answer_kept(&self) {
        let kept = std::mem::take(&mut self.lock().kept);
        for reply in kept {
            self.note(Told::Answered);
            reply.send(());
        }
    }

    /// Returns where `/proc` shows the source's thread, once it went round.
    pub(crate) fn source_thread(&self) -> String {
        self.lock().source_thread.clone().expect("it went round")
    }

    /// Waits until the source has looked at every partition that many times more.
    pub(crate) fn wait_for_sweeps(&self, count: usize) {
        // One more: the sweep that is going on may have passed a partition already.
        let until = self.lock().polled + count + 1;
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while state.polled < until {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the source does not go round");
            (state, _) =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl SourceEvents for Recorder {
    fn assigned(&self, assignments: Vec<Assignment>) {
        self.note(Told::Assigned(assignments));
    }

    fn revoked(&self, epochs: Vec<Epoch>, drained: Reply<()>) {
        self.note(Told::Revoked(epochs));
        self.lock().kept.push(drained);
        if self.on_revoke == OnRevoke::Answer {
            self.answer_kept();
        }
    }

    fn lost(&self, epochs: Vec<Epoch>) {
        self.note(Told::Lost(epochs));
    }

    fn messages(&self, epoch: Epoch, messages: Vec<SourceMessage>) {
        self.note(Told::Messages(epoch, messages, Instant::now()));
        self.hang_if_stalled();
    }

    fn committed(&self, epoch: Epoch, result: Result<CommitOffset, SourceError>) {
        self.note(Told::Committed(epoch, result));
        self.hang_if_stalled();
    }

    fn polled(&self) {
        let mut state = self.lock();
        state.polled += 1;
        state.source_thread.get_or_insert_with(|| {
            let thread = std::fs::read_link("/proc/thread-self").expect("proc");
            thread.to_str().expect("text").to_owned()
        });
        drop(state);
        self.changed.notify_all();
    }

    fn trouble(&self, error: SourceError) {
        self.note(Told::Trouble(error));
    }

    fn ended(&self, result: Result<(), SourceError>) {
        self.note(Told::Ended(result));
    }
}

/// Returns all messages in the order in which they were told.
pub(crate) fn messages_of(told: &[Told]) -> Vec<(Epoch, SourceMessage)> {
    let mut all = Vec::new();
    for told in told {
        if let Told::Messages(epoch, messages, _) = told {
            all.extend(messages.iter().map(|message| (*epoch, message.clone())));
        }
    }
    all
}

/// Returns the assignments that are alive after everything told.
pub(crate) fn held_by(told: &[Told]) -> BTreeMap<PartitionId, Epoch> {
    let mut held = BTreeMap::new();
    for told in told {
        match told {
            Told::Assigned(assignments) => {
                held.extend(assignments.iter().map(|a| (a.partition.clone(), a.epoch)));
            }
            Told::Revoked(epochs) | Told::Lost(epochs) => {
                held.retain(|_, epoch| !epochs.contains(epoch));
            }
            _ => {}
        }
    }
    held
}

/// Checks what must hold of everything an engine is told.
pub(crate) fn check_contract(told: &[Told]) {
    let mut alive: BTreeMap<Epoch, PartitionId> = BTreeMap::new();
    let mut last_offset = BTreeMap::new();
    let mut ended = Vec::new();
    for told in told {
        match told {
            Told::Assigned(assignments) => {
                for assignment in assignments {
                    assert!(!ended.contains(&assignment.epoch), "an epoch came back");
                    let doubled =
                        alive.values().any(|partition| *partition == assignment.partition);
                    assert!(!doubled, "two assignments of {}", assignment.partition);
                    alive.insert(assignment.epoch, assignment.partition.clone());
                }
            }
            Told::Messages(epoch, messages, _) => {
                let partition = alive.get(epoch).expect("messages of an assignment that is alive");
                for message in messages {
                    assert_eq!(message.partition, *partition);
                    let before = last_offset.insert(*epoch, message.offset);
                    assert!(before < Some(message.offset), "offsets of {partition} go back");
                }
            }
            Told::Revoked(epochs) | Told::Lost(epochs) => {
                for epoch in epochs {
                    alive.remove(epoch);
                    ended.push(*epoch);
                }
            }
            Told::Answered | Told::Committed(..) | Told::Trouble(_) | Told::Ended(_) => {}
        }
    }
}

/// A broker with one topic, and a producer.
pub(crate) struct World {
    pub(crate) kafka: MockKafka,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
}

impl World {
    pub(crate) fn new(partitions: i32) -> Self {
        let kafka = MockKafka::start(1).expect("a cluster");
        kafka.create_topic(TOPIC, partitions).expect("a topic");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .expect("a producer");
        Self { kafka, producer }
    }

    /// Produces and waits until the broker has it.
    pub(crate) fn produce(&self, partition: i32, values: impl IntoIterator<Item = String>) {
        for value in values {
            let record = BaseRecord::<str, str>::to(TOPIC).partition(partition).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        self.producer.flush(PATIENCE).expect("delivered");
    }

    pub(crate) fn send(&self, record: BaseRecord<'_, str, str>) {
        self.producer.send(record).map_err(|(error, _)| error).expect("queued");
        self.producer.flush(PATIENCE).expect("delivered");
    }

    /// Waits until that many requests of a kind have arrived at the broker since the record began.
    pub(crate) fn wait_for_requests(&self, kind: ApiKey, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.count_requests(kind) < count {
            assert!(Instant::now() < deadline, "no {count} requests of {kind:?}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn count_requests(&self, kind: ApiKey) -> usize {
        let recorded = self.kafka.recorded_requests();
        recorded.iter().filter(|request| request.api_key == i16::from(kind)).count()
    }

    /// Makes a source that is not started, with short times.
    pub(crate) fn source(&self, change: impl FnOnce(&mut SourceConfig)) -> KafkaSource {
        self.source_with_drain(Duration::from_secs(5), change)
    }

    pub(crate) fn source_with_drain(
        &self,
        drain_timeout: Duration,
        change: impl FnOnce(&mut SourceConfig),
    ) -> KafkaSource {
        source_of(&self.kafka.bootstrap_servers(), drain_timeout, change)
    }

    /// Starts a member of the group.
    pub(crate) fn start(&self, on_revoke: OnRevoke) -> Member {
        Member::start(self.source(|_| {}), on_revoke)
    }
}

pub(crate) fn source_of(
    brokers: &str,
    drain_timeout: Duration,
    change: impl FnOnce(&mut SourceConfig),
) -> KafkaSource {
    let client = ClientSection { brokers: brokers.to_owned(), ..ClientSection::default() };
    let mut config = SourceConfig {
        source_topic: TOPIC.to_owned(),
        // Rebalances of the mock take about this long; much less and a busy machine loses members.
        session_timeout_ms: 3000,
        heartbeat_interval_ms: 200,
        max_poll_interval_ms: 20_000,
        fetch_wait_max_ms: 5,
        ..SourceConfig::default()
    };
    change(&mut config);
    let settings = config.validate("kafka", drain_timeout).expect("valid settings");
    KafkaSource::new(client.validate("kafka").expect("valid"), settings, &WorkerId::new("test"))
}

/// Leaves the times to the broker, as the newer protocol wants it.
pub(crate) fn use_consumer_protocol(config: &mut SourceConfig) {
    let times = SourceConfig::default();
    config.group_protocol = GroupProtocol::Consumer;
    config.session_timeout_ms = times.session_timeout_ms;
    config.heartbeat_interval_ms = times.heartbeat_interval_ms;
}

/// A source that was started, with its engine.
pub(crate) struct Member {
    pub(crate) source: KafkaSource,
    pub(crate) engine: Arc<Recorder>,
}

impl Member {
    pub(crate) fn start(source: KafkaSource, on_revoke: OnRevoke) -> Self {
        let engine = Recorder::new(on_revoke);
        block_on(source.start(Arc::clone(&engine) as Arc<dyn SourceEvents>)).expect("started");
        Self { source, engine }
    }

    /// Waits for that many partitions and gives each that much credit.
    pub(crate) fn take(&self, partitions: usize, credit: Credit) -> BTreeMap<PartitionId, Epoch> {
        let held = self.engine.wait_for_assigned(partitions);
        for epoch in held.values() {
            self.source.request(*epoch, credit);
        }
        held
    }

    pub(crate) fn commit(&self, epoch: Epoch, partition: &PartitionId, offset: CommitOffset) {
        self.source.commit(CommitRequest {
            epoch,
            partition: partition.clone(),
            offset,
            metadata: String::new(),
        });
    }

    pub(crate) fn close(&self) {
        self.source.close();
        assert_eq!(self.engine.wait_for_end(), Ok(()));
        check_contract(&self.engine.told());
    }
}

/// Numbers as texts.
pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Returns the values of messages as text.
pub(crate) fn values(messages: &[(Epoch, SourceMessage)]) -> Vec<String> {
    let text = |message: &SourceMessage| {
        String::from_utf8(message.value.clone().expect("a value").to_vec()).expect("text")
    };
    messages.iter().map(|(_, message)| text(message)).collect()
}

/// Runs a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
