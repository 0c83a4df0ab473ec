//! A worker ends, and hears signals, whatever blocks its threads; it opens its log anew when it is told.
//!
//! The program is its own helper, hence no harness: how a process ends shows in a process only.
#![expect(clippy::disallowed_methods, reason = "a blocked thread is what this is about")]

use drakkar::config::Config;
use drakkar::prelude::*;
use drakkar_mock_kafka::MockKafka;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than any of this takes, and shorter than what would be noticed too late.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("worker") => return worker(),
        Some("hangs-after-its-worker") => hangs_after_its_worker(),
        // What test runners ask for.
        Some("--list") => say("a_worker_ends: test"),
        _ => {
            a_start_that_fails_ends_the_process_though_a_thread_is_blocked();
            a_second_signal_is_heard_though_a_hook_blocks_the_runtime();
            a_signal_after_the_end_of_the_worker_ends_the_process();
            a_log_that_was_moved_away_is_opened_anew_at_sighup();
            sighup_ends_a_worker_without_a_log_file();
            a_log_goes_to_standard_error_unless_told_otherwise();
            a_hook_that_blocks_the_runtime_is_named_in_the_log();
            say("7 checks passed");
        }
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}

/// What a hook does to the worker.
struct Blocking(String);

impl Handler for Blocking {
    type Input = RawInput;

    async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> Result<Vec<Task>> {
        for_ever()
    }

    async fn on_ready(&self, _cx: &Context) -> Result<()> {
        say("ready");
        match self.0.as_str() {
            "blocks-the-runtime-later" => Ok(()),
            "blocks-a-thread-and-fails" => {
                drop(tokio::task::spawn_blocking(for_ever));
                Err("no".into())
            }
            "blocks-the-runtime" => for_ever(),
            "works" | "works-with-a-log" | "works-with-a-log-file" => Ok(()),
            _ => Err("no".into()),
        }
    }
}

fn for_ever() -> ! {
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// Runs a worker whose hook does what the second argument says.
fn worker() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("it starts").block_on(app().run_to_exit_code())
}

fn hangs_after_its_worker() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("it starts").block_on(app().run()).expect_err("the hook fails");
    say("over");
    for_ever()
}

fn app() -> App<Blocking> {
    let mut arguments = std::env::args().skip(2);
    let mut next = || arguments.next().expect("the parent gives it");
    let (what, brokers, folder) = (next(), next(), next());
    let logging = match what.as_str() {
        "works-with-a-log-file" => format!("{{output: '{folder}/worker.log'}}"),
        "works-with-a-log" => "{}".to_owned(),
        "blocks-the-runtime-later" => format!("{{level: ERROR, output: '{folder}/log'}}"),
        _ => "{level: 'OFF'}".to_owned(),
    };
    let text = format!(
        "kafka: {{brokers: '{brokers}', source_topic: jobs, startup_align_enabled: false, \
         stall_after_seconds: 1}}\n\
         sinks: {{filesystem: {{out: {{base_path: '{folder}'}}}}}}\n\
         metrics: {{enabled: false}}\n\
         logging: {logging}"
    );
    App::new(Blocking(what)).config(Config::from_yaml_str(&text, []).expect("valid"))
}

/// A process of this program, with what it needs.
struct World {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    cluster: MockKafka,
    folder: tempfile::TempDir,
}

impl World {
    fn start(mode: &str, what: &str) -> Self {
        Self::start_with(mode, what, Stdio::inherit())
    }

