//! How long is measured, and how often.

use std::time::Duration;

/// The length of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Runs of each side.
    pub(crate) pairs: usize,
    /// From the first sign of work to the beginning of the window.
    pub(crate) warm_up: Duration,
    /// What is measured.
    pub(crate) window: Duration,
    /// How long a worker with nothing to do is left alone before its memory is read.
    pub(crate) idle: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self {
        pairs: 5,
        warm_up: Duration::from_secs(3),
        window: Duration::from_secs(30),
        idle: Duration::from_secs(5),
    };

    pub(crate) const QUICK: Self = Self {
        pairs: 2,
        warm_up: Duration::from_secs(1),
        window: Duration::from_secs(8),
        idle: Duration::from_secs(2),
    };

    /// Messages that last for a run at this rate, with a part more for the start and the end.
    pub(crate) fn messages_at(self, per_second: u64) -> u64 {
        let seconds = (self.warm_up + self.window).as_secs() + 2;
        per_second * seconds
    }
}
