//! Several observers as one.

use drakkar_api::{Event, Observer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells each of several observers. One that panics, which may be the user's, harms neither the
/// others nor the pipeline; the log hears of it once.
pub(crate) struct Observers {
    all: Vec<Arc<dyn Observer>>,
    panicked: AtomicBool,
}

impl Observers {
    pub(crate) fn new(all: Vec<Arc<dyn Observer>>) -> Self {
        Self { all, panicked: AtomicBool::new(false) }
    }
}

impl Observer for Observers {
    fn observe(&self, event: &Event<'_>) {
        for observer in &self.all {
            let told = catch_unwind(AssertUnwindSafe(|| observer.observe(event)));
            if told.is_err() && !self.panicked.swap(true, Ordering::Relaxed) {
                tracing::error!(category = "lifecycle", "observer_panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_testkit::RecordingObserver;

    struct Broken;

    impl Observer for Broken {
        fn observe(&self, _event: &Event<'_>) {
            panic!("a bug of an observer");
        }
    }

    #[test]
    fn an_observer_that_panics_harms_no_other() {
        let seen = RecordingObserver::new();
        let observers = Observers::new(vec![Arc::new(Broken), Arc::new(seen.clone())]);
        observers.observe(&Event::Polled);
        observers.observe(&Event::Polled);
        assert_eq!(seen.count("Polled"), 2);
    }
}
