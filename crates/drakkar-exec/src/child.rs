//! One child process from start to end: the loop that moves its bytes and does what its
//! [`Course`] says.
//!
//! The loop waits in one `poll` for everything at once: room in standard input, something in
//! standard output or error, the leader's end, the bell that cancels, and the time limit. It moves
//! at most a pipeful before it looks at the clock again, so that no child is chatty enough to
//! outlive its deadline.

use crate::bell::Bell;
use crate::course::{Course, Facts, Forced, Limits, Step};
use crate::environment::{Environment, fault_of};
use crate::memory::{PeakMemory, peak_of};
use crate::output::{Capture, Flow};
use crate::reaper::Reaper;
use crate::resolve::SpawnFault;
use crate::signal::{End, Leader};
use bytes::{Buf, Bytes};
use drakkar_api::{Execution, ResourceUsage, SpawnErrorKind, Task, TaskOutcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often a leader is looked at that cannot be watched.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What to run and within which limits.
pub(crate) struct Order<'a> {
    pub(crate) task: &'a Task,
    /// An absolute path; see [`resolve`](crate::resolve).
    pub(crate) program: &'a Path,
    pub(crate) environment: &'a Environment,
    pub(crate) limits: Limits,
    pub(crate) measure_peak_memory: bool,
}

/// Runs one child after the other and keeps what can be reused between them.
pub(crate) struct Supervisor {
    stdout: Capture,
    stderr: Capture,
    memory: PeakMemory,
}

/// A child and our ends of its pipes.
struct Child<'a> {
    leader: Leader<'a>,
    stdin: Option<Feed>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// What a child is still to read.
struct Feed {
    pipe: OwnedFd,
    rest: Bytes,
}

/// What is known of a child at its end.
struct Ending {
    forced: Option<Forced>,
    end: Option<End>,
    usage: Option<ResourceUsage>,
    leftovers: bool,
}

impl Supervisor {
    pub(crate) fn new(stdout_bytes_max: usize, stderr_bytes_max: usize) -> Self {
        Self {
            stdout: Capture::new(stdout_bytes_max),
            stderr: Capture::new(stderr_bytes_max),
            memory: PeakMemory::new(),
        }
    }

    /// Runs a child to its end, or until `bell` rings.
    pub(crate) fn run(&mut self, order: &Order<'_>, bell: &Bell, reaper: &Reaper) -> Execution {
        let begun = Instant::now();
        let child = match Child::spawn(order, reaper) {
            Ok(child) => child,
            Err(fault) => return failed_to_start(fault, begun.elapsed()),
        };
        let pid = child.leader.pid();
        let started = Instant::now();
        let mut ended = None;
        let ending = self.supervise(child, order, bell, started, &mut ended);
        Execution {
            outcome: ending.outcome(order.limits.deadline),
            stdout: self.stdout.take(),
            stderr: self.stderr.take(),
            pid: Some(pid.as_raw_pid().unsigned_abs()),
            queue_wait: Duration::ZERO,
            spawn: started - begun,
            duration: ended.unwrap_or_else(Instant::now) - begun,
            usage: ending.usage,
            leftovers_killed: ending.leftovers,
            precomputed: false,
        }
    }

    fn supervise(
        &mut self,
        mut child: Child<'_>,
        order: &Order<'_>,
        bell: &Bell,
        started: Instant,
        ended: &mut Option<Instant>,
    ) -> Ending {
        let mut course = Course::new(order.limits, started);
        let mut peak = None;
        loop {
            let now = Instant::now();
            let facts = child.facts(bell);
            if facts.ended {
                ended.get_or_insert(now);
            } else if order.measure_peak_memory && !facts.pipes_open {
                peak = peak.max(peak_of(child.leader.pid()));
            }
            match course.next(now, facts) {
                Step::Wait(until) => self.wait(&mut child, until - now, bell),
                Step::Terminate => {
                    child.leader.signal(Signal::TERM);
                    // A stopped process would not hear it.
                    child.leader.signal(Signal::CONT);
                }
                Step::Kill => {
                    peak = peak.max(peak_of(child.leader.pid()));
                    child.leader.signal(Signal::KILL);
                }
                Step::Settle => return self.settle(child, &course, peak),
                Step::Abandon => return self.abandon(child, &course),
            }
        }
    }

    /// Waits for news of the child and deals with them.
    fn wait(&mut self, child: &mut Child<'_>, pause: Duration, bell: &Bell) {
        let news = child.poll(pause, bell);
        if news.bell {
            bell.hush();
        }
        if news.stdin {
            child.feed();
        }
        read(&mut self.stdout, &mut child.stdout, news.stdout);
        read(&mut self.stderr, &mut child.stderr, news.stderr);
        if news.leader {
            child.leader.look();
        }
        if child.leader.end().is_some() {
            child.stdin = None;
        }
    }

