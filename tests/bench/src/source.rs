//! The source topic, filled before anybody reads it.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use crate::broker::{Broker, Stamp, Topic, client_config};
use crate::message::{PARTITIONS, offset_of, partition_of, write_key, write_value};

/// The broker takes nothing for this long.
const FILL_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages `0..count`, each at the place that its number says.
pub(crate) struct Source<'b> {
    pub(crate) topic: Topic<'b>,
    producer: BaseProducer<FirstFailure>,
    count: Cell<u64>,
}

/// Remembers the first message that the broker refused.
#[derive(Default)]
struct FirstFailure(OnceLock<KafkaError>);

impl ClientContext for FirstFailure {}

impl ProducerContext for FirstFailure {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // Only the first one is kept.
            drop(self.0.set(error.clone()));
        }
    }
}

/// How its messages come in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Batches {
    /// Many at once, before the run.
    Large,
    /// Each by itself, during the run.
    Single,
}

impl<'b> Source<'b> {
    /// Creates an empty one.
    pub(crate) fn create(broker: &'b Broker, batches: Batches) -> Result<Self> {
        let linger_millis = match batches {
            Batches::Large => "20",
            Batches::Single => "0",
        };
        let topic = broker.create_topic("source", Stamp::Producer)?;
        let producer = client_config(broker.address())
            // A retry must neither double a message nor swap two, as places are counted on.
            .set("enable.idempotence", "true")
            // Not compressed: such messages shrink so well that one fetch would fill every buffer of
            // a client, which no load of a user does.
            .set("compression.type", "none")
            .set("linger.ms", linger_millis)
            // As most producers have it: a consumer holds whole batches, one of each partition.
            .set("batch.size", "16384")
            .create_with_context(FirstFailure::default())
            .context("failed to make a producer")?;
        Ok(Self { topic, producer, count: Cell::new(0) })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Appends messages until there are at least `count`, and checks with the broker.
    pub(crate) fn fill_to(&self, count: u64) -> Result<()> {
        let count = count.next_multiple_of(PARTITIONS as u64);
        let (mut key, mut value) = (String::new(), String::new());
        for n in self.count.get()..count {
            write_key(n, &mut key);
            write_value(n, &mut value);
            self.send(n, &key, &value)?;
        }
        self.count.set(self.count.get().max(count));
        self.producer.flush(FILL_TIMEOUT).context("failed to fill the source topic")?;
        if let Some(error) = self.producer.context().0.get() {
            bail!("failed to fill the source topic: {error}");
        }
        let expected = offset_of(self.count.get());
        let ends = self.topic.end_offsets()?;
        ensure!(
            ends.iter().all(|end| *end == expected),
            "the source topic was filled to {ends:?}, expected {expected} in every partition"
        );
        Ok(())
    }

    /// Sends message `n` now. For a load at a pace; [`Self::fill_to`] checks, this does not.
    pub(crate) fn send_next(&self) -> Result<()> {
        let (mut key, mut value) = (String::new(), String::new());
        let n = self.count.get();
        write_key(n, &mut key);
        write_value(n, &mut value);
        self.send(n, &key, &value)?;
        self.count.set(n + 1);
        Ok(())
    }

    /// Serves the reports of messages that were sent.
    pub(crate) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Says whether a group that committed these offsets may have been waiting for messages. One
    /// empty partition is enough: its share of the work was not there.
    pub(crate) fn ran_dry(&self, committed: &[i64]) -> bool {
        let end = offset_of(self.count.get());
        committed.iter().any(|offset| *offset >= end)
    }

    fn send(&self, n: u64, key: &str, value: &str) -> Result<()> {
        let partition = i32::try_from(partition_of(n)).expect("a small number");
        let mut record =
            BaseRecord::to(&self.topic.name).partition(partition).key(key).payload(value);
        let deadline = Instant::now() + FILL_TIMEOUT;
        while let Err((error, unsent)) = self.producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() > deadline {
                return Err(error).context("failed to fill the source topic");
            }
            self.producer.poll(Duration::from_millis(10));
            record = unsent;
        }
        if n.is_multiple_of(1024) {
            self.poll();
        }
        Ok(())
    }
}
