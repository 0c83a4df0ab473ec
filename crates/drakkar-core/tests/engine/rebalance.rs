//! Partitions that come and go: drained, killed at the deadline, fenced, and given out again.

use crate::world::{
    BlockedClock, MILLISECOND, SECOND, Setup, World, broken, echo, input, partition, record,
};
use drakkar_api::{
    BatchLimits, Context, ErrorAction, Handler, Hook, HookResult, Message, Offset, Outputs,
    PartitionId, Precomputed, RawInput, Settlement, Task, TaskOutcome, TaskOutput, Window,
};
use drakkar_core::{Backoff, EngineConfig};
use drakkar_testkit::{CommitAnswer, FakeRun, Reaction, ScriptedSource, TestHandler};
use futures_util::FutureExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Tasks that take as many seconds as their input says.
fn seconds(task: &Task, _attempt: u32) -> FakeRun {
    let text = input(task);
    FakeRun::success(text.clone()).lasting(SECOND * text.parse().expect("a number"))
}

/// A world of that many slots which knows already that there is no window hook, and is done with
/// its first message.
async fn warm(setup: Setup<TestHandler>, slots: usize) -> World {
    let world = setup.tasks(slots, seconds).start(&["0"]).await;
    world.until_done().await;
    world
}

/// Revokes partitions, and answers whether that was in time and how long it took.
async fn revoke(world: &World, numbers: &[i32]) -> (bool, Duration) {
    let partitions: Vec<_> = numbers.iter().copied().map(partition).collect();
    let began = Instant::now();
    let in_time = world.source.revoke(&partitions).await;
    (in_time, began.elapsed())
}

/// Returns what of partition 0 was given back, in order.
fn given_back(world: &World) -> Vec<i64> {
    let settled = world.source.settlements().into_iter();
    let back = settled.filter(|(_, _, how)| *how == Settlement::GivenBack);
    let mut back: Vec<_> = back.map(|(_, offset, _)| offset.get()).collect();
    back.sort_unstable();
    back
}

/// Returns whether `lasted` is that many seconds, give or take the clock's grain.
fn about(lasted: Duration, seconds: u32) -> bool {
    lasted.abs_diff(SECOND * seconds) < MILLISECOND * 20
}

fn revoked(world: &World) -> String {
    let events = world.seen.named("Revoked");
    let text = &events.last().expect("a partition was revoked").text;
    let (_, rest) = text.split_once("clean: ").expect("the field is there");
    rest.split(", duration").next().unwrap_or_default().to_owned()
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_revoke_finishes_what_has_started_and_gives_the_rest_back() {
    let setup = Setup::new(echo()).config(|config| {
        config.window_size = 4;
        config.open_windows_max = 1;
    });
    let world = warm(setup, 2).await;
    world.produce(0, &["10", "10", "10", "10", "10", "10"]);
    world
        .until("two tasks run", |w| {
            w.executor.records().iter().filter(|r| r.started.is_some()).count() == 3
        })
        .await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 10), "{lasted:?}");
    assert_eq!(world.sent(), ["0", "10", "10"]);
    assert_eq!(world.committed(0), Some(3));
    assert_eq!(given_back(&world), [3, 4, 5, 6], "arranged ones and queued ones");
    assert_eq!(revoked(&world), "true, given_back: 4");
    let never_ran = world.executor.records().into_iter().filter(|run| run.started.is_none());
    assert!(never_ran.into_iter().all(|run| run.outcome == Some(TaskOutcome::Cancelled)));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_partition_of_which_nothing_has_started_is_given_back_at_once() {
    let world = warm(Setup::new(echo().with_slow(Hook::Arrange, SECOND)), 1).await;
    world.produce(0, &["0", "0"]);
    tokio::time::sleep(MILLISECOND * 10).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted < MILLISECOND * 5, "{lasted:?}");
    assert_eq!(given_back(&world), [1, 2]);
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!((world.sent().len(), world.committed(0)), (1, Some(1)));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_hangs_together_with_started_work_is_finished_too() {
    // Offset 1 starts first; its task is also for offset 3, so 2 must be finished as well.
    let handler = echo().with_arrange(|window, _| {
        let offsets: Vec<_> = window.messages().map(Message::offset).collect();
        let task = |offset: Offset| Task::for_offset(offset).stdin("5");
        let mut tasks: Vec<_> = offsets.iter().copied().map(task).collect();
        if let [first, _, third, ..] = offsets[..] {
            tasks[0] = Task::for_offsets([first, third]).stdin("5");
        }
        Ok(tasks)
    });
    let world = warm(Setup::new(handler), 1).await;
    world.produce(0, &["a", "b", "c", "d"]);
    world.until_run(2).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 15), "{lasted:?}");
    assert_eq!((world.committed(0), given_back(&world)), (Some(4), vec![4]));
    world.finish().await;
}

