//! What the source's thread sleeps on.
//!
//! Not `std::thread::park`: foreign code that runs on the thread, such as a channel, may take the
//! token that was meant to wake it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A flag that one thread waits for and any thread raises. A raise before the wait is not lost.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    is_raised: Mutex<bool>,
    raised: Condvar,
}

impl Wake {
    /// Wakes the waiter, now or at its next wait. Cheap, and safe inside librdkafka's callbacks.
    pub(crate) fn raise(&self) {
        let mut is_raised = self.is_raised.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *is_raised, true) {
            self.raised.notify_one();
        }
    }

    /// Waits until the flag is raised, at most `timeout`, and lowers it.
    pub(crate) fn wait(&self, timeout: Duration) {
        let guard = self.is_raised.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut guard, _) = self
            .raised
            .wait_timeout_while(guard, timeout, |is_raised| !*is_raised)
            .unwrap_or_else(PoisonError::into_inner);
        *guard = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const FOREVER: Duration = Duration::from_secs(3600);

    #[test]
    fn a_raise_before_the_wait_is_not_lost() {
        let wake = Wake::default();
        wake.raise();
        wake.wait(FOREVER);
        wake.wait(Duration::ZERO);
    }

    #[test]
    fn a_raise_ends_the_wait() {
        let wake = Arc::new(Wake::default());
        let waiter = std::thread::spawn({
            let wake = Arc::clone(&wake);
            move || wake.wait(FOREVER)
        });
        wake.raise();
        waiter.join().expect("woken");
    }
}
