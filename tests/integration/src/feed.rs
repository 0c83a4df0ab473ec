//! A producer that keeps the workers busy for as long as a test needs.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::producer::Producer;
use crate::{Broker, Load};

const EVERY: Duration = Duration::from_millis(50);

/// Keeps a backlog in the source, so that a fault always meets workers in the middle of their work,
/// however fast they are.
#[derive(Debug)]
pub struct Feed {
    /// Dropped to end the feed.
    stop: Sender<()>,
    thread: JoinHandle<Result<u64>>,
    fanout: u64,
}

impl Feed {
    /// `backlog` is how many messages more than the sink shows are produced at any time.
    pub(crate) fn start(
        broker: &Broker,
        source: &str,
        sink: &str,
        fanout: u64,
        backlog: u64,
    ) -> Result<Self> {
        let mut producer = Producer::new(broker, source)?;
        producer.send_until(backlog)?;
        producer.confirm()?;
        let ends = broker.ends(sink)?;
        // While the broker is away nothing is finished either.
        let due = move || Some(ends.count().ok()? / fanout + backlog);
        Self::spawn(producer, fanout, due)
    }

    /// `per_second` messages are produced, however far the workers are.
    pub(crate) fn steady(producer: Producer, fanout: u64, per_second: u64) -> Result<Self> {
        let begun = Instant::now();
        let due = move || {
            let elapsed = u64::try_from(begun.elapsed().as_millis()).ok()?;
            Some(elapsed * per_second / 1_000)
        };
        Self::spawn(producer, fanout, due)
    }

    /// `due` says how many messages are to be produced by now, if that is known.
    fn spawn(
        mut producer: Producer,
        fanout: u64,
        due: impl Fn() -> Option<u64> + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let feed = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(due) = due() else { continue };
                producer.send_until(due)?;
            }
            producer.confirm()?;
            Ok(producer.sent())
        };
        let thread = thread::Builder::new().name("feed".to_owned()).spawn(feed)?;
        Ok(Self { stop, thread, fanout })
    }

    /// Ends the feed and says what was produced in all.
    ///
    /// # Errors
    ///
    /// Not everything that was sent was confirmed.
    pub fn stop(self) -> Result<Load> {
        drop(self.stop);
        let messages = self.thread.join().map_err(|_| anyhow!("the feed panicked"))?;
        Ok(Load { messages: messages.context("feeding the source")?, fanout: self.fanout })
    }
}
