//! Connecting: it fails loudly, and only when it should.

use crate::common::{TOPIC, assert_quick, broker, deliver, read, section, sink};
use drakkar_api::{ErrorStatus, KafkaRecord, Sink, SinkErrorKind, Verdict};
use drakkar_mock_kafka::{Broker, BrokerError, MockKafka};
use drakkar_sink_kafka::KafkaSinkSection;
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_unknown_topic_is_an_error_and_is_not_created_by_asking() {
    let broker = broker(1);
    let sink = sink(&broker.bootstrap_servers(), section("missing"));
    for _ in 0..2 {
        let error = sink.connect().await.unwrap_err();
        assert_eq!(error.kind(), SinkErrorKind::NoTarget, "{error}");
        assert_eq!(error.status(), ErrorStatus::Permanent);
        assert!(error.message().contains("create_topic"), "{error}");
    }
    broker.create_topic("missing", 1).unwrap();
    sink.connect().await.unwrap();
}

#[tokio::test]
async fn a_missing_topic_is_created_on_request() {
    let broker = broker(1);
    let brokers = broker.bootstrap_servers();
    let topic = |attempt: usize| format!("in_{attempt}_dlq");
    let made = |attempt| sink(&brokers, KafkaSinkSection::dead_letters(topic(attempt)));
    // A request to a broker that knows no administration would take its whole deadline.
    assert_quick(async |attempt| made(attempt).connect().await.unwrap()).await;
    let sink = made(0);
    sink.connect().await.unwrap();
    assert_eq!(deliver(&sink, &[KafkaRecord::bytes("x")]).await, [Verdict::Confirmed]);
    assert_eq!(read(&brokers, &topic(0), 1), [KafkaRecord::bytes("x")]);
}

// Promise: FT-2
#[tokio::test]
async fn unreachable_brokers_are_an_error_within_the_deadline() {
    let broker = broker(1);
    broker.broker_down(Broker::All).unwrap();
    let timeout = Duration::from_secs(1);
    let sink = sink(&broker.bootstrap_servers(), section(TOPIC)).with_connect_timeout(timeout);
    let began = Instant::now();
    let error = sink.connect().await.unwrap_err();
    let lasted = began.elapsed();
    // By default it takes 30 s.
    assert!(lasted >= timeout && lasted < Duration::from_secs(25), "{lasted:?}");
    assert_eq!(error.kind(), SinkErrorKind::Connection, "{error}");
    assert_eq!(error.status(), ErrorStatus::Temporary);
    assert!(error.message().contains(&broker.bootstrap_servers()), "which broker: {error}");
    let verdicts = deliver(&sink, &[KafkaRecord::bytes("x")]).await;
    assert!(matches!(&verdicts[..], [Verdict::NotApplied(_)]), "{verdicts:?}");
    broker.broker_up(Broker::All).unwrap();
    sink.connect().await.unwrap();
    assert_eq!(deliver(&sink, &[KafkaRecord::bytes("x")]).await, [Verdict::Confirmed]);
}

// Promise: FT-2
#[tokio::test]
async fn brokers_that_come_back_in_time_are_waited_for() {
    let broker = broker(1);
    broker.broker_down(Broker::All).unwrap();
    let sink = sink(&broker.bootstrap_servers(), section(TOPIC));
    // Longer than an attempt to deliver may take: a start has a time of its own.
    let away = sink.limits().attempt_timeout + Duration::from_secs(1);
    let (connected, ()) = tokio::join!(sink.connect(), async {
        tokio::time::sleep(away).await;
        broker.broker_up(Broker::All).unwrap();
    });
    connected.unwrap();
    assert_eq!(deliver(&sink, &[KafkaRecord::bytes("x")]).await, [Verdict::Confirmed]);
}

#[tokio::test]
async fn a_forbidden_topic_is_an_error_of_authentication() {
    let broker = broker(1);
    let forbidden = BrokerError::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    broker.set_topic_error(TOPIC, forbidden).unwrap();
    let error = sink(&broker.bootstrap_servers(), section(TOPIC)).connect().await.unwrap_err();
    assert_eq!(error.kind(), SinkErrorKind::Authentication, "{error}");
    assert_eq!(error.status(), ErrorStatus::Permanent);
}

#[tokio::test]
async fn connecting_is_quick_and_teaches_the_limit() {
    let broker = broker(1);
    let sink = sink(&broker.bootstrap_servers(), KafkaSinkSection::new(TOPIC));
    assert_eq!(sink.limits().item_bytes_max, None);
    assert_quick(async |_| sink.connect().await.unwrap()).await;
    // The mock cluster does not tell the topic's limit: the client's own counts.
    assert_eq!(sink.limits().item_bytes_max, Some(999_488));
}

#[tokio::test]
async fn refused_settings_are_an_error_that_shows_no_value() {
    let broker = MockKafka::start(1).unwrap();
    let brokers = broker.bootstrap_servers();
    let sink = crate::common::sink_with(&brokers, section(TOPIC), &[("batch.size", "hunter2")]);
    let error = sink.connect().await.unwrap_err();
    assert_eq!(error.status(), ErrorStatus::Permanent);
    assert!(!error.message().contains("hunter2") && !format!("{sink:?}").contains("hunter2"));
}
