//! How each program ends.

use crate::Check;
use drakkar_api::{Execution, Task, TaskOutcome};
use drakkar_exec::{PoolSection, ProcessPool};
use std::fs;
use std::time::{Duration, Instant};

/// All checks.
pub(crate) const ALL: &[Check] = &[
    ("chatty_on_both_streams", chatty_on_both_streams),
    ("silent", silent),
    ("slow_to_read", slow_to_read),
    ("never_reads", never_reads),
    ("closes_its_input", closes_its_input),
    ("closes_its_output_and_lives_on", closes_its_output_and_lives_on),
    ("writes_what_is_not_text", writes_what_is_not_text),
    ("huge_output", huge_output),
    ("crashes", crashes),
    ("stops_itself", stops_itself),
    ("becomes_another_program", becomes_another_program),
    ("forks_and_stays", forks_and_stays),
    ("forks_and_leaves", forks_and_leaves),
    ("is_always_another_process", is_always_another_process),
    ("daemonises", daemonises),
    ("leaves_its_group", leaves_its_group),
    ("joins_the_group_of_the_worker", joins_the_group_of_the_worker),
    ("leaves_zombies", leaves_zombies),
];

/// How long a program may run that would never end.
const LIMIT: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_millis(500);
const REAP: Duration = Duration::from_secs(2);

/// What a busy machine may take beyond all limits. Far below what a hostile program would.
const SLACK: Duration = Duration::from_secs(20);

/// How long anything is waited for that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has a program act, as a task that is changed like this.
fn perform(args: &[&str], change: impl FnOnce(Task) -> Task) -> Execution {
    perform_in(|_| {}, args, change)
}

/// The same in a pool with other settings. Whatever the program does, it ends in time, and nothing of
/// it is left.
fn perform_in(
    settings: impl FnOnce(&mut PoolSection),
    args: &[&str],
    change: impl FnOnce(Task) -> Task,
) -> Execution {
    let mut section = PoolSection {
        binary_path: std::env::current_exe().ok(),
        max_executors: 1,
        kill_grace_seconds: GRACE.as_secs_f64(),
        pipe_drain_seconds: DRAIN.as_secs_f64(),
        reap_timeout_seconds: REAP.as_secs_f64(),
        ..PoolSection::default()
    };
    settings(&mut section);
    let without_pool = descriptors();
    let pool = ProcessPool::start(section.validate().expect("valid")).expect("it starts");
    let task = change(Task::default().arg("act").args(args.iter().copied()).timeout(PATIENCE));
    let deadline = task.timeout.expect("it was set");
    let before = descriptors();
    let begun = Instant::now();
    let execution = pool.run(task).wait();
    let took = begun.elapsed();
    assert!(took < deadline + GRACE + DRAIN + REAP + SLACK, "{took:?}: {execution:?}");
    assert_eq!(descriptors(), before, "{execution:?}");
    let pid = execution.pid.expect("a process ran");
    assert_eq!(state(pid), None, "it is reaped");
    eventually("its group is gone", || members(pid).is_empty());
    drop(pool);
    // The reaper's thread is not joined, so what it holds may take a moment.
    eventually("the pool is gone", || descriptors() == without_pool);
    execution
}

fn outcome(execution: &Execution, expect: TaskOutcome) {
    assert_eq!(execution.outcome, expect, "{execution:?}");
}

/// Compares the flags of an execution: leftovers killed, input closed early, output cut off.
fn flags(execution: &Execution, expect: [bool; 3]) {
    let truncated = execution.stdout.is_truncated() || execution.stderr.is_truncated();
    let found = [execution.leftovers_killed, execution.stdin_closed_early, truncated];
    assert_eq!(found, expect, "{execution:?}");
}

fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux").count()
}

/// The fields of a process's state that follow its name: state, parent, group, …
fn fields(pid: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(") ")?.1.split(' ');
    Some(fields.map(ToOwned::to_owned).collect())
}

