//! Brings the ends of runs to their partitions, several at once when they come fast.
//!
//! An end comes from a thread of the executor, and to wake the sleeping runtime for it costs as much
//! as all that is done about it. So while runs wait for a slot, and the executor has work whatever
//! the partitions do, ends that follow each other closely are brought together, [`PAUSE`] apart. An
//! end after a time of quiet is brought at once, and so is every one that leaves a slot without work.
//!
//! What waits here has no limit of its own: it is ends of runs, each once, so they are no more than the
//! tasks that were let in, with what these put out. All of it is gone with the next round.

use crate::driver::Mail;
use crate::inbox::Inbox;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The time between two rounds, and about the longest that an end waits.
const PAUSE: Duration = Duration::from_millis(4);

#[derive(Default)]
pub(crate) struct Courier {
    state: Mutex<State>,
    called: Notify,
}

#[derive(Default)]
struct State {
    parcels: Vec<(Arc<Inbox<Mail>>, Mail)>,
    /// Whether the courier comes without being called.
    comes_soon: bool,
}

impl Courier {
    /// Takes mail that may wait for the next round.
    pub(crate) fn post(&self, inbox: &Arc<Inbox<Mail>>, mail: Mail) {
        let mut state = self.lock();
        state.parcels.push((Arc::clone(inbox), mail));
        let comes_soon = std::mem::replace(&mut state.comes_soon, true);
        drop(state);
        if !comes_soon {
            self.called.notify_one();
        }
    }

    /// Brings this at once, and before it all that waits for the next round.
    pub(crate) fn bring(&self, inbox: &Inbox<Mail>, mail: Mail) {
        let waiting = std::mem::take(&mut self.lock().parcels);
        waiting.into_iter().for_each(|(inbox, mail)| inbox.push(mail));
        inbox.push(mail);
    }

    /// Makes rounds, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut round = Vec::new();
        loop {
            self.called.notified().await;
            while self.take(&mut round) {
                round.drain(..).for_each(|(inbox, mail)| inbox.push(mail));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Takes all mail; if there is none, the courier has to be called from now on.
    fn take(&self, into: &mut Vec<(Arc<Inbox<Mail>>, Mail)>) -> bool {
        let mut state = self.lock();
        std::mem::swap(&mut state.parcels, into);
        state.comes_soon = !into.is_empty();
        state.comes_soon
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use tokio::task::JoinHandle;

    fn start() -> (Arc<Courier>, Arc<Inbox<Mail>>, JoinHandle<()>) {
        let courier: Arc<Courier> = Arc::default();
        let task = tokio::spawn(Arc::clone(&courier).run());
        (courier, Arc::new(Inbox::new()), task)
    }

    fn letter(number: u32) -> Mail {
        Mail::Broken(number.to_string())
    }

    fn numbers(mail: VecDeque<Mail>) -> Vec<String> {
        let number = |mail| match mail {
            Mail::Broken(number) => number,
            _ => unreachable!("nothing else was posted"),
        };
        mail.into_iter().map(number).collect()
    }

    /// Lets the courier do what it can without time passing.
    async fn settle() {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_fast_is_brought_together_and_the_first_of_it_at_once() {
        let (courier, inbox, _task) = start();
        for round in 0..3 {
            courier.post(&inbox, letter(1));
            settle().await;
            assert_eq!(numbers(inbox.take_now()), ["1"], "round {round}");
            courier.post(&inbox, letter(2));
            courier.post(&inbox, letter(3));
            settle().await;
            assert!(inbox.take_now().is_empty(), "they wait for the next round");
            let began = tokio::time::Instant::now();
            let mut mail = VecDeque::new();
            inbox.take(&mut mail).await;
            assert_eq!(numbers(mail), ["2", "3"]);
            assert!(began.elapsed() <= PAUSE, "{:?}", began.elapsed());
            // A quiet time, after which the courier has to be called.
            tokio::time::sleep(PAUSE * 3).await;
        }
    }

    // Promise: FT-3
    #[tokio::test(start_paused = true)]
    async fn no_more_waits_than_comes_between_two_rounds() {
        const ENDS: u32 = 100;
        let (courier, inbox, _task) = start();
        let (mut brought, mut waited) = (0, 0);
        for _ in 0..50 {
            (0..ENDS).for_each(|number| courier.post(&inbox, letter(number)));
            let (waiting, room) = {
                let parcels = &courier.lock().parcels;
                (parcels.len(), parcels.capacity())
            };
            waited = waited.max(waiting);
            assert!(room <= 2 * ENDS as usize, "room is kept for {room}");
            tokio::time::sleep(PAUSE).await;
            brought += inbox.take_now().len();
        }
        assert_eq!(waited, ENDS as usize);
        tokio::time::sleep(PAUSE).await;
        brought += inbox.take_now().len();
        assert_eq!(brought, 50 * ENDS as usize, "all of it arrives");
        assert!(courier.lock().parcels.is_empty());
        assert_eq!(Arc::strong_count(&inbox), 1, "nothing of a partition is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_wait_goes_at_once_and_behind_what_came_before_it() {
        let (courier, inbox, _task) = start();
        courier.post(&inbox, letter(1));
        settle().await;
        courier.post(&inbox, letter(2));
        settle().await;
        courier.bring(&inbox, letter(3));
        assert_eq!(numbers(inbox.take_now()), ["1", "2", "3"]);
        tokio::time::sleep(PAUSE * 3).await;
        assert!(inbox.take_now().is_empty(), "nothing is brought twice");
        courier.post(&inbox, letter(4));
        settle().await;
        assert_eq!(numbers(inbox.take_now()), ["4"], "the courier is called again");
    }
}
