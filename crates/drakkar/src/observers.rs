//! Several observers as one.

use drakkar_api::{Event, Observer};
use std::sync::Arc;

/// Tells each of several observers.
pub(crate) struct Observers {
    all: Vec<Arc<dyn Observer>>,
}

impl Observers {
    pub(crate) fn new(all: Vec<Arc<dyn Observer>>) -> Self {
        Self { all }
    }
}

impl Observer for Observers {
    fn observe(&self, event: &Event<'_>) {
        for observer in &self.all {
            observer.observe(event);
        }
    }
}
