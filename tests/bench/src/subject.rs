//! The process that is measured.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

use crate::account::{self, Cpu};
use crate::wall_clock::Moment;

/// From being told to end, with all work that was begun, to the exit.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// From the start to being ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// An answer to a question that costs nothing to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a process that should run is checked; seldom enough not to show in its CPU time.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Shown of what a failed process said.
const LOG_TAIL_BYTES: u64 = 4096;

/// A process under measurement. It is killed when this goes and it still runs.
pub(crate) struct Subject {
    what: &'static str,
    child: Child,
    /// What it said: in memory, since a disk would be shared with the broker.
    log: File,
    answers: Option<BufReader<ChildStdout>>,
    started: Instant,
}

/// How a process is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsBy {
    /// SIGTERM; its standard input is empty.
    Signal,
    /// The end of its standard input.
    EndOfInput,
    /// The same, and it answers each line that it is sent.
    EndOfInputAfterQuestions,
}

/// What was read off a process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Moment,
    pub(crate) cpu: Cpu,
}

impl Subject {
    pub(crate) fn start(what: &'static str, mut command: Command, ends_by: EndsBy) -> Result<Self> {
        let log = memfd_create("drakkar-bench-log", MemfdFlags::CLOEXEC);
        let log = File::from(log.context("failed to make a log in memory")?);
        let written = || log.try_clone().context("failed to share a log");
        command.stderr(written()?);
        match ends_by {
            EndsBy::Signal => command.stdin(Stdio::null()).stdout(written()?),
            EndsBy::EndOfInput => command.stdin(Stdio::piped()).stdout(written()?),
            EndsBy::EndOfInputAfterQuestions => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped())
            }
        };
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("failed to start the {what}"))?;
        let mut subject = Self { what, child, log, answers: None, started };
        subject.answers = subject.child.stdout.take().map(BufReader::new);
        Ok(subject)
    }

    /// Waits until `GET /readyz` on the port says yes, and gives the time since the start.
    pub(crate) fn wait_until_ready(&mut self, port: u16) -> Result<Duration> {
        loop {
            self.ensure_runs()?;
            if says_ready(port) {
                return Ok(self.started.elapsed());
            }
            let has_time = self.started.elapsed() < READY_TIMEOUT;
            ensure!(
                has_time,
                "the {} was not ready in {READY_TIMEOUT:?}{}",
                self.what,
                self.said()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until `condition` holds. Asks ten times a second.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !condition()? {
            self.ensure_runs()?;
            let has_time = start.elapsed() < deadline;
            ensure!(has_time, "the {} gave no {what} in {deadline:?}{}", self.what, self.said());
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Lets it run undisturbed. That it ends meanwhile is an error.
    pub(crate) fn run_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.ensure_runs()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(WATCH_EVERY));
        }
    }

    pub(crate) fn sample(&mut self) -> Result<Sample> {
        self.ensure_runs()?;
        let at = Moment::now();
        Ok(Sample { at, cpu: account::cpu(self.child.id())? })
    }

    pub(crate) fn peak_mib(&mut self) -> Result<f64> {
        self.ensure_runs()?;
        account::peak_mib(self.child.id())
    }

    pub(crate) fn resident_mib(&mut self) -> Result<f64> {
        self.ensure_runs()?;
        account::resident_mib(self.child.id())
    }

    /// Sends an empty line and gives the number that comes back.
    pub(crate) fn ask(&mut self) -> Result<u64> {
        let asked = self.ask_and_read();
        asked.with_context(|| format!("the {} gave no answer{}", self.what, self.said()))
    }

    /// Tells it to end and waits until it did, with success.
    pub(crate) fn end(mut self) -> Result<()> {
        self.ensure_runs()?;
        if self.child.stdin.take().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, Signal::TERM).context("failed to send SIGTERM")?;
        }
        let status = self.wait_for_exit()?;
        ensure!(status.success(), "the {} ended with {status}{}", self.what, self.said());
        Ok(())
    }

    fn ask_and_read(&mut self) -> Result<u64> {
        let questions = self.child.stdin.as_mut().context("it takes no questions")?;
        let answers = self.answers.as_mut().context("it gives no answers")?;
        questions.write_all(b"\n")?;
        let timeout = Timespec::try_from(ANSWER_TIMEOUT).context("a short time")?;
        let readable = poll(
            &mut [PollFd::from_borrowed_fd(answers.get_ref().as_fd(), PollFlags::IN)],
            Some(&timeout),
        )?;
        ensure!(readable == 1, "nothing in {ANSWER_TIMEOUT:?}");
        let mut line = String::new();
        answers.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("\"{}\" is no number", line.trim()))
    }

    fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < END_TIMEOUT {
            if let Some(status) = self.child.try_wait().context("failed to wait for a process")? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the {} did not end in {END_TIMEOUT:?}{}", self.what, self.said());
    }

    fn ensure_runs(&mut self) -> Result<()> {
        match self.child.try_wait().context("failed to wait for a process")? {
            Some(status) => {
                Err(anyhow!("the {} ended by itself with {status}{}", self.what, self.said()))
            }
            None => Ok(()),
        }
    }

    /// The end of its log, for an error message. Read at a place, as the process shares the file's
    /// position and may still write.
    fn said(&self) -> String {
        let len = self.log.metadata().map_or(0, |metadata| metadata.len());
        let from = len.saturating_sub(LOG_TAIL_BYTES);
        let mut tail = vec![0; usize::try_from(len - from).unwrap_or(0)];
        if tail.is_empty() || self.log.read_exact_at(&mut tail, from).is_err() {
            return "; it said nothing".to_owned();
        }
        format!("; it said at last:\n{}", String::from_utf8_lossy(&tail).trim_end())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // It may be gone by now, and there is nobody to tell.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn says_ready(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    status_line(&address).is_ok_and(|line| is_ok_status(&line))
}

