//! Waiting for what can be observed, never for time to pass.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to see; `what` completes "waited .. for".
///
/// # Errors
///
/// Looking failed, or there was nothing to see within the time.
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        // Read before the look, so that one look always follows the deadline.
        let is_last = Instant::now() >= deadline;
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if is_last {
            bail!("waited {within:?} for {what}");
        }
        thread::sleep(POLL);
    }
}

/// Asks until there is an answer, because a broker that has just come back refuses some questions.
///
/// # Errors
///
/// There was no answer within the time; this is why, the last time.
pub(crate) fn ask_until_answered<T>(
    within: Duration,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut refusal = None;
    let answer = wait_until("an answer", within, || match ask() {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            refusal = Some(error);
            Ok(None)
        }
    });
    answer.map_err(|waited| match refusal {
        Some(refusal) => refusal.context(waited.to_string()),
        None => waited,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_at_once_needs_no_time() {
        assert_eq!(wait_until("it", Duration::ZERO, || Ok(Some(7))).expect("it is there"), 7);
    }

    #[test]
    fn what_never_comes_is_an_error_that_names_it() {
        let error = wait_until("a sign", Duration::ZERO, || Ok(None::<()>)).expect_err("never");
        assert_eq!(error.to_string(), "waited 0ns for a sign");
    }

    #[test]
    fn a_failing_look_ends_the_wait() {
        let look = || -> Result<Option<()>> { bail!("blind") };
        let error = wait_until("a sign", Duration::from_secs(60), look).expect_err("it fails");
        assert_eq!(error.to_string(), "blind");
    }

    #[test]
    fn a_refused_question_is_asked_again() {
        let mut refusals = 2;
        let ask = || {
            refusals -= 1;
            if refusals > 0 { bail!("not yet") } else { Ok(7) }
        };
        assert_eq!(ask_until_answered(Duration::from_secs(60), ask).expect("an answer"), 7);
    }

    #[test]
    fn a_question_that_is_never_answered_tells_why() {
        let error = ask_until_answered(Duration::ZERO, || -> Result<()> { bail!("no leader") });
        let error = error.expect_err("never");
        assert_eq!(format!("{error:#}"), "waited 0ns for an answer: no leader");
    }
}
