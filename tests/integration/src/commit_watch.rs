//! Looking at the committed offsets all through a run, as any other client would see them.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::{Broker, Committed};

const EVERY: Duration = Duration::from_millis(100);

/// A thread that looks at a group's committed offsets.
#[derive(Debug)]
pub(crate) struct CommitWatch {
    /// Dropped to end the watch.
    stop: Sender<()>,
    thread: JoinHandle<Result<Watched>>,
}

/// What was seen in the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    committed: Committed,
    looks: u64,
    advances: u64,
}

impl CommitWatch {
    pub(crate) fn start(broker: &Broker, group: &str, topic: &str) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (group, topic) = (group.to_owned(), topic.to_owned());
        let broker = broker.clone();
        let watch = move || {
            let offsets = broker.group_offsets(&group, &topic)?;
            let mut watched = Watched::default();
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                // A broker that is away answers nothing; `finish` says what must have been seen.
                let Ok(now) = offsets.read() else { continue };
                watched.looks += 1;
                watched.advances += u64::from(watched.committed.advance_to(&now)?);
            }
            Ok(watched)
        };
        let thread = thread::Builder::new().name("commit-watch".to_owned()).spawn(watch)?;
        Ok(Self { stop, thread })
    }

    /// Ends the watch; `now` is what is committed.
    ///
    /// # Errors
    ///
    /// An offset went back, or too little was seen to say that none did.
    pub(crate) fn finish(self, now: &Committed) -> Result<()> {
        drop(self.stop);
        let watched = self.thread.join().map_err(|_| anyhow!("the commit watch panicked"))?;
        watched.context("watching the committed offsets")?.conclude(now)
    }
}

impl Watched {
    fn conclude(mut self, now: &Committed) -> Result<()> {
        self.committed.advance_to(now)?;
        ensure!(
            self.advances > 0,
            "the watch saw no commit in {} looks, so it shows nothing",
            self.looks
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_saw_nothing_shows_nothing() {
        let now = Committed::from_iter([(0, 5)]);
        assert!(Watched { looks: 9, ..Watched::default() }.conclude(&now).is_err());
    }

    #[test]
    fn the_last_look_counts_too() {
        let watched = Watched { committed: Committed::from_iter([(0, 5)]), looks: 2, advances: 1 };
        watched.clone().conclude(&Committed::from_iter([(0, 6)])).expect("it grew");
        assert!(watched.conclude(&Committed::from_iter([(0, 4)])).is_err());
    }
}