/// No task for "none", a precomputed one for "known", and for the others one with their value.
fn sparing() -> TestHandler {
    TestHandler::new().with_arrange(|window, _| {
        let task = |m: &Message<RawInput>| {
            let value = m.value().cloned().unwrap_or_default();
            let task = Task::for_message(m).stdin(value.clone());
            match &value[..] {
                b"none" => None,
                b"known" => Some(task.precomputed(Precomputed::stdout("known"))),
                _ => Some(task),
            }
        };
        Ok(window.messages().filter_map(task).collect())
    })
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_got_no_process_and_put_nothing_out_does_not_draw_the_line() {
    for later in ["none", "known"] {
        let world = warm(Setup::new(sparing()), 1).await;
        world.produce(0, &["10", "10", "10", later]);
        world.until_run(2).await;
        let (in_time, lasted) = revoke(&world, &[0]).await;
        assert!(in_time && about(lasted, 10), "{later}: {lasted:?}");
        assert_eq!((world.committed(0), given_back(&world)), (Some(2), vec![2, 3]), "{later}");
        world.source.assign(&[partition(0)]);
        world.until_done().await;
        world.finish().await;
    }
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_has_only_its_last_hook_left_is_given_back_without_its_outputs() {
    for later in ["none", "known"] {
        let handler = sparing()
            .with_message_complete(|group, _| {
                Ok(Outputs::new().with(record(group.message.offset().to_string())))
            })
            .with_slow(Hook::OnMessageComplete, SECOND * 2);
        let world = warm(Setup::new(handler), 1).await;
        world.produce(0, &["10", "5", later]);
        world
            .until("the last one completes", |w| w.hooks.count(Hook::OnMessageComplete) == 2)
            .await;
        let (in_time, lasted) = revoke(&world, &[0]).await;
        assert!(in_time && about(lasted, 12), "{later}: {lasted:?}");
        assert_eq!((world.committed(0), given_back(&world)), (Some(2), vec![2, 3]), "{later}");
        assert_eq!(world.sent(), ["0", "1"], "{later}");
        assert_eq!(revoked(&world), "true, given_back: 2");
        world.source.assign(&[partition(0)]);
        world.until_done().await;
        assert_eq!(world.sent(), ["0", "1", "3", "2"], "{later}");
        world.finish().await;
    }
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_was_put_out_or_dead_lettered_draws_the_line() {
    for precomputed in
        [Precomputed::stdout("known"), Precomputed { exit_code: 1, ..Precomputed::stdout("no") }]
    {
        let ends = precomputed.clone();
        let handler = echo().with_arrange(move |window, _| {
            let task = |m: &Message<RawInput>| {
                let value = m.value().cloned().unwrap_or_default();
                let task = Task::for_message(m).stdin(value.clone());
                if value == "known" { task.precomputed(ends.clone()) } else { task }
            };
            Ok(window.messages().map(task).collect())
        });
        let world = warm(Setup::new(handler), 1).await;
        world.produce(0, &["5", "5", "known", "5"]);
        world.until_run(2).await;
        let (in_time, lasted) = revoke(&world, &[0]).await;
        assert!(in_time && about(lasted, 10), "{lasted:?}");
        assert_eq!((world.committed(0), given_back(&world)), (Some(4), vec![4]));
        world.finish().await;
    }
}

// Promise: RB-1, DL-2
#[tokio::test(start_paused = true)]
async fn a_window_with_a_window_hook_is_finished_as_a_whole() {
    let handler = TestHandler::new().with_window_complete(|window, _| {
        Ok(Outputs::new().with(record(format!("sum of {}", window.messages.len()))))
    });
    let world = warm(Setup::new(handler).config(|config| config.window_size = 3), 1).await;
    world.produce(0, &["2", "2", "2", "2"]);
    world.until_seen("TaskStarted", 2).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 6), "{lasted:?}");
    assert_eq!(world.sent(), ["sum of 1", "sum of 3"]);
    assert_eq!((world.committed(0), given_back(&world)), (Some(4), vec![4]));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_starts_out_of_order_takes_what_is_before_it_along() {
    let handler =
        echo().with_priority(|task| drakkar_api::Priority::new(-task.source_offsets[0].get()));
    let world = warm(Setup::new(handler), 1).await;
    world.produce(0, &["2", "2", "2"]);
    world.until_run(2).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 6), "{lasted:?}");
    assert_eq!((world.committed(0), given_back(&world)), (Some(4), vec![]));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_task_between_two_attempts_has_started() {
    let handler = echo().with_error(|_, _| Ok(ErrorAction::RetryAfter(SECOND * 5)));
    let setup = Setup::new(handler).tasks(2, |_, attempt| FakeRun::exit(i32::from(attempt == 1)));
    let world = setup.start(&["a"]).await;
    world.until_seen("TaskRetried", 1).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted >= SECOND * 4 && lasted <= SECOND * 6, "{lasted:?}");
    assert_eq!(world.committed(0), Some(1));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_what_is_not_tried_again_before_its_deadline() {
    let fails = |task: &Task, _| match input(task).as_str() {
        "fails" => FakeRun::exit(1),
        text => FakeRun::success(text.to_owned()).lasting(SECOND * text.parse().expect("a number")),
    };
    let later = || echo().with_error(|_, _| Ok(ErrorAction::RetryAfter(SECOND * 3600)));
    let config = |config: &mut EngineConfig| config.drain_timeout = SECOND * 30;
    let world = Setup::new(later()).config(config).tasks(3, fails).start(&["0"]).await;
    world.until_done().await;
    world.produce(0, &["5", "fails", "10"]);
    world.until_seen("TaskRetried", 1).await;
    world.until_seen("TaskStarted", 4).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 10), "what runs is waited for, and no more: {lasted:?}");
    assert_eq!(world.sent(), ["0", "5", "10"]);
    assert_eq!(world.committed(0), Some(2));
    assert_eq!(revoked(&world), "false, given_back: 0");
    assert_eq!(world.left("Abandoned"), 1);
    world.finish().await;

    let mut world = Setup::new(later()).config(config).tasks(3, fails).start(&["fails"]).await;
    world.until_seen("TaskRetried", 1).await;
    let began = Instant::now();
    world.shut_down().await.expect("a clean end");
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    world.check_end();
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_hook_that_is_called_again_after_its_deadline() {
    let handlers: [fn() -> TestHandler; 3] = [
        || TestHandler::new().with_task_complete(|_, _| broken(false)),
        || TestHandler::new().with_message_complete(|_, _| broken(false)),
        || TestHandler::new().with_window_complete(|_, _| broken(false)),
    ];
    for handler in handlers {
        for (wait, expect) in [(3600, 0), (5, 5)] {
            let setup = Setup::new(handler()).config(|config| {
                let after = &mut config.on_failure.hook_error;
                after.attempts_max = 2;
                after.backoff = Backoff { initial: SECOND * wait, max: SECOND * wait };
                config.drain_timeout = SECOND * 30;
            });
            let world = setup.start(&["a"]).await;
            world.until_seen("HookFailed", 1).await;
            let (in_time, lasted) = revoke(&world, &[0]).await;
            assert!(in_time && lasted <= SECOND * (expect + 1), "{lasted:?}");
            let is_done = expect > 0;
            assert_eq!(world.committed(0), is_done.then_some(1));
            assert_eq!(world.left("Abandoned"), usize::from(!is_done));
            world.finish().await;
        }
    }
}

