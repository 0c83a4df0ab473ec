//! The suite that every sink has to pass.

use crate::common::{TOPIC, broker, read_for, section, sink};
use bytes::Bytes;
use drakkar_api::{KafkaRecord, Sink};
use drakkar_mock_kafka::{Broker, MockKafka};
use drakkar_sink_kafka::KafkaSink;
use drakkar_testkit::conformance::{SinkFixture, sink_suite};
use std::time::Duration;

/// A broker that works and one that is down. A target is a key.
struct Fixture {
    broker: MockKafka,
    down: MockKafka,
}

impl Fixture {
    fn new() -> Self {
        let (broker, down) = (broker(4), broker(1));
        down.broker_down(Broker::All).unwrap();
        Self { broker, down }
    }
}

impl SinkFixture for Fixture {
    type Sink = KafkaSink;

    fn sink(&self) -> KafkaSink {
        sink(&self.broker.bootstrap_servers(), section(TOPIC))
    }

    fn unusable_sink(&self) -> KafkaSink {
        sink(&self.down.bootstrap_servers(), section(TOPIC))
    }

    fn item(&self, target: u32, _number: u32, content: &[u8]) -> KafkaRecord {
        KafkaRecord::bytes(content.to_vec()).key(target.to_string())
    }

    fn oversized_item(&self, sink: &KafkaSink) -> Option<KafkaRecord> {
        let limit = sink.limits().item_bytes_max.unwrap();
        Some(KafkaRecord::bytes(vec![b'x'; limit + 1000]).key("0"))
    }

    async fn read(&self, target: u32, expected: usize) -> Vec<Bytes> {
        let brokers = self.broker.bootstrap_servers();
        let key = target.to_string();
        let read = tokio::task::spawn_blocking(move || {
            let is_ours = |record: &KafkaRecord| record.key.as_deref() == Some(key.as_bytes());
            let enough = |records: &[KafkaRecord]| {
                records.iter().filter(|record| is_ours(record)).count() >= expected
            };
            let records = read_for(&brokers, TOPIC, Duration::from_secs(10), enough);
            records.into_iter().filter(is_ours).filter_map(|record| record.value).collect()
        });
        read.await.unwrap()
    }
}

#[tokio::test]
async fn the_sink_conforms() {
    sink_suite(|| async { Fixture::new() }).await;
}
