//! Starting a child copies nothing of this process. A process of its own, because it counts the page
//! faults of its heap.
#![expect(clippy::disallowed_methods, reason = "what the pool does is compared with a fork")]

use drakkar_api::{Task, TaskOutcome};
use drakkar_exec::{DeathSignal, LimitsSection, PoolSection, ProcessPool};
use std::fs;
use std::os::unix::process::CommandExt;

const HEAP: usize = 64 * 1024 * 1024;
const PAGE: usize = 4096;

/// Writes to every page and returns how many page faults that took.
///
/// After a fork the kernel has made all pages read-only, to share them with the child until one of
/// the two writes; so each write to one faults, also when the child is long gone. After a child that
/// only borrowed the memory none does.
fn faults_of_touching(heap: &mut [u8]) -> u64 {
    let before = minor_faults();
    heap.iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
    minor_faults() - before
}

fn minor_faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").expect("Linux");
    let fields = stat.rsplit_once(") ").expect("a name").1;
    fields.split(' ').nth(7).and_then(|field| field.parse().ok()).expect("a number")
}

#[test]
fn children_are_started_without_a_fork() {
    let mut heap = vec![1_u8; HEAP];
    faults_of_touching(&mut heap);
    let settled = faults_of_touching(&mut heap);

    let section = PoolSection {
        // All that could make the standard library fork: a name, a PATH of the child's own.
        binary_path: Some("true".into()),
        max_executors: 1,
        ..PoolSection::default()
    };
    let wrap = vec!["env".to_owned(), "A=b".to_owned()];
    let wrapped = PoolSection { wrap, ..section.clone() };
    let limits = LimitsSection {
        open_files: Some(64),
        parent_death_signal: Some(DeathSignal::Kill),
        ..LimitsSection::default()
    };
    let limited = PoolSection { limits, ..section.clone() };
    for section in [section, wrapped, limited] {
        let pool = ProcessPool::start(section.validate().expect("valid")).expect("it starts");
        faults_of_touching(&mut heap);
        for task in [
            Task::default(),
            Task::default().binary("cat").stdin("x").env("PATH", "/nowhere"),
            Task::default().binary("/bin/sh").args(["-c", "exit 0"]).env("A", "b"),
        ] {
            let execution = pool.run(task).wait();
            assert_eq!(execution.outcome, TaskOutcome::Success);
            let spawned = faults_of_touching(&mut heap);
            assert!(spawned <= settled + 8, "{spawned} faults, {settled} without a child");
        }
    }

    // The same with a fork is seen: even in huge pages of 2 MiB there are 32 of them.
    let forked = faults_of_forking(&mut heap);
    assert!(forked >= settled + 24, "{forked} faults, {settled} without a child");
}

#[expect(unsafe_code, reason = "only pre_exec makes the standard library fork")]
fn faults_of_forking(heap: &mut [u8]) -> u64 {
    let mut command = std::process::Command::new("/bin/true");
    // SAFETY: the closure does nothing at all.
    unsafe { command.pre_exec(|| Ok(())) };
    assert!(command.status().expect("it starts").success());
    faults_of_touching(heap)
}
