//! The mailbox of an actor: pushing never blocks, from any thread; taking takes everything.
//!
//! It has no limit of its own because it needs none: everything that is pushed answers something
//! that its owner asked for (a message within its credit, the end of a run, a verdict), so its
//! length is bounded by what the owner has open.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

pub(crate) struct Inbox<T> {
    mail: Mutex<Mail<T>>,
    arrived: Notify,
}

struct Mail<T> {
    queue: VecDeque<T>,
    /// Whether the owner was woken for what is in the queue.
    announced: bool,
}

impl<T> Inbox<T> {
    pub(crate) fn new() -> Self {
        let mail = Mail { queue: VecDeque::new(), announced: false };
        Self { mail: Mutex::new(mail), arrived: Notify::new() }
    }

    /// Adds one piece of mail.
    pub(crate) fn push(&self, piece: T) {
        let mut mail = self.lock();
        mail.queue.push_back(piece);
        let is_news = !std::mem::replace(&mut mail.announced, true);
        drop(mail);
        if is_news {
            self.arrived.notify_one();
        }
    }

    /// Adds one piece of mail that the owner finds, in its place, when it is woken for another or
    /// looks by itself. Waking a sleeping thread costs more than most mail is worth.
    pub(crate) fn push_quietly(&self, piece: T) {
        self.lock().queue.push_back(piece);
    }

    /// Takes what is there now.
    pub(crate) fn take_now(&self) -> VecDeque<T> {
        let mut mail = self.lock();
        mail.announced = false;
        std::mem::take(&mut mail.queue)
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
                let mut mail = self.lock();
                if !mail.queue.is_empty() {
                    mail.announced = false;
                    std::mem::swap(&mut mail.queue, into);
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mail<T>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn quiet_mail_wakes_nobody_and_keeps_its_place() {
        let inbox = Inbox::new();
        let mut mail = VecDeque::new();
        let mut waiting = Box::pin(inbox.take(&mut mail));
        assert!(waiting.as_mut().now_or_never().is_none());
        inbox.push_quietly(1);
        tokio::task::yield_now().await;
        inbox.push(2);
        inbox.push(3);
        waiting.await;
        assert_eq!(mail, [1, 2, 3]);
        mail.clear();
        inbox.push_quietly(4);
        inbox.take(&mut mail).await;
        assert_eq!(mail, [4], "whoever looks finds it");
        mail.clear();
        inbox.push(5);
        inbox.take(&mut mail).await;
        assert_eq!(mail, [5], "the next push announces itself again");
    }
}
