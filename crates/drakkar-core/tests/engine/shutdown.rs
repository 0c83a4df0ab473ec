//! The beginning and the end: what fails leaves nothing behind, and nothing outlives the engine.

use crate::world::{SECOND, Setup, World, broken, echo, input, partition};
use drakkar_api::{
    BatchLimits, Clients, CommitRequest, Context, Credit, Epoch, Event, Flow, Handler, Hook,
    HookResult, NullObserver, Observer, Offset, Outputs, PartitionId, RawInput, Settlement,
    SinkError, SinkErrorKind, Source, SourceError, SourceErrorKind, SourceEvents, Task,
    TaskOutcome, Window, WorkerId, WorkerInfo,
};
use drakkar_core::{AnySink, Engine, EngineConfig, EngineErrorKind, EngineParts, Load};
use drakkar_testkit::{
    CommitAnswer, FakeExecutor, FakeRun, FakeSink, Reaction, RecordingObserver, TestHandler,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// Tasks that take as many seconds as their input says.
fn seconds(task: &Task, _attempt: u32) -> FakeRun {
    let text = input(task);
    FakeRun::success(text.clone()).lasting(SECOND * text.parse().expect("a number"))
}

/// Three partitions with one task of `text` seconds each.
async fn three(setup: Setup<TestHandler>, text: &str) -> World {
    let world = setup.tasks(8, seconds).start(&[text]).await;
    for number in [1, 2] {
        world.produce(number, &[text]);
        world.source.assign(&[partition(number)]);
    }
    world.until_seen("TaskStarted", 3).await;
    world
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_all_partitions_in_parallel_and_commits() {
    let mut world = three(Setup::new(echo()), "10").await;
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND * 11, "{:?}", began.elapsed());
    assert_eq!([0, 1, 2].map(|number| world.committed(number)), [Some(1); 3]);
    assert_eq!(world.sent().len(), 3);
    assert!(world.source.has_ended());
    assert_eq!(world.hooks.count(Hook::OnRevoke), 1, "all partitions are given back");
    world.check_end();
}

// Promise: RB-1, FT-2
#[tokio::test(start_paused = true)]
async fn at_the_deadline_nothing_is_left_running() {
    let setup = Setup::new(echo()).config(|config| config.drain_timeout = SECOND * 5);
    let mut world = three(setup, "1000").await;
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND * 6, "{:?}", began.elapsed());
    let outcomes = world.executor.records().into_iter().map(|run| run.outcome);
    assert!(outcomes.into_iter().all(|outcome| outcome == Some(TaskOutcome::Cancelled)));
    assert_eq!((world.committed(0), world.letters().len()), (None, 0));
    world.check_end();
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_at_a_shutdown_is_tried_again_until_the_deadline() {
    let mut world = three(Setup::new(echo()), "10").await;
    // The group moves partitions meanwhile, so that the broker refuses commits for a while.
    world.source.fail_commits(9);
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND * 15, "{:?}", began.elapsed());
    assert_eq!([0, 1, 2].map(|number| world.committed(number)), [Some(1); 3]);
    let revoked = world.seen.named("Revoked");
    assert!(revoked.iter().all(|event| event.text.contains("clean: true")), "{revoked:?}");
    world.check_end();
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn commits_that_go_on_failing_do_not_outlast_the_deadline_of_a_shutdown() {
    let setup = Setup::new(echo()).config(|config| config.drain_timeout = SECOND * 5);
    let mut world = three(setup, "1").await;
    world.source.fail_commits(1000);
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    let lasted = began.elapsed();
    assert!(lasted >= SECOND * 5 && lasted < SECOND * 11, "{lasted:?}");
    assert_eq!(world.committed(0), None);
    world.check_end();
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_insist_on_commits_for_an_assignment_that_is_over() {
    let mut world = three(Setup::new(echo()), "10").await;
    for _ in 0..3 {
        let over = SourceError::new(SourceErrorKind::Fenced, "another worker has it");
        world.source.answer_commit(CommitAnswer::Fail(over));
    }
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND * 11, "{:?}", began.elapsed());
    world.check_end();
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn a_sink_is_closed_after_its_last_delivery() {
    let limits = BatchLimits { attempt_timeout: SECOND * 60, ..BatchLimits::default() };
    let setup = Setup::new(echo())
        .config(|config| config.drain_timeout = SECOND * 5)
        .sink(|sink| sink.with_limits(limits).react_with(|_| Reaction::hang()));
    let mut world = setup.start(&["a"]).await;
    world.until("the sink hangs", |w| w.sink.calls().len() == 1).await;
    world.shut_down().await.expect("a clean end");
    // That its call has ended is checked with the rest.
    world.check_end();
}

// Promise: DL-4, DL-1
#[tokio::test(start_paused = true)]
async fn a_held_dead_letter_is_not_committed_at_the_end() {
    let setup = Setup::new(TestHandler::new())
        .config(|config| config.drain_timeout = SECOND * 5)
        .tasks(1, |_, _| FakeRun::exit(1))
        .letters(|letters| {
            letters.react_with(|_| Reaction::answers([drakkar_testkit::Answer::refused()]))
        });
    let mut world = setup.start(&["a"]).await;
    world.until_seen("DeadLetterFailed", 2).await;
    world.shut_down().await.expect("a clean end");
    assert_eq!(world.committed(0), None);
    world.check_end();
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_source_that_ends_by_itself_is_an_error() {
    let mut world = three(Setup::new(echo()), "1000").await;
    let began = Instant::now();
    world.source.fail(SourceError::new(SourceErrorKind::Authentication, "the ticket expired"));
    let error = world.ended().await.expect_err("the source failed");
    assert!(began.elapsed() < SECOND, "nothing is drained: nothing could be committed");
    assert!(matches!(error.kind(), EngineErrorKind::SourceEnded(source)
        if source.kind() == SourceErrorKind::Authentication));
    let source = std::error::Error::source(&error).expect("it has a source");
    assert_eq!(source.to_string(), "the ticket expired");
    assert_eq!(world.seen.count("Lost"), 3);
    assert_eq!(world.hooks.count(Hook::OnRevoke), 1);
    world.check_end();
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn a_source_that_ends_during_the_drain_ends_the_drain() {
    let mut world = three(Setup::new(echo()), "20").await;
    let source = world.source.clone();
    let failing = tokio::spawn(async move {
        tokio::time::sleep(SECOND * 5).await;
        source.fail(SourceError::new(SourceErrorKind::Unreachable, "no broker is left"));
    });
    let began = Instant::now();
    let error = world.shut_down().await.expect_err("the source failed");
    assert!(matches!(error.kind(), EngineErrorKind::SourceEnded(_)));
    assert!(began.elapsed() < SECOND * 6, "{:?}", began.elapsed());
    failing.await.expect("no panic");
    world.check_end();
}

/// Panics when it hears that a hook of partition 0 failed.
#[derive(Default)]
struct BrokenObserver(RecordingObserver);

impl Observer for BrokenObserver {
    fn observe(&self, event: &Event<'_>) {
        self.0.observe(event);
        assert!(!matches!(event, Event::HookFailed { .. }), "a bug of the observer");
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_broken_invariant_stops_its_partition_visibly_and_no_other() {
    let handler =
        TestHandler::new().with_message_complete(|group, _| match group.message.value() {
            Some(value) if value == "bad" => broken(false),
            _ => Ok(Outputs::new()),
        });
    let observer = Arc::new(BrokenObserver::default());
    let seen = observer.0.clone();
    let mut setup = Setup::new(handler);
    setup.observer = Some(observer);
    let mut world = setup.start(&["bad"]).await;
    world.until("the partition failed", |_| seen.count("PartitionFailed") == 1).await;
    let text = &seen.named("PartitionFailed")[0].text;
    assert!(text.contains("a broken invariant of the engine: a bug of the observer"), "{text}");
    world.produce(1, &["good"]);
    world.source.assign(&[partition(1)]);
    world.until_committed(1, 1).await;
    assert_eq!(world.committed(0), None);
    world.shut_down().await.expect("a clean end");
    world.check_end();
}

/// Panics when it hears that a hook or a partition failed, and when the flow changes.
#[derive(Default)]
struct StubbornObserver(RecordingObserver);

impl Observer for StubbornObserver {
    fn observe(&self, event: &Event<'_>) {
        self.0.observe(event);
        let breaks = matches!(event, Event::HookFailed { .. } | Event::PartitionFailed { .. });
        assert!(!breaks, "a bug of the observer");
    }
}

// Promise: FT-1, FT-2
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_again_and_again_leaves_nothing_behind() {
    let handler = TestHandler::new().with_message_complete(|_, _| broken(false));
    let observer = Arc::new(StubbornObserver::default());
    let seen = observer.0.clone();
    let mut setup = Setup::new(handler);
    setup.observer = Some(observer);
    let mut world = setup.start(&["bad"]).await;
    world.until("the partition failed", |_| seen.count("PartitionFailed") == 1).await;
    world.until("the partition is gone", |w| w.status.assigned() == 0).await;
    assert_eq!(world.status.load(), Load::default());
    world.source.fail(SourceError::new(SourceErrorKind::Other, "gone"));
    world.ended().await.expect_err("the source failed, and nothing is waited for");
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_broken_partition_that_leaves_is_heard_of() {
    let handler = TestHandler::new().with_message_complete(|_, _| broken(false));
    let observer = Arc::new(BrokenObserver::default());
    let seen = observer.0.clone();
    let mut setup = Setup::new(handler);
    setup.observer = Some(observer);
    let world = setup.start(&["bad"]).await;
    world.until("the partition failed", |_| seen.count("PartitionFailed") == 1).await;
    assert!(world.source.revoke(&[partition(0)]).await);
    assert_eq!(seen.count("Revoked"), 1);
}

/// Panics when it hears of the first delivery.
#[derive(Default)]
struct BrokenOnce {
    seen: RecordingObserver,
    broke: AtomicBool,
}

impl Observer for BrokenOnce {
    fn observe(&self, event: &Event<'_>) {
        self.seen.observe(event);
        let first =
            matches!(event, Event::Delivered { .. }) && !self.broke.swap(true, Ordering::SeqCst);
        assert!(!first, "a bug of the observer");
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_broken_lane_stops_the_partitions_visibly_and_serves_the_next() {
    let observer = Arc::new(BrokenOnce::default());
    let seen = observer.seen.clone();
    let mut setup = Setup::new(echo());
    setup.observer = Some(observer);
    let mut world = setup.start(&["a"]).await;
    world.until("the partition failed", |_| seen.count("PartitionFailed") == 1).await;
    let text = &seen.named("PartitionFailed")[0].text;
    assert!(text.contains("the lane of sink kafka:out: a bug of the observer"), "{text}");
    assert!(world.source.revoke(&[partition(0)]).await);
    assert_eq!(world.committed(0), None);
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    world.shut_down().await.expect("a clean end");
    world.check_end();
}

/// Dies without a word.
struct Vanishing;

impl Source for Vanishing {
    fn start(
        &self,
        events: Arc<dyn SourceEvents>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>> {
        Box::pin(async move {
            tokio::spawn(async move {
                tokio::time::sleep(SECOND).await;
                drop(events);
            });
            Ok(())
        })
    }

    fn request(&self, _epoch: Epoch, _credit: Credit) {}
    fn set_flow(&self, _flow: Flow) {}
    fn commit(&self, _request: CommitRequest) {}
    fn settle(&self, _epoch: Epoch, _offset: Offset, _settlement: Settlement) {}
    fn close(&self) {}
}

fn worker() -> WorkerInfo {
    WorkerInfo {
        worker_id: WorkerId::new("w1"),
        cluster: String::new(),
        consumer_group: "g".to_owned(),
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_source_that_vanishes_is_an_error_too() {
    let letters = Setup::new(echo()).letters;
    let sink = Setup::new(echo()).sink;
    let parts = EngineParts {
        handler: Arc::new(echo()),
        source: Arc::new(Vanishing),
        executor: Arc::new(FakeExecutor::succeeding(1)),
        sinks: vec![AnySink::new(sink.clone())],
        dead_letters: AnySink::new(letters.clone()),
        observer: Arc::new(NullObserver),
        worker: worker(),
        clients: Clients::new(),
        config: EngineConfig::default(),
    };
    let engine = Engine::connect(parts).await.expect("all parts connect");
    let error = engine
        .run(std::future::ready(()), std::future::pending())
        .await
        .expect_err("the source is gone");
    assert!(matches!(error.kind(), EngineErrorKind::SourceEnded(_)), "{error:?}");
    assert!(sink.is_closed() && letters.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_broken_on_ready_closes_everything() {
    for panics in [false, true] {
        let setup = Setup::new(echo().with_ready(move |_| broken(panics)));
        let (sink, letters, source) =
            (setup.sink.clone(), setup.letters.clone(), setup.source.clone());
        let error = setup.try_start().await.expect_err("on_ready failed");
        assert_eq!(error.to_string(), "on_ready failed: boom");
        assert!(sink.is_closed() && letters.is_closed());
        source.assert_no_violations();
    }
}

// D24: in the original a failed start left components running.
#[tokio::test(start_paused = true)]
async fn a_sink_that_cannot_connect_closes_those_that_could_and_the_first_is_named() {
    let setup = Setup::new(echo());
    let (sink, files, letters) = (setup.sink.clone(), setup.files.clone(), setup.letters.clone());
    let hooks = setup.hooks.clone();
    let refused = |text: &str| SinkError::temporary(SinkErrorKind::Connection, text);
    files.fail_connect(refused("disk on fire"));
    letters.fail_connect(refused("no broker"));
    let error = setup.try_start().await.expect_err("two cannot connect");
    assert_eq!(error.to_string(), "failed to connect sink filesystem:log");
    let source = std::error::Error::source(&error).expect("it has a source");
    assert_eq!(source.to_string(), "disk on fire");
    assert_eq!([sink.is_closed(), files.is_closed(), letters.is_closed()], [true, false, false]);
    assert_eq!(hooks.count(Hook::OnReady), 0);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_start_closes_everything() {
    let setup = Setup::new(echo());
    setup.source.fail_start(SourceError::new(SourceErrorKind::Topic, "no such topic"));
    let mut world = setup.try_start().await.expect("all parts connect");
    let error = world.ended().await.expect_err("the source did not start");
    assert!(matches!(error.kind(), EngineErrorKind::Source(source)
        if source.kind() == SourceErrorKind::Topic));
    world.check_end();
}

#[tokio::test(start_paused = true)]
async fn an_engine_needs_sinks_and_each_once() {
    let connect = async |sinks: Vec<AnySink>| {
        let setup = Setup::new(echo());
        let parts = EngineParts {
            handler: Arc::new(setup.handler),
            source: Arc::new(setup.source),
            executor: Arc::new(setup.executor),
            sinks,
            dead_letters: AnySink::new(setup.letters),
            observer: Arc::new(NullObserver),
            worker: worker(),
            clients: Clients::new(),
            config: EngineConfig::default(),
        };
        Engine::connect(parts).await.expect_err("refused").to_string()
    };
    let sink: FakeSink<_> = Setup::new(echo()).sink;
    let twice = vec![AnySink::new(sink.clone()), AnySink::new(sink)];
    assert_eq!(connect(twice).await, "sink kafka:out is given twice");
    assert_eq!(connect(Vec::new()).await, "no sinks configured; add at least one under sinks");
}

#[tokio::test(start_paused = true)]
async fn what_is_assigned_during_the_end_is_given_back_untouched() {
    let mut world = three(Setup::new(echo()), "10").await;
    world.produce(3, &["0"]);
    let source = world.source.clone();
    let assigning = tokio::spawn(async move {
        tokio::time::sleep(SECOND * 5).await;
        source.assign(&[partition(3)]);
    });
    world.shut_down().await.expect("a clean end");
    assigning.await.expect("no panic");
    assert_eq!((world.committed(3), world.sent().len()), (None, 3));
    world.check_end();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_before_the_beginning_leaves_the_source_alone() {
    let setup = Setup::new(echo());
    let (source, sink) = (setup.source.clone(), setup.sink.clone());
    let parts = EngineParts {
        handler: Arc::new(setup.handler),
        source: Arc::new(setup.source),
        executor: Arc::new(setup.executor),
        sinks: vec![AnySink::new(setup.sink)],
        dead_letters: AnySink::new(setup.letters),
        observer: Arc::new(NullObserver),
        worker: worker(),
        clients: Clients::new(),
        config: EngineConfig::default(),
    };
    let engine = Engine::connect(parts).await.expect("all parts connect");
    let shutdown = tokio::time::sleep(SECOND);
    engine.run(std::future::pending(), shutdown).await.expect("a clean end");
    assert!(sink.is_closed());
    source.assert_no_violations();
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_partitions_ends_at_once() {
    let mut world = Setup::new(echo()).try_start().await.expect("all parts connect");
    world.until("the source has started", |w| w.status.since_polled().is_some()).await;
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND);
    world.check_end();
}

/// Never returns from the hooks of the whole worker; each call holds a copy of the mark.
struct Hanging {
    mark: Arc<()>,
}

impl Hanging {
    async fn hang(&self) -> HookResult<()> {
        let _held = Arc::clone(&self.mark);
        std::future::pending().await
    }
}

impl Handler for Hanging {
    type Input = RawInput;

    async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }

    async fn on_assign(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        self.hang().await
    }

    async fn on_revoke(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        self.hang().await
    }
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn worker_hooks_that_hang_do_not_outlive_the_engine() {
    let mark = Arc::new(());
    let mut world = Setup::of(Hanging { mark: Arc::clone(&mark) }).start(&["a"]).await;
    world.until_done().await;
    assert_eq!(Arc::strong_count(&mark), 3, "on_assign hangs");
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND * 6, "{:?}", began.elapsed());
    assert_eq!(Arc::strong_count(&mark), 2, "only the handler itself is left");
    world.check_end();
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_health_checks_want_to_know() {
    let mut world = three(Setup::new(echo()), "10").await;
    let status = world.status.clone();
    assert_eq!(
        (status.assigned(), status.is_closing(), status.is_backpressured()),
        (3, false, false)
    );
    let sinks: Vec<_> = status.sinks().iter().map(ToString::to_string).collect();
    assert_eq!(sinks, ["kafka:out", "filesystem:log"]);
    assert_eq!(status.load().count, 3);
    tokio::time::sleep(SECOND * 3).await;
    assert!(status.since_polled().is_some_and(|since| since >= SECOND * 2));
    world.shut_down().await.expect("a clean end");
    assert!(status.is_closing());
    world.check_end();
}
