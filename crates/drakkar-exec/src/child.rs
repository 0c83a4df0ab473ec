//! One child process from start to end: the loop that moves its bytes and does what its
//! [`Course`] says.
//!
//! The loop waits in one `poll` for everything at once: room in standard input, something in
//! standard output or error, the leader's end, the bell that cancels, and the time limit. It moves
//! at most a pipeful before it looks at the clock again, so that no child is chatty enough to
//! outlive its deadline.

use crate::bell::Bell;
use crate::config::OverLimitPolicy;
use crate::course::{Course, Facts, Forced, Limits, Step};
use crate::environment::{Environment, entry, fault_of};
use crate::memory::{PeakMemory, peak_of};
use crate::output::{Capture, Flow};
use crate::reaper::Reaper;
use crate::resolve::SpawnFault;
use crate::signal::{End, Leader};
use crate::spawn::{Launch, Stdin};
use crate::wrap::Wrap;
use bytes::{Buf, Bytes};
use drakkar_api::{Execution, ResourceUsage, SpawnErrorKind, Task, TaskOutcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What to run and within which limits.
pub(crate) struct Order<'a> {
    /// Where others find the process while it is there; 0 stands for none.
    pub(crate) pid: &'a AtomicU32,
    pub(crate) task: &'a Task,
    /// An absolute path; see [`resolve`](crate::resolve).
    pub(crate) program: &'a Path,
    /// What starts the program, if it is not to be started directly.
    pub(crate) wrap: Option<&'a Wrap>,
    pub(crate) environment: &'a Environment,
    /// What a task without input reads.
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) limits: Limits,
    pub(crate) output_over_limit: OverLimitPolicy,
    pub(crate) measure_peak_memory: bool,
}

