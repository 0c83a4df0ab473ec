//! The mock cluster starts, misbehaves on request and ends cleanly.

use drakkar_mock_kafka::{ApiKey, Broker, BrokerError, MockError, MockKafka};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn client(kafka: &MockKafka) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap_servers())
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .expect("a client")
}

fn partitions(client: &BaseConsumer, topic: &str, patience: Duration) -> Result<usize, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), patience)?;
    Ok(metadata.topics().iter().map(|topic| topic.partitions().len()).sum())
}

#[test]
fn a_topic_has_the_partitions_that_were_asked_for() {
    let kafka = MockKafka::start(3).expect("a cluster");
    kafka.create_topic("t", 7).expect("a topic");
    assert_eq!(kafka.bootstrap_servers().split(',').count(), 3);
    assert_eq!(partitions(&client(&kafka), "t", PATIENCE).expect("metadata"), 7);
}

#[test]
fn a_cluster_needs_a_broker_and_a_topic_a_name() {
    assert!(matches!(MockKafka::start(0), Err(MockError::Start { brokers: 0 })));
    let kafka = MockKafka::start(1).expect("a cluster");
    assert!(matches!(kafka.create_topic("a\0b", 1), Err(MockError::Name { .. })));
    kafka.create_topic("t", 1).expect("a topic");
    assert!(matches!(kafka.create_topic("t", 1), Err(MockError::Refused { .. })));
}

#[test]
fn a_broker_goes_down_and_comes_back() {
    let kafka = MockKafka::start(1).expect("a cluster");
    kafka.create_topic("t", 1).expect("a topic");
    let client = client(&kafka);
    assert_eq!(partitions(&client, "t", PATIENCE).expect("metadata"), 1);
    kafka.broker_down(Broker::All).expect("down");
    partitions(&client, "t", Duration::from_millis(300)).expect_err("nobody answers");
    kafka.broker_up(Broker::One(1)).expect("up");
    assert_eq!(partitions(&client, "t", PATIENCE).expect("metadata"), 1);
}

#[test]
fn requests_are_recorded_and_fail_on_request() {
    let kafka = MockKafka::start(1).expect("a cluster");
    kafka.create_topic("t", 1).expect("a topic");
    kafka
        .set_topic_error("t", BrokerError::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        .expect("set");
    kafka.record_requests();
    let client = client(&kafka);
    let metadata = client.fetch_metadata(Some("t"), PATIENCE).expect("metadata");
    let error = metadata.topics()[0].error();
    assert_eq!(error, Some(BrokerError::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED));
    let asked = kafka.recorded_requests();
    assert!(
        asked.iter().any(|request| request.api_key == i16::from(ApiKey::Metadata)),
        "{asked:?}"
    );
}

#[test]
fn a_cluster_can_move_to_another_thread_and_end_there() {
    let kafka = MockKafka::start(1).expect("a cluster");
    let servers = kafka.bootstrap_servers();
    let ended = std::thread::spawn(move || drop(kafka));
    ended.join().expect("no abort");
    assert!(servers.starts_with("127.0.0.1:"), "{servers}");
}