    fn settle(&mut self, child: Child<'_>, course: &Course, peak: Option<u64>) -> Ending {
        self.sweep(&child);
        let end = child.leader.end();
        let settled = child.leader.settle();
        let usage = settled.accounts.map(|accounts| ResourceUsage {
            user: accounts.user,
            system: accounts.system,
            peak_memory_bytes: self.memory.of_child(accounts.peak_or_ours).max(peak),
        });
        // What dies of the same SIGKILL as its leader is no leftover.
        let leftovers = settled.leftovers && !course.was_killed();
        Ending { forced: course.forced(), end, usage, leftovers }
    }

    /// Leaves a process to the reaper that does not die of SIGKILL: one in uninterruptible I/O, or
    /// one that runs as another user.
    fn abandon(&mut self, child: Child<'_>, course: &Course) -> Ending {
        let pid = child.leader.pid().as_raw_pid();
        tracing::warn!(pid, "a process does not die of SIGKILL; it is reaped when it ends");
        self.sweep(&child);
        Ending { forced: course.forced(), end: None, usage: None, leftovers: false }
    }

    /// Takes what others of the group have written and we have not read.
    fn sweep(&mut self, child: &Child<'_>) {
        if let Some(pipe) = &child.stdout {
            self.stdout.sweep(pipe.as_fd());
        }
        if let Some(pipe) = &child.stderr {
            self.stderr.sweep(pipe.as_fd());
        }
    }
}

impl<'a> Child<'a> {
    /// Starts the program, in a process group of its own.
    ///
    /// Everything set on the command here keeps the standard library on `posix_spawn`, which also
    /// empties the signal mask and gives SIGPIPE its default action back. `pre_exec`, `uid`, `gid`,
    /// `groups` or a bare name would each make it fork instead.
    fn spawn(order: &Order<'_>, reaper: &'a Reaper) -> Result<Self, SpawnFault> {
        let task = order.task;
        check_environment(task)?;
        let stdin = if task.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let spawned = Command::new(order.program)
            .args(&task.args)
            .env_clear()
            .envs(order.environment.iter())
            .envs(&task.env)
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let child = spawned.map_err(|error| fault_from(&error, order))?;
        let leader = Leader::new(Pid::from_child(&child), reaper);
        // From here on the leader is killed and reaped, whatever happens.
        let feed = |pipe, rest: &Bytes| Feed { pipe, rest: rest.clone() };
        let mut child = Self {
            leader,
            stdin: child.stdin.map(OwnedFd::from).zip(task.stdin.as_ref()).map(|(p, b)| feed(p, b)),
            stdout: child.stdout.map(OwnedFd::from),
            stderr: child.stderr.map(OwnedFd::from),
        };
        child.make_nonblocking().map_err(|error| {
            SpawnFault::new(SpawnErrorKind::System, format!("failed to set up its pipes: {error}"))
        })?;
        child.feed();
        Ok(child)
    }

    /// Makes our ends non-blocking. The child's ends are not affected.
    fn make_nonblocking(&self) -> Result<(), Errno> {
        let stdin = self.stdin.as_ref().map(|feed| feed.pipe.as_fd());
        let outputs = [&self.stdout, &self.stderr].into_iter().flatten().map(AsFd::as_fd);
        stdin.into_iter().chain(outputs).try_for_each(|pipe| fcntl_setfl(pipe, OFlags::NONBLOCK))
    }

    fn facts(&self, bell: &Bell) -> Facts {
        Facts {
            ended: self.leader.end().is_some(),
            pipes_open: self.stdout.is_some() || self.stderr.is_some(),
            cancelled: bell.is_rung(),
        }
    }

    /// Writes as much as the pipe takes, and closes it when all is written or nobody reads it: not
    /// to read one's input is no error.
    fn feed(&mut self) {
        let Some(feed) = &mut self.stdin else { return };
        let written = match feed.rest.is_empty() {
            true => Ok(0),
            false => rustix::io::write(&feed.pipe, &feed.rest),
        };
        match written {
            Ok(count) => feed.rest.advance(count),
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => feed.rest.clear(),
        }
        if feed.rest.is_empty() {
            self.stdin = None;
        }
    }

