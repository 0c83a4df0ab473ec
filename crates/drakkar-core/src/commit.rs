//! When to commit: coalesced, one at a time, forced at the end.
//!
//! A pure state machine (promise WM-2). It asks for a commit when [`CommitPolicy::interval`] has
//! passed since the first finished offset that is not committed, or when
//! [`CommitPolicy::offsets_max`] of them have gathered, whichever comes first, and never while one
//! is in flight.

use drakkar_api::{CommitOffset, Instant};
use std::time::Duration;

/// How commits are coalesced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPolicy {
    /// The longest time that a finished offset waits for a commit.
    pub interval: Duration,
    /// How many finished offsets force a commit before that.
    pub offsets_max: usize,
}

impl Default for CommitPolicy {
    /// 500 ms or 300 offsets.
    fn default() -> Self {
        Self { interval: Duration::from_millis(500), offsets_max: 300 }
    }
}

/// The commits of one assignment.
#[derive(Debug)]
pub(crate) struct CommitSchedule {
    policy: CommitPolicy,
    committed: Option<CommitOffset>,
    in_flight: Option<CommitOffset>,
    /// Offsets that finished since the newest commit was asked for, also those that wait for an
    /// earlier one.
    gathered: usize,
    /// When the next commit is due, if there is something to commit.
    due: Option<Instant>,
    forced: bool,
}

impl CommitSchedule {
    /// Starts with nothing committed.
    pub(crate) fn new(policy: CommitPolicy) -> Self {
        Self { policy, committed: None, in_flight: None, gathered: 0, due: None, forced: false }
    }

    /// Hears that one more offset is finished.
    pub(crate) fn finished(&mut self, now: Instant) {
        self.gathered += 1;
        self.due.get_or_insert(now + self.policy.interval);
    }

    /// Makes every further commit due at once: the assignment is ending.
    pub(crate) fn force(&mut self) {
        self.forced = true;
    }

    /// Asks for a commit of `position`, the watermark's. `None` while one is in flight, while
    /// nothing is due, and when there is nothing new.
    pub(crate) fn poll(
        &mut self,
        position: Option<CommitOffset>,
        now: Instant,
    ) -> Option<CommitOffset> {
        let Some(position) = position.filter(|&position| Some(position) > self.committed) else {
            // What finished lies beyond an unfinished offset; that one's end will be heard.
            self.due = None;
            return None;
        };
        let due = self.forced
            || self.gathered >= self.policy.offsets_max
            || self.due.is_some_and(|due| due <= now);
        let due = due || cfg!(drakkar_fault = "commits_not_coalesced");
        if cfg!(drakkar_fault = "commit_forgotten") {
            self.due = None;
            return None;
        }
        if self.in_flight.is_some() && !cfg!(drakkar_fault = "two_commits_in_flight") || !due {
            return None;
        }
        let position = match self.committed {
            Some(committed) if cfg!(drakkar_fault = "commit_goes_back") => {
                CommitOffset::new(committed.get() - 1)
            }
            _ => position,
        };
        self.in_flight = Some(position);
        self.gathered = 0;
        self.due = None;
        Some(position)
    }

    /// Hears that the commit in flight was confirmed.
    pub(crate) fn confirmed(&mut self) {
        self.committed = self.in_flight.take().or(self.committed);
    }

    /// Hears that the commit in flight failed; it is due again after the interval.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.in_flight = None;
        self.forced = false;
        self.due = Some(now + self.policy.interval);
    }

    /// Returns the position that is known to be committed.
    pub(crate) fn committed(&self) -> Option<CommitOffset> {
        self.committed
    }

    /// Returns whether a commit is in flight.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns whether everything below `position` is committed.
    pub(crate) fn is_settled(&self, position: Option<CommitOffset>) -> bool {
        self.in_flight.is_none() && position <= self.committed
    }

    /// Returns when [`poll`](Self::poll) should be asked again, if time alone can make it due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.filter(|_| self.in_flight.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn position(value: i64) -> Option<CommitOffset> {
        Some(CommitOffset::new(value))
    }

    // Promise: WM-2
    #[test]
    fn commits_wait_for_the_interval_or_the_count() {
        let mut schedule = CommitSchedule::new(CommitPolicy::default());
        schedule.finished(at(0));
        assert_eq!(schedule.poll(position(1), at(499)), None);
        assert_eq!(schedule.next_due(), Some(at(500)));
        assert_eq!(schedule.poll(position(1), at(500)), position(1));
        schedule.confirmed();
        for _ in 0..300 {
            schedule.finished(at(501));
        }
        assert_eq!(schedule.poll(position(301), at(501)), position(301));
    }

    // Promise: WM-2
    #[test]
    fn one_commit_is_in_flight_even_when_forced() {
        let mut schedule = CommitSchedule::new(CommitPolicy::default());
        schedule.force();
        schedule.finished(at(0));
        assert_eq!(schedule.poll(position(1), at(0)), position(1));
        schedule.finished(at(1));
        assert_eq!(schedule.poll(position(2), at(1)), None);
        schedule.confirmed();
        assert_eq!(schedule.poll(position(2), at(1)), position(2));
        schedule.confirmed();
        assert!(schedule.is_settled(position(2)));
        assert_eq!(schedule.poll(position(2), at(9999)), None, "nothing new");
    }

    #[test]
    fn offsets_beyond_an_unfinished_one_make_nothing_due() {
        let mut schedule = CommitSchedule::new(CommitPolicy::default());
        schedule.finished(at(0));
        assert_eq!(schedule.poll(None, at(500)), None);
        assert_eq!(schedule.next_due(), None, "or its driver would spin");
        schedule.finished(at(600));
        assert_eq!(schedule.poll(position(2), at(1100)), position(2));
        schedule.confirmed();
        for _ in 0..299 {
            schedule.finished(at(2000));
            assert_eq!(schedule.poll(position(2), at(2000)), None);
        }
        schedule.finished(at(9000));
        assert_eq!(schedule.poll(position(302), at(9000)), position(302), "300 have gathered");
    }

    // Promise: WM-2
    #[test]
    fn a_failed_commit_is_tried_again_with_the_newest_position() {
        let mut schedule = CommitSchedule::new(CommitPolicy::default());
        schedule.finished(at(0));
        assert_eq!(schedule.poll(position(1), at(500)), position(1));
        schedule.failed(at(600));
        assert!(!schedule.is_settled(position(1)));
        assert_eq!(schedule.poll(position(5), at(1099)), None);
        assert_eq!(schedule.poll(position(5), at(1100)), position(5));
    }
}
