//! Periodic tasks: run, wait, run again; never overlapping.

use crate::erased::panic_text;
use drakkar_api::{Clock, Event, HookResult, Observer};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// What an error of a periodic task does to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeriodicErrorPolicy {
    /// It runs again after the interval.
    #[default]
    Continue,
    /// It runs no more; the worker goes on.
    Stop,
}

/// A task that runs every so often.
pub struct PeriodicTask {
    /// Its name in logs and metrics.
    pub name: String,
    /// The wait before each run, counted from the end of the run before.
    pub interval: Duration,
    /// What an error does.
    pub on_error: PeriodicErrorPolicy,
    /// Makes one run.
    pub run: Box<dyn Fn() -> BoxFuture<'static, HookResult<()>> + Send + Sync>,
}

impl fmt::Debug for PeriodicTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeriodicTask")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("on_error", &self.on_error)
            .finish_non_exhaustive()
    }
}

impl PeriodicTask {
    /// Runs the task until it stops itself.
    ///
    /// # Cancel safety
    ///
    /// A run that is under way is dropped.
    pub async fn run_forever(self, observer: Arc<dyn Observer>, clock: Arc<dyn Clock>) {
        loop {
            tokio::time::sleep(self.interval).await;
            let started = clock.now();
            let result = AssertUnwindSafe(async { (self.run)().await }).catch_unwind().await;
            let error = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panic) => Some(panic_text(panic.as_ref()).to_string()),
            };
            observer.observe(&Event::PeriodicRun {
                name: &self.name,
                duration: clock.now() - started,
                error: error.as_deref(),
            });
            if error.is_some() && self.on_error == PeriodicErrorPolicy::Stop {
                tracing::warn!(category = "periodic", name = self.name, "periodic_task_stopped");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Runs(Mutex<Vec<Option<String>>>);

    impl Observer for Runs {
        fn observe(&self, event: &Event<'_>) {
            if let Event::PeriodicRun { error, .. } = event {
                self.0.lock().expect("no panic").push(error.map(str::to_owned));
            }
        }
    }

    async fn runs(on_error: PeriodicErrorPolicy) -> Vec<Option<String>> {
        let runs = Arc::new(Runs::default());
        let counter = Arc::new(Mutex::new(0));
        let task = PeriodicTask {
            name: "refresh".to_owned(),
            interval: Duration::from_secs(10),
            on_error,
            run: Box::new(move || {
                let counter = Arc::clone(&counter);
                Box::pin(async move {
                    let mut count = counter.lock().expect("no panic");
                    *count += 1;
                    match *count {
                        2 => Err("the second fails".into()),
                        _ => Ok(()),
                    }
                })
            }),
        };
        let observer: Arc<dyn Observer> = Arc::<Runs>::clone(&runs);
        let forever = task.run_forever(observer, Arc::new(TokioClock::new()));
        drop(tokio::time::timeout(Duration::from_secs(35), forever).await);
        runs.0.lock().expect("no panic").clone()
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_ends_a_task_only_if_asked_to() {
        let failed = Some("the second fails".to_owned());
        assert_eq!(runs(PeriodicErrorPolicy::Continue).await, [None, failed.clone(), None]);
        assert_eq!(runs(PeriodicErrorPolicy::Stop).await, [None, failed]);
    }
}
