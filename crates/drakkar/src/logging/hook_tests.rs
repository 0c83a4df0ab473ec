//! Lines that a handler logs, through the real engine.

use super::{capture, capture_through};
use drakkar_api::{
    Clients, CompletedWindow, Context, DeliveryAction, DeliveryFailure, ErrorAction, Handler,
    HookError, HookResult, KafkaRecord, MessageGroup, Outputs, PartitionId, RawInput, SinkId,
    SinkKind, Task, TaskFailure, TaskOutput, Window, WorkerId, WorkerInfo,
};
use drakkar_core::{AnySink, Engine, EngineConfig, EngineParts};
use drakkar_testkit::{
    Answer, FakeBroker, FakeExecutor, FakeRun, FakeSink, Reaction, RecordingObserver,
    ScriptedSource, TestHandler, TokioClock,
};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Handles one message of partition 3 to its end. Tasks called "bad" fail, and the sink rejects all.
async fn handle_one(handler: impl Handler) {
    let broker = FakeBroker::new();
    let source = ScriptedSource::new(&broker);
    let sink = |name: &str| {
        let sink = FakeSink::<KafkaRecord>::new(SinkId::new(SinkKind::Kafka, name));
        AnySink::new(
            sink.react_with(|offers| Reaction::answers(offers.iter().map(|_| Answer::rejected()))),
        )
    };
    let run = |task: &Task, _| match task.id.as_ref().map(ToString::to_string).as_deref() {
        Some("bad") => FakeRun::exit(1),
        _ => FakeRun::success("out"),
    };
    let parts = EngineParts {
        handler: Arc::new(handler),
        source: Arc::new(source.clone()),
        executor: Arc::new(FakeExecutor::new(1, run)),
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

/// Runs work that waits for nothing real.
fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(work);
}

/// Writes a line in each hook.
struct Talkative;

impl Handler for Talkative {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        tracing::error!("arrange");
        let tasks = |message| ["good", "bad"].map(|id| Task::for_message(message).id(id));
        Ok(window.messages().flat_map(tasks).collect())
    }

    async fn on_ready(&self, _cx: &Context) -> HookResult<()> {
        tracing::error!("on_ready");
        Ok(())
    }

    async fn on_task_complete(&self, _done: &TaskOutput, _cx: &Context) -> HookResult<Outputs> {
        tracing::error!("on_task_complete");
        Ok(Outputs::new().with(KafkaRecord::bytes("v")))
    }

    async fn on_error(&self, _failure: &TaskFailure, _cx: &Context) -> HookResult<ErrorAction> {
        tracing::error!("on_error");
        Ok(ErrorAction::Skip)
    }

    async fn on_delivery_error(
        &self,
        _failure: &DeliveryFailure,
        _cx: &Context,
    ) -> HookResult<DeliveryAction> {
        tracing::error!("on_delivery_error");
        Ok(DeliveryAction::Skip)
    }

    async fn on_message_complete(
        &self,
        _group: &MessageGroup<RawInput>,
        _cx: &Context,
    ) -> HookResult<Outputs> {
        tracing::error!("on_message_complete");
        Ok(Outputs::new())
    }

    async fn on_window_complete(
        &self,
        _window: &CompletedWindow<RawInput>,
        _cx: &Context,
    ) -> HookResult<Outputs> {
        tracing::error!("on_window_complete");
        Ok(Outputs::new())
    }

    async fn on_assign(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        tracing::error!("on_assign");
        Ok(())
    }

    async fn on_revoke(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        tracing::error!("on_revoke");
        Ok(())
    }
}

// The context of a line must not depend on how much is logged.
#[test]
fn every_hook_says_what_it_works_on_at_any_level() {
    let lines = capture_through("error", || run(handle_one(Talkative)));
    let check = |hook: &str, expect: &[(&str, Value)]| {
        let line = lines
            .iter()
            .find(|line| line["event"] == hook)
            .unwrap_or_else(|| panic!("{hook} is not among {lines:#?}"));
        assert_eq!(line["hook"], hook);
        for (name, value) in expect {
            assert_eq!(line[*name], *value, "{name} of {line}");
        }
        for name in ["partition", "window_id", "offset", "task_id", "partitions", "sink_name"] {
            let is_there = line.get(name).is_some();
            let is_wanted = expect.iter().any(|(wanted, _)| *wanted == name);
            assert!(is_there == is_wanted || name == "window_id", "{name} of {line}");
        }
    };
    let of_task =
        |id: &str| [("partition", json!(3)), ("offset", json!(0)), ("task_id", json!(id))];
    check("on_ready", &[]);
    check("on_assign", &[("partitions", json!("[3]"))]);
    check("arrange", &[("partition", json!(3)), ("offsets", json!("[0]"))]);
    check("on_task_complete", &of_task("good"));
    check("on_error", &of_task("bad"));
    check(
        "on_delivery_error",
        &[
            ("partition", json!(3)),
            ("offset", json!(0)),
            ("sink_type", json!("kafka")),
            ("sink_name", json!("out")),
        ],
    );
    check("on_message_complete", &[("partition", json!(3)), ("offset", json!(0))]);
    check("on_window_complete", &[("partition", json!(3))]);
    check("on_revoke", &[("partitions", json!("[3]"))]);
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
        run(handle_one(handler));
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
