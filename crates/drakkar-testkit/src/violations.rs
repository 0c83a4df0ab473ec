//! Where fakes note what the code under test must not do.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` also when a panic was raised while it was held: a fake panics on purpose.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The broken promises that one fake has seen.
#[derive(Debug, Default)]
pub(crate) struct Violations(Mutex<Vec<String>>);

impl Violations {
    /// Notes a broken promise and panics.
    ///
    /// # Panics
    ///
    /// Always; the note remains for tests whose code under test catches panics.
    #[track_caller]
    pub(crate) fn raise(&self, what: impl Into<String>) -> ! {
        let what = what.into();
        lock(&self.0).push(what.clone());
        panic!("contract violation: {what}");
    }

    pub(crate) fn list(&self) -> Vec<String> {
        lock(&self.0).clone()
    }

    #[track_caller]
    pub(crate) fn assert_none(&self, who: &str) {
        let seen = self.list();
        assert!(seen.is_empty(), "{who} saw {} contract violations: {seen:#?}", seen.len());
    }
}
