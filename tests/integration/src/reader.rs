//! Reading a topic from its beginning to where it ends now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedHeaders, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::Broker;

/// For a whole topic of a test.
const READ_DEADLINE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(100);

/// A topic and the place where each partition's reading stops.
pub(crate) struct Reading {
    consumer: BaseConsumer,
    topic: String,
    ends: BTreeMap<i32, i64>,
}

/// One record.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
    /// When it was written, in milliseconds since 1970: by the broker's clock where the topic says so.
    pub(crate) at: i64,
    pub(crate) headers: Option<&'a BorrowedHeaders>,
}

impl Reading {
    /// Fixes the end: what is written after this call is not read.
    pub(crate) fn of(broker: &Broker, topic: &str) -> Result<Self> {
        let ends = broker.end_offsets(topic)?;
        let consumer = broker.reader()?;
        let mut assignment = TopicPartitionList::new();
        for &partition in ends.keys() {
            // Not `Beginning`: a record that the broker has already deleted must be missed.
            assignment.add_partition_offset(topic, partition, Offset::Offset(0))?;
        }
        consumer.assign(&assignment)?;
        Ok(Self { consumer, topic: topic.to_owned(), ends })
    }

    /// Visits every record, in order within a partition.
    ///
    /// # Errors
    ///
    /// The visit failed, a record is missing or without a key, or the end was not reached in time.
    pub(crate) fn for_each(self, mut visit: impl FnMut(Found<'_>) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut next: BTreeMap<i32, i64> = self.ends.keys().map(|it| (*it, 0)).collect();
        while next != self.ends {
            ensure!(
                Instant::now() < deadline,
                "read {} only to {next:?} of {:?} in {READ_DEADLINE:?}",
                self.topic,
                self.ends
            );
            let Some(message) = self.consumer.poll(POLL) else { continue };
            let message = message.with_context(|| format!("reading {}", self.topic))?;
            let partition = message.partition();
            let expected =
                next.get_mut(&partition).context("a partition that was not asked for")?;
            if message.offset() >= self.ends[&partition] {
                continue;
            }
            ensure!(
                message.offset() == *expected,
                "{} has no record at {partition}:{expected}, the next is {}",
                self.topic,
                message.offset()
            );
            *expected += 1;
            let key = message.key().with_context(|| {
                format!("{} has a record without a key at {partition}", self.topic)
            })?;
            let at = message.timestamp().to_millis();
            let at = at.with_context(|| format!("{} has a record without a time", self.topic))?;
            visit(Found { key, value: message.payload(), at, headers: message.headers() })?;
        }
        Ok(())
    }
}
