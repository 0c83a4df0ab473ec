//! Shows how far the worker is: a bar on a terminal, a plain line now and then elsewhere.
//!
//! An observer like any other: this is how a user's own program watches a pipeline.

use drakkar::prelude::*;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counts what happens and shows it.
pub(crate) struct Progress {
    messages: u64,
    started: Instant,
    terminal: bool,
    pub(crate) consumed: AtomicU64,
    pub(crate) tasks: AtomicU64,
    pub(crate) delivered_kafka: AtomicU64,
    pub(crate) delivered_files: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    finished: AtomicU64,
    moved: tokio::sync::Notify,
    stalled: AtomicBool,
}

impl Progress {
    /// Starts at nothing.
    pub(crate) fn new(messages: u64) -> Self {
        Self {
            messages,
            started: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
            consumed: AtomicU64::new(0),
            tasks: AtomicU64::new(0),
            delivered_kafka: AtomicU64::new(0),
            delivered_files: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            moved: tokio::sync::Notify::new(),
            stalled: AtomicBool::new(false),
        }
    }

    /// Waits until every message is finished, or until none was for as long as `patience`: a message
    /// that is held would otherwise be waited for without end.
    pub(crate) async fn finished(&self, patience: Duration) {
        while self.finished.load(Relaxed) < self.messages {
            if tokio::time::timeout(patience, self.moved.notified()).await.is_err() {
                return self.stalled.store(true, Relaxed);
            }
        }
    }

    /// Says whether the wait ended before every message was finished.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn on_finished(&self) {
        let finished = self.finished.fetch_add(1, Relaxed) + 1;
        let step = (self.messages / if self.terminal { 100 } else { 10 }).max(1);
        if finished.is_multiple_of(step) || finished == self.messages {
            self.show(finished);
        }
        self.moved.notify_one();
    }

    fn show(&self, finished: u64) {
        let seconds = self.elapsed().as_secs_f64();
        let total = self.messages;
        if !self.terminal {
            return say(&format!("{finished}/{total} messages after {seconds:.1} s"));
        }
        let filled = usize::try_from(finished * 40 / total).unwrap_or(40);
        let (full, empty) = ("=".repeat(filled), " ".repeat(40 - filled));
        let end = if finished == total { "\n" } else { "" };
        let mut out = std::io::stdout().lock();
        // A terminal that is gone is no reason to stop the work.
        write!(out, "\r[{full}{empty}] {finished}/{total} {seconds:.1} s{end}").ok();
        out.flush().ok();
    }
}

impl Observer for Progress {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Consumed { messages, .. } => {
                self.consumed.fetch_add(*messages as u64, Relaxed);
            }
            Event::TaskFinished { execution, .. } if execution.pid.is_some() => {
                self.tasks.fetch_add(1, Relaxed);
            }
            Event::Delivered { sink, payloads, .. } => {
                let counter = match sink.kind() {
                    SinkKind::Kafka => &self.delivered_kafka,
                    _ => &self.delivered_files,
                };
                counter.fetch_add(*payloads as u64, Relaxed);
            }
            Event::DeadLettered { .. } => {
                self.dead_lettered.fetch_add(1, Relaxed);
            }
            Event::MessageFinished { .. } => self.on_finished(),
            _ => {}
        }
    }
}

/// Writes a line to standard output.
pub(crate) fn say(line: &str) {
    // A closed pipe is no reason to stop the work.
    writeln!(std::io::stdout().lock(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wait_ends_when_every_message_is_finished() {
        let progress = Progress::new(2);
        progress.on_finished();
        progress.on_finished();
        progress.finished(Duration::from_secs(30)).await;
        assert!(!progress.has_stalled());
    }

    #[tokio::test]
    async fn a_message_that_is_held_is_not_waited_for_without_end() {
        let progress = Progress::new(2);
        progress.on_finished();
        progress.finished(Duration::from_millis(1)).await;
        assert!(progress.has_stalled());
    }
}
