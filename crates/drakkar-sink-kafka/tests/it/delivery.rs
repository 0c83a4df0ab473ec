//! Delivering to brokers that work.

use crate::common::{
    TOPIC, assert_quick, broker, connected, deliver, read, section, sink, sink_with,
};
use bytes::Bytes;
use drakkar_api::{KafkaRecord, Sink, SinkErrorKind, Verdict};
use drakkar_mock_kafka::{ApiKey, BrokerError};
use drakkar_sink_kafka::{Compression, KafkaSinkSection};
use std::collections::BTreeMap;

fn text(bytes: Option<&Bytes>) -> &str {
    std::str::from_utf8(bytes.unwrap()).unwrap()
}

#[tokio::test]
async fn ten_thousand_records_arrive_once_and_in_order_per_key() {
    let broker = broker(4);
    let sink = connected(&broker).await;
    let records: Vec<_> = (0..10_000)
        .map(|n: usize| KafkaRecord::bytes(n.to_string()).key(format!("key-{}", n % 37)))
        .collect();
    for batch in records.chunks(500) {
        let verdicts = deliver(&sink, batch).await;
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
    }
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in read(&broker.bootstrap_servers(), TOPIC, 10_000) {
        let number = text(record.value.as_ref()).parse().unwrap();
        by_key.entry(text(record.key.as_ref()).to_owned()).or_default().push(number);
    }
    for (key, numbers) in by_key {
        let first: usize = key.trim_start_matches("key-").parse().unwrap();
        let expect: Vec<_> = (first..10_000).step_by(37).collect();
        assert_eq!(numbers, expect, "{key}");
    }
}

#[tokio::test]
async fn overlapping_batches_are_answered_each_by_itself() {
    let broker = broker(2);
    let sink = connected(&broker).await;
    let batch = |from: usize| -> Vec<_> {
        (from..from + 200).map(|n| KafkaRecord::bytes(n.to_string())).collect()
    };
    let (a, b, c, d) = (batch(0), batch(200), batch(400), batch(600));
    let (a, b, c, d) = tokio::join!(
        deliver(&sink, &a),
        deliver(&sink, &b),
        deliver(&sink, &c),
        deliver(&sink, &d)
    );
    for verdicts in [a, b, c, d] {
        assert_eq!(verdicts, vec![Verdict::Confirmed; 200]);
    }
}

// Promise: DL-3
#[tokio::test]
async fn a_record_over_the_limit_is_rejected_alone() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    let limit = sink.limits().item_bytes_max.unwrap();
    let verdicts = deliver(
        &sink,
        &[
            KafkaRecord::bytes("before"),
            KafkaRecord::bytes(vec![b'x'; 2_000_000]),
            KafkaRecord::bytes(vec![b'x'; limit]),
            KafkaRecord::bytes("after"),
        ],
    )
    .await;
    let Verdict::Rejected(error) = &verdicts[1] else { panic!("{verdicts:?}") };
    assert_eq!(error.kind(), SinkErrorKind::TooLarge);
    for good in [0, 2, 3] {
        assert_eq!(verdicts[good], Verdict::Confirmed);
    }
    assert_eq!(read(&broker.bootstrap_servers(), TOPIC, 3).len(), 3);
}

// Promise: DL-3
#[tokio::test]
async fn a_request_that_is_refused_as_too_large_convicts_nobody() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    // The topic's limit, which the mock cluster does not tell, is lower than the client's.
    let too_large = BrokerError::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    broker.push_request_errors(ApiKey::Produce, &[too_large]);
    let records = [KafkaRecord::bytes("a"), KafkaRecord::bytes("b")];
    let verdicts = deliver(&sink, &records).await;
    for verdict in &verdicts {
        let Verdict::NotApplied(error) = verdict else { panic!("{verdicts:?}") };
        assert_eq!(error.kind(), SinkErrorKind::TooLarge);
    }
    // From now on each record has a request of its own, so that the right one is found.
    broker.push_request_errors(ApiKey::Produce, &[too_large]);
    let verdicts = deliver(&sink, &records).await;
    let rejected = verdicts.iter().filter(|v| matches!(v, Verdict::Rejected(_))).count();
    let confirmed = verdicts.iter().filter(|v| **v == Verdict::Confirmed).count();
    assert_eq!((rejected, confirmed), (1, 1), "{verdicts:?}");
    // Another producer would learn nothing more, so none is made: it would get no identity.
    let refused = BrokerError::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    broker.push_request_errors(ApiKey::InitProducerId, &[refused]);
    assert_eq!(deliver(&sink, &records[1..]).await, [Verdict::Confirmed]);
}