    /// Waits until there is something to do, at most for `pause`.
    fn poll(&self, pause: Duration, bell: &Bell) -> News {
        // What is not there is replaced by something of which nothing is asked.
        let nothing = PollFd::from_borrowed_fd(bell.wake(), PollFlags::empty());
        let stdin = self.stdin.as_ref().map(|feed| feed.pipe.as_fd());
        let mut entries = [
            PollFd::from_borrowed_fd(bell.wake(), PollFlags::IN),
            entry(self.leader.watch(), PollFlags::IN).unwrap_or(nothing.clone()),
            entry(stdin, PollFlags::OUT).unwrap_or(nothing.clone()),
            entry(self.stdout.as_ref().map(AsFd::as_fd), PollFlags::IN).unwrap_or(nothing.clone()),
            entry(self.stderr.as_ref().map(AsFd::as_fd), PollFlags::IN).unwrap_or(nothing),
        ];
        let unwatched = self.leader.watch().is_none() && self.leader.end().is_none();
        let pause = if unwatched { pause.min(LOOK_INTERVAL) } else { pause };
        let timeout = Timespec::try_from(pause).ok();
        if let Err(error) = poll(&mut entries, timeout.as_ref())
            && error != Errno::INTR
        {
            // Out of memory, say. Nothing here blocks, so all can be tried, but not in a hurry.
            std::thread::sleep(pause.min(LOOK_INTERVAL));
            return News::everything();
        }
        let [bell, leader, stdin, stdout, stderr] = entries.map(|entry| entry.revents());
        News {
            bell: !bell.is_empty(),
            leader: unwatched || !leader.is_empty(),
            stdin: !stdin.is_empty(),
            stdout,
            stderr,
        }
    }
}

fn entry(fd: Option<BorrowedFd<'_>>, flags: PollFlags) -> Option<PollFd<'_>> {
    fd.map(|fd| PollFd::from_borrowed_fd(fd, flags))
}

/// What `poll` has found.
struct News {
    bell: bool,
    leader: bool,
    stdin: bool,
    stdout: PollFlags,
    stderr: PollFlags,
}

impl News {
    fn everything() -> Self {
        let something = PollFlags::IN;
        Self { bell: true, leader: true, stdin: true, stdout: something, stderr: something }
    }
}

/// Reads what `news` announce, and closes the pipe at its end.
fn read(capture: &mut Capture, pipe: &mut Option<OwnedFd>, news: PollFlags) {
    let Some(open) = pipe.as_ref().filter(|_| !news.is_empty()) else { return };
    let mut flow = capture.read(open.as_fd());
    if flow == Flow::Open && news.contains(PollFlags::HUP) {
        // That was most likely the rest; finding out now saves a turn.
        flow = capture.read(open.as_fd());
    }
    if flow == Flow::Closed {
        *pipe = None;
    }
}

impl Ending {
    /// Says how the task ended: what the pool did to it comes before what became of the leader.
    fn outcome(&self, limit: Duration) -> TaskOutcome {
        match (self.forced, self.end) {
            (Some(Forced::Timeout), _) => TaskOutcome::Timeout { limit },
            (Some(Forced::Cancelled), _) => TaskOutcome::Cancelled,
            (None, Some(End::Exited(0))) => TaskOutcome::Success,
            (None, Some(End::Exited(code))) => TaskOutcome::ExitCode(code),
            (None, Some(End::Killed(signal))) => TaskOutcome::Signal(signal),
            (None, Some(End::Lost) | None) => TaskOutcome::SpawnFailure {
                kind: SpawnErrorKind::System,
                reason: "another part of this process took its exit status".to_owned(),
            },
        }
    }
}

fn check_environment(task: &Task) -> Result<(), SpawnFault> {
    match task.env.iter().find_map(|(name, value)| fault_of(name, value)) {
        None => Ok(()),
        Some(fault) => Err(SpawnFault::new(SpawnErrorKind::InvalidArgument, fault)),
    }
}

/// Classifies why the program could not be started.
fn fault_from(error: &io::Error, order: &Order<'_>) -> SpawnFault {
    let Some(errno) = Errno::from_io_error(error) else {
        // The standard library itself refuses one thing only.
        let position = order.task.args.iter().position(|arg| arg.contains('\0'));
        let reason = match position {
            Some(index) => format!("argument {} holds a NUL byte", index + 1),
            None => error.to_string(),
        };
        return SpawnFault::new(SpawnErrorKind::InvalidArgument, reason);
    };
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => SpawnErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM => SpawnErrorKind::PermissionDenied,
        Errno::TOOBIG => SpawnErrorKind::InvalidArgument,
        _ => SpawnErrorKind::System,
    };
    SpawnFault::new(kind, format!("\"{}\": {error}", order.program.display()))
}

pub(crate) fn failed_to_start(fault: SpawnFault, spawn: Duration) -> Execution {
    let outcome = TaskOutcome::SpawnFailure { kind: fault.kind, reason: fault.reason };
    Execution { spawn, ..Execution::without_process(outcome) }
}