    fn start_with(mode: &str, what: &str, stderr: Stdio) -> Self {
        let cluster = MockKafka::start(1).expect("it starts");
        cluster.create_topic("jobs", 1).expect("created");
        cluster.create_topic("jobs_dlq", 1).expect("created");
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("it has a path"))
            .args([mode, what, &cluster.bootstrap_servers()])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output, cluster, folder }
    }

    fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it writes lines");
        assert_eq!(line.trim_end(), wanted);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a number");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for the end of the process, and kills it if that does not come.
    fn end(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return (status, began.elapsed());
            }
            if began.elapsed() > PATIENCE {
                self.child.kill().expect("it runs");
                panic!("the process does not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn a_start_that_fails_ends_the_process_though_a_thread_is_blocked() {
    let mut world = World::start("worker", "blocks-a-thread-and-fails");
    world.hear("ready");
    let (status, _) = world.end();
    assert_eq!((status.code(), status.signal()), (Some(3), None));
}

fn a_second_signal_is_heard_though_a_hook_blocks_the_runtime() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut world = World::start("worker", "blocks-the-runtime");
        world.hear("ready");
        world.signal(first);
        // Two signals of one kind that come at once are one.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(
            world.child.try_wait().expect("it is ours"),
            None,
            "the first one is for a drain"
        );
        world.signal(second);
        let (status, lasted) = world.end();
        assert_eq!((status.code(), status.signal()), (Some(130), None));
        assert!(lasted < PATIENCE / 3, "{lasted:?}");
    }
}

fn a_signal_after_the_end_of_the_worker_ends_the_process() {
    let mut world = World::start("hangs-after-its-worker", "fails");
    world.hear("ready");
    world.hear("over");
    world.signal(Signal::TERM);
    let (status, _) = world.end();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

fn a_log_that_was_moved_away_is_opened_anew_at_sighup() {
    let mut world = World::start("worker", "works-with-a-log-file");
    world.hear("ready");
    let file = |name: &str| world.folder.path().join(name);
    let (log, moved) = (file("worker.log"), file("worker.log.1"));
    // Lines are written by a thread of their own, some time after they were logged.
    wait_for_line(&log, "\"drakkar_starting\"");
    std::fs::rename(&log, &moved).expect("it is there");
    world.signal(Signal::HUP);
    wait_for_line(&log, "\"log_reopened\"");
    world.signal(Signal::TERM);
    let (status, _) = world.end();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    let (before, after) = (read(&moved), read(&log));
    assert!(before.contains("\"drakkar_starting\""), "{before}");
    assert!(!before.contains("\"drakkar_stopped\""), "{before}");
    assert!(after.contains("\"drakkar_stopped\""), "{after}");
}

/// Waits until a file holds a text. The file need not be there yet.
fn wait_for_line(path: &Path, text: &str) {
    let began = Instant::now();
    while !read(path).contains(text) {
        assert!(began.elapsed() < PATIENCE, "no {text} in {}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn sighup_ends_a_worker_without_a_log_file() {
    let mut world = World::start("worker", "works");
    world.hear("ready");
    world.signal(Signal::HUP);
    let (status, _) = world.end();
    assert_eq!(status.signal(), Some(Signal::HUP.as_raw()));
}

fn a_log_goes_to_standard_error_unless_told_otherwise() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut world = World::start_with("worker", "works-with-a-log", writer.into());
    world.hear("ready");
    world.signal(Signal::TERM);
    let (status, _) = world.end();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
    let mut log = String::new();
    reader.read_to_string(&mut log).expect("text");
    let parse = |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let lines: Vec<_> = log.lines().map(parse).collect();
    let event = |line: Option<&serde_json::Value>| line.expect("a line")["event"].clone();
    assert_eq!(event(lines.first()), "drakkar_starting");
    assert_eq!(event(lines.last()), "drakkar_stopped");
    assert!(lines.iter().all(|line| line["@timestamp"] == line["timestamp"]), "{log}");
}

fn a_hook_that_blocks_the_runtime_is_named_in_the_log() {
    let mut world = World::start("worker", "blocks-the-runtime-later");
    world.hear("ready");
    // Any value will do; this one has a header besides.
    world.cluster.produce_with_header_name("jobs", b"name").expect("delivered");
    let log = world.folder.path().join("log");
    let expect = "arrange (or decode, message_label or task_priority for it) of window 1 blocks \
                  its thread since";
    let began = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("partition_processor_error") && text.contains(expect) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it is not named: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
    world.child.kill().expect("it runs");
    world.end();
}
