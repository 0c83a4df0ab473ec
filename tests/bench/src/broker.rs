//! The broker: topics, offsets and its clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message, Timestamp};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::block_on::block_on;
use crate::message::PARTITIONS;
use crate::wall_clock::unix_micros;

/// One request to a broker on the same machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A topic that is read back gives nothing for this long.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// What the broker's clock may differ, beyond the time that the request took. Append times are cut
/// to milliseconds.
const SKEW_MAX_MICROS: i64 = 2_000;

/// A connection to the broker that both sides are measured on.
pub(crate) struct Broker {
    address: String,
    admin: AdminClient<DefaultClientContext>,
    observer: BaseConsumer,
    names_given: AtomicU64,
}

/// A topic that is deleted when this goes.
pub(crate) struct Topic<'b> {
    broker: &'b Broker,
    pub(crate) name: String,
}

/// Who stamps the records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stamp {
    Producer,
    /// The broker, when it appends them.
    Append,
}

impl Broker {
    /// Connects, and checks that the broker answers and goes by the clock of this machine.
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let config = client_config(address);
        let broker = Self {
            address: address.to_owned(),
            admin: config.create().context("failed to make an admin client")?,
            observer: config.create().context("failed to make a consumer")?,
            names_given: AtomicU64::new(0),
        };
        let reached = broker.observer.fetch_metadata(None, REQUEST_TIMEOUT);
        reached.with_context(|| format!("failed to reach Kafka at {address}"))?;
        broker.check_clock()?;
        Ok(broker)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Gives a name that no topic and no group has had.
    pub(crate) fn fresh_name(&self, what: &str) -> String {
        let number = self.names_given.fetch_add(1, Ordering::Relaxed);
        format!("drakkar-bench-{}-{}-{number}-{what}", std::process::id(), unix_micros())
    }

    /// Creates a topic with 16 partitions and waits until every one of them answers.
    pub(crate) fn create_topic(&self, what: &str, stamp: Stamp) -> Result<Topic<'_>> {
        let name = self.fresh_name(what);
        let partitions = i32::try_from(PARTITIONS).expect("a small number");
        let stamp = match stamp {
            Stamp::Producer => "CreateTime",
            Stamp::Append => "LogAppendTime",
        };
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1))
            .set("message.timestamp.type", stamp)
            // The disk is wanted back at once, and not in the next minute's run.
            .set("file.delete.delay.ms", "1000");
        let results = block_on(self.admin.create_topics([&new], &admin_options()));
        let results = results.with_context(|| format!("failed to create topic \"{name}\""))?;
        if let Some(Err((name, code))) = results.into_iter().next() {
            bail!("failed to create topic \"{name}\": {code}");
        }
        let topic = Topic { broker: self, name };
        topic.wait_until_it_answers()?;
        Ok(topic)
    }

    /// Produces one record and compares the append time with the time here. Latencies subtract one
    /// from the other, and throughput counts records between two moments of this machine.
    fn check_clock(&self) -> Result<()> {
        let topic = self.create_topic("clock", Stamp::Append)?;
        let producer: ThreadedProducer<DefaultProducerContext> =
            client_config(&self.address).create().context("failed to make a producer")?;
        // The first record pays for the connection.
        for _ in 0..2 {
            let before = unix_micros();
            let record = BaseRecord::<(), str>::to(&topic.name).payload("now");
            producer.send(record).map_err(|(error, _)| error).context("failed to produce")?;
            producer.flush(REQUEST_TIMEOUT).context("failed to produce")?;
            let after = unix_micros();
            let mut appended = None;
            topic.read(|record| {
                appended = appended.max(Some(append_millis(record)? * 1000));
                Ok(())
            })?;
            let appended = appended.context("a record that was acknowledged is not there")?;
            let is_between =
                before - SKEW_MAX_MICROS <= appended && appended <= after + SKEW_MAX_MICROS;
            ensure!(
                is_between,
                "the broker does not go by the clock of this machine: it appended at {appended} us \
                 what was sent between {before} and {after} us"
            );
        }
        Ok(())
    }
}

