//! How long the hooks of a partition compute before they wait or answer.
//!
//! A hook that computes for microseconds is best called right where its partition is handled; one
//! that computes for long belongs into a task of its own, so that many run on all cores. Which it
//! is, is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Above this average a hook is slow.
const QUICK_NANOS: u64 = 100_000;

/// The most that one measurement counts: a thread that is suspended says nothing about a hook.
const SAMPLE_NANOS_MAX: u64 = 1_000_000;

/// One part of the average that a measurement makes up.
const SHARE: u64 = 8;

/// A moving average of the time that one poll of a hook takes. It starts in good faith.
#[derive(Default)]
pub(crate) struct Pace {
    nanos: AtomicU64,
}

impl Pace {
    /// Returns whether hooks are quick at present.
    pub(crate) fn is_quick(&self) -> bool {
        self.nanos.load(Ordering::Relaxed) < QUICK_NANOS
    }

    /// Takes in how long one poll took.
    pub(crate) fn note(&self, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min(SAMPLE_NANOS_MAX);
        // Two at once may lose one of them, which harms no average.
        let average = self.nanos.load(Ordering::Relaxed);
        self.nanos.store(average - average / SHARE + sample / SHARE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_hooks_are_found_out_and_forgiven() {
        let pace = Pace::default();
        assert!(pace.is_quick());
        pace.note(Duration::from_secs(1));
        pace.note(Duration::from_micros(5));
        assert!(!pace.is_quick(), "one long measurement is enough");
        (0..10).for_each(|_| pace.note(Duration::from_micros(5)));
        assert!(pace.is_quick());
        (0..100).for_each(|_| pace.note(Duration::from_micros(90)));
        assert!(pace.is_quick());
        (0..100).for_each(|_| pace.note(Duration::from_micros(120)));
        assert!(!pace.is_quick());
    }
}
