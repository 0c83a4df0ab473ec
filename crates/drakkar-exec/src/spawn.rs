//! Starts programs: makes the pipes, and loads the program in a child that borrows this process's
//! memory until then ([`vfork`]).
//!
//! Borrowing it is what keeps a start cheap: a fork copies the page tables of a worker that may be
//! gigabytes large. The standard library's `Command` borrows too, but leaves that for a fork without a
//! word when one of several settings is used; and it builds the environment anew for each child, which
//! here cost a third of all that this process does for a short task.
//!
//! A child starts with nothing of ours but three standard streams: every other descriptor of this
//! process is close-on-exec, no signal is blocked, and all have their default action, in particular
//! SIGPIPE, which Rust programs ignore.

use crate::vfork;
use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The first descriptor that is no standard stream.
const FIRST: i32 = 3;

/// A program to start.
pub(crate) struct Launch<'a> {
    /// An absolute path.
    pub(crate) program: &'a CStr,
    /// The program's name, then its arguments.
    pub(crate) args: &'a [CString],
    /// All of its environment, as `NAME=value`.
    pub(crate) env: &'a [&'a CStr],
    pub(crate) stdin: Stdin<'a>,
}

/// What a program reads as its standard input.
#[derive(Clone, Copy)]
pub(crate) enum Stdin<'a> {
    /// This, which is [`dev_null`].
    Null(BorrowedFd<'a>),
    /// What is written to a pipe.
    Pipe,
}

/// A child that leads a process group of its own, and our ends of its pipes, which do not block.
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Opens what children without input read.
pub(crate) fn dev_null() -> Result<OwnedFd, Errno> {
    openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

impl Launch<'_> {
    /// Starts the program, and returns when it is loaded.
    pub(crate) fn spawn(&self) -> Result<Spawned, Errno> {
        let (stdin, input) = match self.stdin {
            Stdin::Null(null) => (None, fcntl_dupfd_cloexec(null, FIRST)?),
            Stdin::Pipe => {
                let (reader, writer) = pipe()?;
                (Some(ours(writer)?), theirs(reader)?)
            }
        };
        let (stdout, output) = pipe()?;
        let (stderr, errors) = pipe()?;
        let (output, errors) = (theirs(output)?, theirs(errors)?);
        let (stdout, stderr) = (ours(stdout)?, ours(stderr)?);
        let streams = [input.as_fd(), output.as_fd(), errors.as_fd()];
        let pid = vfork::spawn(self.program, self.args, self.env, streams)?;
        // The child's ends are closed here: only so do the pipes end when the child does.
        Ok(Spawned { pid, stdin, stdout, stderr })
    }
}

/// Makes a pipe: the end to read from and the end to write to.
fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    pipe_with(PipeFlags::CLOEXEC)
}

/// Makes an end that stays here non-blocking. This does not affect the other end.
fn ours(end: OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_setfl(&end, OFlags::NONBLOCK)?;
    Ok(end)
}

/// Moves an end for the child out of the way. If this process has closed a standard stream, the end
/// may have its number, and would be overwritten before it is in its place.
fn theirs(end: OwnedFd) -> Result<OwnedFd, Errno> {
    if end.as_raw_fd() >= FIRST { Ok(end) } else { fcntl_dupfd_cloexec(&end, FIRST) }
}
