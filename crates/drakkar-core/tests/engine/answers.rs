//! Answers of hooks in places that are rarer than the others: outputs of messages and windows that
//! fail, labels, decoders of one's own, replacements that cannot be ranked.

use crate::world::{SECOND, Setup, World, broken, input, partition, record};
use drakkar_api::{
    Context, DecodeError, DeliveryAction, ErrorAction, Handler, Hook, HookResult, Message, Outputs,
    Priority, RawInput, SourceMessage, Task, Window,
};
use drakkar_core::ParsePolicy;
use drakkar_testkit::{Answer, FakeRun, Reaction, TestHandler};
use std::sync::{Arc, Mutex};

/// Puts out "sum" when a message, or else a window, is complete.
fn summing(is_window: bool) -> TestHandler {
    let sum = || Ok(Outputs::new().with(record("sum")));
    match is_window {
        false => TestHandler::new().with_message_complete(move |_, _| sum()),
        true => TestHandler::new().with_window_complete(move |_, _| sum()),
    }
}

/// Handles one message whose sum the sink rejects once.
async fn rejected_once(is_window: bool, action: DeliveryAction) -> World {
    let handler = summing(is_window).with_delivery_error(move |_, _| Ok(action));
    let world = Setup::new(handler).start(&[]).await;
    world.sink.push(Reaction::answers([Answer::rejected()]));
    world.produce(0, &["a"]);
    world.until_done().await;
    assert_eq!(world.hooks.count(Hook::OnDeliveryError), 1);
    assert_eq!((world.letters(), world.ends()), (vec![], vec![(0, "Completed")]));
    world
}

// Promise: DL-1, DL-2
#[tokio::test(start_paused = true)]
async fn what_messages_and_windows_put_out_can_be_sent_again_or_let_go() {
    for is_window in [false, true] {
        let world = rejected_once(is_window, DeliveryAction::Retry).await;
        assert_eq!((world.sent(), world.sink.calls().len()), (vec!["sum".to_owned()], 2));
        world.finish().await;
        let world = rejected_once(is_window, DeliveryAction::Skip).await;
        assert_eq!((world.sent(), world.sink.calls().len()), (vec![], 1));
        assert_eq!(world.seen.count("DeliverySkipped"), 1);
        world.finish().await;
    }
}

// Promise: FT-1, DL-1
#[tokio::test(start_paused = true)]
async fn a_broken_on_delivery_error_for_a_message_keeps_its_payload_and_itself() {
    for panics in [false, true] {
        let handler = summing(false).with_delivery_error(move |_, _| broken(panics));
        let world = Setup::new(handler).start(&[]).await;
        world.sink.push(Reaction::answers([Answer::rejected()]));
        world.produce(0, &["a"]);
        world.until_done().await;
        let class = if panics { "hook_panic" } else { "hook_error" };
        assert_eq!(
            world.letters(),
            [
                "payload@0 invalid on_message_complete x1: not valid for this sink".to_owned(),
                format!("message@0 {class} on_delivery_error x1: boom"),
            ]
        );
        assert_eq!(world.ends(), [(0, "DeadLettered")]);
        world.finish().await;
    }
}

/// Labels messages, or leaves that to the default, and does not decode "no".
struct Labels {
    own: bool,
    seen: Arc<Mutex<Vec<String>>>,
}

/// Forwards to the defaults.
struct Plain;

impl Handler for Plain {
    type Input = RawInput;

    async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }
}

impl Handler for Labels {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        let labels = window.messages().map(|message| message.label().to_owned());
        self.seen.lock().expect("no panic").extend(labels);
        Ok(Vec::new())
    }

    fn message_label(&self, message: &Message<RawInput>) -> String {
        match (self.own, message.value()) {
            (true, Some(value)) => format!("<{}>", String::from_utf8_lossy(value)),
            _ => Plain.message_label(message),
        }
    }

    fn decode(&self, message: &SourceMessage) -> Result<RawInput, DecodeError> {
        match message.value.as_deref() {
            Some(b"no") => Err(DecodeError::new("it says no")),
            value => Ok(RawInput(value.unwrap_or_default().to_vec().into())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_have_the_label_that_the_handler_gives_or_their_coordinates() {
    for (own, expect) in [(true, ["<a>", "<b>"]), (false, ["0:0", "0:1"])] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let world = Setup::of(Labels { own, seen: Arc::clone(&seen) }).start(&["a", "b"]).await;
        world.until_done().await;
        assert_eq!(*seen.lock().expect("no panic"), expect);
        world.finish().await;
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn what_a_decoder_of_ones_own_refuses_does_not_parse() {
    let handler = Labels { own: true, seen: Arc::default() };
    let seen = Arc::clone(&handler.seen);
    let setup = Setup::of(handler).config(|config| config.on_parse_error = ParsePolicy::DeadLetter);
    let world = setup.start(&["a", "no"]).await;
    world.until_done().await;
    assert_eq!(world.letters(), ["message@1 parse_error decode x1: it says no"]);
    assert_eq!(world.letter(1).value.as_deref(), Some(&b"no"[..]));
    assert_eq!(*seen.lock().expect("no panic"), ["<a>"]);
    world.finish().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_replacement_that_cannot_be_ranked_dead_letters_its_message() {
    let handler = TestHandler::new()
        .with_error(|failure, _| {
            let offsets = failure.task.source_offsets.clone();
            Ok(ErrorAction::Replace(vec![Task::for_offsets(offsets).stdin("replacement")]))
        })
        .with_priority(|task| {
            assert_ne!(input(task), "replacement", "boom");
            Priority::default()
        });
    let setup = Setup::new(handler).tasks(1, |task, _| match input(task).as_str() {
        "bad" => FakeRun::exit(1),
        text => FakeRun::success(text.to_owned()),
    });
    let world = setup.start(&["bad", "good"]).await;
    world.until_done().await;
    let letters = world.letters();
    assert!(
        letters.len() == 1 && letters[0].starts_with("message@0 hook_panic task_priority x1: "),
        "{letters:?}"
    );
    let mut ends = world.ends();
    ends.sort_unstable();
    assert_eq!(ends, [(0, "DeadLettered"), (1, "Completed")]);
    world.finish().await;
}

// Promise: RB-1, RB-2
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lost_while_it_drains_is_fenced_at_once() {
    let handler = TestHandler::new()
        .with_task_complete(|done, _| Ok(Outputs::new().with(record(done.stdout()))));
    let setup =
        Setup::new(handler).tasks(1, |task, _| FakeRun::success(input(task)).lasting(SECOND * 20));
    let world = setup.start(&["a"]).await;
    world.until_seen("TaskStarted", 1).await;
    let (source, of_it) = (world.source.clone(), [partition(0)]);
    let revoke = tokio::spawn(async move { source.revoke(&of_it).await });
    tokio::time::sleep(SECOND * 5).await;
    assert!(!revoke.is_finished(), "it drains");
    world.source.lose(&[partition(0)]);
    world.until_seen("Lost", 1).await;
    revoke.await.expect("the revoke does not panic");
    world
        .until("its task is killed", |w| {
            w.executor.records().iter().all(|run| run.outcome.is_some())
        })
        .await;
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!((world.committed(0), world.sent(), world.letters()), (None, vec![], vec![]));
    assert_eq!(world.seen.count("Revoked"), 0);
    world.finish().await;
}
