//! Messages that do not parse, and tombstones.

use crate::world::{MILLISECOND, SECOND, Setup, World, partition, record};
use drakkar_api::{
    Context, DecodeError, Handler, Headers, HookResult, Message, MessageGroup, Offset, Outputs,
    RawInput, SourceMessage, Task, TaskOutput, Window,
};
use drakkar_core::{Backoff, EngineErrorKind, FailureAction, FailurePolicy, ParsePolicy};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

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

type Tries = Arc<Mutex<Vec<(i64, Instant)>>>;

/// Looks a schema up for each value: that of `late` is there at the second attempt, that of `never`
/// is never, and that of `poison` panics. Remembers what it decoded, and when.
#[derive(Default)]
struct Lookup {
    tries: Tries,
}

impl Handler for Lookup {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        let task = |m: &Message<RawInput>| {
            Task::for_message(m).stdin(m.payload().map(|raw| raw.0.clone()).unwrap_or_default())
        };
        Ok(window.messages().map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> HookResult<Outputs> {
        Ok(Outputs::new().with(record(done.stdout())))
    }

    fn decode(&self, message: &SourceMessage) -> Result<RawInput, DecodeError> {
        let offset = message.offset.get();
        let mut tries = self.tries.lock().expect("no panic");
        let is_first = tries.iter().all(|&(at, _)| at != offset);
        tries.push((offset, Instant::now()));
        drop(tries);
        let value = message.value.clone().unwrap_or_default();
        match &value[..] {
            b"late" if is_first => Err(DecodeError::new("no schema yet")),
            b"never" => Err(DecodeError::new("no schema")),
            b"poison" => panic!("boom"),
            _ => Ok(RawInput(value)),
        }
    }
}

/// Decodes what does not parse `attempts_max` times in all, first after `initial`.
fn again(attempts_max: u32, initial: Duration, then: FailureAction) -> Option<FailurePolicy> {
    let backoff = Backoff { initial, max: initial * 10 };
    Some(FailurePolicy { attempts_max, backoff, then })
}

fn look_up(policy: Option<FailurePolicy>) -> (Setup<Lookup>, Tries) {
    let handler = Lookup::default();
    let tries = Arc::clone(&handler.tries);
    (Setup::of(handler).config(|config| config.on_failure.parse_error = policy), tries)
}

/// Returns when the message at `offset` was decoded.
fn times(tries: &Tries, offset: i64) -> Vec<Instant> {
    let tries = tries.lock().expect("no panic");
    tries.iter().filter(|&&(at, _)| at == offset).map(|&(_, when)| when).collect()
}

/// Returns what followed each parse error.
fn answers(world: &World) -> Vec<String> {
    let failed = world.seen.named("ParseFailed").into_iter().map(|event| {
        let (_, policy) = event.text.split_once("policy: ").expect("the field is there");
        policy.trim_matches(['"', ' ', '}']).to_owned()
    });
    failed.collect()
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn what_does_not_parse_is_decoded_as_often_as_is_said_with_waits() {
    for (then, answer) in [
        (FailureAction::DeadLetter, "dead_letter"),
        (FailureAction::Skip, "skip"),
        (FailureAction::Stop, "stop"),
    ] {
        let (setup, tries) = look_up(again(4, MILLISECOND * 100, then));
        let mut world = setup.start(&["1", "never", "2"]).await;
        let is_stop = then == FailureAction::Stop;
        if is_stop {
            let error = world.ended().await.expect_err("the worker stops");
            let said = "stopped at offset 1, as executor.on_failure.parse_error says: no schema";
            let EngineErrorKind::Stopped(reason) = error.kind() else { panic!("{error}") };
            assert!(reason.contains(said), "{reason}");
            assert_eq!((world.sent(), world.committed(0)), (vec!["1".into()], Some(1)));
            world.check_account();
        } else {
            world.until_done().await;
            assert_eq!(world.sent(), ["1", "2"]);
        }
        let letters: &[_] = match then {
            FailureAction::DeadLetter => &["message@1 parse_error decode x4: no schema"],
            FailureAction::Skip | FailureAction::Stop => &[],
        };
        assert_eq!(world.letters(), letters);
        assert_eq!(answers(&world), ["retry", "retry", "retry", answer]);
        let tried = times(&tries, 1);
        assert_eq!((times(&tries, 0).len(), tried.len(), times(&tries, 2).len()), (1, 4, 1));
        for (waited, full) in tried.windows(2).zip([100, 200, 400]) {
            let (waited, full) = (waited[1] - waited[0], MILLISECOND * full);
            // Timers have a grain of a millisecond.
            assert!(waited >= full / 2 && waited <= full + MILLISECOND, "{waited:?} of {full:?}");
        }
        if !is_stop {
            world.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_parses_at_the_second_attempt_is_as_any_other() {
    let (setup, tries) = look_up(again(3, SECOND, FailureAction::DeadLetter));
    let world = setup.start(&["1", "late", "2"]).await;
    world.until_done().await;
    assert_eq!(world.sent(), ["1", "late", "2"]);
    assert_eq!((world.letters().len(), times(&tries, 1).len()), (0, 2));
    assert_eq!((answers(&world), world.seen.count("Arranged")), (vec!["retry".into()], 1));
    assert!(world.ends().iter().all(|(_, end)| *end == "Completed"));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_single_attempt_is_no_more_than_what_follows_it() {
    let (setup, tries) = look_up(again(1, SECOND, FailureAction::Skip));
    let world = setup.start(&["never"]).await;
    world.until_done().await;
    assert_eq!((times(&tries, 0).len(), answers(&world)), (1, vec!["skip".into()]));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_decoded_again_holds_up_no_other_partition() {
    let (setup, tries) = look_up(again(2, SECOND * 100, FailureAction::DeadLetter));
    let world = setup.tasks(1, |_, _| drakkar_testkit::FakeRun::exit(0)).start(&["late"]).await;
    world.until("it waits", |_| !times(&tries, 0).is_empty()).await;
    world.source.assign(&[partition(1)]);
    world.produce(1, &["1", "2"]);
    world.until_committed(1, 2).await;
    assert_eq!((times(&tries, 0).len(), world.committed(0)), (2, None), "both have an offset 0");
    world.until_done().await;
    world.finish().await;
}

// The hook that fails beside it has its own attempts and waits; these must not shorten those.
#[tokio::test(start_paused = true)]
async fn waits_are_kept_message_by_message_too() {
    let (setup, tries) = look_up(again(3, SECOND * 10, FailureAction::DeadLetter));
    let setup = setup.config(|config| config.on_failure.arrange_error.attempts_max = 2);
    let world = setup.start(&["never", "poison", "never", "late"]).await;
    world.until_done().await;
    assert_eq!(
        world.letters(),
        [
            "message@0 parse_error decode x3: no schema",
            "message@1 hook_panic decode x3: boom",
            "message@2 parse_error decode x3: no schema"
        ]
    );
    assert_eq!(world.sent(), ["late"]);
    for (offset, count) in [(0, 3), (2, 3), (3, 2)] {
        let tried = times(&tries, offset);
        assert_eq!(tried.len(), count, "{offset}");
        let waits = tried.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(waits.into_iter().all(|wait| wait >= SECOND * 5), "{offset}: {tried:?}");
    }
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_waits_to_be_decoded_again_is_given_back() {
    let (setup, tries) = look_up(again(2, SECOND * 100, FailureAction::DeadLetter));
    let world = setup.start(&["1", "late"]).await;
    world.until("it waits", |_| !times(&tries, 1).is_empty()).await;
    assert!(world.source.revoke(&[partition(0)]).await);
    assert_eq!((world.committed(0), world.left("GivenBack")), (None, 2));
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    assert_eq!(world.sent(), ["1", "late"]);
    world.finish().await;
}
