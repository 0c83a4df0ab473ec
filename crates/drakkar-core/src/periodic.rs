//! Periodic tasks: run, wait, run again; never overlapping.

use crate::call_watch::WatchedCalls;
use crate::erased::panic_text;
use crate::hooks::error_text;
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
    /// The wait before each run, counted from the end of the run before; more than zero.
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

/// A periodic task that would run without a pause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interval of the periodic task \"{name}\" is zero; give it one such as 10 seconds")]
pub struct ZeroInterval {
    /// The task's name.
    pub name: String,
}

impl PeriodicTask {
    /// Checks the interval.
    ///
    /// # Errors
    ///
    /// When it is zero.
    pub fn validate(&self) -> Result<(), ZeroInterval> {
        match self.interval.is_zero() {
            true => Err(ZeroInterval { name: self.name.clone() }),
            false => Ok(()),
        }
    }

    /// Runs the task until it stops itself. One that is not valid is not run at all. While a run
    /// computes it is in `calls`, those of the engine's
    /// [status](crate::EngineStatus::watched_calls).
    ///
    /// # Cancel safety
    ///
    /// A run that is under way is dropped.
    pub async fn run_forever(
        self,
        observer: Arc<dyn Observer>,
        clock: Arc<dyn Clock>,
        calls: WatchedCalls,
    ) {
        if let Err(error) = self.validate() {
            tracing::error!(category = "periodic", %error, "periodic_task_refused");
            return;
        }
        loop {
            tokio::time::sleep(self.interval).await;
            let started = clock.now();
            let run = AssertUnwindSafe(async { (self.run)().await }).catch_unwind();
            let name = format!("periodic task {}", self.name);
            let result = calls.watch(name, Vec::new(), clock.as_ref(), run).await;
            let error = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error_text(&error)),
                Err(panic) => Some(error_text(&panic_text(panic.as_ref()))),
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
    use crate::call_watch::CallNews;
    use crate::clock::TokioClock;
    use drakkar_api::HookError;
    use drakkar_testkit::ManualClock;
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

    /// Runs a task for 35 seconds whose second run answers `failure`.
    async fn runs(
        on_error: PeriodicErrorPolicy,
        interval: Duration,
        failure: fn() -> HookError,
    ) -> Vec<Option<String>> {
        let runs = Arc::new(Runs::default());
        let counter = Arc::new(Mutex::new(0));
        let task = PeriodicTask {
            name: "refresh".to_owned(),
            interval,
            on_error,
            run: Box::new(move || {
                let counter = Arc::clone(&counter);
                Box::pin(async move {
                    let mut count = counter.lock().expect("no panic");
                    *count += 1;
                    match *count {
                        2 => Err(failure()),
                        _ => Ok(()),
                    }
                })
            }),
        };
        let observer: Arc<dyn Observer> = Arc::<Runs>::clone(&runs);
        let forever =
            task.run_forever(observer, Arc::new(TokioClock::new()), WatchedCalls::default());
        drop(tokio::time::timeout(Duration::from_secs(35), forever).await);
        runs.0.lock().expect("no panic").clone()
    }

    // Promise: FT-1
    #[tokio::test(start_paused = true)]
    async fn a_run_that_blocks_is_seen_by_its_name() {
        let limit = Duration::from_secs(60);
        let clock = ManualClock::new();
        let calls = WatchedCalls::default();
        let found = Arc::new(Mutex::new(Vec::new()));
        let (blocked, asked, seen) = (clock.clone(), calls.clone(), Arc::clone(&found));
        let task = PeriodicTask {
            name: "refresh".to_owned(),
            interval: INTERVAL,
            on_error: PeriodicErrorPolicy::Stop,
            run: Box::new(move || {
                blocked.advance(limit);
                *seen.lock().expect("no panic") = asked.look(blocked.now(), limit);
                panic!("it ends once")
            }),
        };
        task.run_forever(Arc::new(Runs::default()), Arc::new(clock.clone()), calls.clone()).await;
        let told = found.lock().expect("no panic").clone();
        let [CallNews::Blocked(call, lasted)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((call.name.as_str(), *lasted), ("periodic task refresh", limit));
        assert_eq!(calls.look(clock.now(), limit), [CallNews::WentOn(Arc::clone(call))]);
    }

    const INTERVAL: Duration = Duration::from_secs(10);

    /// An error with a source, whose own text panics if it has none.
    #[derive(Debug)]
    struct Failure {
        text: Option<&'static str>,
        source: Option<Box<Failure>>,
    }

    impl fmt::Display for Failure {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.text.expect("a text"))
        }
    }

    impl std::error::Error for Failure {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.source.as_deref().map(|source| source as _)
        }
    }

    // Promise: FT-1
    #[tokio::test(start_paused = true)]
    async fn an_error_is_reported_with_its_sources_and_even_if_its_text_panics() {
        let with_source = || -> HookError {
            let source = Failure { text: Some("why"), source: None };
            Failure { text: Some("what"), source: Some(Box::new(source)) }.into()
        };
        let failed = Some("what: why".to_owned());
        let on_error = PeriodicErrorPolicy::Continue;
        assert_eq!(runs(on_error, INTERVAL, with_source).await, [None, failed, None]);
        let panics = || -> HookError { Failure { text: None, source: None }.into() };
        let failed = Some("an error whose text panicked: a text".to_owned());
        assert_eq!(runs(on_error, INTERVAL, panics).await, [None, failed, None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_a_pause_is_refused() {
        let never = runs(PeriodicErrorPolicy::Continue, Duration::ZERO, || "x".into());
        assert_eq!(never.await, []);
        let error = ZeroInterval { name: "refresh".to_owned() };
        assert!(error.to_string().contains("\"refresh\" is zero"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_ends_a_task_only_if_asked_to() {
        let failed = Some("the second fails".to_owned());
        let runs = |policy| runs(policy, INTERVAL, || "the second fails".into());
        assert_eq!(runs(PeriodicErrorPolicy::Continue).await, [None, failed.clone(), None]);
        assert_eq!(runs(PeriodicErrorPolicy::Stop).await, [None, failed]);
    }
}
