//! The sink against librdkafka's in-process broker.

use drakkar_api::{
    Batch, BatchItem, DeliveryId, ErrorStatus, KafkaRecord, Offset, PartitionId, Sink,
    SinkErrorKind, Verdict,
};
use drakkar_kafka::{ClientSection, ClientSettings};
use drakkar_mock_kafka::{Broker, MockKafka};
use drakkar_sink_kafka::{KafkaSink, KafkaSinkSection};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use std::time::{Duration, Instant};

const TOPIC: &str = "results";
const PARTITIONS: i32 = 4;

fn cluster() -> MockKafka {
    let cluster = MockKafka::start(1).expect("the broker starts");
    cluster.create_topic(TOPIC, PARTITIONS).expect("the topic is made");
    cluster
}

fn client(brokers: &str) -> ClientSettings {
    let section = ClientSection { brokers: brokers.to_owned(), ..ClientSection::default() };
    section.validate("kafka").expect("valid")
}

fn sink(brokers: &str, attempt_timeout_seconds: u64) -> KafkaSink {
    let section = KafkaSinkSection {
        topic: TOPIC.to_owned(),
        attempt_timeout_seconds,
        ..KafkaSinkSection::default()
    };
    let config = section.validate("sinks.kafka.results").expect("valid");
    KafkaSink::new("results", config, &client(brokers), "test")
}

fn ids(count: usize) -> Vec<DeliveryId> {
    let source = PartitionId::new("in", 0);
    (0..count)
        .map(|n| {
            let offset = Offset::new(i64::try_from(n).expect("small"));
            DeliveryId::new(source.clone(), offset, 0, 0)
        })
        .collect()
}

async fn deliver(sink: &KafkaSink, records: &[KafkaRecord]) -> Vec<Verdict> {
    let ids = ids(records.len());
    let items = records.iter().zip(&ids).map(|(payload, id)| BatchItem { payload, id });
    sink.deliver(Batch::new(items.collect())).await
}

/// What one record in the topic holds: partition, key, value, headers.
type Found = (i32, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

/// Reads the topic up to `count` records, by partition and offset.
fn read(brokers: &str, count: usize) -> Vec<Found> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "reader");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Position::Beginning).expect("valid");
    }
    consumer.assign(&all).expect("assigned");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut found = Vec::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records in time", found.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("a message");
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let own = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
            headers.iter().map(|header| (header.key.to_owned(), own(header.value))).collect()
        });
        let (key, value) = (message.key(), message.payload());
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        found.push((message.partition(), bytes(key), bytes(value), headers));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_confirmed_and_keys_keep_their_order() {
    let cluster = cluster();
    let sink = sink(&cluster.bootstrap_servers(), 30);
    sink.connect().await.expect("connects");
    let records: Vec<_> =
        (0..2000).map(|n| KafkaRecord::bytes(n.to_string()).key(format!("k{}", n % 10))).collect();
    for batch in records.chunks(500) {
        assert_eq!(deliver(&sink, batch).await, vec![Verdict::Confirmed; 500]);
    }
    let found = read(&cluster.bootstrap_servers(), 2000);
    for key in 0..10 {
        let key = format!("k{key}").into_bytes();
        let of_key = found.iter().filter(|(_, found, ..)| found.as_ref() == Some(&key));
        let numbers: Vec<u64> = of_key
            .filter_map(|(_, _, value, _)| String::from_utf8(value.clone()?).ok()?.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 200);
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
    sink.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_headers_and_tombstones_arrive_as_they_are() {
    let cluster = cluster();
    let sink = sink(&cluster.bootstrap_servers(), 30);
    sink.connect().await.expect("connects");
    let mut full = KafkaRecord::bytes(vec![0, 0xff]).key(vec![0xfe]).header("h", vec![1]);
    full.headers.push("none", None);
    let tombstone = KafkaRecord { key: Some("gone".into()), ..KafkaRecord::default() };
    assert_eq!(deliver(&sink, &[full, tombstone]).await, vec![Verdict::Confirmed; 2]);
    let mut found = read(&cluster.bootstrap_servers(), 2);
    found.sort_by_key(|(_, _, value, _)| value.is_none());
    let headers = vec![("h".to_owned(), Some(vec![1])), ("none".to_owned(), None)];
    assert_eq!((&found[0].1, &found[0].2), (&Some(vec![0xfe]), &Some(vec![0, 0xff])));
    assert_eq!(found[0].3, headers);
    assert_eq!((&found[1].1, &found[1].2), (&Some(b"gone".to_vec()), &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_fails_alone() {
    let cluster = cluster();
    let sink = sink(&cluster.bootstrap_servers(), 30);
    sink.connect().await.expect("connects");
    let records =
        [KafkaRecord::bytes("a"), KafkaRecord::bytes(vec![0; 1_500_000]), KafkaRecord::bytes("b")];
    let verdicts = deliver(&sink, &records).await;
    assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Confirmed, &Verdict::Confirmed));
    let Verdict::Rejected(error) = &verdicts[1] else { panic!("{verdicts:?}") };
    assert_eq!(error.kind(), SinkErrorKind::TooLarge);
}

// Promise: DL-3, FT-2
#[tokio::test(flavor = "multi_thread")]
async fn records_for_a_broker_that_is_away_are_not_applied_and_go_through_later() {
    let cluster = cluster();
    let sink = sink(&cluster.bootstrap_servers(), 2);
    sink.connect().await.expect("connects");
    assert_eq!(deliver(&sink, &[KafkaRecord::bytes("x")]).await, [Verdict::Confirmed]);
    cluster.broker_down(Broker::All).expect("down");
    let started = Instant::now();
    let verdicts = deliver(&sink, &[KafkaRecord::bytes("y")]).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let error = verdicts[0].error().expect("the broker is away");
    assert_eq!(error.status(), ErrorStatus::Temporary);
    cluster.broker_up(Broker::All).expect("up");
    let deadline = Instant::now() + Duration::from_secs(30);
    while deliver(&sink, &[KafkaRecord::bytes("z")]).await != [Verdict::Confirmed] {
        assert!(Instant::now() < deadline, "it recovers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_to_nobody_fails_loudly() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let error = sink(&address, 2).connect().await.expect_err("nobody is there");
    assert_eq!(error.kind(), SinkErrorKind::Connection);
}

#[tokio::test]
async fn a_sink_that_is_not_connected_applies_nothing() {
    let verdicts = deliver(&sink("127.0.0.1:1", 2), &[KafkaRecord::bytes("x")]).await;
    assert!(matches!(verdicts[..], [Verdict::NotApplied(_)]), "{verdicts:?}");
}
