//! The clock that is compared with the broker's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

/// More than a slewing clock drifts in a run, and less than matters to one.
const DRIFT_MAX: Duration = Duration::from_millis(20);

/// One moment on both clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) unix_micros: i64,
    steady: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { unix_micros: unix_micros(), steady: Instant::now() }
    }

    /// Gives the time since `earlier` on the steady clock. That the wall clock was set in between is
    /// an error: append times before and after would not compare.
    pub(crate) fn since(&self, earlier: &Self) -> Result<Duration> {
        let steady = self.steady - earlier.steady;
        let wall = u64::try_from(self.unix_micros - earlier.unix_micros).unwrap_or(0);
        let drift = Duration::from_micros(wall).abs_diff(steady);
        ensure!(drift <= DRIFT_MAX, "the wall clock was set by {drift:?} during the run");
        Ok(steady)
    }
}

/// Microseconds since 1970.
pub(crate) fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_micros()).expect("it is before the year 290000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_is_noticed() {
        let start = Moment::now();
        let after = |wall_micros, steady_millis| Moment {
            unix_micros: start.unix_micros + wall_micros,
            steady: start.steady + Duration::from_millis(steady_millis),
        };
        let elapsed = after(1_010_000, 1000).since(&start).expect("within the drift");
        assert_eq!(elapsed, Duration::from_secs(1));
        assert!(after(1_050_000, 1000).since(&start).is_err());
        assert!(after(-5_000, 1000).since(&start).is_err());
    }
}