impl Topic<'_> {
    /// The offset that the next record of each partition will have.
    pub(crate) fn end_offsets(&self) -> Result<Vec<i64>> {
        let end = |partition| {
            let watermarks =
                self.broker.observer.fetch_watermarks(&self.name, partition, REQUEST_TIMEOUT);
            watermarks.map(|(_, end)| end)
        };
        let ends: Result<Vec<i64>, _> = partition_ids().map(end).collect();
        ends.with_context(|| format!("failed to ask for the ends of topic \"{}\"", self.name))
    }

    /// The number of records, as nothing here is ever compacted or expires.
    pub(crate) fn record_count(&self) -> Result<u64> {
        let count: i64 = self.end_offsets()?.iter().sum();
        u64::try_from(count).context("a topic ends before it begins")
    }

    /// The offset that a group would go on from in each partition; zero where it committed none.
    pub(crate) fn committed_by(&self, group: &str) -> Result<Vec<i64>> {
        let consumer: BaseConsumer = client_config(&self.broker.address)
            .set("group.id", group)
            .create()
            .context("failed to make a consumer")?;
        let mut asked = TopicPartitionList::new();
        for partition in partition_ids() {
            asked.add_partition(&self.name, partition);
        }
        let answer = consumer
            .committed_offsets(asked, REQUEST_TIMEOUT)
            .context("failed to ask for the committed offsets")?;
        let mut committed = vec![0; PARTITIONS];
        for element in answer.elements() {
            element.error().context("failed to ask for a committed offset")?;
            let partition = usize::try_from(element.partition()).context("a strange partition")?;
            let slot = committed.get_mut(partition).context("a partition that nobody asked for")?;
            *slot = match element.offset() {
                Offset::Offset(offset) => offset,
                Offset::Invalid => 0,
                other => bail!("group \"{group}\" committed {other:?}"),
            };
        }
        Ok(committed)
    }

    /// Reads every record that is in the topic now, once; in the order of offsets within a
    /// partition.
    pub(crate) fn read(
        &self,
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
    ) -> Result<()> {
        let consumer: BaseConsumer = client_config(&self.broker.address)
            .set("group.id", "drakkar-bench-reader")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "10")
            .create()
            .context("failed to make a consumer")?;
        let ends = self.end_offsets()?;
        let mut assigned = TopicPartitionList::new();
        for (partition, end) in partition_ids().zip(&ends) {
            if *end > 0 {
                let from = Offset::Offset(0);
                assigned.add_partition_offset(&self.name, partition, from).context("an offset")?;
            }
        }
        consumer.assign(&assigned).context("failed to assign")?;
        let mut next = [0; PARTITIONS];
        let mut left: i64 = ends.iter().sum();
        while left > 0 {
            let record = consumer.poll(READ_TIMEOUT);
            let record = record.with_context(|| {
                format!("topic \"{}\" gave nothing for {READ_TIMEOUT:?}: {left} missing", self.name)
            })?;
            let record = record.with_context(|| format!("failed to read \"{}\"", self.name))?;
            let partition = usize::try_from(record.partition()).context("a strange partition")?;
            if record.offset() >= ends[partition] {
                continue;
            }
            let (expected, found) = (next[partition], record.offset());
            ensure!(expected == found, "offset {found} follows where {expected} was expected");
            next[partition] += 1;
            left -= 1;
            visit(&record)?;
        }
        Ok(())
    }

    /// A partition may have a leader by name that does not lead yet. Asks for the metadata each
    /// time, as the client would otherwise remember for half a minute that it did not know the
    /// topic.
    fn wait_until_it_answers(&self) -> Result<()> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let has_leaders = self.has_leaders()?;
            let answer = self.end_offsets();
            if has_leaders && answer.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                answer.context("a fresh topic does not answer")?;
                bail!("a fresh topic has no leaders in {REQUEST_TIMEOUT:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_leaders(&self) -> Result<bool> {
        let metadata = self.broker.observer.fetch_metadata(Some(&self.name), REQUEST_TIMEOUT);
        let metadata = metadata.context("failed to ask for metadata")?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let is_led = partitions.iter().all(|it| it.error().is_none() && it.leader() >= 0);
        Ok(partitions.len() == PARTITIONS && is_led)
    }
}

impl Drop for Topic<'_> {
    /// A topic that stays costs disk and nothing else, so that this is no error.
    fn drop(&mut self) {
        let deleted =
            block_on(self.broker.admin.delete_topics(&[self.name.as_str()], &admin_options()));
        let problem = match deleted.map(|results| results.into_iter().next()) {
            Ok(Some(Err((_, code)))) => code.to_string(),
            Err(error) => error.to_string(),
            Ok(_) => return,
        };
        eprintln!("warning: failed to delete topic \"{}\": {problem}", self.name);
    }
}

/// Gives when the broker appended a record, in milliseconds since 1970.
pub(crate) fn append_millis(record: &BorrowedMessage<'_>) -> Result<i64> {
    match record.timestamp() {
        Timestamp::LogAppendTime(millis) => Ok(millis),
        other => bail!("the broker did not stamp a record: {other:?}"),
    }
}

/// What every client here begins with.
pub(crate) fn client_config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

fn partition_ids() -> impl Iterator<Item = i32> {
    0..i32::try_from(PARTITIONS).expect("a small number")
}
