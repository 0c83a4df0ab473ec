//! Reaps one child and says what CPU time it took.
//!
//! With unsafe code: of all ways to wait only `wait4` tells what a *single* child used, and no safe
//! wrapper of it exists.
#![expect(unsafe_code, reason = "wait4 has no safe wrapper")]

use rustix::process::Pid;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What the kernel accounts to a child and to those of its children that it has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    /// The greatest resident set of any of them in bytes, or the worker's own if that is greater;
    /// see [`memory`](crate::memory).
    pub(crate) peak_or_ours: u64,
}

/// Takes the exit status of `child` without waiting for it. `None` if it still runs.
///
/// # Errors
///
/// `ECHILD` when the process is no child of ours or was reaped before.
pub(crate) fn reap(child: Pid) -> io::Result<Option<Accounts>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes of their types for the whole call, and the call
    // keeps neither. It touches no other memory of ours.
    let reaped = unsafe {
        libc::wait4(child.as_raw_pid(), &raw mut status, libc::WNOHANG, usage.as_mut_ptr())
    };
    match reaped {
        // With WNOHANG there is no wait that a signal could interrupt.
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => {
            // SAFETY: the memory was zeroed, and all zeros is a valid `rusage`; after a success
            // the kernel has filled it in as well.
            let usage = unsafe { usage.assume_init() };
            Ok(Some(Accounts {
                user: duration(usage.ru_utime),
                system: duration(usage.ru_stime),
                peak_or_ours: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
            }))
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}
