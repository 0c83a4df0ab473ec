//! How long the hooks of a partition compute before they wait or answer.
//!
//! A hook that computes for microseconds is best called right where its partition is handled; one
//! that computes for long belongs into a task of its own, so that many run on all cores. Which it
//! is, is measured. One that blocks its thread belongs there all the more: meanwhile nobody attends
//! to its partition.

use drakkar_api::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Above this average a hook is slow.
const QUICK_NANOS: u64 = 100_000;

/// The most that one measurement counts: a thread that is suspended says nothing about a hook.
const SAMPLE_NANOS_MAX: u64 = 1_000_000;

/// One part of the average that a measurement makes up.
const SHARE: u64 = 8;

/// From here on one poll is not slow, but blocked: the hook waits for something without saying so.
const BLOCKED: Duration = Duration::from_millis(50);

/// How long hooks count as slow after one that was blocked.
const BLOCKED_FOR: Duration = Duration::from_secs(60);

/// A moving average of the time that one poll of a hook takes. It starts in good faith.
#[derive(Default)]
pub(crate) struct Pace {
    nanos: AtomicU64,
    /// Nanoseconds since the clock's origin until which hooks are slow, whatever the average says.
    slow_until: AtomicU64,
}

impl Pace {
    /// Returns whether hooks are quick at present.
    pub(crate) fn is_quick(&self, now: Instant) -> bool {
        self.nanos.load(Ordering::Relaxed) < QUICK_NANOS
            && nanos(now.since_origin()) >= self.slow_until.load(Ordering::Relaxed)
    }

    /// Takes in one poll.
    pub(crate) fn note(&self, began: Instant, now: Instant) {
        let took = now - began;
        if took >= BLOCKED {
            self.slow_until.store(nanos((now + BLOCKED_FOR).since_origin()), Ordering::Relaxed);
        }
        let sample = nanos(took).min(SAMPLE_NANOS_MAX);
        // Two at once may lose one of them, which harms no average.
        let average = self.nanos.load(Ordering::Relaxed);
        self.nanos.store(average - average / SHARE + sample / SHARE, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ORIGIN;

    fn note(pace: &Pace, took: Duration) {
        pace.note(NOW, NOW + took);
    }

    #[test]
    fn slow_hooks_are_found_out_and_forgiven() {
        let pace = Pace::default();
        assert!(pace.is_quick(NOW));
        note(&pace, BLOCKED - Duration::from_nanos(1));
        note(&pace, Duration::from_micros(5));
        assert!(!pace.is_quick(NOW), "one long measurement is enough");
        (0..10).for_each(|_| note(&pace, Duration::from_micros(5)));
        assert!(pace.is_quick(NOW));
        (0..100).for_each(|_| note(&pace, Duration::from_micros(90)));
        assert!(pace.is_quick(NOW));
        (0..100).for_each(|_| note(&pace, Duration::from_micros(120)));
        assert!(!pace.is_quick(NOW));
    }

    #[test]
    fn a_hook_that_blocked_is_not_forgiven_for_a_minute() {
        let pace = Pace::default();
        let blocked = NOW + BLOCKED;
        pace.note(NOW, blocked);
        (0..100).for_each(|_| pace.note(blocked, blocked + Duration::from_micros(5)));
        assert!(!pace.is_quick(blocked + Duration::from_secs(59)));
        assert!(pace.is_quick(blocked + Duration::from_secs(60)));
    }
}
