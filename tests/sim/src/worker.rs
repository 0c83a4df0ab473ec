//! One worker of the group, from its start to its end or its death.

use crate::handler::SimHandler;
use crate::journal::{Journal, WorkerNumber};
use crate::promise::{Breach, Promise};
use crate::scenario::Scenario;
use crate::seen::Seen;
use crate::traced_executor::TracedExecutor;
use crate::traced_observer::TracedObserver;
use crate::traced_sink::{self, SinkWorld};
use crate::traced_source::TracedSource;
use crate::weather::Weather;
use drakkar_api::{
    Clients, Executor as _, FileLine, KafkaRecord, PartitionId, TaskOutcome, WorkerId, WorkerInfo,
};
use drakkar_core::{AnySink, Engine, EngineError, EngineParts, EngineStatus, Load};
use drakkar_testkit::{
    FakeBroker, FakeExecutor, FakeRun, FakeSink, FaultPlan, FaultRates, Random, ScriptedSource,
    TokioClock,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The topic of all worlds.
pub(crate) const TOPIC: &str = "in";

/// How much longer than the drain's deadline the source waits for a drain: the engine waits so long
/// for the last commit, and a little for all the rest.
const DRAIN_MARGIN: Duration = Duration::from_secs(7);

/// What an engine may need to end beside its drain: the grace of commits, of hooks of the whole
/// worker, of the source, and of two kinds of sinks.
const END_MARGIN: Duration = Duration::from_secs(70);

/// Returns a partition of the topic.
pub(crate) fn partition_id(number: i32) -> PartitionId {
    PartitionId::new(TOPIC, number)
}

/// What all workers of a world are made in.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) journal: Journal,
    pub(crate) weather: Weather,
    pub(crate) broker: FakeBroker,
}

/// A running engine with its own end of everything.
pub(crate) struct Worker {
    pub(crate) number: WorkerNumber,
    pub(crate) source: ScriptedSource,
    executor: FakeExecutor,
    records: FakeSink<KafkaRecord>,
    lines: FakeSink<FileLine>,
    letters: FakeSink<KafkaRecord>,
    status: EngineStatus,
    /// The faults of its commits.
    commits: FaultPlan,
    journal: Journal,
    drain_timeout: Duration,
    dead: Arc<AtomicBool>,
    shutdown: Option<oneshot::Sender<()>>,
    engine: JoinHandle<Result<(), EngineError>>,
}

impl Worker {
    /// Starts an engine that owns nothing yet.
    pub(crate) async fn start(around: &Surroundings, number: WorkerNumber) -> Self {
        let Surroundings { scenario, journal, weather, broker } = around;
        let rates = FaultRates {
            commit_fails: scenario.rates.commit_fails,
            commit_longest: scenario.rates.commit_longest,
            ..FaultRates::default()
        };
        let commits = FaultPlan::new(scenario.seed ^ u64::from(number), rates);
        let source = ScriptedSource::new(broker)
            .with_drain_deadline(scenario.config.drain_timeout + DRAIN_MARGIN)
            .with_hand_over_max(scenario.hand_over_max)
            .with_faults(&commits);
        let sinks = SinkWorld {
            journal: journal.clone(),
            worker: number,
            weather: weather.clone(),
            seed: scenario.seed,
            cookbook: scenario.cookbook,
        };
        let records = traced_sink::records(&sinks, scenario);
        let lines = traced_sink::lines(&sinks, scenario);
        let letters = traced_sink::letters(&sinks, scenario);
        let executor = executor(scenario, weather, number);
        let dead: Arc<AtomicBool> = Arc::default();
        let handler = SimHandler::new(scenario, journal, number, weather, &dead);
        let late = Random::fork(scenario.seed, &format!("reports {number}"));
        let parts = EngineParts {
            handler: Arc::new(handler),
            source: Arc::new(TracedSource {
                inner: source.clone(),
                broker: broker.clone(),
                journal: journal.clone(),
                worker: number,
                cookbook: scenario.cookbook,
            }),
            executor: Arc::new(TracedExecutor {
                inner: executor.clone(),
                journal: journal.clone(),
                worker: number,
                weather: weather.clone(),
                random: Arc::new(Mutex::new(late)),
            }),
            sinks: vec![AnySink::new(records.clone()), AnySink::new(lines.clone())],
            dead_letters: AnySink::new(letters.clone()),
            observer: Arc::new(TracedObserver { journal: journal.clone(), worker: number }),
            worker: WorkerInfo {
                worker_id: WorkerId::new(format!("w{number}")),
                cluster: String::new(),
                consumer_group: "g".to_owned(),
            },
            clients: Clients::new(),
            config: scenario.config.clone(),
        };
        journal.see(number, Seen::Started);
        let clock = Arc::new(TokioClock::new());
        let engine = Engine::connect_with_clock(parts, clock).await.expect("no fault is planned");
        let status = engine.status();
        let (shutdown, asked) = oneshot::channel();
        let engine = tokio::spawn(engine.run(std::future::ready(()), async {
            // A world that is given up wants its engines to end, too.
            drop(asked.await);
        }));
        let worker = Self {
            number,
            source,
            executor,
            records,
            lines,
            letters,
            status,
            commits,
            journal: journal.clone(),
            drain_timeout: scenario.config.drain_timeout,
            dead,
            shutdown: Some(shutdown),
            engine,
        };
        while worker.status.since_polled().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        worker
    }

