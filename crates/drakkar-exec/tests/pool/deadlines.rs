//! No task outlives its deadline, whatever it does.

use crate::support::{PATIENCE, assert_outcome, eventually, is_alive, pids, pool, sh};
use drakkar_api::TaskOutcome;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(300);

/// Long enough for a shell to set itself up on a busy machine.
const READY: Duration = Duration::from_secs(2);

// Promise: EX-1
#[test]
fn a_task_that_ignores_sigterm_is_killed_after_the_grace_with_its_group() {
    let pool = pool(|section| section.kill_grace_seconds = 0.3);
    let script = "trap '' TERM; sleep 1000 & echo $!; sleep 1000 & echo $!; wait; wait; sleep 1000";
    let execution = pool.run(sh(script).timeout(READY)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit: READY });
    assert!(execution.duration >= READY + Duration::from_millis(300), "{execution:?}");
    assert!(execution.usage.is_some() && !execution.leftovers_killed, "{execution:?}");
    let sleepers = pids(&execution);
    assert_eq!(sleepers.len(), 2, "what it wrote is kept");
    for pid in sleepers {
        eventually("the whole group is gone", || !is_alive(pid));
    }
}

// Promise: EX-1
#[test]
fn a_task_may_clean_up_within_the_grace() {
    let pool = pool(|section| section.kill_grace_seconds = PATIENCE.as_secs_f64());
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let execution = pool.run(sh(script).timeout(READY)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit: READY });
    assert_eq!(execution.stdout.text(), "ready\nbye\n");
    assert!(execution.duration < PATIENCE, "{execution:?}");
}

/// A shell dies of SIGTERM at once; the program it runs may still need the grace.
// Promise: EX-1
#[test]
fn the_grace_is_for_the_whole_group() {
    let pool = pool(|section| section.kill_grace_seconds = PATIENCE.as_secs_f64());
    let child =
        "trap \"sleep 1; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.01; done";
    let script = format!("sh -c '{child}'; true");
    let execution = pool.run(sh(&script).timeout(READY)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit: READY });
    assert_eq!(execution.stdout.text(), "ready\nsaved\n");
}

#[test]
fn without_grace_the_deadline_kills() {
    let pool = pool(|section| section.kill_grace_seconds = 0.0);
    let script = "trap '' TERM; while :; do sleep 1000; done";
    let execution = pool.run(sh(script).timeout(SHORT)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit: SHORT });
}

// Promise: EX-1
#[test]
fn a_chatty_task_has_a_deadline_too() {
    let pool = pool(|section| section.stdout_bytes_max = 1000);
    let endless = vec![b'x'; 1 << 20];
    for task in [sh("yes"), sh("yes >&2"), sh("yes & sleep 1000").stdin(endless)] {
        let execution = pool.run(task.timeout(SHORT)).wait();
        assert_outcome(&execution, &TaskOutcome::Timeout { limit: SHORT });
        assert!(execution.stdout.total_bytes + execution.stderr.total_bytes > 1000);
    }
}

// Promise: EX-1
#[test]
fn a_task_that_closes_its_output_has_a_deadline_too() {
    let execution = pool(|_| {}).run(sh("exec >&- 2>&-; sleep 1000").timeout(SHORT)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit: SHORT });
}

/// The original waited for the whole timeout, lost the output and left the grandchild alive.
// Promise: EX-1
#[test]
fn a_grandchild_that_holds_the_output_open_neither_delays_nor_survives() {
    let execution = pool(|_| {}).run(sh("sleep 1000 & echo $!").timeout(PATIENCE)).wait();
    assert_outcome(&execution, &TaskOutcome::Success);
    assert!(execution.leftovers_killed && execution.duration < PATIENCE, "{execution:?}");
    let [pid] = pids(&execution)[..] else { panic!("{execution:?}") };
    eventually("the grandchild is gone", || !is_alive(pid));
}

// Promise: EX-1
#[test]
fn a_grandchild_that_holds_nothing_does_not_survive_either() {
    // Longer than anything here may take: the drain time plays no part.
    let pool = pool(|section| section.pipe_drain_seconds = 1000.0);
    for code in [0, 5] {
        let script = format!("sleep 1000 >/dev/null 2>&1 & echo $!; exit {code}");
        let execution = pool.run(sh(&script)).wait();
        assert_eq!(execution.outcome.exit_code(), Some(code), "{execution:?}");
        assert!(execution.leftovers_killed, "{execution:?}");
        let [pid] = pids(&execution)[..] else { panic!("{execution:?}") };
        eventually("the grandchild is gone", || !is_alive(pid));
    }
}

#[test]
fn output_that_a_grandchild_still_writes_is_read_within_the_drain_time() {
    let pool = pool(|section| section.pipe_drain_seconds = PATIENCE.as_secs_f64());
    let execution = pool.run(sh("(sleep 0.3; echo late) & echo early")).wait();
    assert_outcome(&execution, &TaskOutcome::Success);
    assert_eq!(execution.stdout.text(), "early\nlate\n");
}
