//! Brokers that go away, answer late, or break the producer.

use crate::common::{TOPIC, broker, connected, deliver, read, section, sink_with};
use drakkar_api::{KafkaRecord, Sink, SinkErrorKind, Verdict};
use drakkar_mock_kafka::{ApiKey, Broker, BrokerError};
use drakkar_sink_kafka::KafkaSinkSection;
use std::time::{Duration, Instant};

fn records(count: usize) -> Vec<KafkaRecord> {
    (0..count).map(|n| KafkaRecord::bytes(n.to_string())).collect()
}

/// Delivers until it is confirmed, as the engine would, with at most `attempts`.
async fn deliver_until_confirmed(sink: &drakkar_sink_kafka::KafkaSink, attempts: usize) {
    for _ in 0..attempts {
        if deliver(sink, &[KafkaRecord::bytes("again")]).await == [Verdict::Confirmed] {
            return;
        }
    }
    panic!("not confirmed after {attempts} attempts");
}

// Promise: DL-3
// Promise: FT-2
#[tokio::test]
async fn what_waits_out_an_outage_is_not_applied_and_recovers() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    assert_eq!(deliver(&sink, &records(1)).await, [Verdict::Confirmed]);
    broker.broker_down(Broker::All).unwrap();
    let began = Instant::now();
    let verdicts = deliver(&sink, &records(3)).await;
    assert!(began.elapsed() < sink.limits().attempt_timeout, "{:?}", began.elapsed());
    for verdict in &verdicts {
        let Verdict::NotApplied(error) = verdict else { panic!("{verdicts:?}") };
        assert_eq!(error.kind(), SinkErrorKind::Timeout);
    }
    broker.broker_up(Broker::All).unwrap();
    deliver_until_confirmed(&sink, 3).await;
    let values: Vec<_> = read(&broker.bootstrap_servers(), TOPIC, 2)
        .into_iter()
        .map(|record| record.value.unwrap())
        .collect();
    assert_eq!(values, ["0", "again"], "what was not applied has really had no effect");
}

// Promise: DL-3
#[tokio::test]
async fn what_was_sent_and_not_answered_is_unknown() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    assert_eq!(deliver(&sink, &records(1)).await, [Verdict::Confirmed]);
    broker.set_round_trip_time(Broker::All, Duration::from_secs(30)).unwrap();
    let began = Instant::now();
    let verdicts = deliver(&sink, &records(2)).await;
    assert!(began.elapsed() < sink.limits().attempt_timeout, "{:?}", began.elapsed());
    assert!(verdicts.iter().all(|v| matches!(v, Verdict::Unknown(_))), "{verdicts:?}");
    drop(broker);
}

#[tokio::test]
async fn a_dropped_delivery_leaves_the_sink_usable() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    assert_eq!(deliver(&sink, &records(1)).await, [Verdict::Confirmed]);
    broker.set_round_trip_time(Broker::All, Duration::from_millis(300)).unwrap();
    let batch = records(5);
    let dropped = tokio::time::timeout(Duration::from_millis(50), deliver(&sink, &batch)).await;
    assert!(dropped.is_err());
    // The reports of the dropped delivery come in while the next one runs.
    assert_eq!(deliver(&sink, &records(1)).await, [Verdict::Confirmed]);
    broker.set_round_trip_time(Broker::All, Duration::ZERO).unwrap();
    sink.close().await;
    assert_eq!(read(&broker.bootstrap_servers(), TOPIC, 7).len(), 7);
}

#[tokio::test]
async fn temporary_errors_of_the_broker_are_repeated_by_the_client_without_duplicates() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    broker.push_request_errors(
        ApiKey::Produce,
        &[
            BrokerError::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            BrokerError::RD_KAFKA_RESP_ERR__TRANSPORT,
        ],
    );
    let batch = records(20);
    assert_eq!(deliver(&sink, &batch).await, vec![Verdict::Confirmed; 20]);
    assert_eq!(read(&broker.bootstrap_servers(), TOPIC, 20), batch);
}

// Promise: DL-3
#[tokio::test]
async fn a_producer_beyond_repair_is_replaced() {
    let broker = broker(1);
    let sink = sink_with(&broker.bootstrap_servers(), KafkaSinkSection::new(TOPIC), &[]);
    sink.connect().await.unwrap();
    assert_eq!(deliver(&sink, &records(1)).await, [Verdict::Confirmed]);
    let fatal = BrokerError::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    broker.push_request_errors(ApiKey::Produce, &[fatal]);
    let began = Instant::now();
    let verdicts = deliver(&sink, &records(3)).await;
    let not_confirmed = |v: &Verdict| matches!(v, Verdict::NotApplied(_) | Verdict::Unknown(_));
    assert!(verdicts.iter().all(not_confirmed), "{verdicts:?}");
    // It is known at once, not at the deadline of 30 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(deliver(&sink, &records(3)).await, vec![Verdict::Confirmed; 3]);
}

#[tokio::test]
async fn a_producer_that_gets_no_identity_is_replaced() {
    let broker = broker(1);
    let fatal = BrokerError::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    broker.push_request_errors(ApiKey::InitProducerId, &[fatal]);
    // The refusal comes while the first delivery waits, and not before it.
    broker.set_round_trip_time(Broker::All, Duration::from_millis(100)).unwrap();
    let sink = connected(&broker).await;
    let verdicts = deliver(&sink, &records(1)).await;
    let [Verdict::NotApplied(error)] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_ne!(error.kind(), SinkErrorKind::Timeout, "{error}");
    // That producer would never have confirmed anything.
    broker.set_round_trip_time(Broker::All, Duration::ZERO).unwrap();
    deliver_until_confirmed(&sink, 2).await;
}

#[tokio::test]
async fn a_forbidden_record_is_an_error_of_authentication() {
    let broker = broker(1);
    let options = [("enable.idempotence", "false")];
    let sink = sink_with(&broker.bootstrap_servers(), section(TOPIC), &options);
    sink.connect().await.unwrap();
    let forbidden = BrokerError::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    broker.push_request_errors(ApiKey::Produce, &[forbidden]);
    let verdicts = deliver(&sink, &records(1)).await;
    let Verdict::NotApplied(error) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!(error.kind(), SinkErrorKind::Authentication);
}

#[tokio::test]
async fn a_record_that_the_broker_finds_invalid_is_rejected() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    let invalid = BrokerError::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    broker.push_request_errors(ApiKey::Produce, &[invalid]);
    let verdicts = deliver(&sink, &records(1)).await;
    assert!(matches!(&verdicts[..], [Verdict::Rejected(_)]), "{verdicts:?}");
    deliver_until_confirmed(&sink, 1).await;
}
