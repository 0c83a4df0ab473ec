//! What groups and windows count: successes, failures, replaced tasks, and messages without tasks.

use crate::world::{ROOMY, SECOND, Setup, World, input, record};
use drakkar_api::{
    ErrorAction, Hook, HookResult, Message, Offset, Outputs, PendingTasks, Precomputed, RawInput,
    Task, TaskFailure, Window,
};
use drakkar_testkit::{FakeRun, TestHandler};
use std::sync::{Arc, Mutex};

/// What the two hooks were given, in short: `message offset total/succeeded/failed/replaced` and
/// `window ids..: results`.
type Notes = Arc<Mutex<Vec<String>>>;

/// Notes what the hooks of messages and windows are given.
fn noting(handler: TestHandler) -> (TestHandler, Notes) {
    let notes = Notes::default();
    let (of_messages, of_windows) = (Arc::clone(&notes), Arc::clone(&notes));
    let handler = handler
        .with_message_complete(move |group, _| {
            of_messages.lock().expect("no panic").push(format!(
                "message {} {}/{}/{}/{}",
                group.message.offset(),
                group.total(),
                group.succeeded(),
                group.failed(),
                group.replaced()
            ));
            Ok(Outputs::new())
        })
        .with_window_complete(move |window, _| {
            let offsets: Vec<_> =
                window.messages.iter().map(|message| message.offset().to_string()).collect();
            let results: Vec<_> = window.results.iter().map(|result| result.id()).collect();
            let line = format!("window {}: {}", offsets.join(" "), results.join(" "));
            of_windows.lock().expect("no panic").push(line);
            Ok(Outputs::new())
        });
    (handler, notes)
}

fn noted(notes: &Notes) -> Vec<String> {
    notes.lock().expect("no panic").clone()
}

/// Runs one message with one task `t` that fails as long as its input says so, and answers what was
/// noted.
async fn one_failing_task(
    action: impl Fn(&TaskFailure) -> ErrorAction + Send + Sync + 'static,
) -> (Vec<String>, usize, World) {
    let handler = TestHandler::new()
        .with_arrange(|window, _| {
            Ok(window.messages().map(|m| Task::for_message(m).id("t").stdin("bad")).collect())
        })
        .with_error(move |failure, _| Ok(action(failure)));
    let (handler, notes) = noting(handler);
    let setup = Setup::new(handler).config(|config| config.task_retries_max = 2);
    let setup = setup.tasks(4, |task, _| match input(task).as_str() {
        "bad" => FakeRun::exit(1),
        text => FakeRun::success(text.to_owned()),
    });
    let world = setup.start(&["m"]).await;
    world.until_done().await;
    (noted(&notes), world.hooks.count(Hook::OnError), world)
}

fn replacement(failure: &TaskFailure, id: &str, text: &'static str) -> Task {
    Task::for_offsets(failure.task.source_offsets.clone()).id(id).stdin(text)
}

