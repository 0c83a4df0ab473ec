//! What the settings say of failures, where the handler leaves it to them.

use crate::world::{SECOND, Setup, World, broken, echo, input, record};
use drakkar_api::{Hook, Message, Offset, Outputs, Precomputed, RawInput, Task, TaskOutcome};
use drakkar_core::{EngineErrorKind, FailureAction, FailurePolicy};
use drakkar_testkit::{FakeRun, TestHandler};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

fn policy(attempts_max: u32, then: FailureAction) -> FailurePolicy {
    FailurePolicy { attempts_max, then, ..FailurePolicy::default() }
}

/// Answers how often a hook was called before.
fn counter() -> impl Fn() -> u32 + Clone + Send + Sync {
    let calls = Arc::new(AtomicU32::new(0));
    move || calls.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_ending_has_its_own_attempts() {
    let setup = Setup::new(echo())
        .config(|config| {
            config.on_failure.exit_code = policy(2, FailureAction::DeadLetter);
            config.on_failure.signal = policy(3, FailureAction::DeadLetter);
            config.on_failure.timeout = policy(4, FailureAction::DeadLetter);
            config.on_failure.spawn_failure = policy(5, FailureAction::DeadLetter);
            config.on_failure.output_over_limit = policy(6, FailureAction::DeadLetter);
        })
        .tasks(8, |task, _| match input(task).as_str() {
            "exit" => FakeRun::exit(1),
            "signal" => FakeRun::ending(TaskOutcome::Signal(9)),
            "timeout" => FakeRun::ending(TaskOutcome::Timeout { limit: SECOND }),
            "spawn" => FakeRun::spawn_failure(),
            _ => FakeRun::ending(TaskOutcome::OutputOverLimit { limit_bytes: 1 }),
        });
    let world = setup.start(&["exit", "signal", "timeout", "spawn", "output"]).await;
    world.until_done().await;
    let attempts = [0, 1, 2, 3, 4].map(|offset| world.letter(offset).header("attempts").to_owned());
    assert_eq!(attempts, ["2", "3", "4", "5", "6"]);
    assert_eq!(world.seen.count("TaskRetried"), 1 + 2 + 3 + 4 + 5);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_longer_each_time_and_hold_no_slot_meanwhile() {
    let setup = Setup::new(echo())
        .config(|config| config.on_failure.exit_code = policy(4, FailureAction::DeadLetter))
        .tasks(1, |task, attempt| match (input(task).as_str(), attempt) {
            ("late", 1..=3) => FakeRun::exit(1),
            (text, _) => FakeRun::success(text.to_owned()),
        });
    let world = setup.start(&["late", "b", "c"]).await;
    let began = Instant::now();
    world.until("the others are done", |w| w.sent() == ["b", "c"]).await;
    assert!(began.elapsed() < SECOND / 2, "{:?}", began.elapsed());
    world.until_done().await;
    assert_eq!((world.sent(), world.letters()), (texts(&["b", "c", "late"]), vec![]));
    // Waits of 1, 2 and 4 s, of which jitter takes away up to half.
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(3500) && waited < SECOND * 8, "{waited:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_of_all_kinds_count_together_and_after_those_the_handler_asked_for() {
    let handler = echo().with_error(|failure, _| {
        Ok(match failure.attempt {
            1 => drakkar_api::ErrorAction::Retry,
            _ => drakkar_api::ErrorAction::Policy,
        })
    });
    let setup = Setup::new(handler)
        .config(|config| config.on_failure.signal = policy(4, FailureAction::DeadLetter))
        .tasks(1, |_, attempt| match attempt {
            1..=3 => FakeRun::ending(TaskOutcome::Signal(9)),
            _ => FakeRun::exit(1),
        });
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.letter(0).header("attempts"), "4", "exit codes get one attempt");
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn a_failure_can_be_accepted() {
    let setup = Setup::new(echo())
        .config(|config| config.on_failure.exit_code = policy(2, FailureAction::Skip))
        .tasks(1, |task, _| match input(task).as_str() {
            "bad" => FakeRun::exit(1),
            text => FakeRun::success(text.to_owned()),
        });
    let world = setup.start(&["a", "bad", "b"]).await;
    world.until_done().await;
    assert_eq!((world.sent(), world.letters()), (texts(&["a", "b"]), vec![]));
    assert_eq!((world.executor.records().len(), world.seen.count("TaskSkipped")), (4, 1));
    world.finish().await;
}

// Promise: DL-1, WM-1, FT-1
#[tokio::test(start_paused = true)]
async fn a_failure_can_stop_the_worker_without_a_commit_past_it() {
    for has_window_hook in [false, true] {
        let handler = match has_window_hook {
            false => echo(),
            true => echo().with_window_complete(|_, _| Ok(Outputs::new())),
        };
        let setup = Setup::new(handler)
            .config(|config| {
                config.on_failure.exit_code = policy(2, FailureAction::Stop);
                config.window_size = 2;
            })
            .tasks(1, |task, _| match input(task).as_str() {
                "bad" => FakeRun::exit(7),
                text => FakeRun::success(text.to_owned()),
            });
        let world = setup.start(&["a", "b", "bad", "c", "d"]).await;
        let reason = stopped(world, Some(2), SECOND * 5).await;
        assert!(reason.contains("in:0 stopped at offset 2"), "{reason}");
        assert!(reason.contains("exited with code 7"), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_called_again_with_the_same() {
    let (task, message, window) = (counter(), counter(), counter());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handler = TestHandler::new()
        .with_task_complete(move |done, _| match task() {
            0 => broken(true),
            1 => broken(false),
            _ => Ok(Outputs::new().with(record(done.stdout()))),
        })
        .with_message_complete(move |group, _| {
            let results = (group.tasks.len(), group.results.len());
            log.lock().expect("no panic").push(results);
            match message() {
                0 | 1 => broken(false),
                _ => Ok(Outputs::new().with(record("message"))),
            }
        })
        .with_window_complete(move |completed, _| match window() {
            0 | 1 => broken(true),
            _ => Ok(Outputs::new().with(record(format!("window {}", completed.results.len())))),
        });
    let setup = Setup::new(handler)
        .config(|config| config.on_failure.hook_error = policy(3, FailureAction::DeadLetter));
    let world = setup.start(&["a"]).await;
    let began = Instant::now();
    world.until_done().await;
    assert_eq!((world.sent(), world.letters()), (texts(&["a", "message", "window 1"]), vec![]));
    assert_eq!(*seen.lock().expect("no panic"), [(1, 1); 3]);
    assert_eq!((world.seen.count("HookFailed"), world.executor.records().len()), (6, 1));
    // Three times waits of 1 and 2 s, of which jitter takes away up to half.
    assert!(began.elapsed() > Duration::from_millis(4500), "{:?}", began.elapsed());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_goes_on_failing_is_followed_by_what_the_settings_say() {
    let handler = || {
        TestHandler::new()
            .with_task_complete(|_, _| broken(false))
            .with_message_complete(|_, _| broken(true))
            .with_window_complete(|_, _| broken(false))
    };
    let with = |then| {
        Setup::new(handler()).config(move |config| config.on_failure.hook_error = policy(2, then))
    };

    let world = with(FailureAction::Skip).start(&["a"]).await;
    world.until_done().await;
    assert_eq!((world.sent().len(), world.letters().len()), (0, 0));
    let calls = [Hook::OnTaskComplete, Hook::OnMessageComplete, Hook::OnWindowComplete];
    assert_eq!(calls.map(|hook| world.hooks.count(hook)), [2, 2, 2]);
    world.finish().await;

    let world = with(FailureAction::DeadLetter).start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.letters(), ["message@0 hook_error on_task_complete x2: boom"]);
    world.finish().await;

    let world = with(FailureAction::Stop).start(&["a"]).await;
    let reason = stopped(world, None, SECOND * 5).await;
    assert!(reason.contains("in:0 stopped at offset 0") && reason.contains("boom"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_on_error_is_called_again_for_the_same_attempt() {
    let calls = counter();
    let handler = echo().with_error(move |_, _| match calls() {
        0 | 1 => broken(true),
        _ => Ok(drakkar_api::ErrorAction::Retry),
    });
    let setup = Setup::new(handler)
        .config(|config| config.on_failure.hook_error = policy(3, FailureAction::DeadLetter))
        .tasks(1, |_, attempt| match attempt {
            1 => FakeRun::exit(1),
            _ => FakeRun::success("second"),
        });
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert_eq!((world.sent(), world.letters()), (texts(&["second"]), vec![]));
    world.finish().await;
}

// Promise: WM-1, RB-1
#[tokio::test(start_paused = true)]
async fn what_shares_a_task_with_a_stopped_message_is_not_waited_for() {
    let handler = echo().with_arrange(|window, _| {
        Ok(vec![Task::for_offsets(window.messages().map(Message::offset)).stdin("all")])
    });
    let setup = Setup::new(handler)
        .config(|config| config.on_failure.exit_code = policy(1, FailureAction::Stop))
        .tasks(1, |_, _| FakeRun::exit(1));
    let world = setup.start(&["a", "b", "c"]).await;
    stopped(world, None, SECOND).await;
}

// Promise: WM-1, RB-1
#[tokio::test(start_paused = true)]
async fn what_is_before_a_stop_is_finished_though_nothing_of_it_has_started() {
    let handler = echo().with_arrange(|window, _| {
        let task = |m: &Message<RawInput>| match m.value() {
            Some(value) if value == "known" => {
                let known = Precomputed { exit_code: 1, ..Precomputed::default() };
                Task::for_message(m).precomputed(known)
            }
            value => Task::for_message(m).stdin(value.cloned().unwrap_or_default()),
        };
        Ok(window.messages().map(task).collect())
    });
    let setup = Setup::new(handler)
        .config(|config| {
            config.on_failure.exit_code = policy(1, FailureAction::Stop);
            config.window_size = 1;
        })
        .tasks(1, |task, _| FakeRun::success(input(task)).lasting(SECOND));
    let world = setup.start(&["a", "b", "known", "c"]).await;
    let reason = stopped(world, Some(2), SECOND * 5).await;
    assert!(reason.contains("in:0 stopped at offset 2"), "{reason}");
}

/// Arranges all but windows with a message "poison".
fn fastidious() -> TestHandler {
    echo().with_arrange(|window, _| {
        let is_poison = |m: &Message<RawInput>| m.value().is_some_and(|value| value == "poison");
        if window.messages().any(is_poison) {
            return broken(false);
        }
        let task = |m: &Message<RawInput>| {
            Task::for_message(m).stdin(m.value().cloned().unwrap_or_default())
        };
        Ok(window.messages().map(task).collect())
    })
}

// Promise: DL-1, FT-1
#[tokio::test(start_paused = true)]
async fn a_window_that_cannot_be_arranged_is_tried_as_often_as_the_settings_say() {
    let with = |then| {
        Setup::new(fastidious())
            .config(move |config| config.on_failure.arrange_error = policy(2, then))
    };

    let world = with(FailureAction::DeadLetter).start(&["a", "poison", "b"]).await;
    let began = Instant::now();
    world.until_done().await;
    assert_eq!(world.letters(), ["message@1 hook_error arrange x3: boom"]);
    // A wait of 1 s, of which jitter takes away up to half.
    assert!(began.elapsed() >= SECOND / 2, "{:?}", began.elapsed());
    world.finish().await;

    let world = with(FailureAction::Skip).start(&["a", "poison", "b"]).await;
    world.until_done().await;
    assert_eq!((world.sent(), world.letters()), (texts(&["a", "b"]), vec![]));
    assert_eq!(world.ends(), [(0, "Completed"), (1, "Skipped"), (2, "Completed")]);
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn a_message_that_was_skipped_does_not_share_the_failure_of_its_window() {
    let handler = fastidious().with_window_complete(|_, _| broken(false));
    let setup = Setup::new(handler)
        .config(|config| config.on_failure.arrange_error = policy(1, FailureAction::Skip));
    let world = setup.start(&["a", "poison", "b"]).await;
    world.until_done().await;
    let window = "hook_error on_window_complete x1: boom";
    assert_eq!(world.letters(), [0, 2].map(|offset| format!("message@{offset} {window}")));
    assert_eq!(world.ends(), [(0, "DeadLettered"), (1, "Skipped"), (2, "DeadLettered")]);
    world.finish().await;
}

// Promise: DL-1, WM-1, FT-1
#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_arranged_can_stop_the_worker() {
    for window_size in [1, 2, 4] {
        let setup = Setup::new(fastidious())
            .config(|config| {
                config.on_failure.arrange_error = policy(1, FailureAction::Stop);
                config.window_size = window_size;
            })
            .tasks(1, |task, _| FakeRun::success(input(task)).lasting(SECOND));
        let world = setup.start(&["a", "b", "poison", "c"]).await;
        let sink = world.sink.clone();
        let reason = stopped(world, Some(2), SECOND * 5).await;
        assert!(reason.contains("in:0 stopped at offset 2"), "{reason}");
        assert!(reason.contains("boom"), "{reason}");
        assert_eq!(sink.applied().len(), 2, "windows of {window_size}");
    }
}

// Promise: WM-1, FT-1
#[tokio::test(start_paused = true)]
async fn what_needs_a_message_that_is_not_arranged_any_more_stops_the_worker_too() {
    let handler = echo().with_arrange(|window, _| match window.len() {
        1 if window.messages().any(|m| m.offset() == Offset::new(1)) => {
            Ok(vec![Task::for_offsets([1, 2].map(Offset::new)).stdin("both")])
        }
        1 if window.messages().any(|m| m.offset() == Offset::new(0)) => {
            Ok(vec![Task::for_offset(Offset::new(0)).stdin("first")])
        }
        _ => broken(false),
    });
    let setup = Setup::new(handler)
        .config(|config| config.on_failure.arrange_error = policy(1, FailureAction::Stop));
    let mut world = setup.start(&["a", "b", "c"]).await;
    let error = world.ended().await.expect_err("the worker stops");
    let EngineErrorKind::Stopped(reason) = error.kind() else { panic!("{error}") };
    assert!(
        reason.contains("stopped at offset 1") && reason.contains("names offset 2"),
        "{reason}"
    );
    world.check_account();
    assert!(world.letters().is_empty());
    assert_eq!(world.sent(), ["first"]);
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Waits until a failure has stopped the worker, with this position committed, and answers why.
async fn stopped(mut world: World, committed: Option<i64>, within: Duration) -> String {
    let began = Instant::now();
    let error = world.ended().await.expect_err("the worker stops");
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
    let EngineErrorKind::Stopped(reason) = error.kind() else { panic!("{error}") };
    assert_eq!(world.committed(0), committed);
    assert_eq!(world.seen.count("PartitionFailed"), 1, "{world:?}");
    world.check_account();
    assert!(world.source.has_ended() && world.letters().is_empty());
    reason.clone()
}
