//! The programs. Each does one bad thing.

use rustix::process::{Signal, getpgid, getpid, getppid, kill_process, setpgid};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write, stderr, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

const FOR_EVER: Duration = Duration::from_secs(1000);

/// Behaves as `name` says.
pub(crate) fn act(name: &str, args: &[&str]) -> ExitCode {
    let number = || args[0].parse().expect("a number");
    match name {
        "chatty" => chat(number()),
        "flood" => flood(number()),
        "silent" => sleep(Duration::from_millis(300)),
        "slow_reader" => read_slowly(),
        "closes_stdin" => become_deaf(),
        "closes_output" => return close_output(),
        "not_text" => put(b"ok\xff\xfe\xc3\x28\0"),
        "crash" => crash(args[0]),
        "stopped" => stop(args),
        "become" => return become_another(),
        "bomb" => bomb(number(), args[1]),
        "comet" => comet(number()),
        "daemon" => daemon(args[0]),
        "leaves_group" => leave_group(),
        "joins_worker" => join_worker(),
        "zombies" => leave_zombies(),
        "sleep" => sleep(FOR_EVER),
        "fork" => return fork(),
        other => panic!("no such act: {other}"),
    }
    ExitCode::SUCCESS
}

/// Starts this program once more.
fn again(act: &str, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("it has a path"));
    command.args(["act", act]).args(args);
    command
}

/// Starts a program, for which nobody will wait.
fn start(mut command: Command) -> Child {
    command.spawn().expect("it starts")
}

fn put(bytes: &[u8]) {
    stdout().write_all(bytes).expect("the pool reads");
    stdout().flush().expect("the pool reads");
}

/// Writes to both streams in turns, in small pieces.
fn chat(times: usize) {
    for _ in 0..times {
        put(&[b'o'; 1000]);
        stderr().write_all(&[b'e'; 1000]).expect("the pool reads");
    }
}

fn flood(bytes: usize) {
    let piece = [b'x'; 65_536];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(piece.len());
        put(&piece[..size]);
        left -= size;
    }
}

fn read_slowly() {
    let mut total = 0;
    let mut piece = [0; 65_536];
    loop {
        sleep(Duration::from_millis(5));
        match stdin().read(&mut piece).expect("the pool writes") {
            0 => break,
            count => total += count,
        }
    }
    put(total.to_string().as_bytes());
}

fn null() -> File {
    OpenOptions::new().read(true).write(true).open("/dev/null").expect("Linux")
}

/// Lets go of its standard input, and lives on.
fn become_deaf() {
    rustix::stdio::dup2_stdin(null()).expect("it is open");
    sleep(Duration::from_millis(300));
}

/// Lets go of its outputs, and lives on.
fn close_output() -> ExitCode {
    put(b"last words");
    rustix::stdio::dup2_stdout(null()).expect("it is open");
    rustix::stdio::dup2_stderr(null()).expect("it is open");
    sleep(Duration::from_millis(300));
    ExitCode::from(3)
}

fn crash(how: &str) {
    match how {
        "abort" => std::process::abort(),
        _ => kill_process(getpid(), Signal::FPE).expect("it is us"),
    }
}

/// Stops itself, deaf to SIGTERM if so asked.
fn stop(how: &[&str]) {
    if how == ["deaf"] {
        let mut signals = nix::sys::signal::SigSet::empty();
        signals.add(nix::sys::signal::Signal::SIGTERM);
        signals.thread_block().expect("it may be blocked");
    }
    put(b"ready");
    kill_process(getpid(), Signal::STOP).expect("it is us");
    // Only somebody else can have let it go on.
    sleep(FOR_EVER);
}

fn become_another() -> ExitCode {
    let error = Command::new("/bin/sh").args(["-c", "echo $$; exit 9"]).exec();
    panic!("it did not: {error}");
}

/// Doubles itself this many times over. All hold the output open; the first leaves if so asked.
fn bomb(depth: usize, how: &str) {
    if depth > 0 {
        let smaller = (depth - 1).to_string();
        for _ in 0..2 {
            start(again("bomb", &[&smaller, "stays"]));
        }
    }
    put(b".");
    if how == "stays" {
        sleep(FOR_EVER);
    }
    // Some of them have started by now.
    sleep(Duration::from_millis(100));
}

/// Is at any moment another process than it was: each starts the next and ends.
fn comet(left: usize) {
    if left > 0 {
        start(again("comet", &[&(left - 1).to_string()]));
    }
}

/// Leaves a process behind that is in no group of ours, and writes its number to a file.
fn daemon(file: &str) {
    if file == "child" {
        rustix::process::setsid().expect("it leads no group");
        put(b"free\n");
        sleep(FOR_EVER);
    }
    let mut command = again("daemon", &["child"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut daemon = start(command);
    let mut line = [0; 5];
    let mut output = daemon.stdout.take().expect("piped");
    output.read_exact(&mut line).expect("it reports");
    std::fs::write(file, daemon.id().to_string()).expect("it can be written");
}

/// Moves to the group of a process that it has started, which is beyond the pool's reach.
fn leave_group() {
    let mut command = again("sleep", &[]);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let other = start(command);
    put(other.id().to_string().as_bytes());
    let group = rustix::process::Pid::from_child(&other);
    setpgid(None, Some(group)).expect("it is of our session");
    assert_eq!(getpgid(None), Ok(group));
    sleep(FOR_EVER);
}

/// Moves to the group of the worker, which must not be taken for the task.
fn join_worker() {
    let worker = getpgid(getppid()).expect("it lives");
    setpgid(None, Some(worker)).expect("it is of our session");
    put(b"joined");
    sleep(FOR_EVER);
}

fn leave_zombies() {
    for _ in 0..20 {
        start(Command::new("/bin/true"));
    }
    sleep(Duration::from_millis(200));
}

/// Tells by its exit code why it could not start another program.
fn fork() -> ExitCode {
    match Command::new("/bin/true").status() {
        Ok(status) => ExitCode::from(u8::from(!status.success())),
        Err(error) => ExitCode::from(error.raw_os_error().unwrap_or(99) as u8),
    }
}