// Promise: RB-1, FT-2
#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_rest_is_killed_and_what_is_finished_is_committed() {
    let setup = Setup::new(echo()).config(|config| config.drain_timeout = SECOND * 5);
    let world = warm(setup, 4).await;
    world.produce(0, &["1", "1000", "1"]);
    world.until_seen("TaskStarted", 4).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 5), "{lasted:?}");
    assert_eq!(world.committed(0), Some(2));
    assert!(revoked(&world).starts_with("false"), "{}", revoked(&world));
    world
        .until("the task is killed", |w| {
            w.executor.records().iter().all(|run| run.outcome.is_some())
        })
        .await;
    let killed = world
        .executor
        .records()
        .into_iter()
        .filter(|run| run.outcome == Some(TaskOutcome::Cancelled));
    assert_eq!(killed.count(), 1);
    assert_eq!((world.left("Abandoned"), world.left("GivenBack")), (1, 0));
    let told = world.source.settlements().into_iter();
    let told: Vec<_> = told.filter(|(_, _, how)| *how == Settlement::Abandoned).collect();
    assert_eq!(told.iter().map(|(_, at, _)| at.get()).collect::<Vec<_>>(), [2]);
    assert_eq!(world.hooks.count(Hook::OnError), 0, "nobody is asked about it");
    // The next owner repeats what is not committed, and only that.
    world.source.assign(&[partition(0)]);
    world.until("it begins at offset 2", |w| w.source.handed_over().len() == 6).await;
    let again: Vec<_> = world.source.handed_over()[4..].iter().map(|(_, at)| at.get()).collect();
    assert_eq!(again, [2, 3]);
    let (in_time, _) = revoke(&world, &[0]).await;
    assert!(in_time);
    world.finish().await;
}

