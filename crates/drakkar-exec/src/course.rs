//! What to do next with a child process. Pure: the facts and the time come in, a step comes out.
//!
//! ```text
//!            deadline              grace over            ended
//! Running ──────────────> Asked ──────────────> Killed ─────────> Settle
//!    │ ended                │ ended, pipes closed  │ reap timeout
//!    v                      v                      v
//! Draining ────────────> Settle                 Abandon
//!    pipes closed, or drain time over
//! ```
//!
//! Output beyond its limit, where that is a failure, is taken for a deadline that has come; once the
//! leader has ended, it ends the draining. A cancellation leads from every stage straight to
//! `Killed`. Every stage but `Running` has a bound
//! of its own and leads forward only, so that a child occupies a slot for at most
//! `deadline + grace + reap timeout` (or, if its leader ends just in time, `deadline + drain`).

use std::time::{Duration, Instant};

/// The times that bound a child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the start to SIGTERM.
    pub(crate) deadline: Duration,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
    /// From the leader's end to giving up on pipes that others hold open.
    pub(crate) drain: Duration,
    /// From SIGKILL to giving up on a process that does not die.
    pub(crate) reap: Duration,
}

/// What is known about a child at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The leader has ended and can be reaped.
    pub(crate) ended: bool,
    /// Standard output or standard error is still open.
    pub(crate) pipes_open: bool,
    /// It has written more than is kept of it, and that is a failure.
    pub(crate) over_limit: bool,
    /// The run is to be cancelled.
    pub(crate) cancelled: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for news, no longer than this.
    Wait(Instant),
    /// Ask the group to end (SIGTERM), then ask again here.
    Terminate,
    /// Kill the group (SIGKILL), then ask again here.
    Kill,
    /// The leader has ended: kill what is left of the group and reap the leader.
    Settle,
    /// The leader does not even die of SIGKILL: report it and let others reap it later.
    Abandon,
}

/// Why the pool ended a child that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// Its deadline passed.
    Timeout,
    /// It wrote too much.
    OverLimit,
    /// Its run was cancelled.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until the deadline, or too much output.
    Running,
    /// The leader ended by itself; until the drain time is over.
    Draining,
    /// SIGTERM was sent; until the grace is over. The grace belongs to the whole group as long as
    /// it holds the pipes: a shell that dies at once must not cost its child the time to clean up.
    Asked,
    /// SIGKILL was sent; until the reap timeout.
    Killed,
}

/// The life of one child, from its start.
#[derive(Debug)]
pub(crate) struct Course {
    limits: Limits,
    stage: Stage,
    until: Instant,
    forced: Option<Forced>,
}

impl Course {
    pub(crate) fn new(limits: Limits, started: Instant) -> Self {
        let until = after(started, limits.deadline);
        Self { limits, stage: Stage::Running, until, forced: None }
    }

    /// Returns why the pool ended the child, if it did.
    pub(crate) fn forced(&self) -> Option<Forced> {
        self.forced
    }

    /// Returns whether SIGKILL was sent before the leader's end was seen.
    pub(crate) fn was_killed(&self) -> bool {
        self.stage == Stage::Killed
    }

    /// Decides. To be asked again after every step and at every news.
    pub(crate) fn next(&mut self, now: Instant, facts: Facts) -> Step {
        if facts.cancelled && self.forced != Some(Forced::Cancelled) {
            self.forced = Some(Forced::Cancelled);
            if self.stage != Stage::Killed {
                return self.kill(now);
            }
        }
        let in_time = now < self.until;
        // Of a child that has ended there may be more to read, unless that changes nothing.
        let worth_reading = facts.pipes_open && !facts.over_limit;
        match self.stage {
            Stage::Running if facts.ended && worth_reading => {
                self.enter(Stage::Draining, now, self.limits.drain)
            }
            Stage::Running if facts.ended => Step::Settle,
            Stage::Running if facts.over_limit => self.end(now, Forced::OverLimit),
            Stage::Running if in_time => Step::Wait(self.until),
            Stage::Running => self.end(now, Forced::Timeout),
            Stage::Draining if in_time && worth_reading => Step::Wait(self.until),
            Stage::Draining => Step::Settle,
            Stage::Asked if in_time && facts.pipes_open => Step::Wait(self.until),
            Stage::Asked if facts.ended => Step::Settle,
            Stage::Asked if in_time => Step::Wait(self.until),
            Stage::Asked => self.kill(now),
            Stage::Killed if facts.ended => Step::Settle,
            Stage::Killed if in_time => Step::Wait(self.until),
            Stage::Killed => Step::Abandon,
        }
    }

