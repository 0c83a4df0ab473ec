//! One engine with everything around it faked, and what a test wants to know of it.

use drakkar_api::{
    Clients, Clock, CommitOffset, FileLine, Handler, HookResult, KafkaRecord, Observer, Offset,
    Outputs, PartitionId, SinkId, SinkKind, Task, Timestamp, WorkerId, WorkerInfo,
};
use drakkar_core::{
    AnySink, Engine, EngineConfig, EngineError, EngineParts, EngineStatus, Load, Thresholds,
};
use drakkar_testkit::{
    Applied, FakeBroker, FakeExecutor, FakeRun, FakeSink, HookLog, ManualClock, RecordingObserver,
    ScriptedSource, TestHandler, TokioClock,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// How much virtual time a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(300);

/// Partition `number` of the topic of all tests.
pub(crate) fn partition(number: i32) -> PartitionId {
    PartitionId::new("in", number)
}

/// Answers what a broken hook answers: an error, or nothing because it panics.
pub(crate) fn broken<T>(panics: bool) -> HookResult<T> {
    assert!(!panics, "boom");
    Err("boom".into())
}

/// A handler that puts out what its tasks did.
pub(crate) fn echo() -> TestHandler {
    TestHandler::new().with_task_complete(|done, _| Ok(Outputs::new().with(record(done.stdout()))))
}

/// A record that carries what a task put out.
pub(crate) fn record(text: impl AsRef<[u8]>) -> KafkaRecord {
    KafkaRecord::bytes(text.as_ref().to_vec())
}

/// Returns what a task was given on its standard input.
pub(crate) fn input(task: &Task) -> String {
    String::from_utf8_lossy(task.stdin.as_deref().unwrap_or_default()).into_owned()
}

/// What an engine will be made of; every part can be exchanged.
pub(crate) struct Setup<H> {
    pub(crate) handler: H,
    pub(crate) hooks: HookLog,
    pub(crate) config: EngineConfig,
    pub(crate) broker: FakeBroker,
    pub(crate) source: ScriptedSource,
    pub(crate) executor: FakeExecutor,
    pub(crate) sink: FakeSink<KafkaRecord>,
    pub(crate) files: FakeSink<FileLine>,
    pub(crate) more_sinks: Vec<AnySink>,
    pub(crate) letters: FakeSink<KafkaRecord>,
    pub(crate) seen: RecordingObserver,
    /// Who watches instead of `seen`.
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Holds the engine's status as soon as there is one, before any hook.
    pub(crate) status: Arc<OnceLock<EngineStatus>>,
}

/// A clock that follows tokio's paused time, and that a hook can move while it blocks its thread.
#[derive(Clone, Default)]
pub(crate) struct BlockedClock {
    time: TokioClock,
    blocked: ManualClock,
}

impl BlockedClock {
    pub(crate) fn block(&self, by: Duration) {
        self.blocked.advance(by);
    }
}

impl Clock for BlockedClock {
    fn now(&self) -> drakkar_api::Instant {
        self.time.now() + self.blocked.now().since_origin()
    }

    fn wall(&self) -> Timestamp {
        self.time.wall()
    }
}

impl Setup<TestHandler> {
    /// Eight slots whose tasks answer what they were given, two sinks, and dead letters.
    pub(crate) fn new(handler: TestHandler) -> Self {
        let hooks = handler.log();
        Self { hooks, ..Self::of(handler) }
    }
}

impl<H: Handler> Setup<H> {
    /// The same with a handler that keeps no log.
    pub(crate) fn of(handler: H) -> Self {
        let broker = FakeBroker::new();
        let kafka = |name: &str| FakeSink::new(SinkId::new(SinkKind::Kafka, name));
        Self {
            handler,
            hooks: HookLog::default(),
            config: EngineConfig::default(),
            source: ScriptedSource::new(&broker).with_drain_deadline(Duration::from_secs(50)),
            broker,
            executor: FakeExecutor::new(8, |task, _| FakeRun::success(input(task))),
            sink: kafka("out"),
            files: FakeSink::new(SinkId::new(SinkKind::Filesystem, "log")),
            more_sinks: Vec::new(),
            letters: kafka("dead"),
            seen: RecordingObserver::new(),
            observer: None,
            clock: Arc::new(TokioClock::new()),
            status: Arc::default(),
        }
    }

    pub(crate) fn config(mut self, change: impl FnOnce(&mut EngineConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets what becomes of the attempts of tasks.
    pub(crate) fn tasks(
        self,
        slots: usize,
        script: impl FnMut(&Task, u32) -> FakeRun + Send + 'static,
    ) -> Self {
        Self { executor: FakeExecutor::new(slots, script), ..self }
    }

    pub(crate) fn sink(
        mut self,
        change: impl FnOnce(FakeSink<KafkaRecord>) -> FakeSink<KafkaRecord>,
    ) -> Self {
        self.sink = change(self.sink);
        self
    }

    pub(crate) fn letters(
        mut self,
        change: impl FnOnce(FakeSink<KafkaRecord>) -> FakeSink<KafkaRecord>,
    ) -> Self {
        self.letters = change(self.letters);
        self
    }

    /// Connects an engine, or says why that failed, and runs it.
    pub(crate) async fn try_start(self) -> Result<World, EngineError> {
        let mut sinks = vec![AnySink::new(self.sink.clone()), AnySink::new(self.files.clone())];
        sinks.extend(self.more_sinks);
        let parts = EngineParts {
            handler: Arc::new(self.handler),
            source: Arc::new(self.source.clone()),
            executor: Arc::new(self.executor.clone()),
            sinks,
            dead_letters: AnySink::new(self.letters.clone()),
            observer: self.observer.unwrap_or_else(|| Arc::new(self.seen.clone())),
            worker: WorkerInfo {
                worker_id: WorkerId::new("w1"),
                cluster: String::new(),
                consumer_group: "g".to_owned(),
            },
            clients: Clients::new(),
            config: self.config,
        };
        let known = |status| assert!(self.status.set(status).is_ok(), "one engine for a setup");
        let never = std::future::pending();
        let connecting = Engine::connect_until(parts, self.clock, known, never);
        let engine = connecting.await?.expect("nothing gives it up");
        let status = engine.status();
        let (shutdown, asked) = oneshot::channel();
        let engine = tokio::spawn(engine.run(std::future::ready(()), async {
            // A test that drops its world wants the engine to end, too.
            drop(asked.await);
        }));
        Ok(World {
            broker: self.broker,
            source: self.source,
            executor: self.executor,
            sink: self.sink,
            files: self.files,
            letters: self.letters,
            seen: self.seen,
            hooks: self.hooks,
            status,
            shutdown: Some(shutdown),
            engine,
        })
    }

    /// Starts the engine on partition 0 with these messages.
    pub(crate) async fn start(self, values: &[&str]) -> World {
        let world = self.try_start().await.expect("all parts connect");
        world.produce(0, values);
        world.until("the source has started", |w| w.status.since_polled().is_some()).await;
        world.source.assign(&[partition(0)]);
        world
    }
}

/// A running engine and everything around it.
pub(crate) struct World {
    pub(crate) broker: FakeBroker,
    pub(crate) source: ScriptedSource,
    pub(crate) executor: FakeExecutor,
    pub(crate) sink: FakeSink<KafkaRecord>,
    pub(crate) files: FakeSink<FileLine>,
    pub(crate) letters: FakeSink<KafkaRecord>,
    pub(crate) seen: RecordingObserver,
    pub(crate) hooks: HookLog,
    pub(crate) status: EngineStatus,
    shutdown: Option<oneshot::Sender<()>>,
    engine: JoinHandle<Result<(), EngineError>>,
}

impl World {
    pub(crate) fn produce(&self, number: i32, values: &[&str]) {
        for value in values {
            self.broker.produce(&partition(number), value.as_bytes().to_vec());
        }
    }

    pub(crate) fn committed(&self, number: i32) -> Option<i64> {
        self.broker.committed(&partition(number)).map(CommitOffset::get)
    }

    /// Returns the positions that were committed for a partition, in order.
    pub(crate) fn commits(&self, number: i32) -> Vec<i64> {
        let commits = self.broker.commits().into_iter();
        let of_it = commits.filter(|commit| commit.partition == partition(number));
        of_it.map(|commit| commit.offset.get()).collect()
    }

    /// Waits, in virtual time, until `is_so`.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "it never came true: {what}\n{self:?}");
            assert!(!self.engine.is_finished(), "the engine ended before {what}\n{self:?}");
            tokio::time::sleep(MILLISECOND).await;
        }
    }

    /// Waits until everything that partition 0 has is committed.
    pub(crate) async fn until_done(&self) {
        self.until_committed(0, self.broker.end(&partition(0)).get()).await;
    }

    pub(crate) async fn until_committed(&self, number: i32, position: i64) {
        let what = format!("partition {number} is committed up to {position}");
        self.until(&what, |w| w.committed(number) == Some(position)).await;
    }

    pub(crate) async fn until_seen(&self, event: &str, count: usize) {
        self.until(&format!("{count} events {event}"), |w| w.seen.count(event) >= count).await;
    }

    /// Waits until the executor has begun so many runs, of which the engine hears a little later.
    pub(crate) async fn until_run(&self, count: usize) {
        self.until(&format!("{count} runs"), |w| {
            w.executor.records().iter().filter(|run| run.started.is_some()).count() >= count
        })
        .await;
    }

    /// Returns the values that the Kafka sink took, in order.
    pub(crate) fn sent(&self) -> Vec<String> {
        values(&self.sink.applied())
    }

    /// Returns the dead letters in order, each in short.
    pub(crate) fn letters(&self) -> Vec<String> {
        self.all_letters().iter().map(Letter::brief).collect()
    }

    /// Returns the dead letters in order.
    pub(crate) fn all_letters(&self) -> Vec<Letter> {
        self.letters.applied().iter().map(|letter| Letter::of(&letter.payload)).collect()
    }

    /// Returns the dead letter about the message at `offset`.
    pub(crate) fn letter(&self, offset: i64) -> Letter {
        let letters = self.letters.applied();
        let mut letters = letters.iter().map(|letter| Letter::of(&letter.payload));
        let found = letters.find(|letter| letter.header("source-offset") == offset.to_string());
        found.unwrap_or_else(|| panic!("no dead letter about {offset}\n{self:?}"))
    }

    /// Returns how messages ended, in the order in which they did.
    pub(crate) fn ends(&self) -> Vec<(i64, &'static str)> {
        let ends = self.seen.named("MessageFinished").into_iter().map(|event| {
            let end = ["Completed", "DeadLettered", "Skipped", "Dropped"]
                .into_iter()
                .find(|end| event.text.contains(&format!("end: {end}")))
                .expect("one of the four");
            (event.offset.map_or(-1, Offset::get), end)
        });
        ends.collect()
    }

    /// Returns the failures of hooks that were reported, each as `hook: error`.
    pub(crate) fn failures(&self) -> Vec<String> {
        let failures = self.seen.named("HookFailed").into_iter().map(|event| {
            let field = |name: &str| -> String {
                let (_, rest) = event.text.split_once(name).expect("the field is there");
                rest.split(", ").next().unwrap_or_default().trim_matches('"').to_owned()
            };
            format!("{}: {}", field("hook: "), field("error: \""))
        });
        failures.collect()
    }

    /// Asks the engine to end and waits for it.
    pub(crate) async fn shut_down(&mut self) -> Result<(), EngineError> {
        if let Some(shutdown) = self.shutdown.take() {
            // The engine may have ended by itself.
            let _engine_is_gone = shutdown.send(()).is_err();
        }
        self.ended().await
    }

    /// Waits until the engine has ended.
    pub(crate) async fn ended(&mut self) -> Result<(), EngineError> {
        let ended = tokio::time::timeout(PATIENCE, &mut self.engine).await;
        ended.expect("the engine ends in time").expect("the engine does not panic")
    }

    /// Ends the test: nothing is left in the worker, it ends cleanly, and nobody saw a broken
    /// promise.
    pub(crate) async fn finish(mut self) {
        self.until("the load is gone", |w| w.status.load() == Load::default()).await;
        self.shut_down().await.expect("a clean end");
        self.check_end();
    }

    /// Returns how many messages left the worker unfinished in this way.
    pub(crate) fn left(&self, how: &str) -> usize {
        let left = self.seen.named("MessageLeft").into_iter();
        left.filter(|event| event.text.contains(&format!("settlement: {how}"))).count()
    }

    /// Checks that each message which was consumed ended in one way, and no other did; unless the
    /// test forgot what was seen.
    pub(crate) fn check_account(&self) {
        if self.seen.count("SinkConnected") == 0 {
            return;
        }
        let consumed = self.seen.named("Consumed").into_iter().map(|event| {
            let (_, count) = event.text.split_once("messages: ").expect("the field is there");
            count.trim_end_matches(" }").parse::<usize>().expect("a number")
        });
        let left = self.seen.count("MessageLeft");
        assert_eq!(left, self.left("GivenBack") + self.left("Abandoned"));
        assert_eq!(consumed.sum::<usize>(), self.seen.count("MessageFinished") + left, "{self:?}");
    }

    /// Checks what must hold after every end, clean or not.
    pub(crate) fn check_end(&self) {
        self.source.assert_no_violations();
        self.executor.assert_no_violations();
        self.sink.assert_no_violations();
        self.files.assert_no_violations();
        self.letters.assert_no_violations();
        assert_eq!(self.seen.count("PartitionFailed"), 0, "{self:?}");
        self.check_account();
        assert_eq!(self.status.load(), Load::default(), "something is left: {self:?}");
        assert_eq!(self.status.assigned(), 0);
        assert!(self.sink.is_closed() && self.files.is_closed() && self.letters.is_closed());
        assert_eq!(self.executor.records().iter().filter(|run| run.outcome.is_none()).count(), 0);
        for call in self.sink.calls() {
            assert!(call.ended.is_some(), "a delivery outlives the engine");
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent {:?}", self.sent())?;
        writeln!(f, "letters {:?}", self.letters())?;
        writeln!(f, "{:?}, {} assigned", self.status.load(), self.status.assigned())?;
        let events = self.seen.all();
        let last = events.iter().rev().take(25).rev();
        last.map(|event| &event.text).try_for_each(|text| writeln!(f, "  {text:.160}"))
    }
}

/// Returns the values of records in order.
pub(crate) fn values(applied: &[Applied<KafkaRecord>]) -> Vec<String> {
    let values = applied.iter().map(|item| item.payload.value.clone().unwrap_or_default());
    values.map(|value| String::from_utf8_lossy(&value).into_owned()).collect()
}

/// A dead letter as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Letter {
    fn of(record: &KafkaRecord) -> Self {
        let text = |value: Option<&bytes::Bytes>| {
            String::from_utf8_lossy(value.map_or(&[][..], |value| value)).into_owned()
        };
        let headers = record.headers.iter().map(|(name, value)| (name.to_owned(), text(value)));
        Self {
            key: record.key.as_ref().map(|key| key.to_vec()),
            value: record.value.as_ref().map(|value| value.to_vec()),
            headers: headers.collect(),
        }
    }

    /// Returns the header `drakkar-{name}`, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(&format!("drakkar-{name}")).map_or("", String::as_str)
    }

    /// Returns `kind@offset class hook xattempts: error`.
    fn brief(&self) -> String {
        let [kind, offset, class, hook, attempts, error] =
            ["kind", "source-offset", "error-kind", "hook", "attempts", "error"]
                .map(|name| self.header(name));
        format!("{kind}@{offset} {class} {hook} x{attempts}: {error}")
    }
}

/// Load thresholds by count that no test reaches by accident.
pub(crate) const ROOMY: Thresholds = Thresholds { pause_at: 1_000_000, resume_at: 1 };
