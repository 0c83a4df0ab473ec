//! The start succeeds, or says clearly and in time why not.

use crate::support::{Member, OnRevoke, PATIENCE, Recorder, TOPIC, World, block_on, source_of};
use drakkar_api::{Source, SourceError, SourceErrorKind, SourceEvents};
use drakkar_mock_kafka::{Broker, BrokerError};
use drakkar_source_kafka::KafkaSource;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The deadline is 1 s, and would be 30 s by default; between the two is room for a busy machine.
const LATE: Duration = Duration::from_secs(25);

/// Starts a source that cannot work. Returns the error and how long it took.
fn fail_to_start(source: &KafkaSource) -> (SourceError, Duration) {
    let engine = Recorder::new(OnRevoke::Answer);
    let began = Instant::now();
    let result = block_on(source.start(Arc::clone(&engine) as Arc<dyn SourceEvents>));
    let error = result.expect_err("it cannot work");
    assert!(engine.told().is_empty(), "{:?}", engine.told());
    (error, began.elapsed())
}

// Promise: FT-2
#[test]
fn an_unreachable_broker_is_an_error_within_the_deadline() {
    // A port that was free a moment ago.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let brokers = format!("127.0.0.1:{port}");
    let source =
        source_of(&brokers, Duration::from_secs(1), |config| config.connect_timeout_seconds = 1);
    let (error, took) = fail_to_start(&source);
    assert_eq!(error.kind(), SourceErrorKind::Unreachable);
    let text = error.to_string();
    assert!(text.contains(&brokers) && text.contains("within 1 s"), "{text}");
    assert!(text.contains("refused"), "the reason is missing: {text}");
    assert!(took < LATE, "{took:?}");
}

// Promise: FT-2
#[test]
fn a_broker_that_accepts_and_never_answers_is_an_error_within_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let brokers = listener.local_addr().expect("an address").to_string();
    let source =
        source_of(&brokers, Duration::from_secs(1), |config| config.connect_timeout_seconds = 1);
    let (error, took) = fail_to_start(&source);
    assert_eq!(error.kind(), SourceErrorKind::Unreachable);
    assert!(took < LATE, "{took:?}");
}

#[test]
fn an_unknown_topic_is_an_error_within_the_deadline() {
    let world = World::new(1);
    let source = world.source(|config| {
        config.source_topic = "nowhere".to_owned();
        config.connect_timeout_seconds = 1;
    });
    let (error, took) = fail_to_start(&source);
    assert_eq!(error.kind(), SourceErrorKind::Topic);
    assert!(error.to_string().contains("\"nowhere\" does not exist"), "{error}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < LATE, "{took:?}");
}

#[test]
fn a_topic_that_appears_while_the_start_waits_is_consumed() {
    let world = World::new(1);
    let source = world.source(|config| config.source_topic = "late".to_owned());
    let engine = Recorder::new(OnRevoke::Answer);
    std::thread::scope(|scope| {
        let events = Arc::clone(&engine) as Arc<dyn SourceEvents>;
        let started = scope.spawn(|| block_on(source.start(events)));
        world.kafka.create_topic("late", 2).expect("a topic");
        started.join().expect("no panic").expect("started");
    });
    let held = engine.wait_for_assigned(2);
    assert!(held.keys().all(|partition| partition.topic() == "late"));
    Member { source, engine }.close();
}

#[test]
fn a_topic_that_may_not_be_read_is_an_error_at_once() {
    let world = World::new(1);
    let refusal = BrokerError::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    world.kafka.set_topic_error(TOPIC, refusal).expect("set");
    let (error, took) = fail_to_start(&world.source(|_| {}));
    assert_eq!(error.kind(), SourceErrorKind::Topic);
    assert!(error.to_string().contains("TopicAuthorizationFailed"), "{error}");
    assert!(took < LATE, "{took:?}");
}

#[test]
fn a_source_starts_once_and_not_after_its_close() {
    let world = World::new(1);
    let member = world.start(OnRevoke::Answer);
    fail_to_start(&member.source);
    member.close();
    fail_to_start(&member.source);
    let closed = world.source(|_| {});
    closed.close();
    fail_to_start(&closed);
}

#[test]
fn a_close_ends_a_start_that_waits() {
    let world = World::new(1);
    world.kafka.broker_down(Broker::All).expect("down");
    let source = world.source(|config| config.connect_timeout_seconds = 3600);
    std::thread::scope(|scope| {
        let started = scope.spawn(|| fail_to_start(&source));
        source.close();
        let (error, took) = started.join().expect("no panic");
        assert_eq!(error.kind(), SourceErrorKind::Other);
        assert!(took < PATIENCE, "{took:?}");
    });
}
