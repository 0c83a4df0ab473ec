//! `arrange` and what belongs to it: repeated as a whole, then message by message, so that one
//! poisonous message harms nobody else.

use crate::world::{MILLISECOND, SECOND, Setup, broken, echo, input, record};
use drakkar_api::{
    Context, DecodeError, ErrorAction, Handler, Hook, HookResult, Message, Offset, Outputs,
    Priority, RawInput, SourceMessage, Task, TaskOutput, Window,
};
use drakkar_testkit::{FakeRun, TestHandler};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// One task per message, with its value as input.
fn tasks(window: &Window<RawInput>) -> Vec<Task> {
    let task =
        |m: &Message<RawInput>| Task::for_message(m).stdin(m.value().cloned().unwrap_or_default());
    window.messages().map(task).collect()
}

fn is_poison(message: &Message<RawInput>) -> bool {
    message.value().is_some_and(|value| value == "poison")
}

#[tokio::test(start_paused = true)]
async fn an_error_that_passes_costs_nothing_but_time() {
    let calls = AtomicUsize::new(0);
    let handler = echo().with_arrange(move |window, _| {
        if calls.fetch_add(1, Ordering::SeqCst) < 3 { broken(false) } else { Ok(tasks(window)) }
    });
    let began = Instant::now();
    let world = Setup::new(handler).start(&["a", "b"]).await;
    world.until("both are sent", |w| w.sent() == ["a", "b"]).await;
    // Three waits of 100, 200 and 400 ms, each shortened by at most half.
    let waited = began.elapsed();
    assert!(waited >= MILLISECOND * 350 && waited <= MILLISECOND * 710, "{waited:?}");
    world.until_done().await;
    let windows: Vec<_> =
        world.hooks.all().into_iter().filter(|c| c.hook == Hook::Arrange).collect();
    assert!(windows.len() == 4 && windows.iter().all(|call| call.offsets.len() == 2));
    assert_eq!(world.failures(), ["Arrange: boom"; 3]);
    assert_eq!(world.letters(), [""; 0]);
    world.finish().await;
}

// Promise: FT-1
// D1: in the original one such message stopped its partition for good, silently.
#[tokio::test(start_paused = true)]
async fn a_poisonous_message_is_dead_lettered_and_its_neighbours_go_on() {
    for panics in [false, true] {
        let handler = echo().with_arrange(move |window, _| {
            if window.messages().any(is_poison) { broken(panics) } else { Ok(tasks(window)) }
        });
        let world = Setup::new(handler).start(&["a", "poison", "b"]).await;
        world.until_done().await;
        world.produce(0, &["later"]);
        world.until_done().await;
        let class = if panics { "hook_panic" } else { "hook_error" };
        assert_eq!(world.letters(), [format!("message@1 {class} arrange x5: boom")]);
        assert_eq!(world.sent(), ["a", "b", "later"]);
        let calls = world.hooks.all().into_iter().filter(|call| call.hook == Hook::Arrange);
        let sizes: Vec<_> = calls.map(|call| call.offsets.len()).collect();
        assert_eq!(sizes, [3, 3, 3, 3, 1, 1, 1, 1]);
        assert_eq!(world.seen.count("Arranged"), 2);
        world.finish().await;
    }
}

/// Breaks in one of the synchronous hooks for the message "poison".
struct Poisoned {
    hook: Hook,
}

impl Poisoned {
    fn break_in(&self, hook: Hook, value: Option<&bytes::Bytes>) {
        assert!(self.hook != hook || value.is_none_or(|value| value != "poison"), "boom");
    }
}