// Promise: RB-1, FT-2
#[tokio::test(start_paused = true)]
async fn hooks_deliveries_and_commits_that_hang_do_not_outlast_the_deadline() {
    let setup = Setup::new(
        echo()
            .with_slow(Hook::OnMessageComplete, SECOND * 1000)
            .with_message_complete(|_, _| Ok(Outputs::new())),
    )
    .config(|config| config.drain_timeout = SECOND * 5);
    let world = setup.tasks(4, seconds).start(&["0", "0"]).await;
    world.until("the hooks hang", |w| w.hooks.count(Hook::OnMessageComplete) == 2).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && about(lasted, 5), "{lasted:?}");
    assert_eq!(world.committed(0), None);
    world.finish().await;

    // A commit without an answer, and a hook beside it.
    let handler = echo().with_slow(Hook::OnTaskComplete, SECOND * 2);
    let world =
        warm(Setup::new(handler).config(|config| config.drain_timeout = SECOND * 5), 4).await;
    world.source.answer_commit(CommitAnswer::Store(SECOND * 9));
    world.produce(0, &["0", "7"]);
    world.until("the commit is on its way", |w| w.ends().len() == 2).await;
    tokio::time::sleep(SECOND).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted >= SECOND * 8 && lasted < SECOND * 10, "{lasted:?}");
    assert_eq!(world.committed(0), Some(2), "its answer was waited for");
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn partitions_are_drained_in_parallel_under_one_deadline() {
    let world = warm(Setup::new(echo()), 8).await;
    for number in 1..4 {
        world.produce(number, &["10"]);
        world.source.assign(&[partition(number)]);
    }
    world.until_seen("TaskStarted", 4).await;
    let (in_time, lasted) = revoke(&world, &[0, 1, 2, 3]).await;
    assert!(in_time && lasted < SECOND * 11, "{lasted:?}");
    assert_eq!([1, 2, 3].map(|number| world.committed(number)), [Some(1); 3]);
    assert_eq!(world.hooks.count(Hook::OnRevoke), 1, "once per callback");
    world.finish().await;
}

// Promise: RB-3
#[tokio::test(start_paused = true)]
async fn partitions_that_stay_go_on_from_their_buffers_while_others_drain() {
    let setup = Setup::new(echo()).config(|config| {
        config.window_size = 5;
        config.open_windows_max = 1;
        config.buffer_messages = 30;
    });
    let world = warm(setup, 8).await;
    world.produce(0, &["20"]);
    world.until_seen("TaskStarted", 2).await;
    world.produce(1, &["1"; 35]);
    world.source.assign(&[partition(1)]);
    world.until("partition 1 has a full buffer", |w| w.source.handed_over().len() >= 2 + 35).await;
    let before = world.ends().len();
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted >= SECOND * 18, "{lasted:?}");
    assert_eq!(
        world.ends().len() - before,
        35 + 1 - (before - 1),
        "the buffer was worked off meanwhile"
    );
    assert_eq!(world.committed(1), Some(35));
    world.finish().await;
}

