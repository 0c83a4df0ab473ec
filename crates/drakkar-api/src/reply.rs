//! A one-shot answer that both async code and plain threads can wait for.
//!
//! The source waits for a drain on its own thread, inside a client's callback; the engine waits
//! inside a runtime. One type serves both, and needs neither.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The answering half: consumed by [`send`](Reply::send).
pub struct Reply<T> {
    shared: Arc<Shared<T>>,
}

/// The waiting half: a future, or [`wait_timeout`](ReplyReceiver::wait_timeout) on a thread.
pub struct ReplyReceiver<T> {
    shared: Arc<Shared<T>>,
}

/// The [`Reply`] was dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side went away without an answer")]
pub struct ReplyDropped;

struct Shared<T> {
    state: Mutex<State<T>>,
    answered: Condvar,
}

enum State<T> {
    Waiting(Option<Waker>),
    Answered(T),
    Dropped,
    Taken,
}

impl<T> Reply<T> {
    /// Makes the two halves of one answer.
    pub fn channel() -> (Self, ReplyReceiver<T>) {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::Waiting(None)), answered: Condvar::new() });
        (Self { shared: Arc::clone(&shared) }, ReplyReceiver { shared })
    }

    /// Gives the answer and wakes whoever waits. Never blocks.
    pub fn send(self, answer: T) {
        self.shared.settle(State::Answered(answer));
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.shared.settle(State::Dropped);
    }
}

impl<T> Shared<T> {
    /// Moves from waiting to `end`; what was settled before stays.
    fn settle(&self, end: State<T>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Waiting(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = end;
        drop(state);
        self.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> ReplyReceiver<T> {
    /// Blocks the thread until the answer is there, at most `timeout`.
    ///
    /// Gives the receiver back when the time is over, so that the wait can go on.
    ///
    /// # Errors
    ///
    /// `Ok(Err(ReplyDropped))` when no answer will ever come; `Err(self)` after `timeout`.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<T, ReplyDropped>, Self> {
        let guard = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut guard, _) = self
            .shared
            .answered
            .wait_timeout_while(guard, timeout, |state| matches!(state, State::Waiting(_)))
            .unwrap_or_else(PoisonError::into_inner);
        let taken = guard.take();
        drop(guard);
        taken.ok_or(self)
    }
}

impl<T> State<T> {
    /// Takes the end out, or answers `None` while there is none.
    fn take(&mut self) -> Option<Result<T, ReplyDropped>> {
        if matches!(self, Self::Waiting(_)) {
            return None;
        }
        match std::mem::replace(self, Self::Taken) {
            Self::Answered(answer) => Some(Ok(answer)),
            Self::Dropped | Self::Taken | Self::Waiting(_) => Some(Err(ReplyDropped)),
        }
    }
}

impl<T> Future for ReplyReceiver<T> {
    type Output = Result<T, ReplyDropped>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Waiting(waker) = &mut *state {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ReplyReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyReceiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    struct Count(std::sync::atomic::AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn an_answer_wakes_a_future() {
        let (reply, mut receiver) = Reply::channel();
        let count = Arc::new(Count(std::sync::atomic::AtomicUsize::new(0)));
        let waker = Arc::clone(&count).into();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut receiver).poll(&mut cx).is_pending());
        reply.send(7);
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Ready(Ok(7)));
    }

    #[test]
    fn an_answer_wakes_a_thread() {
        let (reply, receiver) = Reply::channel();
        let waiter = std::thread::spawn(move || receiver.wait_timeout(Duration::from_secs(30)));
        reply.send("done");
        assert_eq!(waiter.join().expect("no panic").expect("in time"), Ok("done"));
    }

    #[test]
    fn a_timeout_gives_the_receiver_back() {
        let (reply, receiver) = Reply::channel();
        let receiver = receiver.wait_timeout(Duration::from_millis(1)).expect_err("no answer yet");
        reply.send(1);
        assert_eq!(receiver.wait_timeout(Duration::ZERO).expect("answered"), Ok(1));
    }

    #[test]
    fn a_dropped_reply_is_an_error_not_a_hang() {
        let (reply, receiver) = Reply::<()>::channel();
        drop(reply);
        assert_eq!(receiver.wait_timeout(Duration::MAX).expect("settled"), Err(ReplyDropped));
    }
}