fn status_line(address: &SocketAddr) -> std::io::Result<String> {
    let timeout = Duration::from_millis(500);
    let mut stream = TcpStream::connect_timeout(address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(1024)).read_line(&mut line)?;
    Ok(line)
}

fn is_ok_status(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(|word| word.starts_with("HTTP/1.")) && words.next() == Some("200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_ready() {
        assert!(is_ok_status("HTTP/1.1 200 OK\r\n"));
        assert!(is_ok_status("HTTP/1.0 200\r\n"));
        for line in ["HTTP/1.1 503 Service Unavailable\r\n", "", "200", "SSH-2.0 200"] {
            assert!(!is_ok_status(line), "{line}");
        }
    }

    fn shell(script: &str, ends_by: EndsBy) -> Subject {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Subject::start("shell", command, ends_by).expect("there is a shell")
    }

    fn error_of<T>(result: Result<T>) -> String {
        format!("{:#}", result.err().expect("is an error"))
    }

    #[test]
    fn it_answers_and_ends_with_its_input() {
        let mut subject =
            shell("while read line; do echo 42; done", EndsBy::EndOfInputAfterQuestions);
        assert_eq!(subject.ask().expect("answers"), 42);
        assert_eq!(subject.ask().expect("answers"), 42);
        subject.end().expect("ends well");
    }

    #[test]
    fn an_early_end_is_an_error_and_tells_what_was_said() {
        let mut subject = shell("echo no broker >&2; exit 3", EndsBy::Signal);
        let error = error_of(subject.run_for(Duration::from_secs(20)));
        assert!(error.contains("exit status: 3") && error.contains("no broker"), "{error}");
    }

    #[test]
    fn a_bad_end_is_an_error() {
        let error = error_of(shell("read line; exit 4", EndsBy::EndOfInput).end());
        assert!(error.contains("exit status: 4"), "{error}");
        let error = error_of(shell("exec sleep 60", EndsBy::Signal).end());
        assert!(error.contains("signal: 15"), "{error}");
    }
}
