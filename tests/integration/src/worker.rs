//! A worker process.

use std::env;
use std::fmt::Display;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::http::{Response, get};
use crate::{Footprint, Metrics, closed_port, wait_until};

/// From the start to the first ready answer; a dead member's session may have to run out before.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// From the signal to the end, drain included.
const EXIT_DEADLINE: Duration = Duration::from_secs(60);

/// How many lines of the end of a log are shown, and of the warnings and errors before it.
const LOG_TAIL_LINES: usize = 12;

/// Lines of these levels are no complaint.
const ROUTINE: [&str; 2] = ["\"level\":\"info\"", "\"level\":\"debug\""];

/// A worker that is about to be started, configured by `BENCH_` variables alone.
#[derive(Debug)]
pub struct WorkerCommand {
    id: String,
    command: Command,
    metrics_port: u16,
    log: PathBuf,
}

impl WorkerCommand {
    /// Its log goes into the folder.
    pub(crate) fn new(program: &Path, id: &str, logs: &Path) -> Result<Self> {
        let metrics_port = closed_port()?;
        let mut command = Command::new(program);
        // Nothing of the machine's environment may configure it.
        command.env_clear();
        for inherited in ["PATH", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"] {
            command.envs(env::var_os(inherited).map(|value| (inherited, value)));
        }
        let log = logs.join(format!("{id}.log"));
        let worker = Self { id: id.to_owned(), command, metrics_port, log };
        Ok(worker
            .with("BENCH_WORKER_ID", id)
            .with("BENCH_METRICS_PORT", metrics_port)
            .with("BENCH_ALIGN", "false"))
    }

    /// Where it is to serve its pages, for a worker that is told so in its own way.
    pub(crate) fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, variable: &str, value: impl Display) -> Self {
        self.command.env(variable, value.to_string());
        self
    }

    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// It ended instead, or was not ready in time.
    pub fn start(self) -> Result<Worker> {
        let mut worker = self.spawn()?;
        worker.wait_until_ready()?;
        Ok(worker)
    }

    /// Starts it only.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub fn spawn(mut self) -> Result<Worker> {
        let log = File::create_new(&self.log)
            .with_context(|| format!("worker {} was there before", self.id))?;
        let program = self.command.get_program().to_owned();
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("failed to run {}", program.display()))?;
        let Self { id, metrics_port, log, .. } = self;
        Ok(Worker { id, child, metrics_port, log, shows_log: true })
    }
}

/// A process that was started; it is killed when this is dropped.
#[derive(Debug)]
pub struct Worker {
    id: String,
    child: Child,
    metrics_port: u16,
    log: PathBuf,
    /// Whether the end of its log is shown when this is dropped.
    shows_log: bool,
}

impl Worker {
    /// Shows no log when it is dropped: for a run with many workers.
    pub(crate) fn without_log_tail(mut self) -> Self {
        self.shows_log = false;
        self
    }

    /// How it has ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// It ended instead, or was not ready in time.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let what = format!("worker {} to be ready", self.id);
        wait_until(&what, READY_DEADLINE, || {
            self.ensure_running()?;
            // Nobody listens at first.
            Ok(self.get("/readyz").ok().filter(|answer| answer.status == 200).map(drop))
        })
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    ///
    /// It has.
    pub fn ensure_running(&mut self) -> Result<()> {
        let status = self.child.try_wait()?;
        ensure!(status.is_none(), "worker {} ended by itself: {status:?}", self.id);
        Ok(())
    }

    /// Asks its server.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        get(self.metrics_port, path)
    }

    /// Its memory now, without that of its children.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn footprint(&self) -> Result<Footprint> {
        Footprint::of(self.child.id())
    }

    /// Its metrics now.
    ///
    /// # Errors
    ///
    /// It does not answer, or not with metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        let page = self.get("/metrics")?;
        ensure!(page.status == 200, "/metrics answers {}", page.status);
        Metrics::parse(&page.body)
    }

    /// What it has written so far.
    ///
    /// # Errors
    ///
    /// The log is gone.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// It has ended before, so the signal would come too late to mean anything.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // It is our child and not reaped, so its id is still its own.
        self.ensure_running()?;
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process id")?, signal)?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// It still runs after that time.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("worker {} to end", self.id);
        wait_until(&what, within, || Ok(self.child.try_wait()?))
    }

    /// Asks it with SIGTERM to end, which it does with exit code 0.
    ///
    /// # Errors
    ///
    /// It ends otherwise, or not in time.
    pub fn terminate(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit(EXIT_DEADLINE)?;
        ensure!(status.code() == Some(0), "worker {} ended with {status}", self.id);
        Ok(())
    }

    /// Kills it in the middle of whatever it does.
    ///
    /// # Errors
    ///
    /// It had ended before.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        let status = self.wait_exit(EXIT_DEADLINE)?;
        ensure!(status.signal() == Some(9), "worker {} ended with {status}", self.id);
        Ok(())
    }

    /// What matters of what it has written: its complaints, the last of them if they are many, and
    /// the end.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_else(|error| format!("{error:#}"));
        let lines: Vec<&str> = log.lines().collect();
        let (start, end) = lines.split_at(lines.len().saturating_sub(LOG_TAIL_LINES));
        let routine = |line: &&&str| ROUTINE.iter().any(|level| line.contains(level));
        let complaints: Vec<&str> = start.iter().filter(|line| !routine(line)).copied().collect();
        let skipped = complaints.len().saturating_sub(LOG_TAIL_LINES);
        [&complaints[skipped..], end].concat().join("\n")
    }
}

impl Drop for Worker {
    #[expect(clippy::print_stderr, reason = "the test harness shows it when the test fails")]
    fn drop(&mut self) {
        // It may have ended already; that it is gone is all that matters.
        self.child.kill().ok();
        self.child.wait().ok();
        if self.shows_log {
            eprintln!("--- end of the log of worker {}\n{}", self.id, self.log_tail());
        }
    }
}