// Promise: RB-1, RB-2
#[tokio::test(start_paused = true)]
async fn a_lost_partition_is_fenced_at_once_and_commits_nothing() {
    let handler = echo()
        .with_message_complete(|_, _| Ok(Outputs::new()))
        .with_slow(Hook::OnMessageComplete, SECOND);
    let world = Setup::new(handler).tasks(4, seconds).start(&["0", "100"]).await;
    world
        .until("the first is in its last hook", |w| w.hooks.count(Hook::OnMessageComplete) == 1)
        .await;
    world.source.lose(&[partition(0)]);
    world.until_seen("Lost", 1).await;
    world
        .until("its task is killed", |w| {
            w.executor.records().iter().all(|run| run.outcome.is_some())
        })
        .await;
    assert_eq!((world.status.assigned(), world.status.load().count), (0, 0));
    tokio::time::sleep(SECOND * 200).await;
    assert_eq!(
        (world.committed(0), world.letters().len(), world.seen.count("Revoked")),
        (None, 0, 0)
    );
    assert_eq!(world.source.settlements(), []);
    assert_eq!((world.left("Abandoned"), world.left("GivenBack")), (2, 0));
    assert_eq!((world.hooks.count(Hook::OnError), world.hooks.count(Hook::OnRevoke)), (0, 1));
    world.finish().await;
}

// Promise: RB-2
#[tokio::test(start_paused = true)]
async fn what_a_hook_answers_after_it_blocked_is_nothing_if_the_partition_was_lost_meanwhile() {
    let clock = BlockedClock::default();
    let lost = Arc::new(Mutex::new(None::<ScriptedSource>));
    let (watch, source) = (clock.clone(), Arc::clone(&lost));
    let handler = TestHandler::new().with_task_complete(move |_, _| {
        if let Some(source) = source.lock().expect("no panic").take() {
            source.lose(&[partition(0)]);
            watch.block(SECOND);
        }
        Ok(Outputs::new().with(record("late")))
    });
    let setup = Setup { clock: Arc::new(clock), ..Setup::new(handler) };
    let world = setup.start(&[]).await;
    *lost.lock().expect("no panic") = Some(world.source.clone());
    world.produce(0, &["a"]);
    world.until_seen("Lost", 1).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!((world.sent(), world.committed(0)), (Vec::new(), None));
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    assert_eq!(world.sent(), ["late"]);
    world.finish().await;
}

/// A handler that has its partition revoked while `on_task_complete` blocks, so that the answer of that
/// comes right behind the drain, and whose `on_revoke` then blocks until the deadline has passed.
struct Late {
    clock: BlockedClock,
    source: Arc<Mutex<Option<ScriptedSource>>>,
    revoke: Arc<Mutex<Option<JoinHandle<bool>>>>,
}

impl Handler for Late {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _: &Context) -> HookResult<Vec<Task>> {
        Ok(window.messages().map(Task::for_message).collect())
    }

    async fn on_task_complete(&self, _: &TaskOutput, _: &Context) -> HookResult<Outputs> {
        if let Some(source) = self.source.lock().expect("no panic").take() {
            let mut revoke = Box::pin(async move { source.revoke(&[partition(0)]).await });
            // The source is told before the answer is on its way.
            assert_eq!(revoke.as_mut().now_or_never(), None);
            *self.revoke.lock().expect("no panic") = Some(tokio::spawn(revoke));
            self.clock.block(SECOND);
        }
        Ok(Outputs::new())
    }

    async fn on_revoke(&self, _: &[PartitionId], _: &Context) -> HookResult<()> {
        self.clock.block(SECOND * 60);
        Ok(())
    }
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn what_a_hook_answers_is_nothing_if_the_deadline_passed_before_the_drain_was_heard_of() {
    let clock = BlockedClock::default();
    let (source, revoke) = (Arc::default(), Arc::default());
    let handler =
        Late { clock: clock.clone(), source: Arc::clone(&source), revoke: Arc::clone(&revoke) };
    let setup = Setup { clock: Arc::new(clock), ..Setup::of(handler) };
    *source.lock().expect("no panic") = Some(setup.source.clone());
    let world = setup.config(|config| config.drain_timeout = SECOND * 30).start(&["a"]).await;
    world.until_seen("Revoked", 1).await;
    let asked = revoke.lock().expect("no panic").take().expect("the hook was called");
    assert!(asked.await.expect("no panic"), "the source did not wait in vain");
    assert_eq!(revoked(&world), "false, given_back: 0");
    assert_eq!((world.ends(), world.committed(0)), (Vec::new(), None), "it was given up before");
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    world.finish().await;
}