impl Order<'_> {
    /// Returns what the kernel is asked to load.
    fn executable(&self) -> &Path {
        self.wrap.map_or(self.program, Wrap::program)
    }
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
    /// Whether it closed its input, or ended, before all was written and before we began to end it.
    stdin_closed_early: bool,
    /// Whether we have begun to end it.
    signalled: bool,
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
    at: Instant,
    forced: Option<Forced>,
    end: Option<End>,
    usage: Option<ResourceUsage>,
    leftovers: bool,
    stdin_closed_early: bool,
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
        let number = pid.as_raw_pid().unsigned_abs();
        order.pid.store(number, Ordering::Relaxed);
        let ending = self.supervise(child, order, bell, started);
        order.pid.store(0, Ordering::Relaxed);
        Execution {
            outcome: ending.outcome(order.limits.deadline, self.limit_passed(order)),
            stdout: self.stdout.take(),
            stderr: self.stderr.take(),
            pid: Some(number),
            queue_wait: Duration::ZERO,
            spawn: started - begun,
            duration: ending.at - begun,
            usage: ending.usage,
            leftovers_killed: ending.leftovers,
            stdin_closed_early: ending.stdin_closed_early,
            precomputed: false,
        }
    }

    fn supervise(
        &mut self,
        mut child: Child<'_>,
        order: &Order<'_>,
        bell: &Bell,
        started: Instant,
    ) -> Ending {
        let mut course = Course::new(order.limits, started);
        let mut ended = None;
        let mut peak = None;
        loop {
            let now = Instant::now();
            let facts = child.facts(bell, self.limit_passed(order).is_some());
            if facts.ended {
                ended.get_or_insert(now);
            } else if order.measure_peak_memory && !facts.pipes_open {
                peak = peak.max(peak_of(child.leader.pid()));
            }
            match course.next(now, facts) {
                Step::Wait(until) => self.wait(&mut child, now, until, bell),
                Step::Terminate => {
                    child.signal(Signal::TERM);
                    // A stopped process would not hear it.
                    child.signal(Signal::CONT);
                }
                Step::Kill => {
                    peak = peak.max(peak_of(child.leader.pid()));
                    child.signal(Signal::KILL);
                }
                Step::Settle => {
                    return self.settle(child, &course, ended.unwrap_or(now), peak);
                }
                Step::Abandon => return self.abandon(child, &course, now),
            }
        }
    }

    /// Returns the limit of a stream that has passed it, if that is a failure.
    fn limit_passed(&self, order: &Order<'_>) -> Option<u64> {
        let passed = || self.stdout.limit_passed().or_else(|| self.stderr.limit_passed());
        match order.output_over_limit {
            OverLimitPolicy::Truncate => None,
            OverLimitPolicy::Fail => passed(),
        }
    }

    /// Waits for news of the child and deals with them.
    fn wait(&mut self, child: &mut Child<'_>, now: Instant, until: Instant, bell: &Bell) {
        let look = child.leader.next_look();
        let until = look.map_or(until, |look| look.min(until));
        let news = child.poll(until.saturating_duration_since(now), bell);
        if news.bell {
            bell.hush();
        }
        if news.stdin {
            child.feed();
        }
        read(&mut self.stdout, &mut child.stdout, news.stdout);
        read(&mut self.stderr, &mut child.stderr, news.stderr);
        // An unwatched leader is looked at when it is time, or when it has most likely ended.
        if news.leader || look.is_some_and(|look| look <= now || !child.pipes_open()) {
            child.leader.look(now);
        }
        if child.leader.end().is_some() {
            child.close_stdin();
        }
    }

    fn settle(
        &mut self,
        child: Child<'_>,
        course: &Course,
        at: Instant,
        peak: Option<u64>,
    ) -> Ending {
        self.sweep(&child);
        let end = child.leader.end();
        let stdin_closed_early = child.stdin_closed_early;
        let settled = child.leader.settle();
        let usage = settled.accounts.map(|accounts| ResourceUsage {
            user: accounts.user,
            system: accounts.system,
            peak_memory_bytes: self.memory.of_child(accounts.peak_or_ours).max(peak),
        });
        // What dies of the same SIGKILL as its leader is no leftover.
        let leftovers = settled.leftovers && !course.was_killed();
        Ending { at, forced: course.forced(), end, usage, leftovers, stdin_closed_early }
    }

    /// Leaves a process to the reaper that does not die of SIGKILL: one in uninterruptible I/O, or
    /// one that runs as another user.
    fn abandon(&mut self, child: Child<'_>, course: &Course, at: Instant) -> Ending {
        let pid = child.leader.pid().as_raw_pid();
        tracing::warn!(pid, "a process does not die of SIGKILL; it is reaped when it ends");
        self.sweep(&child);
        Ending {
            at,
            forced: course.forced(),
            end: None,
            usage: None,
            leftovers: false,
            stdin_closed_early: child.stdin_closed_early,
        }
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
    /// Starts the program of an order.
    fn spawn(order: &Order<'_>, reaper: &'a Reaper) -> Result<Self, SpawnFault> {
        let task = order.task;
        let (program, args) = arguments_of(order)?;
        let own = variables_of(task)?;
        let launch = Launch {
            program: &program,
            args: &args,
            env: &order.environment.entries(&own, |name| task.env.contains_key(name)),
            stdin: task.stdin.as_ref().map_or(Stdin::Null(order.null), |_| Stdin::Pipe),
        };
        let spawned = launch.spawn().map_err(|errno| fault_from(errno, order.executable()))?;
        let mut child = Self {
            leader: Leader::new(spawned.pid, Instant::now(), reaper),
            stdin: spawned
                .stdin
                .map(|pipe| Feed { pipe, rest: task.stdin.clone().unwrap_or_default() }),
            stdin_closed_early: false,
            signalled: false,
            stdout: Some(spawned.stdout),
            stderr: Some(spawned.stderr),
        };
        child.feed();
        Ok(child)
    }

    fn facts(&self, bell: &Bell, over_limit: bool) -> Facts {
        Facts {
            ended: self.leader.end().is_some(),
            pipes_open: self.pipes_open(),
            over_limit,
            cancelled: bell.is_rung(),
        }
    }

    fn pipes_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
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
            Err(_) => return self.close_stdin(),
        }
        if feed.rest.is_empty() {
            self.close_stdin();
        }
    }

    /// Closes the pipe, and notes whether that is before all was written.
    fn close_stdin(&mut self) {
        let cut_off = self.stdin.take().is_some_and(|feed| !feed.rest.is_empty());
        self.stdin_closed_early |= cut_off && !self.signalled;
    }

    fn signal(&mut self, signal: Signal) {
        self.signalled = true;
        self.leader.signal(signal);
    }

    /// Waits until there is something to do, at most for `pause`.
    fn poll(&self, pause: Duration, bell: &Bell) -> News {
        // What is not there is replaced by something of which nothing is asked.
        let nothing = PollFd::from_borrowed_fd(bell.wake(), PollFlags::empty());
        let stdin = self.stdin.as_ref().map(|feed| feed.pipe.as_fd());
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        let stderr = self.stderr.as_ref().map(AsFd::as_fd);
        let mut entries = [
            PollFd::from_borrowed_fd(bell.wake(), PollFlags::IN),
            wait_for(self.leader.watch(), PollFlags::IN).unwrap_or(nothing.clone()),
            wait_for(stdin, PollFlags::OUT).unwrap_or(nothing.clone()),
            wait_for(stdout, PollFlags::IN).unwrap_or(nothing.clone()),
            wait_for(stderr, PollFlags::IN).unwrap_or(nothing),
        ];
        let timeout = Timespec::try_from(pause).ok();
        if let Err(error) = poll(&mut entries, timeout.as_ref())
            && error != Errno::INTR
        {
            // Out of memory, say. Nothing here blocks, so all can be tried, but not in a hurry.
            std::thread::park_timeout(pause.min(Duration::from_millis(10)));
            return News::everything();
        }
        let [bell, leader, stdin, stdout, stderr] = entries.map(|entry| entry.revents());
        News {
            bell: !bell.is_empty(),
            leader: !leader.is_empty(),
            stdin: !stdin.is_empty(),
            stdout,
            stderr,
        }
    }
}

