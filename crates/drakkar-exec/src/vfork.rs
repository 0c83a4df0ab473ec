//! Loads a program in a child that borrows this process's memory until then, as `vfork` does.
//!
//! It is what `posix_spawn` of the C library does, less what that does anew for each child: it maps a
//! stack for the child and unmaps it, which in a process with many threads interrupts all of them.
//! Here the stack belongs to the calling thread and is used again and again
//! ([decision 012](../../../docs/decisions/012-how-the-child-is-made.md)).
//!
//! While the child borrows the memory, the thread that made it stands still, and no signal can be
//! handled in it: all are blocked, and have their default action when they are let in again.
#![expect(unsafe_code, reason = "a child inside our memory is more than safe code can express")]

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// Many times what the child needs: a handful of frames that call the kernel.
const STACK_BYTES: usize = 64 * 1024;

/// The alignment of a stack that every architecture is content with.
const STACK_ALIGN: usize = 16;

/// What a child exits with that could not load its program. Nobody gets to see it.
const NOT_LOADED: c_int = 127;

/// The greatest number of a signal.
const SIGNAL_MAX: c_int = 64;

thread_local! {
    /// Where the children of this thread run until their programs are loaded; one at a time.
    static STACK: RefCell<Box<[MaybeUninit<u8>]>> =
        RefCell::new(Box::new_uninit_slice(STACK_BYTES));
}

/// What the child is to do. It lies in the frame of the thread that waits for it.
struct Plan {
    program: *const c_char,
    args: *const *const c_char,
    env: *const *const c_char,
    /// Become the standard streams; none of them is one.
    streams: [c_int; 3],
    /// What went wrong, 0 if nothing.
    error: AtomicI32,
}

/// Starts a program as the leader of a process group of its own, with these standard streams, all
/// signals at their default action and none blocked. Returns when it is loaded.
///
/// # Errors
///
/// Why no process could be made, or why the program could not be loaded into it.
pub(crate) fn spawn(
    program: &CStr,
    args: &[CString],
    env: &[&CStr],
    streams: [BorrowedFd<'_>; 3],
) -> Result<Pid, Errno> {
    let args = pointers(args.iter().map(CString::as_c_str));
    let env = pointers(env.iter().copied());
    let plan = Plan {
        program: program.as_ptr(),
        args: args.as_ptr(),
        env: env.as_ptr(),
        streams: streams.map(|stream| stream.as_raw_fd()),
        error: AtomicI32::new(0),
    };
    let child = STACK.with_borrow_mut(|stack| make_child(&plan, stack))?;
    match plan.error.load(Ordering::Relaxed) {
        0 => Ok(child),
        error => {
            // It has exited already, so this does not wait; if another part of this process was
            // faster, there is nothing left to do.
            while matches!(waitpid(Some(child), WaitOptions::empty()), Err(Errno::INTR)) {}
            Err(Errno::from_raw_os_error(error))
        }
    }
}

/// Returns the list of pointers that ends with none, as the kernel takes it.
fn pointers<'a>(texts: impl ExactSizeIterator<Item = &'a CStr>) -> Vec<*const c_char> {
    texts.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// Makes the child, and waits until it needs `plan` and `stack` no more.
fn make_child(plan: &Plan, stack: &mut [MaybeUninit<u8>]) -> Result<Pid, Errno> {
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top.addr() % STACK_ALIGN);
    let argument: *const Plan = plan;
    let blocked = BlockedSignals::new();
    // SAFETY: the stack grows down from `top`, which is aligned and the end of memory that is ours
    // alone; `run` needs a small part of it. With CLONE_VFORK this thread stands still until the child
    // has loaded its program or exited, so that everything `plan` points to outlives the child's use
    // of it. The child shares our memory (CLONE_VM) and changes nothing in it but its stack,
    // `plan.error`, which is atomic, and this thread's `errno`. No handler of a signal can run in the
    // child: all that can be sent to it are blocked until they have their default action.
    let child = unsafe {
        libc::clone(
            run,
            top.cast::<c_void>(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            argument.cast_mut().cast::<c_void>(),
        )
    };
    // Before anything else calls the C library.
    let error = last_error();
    drop(blocked);
    match child {
        -1 => Err(Errno::from_raw_os_error(error)),
        child => Ok(Pid::from_raw(child).expect("no child has the number 0")),
    }
}

/// The child: everything it calls is safe after a `vfork`, that is, it takes no lock and no memory.
extern "C" fn run(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan of `make_child`, which is there as long as this child needs it, and of
    // which both sides have shared references only.
    let plan = unsafe { &*plan.cast::<Plan>().cast_const() };
    plan.error.store(load(plan), Ordering::Relaxed);
    // SAFETY: it ends this process only, and calls nothing that the parent has registered.
    unsafe { libc::_exit(NOT_LOADED) }
}

/// Sets the process up and loads the program. Returns only if that fails, with the reason.
fn load(plan: &Plan) -> c_int {
    // SAFETY: all zeros is a valid value: the default action, no flags, an empty mask.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: `default` is valid, and the old action is not asked for. Signals whose action cannot
        // be changed have the default one.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    }
    // SAFETY: these take numbers only.
    let done = unsafe { libc::setpgid(0, 0) };
    if done == -1 {
        return last_error();
    }
    for (number, stream) in (0..).zip(plan.streams) {
        // SAFETY: as above.
        if unsafe { libc::dup2(stream, number) } == -1 {
            return last_error();
        }
    }
    set_mask(&no_signals());
    // SAFETY: the three are what `execve` wants: a text that ends with NUL, and two lists of such
    // texts that end with a null pointer.
    unsafe { libc::execve(plan.program, plan.args, plan.env) };
    last_error()
}

/// All signals are blocked for this thread until it is dropped.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        let mut all = no_signals();
        // SAFETY: it is a valid set.
        unsafe { libc::sigfillset(&raw mut all) };
        Self { before: set_mask(&all) }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_mask(&self.before);
    }
}

fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call makes the set valid, and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Sets which signals are blocked for this thread, and returns which were.
fn set_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = no_signals();
    // SAFETY: both are valid sets. With this command and these pointers it cannot fail.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, &raw mut before) };
    before
}

fn last_error() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}
