//! Processes that outlive xtask: recognising them again and ending them.
//!
//! A process is known by its id *and* the moment it started, because ids are reused. Signals go
//! through a pidfd that was checked against both, so a stranger that got the id later is never
//! signalled.

use std::fs;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How long the kernel may take to end a process after SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

const REAP_POLL: Duration = Duration::from_millis(20);

/// One process, told apart from later owners of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pid: u32,
    /// Clock ticks from boot to the start of the process, as in `/proc/<pid>/stat`.
    started_ticks: u64,
}

impl ProcessIdentity {
    /// Reads the identity of a process that runs now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = Stat::read(pid)?.with_context(|| format!("process {pid} has gone"))?;
        Ok(Self { pid, started_ticks: stat.started_ticks })
    }

    /// The id, for people to read.
    pub(crate) fn pid(self) -> u32 {
        self.pid
    }

    /// Says whether this very process still runs; one that has exited and was not yet reaped does
    /// not.
    pub(crate) fn is_alive(self) -> Result<bool> {
        let stat = Stat::read(self.pid)?;
        Ok(stat.is_some_and(|stat| stat.started_ticks == self.started_ticks && !stat.has_exited))
    }

    /// Asks the process to end with `signal`, and kills it when it has not within `grace`.
    pub(crate) fn terminate(self, signal: Signal, grace: Duration) -> Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        send(&handle, signal)?;
        if ended_within(&handle, grace)? {
            return Ok(());
        }
        self.kill()
    }

    /// Kills the process and waits until it is gone.
    pub(crate) fn kill(self) -> Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        send(&handle, Signal::KILL)?;
        if !ended_within(&handle, KILL_DEADLINE)? {
            bail!("process {} did not end within {KILL_DEADLINE:?} of SIGKILL", self.pid);
        }
        Ok(())
    }

    /// Waits until the process that ended has left the process table, too, and says whether it has.
    ///
    /// Its parent must see to that, for a service usually init; until then some servers take it for
    /// alive.
    pub(crate) fn is_reaped_within(self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let stat = Stat::read(self.pid)?;
            if stat.is_none_or(|stat| stat.started_ticks != self.started_ticks) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            thread::sleep(REAP_POLL);
        }
    }

    /// Opens a handle to this very process; `None` if it has gone.
    ///
    /// The check comes after the opening: what the handle holds cannot be swapped for another
    /// process any more.
    fn open(self) -> Result<Option<OwnedFd>> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} is no process id", self.pid))?;
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error).context("failed to open a handle to the process"),
        };
        Ok(if self.is_alive()? { Some(handle) } else { None })
    }
}

fn send(handle: &OwnedFd, signal: Signal) -> Result<()> {
    match pidfd_send_signal(handle, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("failed to signal the process"),
    }
}

/// Waits for the end of a process; a pidfd turns readable then.
fn ended_within(handle: &OwnedFd, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("the wait is too long")?;
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("failed to wait for the process"),
        }
    }
}

/// The two facts of `/proc/<pid>/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    has_exited: bool,
    started_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}/stat");
        match fs::read_to_string(&path) {
            Ok(line) => {
                Self::parse(&line).with_context(|| format!("{path} is malformed")).map(Some)
            }
            // ESRCH is what a process answers that ends while its file is read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("failed to read {path}")),
        }
    }

    /// The name in the second field may hold blanks and parentheses, so fields are counted from its
    /// last `)`.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?;
        let started_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { has_exited: matches!(state, "Z" | "X"), started_ticks })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, ProcessIdentity) {
        let child = Command::new("sleep").arg("600").spawn().expect("sleep is installed");
        let identity = ProcessIdentity::of(child.id()).expect("it runs");
        (child, identity)
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) (b) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20\n";
        assert_eq!(Stat::parse(line), Some(Stat { has_exited: true, started_ticks: 4242 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn a_running_process_is_terminated() {
        let (mut child, identity) = sleeper();
        assert!(identity.is_alive().expect("readable"));
        identity.terminate(Signal::TERM, Duration::from_secs(10)).expect("it ends");
        assert!(!identity.is_alive().expect("readable"), "not reaped yet, and yet not alive");
        assert!(!identity.is_reaped_within(Duration::ZERO).expect("readable"));
        child.wait().expect("it is our child");
        assert!(identity.is_reaped_within(Duration::ZERO).expect("readable"));
    }

    #[test]
    fn a_later_owner_of_the_id_is_left_alone() {
        let (mut child, identity) = sleeper();
        let earlier = ProcessIdentity { started_ticks: identity.started_ticks - 1, ..identity };
        assert!(!earlier.is_alive().expect("readable"));
        earlier.kill().expect("nothing to do");
        assert!(identity.is_alive().expect("readable"));
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    #[test]
    fn a_process_that_has_gone_needs_no_ending() {
        let (mut child, identity) = sleeper();
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        identity.terminate(Signal::TERM, Duration::from_secs(1)).expect("nothing to do");
    }
}
