//! The sample broker: librdkafka's mock cluster inside this process, filled with sample messages.

use anyhow::{Context as _, ensure};
use drakkar_mock_kafka::MockKafka;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

/// The topic that the worker reads.
pub(crate) const SOURCE: &str = "jobs";
/// The topic that the worker writes.
pub(crate) const SINK: &str = "word-counts";
/// The worker's consumer group.
pub(crate) const GROUP: &str = "quickstart";

const PARTITIONS: i32 = 8;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the mock cluster keeps of each partition; older data is dropped without a word.
const PARTITION_BYTES: u64 = 5 * 1024 * 1024;
/// A generous size of one message on the broker.
const MESSAGE_BYTES: u64 = 200;

/// An in-process broker with sample messages in it.
pub(crate) struct Broker {
    cluster: MockKafka,
}

impl Broker {
    /// Starts the broker and produces `messages` sample messages.
    pub(crate) fn start(messages: u64) -> anyhow::Result<Self> {
        let per_partition = messages.div_ceil(PARTITIONS.unsigned_abs().into());
        ensure!(
            per_partition * MESSAGE_BYTES < PARTITION_BYTES,
            "{messages} messages are more than the in-process broker keeps"
        );
        let cluster = MockKafka::start(1).context("failed to start the in-process broker")?;
        cluster.create_topic(SOURCE, PARTITIONS)?;
        cluster.create_topic(SINK, PARTITIONS)?;
        cluster.create_topic(&format!("{SOURCE}_dlq"), 1)?;
        let broker = Self { cluster };
        broker.produce(messages)?;
        Ok(broker)
    }

    /// Returns the address for clients.
    pub(crate) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    fn produce(&self, messages: u64) -> anyhow::Result<()> {
        let producer: BaseProducer = self.client().set("acks", "all").create()?;
        for number in 0..messages {
            let id = format!("job-{number:06}");
            let words = usize::try_from(number % 9 + 1)?;
            let text = vec!["viking"; words].join(" ");
            let value = serde_json::json!({ "id": id, "text": text }).to_string();
            let partition = i32::try_from(number % u64::from(PARTITIONS.unsigned_abs()))?;
            let record = BaseRecord::to(SOURCE).partition(partition).key(&id).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
            if number % 1000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(TIMEOUT).context("failed to produce the sample messages")
    }

    /// Returns how many records a topic holds.
    pub(crate) fn count(&self, topic: &str) -> anyhow::Result<u64> {
        let ends = self.ends(topic)?;
        Ok(u64::try_from(ends.iter().sum::<i64>())?)
    }

    /// Returns the end offset of each partition.
    pub(crate) fn ends(&self, topic: &str) -> anyhow::Result<Vec<i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", "summary").create()?;
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        (0..i32::try_from(partitions)?)
            .map(|partition| Ok(consumer.fetch_watermarks(topic, partition, TIMEOUT)?.1))
            .collect()
    }

    /// Returns the position that the worker committed for each partition of the source.
    pub(crate) fn committed(&self) -> anyhow::Result<Vec<i64>> {
        let consumer: BaseConsumer = self.client().set("group.id", GROUP).create()?;
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(SOURCE, 0, PARTITIONS - 1);
        let committed = consumer.committed_offsets(wanted, TIMEOUT)?;
        let position = |offset: Offset| offset.to_raw().filter(|offset| *offset >= 0).unwrap_or(0);
        Ok(committed.elements().iter().map(|element| position(element.offset())).collect())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }
}