    /// Returns whether a failure stops it, or has stopped it.
    pub(crate) fn is_stopping(&self) -> bool {
        self.journal.ask(|judge| judge.is_stopping(self.number))
    }

    /// Waits for the end of one that a failure stops.
    pub(crate) async fn stopped(mut self) {
        self.end().await;
        self.shutdown = None;
    }

    /// Ends the faults of its commits.
    pub(crate) fn heal(&self) {
        self.commits.heal();
    }

    /// Asks it to end in order and waits for that.
    pub(crate) async fn shut_down(mut self) {
        self.journal.see(self.number, Seen::ShutdownAsked);
        if let Some(shutdown) = self.shutdown.take() {
            // The engine may have ended by itself.
            let _engine_is_gone = shutdown.send(()).is_err();
        }
        self.end().await;
    }

    /// Lets its source fail, and waits for its end.
    pub(crate) async fn fail_source(mut self) {
        use drakkar_api::{SourceError, SourceErrorKind};
        self.source.fail(SourceError::new(SourceErrorKind::Other, "the source has failed"));
        self.end().await;
        self.shutdown = None;
    }

    async fn end(&mut self) {
        let limit = self.drain_timeout + END_MARGIN;
        let clean = match tokio::time::timeout(limit, &mut self.engine).await {
            Ok(Ok(result)) => result.is_ok(),
            Ok(Err(_panic)) => {
                self.accuse(Promise::Ft1, "the engine panicked");
                false
            }
            Err(_elapsed) => {
                self.accuse(Promise::Ft2, "the engine did not end in time");
                false
            }
        };
        self.journal.see(self.number, Seen::Ended { clean });
        self.check_end();
    }

    /// Dies without a word: what it began goes on outside as far as it had left the worker.
    pub(crate) fn crash(self) {
        self.dead.store(true, Ordering::SeqCst);
        self.engine.abort();
        self.source.crash();
        // Sees nothing of this worker from here on.
        self.journal.see(self.number, Seen::Crashed);
        let executor = self.executor.clone();
        tokio::spawn(async move { executor.close().await });
        self.check_contracts();
    }

    /// Checks what must hold after every orderly end.
    fn check_end(&self) {
        self.check_contracts();
        if self.status.load() != Load::default() {
            let what =
                format!("{:?} is left of the load of worker {}", self.status.load(), self.number);
            self.accuse(Promise::Ft3, what);
        }
        if self.status.assigned() != 0 {
            self.accuse(Promise::Rb1, "partitions are left in a worker that has ended");
        }
        if self.executor.records().iter().any(|run| run.outcome.is_none()) {
            self.accuse(Promise::Rb1, "runs outlive a worker that has ended");
        }
        if self.records.calls().iter().any(|call| call.ended.is_none()) {
            self.accuse(Promise::Ft2, "a delivery outlives a worker that has ended");
        }
    }

    /// Checks what the fakes saw of each other's contracts.
    fn check_contracts(&self) {
        let all = [
            self.source.violations(),
            self.executor.violations(),
            self.records.violations(),
            self.lines.violations(),
            self.letters.violations(),
        ];
        for violation in all.into_iter().flatten() {
            let promise = promise_of(&violation);
            self.accuse(promise, violation);
        }
    }

    fn accuse(&self, promise: Promise, what: impl Into<String>) {
        self.journal.accuse(Breach { promise, what: what.into() });
    }
}

/// Returns which promise a violation breaks that a fake has seen.
fn promise_of(violation: &str) -> Promise {
    if violation.starts_with("a second commit") {
        Promise::Wm2
    } else if violation.starts_with("the commit") || violation.starts_with("commit ") {
        Promise::Wm1
    } else {
        Promise::Contract
    }
}

/// Makes an executor whose runs go as the weather wants.
fn executor(scenario: &Scenario, weather: &Weather, number: WorkerNumber) -> FakeExecutor {
    let weather = weather.clone();
    let mut random = Random::fork(scenario.seed, &format!("executor {number}"));
    let output = "o".repeat(scenario.output_bytes);
    let script = move |_: &drakkar_api::Task, _| {
        let rates = weather.rates();
        let duration = random.duration(rates.task_longest);
        if random.chance(rates.task_hangs) {
            return FakeRun::hang();
        }
        let run = if random.chance(rates.task_fails) {
            match random.below(4) {
                0 => FakeRun::spawn_failure(),
                1 => FakeRun::ending(TaskOutcome::Signal(11)),
                _ => FakeRun::exit(1),
            }
        } else {
            FakeRun::success(output.clone())
        };
        run.lasting(duration)
    };
    FakeExecutor::new(scenario.slots, script).task_timeout(scenario.task_timeout)
}
