//! The queue between those who log and the thread that writes.

use super::output::LineSink;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    bytes: usize,
    /// Whether the output is to be opened anew before anything more is written.
    reopen: bool,
    writing: bool,
    closed: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.reopen
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
        let fits = state.lines.len() < self.shared.lines_max
            && state.bytes.saturating_add(line.len()) <= self.shared.bytes_max;
        if !fits {
            DROPPED.fetch_add(1, Relaxed);
            return;
        }
        state.bytes += line.len();
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
        let lines = std::mem::take(&mut state.lines);
        let reopen = std::mem::take(&mut state.reopen);
        state.bytes = 0;
        state.writing = true;
        drop(state);
        if reopen {
            reopen_output(&mut sink);
        }
        write_batch(&mut sink, &lines);
        state = shared.lock();
        state.writing = false;
        shared.changed.notify_all();
    }
}

/// Opens the output anew, and tells so in a line that is the next one to be written.
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
fn write_batch(sink: &mut LineSink, lines: &VecDeque<String>) {
    let text: String = lines.iter().map(String::as_str).collect();
    if sink.write_all(text.as_bytes()).and_then(|()| sink.flush()).is_err() {
        DROPPED.fetch_add(lines.len() as u64, Relaxed);
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
        let (permit, permits) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Box::new(Slow { permits, written: Arc::clone(&written) });
        let queue = LineQueue::start(sink, 2, 10).expect("a thread");
        let before = dropped_lines();
        queue.push("a\n".to_owned());
        // The writer takes what is queued and then waits for its permit.
        while queue.shared.lock().bytes > 0 {
            std::thread::yield_now();
        }
        queue.push("b\n".to_owned());
        queue.push("too long for the rest\n".to_owned());
        queue.push("c\n".to_owned());
        queue.push("one too many\n".to_owned());
        assert_eq!(dropped_lines() - before, 2);
        queue.flush(Duration::from_millis(5));
        assert!(written.lock().expect("no panic").is_empty(), "a flush has a deadline");
        permit.send(()).expect("the writer listens");
        permit.send(()).expect("the writer listens");
        queue.flush(Duration::from_secs(10));
        assert_eq!(*written.lock().expect("no panic"), b"a\nb\nc\n");
    }
}
