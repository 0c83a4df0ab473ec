//! Filling the source topic.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::ClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::{Broker, load};

/// For everything to be confirmed, a restart of the broker included.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(90);

/// When the client holds as much as it may.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The number of a message that may stand anywhere.
const NONSENSE: usize = usize::MAX;

/// Produces messages 0, 1, .. in order.
pub(crate) struct Producer {
    topic: String,
    client: ThreadedProducer<Reports>,
    values: Values,
    sent: u64,
}

/// What makes the value of a message of its number.
pub(crate) type Values = Box<dyn Fn(u64) -> String + Send>;

impl Producer {
    pub(crate) fn new(broker: &Broker, topic: &str) -> Result<Self> {
        Self::with_values(broker, topic, Box::new(load::value))
    }

    pub(crate) fn with_values(broker: &Broker, topic: &str, values: Values) -> Result<Self> {
        let mut config = broker.client();
        // Each message exactly once and in order, also over a restart of the broker.
        config.set("enable.idempotence", "true").set("linger.ms", "5");
        let client = config.create_with_context(Reports::default())?;
        Ok(Self { topic: topic.to_owned(), client, values, sent: 0 })
    }

    /// How many messages have been sent, confirmed or not.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends on until `messages` are sent in all.
    pub(crate) fn send_until(&mut self, messages: u64) -> Result<()> {
        while self.sent < messages {
            let n = self.sent;
            let (key, value, (partition, _)) = (load::key(n), (self.values)(n), load::place(n)?);
            let mut record = BaseRecord::with_opaque_to(&self.topic, usize::try_from(n)?)
                .partition(partition)
                .key(&key)
                .payload(&value);
            let deadline = Instant::now() + CONFIRM_DEADLINE;
            while let Err((error, refused)) = self.client.send(record) {
                let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                if !is_full || Instant::now() >= deadline {
                    return Err(error.into());
                }
                record = refused;
                thread::sleep(FULL_PAUSE);
            }
            self.sent += 1;
        }
        Ok(())
    }

    /// Sends one message whose value is not JSON, and waits until the broker has it.
    pub(crate) fn send_nonsense(&self) -> Result<()> {
        let record: BaseRecord<'_, str, str, usize> =
            BaseRecord::with_opaque_to(&self.topic, NONSENSE).payload("no JSON");
        self.client.send(record).map_err(|(error, _)| error)?;
        self.client.flush(CONFIRM_DEADLINE).context("producing")?;
        let reports: &Reports = self.client.context();
        ensure!(reports.confirmed.load(Ordering::SeqCst) == 1, "the broker refused it");
        Ok(())
    }

    /// Waits until every message stands where it must.
    ///
    /// # Errors
    ///
    /// One of them does not.
    pub(crate) fn confirm(&self) -> Result<()> {
        self.client.flush(CONFIRM_DEADLINE).context("producing")?;
        let reports: &Reports = self.client.context();
        let confirmed = reports.confirmed.load(Ordering::SeqCst);
        let wrong = reports.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = wrong.first() {
            return Err(anyhow!("{} messages were not produced: {first}", wrong.len()));
        }
        ensure!(confirmed == self.sent, "{confirmed} of {} messages were produced", self.sent);
        Ok(())
    }
}

/// What the broker said about each message.
#[derive(Debug, Default)]
struct Reports {
    confirmed: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    /// The number of the message.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, n: usize) {
        match check(result, n) {
            Ok(()) => {
                self.confirmed.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => {
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                wrong.push(format!("message {n}: {error:#}"));
            }
        }
    }
}

fn check(result: &DeliveryResult<'_>, n: usize) -> Result<()> {
    let message = result.as_ref().map_err(|(error, _)| anyhow!("{error}"))?;
    if n == NONSENSE {
        return Ok(());
    }
    let place = (message.partition(), message.offset());
    ensure!(place == load::place(u64::try_from(n)?)?, "it stands at {place:?}");
    Ok(())
}
