//! What the tests of the sink share.

use drakkar_api::{
    Batch, BatchItem, DeliveryId, Headers, KafkaRecord, Offset, PartitionId, Sink, SinkId,
    SinkKind, Verdict,
};
use drakkar_kafka::ClientSection;
use drakkar_mock_kafka::MockKafka;
use drakkar_sink_kafka::{KafkaSink, KafkaSinkSection};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::{ClientConfig, Offset as Position, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The topic of most tests.
pub(crate) const TOPIC: &str = "results";

/// Starts a broker with the topic.
pub(crate) fn broker(partitions: i32) -> MockKafka {
    let broker = MockKafka::start(1).unwrap();
    broker.create_topic(TOPIC, partitions).unwrap();
    broker
}

/// The section of a sink whose attempts are as short as may be.
pub(crate) fn section(topic: &str) -> KafkaSinkSection {
    KafkaSinkSection { attempt_timeout_seconds: 4.0, ..KafkaSinkSection::new(topic) }
}

/// A sink that is not connected, with the client settings of a section `kafka` that names the brokers.
pub(crate) fn sink(brokers: &str, section: KafkaSinkSection) -> KafkaSink {
    sink_with(brokers, section, &[])
}

/// The same with raw options.
pub(crate) fn sink_with(
    brokers: &str,
    section: KafkaSinkSection,
    options: &[(&str, &str)],
) -> KafkaSink {
    let inherited = ClientSection { brokers: brokers.to_owned(), ..ClientSection::default() };
    let client = section.client_section(&inherited).validate("sinks.kafka.test").unwrap();
    let config = section.validate("sinks.kafka.test").unwrap();
    let mut base = client.producer_config("test", config.producer_options());
    // Outages of tests are short.
    base.set("reconnect.backoff.max.ms", "100");
    for (name, value) in options {
        base.set(*name, *value);
    }
    KafkaSink::new(SinkId::new(SinkKind::Kafka, "test"), config, base)
}

/// What is quick: far from the deadlines of seconds that would be waited for.
const QUICK: Duration = Duration::from_secs(4);

/// Acts until it is quick once. What waits for a deadline does so each time; a busy machine is slow only
/// now and then.
pub(crate) async fn assert_quick(mut act: impl AsyncFnMut(usize)) {
    let mut all = Vec::new();
    while all.len() < 5 {
        let began = Instant::now();
        act(all.len()).await;
        let lasted = began.elapsed();
        if lasted < QUICK {
            return;
        }
        all.push(lasted);
    }
    panic!("it is never quick: {all:?}");
}

/// A connected sink on the topic of most tests.
pub(crate) async fn connected(broker: &MockKafka) -> KafkaSink {
    let sink = sink(&broker.bootstrap_servers(), section(TOPIC));
    sink.connect().await.unwrap();
    sink
}

/// Delivers the records as one batch.
pub(crate) async fn deliver(sink: &KafkaSink, records: &[KafkaRecord]) -> Vec<Verdict> {
    let ids: Vec<_> = (0..records.len() as i64)
        .map(|offset| DeliveryId::new(PartitionId::new("in", 0), Offset::new(offset), 0, 0))
        .collect();
    let items = records.iter().zip(&ids).map(|(payload, id)| BatchItem { payload, id }).collect();
    sink.deliver(Batch::new(items)).await
}

/// Reads at least `count` records of the topic, of each partition in order.
pub(crate) fn read(brokers: &str, topic: &str, count: usize) -> Vec<KafkaRecord> {
    let records =
        read_for(brokers, topic, Duration::from_secs(30), |records| records.len() >= count);
    assert!(records.len() >= count, "{} of {count} records arrived", records.len());
    records
}

/// Reads until it is enough and nothing more comes, or the time is over.
pub(crate) fn read_for(
    brokers: &str,
    topic: &str,
    limit: Duration,
    enough: impl Fn(&[KafkaRecord]) -> bool,
) -> Vec<KafkaRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("fetch.wait.max.ms", "10")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let mut positions = TopicPartitionList::new();
    let partitions: BTreeSet<i32> =
        metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    for partition in &partitions {
        positions.add_partition_offset(topic, *partition, Position::Beginning).unwrap();
    }
    consumer.assign(&positions).unwrap();
    let began = Instant::now();
    let mut records = Vec::new();
    let mut at_end = BTreeSet::new();
    while began.elapsed() < limit && !(enough(&records) && at_end == partitions) {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                at_end.remove(&message.partition());
                records.push(record(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
            }
            // An injected error or a broker that is slow to come back.
            Some(Err(_)) | None => {}
        }
    }
    records
}

fn record(message: &BorrowedMessage<'_>) -> KafkaRecord {
    let mut headers = Headers::new();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        headers.push(header.key, header.value.map(|value| value.to_vec().into()));
    }
    KafkaRecord {
        sink: None,
        key: message.key().map(|key| key.to_vec().into()),
        value: message.payload().map(|value| value.to_vec().into()),
        headers,
    }
}