#[tokio::test]
async fn keys_values_and_headers_keep_their_bytes() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    let mut headers = KafkaRecord::bytes("x").header("name", "ünï").header("name", "").headers;
    headers.push("absent", None);
    let records = [
        KafkaRecord { headers, ..KafkaRecord::bytes("日本").key(vec![0, 0xff]) },
        KafkaRecord { value: None, ..KafkaRecord::default() }.key("tombstone"),
        KafkaRecord::bytes("").key("empty value"),
        KafkaRecord::bytes("empty key").key(""),
        KafkaRecord::bytes((0..=255).collect::<Vec<u8>>()),
    ];
    assert_eq!(deliver(&sink, &records).await, vec![Verdict::Confirmed; 5]);
    assert_eq!(read(&broker.bootstrap_servers(), TOPIC, 5), records);
}

#[tokio::test]
async fn a_full_queue_holds_records_back_and_loses_none() {
    let broker = broker(1);
    let brokers = broker.bootstrap_servers();
    let options = [("queue.buffering.max.messages", "10")];
    let sink = sink_with(&brokers, KafkaSinkSection::new(TOPIC), &options);
    sink.connect().await.unwrap();
    let records: Vec<_> = (0..100).map(|n: usize| KafkaRecord::bytes(n.to_string())).collect();
    let verdicts = deliver(&sink, &records).await;
    let confirmed = verdicts.iter().filter(|verdict| **verdict == Verdict::Confirmed).count();
    assert_eq!(confirmed, 100, "{:?}", verdicts.last());
    assert_eq!(read(&brokers, TOPIC, 100), records);
}

#[tokio::test]
async fn compressed_records_arrive() {
    let broker = broker(1);
    let kinds = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    for (done, compression) in kinds.into_iter().enumerate() {
        let section = KafkaSinkSection { compression, ..section(TOPIC) };
        let sink = sink(&broker.bootstrap_servers(), section);
        sink.connect().await.unwrap();
        let record = KafkaRecord::bytes("x".repeat(1000));
        assert_eq!(deliver(&sink, std::slice::from_ref(&record)).await, [Verdict::Confirmed]);
        let read = read(&broker.bootstrap_servers(), TOPIC, done + 1);
        assert_eq!(read.last(), Some(&record), "{compression:?}");
    }
}

#[tokio::test]
async fn closing_is_quick_and_may_be_repeated() {
    let broker = broker(1);
    let sink = connected(&broker).await;
    assert_quick(async |_| {
        sink.connect().await.unwrap();
        deliver(&sink, &[KafkaRecord::bytes("x")]).await;
        sink.close().await;
        sink.close().await;
    })
    .await;
    let verdicts = deliver(&sink, &[KafkaRecord::bytes("y")]).await;
    assert_eq!(verdicts[0].error().unwrap().kind(), SinkErrorKind::Internal);
}

#[test]
fn the_link_for_the_ui_is_optional() {
    let with = |ui_url: &str| {
        let section = KafkaSinkSection { ui_url: ui_url.to_owned(), ..section(TOPIC) };
        sink("localhost:1", section).ui_url().map(str::to_owned)
    };
    assert_eq!(with(""), None);
    assert_eq!(with("http://topic"), Some("http://topic".to_owned()));
}
