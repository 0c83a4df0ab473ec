//! Fifty thousand tasks leave nothing behind: no process, no descriptor, no memory. A process of its
//! own, because it counts what the whole process has.
//!
//! # How the bound of the memory was chosen
//!
//! A leak of one small object a task, say 100 bytes, is what is to be found; that is 4.5 MB over the
//! tasks that count. Half of that is the bound: above what an allocator's own order costs from one
//! run to the next, and below what the leak would add. The warm-up before lets buffers, stacks
//! and the allocator's pools reach their size. What the check would say of such a leak is measured at the
//! end of the very same test, so that it cannot pass by not seeing anything.

#![expect(clippy::disallowed_methods, reason = "the counting is tried with a child")]
#![expect(clippy::print_stdout, reason = "its figures are worth a look")]

#[path = "counting/own.rs"]
mod counting;

use counting::{check_counting, children, descriptors};
use drakkar_api::{Execution, Executor, Task, TaskOutcome};
use drakkar_exec::{PoolSection, ProcessPool, Running};
use std::collections::VecDeque;
use std::fs;
use std::time::Duration;

const WARM_UP: usize = 5_000;
const TASKS: usize = 45_000;
/// The leak that is to be found, for each task.
const LEAK_BYTES: usize = 100;
const GROWTH_BYTES_MAX: usize = TASKS * LEAK_BYTES / 2;

const SLOTS: usize = 4;
/// How many tasks wait or run at a time: the queue is not what is measured.
const AT_ONCE: usize = 64;

/// What this process has in memory that no file backs: heap and stacks.
fn memory_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it is there");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

/// Most are as short as can be; among them are all kinds of failure.
fn task(index: usize) -> Task {
    let sh = |script: &str| Task::default().binary("/bin/sh").args(["-c", script]);
    match index % 500 {
        10 => Task::default().binary("/no/such/program"),
        20 => Task::default().binary("/bin/true").arg("a\0b"),
        30 => Task::default().binary("/bin/false"),
        40 => sh("kill -9 $$"),
        50 => sh("sleep 1000 & exit 0"),
        60 | 65 => Task::default().binary("sleep").arg("1000").timeout(Duration::from_millis(20)),
        70 => sh("trap '' TERM; while :; do sleep 1000; done").timeout(Duration::from_millis(20)),
        80 => Task::default().binary("/bin/true").stdin(vec![b'x'; 200_000]),
        90 => sh("head -c 300000 /dev/zero"),
        100 => Task::default().binary("/bin/cat").stdin("some input").env("NAME", "value"),
        _ => Task::default().binary("/bin/true"),
    }
}

fn check(index: usize, execution: &Execution) {
    let expect = match index % 500 {
        10 | 20 => "spawn_failure",
        30 => "exit_code",
        40 => "signal",
        60 | 65 | 70 => "timeout",
        _ => "success",
    };
    assert_eq!(execution.outcome.as_str(), expect, "task {index}: {execution:?}");
}

/// Runs that many tasks, and nothing of them is kept.
fn run(pool: &ProcessPool, tasks: usize) {
    let mut running: VecDeque<(usize, Running)> = VecDeque::new();
    let wait = |running: &mut VecDeque<(usize, Running)>| {
        let (index, first) = running.pop_front().expect("some run");
        check(index, &first.wait());
    };
    for index in 0..tasks {
        if running.len() == AT_ONCE {
            wait(&mut running);
        }
        running.push_back((index, pool.run(task(index))));
    }
    while !running.is_empty() {
        wait(&mut running);
    }
}

#[test]
fn fifty_thousand_tasks_leave_nothing_behind() {
    check_counting();
    let section = PoolSection {
        max_executors: SLOTS,
        kill_grace_seconds: 0.02,
        pipe_drain_seconds: 0.02,
        ..PoolSection::default()
    };
    let pool = ProcessPool::start(section.validate().expect("valid")).expect("it starts");
    run(&pool, WARM_UP);
    let (descriptors_before, memory_before) = (descriptors(), memory_bytes());
    run(&pool, TASKS);
    assert_eq!(children(), Vec::<String>::new());
    assert_eq!(descriptors(), descriptors_before);
    assert_eq!(pool.slots().waiting, 0);
    let grown = memory_bytes().saturating_sub(memory_before);
    let of = format!("after {WARM_UP} tasks: {memory_before} bytes; after {TASKS} more");
    assert!(grown < GROWTH_BYTES_MAX, "{of}: {grown} more, which is too much");

    // The same measure sees the leak that it is for.
    let before = memory_bytes();
    let leak: Vec<_> = (0..TASKS).map(|_| vec![1_u8; LEAK_BYTES]).collect();
    let seen = memory_bytes().saturating_sub(before);
    assert!(seen > GROWTH_BYTES_MAX, "a leak would add {seen} bytes only");
    drop(leak);

    // And the pool still works.
    let execution = pool.run(Task::default().binary("/bin/true")).wait();
    assert_eq!(execution.outcome, TaskOutcome::Success);
    println!("{of}: {grown} more; {LEAK_BYTES} bytes a task would add {seen}");
}