// Promise: RB-2
#[tokio::test(start_paused = true)]
async fn payloads_of_a_lost_partition_are_taken_out_of_the_lanes() {
    let limits = BatchLimits { concurrency: 1, ..BatchLimits::default() };
    let setup = Setup::new(echo())
        .sink(|sink| sink.with_limits(limits))
        .tasks(4, |task, _| FakeRun::success(input(task)));
    let world = setup.start(&[]).await;
    world.sink.push(Reaction::confirm().taking(SECOND * 10));
    world.produce(1, &["other"]);
    world.source.assign(&[partition(1)]);
    world.until("the sink is busy", |w| w.sink.calls().len() == 1).await;
    world.produce(0, &["lost"]);
    world.until_seen("TaskFinished", 2).await;
    tokio::time::sleep(SECOND).await;
    world.source.lose(&[partition(0)]);
    world.until_committed(1, 1).await;
    assert_eq!(world.sent(), ["other"]);
    // The same message is handled again by its next owner, which happens to be us.
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    assert_eq!(world.sent(), ["other", "lost"]);
    world.finish().await;
}

// Promise: RB-2
#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_waits_for_its_old_delivery() {
    let setup = Setup::new(echo());
    let world = setup.tasks(4, |task, _| FakeRun::success(input(task))).start(&[]).await;
    world.sink.push(Reaction::confirm().taking(SECOND * 10));
    world.produce(0, &["a", "b"]);
    world.until("the delivery is on its way", |w| w.sink.calls().len() == 1).await;
    world.source.lose(&[partition(0)]);
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    let calls = world.sink.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].ended.expect("over") <= calls[1].began, "the old one cannot overtake");
    let mut sent = world.sent();
    sent.sort_unstable();
    assert_eq!(sent, ["a", "a", "b", "b"]);
    world.finish().await;
}

// Promise: RB-2
#[tokio::test(start_paused = true)]
async fn late_verdicts_and_commits_of_an_old_assignment_are_ignored() {
    let world =
        Setup::new(echo()).tasks(4, |task, _| FakeRun::success(input(task))).start(&[]).await;
    world.source.answer_commit(CommitAnswer::Store(SECOND * 5));
    world.produce(0, &["a"]);
    world.until("the commit is on its way", |w| w.ends().len() == 1).await;
    tokio::time::sleep(SECOND).await;
    world.sink.push(Reaction::confirm().taking(SECOND * 3));
    world.produce(0, &["b"]);
    world.until("the delivery is on its way", |w| w.sink.calls().len() == 2).await;
    world.source.lose(&[partition(0)]);
    world.until_seen("Lost", 1).await;
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(world.committed(0), None, "the commit came too late");
    world.source.assign(&[partition(0)]);
    world.until_done().await;
    assert_eq!(world.sent(), ["a", "b", "a", "b"], "at least once");
    assert_eq!(world.ends(), [(0, "Completed"), (0, "Completed"), (1, "Completed")]);
    world.finish().await;
}

