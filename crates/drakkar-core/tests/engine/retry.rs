//! What `on_error` may answer about a failed task, and how far that goes.

use crate::world::{MILLISECOND, SECOND, Setup, input, record};
use drakkar_api::{ErrorAction, Hook, Offset, Outputs, Precomputed, Task, TaskFailure};
use drakkar_testkit::{FakeRun, TestHandler};
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

fn answering(action: impl Fn(&TaskFailure) -> ErrorAction + Send + Sync + 'static) -> TestHandler {
    TestHandler::new()
        .with_task_complete(|done, _| Ok(Outputs::new().with(record(done.stdout()))))
        .with_error(move |failure, _| Ok(action(failure)))
}

#[tokio::test(start_paused = true)]
async fn a_retry_can_succeed_and_the_hook_knows_what_is_left() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&left);
    let handler = answering(move |failure| {
        log.lock().expect("no panic").push((failure.attempt, failure.retries_left));
        ErrorAction::Retry
    });
    let setup = Setup::new(handler).tasks(1, |_, attempt| match attempt {
        1 | 2 => FakeRun::exit(1),
        _ => FakeRun::success("third"),
    });
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert_eq!(*left.lock().expect("no panic"), [(1, 3), (2, 2)]);
    assert_eq!((world.sent(), world.letters()), (vec!["third".to_owned()], vec![]));
    let counts =
        ["TaskScheduled", "TaskStarted", "TaskFinished", "TaskRetried", "RetriesExhausted"];
    assert_eq!(counts.map(|name| world.seen.count(name)), [3, 3, 3, 2, 0]);
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn used_up_retries_dead_letter_the_message_with_all_attempts() {
    for budget in [0, 2] {
        let setup = Setup::new(answering(|_| ErrorAction::Retry))
            .config(|config| config.task_retries_max = budget)
            .tasks(1, |_, _| FakeRun::exit(9));
        let world = setup.start(&["a"]).await;
        world.until_done().await;
        let attempts = budget + 1;
        assert_eq!(world.executor.records().len(), attempts as usize);
        assert_eq!(world.letter(0).header("attempts"), attempts.to_string());
        assert_eq!(world.letter(0).header("error-kind"), "exit_code");
        assert_eq!(world.seen.count("RetriesExhausted"), 1);
        assert_eq!(world.hooks.count(Hook::OnError), attempts as usize);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_its_retry_holds_no_slot() {
    let handler = answering(|_| ErrorAction::RetryAfter(SECOND * 30));
    let setup =
        Setup::new(handler).tasks(1, |task, attempt| match (input(task).as_str(), attempt) {
            ("late", 1) => FakeRun::exit(1),
            (text, _) => FakeRun::success(text.to_owned()),
        });
    let world = setup.start(&["late", "b", "c"]).await;
    let began = Instant::now();
    world.until("the others are done", |w| w.sent() == ["b", "c"]).await;
    assert!(began.elapsed() < SECOND);
    assert_eq!(world.executor.records().iter().filter(|run| run.outcome.is_none()).count(), 0);
    world.until_done().await;
    assert_eq!(world.sent(), ["b", "c", "late"]);
    let waited = began.elapsed();
    assert!(waited >= SECOND * 30 && waited < SECOND * 31, "{waited:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_endless_delay_ends_nothing_but_its_message() {
    let handler = answering(|_| ErrorAction::RetryAfter(std::time::Duration::MAX));
    let setup = Setup::new(handler).tasks(1, |task, _| match input(task).as_str() {
        "bad" => FakeRun::exit(1),
        text => FakeRun::success(text.to_owned()),
    });
    let mut world = setup.start(&["a"]).await;
    world.until_done().await;
    world.produce(0, &["b", "bad", "c"]);
    world.until("the others are done", |w| w.sent() == ["a", "b", "c"]).await;
    // At the latest the drain's deadline ends it.
    world.shut_down().await.expect("a clean end");
    assert_eq!(world.committed(0), Some(2));
    world.check_end();
}

fn replace_with(failure: &TaskFailure, count: usize) -> ErrorAction {
    let offsets = failure.task.source_offsets.clone();
    ErrorAction::Replace(vec![Task::for_offsets(offsets).stdin("bad"); count])
}

// Promise: FT-3
// D17: in the original a chain of replacements had no end.
#[tokio::test(start_paused = true)]
async fn a_chain_of_replacements_has_an_end() {
    for precomputed in [false, true] {
        let handler = answering(move |failure| {
            let offsets = failure.task.source_offsets.clone();
            let mut task = Task::for_offsets(offsets);
            if precomputed {
                task = task.precomputed(Precomputed { exit_code: 1, ..Precomputed::default() });
            }
            ErrorAction::Replace(vec![task])
        });
        let setup = Setup::new(handler)
            .config(|config| config.replacements_max = 5)
            .tasks(1, |_, _| FakeRun::exit(1));
        let world = setup.start(&["a"]).await;
        world.until_done().await;
        assert_eq!(
            world.letters(),
            ["message@0 hook_error on_error x1: a chain of more than 5 replacements \
              (executor.max_replacements)"]
        );
        assert_eq!(world.seen.count("TaskReplaced"), 5);
        assert_eq!(world.hooks.count(Hook::OnError), 6);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_replacement_has_its_own_retries() {
    let handler = answering(|failure| match (failure.id(), failure.attempt) {
        ("r", 1 | 2) | (_, 1) => ErrorAction::Retry,
        ("r", _) => ErrorAction::Skip,
        _ => ErrorAction::Replace(vec![Task::for_offset(Offset::new(0)).id("r")]),
    });
    let setup = Setup::new(handler)
        .config(|config| config.task_retries_max = 2)
        .tasks(1, |_, _| FakeRun::exit(1));
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.executor.records().len(), 5);
    assert_eq!(world.ends(), [(0, "Completed")]);
    world.finish().await;
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_replacement_with_bad_offsets_is_an_error_of_on_error() {
    for (offsets, error) in [
        (vec![], "a task has no source offsets, so it would protect no message"),
        (
            vec![Offset::new(0), Offset::new(5)],
            "a task names offset 5, which is not an open message of this partition",
        ),
    ] {
        let handler = answering(move |failure| {
            let good = Task::for_offsets(failure.task.source_offsets.clone());
            ErrorAction::Replace(vec![good, Task::for_offsets(offsets.clone())])
        });
        let setup = Setup::new(handler).tasks(1, |_, _| FakeRun::exit(1));
        let world = setup.start(&["a"]).await;
        world.until_done().await;
        assert_eq!(world.letters(), [format!("message@0 hook_error on_error x1: {error}")]);
        assert_eq!(world.executor.records().len(), 1, "none of the replacements runs");
        world.finish().await;
    }
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn replacements_cannot_multiply_without_a_limit() {
    let setup = Setup::new(answering(|failure| replace_with(failure, 2)))
        .config(|config| config.window_tasks_max = 100)
        .tasks(200, |_, _| FakeRun::exit(1).lasting(MILLISECOND));
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert!(world.executor.active_max() <= 100, "{}", world.executor.active_max());
    let letter = world.letter(0);
    assert_eq!((letter.header("hook"), letter.header("error-kind")), ("on_error", "hook_error"));
    assert!(letter.header("error").contains("executor.max_tasks_per_window"), "{letter:?}");
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn no_message_completes_between_a_task_and_its_replacement() {
    let handler = answering(|failure| {
        ErrorAction::Replace(vec![
            Task::for_offsets(failure.task.source_offsets.clone()).stdin("ok"),
        ])
    })
    .with_message_complete(|group, _| {
        Ok(Outputs::new().with(record(format!("{} of {}", group.succeeded(), group.total()))))
    });
    let setup = Setup::new(handler).tasks(1, |task, _| match input(task).as_str() {
        "ok" => FakeRun::success("ok").lasting(SECOND),
        _ => FakeRun::exit(1),
    });
    let world = setup.start(&["bad"]).await;
    world.until_done().await;
    assert_eq!(world.sent(), ["ok", "1 of 2"]);
    assert_eq!(world.hooks.count(Hook::OnMessageComplete), 1);
    world.finish().await;
}
