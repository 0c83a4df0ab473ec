//! What stops messages from flowing, whom it stops, and when they flow again.

use crate::world::{MILLISECOND, ROOMY, SECOND, Setup, World, input, partition, record};
use drakkar_api::{
    Context, ErrorAction, Event, Flow, Handler, Hook, HookResult, Message, Observer, Outputs,
    RawInput, Task, Window,
};
use drakkar_core::{EngineStatus, Thresholds};
use drakkar_testkit::{Answer, FakeRun, HookCall, Reaction, TestHandler};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Tasks that take a second, or as long as the test when their input is "stuck".
fn second(task: &Task, _attempt: u32) -> FakeRun {
    let text = input(task);
    let lasting = if text == "stuck" { SECOND * 100 } else { SECOND };
    FakeRun::success(text).lasting(lasting)
}

fn handed_over(world: &World) -> usize {
    world.source.handed_over().len()
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn the_flow_closes_at_the_high_mark_and_opens_at_the_low_one() {
    let setup = Setup::new(TestHandler::new()).tasks(2, second).config(|config| {
        config.window_size = 1;
        config.load_count = Thresholds { pause_at: 10, resume_at: 4 };
    });
    let setup = Setup { source: setup.source.clone().with_hand_over_max(1), ..setup };
    let world = setup.start(&["x"; 40]).await;
    world.until("the flow is closed", |w| w.source.flow() == Flow::Closed).await;
    assert!(world.status.is_backpressured());
    assert_eq!((handed_over(&world), world.status.load().count), (10, 10));
    world.until_seen("Backpressure", 3).await;
    // Six were done, so that four were left; then six more came.
    assert_eq!(handed_over(&world), 16);
    world.until_done().await;
    let events = world.seen.named("Backpressure");
    let active: Vec<_> = events.iter().map(|event| event.text.contains("active: true")).collect();
    assert!(active.chunks(2).all(|pair| pair == [true, false]), "{events:?}");
    assert!(events[0].text.contains("load: 10") && events[1].text.contains("load: 4"));
    assert_eq!(world.executor.active_max(), 2);
    world.finish().await;
}

// D11: the original looked about once a second whether it might go on, and its pool ran dry.
#[tokio::test(start_paused = true)]
async fn the_pool_never_runs_dry_under_backpressure() {
    let setup = Setup::new(TestHandler::new())
        .tasks(4, |_, _| FakeRun::exit(0).lasting(MILLISECOND * 10))
        .config(|config| config.load_count = Thresholds { pause_at: 32, resume_at: 16 });
    let world = setup.start(&["x"; 400]).await;
    let began = tokio::time::Instant::now();
    world.until("all are finished", |w| w.ends().len() == 400).await;
    let best = Duration::from_millis(10 * 400 / 4);
    assert!(began.elapsed() < best + best / 10, "{:?}", began.elapsed());
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn messages_in_their_last_hooks_and_deliveries_count() {
    let handler = TestHandler::new()
        .with_message_complete(|_, _| Ok(Outputs::new().with(record("m"))))
        .with_slow(Hook::OnMessageComplete, SECOND * 5);
    let setup = Setup::new(handler)
        .config(|config| config.load_count = Thresholds { pause_at: 8, resume_at: 2 })
        .sink(|sink| sink.react_with(|_| Reaction::confirm().taking(SECOND * 5)));
    let setup = Setup { source: setup.source.clone().with_hand_over_max(1), ..setup };
    let world = setup.start(&["x"; 20]).await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!((handed_over(&world), world.status.load().count), (8, 8), "in the hook");
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!((handed_over(&world), world.status.load().count), (8, 8), "in delivery");
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn bytes_of_messages_outputs_and_payloads_close_the_flow() {
    let handler = TestHandler::new()
        .with_arrange(|window, _| Ok(window.messages().map(Task::for_message).collect()))
        .with_task_complete(|_, _| Ok(Outputs::new().with(record([b'p'; 5000]))))
        .with_slow(Hook::OnTaskComplete, SECOND);
    let setup = Setup::new(handler)
        .config(|config| {
            config.load_bytes = Thresholds { pause_at: 10_000, resume_at: 5_000 };
            config.window_size = 1;
        })
        .tasks(8, |_, _| FakeRun::success(vec![b'o'; 3000]).lasting(SECOND))
        .sink(|sink| sink.react_with(|_| Reaction::confirm().taking(SECOND)));
    let setup = Setup { source: setup.source.clone().with_hand_over_max(1), ..setup };
    let large = "m".repeat(2000);
    let world = setup.start(&[large.as_str(); 5]).await;
    tokio::time::sleep(MILLISECOND * 500).await;
    assert_eq!(world.status.load().bytes, 10_000, "five messages");
    assert_eq!(world.source.flow(), Flow::Closed);
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.status.load().bytes, 25_000, "and what their tasks put out");
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.status.load().bytes, 50_000, "and their payloads");
    world.until_done().await;
    assert_eq!(world.source.flow(), Flow::Open);
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn what_tasks_are_given_counts_too() {
    let handler = TestHandler::new().with_arrange(|window, _| {
        Ok(window.messages().map(|m| Task::for_message(m).stdin(vec![b'i'; 70_000])).collect())
    });
    let setup = Setup::new(handler).tasks(8, |_, _| FakeRun::exit(0).lasting(SECOND));
    let world = setup.start(&["a", "b"]).await;
    world.until_seen("TaskStarted", 2).await;
    assert_eq!(world.status.load().bytes, 140_002);
    world.until_done().await;
    world.finish().await;
}

/// Asks the engine while it is told of something.
struct Asking {
    status: Arc<OnceLock<EngineStatus>>,
    heard: Arc<AtomicUsize>,
}

impl Observer for Asking {
    fn observe(&self, event: &Event<'_>) {
        if let (Event::Backpressure { load, .. }, Some(status)) = (event, self.status.get()) {
            self.heard.fetch_add(1, Ordering::Relaxed);
            assert!(status.load().count <= load + 1 && status.assigned() == 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_ask_the_engine_for_its_state() {
    let (status, heard) = (Arc::default(), Arc::<AtomicUsize>::default());
    let asking = Asking { status: Arc::clone(&status), heard: Arc::clone(&heard) };
    let mut setup =
        Setup::new(TestHandler::new()).tasks(1, |_, _| FakeRun::exit(0).lasting(SECOND));
    setup.observer = Some(Arc::new(asking));
    let setup = setup.config(|config| config.load_count = Thresholds { pause_at: 2, resume_at: 1 });
    let world = setup.start(&[]).await;
    assert!(status.set(world.status.clone()).is_ok());
    world.produce(0, &["a", "b", "c"]);
    world.until_done().await;
    assert!(heard.load(Ordering::Relaxed) >= 2);
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn what_tasks_carry_for_later_hooks_counts_too() {
    let handler = TestHandler::new().with_arrange(|window, _| {
        let task =
            |m| Task::for_message(m).meta("document", "d".repeat(50_000)).label("l", "12345");
        Ok(window.messages().map(task).collect())
    });
    let setup = Setup::new(handler).tasks(8, |_, _| FakeRun::exit(0).lasting(SECOND));
    let world = setup.start(&["a"]).await;
    world.until_seen("TaskStarted", 1).await;
    assert_eq!(world.status.load().bytes, 50_000 + "document".len() + "l12345".len() + "a".len());
    world.until_done().await;
    world.finish().await;
}

/// Each task is given 3000 bytes; nothing is arranged beyond 10,000 until 5000 are left.
fn heavy() -> Setup<TestHandler> {
    let handler = TestHandler::new().with_arrange(|window, _| {
        Ok(window.messages().map(|m| Task::for_message(m).stdin(vec![b'i'; 3000])).collect())
    });
    Setup::new(handler)
        .config(|config| {
            config.load_bytes = Thresholds { pause_at: 10_000, resume_at: 5_000 };
            config.window_size = 1;
            config.buffer_messages = 30;
        })
        .tasks(8, |_, _| FakeRun::exit(0).lasting(SECOND))
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn bytes_at_the_high_mark_stop_windows_of_what_is_buffered_too() {
    let world = heavy().start(&["x"; 20]).await;
    world.until("the buffer is full", |w| handed_over(w) == 20).await;
    tokio::time::sleep(MILLISECOND * 500).await;
    let arranged = world.hooks.count(Hook::Arrange);
    assert!((4..=5).contains(&arranged), "four are enough, a fifth may be under way: {arranged}");
    for _ in 0..40 {
        tokio::time::sleep(MILLISECOND * 100).await;
        let bytes = world.status.load().bytes;
        assert!(bytes <= 10_000 + 2 * 3001 + 20, "{bytes}");
    }
    world.until_done().await;
    assert_eq!(world.hooks.count(Hook::Arrange), 20);
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn a_partition_that_waits_for_room_hears_when_another_makes_it() {
    let handler = TestHandler::new()
        .with_arrange(|window, _| {
            let task = |m: &Message<RawInput>| {
                let bytes = if m.partition() == &partition(0) { 3000 } else { 0 };
                Task::for_message(m).stdin(vec![b'i'; bytes])
            };
            Ok(window.messages().map(task).collect())
        })
        .with_slow(Hook::Arrange, MILLISECOND * 500);
    let setup = Setup::new(handler)
        .config(|config| {
            config.load_bytes = Thresholds { pause_at: 10_000, resume_at: 5_000 };
            config.window_size = 4;
        })
        .tasks(8, |task, _| {
            FakeRun::exit(0).lasting(if input(task).is_empty() { MILLISECOND } else { SECOND * 5 })
        });
    let world = setup.start(&["x"; 4]).await;
    world.until("its window is being arranged", |w| w.hooks.count(Hook::Arrange) == 1).await;
    tokio::time::sleep(MILLISECOND * 100).await;
    world.produce(1, &["x"; 8]);
    world.source.assign(&[partition(1)]);
    tokio::time::sleep(SECOND * 4).await;
    assert_eq!(world.committed(1), Some(4), "the first window was under way");
    world.until_committed(1, 8).await;
    world.until_done().await;
    world.finish().await;
}

/// Each message becomes ten tasks of a second; more than 32 tasks are too many.
fn fanning_out() -> Setup<TestHandler> {
    let handler = TestHandler::new().with_arrange(|window, _| {
        let tasks = |m: &Message<RawInput>| {
            let offset = m.offset();
            (0..10).map(move |_| Task::for_offset(offset)).collect::<Vec<_>>()
        };
        Ok(window.messages().flat_map(tasks).collect())
    });
    Setup::new(handler)
        .config(|config| {
            config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
            config.window_size = 1;
            config.buffer_messages = 30;
        })
        .tasks(8, |_, _| FakeRun::exit(0).lasting(SECOND))
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn tasks_at_the_high_mark_stop_windows_of_what_is_buffered_too() {
    let world = fanning_out().start(&["x"; 30]).await;
    let mut most = 0;
    while world.committed(0) != Some(30) {
        tokio::time::sleep(MILLISECOND * 100).await;
        let load = world.status.load();
        most = most.max(load.working_count);
        assert!(load.working_count <= 32 + 10, "{load:?}");
        assert!(load.working_count >= 8 || load.count == load.working_count, "dry: {load:?}");
    }
    assert!(most >= 32, "{most}");
    assert_eq!(world.executor.records().len(), 300);
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn undelivered_payloads_stop_messages_and_windows() {
    let handler = TestHandler::new().with_task_complete(|_, _| {
        Ok((0..50).fold(Outputs::new(), |outputs, _| outputs.with(record("p"))))
    });
    let setup = Setup::new(handler)
        .config(|config| {
            config.load_count = ROOMY;
            config.load_payloads = Thresholds { pause_at: 200, resume_at: 100 };
            config.window_size = 1;
            config.buffer_messages = 20;
        })
        .sink(|sink| sink.react_with(|_| Reaction::confirm().taking(SECOND)));
    let world = setup.start(&["x"; 40]).await;
    let mut most = 0;
    while world.committed(0) != Some(40) {
        tokio::time::sleep(MILLISECOND * 50).await;
        let load = world.status.load();
        most = most.max(load.payloads);
        // Two windows may be under way when the mark is reached.
        assert!(load.payloads <= 200 + 2 * 50, "{load:?}");
    }
    assert!(most >= 200, "{most}");
    assert_eq!(world.status.load().payloads, 0);
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn dead_letters_that_cannot_be_written_stop_messages_and_windows() {
    let setup = Setup::new(TestHandler::new())
        .config(|config| {
            config.load_count = Thresholds { pause_at: 16, resume_at: 4 };
            config.window_size = 4;
            config.buffer_messages = 40;
        })
        .tasks(8, |_, _| FakeRun::exit(1))
        .letters(|letters| {
            letters.react_with(|offers| Reaction::answers(offers.iter().map(|_| Answer::refused())))
        });
    let world = setup.start(&["x"; 200]).await;
    tokio::time::sleep(SECOND * 60).await;
    let load = world.status.load();
    assert!((16..=16 + 4).contains(&load.working_count), "{load:?}");
    assert!(handed_over(&world) <= 20 + 40, "{}", handed_over(&world));
    assert_eq!((world.source.flow(), world.committed(0)), (Flow::Closed, None));
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn outputs_that_are_still_to_come_stop_windows_too() {
    let setup = Setup::new(TestHandler::new()).config(|config| {
        config.load_count = ROOMY;
        config.load_bytes = Thresholds { pause_at: 20_000, resume_at: 10_000 };
        config.window_size = 2;
    });
    let setup = setup.tasks(4, |_, _| FakeRun::success(vec![b'o'; 1000]).lasting(SECOND));
    let world = setup.start(&["x"; 8]).await;
    world.until("the first have ended", |w| w.ends().len() >= 4).await;
    world.produce(0, &["x"; 180]);
    world.until("they are there", |w| handed_over(w) == 188).await;
    tokio::time::sleep(MILLISECOND * 10).await;
    let tasks = world.status.load().working_count;
    assert!((20..=60).contains(&tasks), "as many as the mark has room for: {tasks}");
    // A partition that has no window gets one, of a single message.
    world.produce(1, &["x"; 4]);
    world.source.assign(&[partition(1)]);
    let first_window = |w: &World| {
        let is_it = |it: &&HookCall| it.hook == Hook::Arrange && it.partition == Some(partition(1));
        w.hooks.all().iter().find(is_it).map(|call| call.offsets.len())
    };
    world.until("it is arranged", |w| first_window(w).is_some()).await;
    assert_eq!(first_window(&world), Some(1));
    world.until_committed(1, 4).await;
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3, FT-1
#[tokio::test(start_paused = true)]
async fn a_partition_without_a_window_is_admitted_one_whatever_another_made() {
    let handler = TestHandler::new()
        .with_arrange(|window, _| {
            let tasks = |m: &Message<RawInput>| {
                let is_heavy = m.partition() == &partition(0);
                let (count, text) = if is_heavy { (40, "fails") } else { (1, "") };
                let offset = m.offset();
                (0..count).map(move |_| Task::for_offset(offset).stdin(text)).collect::<Vec<_>>()
            };
            Ok(window.messages().flat_map(tasks).collect())
        })
        .with_slow(Hook::Arrange, MILLISECOND * 100)
        .with_error(|_, _| Ok(ErrorAction::RetryAfter(SECOND * 100)));
    let setup = Setup::new(handler)
        .config(|config| {
            config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
            config.window_size = 1;
        })
        .tasks(8, |task, attempt| match (input(task).as_str(), attempt) {
            ("fails", 1) => FakeRun::exit(1),
            _ => FakeRun::exit(0).lasting(MILLISECOND),
        });
    let world = setup.start(&["x"]).await;
    world.produce(1, &["x"; 5]);
    world.source.assign(&[partition(1)]);
    world.until_committed(1, 5).await;
    let load = world.status.load();
    assert_eq!((load.working_count, world.committed(0)), (40, None), "{load:?}");
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn what_waits_in_buffers_alone_never_stops_windows() {
    let setup = Setup::new(TestHandler::new()).config(|config| {
        config.load_bytes = Thresholds { pause_at: 10_000, resume_at: 5_000 };
        config.window_size = 1;
    });
    let large = "x".repeat(9_000);
    let world = setup.start(&[large.as_str(); 3]).await;
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn a_partition_is_given_no_more_than_fits_into_its_buffer() {
    let handler = TestHandler::new().with_slow(Hook::Arrange, SECOND * 10);
    let setup = Setup::new(handler).config(|config| {
        config.window_size = 2;
        config.buffer_messages = 8;
        config.load_count = ROOMY;
    });
    let world = setup.start(&["x"; 30]).await;
    world.until_seen("Consumed", 1).await;
    tokio::time::sleep(SECOND * 5).await;
    // Two are being arranged, eight wait.
    assert_eq!(handed_over(&world), 10);
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(handed_over(&world), 12);
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn a_partition_is_given_no_more_bytes_than_fit_into_its_buffer_and_one_message() {
    let handler = TestHandler::new().with_slow(Hook::Arrange, SECOND * 10);
    let setup = Setup::new(handler).config(|config| {
        config.window_size = 1;
        config.buffer_bytes = 5000;
        config.load_count = ROOMY;
    });
    let large = "x".repeat(2000);
    let world = setup.start(&[large.as_str(); 20]).await;
    world.until_seen("Consumed", 1).await;
    tokio::time::sleep(SECOND * 5).await;
    let held = handed_over(&world);
    assert!((3..=4).contains(&held), "{held}");
    tokio::time::sleep(SECOND * 60).await;
    let queued = handed_over(&world) - world.ends().len() - 1;
    assert!(queued <= 4, "{queued}");
    world.until_done().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_buffer_passes() {
    let setup = Setup::new(TestHandler::new()).config(|config| config.buffer_bytes = 1024);
    let huge = "x".repeat(10_000);
    let world = setup.start(&[huge.as_str(), "a", huge.as_str(), "b"]).await;
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-3, FT-1
#[tokio::test(start_paused = true)]
async fn a_partition_is_not_read_too_far_beyond_an_unfinished_offset() {
    let setup = Setup::new(TestHandler::new()).tasks(8, second).config(|config| {
        config.window_size = 10;
        config.buffer_messages = 20;
        config.ahead_max = 50;
    });
    let world = setup.start(&["first"]).await;
    world.until_done().await;
    world.produce(0, &["stuck"]);
    world.produce(0, &["x"; 200]);
    world.until("49 others are finished", |w| w.ends().len() == 50).await;
    tokio::time::sleep(SECOND * 20).await;
    assert_eq!(world.ends().len(), 50, "fifty offsets are open or wait for the first of them");
    assert!(handed_over(&world) <= 1 + 50 + 20, "{}", handed_over(&world));
    let stalls = world.seen.named("PartitionFailed");
    assert_eq!(stalls.len(), 1, "it is said once");
    let text = &stalls[0].text;
    assert!(text.contains("stalled: offset 1 is unfinished, "), "{text}");
    assert!(text.contains("(kafka.max_ahead_offsets)"), "{text}");
    world.seen.clear();
    world.until_done().await;
    world.finish().await;
}

// Promise: FT-1, FT-3
#[tokio::test(start_paused = true)]
async fn a_blocked_partition_does_not_stop_the_others() {
    let setup = Setup::new(TestHandler::new()).tasks(8, second).config(|config| {
        config.window_size = 10;
        config.buffer_messages = 40;
        config.ahead_max = 20;
        config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
    });
    let world = setup.start(&["first"]).await;
    world.until_done().await;
    world.produce(0, &["stuck"]);
    world.produce(0, &["x"; 200]);
    world.until_seen("PartitionFailed", 1).await;
    tokio::time::sleep(SECOND * 5).await;
    world.produce(1, &["x"; 100]);
    world.source.assign(&[partition(1)]);
    let began = tokio::time::Instant::now();
    world.until_committed(1, 100).await;
    assert!(began.elapsed() < SECOND * 30, "{:?}", began.elapsed());
    assert_eq!(world.committed(0), Some(1), "it is still blocked");
    world.seen.clear();
    world.until_done().await;
    assert_eq!(world.seen.count("PartitionRecovered"), 1, "what was reported is taken back");
    world.finish().await;
}

/// Its `arrange` does not answer for partition 0.
struct Hanging;

impl Handler for Hanging {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        if window.partition() == &partition(0) {
            std::future::pending::<()>().await;
        }
        Ok(window.messages().map(Task::for_message).collect())
    }
}

// Promise: FT-1, RB-3
#[tokio::test(start_paused = true)]
async fn an_arrange_that_hangs_does_not_stop_the_other_partitions() {
    let setup = Setup::of(Hanging).tasks(8, second).config(|config| {
        config.window_size = 10;
        config.buffer_messages = 40;
        config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
    });
    let world = setup.start(&["x"; 200]).await;
    world.until("the flow is closed", |w| w.source.flow() == Flow::Closed).await;
    let load = world.status.load().count;
    assert!(load >= 32, "its messages count at first: {load}");
    world.produce(1, &["x"; 100]);
    world.source.assign(&[partition(1)]);
    let began = tokio::time::Instant::now();
    world.until_committed(1, 100).await;
    assert!(began.elapsed() < SECOND * 30, "{:?}", began.elapsed());
    assert!(handed_over(&world) <= 10 + 40 + 100, "its buffer bounds it");
    let load = world.status.load();
    assert_eq!((load.count, load.total), (0, 10 + 40), "left out, and still there");
    assert!(world.source.revoke(&[partition(0)]).await);
    assert_eq!((world.committed(0), world.status.load().count), (None, 0));
    world.finish().await;
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn too_many_open_windows_stop_their_partition_only() {
    let setup = Setup::new(TestHandler::new()).tasks(8, second).config(|config| {
        config.window_size = 1;
        config.buffer_messages = 40;
        config.open_windows_max = 3;
        config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
    });
    let world = setup.start(&["stuck", "stuck", "stuck"]).await;
    world.produce(0, &["x"; 100]);
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(world.hooks.count(Hook::Arrange), 3);
    world.produce(1, &["x"; 50]);
    world.source.assign(&[partition(1)]);
    world.until_committed(1, 50).await;
    assert_eq!(world.hooks.count(Hook::Arrange), 53);
    world.until_done().await;
    world.finish().await;
}
