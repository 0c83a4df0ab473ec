//! Who gets a slot, and what becomes of runs that are withdrawn.

use crate::support::{Barrier, PATIENCE, Recorder, assert_outcome, eventually, pool, sh};
use drakkar_api::{
    CancelScope, Epoch, Execution, Executor, Offset, Run, RunId, RunListener, Slots, Task,
    TaskOutcome,
};
use drakkar_exec::ProcessPool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Occupies the only slot of `pool` with run 1000 of owner 99, until the barrier opens.
fn occupy(pool: &ProcessPool, recorder: &Arc<Recorder>) -> Barrier {
    let barrier = Barrier::new();
    recorder.submit(pool, 99, 1000, sh(&barrier.wait_script()));
    recorder.wait_started(1000);
    barrier
}

fn at(offset: i64) -> Task {
    Task::for_offset(Offset::new(offset)).binary("/bin/true")
}

#[test]
fn runs_start_by_priority_then_in_turns_then_by_offset() {
    let pool = pool(|_| {});
    let recorder = Recorder::new();
    let barrier = occupy(&pool, &recorder);
    recorder.submit(&pool, 2, 1, at(1_000_001));
    recorder.submit(&pool, 2, 2, at(1_000_000));
    recorder.submit(&pool, 1, 3, at(7));
    recorder.submit(&pool, 1, 4, at(7));
    recorder.submit(&pool, 1, 5, at(6));
    recorder.submit_with(&pool, 1, 6, -1, at(9));
    assert_eq!(pool.slots(), Slots { total: 1, active: 1, waiting: 6 });
    barrier.open();
    let heard = recorder.wait_for("all end", |heard| heard.finished.len() == 7);
    assert_eq!(heard.started, [1000, 6, 5, 2, 3, 1, 4]);
    assert!(heard.finished.values().flatten().all(|execution| execution.outcome.is_success()));
    assert!(heard.finished[&4][0].queue_wait >= heard.finished[&6][0].queue_wait);
}

#[test]
fn the_process_of_a_run_is_known_while_it_runs() {
    let pool = pool(|_| {});
    let recorder = Recorder::new();
    let barrier = occupy(&pool, &recorder);
    recorder.submit(&pool, 1, 1, at(0));
    let pid = |owner, id| pool.pid(Epoch::new(owner), RunId::new(id));
    eventually("the process is there", || pid(99, 1000).is_some());
    let running = pid(99, 1000);
    assert_eq!(pid(1, 1), None, "it waits");
    assert_eq!(pid(1, 1000), None, "this is a run of another owner");
    barrier.open();
    assert_eq!(recorder.wait_finished(1000).pid, running);
    recorder.wait_finished(1);
    wait_on(pool.close());
    assert_eq!((pid(99, 1000), pid(1, 1)), (None, None));
}

/// In the original, priorities that could not be compared lost a slot for ever. Here they are
/// numbers, so this cannot be; what the extremes of their range do, can be tried.
#[test]
fn no_priority_costs_a_slot() {
    let pool = pool(|_| {});
    let recorder = Recorder::new();
    let barrier = occupy(&pool, &recorder);
    for (id, priority) in [(1, i64::MAX), (2, 0), (3, i64::MIN), (4, i64::MAX), (5, i64::MIN)] {
        recorder.submit_with(&pool, id, id, priority, at(0));
    }
    barrier.open();
    let heard = recorder.wait_for("all end", |heard| heard.finished.len() == 6);
    assert_eq!(heard.started, [1000, 3, 5, 2, 1, 4]);
    recorder.submit(&pool, 1, 6, at(0));
    assert_outcome(&recorder.wait_finished(6), &TaskOutcome::Success);
    wait_on(pool.close());
    assert_eq!(pool.slots(), Slots { total: 1, active: 0, waiting: 0 });
}

#[test]
fn waiting_runs_are_withdrawn_by_id() {
    let pool = pool(|_| {});
    let recorder = Recorder::new();
    let barrier = occupy(&pool, &recorder);
    (1..=4).for_each(|id| recorder.submit(&pool, 1, id, at(0)));
    let ids = |ids: &[u64]| CancelScope::Waiting(ids.iter().copied().map(RunId::new).collect());
    pool.cancel(Epoch::new(1), ids(&[2, 3, 77]));
    // Those that run go on, and those of others are not touched.
    pool.cancel(Epoch::new(99), ids(&[1000]));
    pool.cancel(Epoch::new(2), ids(&[4]));
    for id in [2, 3] {
        let execution = recorder.wait_finished(id);
        assert_outcome(&execution, &TaskOutcome::Cancelled);
        assert!(execution.queue_wait > Duration::ZERO);
    }
    assert_eq!(pool.slots().waiting, 2);
    barrier.open();
    for id in [1, 4, 1000] {
        assert_outcome(&recorder.wait_finished(id), &TaskOutcome::Success);
    }
    assert_eq!(recorder.heard().started, [1000, 1, 4]);
}

