//! The book in which everything that is seen is entered, in order, and judged at once.

use crate::census::Census;
use crate::judge::Judge;
use crate::promise::Breach;
use crate::scenario::Scenario;
use crate::seen::{Number, Seen};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many entries are kept for the report of a failure, where nobody asked for all.
const KEPT_MAX: usize = 60;

/// Which worker, of all that ever began.
pub(crate) type WorkerNumber = u32;

/// How much of the book is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The last entries.
    Tail,
    /// All, with the engine's events in full.
    All,
}

/// The book. Clones are the same book.
#[derive(Clone)]
pub(crate) struct Journal {
    book: Arc<Mutex<Book>>,
    keep: Keep,
    began: Instant,
}

struct Book {
    judge: Judge,
    entries: VecDeque<(Duration, WorkerNumber, Seen)>,
    numbers: Number,
}

impl Journal {
    /// Opens a book at this moment of tokio's time.
    pub(crate) fn new(scenario: &Scenario, keep: Keep) -> Self {
        let book = Book { judge: Judge::new(scenario), entries: VecDeque::new(), numbers: 0 };
        Self { book: Arc::new(Mutex::new(book)), keep, began: Instant::now() }
    }

    /// Enters what was seen of a worker, and lets the judge look at it.
    pub(crate) fn see(&self, worker: WorkerNumber, seen: Seen) {
        let at = self.began.elapsed();
        let mut book = self.lock();
        if book.judge.breach().is_some() && self.keep == Keep::Tail {
            // What follows a broken promise is of no interest and would push out what led to it.
            return;
        }
        if !book.judge.hears(worker) {
            return;
        }
        if self.keep == Keep::Tail && book.entries.len() == KEPT_MAX {
            book.entries.pop_front();
        }
        book.entries.push_back((at, worker, seen.clone()));
        // What is kept for the reader alone must not change when the judge looks.
        if !matches!(seen, Seen::ToldInFull(_)) {
            book.judge.hear(at, worker, &seen);
        }
    }

    /// Draws a number that nothing else in this world has.
    pub(crate) fn number(&self) -> Number {
        let mut book = self.lock();
        book.numbers += 1;
        book.numbers
    }

    /// Returns whether the engine's events are to be entered in full.
    pub(crate) fn keeps_all(&self) -> bool {
        self.keep == Keep::All
    }

    /// Notes a broken promise that was seen elsewhere.
    pub(crate) fn accuse(&self, breach: Breach) {
        self.lock().judge.accuse(breach);
    }

    /// Returns the first promise that was broken.
    pub(crate) fn breach(&self) -> Option<Breach> {
        self.lock().judge.breach().cloned()
    }

    /// Asks the judge something.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&mut Judge) -> T) -> T {
        question(&mut self.lock().judge)
    }

    /// Returns how often each situation has occurred.
    pub(crate) fn census(&self) -> Census {
        self.lock().judge.census().clone()
    }

    /// Writes the entries that were kept, one a line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(at, worker, seen): &(Duration, WorkerNumber, Seen)| {
            let mut line = String::new();
            let text = format!("{seen:?}");
            write!(line, "{:>11.6} w{worker} {text}", at.as_secs_f64())
                .expect("a string takes all");
            line
        };
        self.lock().entries.iter().map(line).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
