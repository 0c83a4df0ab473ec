//! Children that cannot be reaped when they end.
//!
//! A process that is traced by a process other than its parent stays a zombie until the tracer lets
//! go. For the pool this looks just like a process that does not die of SIGKILL, which otherwise
//! takes a broken disk. The program is its own helper, hence no harness.
#![expect(clippy::disallowed_methods, reason = "the tracer is a process beside the pool")]
#![expect(unsafe_code, reason = "ptrace has no safe wrapper")]

use drakkar_api::{Task, TaskOutcome};
use drakkar_exec::{PoolSection, ProcessPool};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("leader") => lead(&args[2], &args[3]),
        Some("tracer") => trace(&args[2], &args[3]),
        // What test runners ask for.
        Some("--list") => say("a_child_that_cannot_be_reaped: test"),
        _ => {
            a_child_that_cannot_be_reaped_is_reaped_later();
            a_child_that_is_reaped_late_keeps_its_outcome();
            say("2 checks passed");
        }
    }
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}

/// The child of the pool: has itself traced, says by whom, and ends or waits for its end.
#[expect(clippy::zombie_processes, reason = "the tracer is meant to outlive its parent")]
fn lead(then: &str, hold_millis: &str) {
    rustix::process::set_ptracer(rustix::process::PTracer::Any).ok();
    // In a group of its own, so that the pool does not kill it.
    let tracer = Command::new(std::env::current_exe().expect("it has a path"))
        .args(["tracer", &std::process::id().to_string(), hold_millis])
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let tracer_id = tracer.id();
    let mut line = String::new();
    BufReader::new(tracer.stdout.expect("piped")).read_line(&mut line).expect("it reports");
    assert_eq!(line, "traced\n");
    say(&tracer_id.to_string());
    if then == "wait" {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// Holds on to a process for a while.
fn trace(pid: &str, hold_millis: &str) {
    let pid: libc::pid_t = pid.parse().expect("a process id");
    // SAFETY: PTRACE_SEIZE takes no pointers.
    let result = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    say("traced");
    std::thread::sleep(Duration::from_millis(hold_millis.parse().expect("a number")));
}

fn pool() -> ProcessPool {
    let section = PoolSection {
        binary_path: std::env::current_exe().ok(),
        max_executors: 1,
        kill_grace_seconds: 0.0,
        reap_timeout_seconds: 0.2,
        ..PoolSection::default()
    };
    ProcessPool::start(section.validate().expect("valid")).expect("it starts")
}

/// The state of a process, `None` if there is none.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Shows EX-1, in a process of its own because it traces its children.
fn a_child_that_cannot_be_reaped_is_reaped_later() {
    let pool = pool();
    let limit = Duration::from_secs(2);
    let task = Task::default().args(["leader", "wait", "1000000"]).timeout(limit);
    let execution = pool.run(task).wait();
    assert_eq!(execution.outcome, TaskOutcome::Timeout { limit }, "{execution:?}");
    assert_eq!(execution.usage, None, "{execution:?}");
    let pid = execution.pid.expect("a process ran");
    assert_eq!(state(pid), Some('Z'));

    // The slot is free meanwhile.
    let next = pool.run(Task::default().binary("/bin/true")).wait();
    assert_eq!(next.outcome, TaskOutcome::Success);
    assert_eq!(state(pid), Some('Z'));

    let tracer = execution.stdout.text().trim().to_owned();
    pool.run(Task::default().binary("kill").args(["-9", &tracer])).wait();
    let deadline = Instant::now() + Duration::from_secs(60);
    while state(pid).is_some() {
        assert!(Instant::now() < deadline, "the zombie is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_child_that_is_reaped_late_keeps_its_outcome() {
    let execution = pool().run(Task::default().args(["leader", "end", "500"])).wait();
    assert_eq!(execution.outcome, TaskOutcome::Success, "{execution:?}");
    assert!(execution.usage.is_some(), "{execution:?}");
}
