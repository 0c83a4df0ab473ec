//! Partitions that stay go on while others drain.

use drakkar_api::{Clients, KafkaRecord, PartitionId, SinkId, SinkKind, WorkerId, WorkerInfo};
use drakkar_core::{AnySink, Engine, EngineConfig, EngineParts};
use drakkar_testkit::{
    FakeBroker, FakeExecutor, FakeRun, FakeSink, RecordingObserver, ScriptedSource, TestHandler,
    TokioClock,
};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn partition(number: i32) -> PartitionId {
    PartitionId::new("in", number)
}

// Promise: RB-1, RB-3
#[tokio::test(start_paused = true)]
async fn a_partition_that_stays_finishes_messages_while_another_drains() {
    let broker = FakeBroker::new();
    let source = ScriptedSource::new(&broker);
    // The leaving partition's task takes 20 s, those of the staying one half a second each.
    let executor = FakeExecutor::new(2, |task, _| {
        let slow = task.stdin.as_deref() == Some(b"slow");
        FakeRun::success("ok").lasting(if slow { 20 * SECOND } else { SECOND / 2 })
    });
    let sink = |name: &str| FakeSink::<KafkaRecord>::new(SinkId::new(SinkKind::Kafka, name));
    let (out, letters) = (sink("out"), sink("dead"));
    let parts = EngineParts {
        handler: Arc::new(TestHandler::new()),
        source: Arc::new(source.clone()),
        executor: Arc::new(executor.clone()),
        sinks: vec![AnySink::new(out)],
        dead_letters: AnySink::new(letters),
        observer: Arc::new(RecordingObserver::new()),
        worker: WorkerInfo {
            worker_id: WorkerId::new("w1"),
            cluster: String::new(),
            consumer_group: "g".to_owned(),
        },
        clients: Clients::new(),
        config: EngineConfig::default(),
    };
    let clock = Arc::new(TokioClock::new());
    let engine = Engine::connect_with_clock(parts, clock).await.expect("all connect");
    let status = engine.status();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(engine.run(std::future::ready(()), async {
        stopped.await.ok();
    }));
    while status.since_polled().is_none() {
        tokio::time::sleep(SECOND / 100).await;
    }
    // The first window of each partition teaches the engine that there is no window hook.
    broker.produce(&partition(0), "quick");
    broker.produce(&partition(1), "quick");
    source.assign(&[partition(0), partition(1)]);
    while broker.lag(&partition(0)) + broker.lag(&partition(1)) > 0 {
        tokio::time::sleep(SECOND / 100).await;
    }
    broker.produce(&partition(0), "slow");
    while executor.records().len() < 3 {
        tokio::time::sleep(SECOND / 100).await;
    }
    for _ in 0..10 {
        broker.produce(&partition(1), "quick");
    }
    while executor.records().len() < 4 {
        tokio::time::sleep(SECOND / 100).await;
    }
    broker.produce(&partition(0), "never started here");

    let began = tokio::time::Instant::now();
    let leaving = source.clone();
    let revoke = tokio::spawn(async move { leaving.revoke(&[partition(0)]).await });
    while broker.lag(&partition(1)) > 0 {
        assert!(began.elapsed() < 15 * SECOND, "the staying partition stands still");
        assert!(!revoke.is_finished(), "the revoke waits for the slow task");
        tokio::time::sleep(SECOND / 100).await;
    }
    revoke.await.expect("no panic");
    assert!(began.elapsed() < 21 * SECOND, "it waits for what has started, no longer");
    let committed = broker.committed(&partition(0)).map(drakkar_api::CommitOffset::get);
    assert_eq!(committed, Some(2), "what has started is committed, the rest is given back");

    stop.send(()).expect("the engine runs");
    running.await.expect("no panic").expect("a clean end");
    source.assert_no_violations();
    executor.assert_no_violations();
}
