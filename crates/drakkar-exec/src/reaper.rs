//! The thread for what has no slot: it tells the endings of runs that never got one, reaps children
//! that took too long to die, and sees the pool's closing through.

use crate::listener::tell_finished;
use crate::wait4;
use drakkar_api::{Execution, Reply, Run};
use rustix::process::Pid;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a child that did not die in time is looked at.
const RETRY: Duration = Duration::from_millis(250);

/// What there is to do outside of the slots.
#[derive(Debug)]
pub(crate) struct Reaper {
    chores: Mutex<Chores>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Chores {
    endings: Vec<(Run, Execution)>,
    /// Killed but not reaped. One for each child that outlived its slot, so in practice none.
    orphans: Vec<Pid>,
    slots: Vec<JoinHandle<()>>,
    slots_alive: usize,
    close_by: Option<Instant>,
    closers: Vec<Reply<()>>,
    gone: bool,
}

impl Reaper {
    pub(crate) fn new() -> Self {
        Self { chores: Mutex::default(), news: Condvar::new() }
    }

    /// Has these endings told on the reaper's thread, so that a caller may hold locks that the
    /// listeners take. After the pool has closed there is no such thread, and the caller tells.
    pub(crate) fn tell(&self, endings: Vec<(Run, Execution)>) {
        let mut chores = self.lock();
        if !chores.gone {
            chores.endings.extend(endings);
            drop(chores);
            self.news.notify_one();
            return;
        }
        drop(chores);
        endings.into_iter().for_each(|(run, execution)| tell_finished(run, execution));
    }

    /// Reaps a killed child whenever it dies.
    pub(crate) fn adopt(&self, child: Pid) {
        self.lock().orphans.push(child);
        self.news.notify_one();
    }

    /// Counts a slot whose thread is about to be made, until it [leaves](Reaper::slot_left).
    pub(crate) fn slot_expected(&self) {
        self.lock().slots_alive += 1;
    }

    /// Keeps a slot's thread to join it at the end.
    pub(crate) fn slot_started(&self, thread: JoinHandle<()>) {
        self.lock().slots.push(thread);
    }

    /// Counts a slot out.
    pub(crate) fn slot_left(&self) {
        self.lock().slots_alive -= 1;
        self.news.notify_one();
    }

    /// Answers once everything is released, or when `limit` has passed. The slots must have been
    /// told to end.
    pub(crate) fn close(&self, reply: Reply<()>, limit: Duration) {
        let mut chores = self.lock();
        if chores.gone {
            drop(chores);
            return reply.send(());
        }
        chores.closers.push(reply);
        chores.close_by.get_or_insert_with(|| Instant::now() + limit);
        drop(chores);
        self.news.notify_one();
    }

    /// Does the chores until the pool has closed.
    pub(crate) fn work(&self) {
        let mut chores = self.lock();
        while !chores.is_over() {
            if chores.endings.is_empty() {
                chores = self.wait(chores);
                chores.reap_orphans();
                continue;
            }
            let endings = std::mem::take(&mut chores.endings);
            drop(chores);
            endings.into_iter().for_each(|(run, execution)| tell_finished(run, execution));
            chores = self.lock();
        }
        chores.gone = true;
        let all_left = chores.slots_alive == 0;
        let (closers, slots) = (std::mem::take(&mut chores.closers), chores.slots.split_off(0));
        drop(chores);
        // A slot that is still alive is stuck in the system, and this thread shall not be so too.
        for slot in slots.into_iter().filter(|slot| all_left || slot.is_finished()) {
            // If it panicked, the panic hook has said so.
            drop(slot.join());
        }
        closers.into_iter().for_each(|closer| closer.send(()));
    }

    fn wait<'a>(&self, chores: MutexGuard<'a, Chores>) -> MutexGuard<'a, Chores> {
        let retry = (!chores.orphans.is_empty()).then_some(RETRY);
        let close = chores.close_by.map(|by| by.saturating_duration_since(Instant::now()));
        match retry.into_iter().chain(close).min() {
            None => self.news.wait(chores).unwrap_or_else(PoisonError::into_inner),
            Some(pause) => {
                let waited = self.news.wait_timeout(chores, pause);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Chores> {
        self.chores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chores {
    fn is_over(&self) -> bool {
        let Some(close_by) = self.close_by else { return false };
        let done = self.slots_alive == 0 && self.orphans.is_empty();
        self.endings.is_empty() && (done || Instant::now() >= close_by)
    }

    fn reap_orphans(&mut self) {
        // An error means that it was no child of ours any more.
        self.orphans.retain(|child| matches!(wait4::reap(*child), Ok(None)));
    }
}
