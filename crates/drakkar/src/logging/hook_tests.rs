//! Lines that a handler logs, through the real engine.

use super::capture;
use drakkar_api::{
    Clients, HookError, KafkaRecord, Outputs, PartitionId, SinkId, SinkKind, Task, WorkerId,
    WorkerInfo,
};
use drakkar_core::{AnySink, Engine, EngineConfig, EngineParts};
use drakkar_testkit::{
    FakeBroker, FakeExecutor, FakeRun, FakeSink, RecordingObserver, ScriptedSource, TestHandler,
    TokioClock,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Handles one message of partition 3 to its end.
async fn handle_one(handler: TestHandler) {
    let broker = FakeBroker::new();
    let source = ScriptedSource::new(&broker);
    let sink =
        |name: &str| AnySink::new(FakeSink::<KafkaRecord>::new(SinkId::new(SinkKind::Kafka, name)));
    let parts = EngineParts {
        handler: Arc::new(handler),
        source: Arc::new(source.clone()),
        executor: Arc::new(FakeExecutor::new(1, |_, _| FakeRun::success("out"))),
        sinks: vec![sink("out")],
        dead_letters: sink("dead"),
        observer: Arc::new(RecordingObserver::new()),
        worker: WorkerInfo {
            worker_id: WorkerId::new("w1"),
            cluster: String::new(),
            consumer_group: "g".to_owned(),
        },
        clients: Clients::new(),
        config: EngineConfig::default(),
    };
    let engine = Engine::connect_with_clock(parts, Arc::new(TokioClock::new())).await;
    let engine = engine.expect("all parts connect");
    let partition = PartitionId::new("in", 3);
    let work = async {
        broker.produce(&partition, b"value".to_vec());
        tokio::time::sleep(Duration::from_secs(1)).await;
        source.assign(std::slice::from_ref(&partition));
        while broker.committed(&partition).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    engine.run(std::future::ready(()), work).await.expect("a clean end");
}

#[test]
fn lines_of_hooks_say_where_they_belong() {
    let lines = capture(|| {
        let handler = TestHandler::new()
            .with_arrange(|window, _| {
                tracing::info!("in arrange");
                let task = |message| Task::for_message(message).id("t-1");
                Ok::<_, HookError>(window.messages().map(task).collect())
            })
            .with_task_complete(|_, _| {
                tracing::info!(answer = 42, "in on_task_complete");
                Ok(Outputs::new())
            });
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(handle_one(handler));
        tracing::info!("outside");
    });
    let line = |event: &str| -> &Value {
        lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{lines:#?}"))
    };
    let fields = ["hook", "partition", "window_id", "offset", "offsets", "task_id"];
    let check = |event: &str, expect: [Value; 6]| {
        let line = line(event);
        assert_eq!(fields.map(|field| line[field].clone()), expect, "{line}");
    };
    let window = line("in arrange")["window_id"].clone();
    assert!(window.is_u64(), "{window}");
    let none = Value::Null;
    let (three, zero) = (json!(3), json!(0));
    check(
        "in arrange",
        [json!("arrange"), three.clone(), window.clone(), none.clone(), json!("[0]"), none.clone()],
    );
    check(
        "in on_task_complete",
        [json!("on_task_complete"), three, window, zero, none.clone(), json!("t-1")],
    );
    assert_eq!(line("in on_task_complete")["answer"], 42);
    check("outside", std::array::from_fn(|_| none.clone()));
}
