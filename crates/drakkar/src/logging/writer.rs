//! The queue between those who log and the thread that writes.

use super::output::LineSink;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many bytes are written at a time. A longer line is written by itself.
const PIECE_BYTES_MAX: usize = 64 * 1024;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines of this process were lost.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.load(Relaxed)
}

/// A bounded queue of lines with a thread that writes them.
///
/// The thread ends when the queue is dropped and everything is written.
#[derive(Debug)]
pub(super) struct LineQueue {
    shared: Arc<Shared>,
}

impl Drop for LineQueue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is something to write, and when everything is written.
    changed: Condvar,
    lines_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// What the bounds are for: the lines that wait and those that are being written.
    held: Held,
    /// Whether the output is to be opened anew before anything more is written.
    reopen: bool,
    writing: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    lines: usize,
    /// The memory of the lines, not only their text.
    bytes: usize,
}

impl State {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.reopen
    }

    /// Takes the lines that are to be written next. They stay held until they are given back.
    fn take_piece(&mut self) -> Vec<String> {
        let ends = self.lines.iter().scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        });
        let fitting = ends.take_while(|end| *end <= PIECE_BYTES_MAX).count();
        let count = fitting.max(1).min(self.lines.len());
        self.lines.drain(..count).collect()
    }
}

impl Held {
    fn of(lines: &[String]) -> Self {
        Self { lines: lines.len(), bytes: lines.iter().map(String::capacity).sum() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LineQueue {
    /// Starts the thread.
    pub(super) fn start(
        sink: LineSink,
        lines_max: usize,
        bytes_max: usize,
    ) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            lines_max,
            bytes_max,
        });
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("drakkar-log".to_owned())
            .spawn(move || write_lines(&writer, sink))?;
        Ok(Arc::new(Self { shared }))
    }

    /// Queues a line, which ends with a line feed, or drops and counts it. Never waits for the
    /// output.
    pub(super) fn push(&self, line: String) {
        let mut state = self.shared.lock();
        let fits = state.held.lines < self.shared.lines_max
            && state.held.bytes.saturating_add(line.capacity()) <= self.shared.bytes_max;
        if !fits {
            DROPPED.fetch_add(1, Relaxed);
            return;
        }
        state.held.lines += 1;
        state.held.bytes += line.capacity();
        state.lines.push_back(line);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Has the output opened anew, without waiting for it.
    pub(super) fn reopen(&self) {
        self.shared.lock().reopen = true;
        self.shared.changed.notify_all();
    }

    /// Waits until everything is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let state = self.shared.lock();
        let is_busy = |state: &mut State| state.writing || !state.is_idle();
        // The deadline may pass: then the rest is written later, or lost at exit.
        drop(self.shared.changed.wait_timeout_while(state, limit, is_busy));
    }
}

fn write_lines(shared: &Shared, mut sink: LineSink) {
    let mut state = shared.lock();
    loop {
        while state.is_idle() && !state.closed {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_idle() {
            return;
        }
        let piece = state.take_piece();
        let taken = Held::of(&piece);
        let reopen = std::mem::take(&mut state.reopen);
        state.writing = true;
        drop(state);
        if reopen {
            reopen_output(&mut sink);
        }
        write_piece(&mut sink, piece);
        state = shared.lock();
        state.held.lines -= taken.lines;
        state.held.bytes -= taken.bytes;
        state.writing = false;
        shared.changed.notify_all();
    }
}

/// Opens the output anew, and tells so in a line, which waits behind those that are there already.
fn reopen_output(sink: &mut LineSink) {
    match sink.reopen() {
        Ok(()) => tracing::info!(category = "lifecycle", "log_reopened"),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(category = "lifecycle", error, "log_reopen_failed");
        }
    }
}

