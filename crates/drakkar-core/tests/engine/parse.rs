//! Messages that do not parse, and tombstones.

use crate::world::{Setup, World, partition, record};
use drakkar_api::{
    Context, Handler, Headers, HookResult, Message, MessageGroup, Offset, Outputs, Task,
    TaskOutput, Window,
};
use drakkar_core::{EngineErrorKind, ParsePolicy};
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

/// Wants numbers, and arranges them like this.
struct Arranging(fn(&Window<u32>) -> HookResult<Vec<Task>>);

impl Handler for Arranging {
    type Input = u32;

    async fn arrange(&self, window: &Window<u32>, _cx: &Context) -> HookResult<Vec<Task>> {
        (self.0)(window)
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

// Promise: WM-1, FT-1
#[tokio::test(start_paused = true)]
async fn what_does_not_parse_may_stop_the_worker_without_a_commit_past_it() {
    for window_size in [1, 2, 8] {
        let handler = Numbers::default();
        let given = Arc::clone(&handler.given);
        let setup = Setup::of(handler).config(|config| {
            config.on_parse_error = ParsePolicy::Stop;
            config.window_size = window_size;
        });
        let mut world = setup.start(&["1", "2", "oops", "3", "no"]).await;
        let error = world.ended().await.expect_err("the worker stops");
        let EngineErrorKind::Stopped(reason) = error.kind() else { panic!("{error}") };
        assert!(reason.contains("stopped at offset 2, as kafka.on_parse_error says"), "{reason}");
        assert!(reason.contains("line 1 column 1"), "{reason}");
        assert_eq!((world.sent(), world.committed(0)), (vec!["1".into(), "2".into()], Some(2)));
        assert_eq!(*given.lock().expect("no panic"), ["1", "2"], "nothing beyond it is worked on");
        assert_eq!((world.letters().len(), world.seen.count("PartitionFailed")), (0, 1));
        world.check_account();
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn what_stops_the_worker_as_it_does_not_parse_is_found_message_by_message_too() {
    let handler = Arranging(|window| match window.len() {
        1 => Ok(window.messages().map(Task::for_message).collect()),
        _ => Err("one by one, please".into()),
    });
    let setup = Setup::of(handler).config(|config| config.on_parse_error = ParsePolicy::Stop);
    let mut world = setup.start(&["1", "2", "oops", "3"]).await;
    let error = world.ended().await.expect_err("the worker stops");
    assert!(matches!(error.kind(), EngineErrorKind::Stopped(_)), "{error}");
    assert_eq!((world.executor.records().len(), world.committed(0)), (2, Some(2)));
    world.check_account();
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_for_what_is_beyond_a_value_that_stops_the_worker_is_refused() {
    let handler = Arranging(|_| Ok(vec![Task::for_offsets([0, 2].map(Offset::new))]));
    let setup = Setup::of(handler).config(|config| config.on_parse_error = ParsePolicy::Stop);
    let mut world = setup.start(&["1", "oops", "3"]).await;
    world.ended().await.expect_err("the worker stops");
    assert_eq!((world.executor.records().len(), world.committed(0)), (0, Some(1)));
    assert_eq!(world.letters().len(), 1, "the message whose task it was could not be arranged");
    world.check_account();
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
