//! Commits: coalesced, one in flight, tried again, never back, never past what is unfinished.

use crate::world::{MILLISECOND, SECOND, Setup, World, input, partition};
use drakkar_api::{Offset, Settlement, SourceError, SourceErrorKind, Task};
use drakkar_testkit::{CommitAnswer, FakeRun, TestHandler};
use std::time::Duration;
use tokio::time::Instant;

/// Tasks that take as many milliseconds as their input says.
fn timed(task: &Task, _attempt: u32) -> FakeRun {
    let millis = input(task).parse().expect("a number");
    FakeRun::exit(0).lasting(Duration::from_millis(millis))
}

/// A world whose tasks take the given times, and which knows already that there are no hooks.
async fn timed_world() -> World {
    let setup = Setup::new(TestHandler::new()).tasks(1000, timed).config(|config| {
        config.window_size = 1000;
        config.buffer_messages = 1000;
        config.load_count = crate::world::ROOMY;
    });
    let world = setup.start(&["0"]).await;
    world.until_done().await;
    world
}

// Promise: WM-2
#[tokio::test(start_paused = true)]
async fn offsets_that_finish_within_the_interval_share_a_commit() {
    let world = timed_world().await;
    let began = Instant::now();
    world.produce(0, &["0", "100", "200", "300", "400", "700", "800"]);
    world.until_committed(0, 6).await;
    let first = began.elapsed();
    assert!(first >= MILLISECOND * 500 && first <= MILLISECOND * 505, "{first:?}");
    world.until_done().await;
    let second = began.elapsed();
    assert!(second >= MILLISECOND * 1200 && second <= MILLISECOND * 1210, "{second:?}");
    assert_eq!(world.commits(0), [1, 6, 8]);
    world.finish().await;
}

// Promise: WM-2
#[tokio::test(start_paused = true)]
async fn three_hundred_offsets_do_not_wait_for_the_interval() {
    let world = timed_world().await;
    let began = Instant::now();
    world.produce(0, &["1"; 300]);
    world.until_committed(0, 301).await;
    assert!(began.elapsed() < MILLISECOND * 10, "{:?}", began.elapsed());
    assert_eq!(world.commits(0), [1, 301]);
    world.finish().await;
}

// Promise: WM-1, WM-2
#[tokio::test(start_paused = true)]
async fn an_unfinished_offset_holds_the_commit_and_then_frees_all_at_once() {
    let world = timed_world().await;
    world.produce(0, &["5000"]);
    world.produce(0, &["1"; 400]);
    world.until("all but one are finished", |w| w.ends().len() == 401).await;
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(world.commits(0), [1]);
    world.until("the last is finished", |w| w.ends().len() == 402).await;
    let began = Instant::now();
    world.until_done().await;
    assert!(began.elapsed() < MILLISECOND * 10, "400 offsets are more than 300");
    assert_eq!(world.commits(0), [1, 402]);
    world.finish().await;
}

// Promise: WM-1
#[tokio::test(start_paused = true)]
async fn whatever_the_order_of_completion_a_commit_never_passes_an_unfinished_offset() {
    let world = timed_world().await;
    world.produce(0, &["1", "1700", "1", "600", "1", "1"]);
    world.until_committed(0, 2).await;
    world.until_committed(0, 7).await;
    assert_eq!(world.commits(0), [1, 2, 7]);
    world.finish().await;
}

// Promise: WM-2
#[tokio::test(start_paused = true)]
async fn one_commit_is_in_flight_and_the_next_takes_all_that_finished_meanwhile() {
    let world = timed_world().await;
    world.source.answer_commit(CommitAnswer::Store(SECOND * 10));
    world.produce(0, &["1"]);
    tokio::time::sleep(SECOND).await;
    for _ in 0..5 {
        world.produce(0, &["1"; 400]);
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(world.commits(0), [1], "the first is not answered yet");
    world.until_done().await;
    assert_eq!(world.commits(0), [1, 2, 2002]);
    world.finish().await;
}

// Promise: WM-1, WM-2
#[tokio::test(start_paused = true)]
async fn a_failed_commit_is_tried_again() {
    let world = timed_world().await;
    world.source.fail_commits(3);
    world.produce(0, &["1"]);
    let began = Instant::now();
    world.until_done().await;
    let lasted = began.elapsed();
    assert!(lasted >= SECOND * 2 && lasted < MILLISECOND * 2020, "{lasted:?}");
    assert_eq!(world.seen.count("CommitFailed"), 3);
    assert_eq!(world.commits(0), [1, 2]);
    world.finish().await;
}

// Promise: WM-1
#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_repeated_and_harms_nothing() {
    let world = timed_world().await;
    let error = SourceError::new(SourceErrorKind::Commit, "no answer");
    world.source.answer_commit(CommitAnswer::StoreButFail(error));
    world.produce(0, &["1"]);
    world.until_seen("CommitFailed", 1).await;
    world.produce(0, &["1"]);
    world.until_done().await;
    assert_eq!(world.commits(0), [1, 2, 3]);
    world.finish().await;
}

// Promise: WM-1
#[tokio::test(start_paused = true)]
async fn gaps_are_no_obstacle() {
    let setup = Setup::new(TestHandler::new());
    setup.broker.leave_gap(&partition(0), 10);
    let world = setup.start(&["a", "b"]).await;
    world.until_committed(0, 12).await;
    world.broker.leave_gap(&partition(0), 1_000_000);
    world.produce(0, &["c"]);
    world.until_committed(0, 1_000_013).await;
    // Nothing commits a gap at the end: the next message may sit beyond it.
    world.broker.leave_gap(&partition(0), 5);
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(world.commits(0), [12, 1_000_013]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_commits_nothing_and_does_not_spin() {
    let world = timed_world().await;
    world.seen.clear();
    tokio::time::sleep(SECOND * 86_400).await;
    assert_eq!(world.commits(0), [1]);
    assert_eq!(world.seen.names(), [""; 0]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_source_is_told_what_became_of_each_message() {
    let setup = Setup::new(TestHandler::new()).tasks(4, |task, _| match input(task).as_str() {
        "bad" => FakeRun::exit(1),
        _ => FakeRun::exit(0),
    });
    let world = setup.start(&["a", "bad"]).await;
    world.until_done().await;
    let settled: Vec<_> =
        world.source.settlements().into_iter().map(|(_, offset, how)| (offset, how)).collect();
    assert_eq!(
        settled,
        [(Offset::new(0), Settlement::Finished), (Offset::new(1), Settlement::DeadLettered)]
    );
    world.finish().await;
}

// Promise: WM-1, DL-1
#[tokio::test(start_paused = true)]
async fn after_a_crash_everything_that_was_not_committed_is_handled_again() {
    let world = timed_world().await;
    world.produce(0, &["1", "20000", "1"]);
    world.until_committed(0, 2).await;
    world.source.crash();
    let broker = world.broker.clone();
    drop(world);
    let mut setup = Setup::new(TestHandler::new()).tasks(4, |_, _| FakeRun::exit(0));
    setup.source = drakkar_testkit::ScriptedSource::new(&broker);
    setup.broker = broker;
    let world = setup.start(&[]).await;
    world.until_done().await;
    let handled: Vec<_> = world.source.handed_over().into_iter().map(|(_, at)| at).collect();
    assert_eq!(handled, [2, 3].map(Offset::new));
    world.finish().await;
}
