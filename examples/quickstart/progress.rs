//! Shows how far the worker is: a bar on a terminal, a plain line now and then elsewhere.
//!
//! An observer like any other: this is how a user's own program watches a pipeline.

use drakkar::prelude::*;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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
    done: tokio::sync::Notify,
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
            done: tokio::sync::Notify::new(),
        }
    }

    /// Waits until every message is finished.
    pub(crate) fn finished(&self) -> impl Future<Output = ()> + '_ {
        self.done.notified()
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
        if finished == self.messages {
            self.done.notify_one();
        }
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
