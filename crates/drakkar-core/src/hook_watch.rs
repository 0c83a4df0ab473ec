//! Who computes in a hook of a partition right now, and since when.
//!
//! A hook that blocks its thread, or computes for ever, can hold up its partition, and on a small
//! runtime all of them: then nobody is left to say that they are stalled. What is written down here
//! can be looked at by a thread outside of the runtime, see
//! [`EngineStatus::watch_hooks`](crate::EngineStatus::watch_hooks).
//!
//! That thread and the partition both tell whether the partition is stalled. Whoever does holds the
//! [`Notice`] until it is told, so that observers hear all of it in the order in which it came to be,
//! and nothing after the end of the assignment.

use crate::pace::Pace;
use drakkar_api::{Hook, Instant, Offset, PartitionId, WindowId};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// The hooks of one assignment.
pub(crate) struct HookWatch {
    pub(crate) partition: PartitionId,
    pub(crate) pace: Pace,
    /// Hooks that compute at the same time. Places are used again, so there are as many as there were
    /// such hooks at once.
    inside: Mutex<Vec<Option<Inside>>>,
    notice: Mutex<Notice>,
}

/// What observers have heard of whether the partition is stalled.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// Whether the partition said so by itself: then nobody needs to say it for it.
    pub(crate) is_reported: bool,
    /// Whether a hook that blocks was told of.
    is_told: bool,
    /// Whether the assignment is over, so that it has no state to change.
    pub(crate) is_over: bool,
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
    /// The same, of an assignment that is over: the hook still holds a thread.
    Outlives(Inside, Duration),
    /// The one that was told of does no more.
    WentOn,
}

/// Takes a hook off the list when its poll ends, even by a panic.
pub(crate) struct Entry<'a> {
    watch: &'a HookWatch,
    place: usize,
}

impl HookWatch {
    pub(crate) fn new(partition: PartitionId) -> Self {
        Self {
            partition,
            pace: Pace::default(),
            inside: Mutex::default(),
            notice: Mutex::default(),
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

    /// Returns what is told of the partition, to be held while something is.
    pub(crate) fn notice(&self) -> MutexGuard<'_, Notice> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for a hook that has computed for `limit` without a pause, and has `tell` say what is new.
    /// If the partition is about to tell something by itself, there is another time.
    pub(crate) fn look(&self, now: Instant, limit: Duration, tell: impl FnOnce(News)) {
        let mut notice = match self.notice.try_lock() {
            Ok(notice) => notice,
            Err(TryLockError::Poisoned(notice)) => notice.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let oldest = self.lock().iter().flatten().min_by_key(|inside| inside.since).copied();
        let blocked = oldest.filter(|inside| now - inside.since >= limit);
        let Notice { is_reported, is_told, is_over } = *notice;
        match blocked {
            Some(inside) if !is_told && (is_over || !is_reported) => {
                notice.is_told = true;
                let news = if is_over { News::Outlives } else { News::Blocked };
                tell(news(inside, now - inside.since));
            }
            None if is_told => {
                notice.is_told = false;
                // Else the partition will say it, or is gone.
                if !is_reported && !is_over {
                    tell(News::WentOn);
                }
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Inside>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notice {
    /// Returns whether the partition was called stalled for a hook that blocks, and leaves it to the
    /// partition to say that it goes on.
    pub(crate) fn hand_over(&mut self) -> bool {
        std::mem::take(&mut self.is_told)
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
        HookWatch::new(PartitionId::new("in", 3))
    }

    fn look(watch: &HookWatch, seconds: u64) -> Option<News> {
        let mut told = None;
        watch.look(at(seconds), LIMIT, |news| told = Some(news));
        told
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
        assert_eq!(look(&watch, 64), None);
        assert_eq!(look(&watch, 65), Some(News::Blocked(hook, LIMIT)));
        assert_eq!(look(&watch, 66), None, "once is enough");
        drop(old);
        assert_eq!(look(&watch, 80), None, "the other one blocks as well");
        drop(young);
        assert_eq!(look(&watch, 81), Some(News::WentOn));
        assert_eq!(look(&watch, 82), None);
    }

    #[test]
    fn what_the_partition_says_by_itself_is_not_said_again() {
        let watch = watch();
        let hook = watch.enter(inside(Hook::Arrange, 0));
        watch.notice().is_reported = true;
        assert_eq!(look(&watch, 100), None);
        watch.notice().is_reported = false;
        assert!(look(&watch, 100).is_some());
        watch.notice().is_reported = true;
        drop(hook);
        assert_eq!(look(&watch, 101), None, "it is still stalled");
    }

    #[test]
    fn a_partition_that_has_its_thread_back_goes_on_by_itself() {
        let watch = watch();
        assert!(!watch.notice().hand_over());
        let hook = watch.enter(inside(Hook::OnError, 0));
        assert!(look(&watch, 60).is_some());
        drop(hook);
        assert!(watch.notice().hand_over());
        watch.notice().is_reported = true;
        assert!(!watch.notice().hand_over());
        assert_eq!(look(&watch, 61), None);
    }

    #[test]
    fn nothing_is_told_while_the_partition_tells_something() {
        let watch = watch();
        let hook = watch.enter(inside(Hook::OnError, 0));
        let notice = watch.notice();
        assert_eq!(look(&watch, 60), None);
        drop(notice);
        assert!(look(&watch, 61).is_some());
        drop(hook);
        let notice = watch.notice();
        assert_eq!(look(&watch, 62), None);
        drop(notice);
        assert_eq!(look(&watch, 63), Some(News::WentOn), "it is not lost");
    }

    #[test]
    fn a_hook_that_outlives_its_assignment_changes_nothing_of_that() {
        let watch = watch();
        let hook = inside(Hook::OnError, 0);
        let entry = watch.enter(hook);
        watch.notice().is_over = true;
        assert_eq!(look(&watch, 60), Some(News::Outlives(hook, LIMIT)));
        drop(entry);
        assert_eq!(look(&watch, 61), None);
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