#[test]
fn a_lost_owner_is_fenced_at_once() {
    let pool = pool(|section| {
        section.max_executors = 2;
        section.kill_grace_seconds = PATIENCE.as_secs_f64();
    });
    let recorder = Recorder::new();
    let barrier = Barrier::new();
    let deaf = "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 1000; done";
    recorder.submit(&pool, 1, 1, sh(deaf).timeout(2 * PATIENCE));
    recorder.submit(&pool, 2, 2, sh(&barrier.wait_script()));
    recorder.wait_started(1);
    recorder.wait_started(2);
    recorder.submit(&pool, 1, 3, at(0));
    pool.cancel(Epoch::new(1), CancelScope::All);
    let killed = recorder.wait_finished(1);
    assert_outcome(&killed, &TaskOutcome::Cancelled);
    assert!(killed.duration < PATIENCE, "no grace: {killed:?}");
    assert_outcome(&recorder.wait_finished(3), &TaskOutcome::Cancelled);
    barrier.open();
    assert_outcome(&recorder.wait_finished(2), &TaskOutcome::Success);
    assert!(!recorder.heard().started.contains(&3));

    recorder.submit(&pool, 1, 4, at(0));
    assert_outcome(&recorder.wait_finished(4), &TaskOutcome::Success);
}

#[test]
fn single_runs_are_killed_or_withdrawn_by_id() {
    let pool = pool(|section| section.max_executors = 2);
    let recorder = Recorder::new();
    let barrier = Barrier::new();
    recorder.submit(&pool, 1, 1, sh("sleep 1000").timeout(2 * PATIENCE));
    recorder.submit(&pool, 1, 2, sh(&barrier.wait_script()));
    recorder.wait_started(1);
    recorder.wait_started(2);
    (3..=4).for_each(|id| recorder.submit(&pool, 1, id, sh(&barrier.wait_script())));
    let ids = |ids: &[u64]| CancelScope::Runs(ids.iter().copied().map(RunId::new).collect());
    // Those of others are not touched.
    pool.cancel(Epoch::new(2), ids(&[1, 2, 3]));
    pool.cancel(Epoch::new(1), ids(&[1, 4, 77]));
    for id in [1, 4] {
        assert_outcome(&recorder.wait_finished(id), &TaskOutcome::Cancelled);
    }
    recorder.wait_started(3);
    barrier.open();
    for id in [2, 3] {
        assert_outcome(&recorder.wait_finished(id), &TaskOutcome::Success);
    }
    assert!(!recorder.heard().started.contains(&4));
}

/// A listener that does something when its run starts and ends.
struct Acting<S, F> {
    started: S,
    finished: F,
}

impl<S: Fn() + Send + Sync, F: Fn(Execution) + Send + Sync> RunListener for Acting<S, F> {
    fn started(&self, _id: RunId, _slot: usize, _queue_wait: Duration) {
        (self.started)();
    }

    fn finished(&self, _id: RunId, execution: Execution) {
        (self.finished)(execution);
    }
}

fn run_with(owner: u64, id: u64, task: Task, listener: impl RunListener + 'static) -> Run {
    Run {
        owner: Epoch::new(owner),
        id: RunId::new(id),
        task: Arc::new(task),
        priority: drakkar_api::Priority::default(),
        listener: Arc::new(listener),
    }
}

#[test]
fn a_run_cancelled_before_its_process_starts_has_none() {
    let pool = Arc::new(pool(|_| {}));
    let recorder = Recorder::new();
    let (canceller, teller) = (Arc::clone(&pool), Arc::clone(&recorder));
    let listener = Acting {
        started: move || canceller.cancel(Epoch::new(1), CancelScope::All),
        finished: move |execution| teller.finished(RunId::new(1), execution),
    };
    pool.submit(run_with(1, 1, at(0), listener));
    let execution = recorder.wait_finished(1);
    assert_outcome(&execution, &TaskOutcome::Cancelled);
    assert_eq!(execution.pid, None);
    // The cancellation was for that run and not for the next one of its slot.
    recorder.submit(&pool, 1, 2, at(0));
    assert_outcome(&recorder.wait_finished(2), &TaskOutcome::Success);
}

#[test]
fn a_listener_may_call_the_pool() {
    let pool = Arc::new(pool(|_| {}));
    let recorder = Recorder::new();
    let (inner, teller) = (Arc::clone(&pool), Arc::clone(&recorder));
    let listener = Acting {
        started: || {},
        finished: move |_| {
            assert_eq!(inner.slots().active, 1);
            inner.cancel(Epoch::new(7), CancelScope::All);
            teller.submit(&inner, 1, 2, at(0));
        },
    };
    pool.submit(run_with(1, 1, at(0), listener));
    assert_outcome(&recorder.wait_finished(2), &TaskOutcome::Success);
}

/// How often this thread has gone to sleep.
fn times_slept() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a number")
}

