//! Starts programs, by `posix_spawn` and nothing else.
//!
//! The child of `posix_spawn` borrows this process's memory until its program is loaded, instead of
//! copying the page tables of a worker that may be gigabytes large. The standard library's `Command`
//! takes this way too, but leaves it for a fork without a word when one of several settings is
//! used; and it builds the environment anew for each child, which here cost a third of all that
//! this process does for a short task. So the call is made directly.
//!
//! A child starts with nothing of ours but three standard streams: every other descriptor of this
//! process is close-on-exec, no signal is blocked, and all have their default action, in particular
//! SIGPIPE, which Rust programs ignore.

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
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
        let pid = self.call([input.as_fd(), output.as_fd(), errors.as_fd()])?;
        // The child's ends are closed here: only so do the pipes end when the child does.
        Ok(Spawned { pid, stdin, stdout, stderr })
    }

    fn call(&self, streams: [BorrowedFd<'_>; 3]) -> Result<Pid, Errno> {
        let spawned = attributes().and_then(|attributes| {
            let actions = actions(streams)?;
            posix_spawn(self.program, &actions, &attributes, self.args, self.env)
        });
        let pid = spawned.map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        Ok(Pid::from_raw(pid.as_raw()).expect("no child has the number 0"))
    }
}

/// What becomes of the descriptors: these become the standard streams.
fn actions(streams: [BorrowedFd<'_>; 3]) -> nix::Result<PosixSpawnFileActions> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (number, stream) in (0..).zip(streams) {
        actions.add_dup2(stream.as_raw_fd(), number)?;
    }
    Ok(actions)
}

/// A process group of its own and no trace of our signal handling.
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    Ok(attributes)
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