impl Handler for Poisoned {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(tasks(window))
    }

    async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> HookResult<Outputs> {
        Ok(Outputs::new().with(record(done.stdout())))
    }

    fn decode(&self, message: &SourceMessage) -> Result<RawInput, DecodeError> {
        self.break_in(Hook::Decode, message.value.as_ref());
        Ok(RawInput(message.value.clone().unwrap_or_default()))
    }

    fn message_label(&self, message: &Message<RawInput>) -> String {
        self.break_in(Hook::MessageLabel, message.value());
        String::new()
    }

    fn task_priority(&self, task: &Task) -> Priority {
        self.break_in(Hook::TaskPriority, task.stdin.as_ref());
        Priority::default()
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_panic_while_decoding_labelling_or_ranking_names_its_hook() {
    for hook in [Hook::Decode, Hook::MessageLabel, Hook::TaskPriority] {
        let world = Setup::of(Poisoned { hook }).start(&["a", "poison", "b"]).await;
        world.until_done().await;
        assert_eq!(world.letters(), [format!("message@1 hook_panic {hook} x5: boom")]);
        assert_eq!(world.letter(1).value.as_deref(), Some(&b"poison"[..]));
        assert_eq!(world.sent(), ["a", "b"]);
        assert!(world.failures().iter().all(|failure| *failure == format!("{hook:?}: boom")));
        world.finish().await;
    }
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn too_many_tasks_are_an_error_of_the_message_that_makes_them() {
    let handler = echo().with_arrange(|window, _| {
        let many = |m: &Message<RawInput>| if is_poison(m) { 11 } else { 6 };
        let tasks = |m: &Message<RawInput>| vec![Task::for_message(m); many(m)];
        Ok(window.messages().flat_map(tasks).collect())
    });
    let setup = Setup::new(handler).config(|config| config.window_tasks_max = 10);
    let world = setup.start(&["a", "poison", "b"]).await;
    world.until_done().await;
    assert_eq!(
        world.letters(),
        ["message@1 hook_error arrange x5: arrange returned 11 tasks for one window, \
          the limit is 10 (executor.max_tasks_per_window)"],
        "those within the limit are not harmed by their neighbours"
    );
    assert_eq!(world.sent().len(), 12);
    world.finish().await;
}

/// Six tasks for each message, so that two messages make more than the limit of ten.
fn six_each(handler: TestHandler) -> Setup<TestHandler> {
    let handler = handler.with_arrange(|window, _| {
        Ok(window.messages().flat_map(|m| vec![Task::for_message(m); 6]).collect())
    });
    let setup = Setup::new(handler).tasks(4, |_, _| FakeRun::exit(0).lasting(SECOND));
    setup.config(|config| config.window_tasks_max = 10)
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn a_window_taken_message_by_message_never_has_more_open_tasks_than_one_may_have() {
    for has_window_hook in [false, true] {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&sizes);
        let handler = match has_window_hook {
            false => TestHandler::new(),
            true => TestHandler::new().with_window_complete(move |window, _| {
                let size = (window.messages.len(), window.results.len());
                log.lock().expect("no panic").push(size);
                Ok(Outputs::new())
            }),
        };
        let world = six_each(handler).start(&["a", "b", "c", "d", "e"]).await;
        world.until_done().await;
        let (mut open, mut most) = (0, 0);
        for name in world.seen.names() {
            match name.as_str() {
                "TaskScheduled" => open += 1,
                "TaskFinished" => open -= 1,
                _ => {}
            }
            most = most.max(open);
        }
        assert!((6..=10).contains(&most), "{most}");
        assert_eq!((world.executor.records().len(), world.letters().len()), (30, 0));
        if has_window_hook {
            assert_eq!(*sizes.lock().expect("no panic"), [(1, 6); 5], "it was divided");
        }
        world.finish().await;
    }
}

// Promise: FT-3, RB-1
#[tokio::test(start_paused = true)]
async fn what_waits_for_room_for_its_tasks_is_given_back() {
    let world = six_each(TestHandler::new()).start(&["a", "b", "c"]).await;
    world.until_run(1).await;
    assert!(world.source.revoke(&[crate::world::partition(0)]).await);
    assert_eq!((world.committed(0), world.executor.records().len()), (Some(1), 6));
    world.source.assign(&[crate::world::partition(0)]);
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-1, RB-1
#[tokio::test(start_paused = true)]
async fn a_task_for_what_is_left_of_a_divided_window_is_refused() {
    // The first message claims the last one too, which stays behind when the window is divided.
    let handler = TestHandler::new().with_arrange(|window, _| {
        let task = |m: &Message<RawInput>| match m.offset().get() {
            0 => Task::for_offsets([m.offset(), Offset::new(2)]),
            _ => Task::for_message(m),
        };
        let six = |m| (0..6).map(move |_| task(m).stdin("x"));
        Ok(window.messages().flat_map(six).collect())
    });
    let setup = Setup::new(handler).config(|config| config.window_tasks_max = 10);
    let world = setup.tasks(1, |_, _| FakeRun::success("").lasting(SECOND)).start(&["a", "b", "c"]);
    let world = world.await;
    world.until_run(1).await;
    assert!(world.source.revoke(&[crate::world::partition(0)]).await);
    assert_eq!(world.seen.count("PartitionFailed"), 0);
    world.source.assign(&[crate::world::partition(0)]);
    world.until_done().await;
    let letters = world.letters();
    assert!(!letters.is_empty(), "the message that made it is kept");
    let says = "a task names offset 2, which is not arranged yet: its window was divided";
    assert!(
        letters.iter().all(|text| text.starts_with("message@0 ") && text.contains(says)),
        "{letters:?}"
    );
    world.finish().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_with_one_unknown_offset_is_refused_as_a_whole() {
    let handler = echo().with_arrange(|window, _| {
        let offsets = |m: &Message<RawInput>| match is_poison(m) {
            true => vec![m.offset(), Offset::new(1000)],
            false => vec![m.offset()],
        };
        Ok(window.messages().map(|m| Task::for_offsets(offsets(m)).stdin("x")).collect())
    });
    let world = Setup::new(handler).start(&["a", "poison"]).await;
    world.until_done().await;
    let error = "a task names offset 1000, which is not an open message of this partition";
    assert_eq!(world.letters(), [format!("message@1 hook_error arrange x5: {error}")]);
    assert_eq!(world.sent(), ["x"]);
    assert_eq!(
        world.failures(),
        vec![
            format!("Arrange: {error}")
                .replace(", which is not an open message of this partition", "");
            5
        ]
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_for_a_message_that_is_finished_is_refused() {
    let handler = echo().with_arrange(|window, _| {
        let mut tasks = tasks(window);
        if window.id().get() == 2 {
            tasks.push(Task::for_offset(Offset::new(0)));
        }
        Ok(tasks)
    });
    let world = Setup::new(handler).start(&["a"]).await;
    world.until_done().await;
    world.produce(0, &["b"]);
    world.until_done().await;
    assert_eq!(world.ends(), [(0, "Completed"), (1, "DeadLettered")]);
    world.finish().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_for_a_message_that_finishes_before_the_window_is_arranged_is_refused() {
    // The second window is taken message by message. The task that its first message makes is for
    // offset 0, which is done while its second message is asked for.
    let handler = echo()
        .with_arrange(|window, _| match window.len() {
            1 => Ok(match tasks(window).remove(0) {
                task if window.messages().any(is_poison) => {
                    let offsets = [Offset::new(0)];
                    vec![Task::for_offsets(offsets).stdin("late"), task]
                }
                task => vec![task],
            }),
            _ => Err("one by one, please".into()),
        })
        .with_slow(Hook::Arrange, SECOND);
    let setup = Setup::new(handler)
        .config(|config| {
            config.on_failure.arrange_error.attempts_max = 1;
            config.window_size = 2;
        })
        .tasks(4, |task, _| FakeRun::success(input(task)).lasting(MILLISECOND * 2500));
    let world = setup.start(&["a"]).await;
    world.until("the first is being arranged", |w| w.hooks.count(Hook::Arrange) == 1).await;
    world.produce(0, &["poison", "b"]);
    world.until_done().await;
    let error = "a task names offset 0, which was settled before the task could start";
    assert_eq!(world.letters(), [format!("message@1 hook_error arrange x2: {error}")]);
    assert_eq!(world.ends(), [(0, "Completed"), (1, "DeadLettered"), (2, "Completed")]);
    assert_eq!(world.sent(), ["a", "b"]);
    assert!(world.failures().iter().any(|failure| failure.starts_with("Arrange: a task names")));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_window_that_waits_for_its_next_attempt_is_given_back() {
    let handler = TestHandler::new().with_arrange(|_, _| broken(false));
    let world = Setup::new(handler).start(&["a", "b"]).await;
    world.until_seen("HookFailed", 1).await;
    assert!(world.source.revoke(&[crate::world::partition(0)]).await);
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(world.hooks.count(Hook::Arrange), 1, "no attempt after the end");
    assert_eq!((world.committed(0), world.letters().len()), (None, 0));
    world.finish().await;
}

/// A replacement of the first window's task for a message of the second one, which is being
/// arranged.
fn reaching_ahead() -> TestHandler {
    TestHandler::new()
        .with_arrange(|window, _| Ok(tasks(window)))
        .with_slow(Hook::Arrange, SECOND)
        .with_error(|_, _| Ok(ErrorAction::Replace(vec![Task::for_offset(Offset::new(1)).id("r")])))
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_replacement_cannot_name_a_message_that_is_being_arranged() {
    for revoked in [false, true] {
        let setup = Setup::new(reaching_ahead()).config(|config| config.window_size = 1);
        let setup = setup.tasks(4, |task, _| match task.id.as_ref().map(|id| id.as_str()) {
            Some("r") => FakeRun::exit(0).lasting(SECOND * 3),
            _ => FakeRun::exit(1).lasting(SECOND / 2),
        });
        let world = setup.start(&["a", "b"]).await;
        world.until("on_error answered", |w| w.hooks.count(Hook::OnError) == 1).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        if revoked {
            assert!(world.source.revoke(&[crate::world::partition(0)]).await);
            assert_eq!(world.committed(0), Some(1));
        } else {
            world.until("the first is lettered", |w| !w.letters().is_empty()).await;
        }
        assert_eq!(
            world.letters()[0],
            "message@0 hook_error on_error x1: a task names offset 1, which is not an open message \
             of this partition"
        );
        world.finish().await;
    }
}
