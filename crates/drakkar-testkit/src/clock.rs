//! Clocks for tests: one that the test moves, one that follows tokio's time.

use crate::violations::lock;
use drakkar_api::{Clock, Instant, Timestamp};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where the wall clock of tests starts: 2026-01-01T00:00:00Z.
const WALL_ORIGIN: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A clock that stands still until it is told to move. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    since_origin: Arc<Mutex<Duration>>,
    wall_origin: Timestamp,
}

impl ManualClock {
    /// Makes a clock at its origin; its wall time is 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self::starting_at(WALL_ORIGIN)
    }

    /// Makes a clock at its origin with this wall time.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { since_origin: Arc::default(), wall_origin: wall }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut since_origin = lock(&self.since_origin);
        *since_origin = since_origin.saturating_add(by);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_origin(*lock(&self.since_origin))
    }

    fn wall(&self) -> Timestamp {
        later(self.wall_origin, *lock(&self.since_origin))
    }
}

/// A clock that follows tokio's time, which a test can pause.
///
/// Its wall time starts at 2026-01-01T00:00:00Z and moves with the monotonic time, so that two runs
/// of a paused test see the same timestamps.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    wall_origin: Timestamp,
}

impl TokioClock {
    /// Makes a clock whose origin is the present moment.
    pub fn new() -> Self {
        Self::starting_at(WALL_ORIGIN)
    }

    /// Makes a clock whose origin is the present moment, called `wall`.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { origin: tokio::time::Instant::now(), wall_origin: wall }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant::from_origin(self.origin.elapsed())
    }

    fn wall(&self) -> Timestamp {
        later(self.wall_origin, self.origin.elapsed())
    }
}

fn later(origin: Timestamp, by: Duration) -> Timestamp {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(origin.millis().saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let other = clock.clone();
        assert_eq!(clock.now(), Instant::ORIGIN);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(other.now() - Instant::ORIGIN, Duration::from_millis(1500));
        assert_eq!(other.wall().to_rfc3339(), "2026-01-01T00:00:01.500Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tokio_clock_follows_paused_time() {
        let clock = TokioClock::new();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(clock.now() - Instant::ORIGIN, Duration::from_secs(60));
        assert_eq!(clock.wall().to_rfc3339(), "2026-01-01T00:01:00.000Z");
    }
}