/// However a task spends its time, its slot sleeps until there is something to do.
#[test]
fn a_slot_does_not_wake_for_nothing() {
    let pool = pool(|_| {});
    for script in ["sleep 1", "exec >&- 2>&-; sleep 1", "exec <&-; sleep 1"] {
        let recorder = Recorder::new();
        let before = Arc::new(Mutex::new(0));
        let (at_start, at_end) = (Arc::clone(&before), Arc::clone(&before));
        let teller = Arc::clone(&recorder);
        let listener = Acting {
            started: move || *at_start.lock().expect("no panic") = times_slept(),
            finished: move |execution| {
                let mut count = at_end.lock().expect("no panic");
                *count = times_slept() - *count;
                teller.finished(RunId::new(1), execution);
            },
        };
        pool.submit(run_with(1, 1, sh(script).stdin(vec![b'x'; 1 << 20]), listener));
        assert_outcome(&recorder.wait_finished(1), &TaskOutcome::Success);
        let slept = *before.lock().expect("no panic");
        assert!(slept < 40, "it woke {slept} times for {script:?}");
    }
}

#[test]
fn a_listener_that_panics_costs_nobody_a_slot() {
    let pool = pool(|_| {});
    let recorder = Recorder::new();
    let panics = || Acting { started: || panic!("expected"), finished: |_| panic!("expected") };
    pool.submit(run_with(1, 1, at(0), panics()));
    pool.submit(run_with(1, 2, at(0).precomputed(Default::default()), panics()));
    recorder.submit(&pool, 1, 3, at(0));
    recorder.submit(&pool, 1, 4, at(0).precomputed(Default::default()));
    assert_outcome(&recorder.wait_finished(3), &TaskOutcome::Success);
    assert_outcome(&recorder.wait_finished(4), &TaskOutcome::Success);
}

#[test]
fn the_last_owner_of_a_pool_may_be_one_of_its_threads() {
    let pool = Arc::new(pool(|_| {}));
    let recorder = Recorder::new();
    let (held, teller) = (Mutex::new(Some(Arc::clone(&pool))), Arc::clone(&recorder));
    let barrier = Barrier::new();
    let listener = Acting {
        started: || {},
        finished: move |execution| {
            drop(held.lock().expect("no panic").take());
            teller.finished(RunId::new(1), execution);
        },
    };
    pool.submit(run_with(1, 1, sh(&barrier.wait_script()), listener));
    drop(pool);
    barrier.open();
    assert_outcome(&recorder.wait_finished(1), &TaskOutcome::Success);
}

/// Drives a future on this thread.
fn wait_on(future: impl Future<Output = ()>) {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    while future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending() {
        std::thread::park();
    }
}

#[test]
fn closing_ends_everything_once() {
    let pool = pool(|section| section.max_executors = 2);
    let recorder = Recorder::new();
    for id in 0..2 {
        recorder.submit(&pool, id, id, sh("trap '' TERM; while :; do sleep 1000; done"));
        recorder.wait_started(id);
    }
    (2..10).for_each(|id| recorder.submit(&pool, id % 3, id, at(0)));
    wait_on(pool.close());
    let heard = recorder.heard();
    assert_eq!(heard.finished.len(), 10, "all endings are told before the future is ready");
    for execution in heard.finished.values().flatten() {
        assert_outcome(execution, &TaskOutcome::Cancelled);
    }
    assert_eq!(heard.started.len(), 2);
    assert_eq!(pool.slots(), Slots { total: 2, active: 0, waiting: 0 });

    recorder.submit(&pool, 1, 10, at(0));
    assert_outcome(&recorder.wait_finished(10), &TaskOutcome::Cancelled);
    wait_on(pool.close());
}

/// Whatever is cancelled whenever: each run ends once, starts at most once, and is a success only
/// if it started.
#[test]
fn every_run_ends_exactly_once() {
    let pool = pool(|section| section.max_executors = 4);
    let recorder = Recorder::new();
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let runs = 600;
    for id in 0..runs {
        let owner = random(5);
        recorder.submit_with(&pool, owner, id, random(2) as i64, at(random(9) as i64));
        match random(12) {
            0 => pool.cancel(Epoch::new(owner), CancelScope::All),
            1 | 2 => {
                let ids = (0..5).map(|_| RunId::new(random(id + 1))).collect();
                pool.cancel(Epoch::new(random(5)), CancelScope::Waiting(ids));
            }
            _ => {}
        }
    }
    recorder.wait_for("all end", |heard| heard.finished.len() == runs as usize);
    wait_on(pool.close());
    let heard = recorder.heard();
    let mut started = heard.started.clone();
    started.sort_unstable();
    started.dedup();
    assert_eq!(started.len(), heard.started.len(), "no run starts twice");
    for (id, executions) in &heard.finished {
        let [execution] = executions.as_slice() else { panic!("run {id} ended twice") };
        match &execution.outcome {
            TaskOutcome::Success => assert!(started.binary_search(id).is_ok()),
            outcome => assert_eq!(outcome, &TaskOutcome::Cancelled),
        }
    }
}
