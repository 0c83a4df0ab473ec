//! Keeps what a child writes, up to a limit; what is beyond is read and counted, never kept.
//!
//! A slot owns one [`Capture`] per stream and reuses its memory from child to child: a short output
//! costs one allocation of its own size, a long one gives its buffer away instead of copying it.

use bytes::Bytes;
use drakkar_api::Captured;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;

/// What is read at a time, which is what a pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// An output up to this size is copied, so that the buffer serves the next child too.
const COPY_MAX: usize = 16 * 1024;

/// What was read of one stream.
#[derive(Debug)]
pub(crate) struct Capture {
    kept: Vec<u8>,
    kept_max: usize,
    total: u64,
}

/// Whether a stream can give more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It may: there was something, or nothing yet.
    Open,
    /// Nobody holds the other end any more.
    Closed,
}

impl Capture {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept: Vec::new(), kept_max, total: 0 }
    }

    /// Reads once from a pipe that does not block.
    pub(crate) fn read(&mut self, pipe: BorrowedFd<'_>) -> Flow {
        self.make_room();
        match rustix::io::read(pipe, spare_capacity(&mut self.kept)) {
            Ok(0) => Flow::Closed,
            Ok(count) => {
                self.total += count as u64;
                self.kept.truncate(self.kept_max);
                Flow::Open
            }
            Err(Errno::AGAIN | Errno::INTR) => Flow::Open,
            // A pipe has no other error; if there were one, there would be nothing more to read.
            Err(_) => Flow::Closed,
        }
    }

    /// Reads what a pipe holds at this moment, but no more than a pipe can hold: whoever keeps
    /// writing shall not keep us reading.
    pub(crate) fn sweep(&mut self, pipe: BorrowedFd<'_>) {
        const PIPE_MAX: u64 = 1024 * 1024;
        let before = self.total;
        loop {
            let seen = self.total;
            let flow = self.read(pipe);
            if flow == Flow::Closed || self.total == seen || self.total - before >= PIPE_MAX {
                return;
            }
        }
    }

    /// Returns the limit if there was more than that.
    pub(crate) fn limit_passed(&self) -> Option<u64> {
        let kept_max = self.kept_max as u64;
        (self.total > kept_max).then_some(kept_max)
    }

    /// Hands out what was kept and starts anew.
    pub(crate) fn take(&mut self) -> Captured {
        let total_bytes = std::mem::take(&mut self.total);
        let bytes = match self.kept.len() {
            0 => Bytes::new(),
            1..=COPY_MAX => Bytes::copy_from_slice(&self.kept),
            _ => {
                let mut kept = std::mem::take(&mut self.kept);
                kept.shrink_to_fit();
                Bytes::from(kept)
            }
        };
        self.kept.clear();
        Captured { bytes, total_bytes }
    }

    /// Makes room for a good part of a chunk, growing by doubling up to one chunk beyond the limit.
    /// The chunk beyond it is where the surplus is read to.
    fn make_room(&mut self) {
        let len = self.kept.len();
        if self.kept.capacity() - len < CHUNK / 4 {
            self.kept.reserve_exact(len.min(self.kept_max - len).max(CHUNK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::{AsFd, OwnedFd};

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe can be made")
    }

    /// Writes `chunks` of these sizes, reading each before the next, and returns what was captured.
    fn capture(capture: &mut Capture, chunks: &[usize]) -> Captured {
        let (reader, writer) = pipe();
        for size in chunks {
            let written = rustix::io::write(&writer, &vec![b'x'; *size]);
            assert_eq!(written, Ok(*size));
            capture.sweep(reader.as_fd());
        }
        drop(writer);
        assert_eq!(capture.read(reader.as_fd()), Flow::Closed);
        capture.take()
    }

    #[test]
    fn keeps_the_first_bytes_and_counts_all() {
        let check = |kept_max: usize, chunks: &[usize]| {
            let mut subject = Capture::new(kept_max);
            for _ in 0..2 {
                let captured = capture(&mut subject, chunks);
                let total: usize = chunks.iter().sum();
                assert_eq!(subject.limit_passed(), None, "it starts anew");
                assert_eq!(captured.total_bytes, total as u64);
                assert_eq!(captured.bytes.len(), total.min(kept_max));
                assert_eq!(captured.is_truncated(), total > kept_max);
            }
        };
        check(100, &[]);
        check(100, &[100]);
        check(100, &[60, 60, 60]);
        check(0, &[10]);
        check(1 << 20, &[65_536; 20]);
        check(100_000, &[65_536; 3]);
    }

    #[test]
    fn memory_stays_near_the_limit() {
        let mut subject = Capture::new(300_000);
        let (reader, writer) = pipe();
        for _ in 0..50 {
            rustix::io::write(&writer, &vec![b'x'; CHUNK]).expect("the pipe is empty");
            subject.read(reader.as_fd());
        }
        assert!(subject.kept.capacity() <= 300_000 + CHUNK, "{}", subject.kept.capacity());
    }

    #[test]
    fn a_long_output_does_not_stay_in_the_slot() {
        let mut subject = Capture::new(1 << 20);
        assert_eq!(capture(&mut subject, &[65_536; 4]).bytes.len(), 262_144);
        assert_eq!(subject.kept.capacity(), 0);
        assert_eq!(capture(&mut subject, &[10]).bytes.len(), 10);
        assert_eq!(subject.kept.capacity(), CHUNK);
    }

    #[test]
    fn a_sweep_takes_what_is_there_and_does_not_wait() {
        let (reader, writer) = pipe();
        let mut subject = Capture::new(100);
        subject.sweep(reader.as_fd());
        rustix::io::write(&writer, &[b'x'; 5_000]).expect("the pipe is empty");
        subject.sweep(reader.as_fd());
        assert_eq!(subject.limit_passed(), Some(100));
        let captured = subject.take();
        assert_eq!((captured.bytes.len(), captured.total_bytes), (100, 5_000));
    }

    #[test]
    fn a_limit_is_passed_by_what_is_beyond_it() {
        let check = |kept_max, size, expect| {
            let (reader, writer) = pipe();
            rustix::io::write(&writer, &vec![b'x'; size]).expect("the pipe is empty");
            let mut subject = Capture::new(kept_max);
            subject.sweep(reader.as_fd());
            assert_eq!(subject.limit_passed(), expect);
        };
        check(100, 100, None);
        check(100, 101, Some(100));
        check(0, 0, None);
        check(0, 1, Some(0));
    }
}