fn wait_for(fd: Option<BorrowedFd<'_>>, flags: PollFlags) -> Option<PollFd<'_>> {
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
    /// Says how the task ended: what the pool did to it comes before what became of the leader. Too
    /// much output counts whether it was seen before the leader's end or after, so that it does not
    /// depend on who was faster.
    fn outcome(&self, deadline: Duration, limit_passed: Option<u64>) -> TaskOutcome {
        match (self.forced, limit_passed, self.end) {
            (Some(Forced::Timeout), ..) => TaskOutcome::Timeout { limit: deadline },
            (Some(Forced::Cancelled), ..) => TaskOutcome::Cancelled,
            (_, Some(limit_bytes), _) => TaskOutcome::OutputOverLimit { limit_bytes },
            (_, None, Some(End::Exited(0))) => TaskOutcome::Success,
            (_, None, Some(End::Exited(code))) => TaskOutcome::ExitCode(code),
            (_, None, Some(End::Killed(signal))) => TaskOutcome::Signal(signal),
            (_, None, Some(End::Lost) | None) => TaskOutcome::SpawnFailure {
                kind: SpawnErrorKind::System,
                reason: "another part of this process took its exit status".to_owned(),
            },
        }
    }
}

/// Returns what is to be loaded, and what it gets as arguments: those of the wrap, then the path of
/// the program and the arguments of the task.
fn arguments_of(order: &Order<'_>) -> Result<(CString, Vec<CString>), SpawnFault> {
    let invalid = |reason| SpawnFault::new(SpawnErrorKind::InvalidArgument, reason);
    let program = CString::new(order.program.as_os_str().as_bytes())
        .map_err(|_| invalid("the path of the program holds a NUL byte".to_owned()))?;
    let wrap = order.wrap.map_or(&[][..], Wrap::args);
    let mut args = Vec::with_capacity(wrap.len() + 1 + order.task.args.len());
    args.extend_from_slice(wrap);
    args.push(program);
    for (index, arg) in order.task.args.iter().enumerate() {
        let arg = CString::new(arg.as_bytes())
            .map_err(|_| invalid(format!("argument {} holds a NUL byte", index + 1)))?;
        args.push(arg);
    }
    // Programs find their own path in the first place.
    Ok((args[0].clone(), args))
}

/// Returns the task's own variables as entries of an environment.
fn variables_of(task: &Task) -> Result<Vec<CString>, SpawnFault> {
    let variable = |(name, value): (&String, &String)| match fault_of(name, value) {
        None => Ok(entry(name.as_bytes(), value.as_bytes()).expect("it was just checked")),
        Some(fault) => Err(SpawnFault::new(SpawnErrorKind::InvalidArgument, fault)),
    };
    task.env.iter().map(variable).collect()
}

/// Classifies why the program could not be started.
fn fault_from(errno: Errno, program: &Path) -> SpawnFault {
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => SpawnErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM => SpawnErrorKind::PermissionDenied,
        Errno::TOOBIG => SpawnErrorKind::InvalidArgument,
        _ => SpawnErrorKind::System,
    };
    SpawnFault::new(kind, format!("\"{}\": {errno}", program.display()))
}

pub(crate) fn failed_to_start(fault: SpawnFault, spawn: Duration) -> Execution {
    let outcome = TaskOutcome::SpawnFailure { kind: fault.kind, reason: fault.reason };
    Execution { spawn, ..Execution::without_process(outcome) }
}
