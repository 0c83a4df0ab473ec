//! Workers of their own: one that is killed, and one that runs as somebody else.

use crate::Check;
use crate::checks::state;
use drakkar_api::{Task, TaskOutcome};
use drakkar_exec::{
    DeathSignal, LimitsSection, PoolError, PoolErrorKind, PoolSection, ProcessPool,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// All checks.
pub(crate) const ALL: &[Check] = &[
    ("a_killed_worker_takes_its_programs_with_it", a_killed_worker_takes_its_programs_with_it),
    ("a_killed_worker_leaves_its_programs", a_killed_worker_leaves_its_programs),
    ("a_limit_of_processes_binds_others_than_root", a_limit_of_processes_binds_others_than_root),
    ("a_limit_above_the_users_own_is_refused", a_limit_above_the_users_own_is_refused),
];

const PATIENCE: Duration = Duration::from_secs(60);

/// What the worker does.
pub(crate) fn work(args: &[&str]) -> ExitCode {
    match args {
        ["sleep", signal, file] => run_sleeper(signal, file),
        ["fork", processes] => return run_fork(processes),
        ["raise"] => raise(),
        other => panic!("no such work: {other:?}"),
    }
    ExitCode::SUCCESS
}

fn start(limits: LimitsSection) -> Result<ProcessPool, PoolError> {
    let section = PoolSection {
        binary_path: std::env::current_exe().ok(),
        max_executors: 1,
        limits,
        ..PoolSection::default()
    };
    ProcessPool::start(section.validate().expect("valid"))
}

/// Runs a program that never ends and writes its number to a file.
fn run_sleeper(signal: &str, file: &str) {
    let parent_death_signal = (signal == "KILL").then_some(DeathSignal::Kill);
    let limits = LimitsSection { parent_death_signal, ..LimitsSection::default() };
    let pool = start(limits).expect("it starts");
    let script = format!("echo $$ > {file}.new; mv {file}.new {file}; exec sleep 1000");
    pool.run(Task::default().binary("/bin/sh").args(["-c", &script])).wait();
}

/// Runs a program that tries to start another, and ends as it did. A limit that is no number is none.
fn run_fork(processes: &str) -> ExitCode {
    let limits = LimitsSection { processes: processes.parse().ok(), ..LimitsSection::default() };
    let pool = start(limits).expect("it starts");
    let execution = pool.run(Task::default().args(["act", "fork"])).wait();
    match execution.outcome {
        TaskOutcome::Success => ExitCode::SUCCESS,
        TaskOutcome::ExitCode(code) => ExitCode::from(code as u8),
        other => panic!("{other:?}"),
    }
}

/// Sets a limit higher than its own.
fn raise() {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let open_files = own.map(|own| own + 1);
    let error = start(LimitsSection { open_files, ..LimitsSection::default() });
    let error = error.expect_err("only root may");
    assert_eq!(error.kind(), PoolErrorKind::LimitsUnusable, "{error}");
    assert!(error.to_string().contains("NOFILE"), "{error}");
}

/// A worker whose program has started, and the program's number.
fn worker_with_sleeper(signal: &str) -> (Child, u32) {
    let home = tempfile::tempdir().expect("a folder can be made");
    let file = home.path().join("pid");
    let worker = Command::new(std::env::current_exe().expect("it has a path"))
        .args(["work", "sleep", signal, file.to_str().expect("text")])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(pid) = fs::read_to_string(&file) {
            return (worker, pid.trim().parse().expect("a process id"));
        }
        assert!(Instant::now() < deadline, "the program has not started");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

fn a_killed_worker_takes_its_programs_with_it() {
    let (mut worker, program) = worker_with_sleeper("KILL");
    assert!(is_alive(program));
    worker.kill().expect("it lives");
    worker.wait().expect("it is ours");
    let deadline = Instant::now() + PATIENCE;
    while is_alive(program) {
        assert!(Instant::now() < deadline, "the program lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// As documented; and so the check above can fail.
fn a_killed_worker_leaves_its_programs() {
    let (mut worker, program) = worker_with_sleeper("none");
    worker.kill().expect("it lives");
    worker.wait().expect("it is ours");
    std::thread::sleep(Duration::from_secs(1));
    assert!(is_alive(program), "what killed it?");
    let program = rustix::process::Pid::from_raw(program.try_into().expect("a process id"));
    let program = program.expect("not 0");
    rustix::process::kill_process(program, rustix::process::Signal::KILL).expect("it lives");
}

fn a_limit_of_processes_binds_others_than_root() {
    const EAGAIN: i32 = 11;
    // Itself and nobody else; the threads of the worker count.
    assert_eq!(ends_as_somebody(&["fork", "1"]), Some(EAGAIN));
    assert_eq!(ends_as_somebody(&["fork", "none"]), Some(0));
}

fn a_limit_above_the_users_own_is_refused() {
    assert_eq!(ends_as_somebody(&["raise"]), Some(0));
}

/// The exit code of a worker that is not run by root.
fn ends_as_somebody(work: &[&str]) -> Option<i32> {
    let home = tempfile::tempdir().expect("a folder can be made");
    let mut command = command_of_somebody(&reachable_copy(home.path()));
    let status = command.arg("work").args(work).status();
    status.expect("setpriv of util-linux is installed").code()
}

/// A copy of this program that every user can execute.
fn reachable_copy(home: &Path) -> PathBuf {
    let program = home.join("program");
    fs::copy(std::env::current_exe().expect("it has a path"), &program).expect("there is room");
    for path in [home, &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    program
}

/// Starts a program as a user who is not root.
fn command_of_somebody(program: &Path) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    const NOBODY: &str = "65534";
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
    command
}
