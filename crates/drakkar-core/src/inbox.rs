//! The mailbox of an actor: pushing never blocks, from any thread; taking takes everything.
//!
//! It has no limit of its own because it needs none: everything that is pushed answers something
//! that its owner asked for (a message within its credit, the end of a run, a verdict), so its
//! length is bounded by what the owner has open.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

pub(crate) struct Inbox<T> {
    mail: Mutex<VecDeque<T>>,
    arrived: Notify,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self { mail: Mutex::new(VecDeque::new()), arrived: Notify::new() }
    }

    /// Adds one piece of mail.
    pub(crate) fn push(&self, mail: T) {
        let mut queue = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.push_back(mail);
        drop(queue);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Takes what is there now.
    pub(crate) fn take_now(&self) -> VecDeque<T> {
        std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is mail and moves all of it into `into`, which must be empty.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken before this returns.
    pub(crate) async fn take(&self, into: &mut VecDeque<T>) {
        debug_assert!(into.is_empty());
        loop {
            {
                let mut queue = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
                if !queue.is_empty() {
                    std::mem::swap(&mut *queue, into);
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }
}
