//! Tests of the Kafka sink with real brokers: what the mock cluster does not do.
//!
//! `cargo xtask integration kafka` starts the brokers and tells where they are; without them the
//! tests fail.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![allow(dead_code, clippy::allow_attributes, reason = "the helpers of the other tests are shared")]

#[path = "../it/common.rs"]
mod common;

use bytes::Bytes;
use common::{deliver, read, read_for, section, sink};
use drakkar_api::{KafkaRecord, Sink, SinkErrorKind, Verdict};
use drakkar_sink_kafka::{KafkaSink, KafkaSinkSection};
use drakkar_testkit::conformance::{SinkFixture, sink_suite};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn brokers() -> String {
    std::env::var("DRAKKAR_TEST_KAFKA").expect("DRAKKAR_TEST_KAFKA names the broker as host:port")
}

/// A topic's name that nobody has used.
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("sink-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap()
}

async fn create_topic(partitions: i32, settings: &[(&str, &str)]) -> String {
    let name = fresh_name();
    let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        topic = topic.set(name, value);
    }
    let answers = admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
    answers.into_iter().next().unwrap().unwrap();
    name
}

fn values(count: usize, length: usize) -> Vec<KafkaRecord> {
    (0..count).map(|n| KafkaRecord::bytes(format!("{n:0length$}"))).collect()
}

fn confirmed(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| **verdict == Verdict::Confirmed).count()
}

#[tokio::test]
async fn the_topics_limit_is_learned_and_kept_by_records_and_requests() {
    let topic = create_topic(1, &[("max.message.bytes", "20000")]).await;
    let sink = sink(&brokers(), section(&topic));
    sink.connect().await.unwrap();
    let limit = sink.limits().item_bytes_max.unwrap();
    assert_eq!(limit, 20_000 - 128 - 512);
    // Five times the limit in all, and one record that is just as large as may be.
    let mut records = values(500, 200);
    records.push(KafkaRecord::bytes(vec![b'x'; limit]));
    records.push(KafkaRecord::bytes(vec![b'x'; 20_001]));
    let verdicts = deliver(&sink, &records).await;
    assert_eq!(confirmed(&verdicts), 501);
    let Verdict::Rejected(error) = &verdicts[501] else { panic!("{:?}", verdicts[501]) };
    assert_eq!(error.kind(), SinkErrorKind::TooLarge);
    assert_eq!(read(&brokers(), &topic, 501), records[..501]);
}

#[tokio::test]
async fn a_limit_above_the_clients_default_can_be_used() {
    let topic = create_topic(1, &[("max.message.bytes", "3000000")]).await;
    let sink = sink(&brokers(), section(&topic));
    sink.connect().await.unwrap();
    let record = KafkaRecord::bytes(vec![b'x'; 2_500_000]);
    assert_eq!(deliver(&sink, &[record]).await, [Verdict::Confirmed]);
}

// Promise: DL-3
#[tokio::test]
async fn a_limit_that_is_lowered_convicts_only_who_is_too_large() {
    let topic = create_topic(1, &[]).await;
    let sink = sink(&brokers(), section(&topic));
    sink.connect().await.unwrap();
    let mut records = values(50, 1000);
    assert_eq!(confirmed(&deliver(&sink, &records).await), 50);
    let lower = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "5000");
    let answers = admin().alter_configs([&lower], &AdminOptions::new()).await.unwrap();
    answers.into_iter().next().unwrap().unwrap();
    records.push(KafkaRecord::bytes(vec![b'x'; 10_000]));
    let mut left = records;
    for _ in 0..20 {
        let verdicts = deliver(&sink, &left).await;
        let retried = left.into_iter().zip(&verdicts);
        left = retried
            .filter(|(_, verdict)| matches!(verdict, Verdict::NotApplied(_)))
            .map(|(record, _)| record)
            .collect();
        let rejected = verdicts.iter().filter(|v| matches!(v, Verdict::Rejected(_))).count();
        if rejected == 1 && left.is_empty() {
            assert_eq!(read(&brokers(), &topic, 100).len(), 100);
            return;
        }
        assert_eq!(rejected, 0, "{verdicts:?}");
    }
    panic!("{} records are left", left.len());
}

#[tokio::test]
async fn the_dead_letter_topic_is_created() {
    let topic = fresh_name();
    let missing = sink(&brokers(), section(&topic)).connect().await.unwrap_err();
    assert_eq!(missing.kind(), SinkErrorKind::NoTarget, "{missing}");
    let sink = sink(&brokers(), KafkaSinkSection::dead_letters(&topic));
    sink.connect().await.unwrap();
    assert_eq!(deliver(&sink, &values(1, 10)).await, [Verdict::Confirmed]);
}

#[tokio::test]
async fn a_topic_that_is_deleted_is_no_fault_of_the_records() {
    let topic = create_topic(1, &[]).await;
    let sink = sink(&brokers(), section(&topic));
    sink.connect().await.unwrap();
    assert_eq!(confirmed(&deliver(&sink, &values(1, 10)).await), 1);
    admin().delete_topics(&[&topic], &AdminOptions::new()).await.unwrap();
    // It takes the broker a moment.
    for _ in 0..200 {
        let verdicts = deliver(&sink, &values(1, 10)).await;
        match &verdicts[0] {
            Verdict::Confirmed => tokio::time::sleep(Duration::from_millis(50)).await,
            Verdict::NotApplied(_) => return,
            other => panic!("{other:?}"),
        }
    }
    panic!("the topic is still there");
}

/// A target is a key of a topic of four partitions.
struct Fixture(String);

impl SinkFixture for Fixture {
    type Sink = KafkaSink;

    fn sink(&self) -> KafkaSink {
        sink(&brokers(), section(&self.0))
    }

    fn unusable_sink(&self) -> KafkaSink {
        sink(&brokers(), section(&fresh_name()))
    }

    fn item(&self, target: u32, _number: u32, content: &[u8]) -> KafkaRecord {
        KafkaRecord::bytes(content.to_vec()).key(target.to_string())
    }

    fn oversized_item(&self, sink: &KafkaSink) -> Option<KafkaRecord> {
        let limit = sink.limits().item_bytes_max.unwrap();
        Some(KafkaRecord::bytes(vec![b'x'; limit + 1000]).key("0"))
    }

    async fn read(&self, target: u32, expected: usize) -> Vec<Bytes> {
        let (topic, key) = (self.0.clone(), target.to_string());
        let read = tokio::task::spawn_blocking(move || {
            let is_ours = |record: &KafkaRecord| record.key.as_deref() == Some(key.as_bytes());
            let enough = |records: &[KafkaRecord]| {
                records.iter().filter(|record| is_ours(record)).count() >= expected
            };
            let records = read_for(&brokers(), &topic, Duration::from_secs(10), enough);
            records.into_iter().filter(is_ours).filter_map(|record| record.value).collect()
        });
        read.await.unwrap()
    }
}

#[tokio::test]
async fn the_sink_conforms() {
    sink_suite(|| async { Fixture(create_topic(4, &[]).await) }).await;
}
