//! Partitions that make no progress: what is said of them, and what is done.

use crate::world::{
    BlockedClock, MILLISECOND, SECOND, Setup, World, broken, echo, input, partition,
};
use drakkar_api::{ErrorAction, Hook, Outputs, TaskOutcome};
use drakkar_core::{Backoff, EngineStatus, FailureAction, FailurePolicy, StallResponse};
use drakkar_testkit::{Answer, FakeRun, Reaction, TestHandler};
use std::iter;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn whatever_holds_a_partition_is_named_and_its_going_on_too() {
    let stalled = |setup: Setup<TestHandler>| {
        setup.config(|config| config.stall_after = SECOND * 60).start(&["a"])
    };
    let reason = |world: &World| world.seen.named("PartitionFailed")[0].text.clone();
    let went_on = async |world: &World, holder: &str| {
        world.until_seen("PartitionFailed", 1).await;
        let text = reason(world);
        assert!(text.contains("offset 0 is unfinished since 60 s"), "{text}");
        assert!(text.contains(holder), "{text}, not {holder}");
        world.until_done().await;
        assert_eq!(
            (world.seen.count("PartitionFailed"), world.seen.count("PartitionRecovered")),
            (1, 1)
        );
    };

    let slow = Setup::new(TestHandler::new())
        .tasks(1, |task, _| FakeRun::success(input(task)).lasting(SECOND * 90));
    went_on(&stalled(slow).await, "runs, its process is 1").await;

    let setup = Setup::new(echo());
    setup.sink.push(Reaction::confirm().taking(SECOND * 20));
    let world = setup.config(|config| config.stall_after = SECOND * 10).start(&["a"]).await;
    world.until_seen("PartitionFailed", 1).await;
    assert!(reason(&world).contains("sink kafka:out has not taken it"), "{}", reason(&world));

    let failing = Setup::new(TestHandler::new()).tasks(1, |_, _| FakeRun::exit(1));
    for _ in 0..20 {
        failing.letters.push(Reaction::answers([Answer::refused()]).taking(SECOND * 4));
    }
    went_on(&stalled(failing).await, "its dead letter is not written").await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_hook_that_blocks_its_partition_is_named_by_another_thread() {
    let clock = BlockedClock::default();
    let status = Arc::new(OnceLock::<EngineStatus>::new());
    let (blocked, asked) = (clock.clone(), Arc::clone(&status));
    let look = move || {
        let status = asked.get().expect("the engine runs").clone();
        // The runtime has one thread, and that is in the hook.
        std::thread::spawn(move || status.watch_hooks()).join().expect("no panic");
    };
    let handler = TestHandler::new().with_task_complete(move |_, _| {
        // The other thread is not under the paused clock, so this is far from the minute.
        blocked.block(SECOND * 30);
        look();
        blocked.block(SECOND * 50);
        look();
        look();
        Ok(Outputs::new())
    });
    let setup = Setup { clock: Arc::new(clock), status, ..Setup::new(handler) };
    let world = setup.config(|config| config.stall_after = SECOND * 60).start(&[]).await;
    world.produce(0, &["a"]);
    world.until_seen("PartitionFailed", 1).await;
    let failed = world.seen.named("PartitionFailed");
    let expect = "on_task_complete of window 1 for offset 0 blocks its thread since";
    assert!(failed[0].text.contains(expect), "{}", failed[0].text);
    assert_eq!(failed[0].partition, Some(partition(0)));
    world.until_done().await;
    world.status.watch_hooks();
    assert_eq!(
        (world.seen.count("PartitionFailed"), world.seen.count("PartitionRecovered")),
        (1, 1)
    );
}

/// A world whose first attempts hang, with what is to follow that after a minute.
async fn hanging(response: StallResponse) -> World {
    let setup = Setup::new(TestHandler::new()).config(|config| {
        config.stall_after = SECOND * 60;
        config.stall_response = response;
        config.on_failure.timeout.attempts_max = 3;
    });
    let setup = setup.tasks(4, |task, attempt| match (input(task).as_str(), attempt) {
        ("hangs", 1 | 2) => FakeRun::hang(),
        _ => FakeRun::exit(0),
    });
    let executor = setup.executor.clone().task_timeout(SECOND * 1000);
    let world = Setup { executor, ..setup }.start(&["a", "hangs", "b"]).await;
    world.until_seen("PartitionFailed", 1).await;
    world
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_stalled_partition_can_have_its_task_killed_again_and_again() {
    let began = Instant::now();
    let world = hanging(StallResponse::KillTask).await;
    world.until_done().await;
    let failed = world.seen.named("PartitionFailed");
    assert_eq!(failed.len(), 2, "each attempt that hangs");
    assert!(failed.iter().all(|event| event.text.contains("keeps_ready: true")), "{failed:?}");
    let outcomes = world.executor.records().into_iter().filter(|run| run.attempt < 3);
    let killed = outcomes.filter(|run| run.outcome == Some(TaskOutcome::Cancelled)).count();
    assert_eq!((killed, world.letters()), (2, vec![]));
    let lasted = began.elapsed();
    assert!(lasted >= SECOND * 120 && lasted < SECOND * 130, "{lasted:?}");
    assert_eq!(world.seen.count("PartitionRecovered"), 1);
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_is_killed_again_while_commits_fail_too() {
    let setup = Setup::new(TestHandler::new()).config(|config| {
        config.window_size = 1;
        config.stall_after = SECOND * 60;
        config.stall_response = StallResponse::KillTask;
        config.on_failure.timeout.attempts_max = 3;
    });
    let setup = setup.tasks(4, |task, attempt| match (input(task).as_str(), attempt) {
        ("hangs", 1 | 2) => FakeRun::hang(),
        _ => FakeRun::exit(0),
    });
    let executor = setup.executor.clone().task_timeout(SECOND * 1000);
    let world = Setup { executor, ..setup }.start(&[]).await;
    world.source.fail_commits(400);
    world.produce(0, &["a", "hangs"]);
    world.until_seen("PartitionFailed", 2).await;
    world.until_done().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_stalled_partition_can_be_reported_and_left_alone() {
    for (response, keeps_ready) in [(StallResponse::Warn, true), (StallResponse::FailReady, false)]
    {
        let world = hanging(response).await;
        tokio::time::sleep(SECOND * 300).await;
        let failed = world.seen.named("PartitionFailed");
        let expect = format!("keeps_ready: {keeps_ready}");
        assert!(failed.len() == 1 && failed[0].text.contains(&expect), "{failed:?}");
        let holds = "its window waits for offset 1: task ";
        assert!(failed[0].text.contains(holds) && failed[0].text.contains(" runs"), "{failed:?}");
        assert_eq!(world.committed(0), None, "there may be a window hook");
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn what_is_no_task_cannot_be_killed_and_makes_the_worker_unready() {
    let setup = Setup::new(TestHandler::new()).config(|config| {
        config.stall_after = SECOND * 60;
        config.stall_response = StallResponse::KillTask;
    });
    let setup = setup.tasks(1, |_, _| FakeRun::exit(1));
    for _ in 0..20 {
        setup.letters.push(Reaction::answers([Answer::refused()]).taking(SECOND * 4));
    }
    let world = setup.start(&["a"]).await;
    world.until_seen("PartitionFailed", 1).await;
    let text = world.seen.named("PartitionFailed")[0].text.clone();
    assert!(text.contains("keeps_ready: false"), "{text}");
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn commits_that_fail_for_long_stall_their_partition_until_one_succeeds() {
    let setup = Setup::new(TestHandler::new()).config(|config| config.stall_after = SECOND * 60);
    let world = setup.start(&[]).await;
    world.source.fail_commits(150);
    world.produce(0, &["a"]);
    world.until_seen("PartitionFailed", 1).await;
    let text = world.seen.named("PartitionFailed")[0].text.clone();
    assert!(
        text.contains("stalled: what is finished below 1 cannot be committed since 60 s"),
        "{text}"
    );
    world.until_done().await;
    world.until_seen("PartitionRecovered", 1).await;
    assert_eq!(world.seen.count("PartitionFailed"), 1);
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn what_holds_a_payload_is_named_too() {
    let letters = |setup: &Setup<TestHandler>| {
        for _ in 0..100 {
            setup.letters.push(Reaction::answers([Answer::refused()]).taking(SECOND * 4));
        }
    };
    let check = async |setup: Setup<TestHandler>, expect: &str| {
        let setup = setup.config(|config| {
            config.stall_after = SECOND * 60;
            config.delivery_retries_max = 0;
        });
        let world = setup.start(&["a"]).await;
        world.until_seen("PartitionFailed", 1).await;
        let text = &world.seen.named("PartitionFailed")[0].text;
        assert!(text.contains(expect), "{text}, not {expect}");
    };

    let setup = Setup::new(echo());
    setup.sink.push(Reaction::answers([Answer::rejected()]));
    letters(&setup);
    check(setup, "a dead letter of sink kafka:out is not written").await;

    let setup = Setup::new(echo().with_slow(Hook::OnDeliveryError, SECOND * 10_000));
    setup.sink.push(Reaction::answers([Answer::rejected()]));
    check(setup, "on_delivery_error of sink kafka:out has not answered").await;

    let setup = Setup::new(TestHandler::new().with_task_complete(|_, _| broken(false)));
    let setup = setup.config(|config| {
        config.on_failure.hook_error = FailurePolicy {
            attempts_max: 2,
            backoff: Backoff { initial: SECOND * 1000, max: SECOND * 1000 },
            then: FailureAction::DeadLetter,
        };
    });
    check(setup, "on_task_complete failed and waits to be called again").await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_partition_that_waits_for_something_else_says_so() {
    let setup = Setup::new(TestHandler::new())
        .config(|config| config.stall_after = SECOND * 60)
        .tasks(4, |_, _| FakeRun::exit(1).lasting(SECOND * 90));
    for _ in 0..2000 {
        setup.letters.push(Reaction::answers([Answer::refused()]).taking(SECOND * 4));
    }
    let world = setup.start(&["a"]).await;
    tokio::time::sleep(SECOND * 1000).await;
    let told = world.seen.named("PartitionFailed");
    assert_eq!(told.len(), 2, "once for each: {told:?}");
    assert!(told[0].text.contains("runs, its process is 1"), "{told:?}");
    assert!(told[1].text.contains("its dead letter is not written"), "{told:?}");
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_that_hangs_is_killed_though_something_else_was_waited_for_at_first() {
    let handler = TestHandler::new().with_error(|_, _| Ok(ErrorAction::RetryAfter(SECOND * 90)));
    let setup = Setup::new(handler).config(|config| {
        config.stall_after = SECOND * 60;
        config.stall_response = StallResponse::KillTask;
    });
    let setup = setup.tasks(4, |_, attempt| match attempt {
        1 => FakeRun::exit(1),
        2 => FakeRun::hang(),
        _ => FakeRun::exit(0),
    });
    let executor = setup.executor.clone().task_timeout(SECOND * 100_000);
    let began = Instant::now();
    let world = Setup { executor, ..setup }.start(&["a"]).await;
    world.until_done().await;
    let told: Vec<_> = world.seen.named("PartitionFailed").into_iter().map(|it| it.text).collect();
    assert!(told[0].contains("waits for its next attempt"), "{told:?}");
    assert!(told[1].contains("runs, its process is 1"), "{told:?}");
    // The second attempt hangs from 90 s on; it is looked at every minute.
    assert!(began.elapsed() < SECOND * 300, "{:?}", began.elapsed());
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_task_has_its_time_though_much_waits_for_it() {
    let world = |slow: fn() -> FakeRun| {
        let setup = Setup::new(TestHandler::new()).config(|config| {
            config.stall_after = SECOND * 600;
            config.stall_response = StallResponse::KillTask;
            config.on_failure.timeout.attempts_max = 1;
            config.ahead_max = 10;
            config.window_size = 1;
        });
        let setup = setup.tasks(4, move |task, _| match input(task).as_str() {
            "slow" => slow(),
            _ => FakeRun::exit(0).lasting(MILLISECOND * 10),
        });
        let executor = setup.executor.clone().task_timeout(SECOND * 100_000);
        Setup { executor, ..setup }
    };
    let all: Vec<_> = iter::once("slow").chain([""; 40]).collect();

    let healthy = world(|| FakeRun::success("slow").lasting(SECOND * 30)).start(&all).await;
    healthy.until_done().await;
    let told = healthy.seen.named("PartitionFailed");
    assert!(told.len() == 1 && told[0].text.contains("keeps_ready: true"), "{told:?}");
    assert!(told[0].text.contains("(kafka.max_ahead_offsets)"), "{told:?}");
    assert!(healthy.letters().is_empty(), "{:?}", healthy.letters());

    let hanging = world(FakeRun::hang).start(&all).await;
    tokio::time::sleep(SECOND * 599).await;
    assert_eq!((hanging.letters().len(), hanging.seen.count("PartitionFailed")), (0, 1));
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!((hanging.letters().len(), hanging.seen.count("PartitionFailed")), (1, 2));
    hanging.until_done().await;
}
