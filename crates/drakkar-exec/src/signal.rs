//! Process groups: watching the leader, signalling the group, settling what is left of it.
//!
//! The number of a group may be used for another one as soon as the group is empty and its leader
//! is reaped. Therefore signals are sent only while the leader is ours and unreaped: a [`Leader`]
//! cannot be signalled after [`settle`](Leader::settle), and if it is dropped before, it is killed
//! and handed to the reaper.

use crate::error::{PoolError, PoolErrorKind};
use crate::reaper::Reaper;
use crate::wait4::{self, Accounts};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpgid, kill_process,
    kill_process_group, pidfd_open, test_kill_process_group, waitid,
};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often a leader is looked at that is not watched.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The leader of a group of processes, until it is reaped.
pub(crate) struct Leader<'a> {
    pid: Pid,
    watch: Watch,
    end: Option<End>,
    reaped: bool,
    reaper: &'a Reaper,
}

/// How its end is noticed. A descriptor that tells costs as much as five other system calls, and
/// most leaders end while their output is read; so it is opened for those only that a first look
/// finds alive.
enum Watch {
    /// To be looked at then for the first time, or earlier if its output ends.
    NotYet(Instant),
    /// Readable when the leader has ended.
    Descriptor(OwnedFd),
    /// To be looked at then, and again and again: no descriptor could be had, or it announced an
    /// end that a tracer still keeps from us.
    Blind(Instant),
    /// It has ended.
    Over,
}

/// How a leader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// Somebody else in this process took the status. Nothing is known, and the group's number is
    /// no longer ours.
    Lost,
}

/// What is known once a leader is reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) accounts: Option<Accounts>,
    /// Whether there was more of the group than its leader.
    pub(crate) leftovers: bool,
}

impl<'a> Leader<'a> {
    /// Takes care of a child of ours that leads its own group.
    pub(crate) fn new(pid: Pid, now: Instant, reaper: &'a Reaper) -> Self {
        let watch = Watch::NotYet(now + LOOK_INTERVAL);
        Self { pid, watch, end: None, reaped: false, reaper }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns how it ended, as far as it was [looked](Leader::look) at.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Returns what becomes readable when the leader has ended, if there is such a thing.
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        match &self.watch {
            Watch::Descriptor(watch) => Some(watch.as_fd()),
            _ => None,
        }
    }

    /// Returns when to [look](Leader::look) at it next for want of something to wait for.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        match self.watch {
            Watch::NotYet(at) | Watch::Blind(at) => Some(at),
            Watch::Descriptor(_) | Watch::Over => None,
        }
    }

    /// Finds out whether it has ended, and leaves it unreaped.
    pub(crate) fn look(&mut self, now: Instant) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let found = waitid(WaitId::Pid(self.pid), options);
        self.end = match found {
            Ok(Some(status)) => Some(End::new(&status)),
            Ok(None) | Err(Errno::INTR) => None,
            Err(_) => {
                self.reaped = true;
                Some(End::Lost)
            }
        };
        self.watch = match &self.watch {
            _ if self.end.is_some() => Watch::Over,
            Watch::NotYet(_) => match pidfd_open(self.pid, PidfdFlags::empty()) {
                Ok(watch) => Watch::Descriptor(watch),
                Err(_) => Watch::Blind(now + LOOK_INTERVAL),
            },
            _ => Watch::Blind(now + LOOK_INTERVAL),
        };
    }

    /// Signals the whole group, and the leader wherever it is.
    ///
    /// A leader that has moved to another group is signalled alone: that group may be anybody's, even
    /// this process's own. For SIGKILL nobody asks where it is, as it might move in between.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.reaped {
            return;
        }
        // The leader is there to receive them, so these fail only for want of permission, say when
        // the program runs as another user; then the reap timeout ends the matter. Or the group is
        // empty, because the leader has left it.
        kill_process_group(self.pid, signal).ok();
        if signal == Signal::KILL || getpgid(Some(self.pid)) != Ok(self.pid) {
            kill_process(self.pid, signal).ok();
        }
    }

    /// Kills what is left of the group and reaps the leader, which must have ended.
    ///
    /// SIGKILL is sent even if the leader was alone: this costs less than finding out, and only
    /// before the leader is reaped is it safe. Whether somebody was there is asked afterwards: if
    /// the group still exists without its leader, it has other members. One that was just ending
    /// by itself, or whose parent has not reaped it, counts too: the kernel does not tell.
    pub(crate) fn settle(mut self) -> Settled {
        if self.reaped {
            return Settled { accounts: None, leftovers: false };
        }
        kill_process_group(self.pid, Signal::KILL).ok();
        let accounts = match wait4::reap(self.pid) {
            Ok(Some(accounts)) => Some(accounts),
            // Not expected of a leader that has ended. It goes to the reaper.
            Ok(None) => return Settled { accounts: None, leftovers: false },
            // Somebody else was faster, after its end was seen.
            Err(_) => None,
        };
        self.reaped = true;
        Settled { accounts, leftovers: test_kill_process_group(self.pid).is_ok() }
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
            self.reaper.adopt(self.pid);
        }
    }
}

impl End {
    fn new(status: &WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Exited(code),
            (None, Some(signal)) => Self::Killed(signal),
            (None, None) => Self::Lost,
        }
    }
}

/// Checks that this process can run children at all.
///
/// # Errors
///
/// When SIGCHLD is ignored, because then the kernel reaps children by itself and their status is
/// lost; and when SIGPIPE would kill this process, because children may close their input.
pub(crate) fn check_dispositions() -> Result<(), PoolError> {
    // Without /proc there is nothing to check with, which is no reason not to start.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match fault_of_dispositions(&status) {
        None => Ok(()),
        Some(fault) => Err(PoolError::new(PoolErrorKind::SignalDisposition, fault)),
    }
}

fn fault_of_dispositions(status: &str) -> Option<&'static str> {
    let ignored = signal_set(status, "SigIgn:")?;
    let caught = signal_set(status, "SigCgt:")?;
    if holds(ignored, Signal::CHILD) {
        return Some("SIGCHLD is ignored, so that the exit status of children would be lost");
    }
    if !holds(ignored | caught, Signal::PIPE) {
        return Some(
            "SIGPIPE is neither ignored nor handled, so that a child could end this process",
        );
    }
    None
}

fn signal_set(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn holds(set: u64, signal: Signal) -> bool {
    set >> (signal.as_raw() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dispositions_that_break_children_are_found() {
        let check = |ignored: &str, caught: &str, expect: Option<&str>| {
            let status = format!("Name:\tx\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
            let fault = fault_of_dispositions(&status);
            assert_eq!(fault.and_then(|fault| fault.split(' ').next()), expect, "{fault:?}");
        };
        check("0000000000001000", "0000000000000440", None);
        check("0000000000000000", "0000000000001000", None);
        check("0000000000011000", "0000000000000000", Some("SIGCHLD"));
        check("0000000000000000", "0000000000010000", Some("SIGPIPE"));
        assert_eq!(fault_of_dispositions(""), None);
        assert!(check_dispositions().is_ok(), "the test's own process is fine");
    }
}