/// Writes lines in one go; if that fails, they count as lost, for there is nobody to tell.
fn write_piece(sink: &mut LineSink, lines: Vec<String>) {
    let count = lines.len() as u64;
    // The first line grows by the others, and each of these is freed as soon as it is copied.
    let text: String = lines.into_iter().collect();
    if sink.write_all(text.as_bytes()).and_then(|()| sink.flush()).is_err() {
        DROPPED.fetch_add(count, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::LogError;
    use crate::logging::output::LineOutput;
    use std::io::Write;
    use std::sync::mpsc;

    /// An output that waits for permission before each write.
    struct Slow {
        permits: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.permits.recv().map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            self.written.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl LineOutput for Slow {
        fn reopen(&mut self) -> Result<(), LogError> {
            self.written.lock().expect("no panic").extend_from_slice(b"reopened\n");
            Ok(())
        }
    }

    #[test]
    fn an_output_is_opened_anew_by_its_writer() {
        let (permit, permits) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Slow { permits, written: Arc::clone(&written) });
        let queue = LineQueue::start(sink, 2, 10).expect("a thread");
        queue.reopen();
        queue.flush(Duration::from_secs(10));
        assert_eq!(*written.lock().expect("no panic"), b"reopened\n", "nothing else is needed");
        permit.send(()).expect("the writer listens");
        queue.push("a\n".to_owned());
        queue.flush(Duration::from_secs(10));
        assert_eq!(*written.lock().expect("no panic"), b"reopened\na\n", "and only once");
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted() {
        // Ten lines of ten bytes are held, whichever bound is met.
        for (lines_max, bytes_max) in [(10, 1000), (1000, 100), (1000, 109)] {
            let (permit, permits) = mpsc::channel();
            let written = Arc::new(Mutex::new(Vec::new()));
            let sink = Box::new(Slow { permits, written: Arc::clone(&written) });
            let queue = LineQueue::start(sink, lines_max, bytes_max).expect("a thread");
            let before = dropped_lines();
            let line = |number: usize| format!("{number:09}\n").into_boxed_str().into_string();
            queue.push(line(0));
            // The writer takes what is queued and then waits for its permit.
            while !queue.shared.lock().lines.is_empty() {
                std::thread::yield_now();
            }
            (1..30).for_each(|number| queue.push(line(number)));
            assert_eq!(dropped_lines() - before, 20, "what is being written is held too");
            queue.flush(Duration::from_millis(5));
            assert!(written.lock().expect("no panic").is_empty(), "a flush has a deadline");
            permit.send(()).expect("the writer listens");
            permit.send(()).expect("the writer listens");
            queue.flush(Duration::from_secs(10));
            let kept: String = (0..10).map(line).collect();
            assert_eq!(*written.lock().expect("no panic"), kept.as_bytes());
            let held = queue.shared.lock().held;
            assert_eq!(held, Held::default(), "there is room again");
        }
    }

    /// An output that tells how much each write brought, and writes once it may.
    struct Sizes {
        permit: mpsc::Receiver<()>,
        sizes: Arc<Mutex<Vec<usize>>>,
    }

    impl Write for Sizes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // It waits once: afterwards there is nobody left to send.
            let _is_first = self.permit.recv().is_ok();
            self.sizes.lock().expect("no panic").push(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl LineOutput for Sizes {
        fn reopen(&mut self) -> Result<(), LogError> {
            Ok(())
        }
    }

    #[test]
    fn a_long_queue_is_written_in_pieces() {
        let (permit, permits) = mpsc::channel();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Sizes { permit: permits, sizes: Arc::clone(&sizes) });
        let queue = LineQueue::start(sink, 1000, 1_000_000).expect("a thread");
        queue.push("first\n".to_owned());
        while !queue.shared.lock().lines.is_empty() {
            std::thread::yield_now();
        }
        let kib = "x".repeat(1024);
        (0..100).for_each(|_| queue.push(kib.clone()));
        queue.push("y".repeat(100_000));
        queue.push(kib);
        drop(permit);
        queue.flush(Duration::from_secs(10));
        assert_eq!(*sizes.lock().expect("no panic"), [6, 64 * 1024, 36 * 1024, 100_000, 1024]);
        assert_eq!(queue.shared.lock().held, Held::default());
    }
}