// D25: in the original two processors then worked side by side.
// Promise: RB-2
#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_goes_on_where_it_was_committed() {
    let world = warm(Setup::new(echo()), 2).await;
    for round in 1..5 {
        world.produce(0, &["1", "1"]);
        world.until("work has started", |w| w.seen.count("TaskStarted") >= round * 2).await;
        let (in_time, _) = revoke(&world, &[0]).await;
        assert!(in_time);
        world.source.assign(&[partition(0)]);
    }
    world.until_seen("Assigned", 5).await;
    let mut handled: Vec<_> = world
        .source
        .settlements()
        .into_iter()
        .filter(|(_, _, how)| *how == Settlement::Finished)
        .map(|(_, at, _)| at.get())
        .collect();
    handled.sort_unstable();
    assert_eq!(handled, (0..9).collect::<Vec<_>>(), "each once");
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_inside_a_revoke_is_not_insisted_on() {
    let world = warm(Setup::new(echo()), 2).await;
    world.produce(0, &["1"]);
    world.until_seen("TaskStarted", 2).await;
    world.source.fail_commits(1);
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted < SECOND * 2, "{lasted:?}");
    assert_eq!(world.committed(0), Some(1));
    assert!(revoked(&world).starts_with("false"), "{}", revoked(&world));
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_while_work_goes_on_is_made_good() {
    let world = warm(Setup::new(echo()), 2).await;
    world.produce(0, &["1", "8"]);
    world.until_seen("TaskStarted", 3).await;
    world.source.fail_commits(1);
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted < SECOND * 9, "{lasted:?}");
    assert_eq!(world.committed(0), Some(3));
    assert_eq!(revoked(&world), "true, given_back: 0");
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_just_before_the_last_message_ends_is_made_good() {
    // The first commit of the drain fails when 100 ms of work are left, the pause before a commit
    // is tried again is longer.
    let setup = Setup::new(echo()).tasks(2, |task, _| {
        let millis: u32 = input(task).parse().expect("milliseconds");
        FakeRun::success(input(task)).lasting(MILLISECOND * millis)
    });
    let world = setup.start(&["1"]).await;
    world.until_done().await;
    world.produce(0, &["1000", "1100"]);
    world.until("the first of them ends", |w| w.ends().len() == 2).await;
    world.source.fail_commits(1);
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted < SECOND, "{lasted:?}");
    assert_eq!(world.committed(0), Some(3));
    assert_eq!(revoked(&world), "true, given_back: 0");
    world.finish().await;
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn messages_that_arrive_while_a_partition_drains_are_given_back() {
    let setup = Setup::new(echo()).config(|config| config.buffer_messages = 3);
    let world = warm(setup, 1).await;
    world.produce(0, &["1", "1", "1", "1", "1", "1", "1", "1"]);
    world.until_seen("TaskStarted", 2).await;
    let (in_time, _) = revoke(&world, &[0]).await;
    assert!(in_time);
    let told: Vec<_> = world.source.settlements().into_iter().map(|(_, at, _)| at).collect();
    let mut handed: Vec<_> = world.source.handed_over().into_iter().map(|(_, at)| at).collect();
    let mut settled = told.clone();
    handed.sort_unstable();
    settled.sort_unstable();
    assert_eq!(settled, handed, "the source hears of each message that it handed over");
    let count = given_back(&world).len();
    assert_eq!(revoked(&world), format!("true, given_back: {count}"));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_leaves_does_not_count_as_assigned() {
    let world = warm(Setup::new(echo()), 1).await;
    world.source.lose(&[partition(0)]);
    world.source.assign(&[partition(0)]);
    world.source.assign(&[partition(1)]);
    assert!(world.source.revoke(&[partition(1)]).await);
    let told = world.seen.named("Rebalance").into_iter().map(|event| {
        let (_, rest) = event.text.split_once("kind: ").expect("the field is there");
        rest.trim_end_matches(" }").to_owned()
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "\"assign\", partitions: 1, assigned: 1",
            "\"lost\", partitions: 1, assigned: 0",
            "\"assign\", partitions: 1, assigned: 1",
            "\"assign\", partitions: 1, assigned: 2",
            "\"revoke\", partitions: 1, assigned: 1",
        ]
    );
    world.finish().await;
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_extend_the_deadline_of_a_revoke() {
    let mut world =
        warm(Setup::new(echo()).config(|config| config.drain_timeout = SECOND * 30), 2).await;
    world.produce(0, &["1000"]);
    world.until_seen("TaskStarted", 2).await;
    let source = world.source.clone();
    let began = Instant::now();
    let revoke = tokio::spawn(async move {
        let in_time = source.revoke(&[partition(0)]).await;
        (in_time, began.elapsed())
    });
    tokio::time::sleep(SECOND * 20).await;
    world.shut_down().await.expect("a clean end");
    let (in_time, lasted) = revoke.await.expect("no panic");
    assert!(in_time && lasted < SECOND * 31, "{lasted:?}");
    world.check_end();
}

// Promise: RB-1
#[tokio::test(start_paused = true)]
async fn a_large_backlog_is_given_back_without_delay() {
    let values = vec!["5"; 5000];
    let setup = Setup::new(echo()).config(|config| {
        config.window_size = 5000;
        config.buffer_messages = 5000;
        config.load_count = crate::world::ROOMY;
    });
    let world = warm(setup, 2).await;
    world.produce(0, &values);
    world.until("all tasks wait", |w| w.executor.records().len() == 5001).await;
    let (in_time, lasted) = revoke(&world, &[0]).await;
    assert!(in_time && lasted < SECOND * 6, "{lasted:?}");
    assert_eq!((world.committed(0), given_back(&world).len()), (Some(3), 4998));
    world.finish().await;
}
