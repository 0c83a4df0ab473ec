//! When hooks are called, how often, and what they hold back.

use crate::world::{MILLISECOND, SECOND, Setup, input, partition, record};
use drakkar_api::{
    Context, Handler, Hook, HookResult, Message, Offset, Outputs, RawInput, Task, TaskOutput,
    Window,
};
use drakkar_testkit::{FakeRun, Reaction, TestHandler};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The tasks whose input is "slow" take ten seconds.
fn slowly(task: &Task, _attempt: u32) -> FakeRun {
    match input(task).as_str() {
        "slow" => FakeRun::success("slow").lasting(SECOND * 10),
        text => FakeRun::success(text.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn every_hook_is_called_once_for_what_it_is_about() {
    let handler = TestHandler::new()
        .with_task_complete(|done, _| Ok(Outputs::new().with(record(done.stdout()))))
        .with_message_complete(|_, _| Ok(Outputs::new().with(record("message"))))
        .with_window_complete(|_, _| Ok(Outputs::new().with(record("window"))));
    let setup = Setup::new(handler).config(|config| config.window_size = 2);
    let world = setup.start(&["a", "b", "c"]).await;
    world.until_done().await;
    let offsets = |hook| {
        let calls = world.hooks.all().into_iter().filter(move |call| call.hook == hook);
        let mut offsets: Vec<_> =
            calls.map(|call| call.offsets.iter().map(|o| o.get()).collect::<Vec<_>>()).collect();
        offsets.sort_unstable();
        offsets
    };
    assert_eq!(offsets(Hook::Arrange), [vec![0, 1], vec![2]]);
    assert_eq!(offsets(Hook::OnTaskComplete), [[0], [1], [2]]);
    assert_eq!(offsets(Hook::OnMessageComplete), [[0], [1], [2]]);
    assert_eq!(offsets(Hook::OnWindowComplete), [vec![0, 1], vec![2]]);
    let count = |hook| world.hooks.count(hook);
    assert_eq!([Hook::OnReady, Hook::OnAssign, Hook::OnRevoke].map(count), [1, 1, 0]);
    assert!(world.hooks.all().iter().all(|call| {
        call.partition.is_some()
            != matches!(call.hook, Hook::OnReady | Hook::OnAssign | Hook::OnRevoke)
    }));
    world.finish().await;
}

// Promise: DL-2
#[tokio::test(start_paused = true)]
async fn the_order_is_task_then_message_then_window_then_commit() {
    let handler = TestHandler::new()
        .with_task_complete(|_, _| Ok(Outputs::new().with(record("task"))))
        .with_message_complete(|_, _| Ok(Outputs::new().with(record("message"))))
        .with_window_complete(|_, _| Ok(Outputs::new().with(record("window"))));
    let setup =
        Setup::new(handler).sink(|sink| sink.react_with(|_| Reaction::confirm().taking(SECOND)));
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.sent(), ["task", "message", "window"]);
    let calls = world.sink.calls();
    assert!(calls.windows(2).all(|pair| pair[0].ended.expect("over") <= pair[1].began));
    let names = world.seen.names();
    let at = |name: &str| names.iter().position(|known| known == name).expect("it happened");
    let order =
        ["Assigned", "Consumed", "Arranged", "TaskScheduled", "TaskStarted", "TaskFinished"];
    let order =
        order.into_iter().chain(["Delivered", "MessageFinished", "WindowFinished", "Committed"]);
    let order: Vec<_> = order.map(at).collect();
    assert!(order.is_sorted(), "{names:?}");
    world.finish().await;
}

// Promise: DL-2
#[tokio::test(start_paused = true)]
async fn without_a_window_hook_a_slow_task_does_not_hold_back_what_came_before() {
    let setup = Setup::new(TestHandler::new()).tasks(4, slowly);
    // That this handler's closure is not set shows at the end of the first window.
    let world = setup.start(&["first"]).await;
    world.until_done().await;
    world.produce(0, &["a", "b", "slow", "c"]);
    world.until_committed(0, 3).await;
    assert_eq!(world.executor.records().iter().filter(|run| run.outcome.is_none()).count(), 1);
    world.until_done().await;
    assert_eq!(world.commits(0), [1, 3, 5]);
    world.finish().await;
}

/// A handler that writes no window hook, as its type shows.
struct Echo;

impl Handler for Echo {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _: &Context) -> HookResult<Vec<Task>> {
        let task = |message: &Message<RawInput>| {
            Task::for_message(message).stdin(message.value().cloned().unwrap_or_default())
        };
        Ok(window.messages().map(task).collect())
    }
}

// Promise: DL-2
#[tokio::test(start_paused = true)]
async fn without_a_window_hook_even_the_first_window_commits_message_by_message() {
    let world = Setup::of(Echo).tasks(4, slowly).start(&["a", "b", "slow", "c"]).await;
    world.until_committed(0, 2).await;
    assert_eq!(world.executor.records().iter().filter(|run| run.outcome.is_none()).count(), 1);
    world.until_done().await;
    world.finish().await;
}

// Promise: DL-2
#[tokio::test(start_paused = true)]
async fn what_one_partition_learnt_about_hooks_holds_for_the_next() {
    let setup = Setup::new(TestHandler::new()).tasks(4, slowly);
    let world = setup.start(&["first"]).await;
    world.until_done().await;
    world.produce(1, &["a", "slow"]);
    world.source.assign(&[partition(1)]);
    world.until_committed(1, 1).await;
    world.until_committed(1, 2).await;
    world.finish().await;
}

// Promise: DL-2
#[tokio::test(start_paused = true)]
async fn without_a_window_hook_nothing_is_retained_for_it() {
    let handler = TestHandler::new().with_arrange(|window, _| {
        Ok(window
            .messages()
            .map(|m| Task::for_message(m).stdin(m.value().cloned().unwrap_or_default()))
            .collect())
    });
    let setup = Setup::new(handler).tasks(4, |task, _| match input(task).as_str() {
        "slow" => FakeRun::exit(0).lasting(SECOND * 10),
        _ => FakeRun::success(vec![b'x'; 100_000]),
    });
    let world = setup.start(&["first"]).await;
    world.until_done().await;
    world.produce(0, &["a", "b", "c", "slow"]);
    world.until("three tasks are done", |w| w.ends().len() == 4).await;
    assert!(world.status.load().bytes < 1000, "{:?}", world.status.load());
    world.until_done().await;
    world.finish().await;
}

// Promise: DL-2, DL-1
#[tokio::test(start_paused = true)]
async fn a_window_hook_holds_all_offsets_until_its_outputs_are_confirmed() {
    let handler = TestHandler::new().with_window_complete(|window, _| {
        let text = format!("sum of {}", window.messages.len());
        Ok(Outputs::new().with(record(text)))
    });
    let setup = Setup::new(handler).tasks(4, slowly).config(|config| config.window_size = 3);
    let setup = setup.sink(|sink| {
        sink.react_with(|offers| match offers[0].payload.value.as_deref() {
            Some(b"sum of 3") => Reaction::confirm().taking(SECOND * 30),
            _ => Reaction::confirm(),
        })
    });
    let world = setup.start(&["a", "slow", "b", "next"]).await;
    world.until("both sums are under way", |w| w.sink.calls().len() == 2).await;
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!((world.committed(0), world.ends()), (None, vec![(3, "Completed")]));
    world.until_done().await;
    assert_eq!(world.commits(0), [4]);
    assert_eq!(world.sent(), ["sum of 1", "sum of 3"]);
    world.finish().await;
}

// Promise: DL-2
#[tokio::test(start_paused = true)]
async fn results_that_a_window_hook_waits_for_count_as_held_bytes() {
    let handler = TestHandler::new().with_window_complete(|_, _| Ok(Outputs::new()));
    let setup = Setup::new(handler).tasks(4, |task, _| match input(task).as_str() {
        "slow" => FakeRun::exit(0).lasting(SECOND * 10),
        _ => FakeRun::success(vec![b'x'; 100_000]),
    });
    let world = setup.start(&["a", "b", "slow"]).await;
    world.until_seen("TaskFinished", 2).await;
    tokio::time::sleep(SECOND).await;
    let bytes = world.status.load().bytes;
    assert!((200_000..201_000).contains(&bytes), "{bytes}");
    world.until_done().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn arrange_takes_one_window_at_a_time_and_does_not_wait_for_tasks() {
    let running = Arc::new(AtomicUsize::new(0));
    let (enter, leave) = (Arc::clone(&running), running);
    let handler =
        TestHandler::new().with_slow(Hook::Arrange, SECOND).with_arrange(move |window, _| {
            assert_eq!(enter.fetch_add(1, Ordering::SeqCst), 0);
            leave.fetch_sub(1, Ordering::SeqCst);
            Ok(window.messages().map(Task::for_message).collect())
        });
    let setup = Setup::new(handler)
        .config(|config| config.window_size = 1)
        .tasks(8, |_, _| FakeRun::exit(0).lasting(SECOND * 20));
    let world = setup.start(&["a", "b", "c"]).await;
    world.until("all tasks run side by side", |w| w.executor.active_max() == 3).await;
    let arranged: Vec<_> = world
        .hooks
        .all()
        .into_iter()
        .filter(|call| call.hook == Hook::Arrange)
        .flat_map(|call| call.offsets)
        .collect();
    assert_eq!(arranged, [0, 1, 2].map(Offset::new), "in offset order");
    world.until_done().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn hooks_of_one_window_run_side_by_side() {
    let handler = TestHandler::new()
        .with_task_complete(|_, _| Ok(Outputs::new()))
        .with_slow(Hook::OnTaskComplete, SECOND * 5);
    let values = vec!["x"; 50];
    let world = Setup::new(handler).tasks(50, |_, _| FakeRun::exit(0)).start(&values).await;
    let began = tokio::time::Instant::now();
    world.until_done().await;
    assert!(began.elapsed() < SECOND * 7, "{:?}", began.elapsed());
    world.finish().await;
}

/// Sees contexts of all hooks.
struct Places;

impl Handler for Places {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, cx: &Context) -> HookResult<Vec<Task>> {
        assert_eq!(cx.partition(), Some(window.partition()));
        assert_eq!(cx.window(), Some(window.id()));
        assert_eq!(
            (cx.worker_id().as_str(), cx.consumer_group(), cx.is_probe()),
            ("w1", "g", false)
        );
        let labels: Vec<_> = window.messages().map(Message::label).collect();
        assert_eq!(labels, ["0:0", "0:1"]);
        Ok(window.messages().map(Task::for_message).collect())
    }

    async fn on_task_complete(&self, _done: &TaskOutput, cx: &Context) -> HookResult<Outputs> {
        assert_eq!(cx.partition(), Some(&partition(0)));
        assert_eq!(cx.window().map(drakkar_api::WindowId::get), Some(1));
        Ok(Outputs::new())
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_are_told_where_they_are() {
    let world = Setup::of(Places).start(&["a", "b"]).await;
    world.until_done().await;
    assert_eq!(world.failures(), [""; 0]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn priorities_decide_which_task_starts_first() {
    let handler = TestHandler::new()
        .with_priority(|task| drakkar_api::Priority::new(-task.source_offsets[0].get()));
    let setup = Setup::new(handler).tasks(1, |_, _| FakeRun::exit(0).lasting(MILLISECOND));
    let world = setup.start(&["a", "b", "c"]).await;
    world.until_done().await;
    let started = world.seen.named("TaskStarted").into_iter().filter_map(|event| event.offset);
    assert_eq!(started.collect::<Vec<_>>(), [2, 1, 0].map(Offset::new));
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn the_error_of_a_hook_is_kept_up_to_a_length() {
    let handler = TestHandler::new().with_task_complete(|_, _| Err("e".repeat(100_000).into()));
    let world = Setup::new(handler).start(&["a"]).await;
    world.until_done().await;
    let text = world.seen.named("HookFailed")[0].text.len();
    assert!((8_000..9_000).contains(&text), "{text}");
    assert_eq!(world.letters().len(), 1);
    world.finish().await;
}
