//! Who computes in a hook of a partition right now, and since when.
//!
//! A hook that blocks its thread, or computes for ever, can hold up its partition, and on a small
//! runtime all of them: then nobody is left to say that they are stalled. What is written down here
//! can be looked at by a thread outside of the runtime, see
//! [`EngineStatus::watch_hooks`](crate::EngineStatus::watch_hooks).

use crate::pace::Pace;
use drakkar_api::{Epoch, Hook, Instant, Offset, PartitionId, WindowId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The hooks of one assignment.
pub(crate) struct HookWatch {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: Epoch,
    pub(crate) pace: Pace,
    /// Hooks that compute at the same time. Places are used again, so there are as many as there were
    /// such hooks at once.
    inside: Mutex<Vec<Option<Inside>>>,
    /// Whether the partition said by itself that it is stalled.
    is_reported: AtomicBool,
    /// Whether a hook that blocks was told of.
    is_told: AtomicBool,
}

/// A hook that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) hook: Hook,
    pub(crate) window: Option<WindowId>,
    pub(crate) offset: Option<Offset>,
    pub(crate) since: Instant,
}

/// What is new of hooks that block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// This one does, for so long.
    Blocked(Inside, Duration),
    /// The one that was told of does no more.
    WentOn,
}

/// Takes a hook off the list when its poll ends, even by a panic.
pub(crate) struct Entry<'a> {
    watch: &'a HookWatch,
    place: usize,
}

impl HookWatch {
    pub(crate) fn new(partition: PartitionId, epoch: Epoch) -> Self {
        Self {
            partition,
            epoch,
            pace: Pace::default(),
            inside: Mutex::default(),
            is_reported: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        }
    }

    /// Notes that a hook computes until the answer is dropped.
    pub(crate) fn enter(&self, inside: Inside) -> Entry<'_> {
        let mut list = self.lock();
        let free = list.iter().position(Option::is_none);
        let place = free.unwrap_or(list.len());
        match free {
            Some(place) => list[place] = Some(inside),
            None => list.push(Some(inside)),
        }
        Entry { watch: self, place }
    }

    /// Hears whether the partition has said by itself that it is stalled: then nobody needs to say it
    /// for it.
    pub(crate) fn set_reported(&self, is_reported: bool) {
        self.is_reported.store(is_reported, Ordering::Relaxed);
    }

    /// Returns whether the partition was called stalled for a hook that blocks, and leaves it to the
    /// partition to say that it goes on.
    pub(crate) fn hand_over(&self) -> bool {
        self.is_told.load(Ordering::Relaxed) && self.is_told.swap(false, Ordering::Relaxed)
    }

    /// Looks for a hook that has computed for `limit` without a pause.
    pub(crate) fn look(&self, now: Instant, limit: Duration) -> Option<News> {
        let oldest = self.lock().iter().flatten().min_by_key(|inside| inside.since).copied();
        let blocked = oldest.filter(|inside| now - inside.since >= limit);
        let is_reported = self.is_reported.load(Ordering::Relaxed);
        match (blocked, self.is_told.load(Ordering::Relaxed)) {
            (Some(inside), false) if !is_reported => {
                self.is_told.store(true, Ordering::Relaxed);
                Some(News::Blocked(inside, now - inside.since))
            }
            (None, true) => {
                self.is_told.store(false, Ordering::Relaxed);
                // Else the partition will say it.
                (!is_reported).then_some(News::WentOn)
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Inside>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.watch.lock()[self.place] = None;
    }
}

impl Inside {
    /// Says what blocks, as the reason of a stall.
    pub(crate) fn reason(&self, lasted: Duration) -> String {
        let hook = match self.hook {
            Hook::Arrange => "arrange (or decode, message_label or task_priority for it)",
            hook => hook.as_str(),
        };
        let window = self.window.map(|window| format!(" of window {window}")).unwrap_or_default();
        let offset = self.offset.map(|offset| format!(" for offset {offset}")).unwrap_or_default();
        format!("stalled: {hook}{window}{offset} blocks its thread since {} s", lasted.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn watch() -> HookWatch {
        HookWatch::new(PartitionId::new("in", 3), Epoch::new(1))
    }

    fn inside(hook: Hook, since: u64) -> Inside {
        let (window, offset) = (Some(WindowId::new(7)), Some(Offset::new(12)));
        Inside { hook, window, offset, since: at(since) }
    }

    #[test]
    fn the_oldest_hook_that_blocks_is_told_once_and_its_end_too() {
        let watch = watch();
        let hook = inside(Hook::OnTaskComplete, 5);
        let young = watch.enter(inside(Hook::OnError, 10));
        let old = watch.enter(hook);
        assert_eq!(watch.look(at(64), LIMIT), None);
        assert_eq!(watch.look(at(65), LIMIT), Some(News::Blocked(hook, LIMIT)));
        assert_eq!(watch.look(at(66), LIMIT), None, "once is enough");
        drop(old);
        assert_eq!(watch.look(at(80), LIMIT), None, "the other one blocks as well");
        drop(young);
        assert_eq!(watch.look(at(81), LIMIT), Some(News::WentOn));
        assert_eq!(watch.look(at(82), LIMIT), None);
    }

    #[test]
    fn what_the_partition_says_by_itself_is_not_said_again() {
        let watch = watch();
        let hook = watch.enter(inside(Hook::Arrange, 0));
        watch.set_reported(true);
        assert_eq!(watch.look(at(100), LIMIT), None);
        watch.set_reported(false);
        assert!(watch.look(at(100), LIMIT).is_some());
        watch.set_reported(true);
        drop(hook);
        assert_eq!(watch.look(at(101), LIMIT), None, "it is still stalled");
    }

    #[test]
    fn a_partition_that_has_its_thread_back_goes_on_by_itself() {
        let watch = watch();
        assert!(!watch.hand_over());
        let hook = watch.enter(inside(Hook::OnError, 0));
        assert!(watch.look(at(60), LIMIT).is_some());
        drop(hook);
        assert!(watch.hand_over());
        watch.set_reported(true);
        assert!(!watch.hand_over());
        assert_eq!(watch.look(at(61), LIMIT), None);
    }

    #[test]
    fn a_reason_names_hook_window_and_offset() {
        let check = |hook, expect: &str| assert_eq!(inside(hook, 0).reason(LIMIT), expect);
        check(
            Hook::OnTaskComplete,
            "stalled: on_task_complete of window 7 for offset 12 blocks its thread since 60 s",
        );
        check(
            Hook::Arrange,
            "stalled: arrange (or decode, message_label or task_priority for it) of window 7 for \
             offset 12 blocks its thread since 60 s",
        );
    }

    #[test]
    fn places_are_used_again() {
        let watch = watch();
        for since in 0..100 {
            let _first = watch.enter(inside(Hook::OnError, since));
            let _second = watch.enter(inside(Hook::OnError, since));
        }
        assert_eq!(watch.lock().len(), 2);
    }
}
