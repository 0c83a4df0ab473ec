//! How a slot's thread is told to cancel its run while it waits for a child.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that can be waited for together with pipes.
///
/// The flag is the truth; the descriptor only ends a `poll`.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    wake: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { rung: AtomicBool::new(false), wake })
    }

    /// Rings until [`reset`](Bell::reset). Never blocks.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        // It fails only when the counter is full, and then it wakes already.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Returns what becomes readable when the bell rings.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Makes it unreadable until the next ring; the flag stays.
    pub(crate) fn hush(&self) {
        // It fails only when there is nothing to read.
        rustix::io::read(&self.wake, &mut [0_u8; 8]).ok();
    }

    /// Prepares for the next run. Whoever rings must know that no run changed meanwhile, which the
    /// pool's lock sees to.
    pub(crate) fn reset(&self) {
        if self.rung.swap(false, Ordering::AcqRel) {
            self.hush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn wakes(bell: &Bell) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(bell.wake(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
    }

    #[test]
    fn rings_until_reset() {
        let bell = Bell::new().expect("a descriptor is free");
        assert!(!bell.is_rung() && !wakes(&bell));
        bell.ring();
        bell.ring();
        assert!(bell.is_rung() && wakes(&bell));
        bell.hush();
        assert!(bell.is_rung() && !wakes(&bell));
        bell.ring();
        bell.reset();
        assert!(!bell.is_rung() && !wakes(&bell));
    }
}
