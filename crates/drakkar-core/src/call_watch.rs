//! Who computes in user code beside the partitions right now, and since when: in the hooks of the
//! whole worker and in periodic tasks.
//!
//! As with the hooks of partitions (`hook_watch.rs`), what blocks its thread is told by a thread
//! outside of the runtime. That thread alone tells of a call, so its news cannot overtake each other.

use drakkar_api::{Clock, Instant, PartitionId, WorkerCall};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The calls that are under way. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct WatchedCalls {
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    begun: u64,
    by_number: BTreeMap<u64, Watched>,
}

#[derive(Debug)]
struct Watched {
    call: Arc<WorkerCall>,
    /// Since when it computes, if it does.
    inside_since: Option<Instant>,
    /// Whether it was told that it blocks.
    is_told: bool,
    is_over: bool,
}

/// What is new of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallNews {
    /// It blocks, for so long.
    Blocked(Arc<WorkerCall>, Duration),
    /// It was told of and blocks no more.
    WentOn(Arc<WorkerCall>),
}

impl WatchedCalls {
    /// Awaits a call and notes when it computes.
    pub(crate) async fn watch<F: Future>(
        &self,
        name: String,
        partitions: Vec<PartitionId>,
        clock: &dyn Clock,
        call: F,
    ) -> F::Output {
        let under_way = self.begin(name, partitions);
        let mut call = pin!(call);
        poll_fn(|cx| {
            let _inside = under_way.enter(clock.now());
            call.as_mut().poll(cx)
        })
        .await
    }

    fn begin(&self, name: String, partitions: Vec<PartitionId>) -> UnderWay<'_> {
        let mut list = self.lock();
        list.begun += 1;
        let number = list.begun;
        let call = Arc::new(WorkerCall { number, name, partitions });
        let watched = Watched { call, inside_since: None, is_told: false, is_over: false };
        list.by_number.insert(number, watched);
        UnderWay { calls: self, number }
    }

    /// Looks for calls that have computed for `limit` without a pause, and for those that were told of
    /// and do no more.
    pub(crate) fn look(&self, now: Instant, limit: Duration) -> Vec<CallNews> {
        let mut list = self.lock();
        let news = list.by_number.values_mut().filter_map(|it| it.look(now, limit)).collect();
        list.by_number.retain(|_, it| !it.is_over);
        news
    }

    /// Changes what is known of a call, and forgets it if it is over and there is nothing to tell.
    fn update(&self, number: u64, change: impl FnOnce(&mut Watched)) {
        let mut list = self.lock();
        let Some(watched) = list.by_number.get_mut(&number) else { return };
        change(watched);
        if watched.is_over && !watched.is_told {
            list.by_number.remove(&number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn look(&mut self, now: Instant, limit: Duration) -> Option<CallNews> {
        let lasted = self.inside_since.map(|since| now - since).filter(|it| *it >= limit);
        let is_news = lasted.is_some() != self.is_told;
        self.is_told = lasted.is_some();
        let call = Arc::clone(&self.call);
        is_news.then_some(match lasted {
            Some(lasted) => CallNews::Blocked(call, lasted),
            None => CallNews::WentOn(call),
        })
    }
}

/// A call that is not over until this is dropped.
struct UnderWay<'a> {
    calls: &'a WatchedCalls,
    number: u64,
}

impl UnderWay<'_> {
    fn enter(&self, now: Instant) -> Inside<'_> {
        self.calls.update(self.number, |it| it.inside_since = Some(now));
        Inside(self)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.calls.update(self.number, |it| it.is_over = true);
    }
}

/// A call that computes until this is dropped, even by a panic.
struct Inside<'a>(&'a UnderWay<'a>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.calls.update(self.0.number, |it| it.inside_since = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn blocked(under_way: &UnderWay<'_>, seconds: u64) -> CallNews {
        CallNews::Blocked(call(under_way), Duration::from_secs(seconds))
    }

    fn call(under_way: &UnderWay<'_>) -> Arc<WorkerCall> {
        Arc::clone(&under_way.calls.lock().by_number[&under_way.number].call)
    }

    #[test]
    fn each_call_that_blocks_is_told_once_and_its_end_too() {
        let calls = WatchedCalls::default();
        let begin = || calls.begin("on_assign".to_owned(), vec![PartitionId::new("in", 3)]);
        let (first, second) = (begin(), begin());
        let (inside_first, inside_second) = (first.enter(at(0)), second.enter(at(30)));
        assert_eq!(calls.look(at(59), LIMIT), []);
        assert_eq!(calls.look(at(60), LIMIT), [blocked(&first, 60)]);
        assert_eq!(calls.look(at(95), LIMIT), [blocked(&second, 65)]);
        drop(inside_first);
        assert_eq!(calls.look(at(96), LIMIT), [CallNews::WentOn(call(&first))]);
        let of_second = call(&second);
        drop(inside_second);
        drop(second);
        assert_eq!(calls.look(at(97), LIMIT), [CallNews::WentOn(of_second)], "though it is over");
        assert_eq!(calls.look(at(98), LIMIT), []);
    }

    #[test]
    fn what_waits_does_not_block_and_what_is_over_is_forgotten() {
        let calls = WatchedCalls::default();
        let under_way = calls.begin("periodic task refresh".to_owned(), Vec::new());
        drop(under_way.enter(at(0)));
        assert_eq!(calls.look(at(100), LIMIT), []);
        let again = under_way.enter(at(100));
        assert_eq!(calls.look(at(159), LIMIT), []);
        drop(again);
        drop(under_way);
        assert!(calls.lock().by_number.is_empty());
    }
}
