//! Messages that do not parse, and tombstones.

use crate::world::{Setup, World, partition, record};
use drakkar_api::{
    Context, Handler, Headers, HookResult, Message, MessageGroup, Offset, Outputs, Task,
    TaskOutput, Window,
};
use drakkar_core::ParsePolicy;
use std::sync::{Arc, Mutex};

/// Wants numbers; remembers what it was given.
#[derive(Default)]
struct Numbers {
    given: Arc<Mutex<Vec<String>>>,
    completed: Arc<Mutex<Vec<i64>>>,
}

impl Handler for Numbers {
    type Input = u32;

    async fn arrange(&self, window: &Window<u32>, _cx: &Context) -> HookResult<Vec<Task>> {
        let describe = |m: &Message<u32>| match (m.payload(), m.parse_error(), m.is_tombstone()) {
            (Some(number), None, false) => number.to_string(),
            (None, Some(error), false) => format!("invalid ({})", error.reason().len() > 5),
            (None, None, true) => "tombstone".to_owned(),
            other => panic!("contradictory: {other:?}"),
        };
        self.given.lock().expect("no panic").extend(window.messages().map(describe));
        let tasks = window.messages().filter_map(Message::payload_with_offset);
        Ok(tasks.map(|(number, at)| Task::for_offset(at).stdin(number.to_string())).collect())
    }

    async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> HookResult<Outputs> {
        Ok(Outputs::new().with(record(done.stdout())))
    }

    async fn on_message_complete(
        &self,
        group: &MessageGroup<u32>,
        _cx: &Context,
    ) -> HookResult<Outputs> {
        self.completed.lock().expect("no panic").push(group.message.offset().get());
        Ok(Outputs::new())
    }
}

/// Handles `1`, `oops`, a tombstone and `2`; answers the world, what was given, and what completed.
async fn handle(policy: ParsePolicy) -> (World, Vec<String>, Vec<i64>) {
    let handler = Numbers::default();
    let (given, completed) = (Arc::clone(&handler.given), Arc::clone(&handler.completed));
    let world = Setup::of(handler).config(|config| config.on_parse_error = policy).start(&[]).await;
    world.produce(0, &["1", "oops"]);
    world.broker.append(&partition(0), Some("k".into()), None, Headers::new());
    world.produce(0, &["2"]);
    world.until_done().await;
    assert_eq!(world.sent(), ["1", "2"]);
    let mut completed = completed.lock().expect("no panic").clone();
    completed.sort_unstable();
    let given = given.lock().expect("no panic").clone();
    (world, given, completed)
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn by_default_the_handler_gets_what_does_not_parse_without_a_payload() {
    let (world, given, completed) = handle(ParsePolicy::Pass).await;
    assert_eq!(given, ["1", "invalid (true)", "tombstone", "2"]);
    assert_eq!(completed, [0, 1, 2, 3]);
    assert_eq!(world.letters(), [""; 0]);
    let failed = world.seen.named("ParseFailed");
    assert_eq!(failed.len(), 1, "a tombstone is never a parse error");
    assert!(failed[0].text.contains(r#"policy: "pass""#), "{failed:?}");
    let tombstones = world.seen.named("Tombstone");
    let offsets: Vec<_> = tombstones.iter().filter_map(|event| event.offset).collect();
    assert_eq!(offsets, [Offset::new(2)], "each is told once");
    world.finish().await;
}

// Promise: DL-4, FT-1
#[tokio::test(start_paused = true)]
async fn what_does_not_parse_may_go_to_the_dead_letters() {
    let (world, given, _) = handle(ParsePolicy::DeadLetter).await;
    assert_eq!(given, ["1", "tombstone", "2"]);
    assert_eq!(world.letters().len(), 1);
    let letter = world.letter(1);
    assert_eq!(letter.value.as_deref(), Some(&b"oops"[..]));
    assert_eq!((letter.header("error-kind"), letter.header("hook")), ("parse_error", "decode"));
    assert!(letter.header("error").contains("line 1 column 1"), "{letter:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_parse_may_be_dropped_and_is_counted() {
    let (world, given, completed) = handle(ParsePolicy::Skip).await;
    assert_eq!(given, ["1", "tombstone", "2"]);
    assert_eq!(completed, [0, 2, 3]);
    assert_eq!(world.letters(), [""; 0]);
    let mut ends = world.ends();
    ends.sort_unstable();
    assert_eq!(ends, [(0, "Completed"), (1, "Skipped"), (2, "Completed"), (3, "Completed")]);
    assert_eq!(world.seen.count("ParseFailed"), 1);
    world.finish().await;
}

// D3: in the original a tombstone crashed the worker, again after each restart.
#[tokio::test(start_paused = true)]
async fn a_tombstone_can_be_dead_lettered_and_stays_one() {
    let handler = drakkar_testkit::TestHandler::new()
        .with_message_complete(|_, _| Err::<Outputs, _>("no".into()));
    let world = Setup::new(handler).start(&[]).await;
    world.broker.append(&partition(0), Some("key".into()), None, Headers::new());
    world.until_done().await;
    let letter = world.letter(0);
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"key"[..]), None));
    assert_eq!(letter.header("tombstone"), "true");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_in_which_nothing_parses_is_not_arranged() {
    for policy in [ParsePolicy::DeadLetter, ParsePolicy::Skip] {
        let handler = Numbers::default();
        let given = Arc::clone(&handler.given);
        let setup = Setup::of(handler).config(|config| config.on_parse_error = policy);
        let world = setup.start(&["x", "y"]).await;
        world.until_done().await;
        assert_eq!(given.lock().expect("no panic").len(), 0);
        assert_eq!(world.seen.count("ParseFailed"), 2);
        world.finish().await;
    }
}