    /// Begins to end it, with grace.
    fn end(&mut self, now: Instant, why: Forced) -> Step {
        self.forced = Some(why);
        if self.limits.grace.is_zero() {
            return self.kill(now);
        }
        self.enter(Stage::Asked, now, self.limits.grace);
        Step::Terminate
    }

    fn kill(&mut self, now: Instant) -> Step {
        self.enter(Stage::Killed, now, self.limits.reap);
        Step::Kill
    }

    fn enter(&mut self, stage: Stage, now: Instant, limit: Duration) -> Step {
        self.stage = stage;
        self.until = after(now, limit);
        Step::Wait(self.until)
    }
}

/// Adds without overflow: a limit beyond what the clock can hold is as good as none.
fn after(start: Instant, limit: Duration) -> Instant {
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    start.checked_add(limit).unwrap_or(start + FOREVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        deadline: Duration::from_secs(100),
        grace: Duration::from_secs(10),
        drain: Duration::from_secs(1),
        reap: Duration::from_secs(5),
    };

    const RUNS: Facts =
        Facts { ended: false, pipes_open: true, over_limit: false, cancelled: false };
    const ENDED: Facts = Facts { ended: true, pipes_open: false, ..RUNS };
    const HELD_OPEN: Facts = Facts { ended: true, ..RUNS };
    const SILENT: Facts = Facts { pipes_open: false, ..RUNS };
    const OVER_LIMIT: Facts = Facts { over_limit: true, ..RUNS };
    const CANCELLED: Facts = Facts { cancelled: true, ..RUNS };

    /// Walks a course through (second, facts) and checks the step at each; a wait is given as the
    /// second until which it lasts.
    fn check(limits: Limits, walk: &[(u64, Facts, Expect)]) -> Course {
        let start = Instant::now();
        let mut course = Course::new(limits, start);
        for (index, (second, facts, expect)) in walk.iter().enumerate() {
            let step = course.next(start + Duration::from_secs(*second), *facts);
            let expect = match expect {
                Expect::Until(second) => Step::Wait(start + Duration::from_secs(*second)),
                Expect::Now(step) => *step,
            };
            assert_eq!(step, expect, "at position {index}");
        }
        course
    }

    enum Expect {
        Until(u64),
        Now(Step),
    }
    use Expect::{Now, Until};

    #[test]
    fn a_child_that_ends_is_settled() {
        let course = check(LIMITS, &[(0, RUNS, Until(100)), (3, ENDED, Now(Step::Settle))]);
        assert_eq!((course.forced(), course.was_killed()), (None, false));
    }

    #[test]
    fn a_child_that_closed_its_output_still_has_a_deadline() {
        check(LIMITS, &[(1, SILENT, Until(100)), (100, SILENT, Now(Step::Terminate))]);
    }

    #[test]
    fn pipes_that_others_hold_open_are_drained_for_a_while() {
        let course = check(
            LIMITS,
            &[
                (3, HELD_OPEN, Until(4)),
                (3, HELD_OPEN, Until(4)),
                (4, HELD_OPEN, Now(Step::Settle)),
            ],
        );
        assert_eq!(course.forced(), None);
    }

    #[test]
    fn a_deaf_child_is_asked_then_killed_then_abandoned() {
        let course = check(
            LIMITS,
            &[
                (99, RUNS, Until(100)),
                (100, RUNS, Now(Step::Terminate)),
                (100, RUNS, Until(110)),
                (110, RUNS, Now(Step::Kill)),
                (110, RUNS, Until(115)),
                (115, RUNS, Now(Step::Abandon)),
            ],
        );
        assert_eq!((course.forced(), course.was_killed()), (Some(Forced::Timeout), true));
    }

    #[test]
    fn a_leader_that_obeys_leaves_its_group_the_rest_of_the_grace() {
        let course = check(
            LIMITS,
            &[
                (100, RUNS, Now(Step::Terminate)),
                (101, HELD_OPEN, Until(110)),
                (104, ENDED, Now(Step::Settle)),
            ],
        );
        assert_eq!((course.forced(), course.was_killed()), (Some(Forced::Timeout), false));
        check(LIMITS, &[(100, RUNS, Now(Step::Terminate)), (110, HELD_OPEN, Now(Step::Settle))]);
    }

    #[test]
    fn without_grace_the_deadline_kills() {
        let limits = Limits { grace: Duration::ZERO, ..LIMITS };
        check(limits, &[(100, RUNS, Now(Step::Kill)), (101, HELD_OPEN, Now(Step::Settle))]);
    }

    #[test]
    fn too_much_output_ends_a_child_as_a_deadline_does() {
        let course = check(
            LIMITS,
            &[
                (3, RUNS, Until(100)),
                (3, OVER_LIMIT, Now(Step::Terminate)),
                (3, OVER_LIMIT, Until(13)),
                (13, OVER_LIMIT, Now(Step::Kill)),
                (14, Facts { over_limit: true, ..ENDED }, Now(Step::Settle)),
            ],
        );
        assert_eq!(course.forced(), Some(Forced::OverLimit));
        // What a timed out child writes while it ends makes no difference.
        let walk = [(100, RUNS, Now(Step::Terminate)), (101, OVER_LIMIT, Until(110))];
        assert_eq!(check(LIMITS, &walk).forced(), Some(Forced::Timeout));
    }

    #[test]
    fn too_much_output_after_the_end_is_not_waited_for() {
        let too_much = Facts { over_limit: true, ..HELD_OPEN };
        assert_eq!(check(LIMITS, &[(3, too_much, Now(Step::Settle))]).forced(), None);
        check(LIMITS, &[(3, HELD_OPEN, Until(4)), (3, too_much, Now(Step::Settle))]);
    }

    #[test]
    fn a_cancellation_kills_at_once_and_once() {
        let kill = Now(Step::Kill);
        check(
            LIMITS,
            &[(5, CANCELLED, kill), (5, CANCELLED, Until(10)), (6, ENDED, Now(Step::Settle))],
        );
        let walk =
            [(3, HELD_OPEN, Until(4)), (3, Facts { cancelled: true, ..ENDED }, Now(Step::Kill))];
        assert_eq!(check(LIMITS, &walk).forced(), Some(Forced::Cancelled));
        let walk = [
            (100, RUNS, Now(Step::Terminate)),
            (110, RUNS, Now(Step::Kill)),
            (111, CANCELLED, Until(115)),
        ];
        assert_eq!(check(LIMITS, &walk).forced(), Some(Forced::Cancelled));
    }

    #[test]
    fn a_limit_beyond_the_clock_is_as_good_as_none() {
        let limits = Limits { deadline: Duration::MAX, ..LIMITS };
        let start = Instant::now();
        let step = Course::new(limits, start).next(start + Duration::from_secs(1 << 30), RUNS);
        assert!(matches!(step, Step::Wait(_)), "{step:?}");
    }

    proptest! {
        /// Whatever happens, a child leaves its slot within the sum of its limits, and the steps
        /// come in their order, each at most once.
        // Promise: EX-1
        #[test]
        fn every_course_ends_in_time(
            news in prop::collection::vec((0..30_u64, any::<[bool; 4]>()), 0..40),
        ) {
            let start = Instant::now();
            let end = start + LIMITS.deadline + LIMITS.grace + LIMITS.reap + LIMITS.drain;
            let mut course = Course::new(LIMITS, start);
            let mut news = news.into_iter();
            let mut facts = RUNS;
            let (mut now, mut asked, mut killed) = (start, 0, 0);
            loop {
                match course.next(now, facts) {
                    Step::Settle => { prop_assert!(facts.ended); break }
                    Step::Abandon => { prop_assert_eq!(killed, 1); break }
                    Step::Terminate => { prop_assert_eq!(killed, 0); asked += 1 }
                    Step::Kill => killed += 1,
                    Step::Wait(until) => match news.next() {
                        Some((later, [ended, close, over_limit, cancelled])) => {
                            now = until.min(now + Duration::from_secs(later));
                            facts.ended |= ended;
                            facts.pipes_open &= !close;
                            facts.over_limit |= over_limit;
                            facts.cancelled |= cancelled;
                        }
                        None => now = until,
                    }
                }
                prop_assert!(now <= end && asked <= 1 && killed <= 1);
            }
        }
    }
}
