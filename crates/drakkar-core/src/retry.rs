//! How long to wait before the next attempt: exponential, capped, with jitter from a seed.

use drakkar_api::Problems;
use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait before the second attempt, before jitter.
    pub initial: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
}

impl Backoff {
    /// Takes the waits of the section at `path`, in milliseconds; a contradiction is noted.
    pub(crate) fn checked(
        path: &str,
        initial_ms: u64,
        max_ms: u64,
        problems: &mut Problems,
    ) -> Self {
        if initial_ms > max_ms {
            problems.push(
                format!("{path}.initial_backoff_ms"),
                format!("must not exceed max_backoff_ms, found {initial_ms} and {max_ms}"),
            );
        }
        Self { initial: Duration::from_millis(initial_ms), max: Duration::from_millis(max_ms) }
    }

    /// Returns the wait after `attempt` attempts (from 1): it doubles each time up to the cap, and
    /// jitter takes away up to half of it.
    pub(crate) fn after(&self, attempt: u32, jitter: &mut Jitter) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.initial.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(1.0 - jitter.fraction() / 2.0)
    }
}

/// A small deterministic source of numbers (the splitmix64 generator), so that a simulation with
/// the same seed waits the same.
#[derive(Clone, Debug)]
pub(crate) struct Jitter {
    state: u64,
}

impl Jitter {
    /// Starts from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns the next number in `0.0..1.0`.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // 53 bits are what a double holds exactly.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_only_shortens() {
        let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
        let mut jitter = Jitter::new(7);
        for (attempt, full) in [(1, 100), (2, 200), (3, 400), (5, 1000), (4_000_000_000, 1000)] {
            let wait = backoff.after(attempt, &mut jitter);
            let full = Duration::from_millis(full);
            assert!(
                wait > full / 2 - Duration::from_nanos(1) && wait <= full,
                "{attempt}: {wait:?}"
            );
        }
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            [jitter.fraction(), jitter.fraction()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
