//! Limits how often a line of one name is written.

use drakkar_api::Instant;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many lines of one name are written in one period.
const LINES_MAX: u64 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// Lets the first [`LINES_MAX`] lines of each name and second through and counts the others.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    periods: Mutex<BTreeMap<&'static str, Period>>,
}

#[derive(Clone, Copy, Debug)]
struct Period {
    start: Instant,
    lines: u64,
    suppressed: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is written, with the number of those left out before it, if any.
    Write(Option<u64>),
    /// It is left out and counted.
    Suppress,
}

impl Limiter {
    /// Decides about one line.
    pub(super) fn admit(&self, name: &'static str, now: Instant) -> Admission {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Period { start: now, lines: 0, suppressed: 0 };
        let period = periods.entry(name).or_insert(fresh);
        let mut before = None;
        if now - period.start >= PERIOD {
            before = Some(period.suppressed).filter(|suppressed| *suppressed > 0);
            *period = fresh;
        }
        if period.lines >= LINES_MAX {
            period.suppressed += 1;
            return Admission::Suppress;
        }
        period.lines += 1;
        Admission::Write(before)
    }

    /// Answers what was left out of names that have been quiet since, once.
    pub(super) fn settle(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut periods = self.periods.lock().unwrap_or_else(PoisonError::into_inner);
        let over = periods
            .iter_mut()
            .filter(|(_, period)| period.suppressed > 0 && now - period.start >= PERIOD);
        over.map(|(name, period)| (*name, std::mem::take(&mut period.suppressed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limiter = Limiter::default();
        let written = (0..25).filter(|_| limiter.admit("a", at(5)) != Admission::Suppress).count();
        assert_eq!(written, 10);
        assert_eq!(limiter.admit("b", at(5)), Admission::Write(None));
        assert_eq!(limiter.settle(at(900)), []);
        assert_eq!(limiter.admit("a", at(1005)), Admission::Write(Some(15)));
        assert_eq!(limiter.settle(at(3000)), []);
    }

    #[test]
    fn the_end_of_a_flood_is_told() {
        let limiter = Limiter::default();
        (0..12).for_each(|_| {
            limiter.admit("a", at(0));
        });
        assert_eq!(limiter.settle(at(1000)), [("a", 2)]);
        assert_eq!(limiter.settle(at(2000)), []);
        assert_eq!(limiter.admit("a", at(2000)), Admission::Write(None));
    }
}