#[tokio::test(start_paused = true)]
async fn a_success_counts_one() {
    let (handler, notes) = noting(TestHandler::new().with_arrange(|window, _| {
        Ok(window.messages().map(|m| Task::for_message(m).id("t")).collect())
    }));
    let world = Setup::new(handler).start(&["m"]).await;
    world.until_done().await;
    assert_eq!(noted(&notes), ["message 0 1/1/0/0", "window 0: t"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_skipped_failure_counts_one() {
    let (noted, errors, world) = one_failing_task(|_| ErrorAction::Skip).await;
    assert_eq!(noted, ["message 0 1/0/1/0", "window 0: t"]);
    assert_eq!((errors, world.letters().len()), (1, 0));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn used_up_retries_count_one() {
    let (noted, errors, world) = one_failing_task(|_| ErrorAction::Retry).await;
    assert_eq!(noted, ["message 0 1/0/1/0", "window 0: t"]);
    assert_eq!((errors, world.letters().len()), (3, 1));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_replaced_by_two_successes_counts_three_and_two_results() {
    let (noted, errors, world) = one_failing_task(|failure| {
        ErrorAction::Replace(vec![replacement(failure, "a", "ok"), replacement(failure, "b", "ok")])
    })
    .await;
    assert_eq!(noted, ["message 0 3/2/0/1", "window 0: a b"]);
    assert_eq!((errors, world.letters().len()), (1, 0));
    assert_eq!(world.seen.count("TaskReplaced"), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_replaced_by_one_that_is_skipped_counts_two_and_one_result() {
    let (noted, errors, world) = one_failing_task(|failure| match failure.id() {
        "t" => ErrorAction::Replace(vec![replacement(failure, "a", "bad")]),
        _ => ErrorAction::Skip,
    })
    .await;
    assert_eq!(noted, ["message 0 2/0/1/1", "window 0: a"]);
    assert_eq!((errors, world.letters().len()), (2, 0));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn two_retries_and_then_a_replacement_ask_three_times() {
    let (noted, errors, world) = one_failing_task(|failure| match failure.attempt {
        1 | 2 => ErrorAction::Retry,
        _ => ErrorAction::Replace(vec![replacement(failure, "a", "ok")]),
    })
    .await;
    assert_eq!(noted, ["message 0 2/1/0/1", "window 0: a"]);
    assert_eq!(errors, 3);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_replacement_drops_the_task() {
    let (noted, errors, world) = one_failing_task(|_| ErrorAction::Replace(Vec::new())).await;
    assert_eq!(noted, ["message 0 1/0/0/1", "window 0: "]);
    assert_eq!((errors, world.letters().len()), (1, 0));
    assert_eq!(world.ends(), [(0, "Completed")]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_on_task_complete_counts_as_a_failure() {
    let (handler, notes) =
        noting(TestHandler::new().with_task_complete(|_, _| Err::<Outputs, _>("no".into())));
    let world = Setup::new(handler).start(&["m"]).await;
    world.until_done().await;
    assert_eq!(noted(&notes)[0], "message 0 1/0/1/0");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn fan_out_waits_for_all_tasks_of_a_message() {
    let (handler, notes) = noting(TestHandler::new().with_arrange(|window, _| {
        let tasks = |message: &Message<RawInput>| {
            let task = |text: &'static str| Task::for_message(message).id(text).stdin(text);
            ["c", "a", "b"].map(task)
        };
        Ok(window.messages().flat_map(tasks).collect())
    }));
    let setup = Setup::new(handler).tasks(4, |task, _| {
        let seconds = u32::from(input(task).as_bytes()[0] - b'a');
        FakeRun::exit(0).lasting(SECOND * seconds)
    });
    let world = setup.start(&["m"]).await;
    world.until_done().await;
    assert_eq!(noted(&notes), ["message 0 3/3/0/0", "window 0: a b c"], "in completion order");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn fan_in_settles_every_message_of_the_task() {
    let (handler, notes) = noting(TestHandler::new().with_arrange(|window, _| {
        let offsets: Vec<_> = window.messages().map(Message::offset).collect();
        let again = offsets[0];
        Ok(vec![
            Task::for_offsets(offsets.into_iter().chain([again])).id("all"),
            Task::for_offset(again).id("one"),
        ])
    }));
    let setup =
        Setup::new(handler).tasks(4, |task, _| match task.id.as_ref().map(|id| id.as_str()) {
            Some("all") => FakeRun::exit(0).lasting(SECOND),
            _ => FakeRun::exit(0),
        });
    let world = setup.start(&["a", "b", "c"]).await;
    world.until_done().await;
    assert_eq!(
        noted(&notes),
        ["message 0 2/2/0/0", "message 1 1/1/0/0", "message 2 1/1/0/0", "window 0 1 2: one all"],
        "an offset that is named twice counts once"
    );
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn fan_in_outputs_hold_every_message_of_the_task() {
    let handler = TestHandler::new()
        .with_arrange(|window, _| {
            Ok(vec![Task::for_offsets(window.messages().map(Message::offset))])
        })
        .with_task_complete(|_, _| Ok(Outputs::new().with(record("sum"))));
    let world = Setup::new(handler).start(&[]).await;
    world.sink.push(drakkar_testkit::Reaction::confirm().taking(SECOND * 9));
    world.produce(0, &["a", "b", "c"]);
    world.until("the sink is called", |w| w.sink.calls().len() == 1).await;
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!((world.committed(0), world.ends()), (None, vec![]));
    world.until_done().await;
    assert_eq!(world.sent(), ["sum"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn messages_without_tasks_complete_at_once_and_a_window_without_tasks_has_no_hook() {
    let (handler, notes) = noting(TestHandler::new().with_arrange(|window, _| {
        let some = window.messages().filter(|message| message.value().is_some_and(|v| v == "task"));
        Ok(some.map(|message| Task::for_message(message).id("t")).collect())
    }));
    let setup = Setup::new(handler).config(|config| config.window_size = 2);
    let world = setup.start(&["none", "none", "none", "task"]).await;
    world.until_done().await;
    let mut lines = noted(&notes);
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "message 0 0/0/0/0",
            "message 1 0/0/0/0",
            "message 2 0/0/0/0",
            "message 3 1/1/0/0",
            "window 2 3: t"
        ]
    );
    assert_eq!(world.hooks.count(Hook::OnWindowComplete), 1);
    assert_eq!(world.seen.count("WindowFinished"), 2);
    world.finish().await;
}

// D28: the original counted a precomputed result twice.
#[tokio::test(start_paused = true)]
async fn a_precomputed_result_is_counted_once_and_needs_no_slot() {
    let handler = TestHandler::new()
        .with_arrange(|window, _| {
            let known = |m: &Message<RawInput>| {
                Task::for_message(m).id("t").precomputed(Precomputed::stdout("known"))
            };
            Ok(window.messages().map(known).collect())
        })
        .with_task_complete(|done, _| Ok(Outputs::new().with(record(done.stdout()))))
        .with_priority(|_| panic!("never asked for a precomputed task"));
    let (handler, notes) = noting(handler);
    let world = Setup::new(handler).start(&["m"]).await;
    world.until_done().await;
    assert_eq!(noted(&notes), ["message 0 1/1/0/0", "window 0: t"]);
    assert_eq!(world.sent(), ["known"]);
    let counts =
        ["TaskScheduled", "TaskStarted", "TaskFinished"].map(|name| world.seen.count(name));
    assert_eq!(counts, [1, 0, 1]);
    assert_eq!(world.hooks.count(Hook::OnTaskComplete), 1);
    assert!(world.executor.records().is_empty());
    world.finish().await;
}

fn ids(window: &Window<RawInput>) -> HookResult<Vec<Task>> {
    Ok(window.messages().map(Task::for_message).collect())
}

#[tokio::test(start_paused = true)]
async fn tasks_get_ids_that_sort_and_replacements_know_their_parent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handler = TestHandler::new()
        .with_arrange(|window, _| ids(window))
        .with_error(|failure, _| {
            let offset = failure.task.source_offsets[0];
            let mut own = Task::for_offset(offset).stdin("ok").id("own");
            own.parent = Some(drakkar_api::TaskId::new("somebody"));
            Ok(ErrorAction::Replace(vec![Task::for_offset(offset).stdin("ok").id("given"), own]))
        })
        .with_message_complete(move |group, _| {
            let parent = |task: &Arc<Task>| {
                let text = |id: &Option<drakkar_api::TaskId>| {
                    id.as_ref().map_or_else(String::new, ToString::to_string)
                };
                (text(&task.id), text(&task.parent))
            };
            log.lock().expect("no panic").extend(group.tasks.iter().map(parent));
            Ok(Outputs::new())
        });
    let setup = Setup::new(handler).tasks(1, |task, _| match input(task).as_str() {
        "ok" => FakeRun::exit(0),
        _ => FakeRun::exit(1),
    });
    let world = setup.start(&["m"]).await;
    world.until_done().await;
    let tasks = seen.lock().expect("no panic").clone();
    let first = tasks[0].0.clone();
    assert!(first.starts_with("t-"), "{tasks:?}");
    let expect = [(first.as_str(), ""), ("given", first.as_str()), ("own", "somebody")];
    assert_eq!(tasks, expect.map(|(id, parent)| (id.to_owned(), parent.to_owned())));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_may_name_messages_of_an_earlier_window() {
    let (handler, notes) = noting(TestHandler::new().with_arrange(|window, _| {
        let mut offsets: Vec<_> = window.messages().map(Message::offset).collect();
        let id = if window.id().get() == 1 {
            "first"
        } else {
            assert_eq!(window.pending().len(), 1);
            assert!(window.pending().contains("first"));
            offsets.insert(0, Offset::new(0));
            "second"
        };
        Ok(vec![Task::for_offsets(offsets).id(id)])
    }));
    let setup = Setup::new(handler).config(|config| config.window_size = 1);
    let setup = setup.tasks(4, |_, _| FakeRun::exit(0).lasting(SECOND));
    let world = setup.start(&["a", "b"]).await;
    world.until_done().await;
    let mut lines = noted(&notes);
    lines.sort_unstable();
    let expect = ["message 0 2/2/0/0", "message 1 1/1/0/0", "window 0: first", "window 1: second"];
    assert_eq!(lines, expect);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_pends_is_not_copied_for_each_window_and_does_not_change_under_it() {
    let kept = Arc::<Mutex<Vec<PendingTasks>>>::default();
    let keep = Arc::clone(&kept);
    let handler = TestHandler::new().with_arrange(move |window, _| {
        keep.lock().expect("no panic").push(window.pending().clone());
        Ok(window.messages().map(Task::for_message).collect())
    });
    let setup = Setup::new(handler).tasks(1000, |_, _| FakeRun::exit(0).lasting(SECOND));
    let setup = setup.config(|config| {
        config.window_size = 100;
        config.load_count = ROOMY;
    });
    let world = setup.start(&["x"; 1000]).await;
    world.until_run(1000).await;
    let kept_before = kept.lock().expect("no panic").clone();
    let first = Arc::downgrade(kept_before[9].iter().next().expect("900 tasks"));
    world.until_done().await;
    let kept = std::mem::take(&mut *kept.lock().expect("no panic"));
    let sizes: Vec<_> = kept.iter().map(|pending| pending.iter().count()).collect();
    assert_eq!(sizes, (0..10).map(|window| window * 100).collect::<Vec<_>>());
    drop(kept_before);
    // What the engine itself had is gone, so these are of the ten windows.
    let holders = first.strong_count();
    assert!((1..5).contains(&holders), "{holders} lists hold the first task");
    world.finish().await;
}
