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
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, pidfd_open,
    test_kill_process_group, waitid,
};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The leader of a group of processes, until it is reaped.
pub(crate) struct Leader<'a> {
    pid: Pid,
    /// Readable when the leader has ended. `None` when it could not be opened, or when it announced
    /// an end that a tracer still keeps from us: then the leader must be looked at now and then.
    watch: Option<OwnedFd>,
    end: Option<End>,
    reaped: bool,
    reaper: &'a Reaper,
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
    pub(crate) fn new(pid: Pid, reaper: &'a Reaper) -> Self {
        // Without a descriptor to spare, looking now and then has to do.
        let watch = pidfd_open(pid, PidfdFlags::empty()).ok();
        Self { pid, watch, end: None, reaped: false, reaper }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns how it ended, as far as it was [looked](Leader::look) at.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Returns what becomes readable when the leader has ended.
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Finds out whether it has ended, and leaves it unreaped. To be called when the watch is
    /// readable, or now and then if there is no watch.
    pub(crate) fn look(&mut self) {
        self.watch = None;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.end = match waitid(WaitId::Pid(self.pid), options) {
            Ok(Some(status)) => Some(End::new(&status)),
            Ok(None) | Err(Errno::INTR) => None,
            Err(_) => {
                self.reaped = true;
                Some(End::Lost)
            }
        };
    }

    /// Signals the whole group.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.reaped {
            // The leader is there to receive it, so this fails only for want of permission, say
            // when the program runs as another user. Then the reap timeout ends the matter.
            kill_process_group(self.pid, signal).ok();
        }
    }

    /// Kills what is left of the group and reaps the leader, which must have ended.
    ///
    /// SIGKILL is sent even if the leader was alone: this costs less than finding out, and only
    /// before the leader is reaped is it safe. Whether somebody was there is asked afterwards: if
    /// the group still exists without its leader, it has other members. A process that has ended
    /// without being reaped by its parent counts as one.
    pub(crate) fn settle(mut self) -> Settled {
        if self.reaped {
            return Settled { accounts: None, leftovers: false };
        }
        self.signal(Signal::KILL);
        match wait4::reap(self.pid) {
            Ok(Some(accounts)) => {
                self.reaped = true;
                let leftovers = test_kill_process_group(self.pid).is_ok();
                Settled { accounts: Some(accounts), leftovers }
            }
            // Not expected of a leader that has ended; if it is reaped later, or was by others,
            // the outcome is known all the same.
            Ok(None) | Err(_) => Settled { accounts: None, leftovers: false },
        }
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