/// The state of a process, `None` if there is none.
pub(crate) fn state(pid: u32) -> Option<char> {
    fields(&pid.to_string())?[0].chars().next()
}

/// The living processes of a group.
fn members(group: u32) -> Vec<String> {
    let group = group.to_string();
    let names = fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.into_string().ok());
    let is_member = |pid: &String| {
        fields(pid).is_some_and(|fields| fields[2] == group && !matches!(&*fields[0], "Z" | "X"))
    };
    pids.filter(is_member).collect()
}

/// Kills a process that is out of the pool's reach.
fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().expect("a process id"));
    let pid = pid.expect("not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
}

fn chatty_on_both_streams() {
    let execution = perform(&["chatty", "3000"], |task| task);
    outcome(&execution, TaskOutcome::Success);
    let sizes = (execution.stdout.total_bytes, execution.stderr.total_bytes);
    assert_eq!(sizes, (3_000_000, 3_000_000));
    // No more of standard error is kept by default.
    assert_eq!((execution.stdout.bytes.len(), execution.stderr.bytes.len()), (3_000_000, 1 << 20));
    flags(&execution, [false, false, true]);
}

fn silent() {
    let execution = perform(&["silent"], |task| task);
    outcome(&execution, TaskOutcome::Success);
    assert_eq!((execution.stdout.total_bytes, execution.stderr.total_bytes), (0, 0));
    flags(&execution, [false; 3]);
}

fn slow_to_read() {
    let input = vec![b'x'; 4 << 20];
    let execution = perform(&["slow_reader"], |task| task.stdin(input.clone()));
    outcome(&execution, TaskOutcome::Success);
    assert_eq!(execution.stdout.text(), input.len().to_string());
    flags(&execution, [false; 3]);
}

fn never_reads() {
    let input = || vec![b'x'; 4 << 20];
    let ends = perform(&["silent"], |task| task.stdin(input()));
    outcome(&ends, TaskOutcome::Success);
    flags(&ends, [false, true, false]);
    let stays = perform(&["sleep"], |task| task.stdin(input()).timeout(LIMIT));
    outcome(&stays, TaskOutcome::Timeout { limit: LIMIT });
    flags(&stays, [false; 3]);
}

fn closes_its_input() {
    let execution = perform(&["closes_stdin"], |task| task.stdin(vec![b'x'; 4 << 20]));
    outcome(&execution, TaskOutcome::Success);
    assert!(execution.duration >= Duration::from_millis(300), "{execution:?}");
    flags(&execution, [false, true, false]);
}

fn closes_its_output_and_lives_on() {
    let execution = perform(&["closes_output"], |task| task);
    outcome(&execution, TaskOutcome::ExitCode(3));
    assert!(execution.duration >= Duration::from_millis(300), "{execution:?}");
    assert_eq!(execution.stdout.text(), "last words");
    flags(&execution, [false; 3]);
}

fn writes_what_is_not_text() {
    let execution = perform(&["not_text"], |task| task);
    outcome(&execution, TaskOutcome::Success);
    assert_eq!(execution.stdout.bytes.as_ref(), b"ok\xff\xfe\xc3\x28\0");
    assert_eq!(execution.stdout.text(), "ok\u{fffd}\u{fffd}\u{fffd}(\0");
    flags(&execution, [false; 3]);
}

/// The memory that this process had at most, in kilobytes.
fn peak_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has one");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn huge_output() {
    const SIZE: usize = 100 << 20;
    let small = |section: &mut PoolSection| section.stdout_bytes_max = 10_000;
    let before = peak_kilobytes();
    let execution = perform_in(small, &["flood", &SIZE.to_string()], |task| task);
    let grown = peak_kilobytes() - before;
    outcome(&execution, TaskOutcome::Success);
    assert_eq!(execution.stdout.bytes.len(), 10_000);
    assert_eq!(execution.stdout.total_bytes, SIZE as u64);
    flags(&execution, [false, false, true]);
    assert!(grown < 8 << 10, "{grown} kB for an output of which 10 kB are kept");
}

