//! What failure does by default: every row of the table, and every hook that errs or panics.

use crate::world::{SECOND, Setup, broken, echo, input, partition, record};
use drakkar_api::{Context, Handler, PartitionId};
use drakkar_api::{
    ErrorAction, Hook, HookResult, Offset, Outputs, Precomputed, RawInput, Task, Window,
};
use drakkar_testkit::{Answer, FakeRun, Reaction, TestHandler};

/// Puts out what the task answered.
/// Returns the class of the error of a broken hook.
fn class(panics: bool) -> &'static str {
    if panics { "hook_panic" } else { "hook_error" }
}

#[tokio::test(start_paused = true)]
async fn what_succeeds_is_sent_and_committed_and_nothing_else_happens() {
    let world = Setup::new(echo()).start(&["a", "b"]).await;
    world.until_done().await;
    assert_eq!(world.sent(), ["a", "b"]);
    assert_eq!(world.ends(), [(0, "Completed"), (1, "Completed")]);
    assert_eq!(world.hooks.count(Hook::OnReady), 1);
    assert_eq!((world.letters(), world.failures()), (vec![], vec![]));
    world.finish().await;
}

// Promise: FT-1, DL-1
#[tokio::test(start_paused = true)]
async fn a_broken_on_task_complete_dead_letters_its_message() {
    for panics in [false, true] {
        let handler = TestHandler::new().with_task_complete(move |done, _| {
            if done.stdout() == "bad" {
                broken(panics)
            } else {
                Ok(Outputs::new().with(record("ok")))
            }
        });
        let world = Setup::new(handler).start(&["bad", "good"]).await;
        world.until_done().await;
        let class = class(panics);
        assert_eq!(world.letters(), [format!("message@0 {class} on_task_complete x1: boom")]);
        assert_eq!(world.letter(0).value.as_deref(), Some(&b"bad"[..]));
        assert_eq!(world.sent(), ["ok"]);
        assert_eq!(world.failures(), ["OnTaskComplete: boom"]);
        world.finish().await;
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_broken_on_message_complete_dead_letters_its_message_and_what_was_sent_stays() {
    for panics in [false, true] {
        let handler = echo().with_message_complete(move |group, _| {
            if group.message.offset() == Offset::new(0) {
                broken(panics)
            } else {
                Ok(Outputs::new())
            }
        });
        let world = Setup::new(handler).start(&["a", "b"]).await;
        world.until_done().await;
        let class = class(panics);
        assert_eq!(world.letters(), [format!("message@0 {class} on_message_complete x1: boom")]);
        assert_eq!(world.sent(), ["a", "b"], "what is confirmed stays");
        assert_eq!(world.hooks.count(Hook::OnMessageComplete), 2);
        world.finish().await;
    }
}

// Promise: FT-1, DL-2
#[tokio::test(start_paused = true)]
async fn a_broken_on_window_complete_dead_letters_all_messages_of_the_window() {
    for panics in [false, true] {
        let handler = echo().with_window_complete(move |window, _| {
            if window.messages[0].offset() == Offset::new(0) {
                broken(panics)
            } else {
                Ok(Outputs::new())
            }
        });
        let setup = Setup::new(handler).config(|config| config.window_size = 2);
        let world = setup.start(&["a", "b", "c"]).await;
        world.until_done().await;
        let class = class(panics);
        let expect = [0, 1].map(|at| format!("message@{at} {class} on_window_complete x1: boom"));
        assert_eq!(world.letters(), expect);
        let mut ends = world.ends();
        ends.sort_unstable();
        assert_eq!(ends, [(0, "DeadLettered"), (1, "DeadLettered"), (2, "Completed")]);
        world.finish().await;
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_message_that_is_in_the_dead_letters_is_not_written_again_by_its_window() {
    let handler = echo()
        .with_message_complete(|group, _| {
            if group.message.offset() == Offset::new(0) {
                broken(false)
            } else {
                Ok(Outputs::new())
            }
        })
        .with_window_complete(|_, _| broken(false));
    let world = Setup::new(handler).start(&["a", "b"]).await;
    world.until_done().await;
    assert_eq!(
        world.letters(),
        [
            "message@0 hook_error on_message_complete x1: boom",
            "message@1 hook_error on_window_complete x1: boom"
        ]
    );
    world.finish().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_broken_on_error_dead_letters_its_message() {
    for panics in [false, true] {
        let handler = echo().with_error(move |_, _| broken(panics));
        let setup = Setup::new(handler).tasks(2, |task, _| match input(task).as_str() {
            "bad" => FakeRun::exit(3),
            text => FakeRun::success(text.to_owned()),
        });
        let world = setup.start(&["bad", "good"]).await;
        world.until_done().await;
        let class = class(panics);
        assert_eq!(world.letters(), [format!("message@0 {class} on_error x1: boom")]);
        assert_eq!(world.hooks.count(Hook::OnError), 1);
        assert_eq!(world.sent(), ["good"]);
        world.finish().await;
    }
}

// Promise: FT-1, DL-1
#[tokio::test(start_paused = true)]
async fn a_broken_on_delivery_error_keeps_the_payload_and_the_message() {
    for panics in [false, true] {
        let handler = echo().with_delivery_error(move |_, _| broken(panics));
        let world = Setup::new(handler).start(&[]).await;
        world.sink.push(Reaction::answers([Answer::rejected()]));
        world.produce(0, &["a"]);
        world.until_done().await;
        assert_eq!(
            world.letters(),
            [
                "payload@0 invalid on_task_complete x1: not valid for this sink".to_owned(),
                format!("message@0 {} on_delivery_error x1: boom", class(panics)),
            ]
        );
        assert_eq!(world.ends(), [(0, "DeadLettered")]);
        world.finish().await;
    }
}

// Promise: FT-1, DL-2
#[tokio::test(start_paused = true)]
async fn a_broken_on_delivery_error_for_a_window_keeps_all_its_messages() {
    let handler = TestHandler::new()
        .with_window_complete(|_, _| Ok(Outputs::new().with(record("sum"))))
        .with_delivery_error(|_, _| broken(false));
    let world = Setup::new(handler).start(&[]).await;
    world.sink.push(Reaction::answers([Answer::rejected()]));
    world.produce(0, &["a", "b"]);
    world.until_done().await;
    assert_eq!(
        world.letters(),
        [
            "payload@0 invalid on_window_complete x1: not valid for this sink",
            "message@0 hook_error on_delivery_error x1: boom",
            "message@1 hook_error on_delivery_error x1: boom",
        ]
    );
    world.finish().await;
}

/// A payload for a sink that nobody configured.
fn nowhere() -> Outputs {
    Outputs::new().with(record("sent to nobody")).with(record("x").to("nowhere"))
}

const NOWHERE: &str = "no kafka sink is called \"nowhere\"; configured are out";

// Promise: DL-1, FT-1
#[tokio::test(start_paused = true)]
async fn a_payload_that_routes_nowhere_dead_letters_the_message() {
    let check = async |handler: TestHandler, hook: &str, event: &str| {
        let world = Setup::new(handler).start(&["a"]).await;
        world.until_done().await;
        assert_eq!(world.letters(), [format!("message@0 routing {hook} x1: {NOWHERE}")]);
        assert_eq!(world.sent(), [""; 0], "nothing of that answer is sent");
        assert_eq!(world.seen.count("HookFailed"), 1);
        let failed = &world.seen.named("HookFailed")[0];
        assert!(failed.text.contains(&format!("hook: {event}")), "{}", failed.text);
        assert!(failed.text.contains("window: Some(WindowId(1))"), "{}", failed.text);
        world.finish().await;
    };
    let plain = TestHandler::new;
    check(plain().with_task_complete(|_, _| Ok(nowhere())), "on_task_complete", "OnTaskComplete")
        .await;
    check(
        plain().with_message_complete(|_, _| Ok(nowhere())),
        "on_message_complete",
        "OnMessageComplete",
    )
    .await;
    check(
        plain().with_window_complete(|_, _| Ok(nowhere())),
        "on_window_complete",
        "OnWindowComplete",
    )
    .await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_without_known_offsets_dead_letters_the_message_that_got_it() {
    let check = async |offsets: fn() -> Vec<Offset>, error: &str| {
        let handler = echo().with_arrange(move |window, _| {
            let tasks = window.messages().map(|message| match message.offset().get() {
                1 => Task::for_offsets(offsets()),
                _ => Task::for_message(message).stdin("fine"),
            });
            Ok(tasks.collect())
        });
        let world = Setup::new(handler).start(&["a", "b", "c"]).await;
        world.until_done().await;
        assert_eq!(world.letters(), [format!("message@1 hook_error arrange x5: {error}")]);
        assert_eq!(world.sent(), ["fine", "fine"]);
        world.finish().await;
    };
    check(Vec::new, "a task has no source offsets, so it would protect no message").await;
    check(
        || vec![Offset::new(77)],
        "a task names offset 77, which is not an open message of this partition",
    )
    .await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn a_failed_task_dead_letters_its_message_once_after_everything_else() {
    let handler = echo()
        .with_arrange(|window, _| {
            let task = |message: &drakkar_api::Message<RawInput>, text: &'static str| {
                Task::for_message(message).stdin(text).label("id", text).id(text)
            };
            let tasks = |message| ["bad", "slow", "worse"].map(|text| task(message, text));
            Ok(window.messages().flat_map(tasks).collect())
        })
        .with_message_complete(|group, _| {
            assert_eq!((group.total(), group.succeeded(), group.failed()), (3, 1, 2));
            Ok(Outputs::new().with(record("message")))
        });
    let setup = Setup::new(handler).tasks(3, |task, _| match input(task).as_str() {
        "slow" => FakeRun::success("slow").lasting(SECOND * 7),
        _ => FakeRun { stderr: "why\n".into(), ..FakeRun::exit(2) },
    });
    let world = setup.start(&["a"]).await;
    world.until_seen("TaskFinished", 2).await;
    assert_eq!(world.letters(), [""; 0], "not before all tasks are settled");
    world.until_done().await;
    assert_eq!(world.sent(), ["slow", "message"]);
    assert_eq!(world.letters(), ["message@0 exit_code  x1: task bad exited with code 2: why"]);
    assert_eq!(world.letter(0).header("task-id"), "bad");
    assert_eq!(world.letter(0).header("task-labels"), r#"{"id":"bad"}"#);
    assert_eq!(world.ends(), [(0, "DeadLettered")]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_way_to_fail_has_its_class() {
    let world = Setup::new(TestHandler::new())
        .tasks(8, |task, _| match input(task).as_str() {
            "signal" => FakeRun::ending(drakkar_api::TaskOutcome::Signal(9)),
            "spawn" => FakeRun::spawn_failure(),
            "timeout" => FakeRun::hang(),
            _ => FakeRun::ending(drakkar_api::TaskOutcome::OutputOverLimit { limit_bytes: 5 }),
        })
        .start(&["signal", "spawn", "timeout", "output"])
        .await;
    world.until_done().await;
    let classes = [0, 1, 2, 3].map(|at| world.letter(at).header("error-kind").to_owned());
    assert_eq!(classes, ["signal", "spawn_failure", "timeout", "output_over_limit"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_skipped_failure_is_counted_and_committed() {
    let handler = TestHandler::new().with_error(|_, _| Ok(ErrorAction::Skip));
    let world = Setup::new(handler).tasks(1, |_, _| FakeRun::exit(1)).start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.seen.count("TaskSkipped"), 1);
    assert_eq!(world.ends(), [(0, "Completed")]);
    assert_eq!(world.letters(), [""; 0]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_ask_for_the_dead_letters_itself() {
    let handler = TestHandler::new().with_error(|_, _| Ok(ErrorAction::DeadLetter));
    let world = Setup::new(handler).tasks(1, |_, _| FakeRun::exit(1)).start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.letter(0).header("error-kind"), "exit_code");
    assert_eq!(world.seen.count("RetriesExhausted"), 0);
    world.finish().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_broken_precomputed_failure_is_a_failure_like_any_other() {
    let handler = TestHandler::new().with_arrange(|window, _| {
        let failed = || Precomputed { exit_code: 4, ..Precomputed::default() };
        Ok(window.messages().map(|m| Task::for_message(m).precomputed(failed())).collect())
    });
    let world = Setup::new(handler).start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.letter(0).header("error-kind"), "exit_code");
    assert_eq!(world.hooks.count(Hook::OnError), 1);
    assert_eq!(world.executor.records(), [], "no program ran");
    world.finish().await;
}

/// An error that cannot even be shown.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words")
    }
}

impl std::error::Error for Unspeakable {}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn an_error_whose_text_panics_is_an_error_like_any_other() {
    let handler = TestHandler::new().with_task_complete(|_, _| Err(Unspeakable.into()));
    let world = Setup::new(handler).start(&["a"]).await;
    world.until_done().await;
    let error = "an error whose text panicked: no words";
    assert_eq!(world.letters(), [format!("message@0 hook_error on_task_complete x1: {error}")]);
    world.finish().await;
}

/// Breaks in the hooks of the whole worker.
struct BrokenWorkerHooks {
    panics: bool,
}

impl Handler for BrokenWorkerHooks {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(window.messages().map(Task::for_message).collect())
    }

    async fn on_assign(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        broken(self.panics)
    }

    async fn on_revoke(&self, _partitions: &[PartitionId], _cx: &Context) -> HookResult<()> {
        broken(self.panics)
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn broken_worker_hooks_are_reported_and_stop_nothing() {
    for panics in [false, true] {
        let world = Setup::of(BrokenWorkerHooks { panics }).start(&["a"]).await;
        world.until_done().await;
        assert!(world.source.revoke(&[partition(0)]).await);
        assert_eq!(world.failures(), ["OnAssign: boom", "OnRevoke: boom"]);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_for_a_type_that_is_not_configured_names_the_section() {
    let handler = TestHandler::new()
        .with_task_complete(|_, _| Ok(Outputs::new().with(drakkar_api::HttpRequest::default())));
    let world = Setup::new(handler).start(&["a"]).await;
    world.until_done().await;
    assert_eq!(
        world.letter(0).header("error"),
        "a payload for a http sink was returned, but none is configured (sinks.http)"
    );
    world.finish().await;
}