fn crashes() {
    for (how, signal) in [("abort", 6), ("fault", 8)] {
        let execution = perform(&["crash", how], |task| task);
        outcome(&execution, TaskOutcome::Signal(signal));
        flags(&execution, [false; 3]);
    }
}

fn stops_itself() {
    // It hears SIGTERM, which a stopped process does not by itself.
    let patient = |section: &mut PoolSection| section.kill_grace_seconds = PATIENCE.as_secs_f64();
    let execution = perform_in(patient, &["stopped"], |task| task.timeout(LIMIT));
    outcome(&execution, TaskOutcome::Timeout { limit: LIMIT });
    assert_eq!(execution.stdout.text(), "ready");
    let execution = perform(&["stopped", "deaf"], |task| task.timeout(LIMIT));
    outcome(&execution, TaskOutcome::Timeout { limit: LIMIT });
    assert!(execution.duration >= LIMIT + GRACE, "{execution:?}");
    flags(&execution, [false; 3]);
}

fn becomes_another_program() {
    let execution = perform(&["become"], |task| task);
    outcome(&execution, TaskOutcome::ExitCode(9));
    let pid = execution.pid.expect("a process ran");
    assert_eq!(execution.stdout.text(), format!("{pid}\n"));
    flags(&execution, [false; 3]);
}

fn forks_and_stays() {
    let execution = perform(&["bomb", "5", "stays"], |task| task.timeout(3 * LIMIT));
    outcome(&execution, TaskOutcome::Timeout { limit: 3 * LIMIT });
    // They say so when they have started; all would be 1 + 2 + 4 + … + 32.
    assert!((2..=63).contains(&execution.stdout.total_bytes), "{execution:?}");
}

fn forks_and_leaves() {
    let execution = perform(&["bomb", "5", "leaves"], |task| task);
    outcome(&execution, TaskOutcome::Success);
    assert!(execution.duration < PATIENCE, "{execution:?}");
    flags(&execution, [true, false, false]);
}

fn is_always_another_process() {
    // Far more than there is time for.
    let execution = perform(&["comet", "100000"], |task| task);
    outcome(&execution, TaskOutcome::Success);
    flags(&execution, [true, false, false]);
}

/// It escapes, as documented, and neither delays the task nor counts as killed.
fn daemonises() {
    let home = tempfile::tempdir().expect("a folder can be made");
    let file = home.path().join("pid");
    let execution = perform(&["daemon", file.to_str().expect("text")], |task| task);
    outcome(&execution, TaskOutcome::Success);
    flags(&execution, [false; 3]);
    let pid = fs::read_to_string(file).expect("it was written").parse().expect("a process id");
    assert!(matches!(state(pid), Some('S' | 'R')));
    kill(pid);
}

/// The process that it has gone to escapes; it itself does not.
fn leaves_its_group() {
    let execution = perform(&["leaves_group"], |task| task.timeout(LIMIT));
    kill(execution.stdout.text().parse().expect("a process id"));
    outcome(&execution, TaskOutcome::Timeout { limit: LIMIT });
    assert!(execution.usage.is_some(), "it was reaped: {execution:?}");
    assert!(execution.duration < LIMIT + GRACE + SLACK, "{execution:?}");
}

/// That the checks go on shows that it took nobody with it.
fn joins_the_group_of_the_worker() {
    let execution = perform(&["joins_worker"], |task| task.timeout(LIMIT));
    outcome(&execution, TaskOutcome::Timeout { limit: LIMIT });
    assert_eq!(execution.stdout.text(), "joined");
    assert!(execution.usage.is_some(), "it was reaped: {execution:?}");
}

fn leaves_zombies() {
    let execution = perform(&["zombies"], |task| task);
    outcome(&execution, TaskOutcome::Success);
    // Those that nobody has reaped yet may count as left over, so of this nothing is expected.
    assert!(!execution.stdin_closed_early && !execution.stdout.is_truncated(), "{execution:?}");
}
