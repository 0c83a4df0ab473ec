//! Messages arrive in order, whole, as far as the engine permits, and at once.

use crate::support::{Member, OnRevoke, PLENTY, TOPIC, Told, World, messages_of, numbers, values};
use bytes::Bytes;
use drakkar_api::{Credit, Flow, Source, TimestampKind};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use std::time::{Duration, Instant};

/// What nobody may notice as a stall. Librdkafka's own `resume` takes about twice as long, each time.
const NO_STALL: Duration = Duration::from_millis(500);

/// Measures until one is short, and gives up when many are not: a busy machine may delay some of them.
fn assert_no_stall(mut measure: impl FnMut() -> Duration) {
    let mut all = Vec::new();
    while all.len() < 20 {
        let lasted = measure();
        if lasted < NO_STALL {
            return;
        }
        all.push(lasted);
    }
    panic!("it stalled each time: {all:?}");
}

#[test]
fn messages_arrive_in_order() {
    let world = World::new(1);
    world.produce(0, numbers(0..5000));
    let member = world.start(OnRevoke::Answer);
    member.take(1, PLENTY);
    let messages = member.engine.wait_for_messages(5000);
    assert_eq!(values(&messages), numbers(0..5000));
    member.close();
}

#[test]
fn a_batch_is_no_larger_than_a_turn_permits() {
    let world = World::new(1);
    world.produce(0, numbers(0..1000));
    let source = world.source(|config| config.max_poll_records = 30);
    let member = Member::start(source, OnRevoke::Answer);
    member.take(1, PLENTY);
    member.engine.wait_for_messages(1000);
    let is_in_bounds =
        |told: &Told| !matches!(told, Told::Messages(_, batch, _) if batch.len() > 30);
    assert!(member.engine.told().iter().all(is_in_bounds));
    member.close();
}

#[test]
fn no_more_messages_are_handed_over_than_were_granted() {
    let world = World::new(2);
    for partition in 0..2 {
        world.produce(partition, numbers(0..500));
    }
    let member = world.start(OnRevoke::Answer);
    let held = member.take(2, Credit { messages: 7, bytes: 1 << 20 });
    member.engine.wait_for_messages(14);
    for epoch in held.values() {
        member.source.request(*epoch, Credit { messages: 1, bytes: 0 });
    }
    member.engine.wait_for_messages(16);
    member.engine.wait_for_sweeps(3);
    let messages = messages_of(&member.engine.told());
    for epoch in held.values() {
        assert_eq!(messages.iter().filter(|(of, _)| of == epoch).count(), 8);
    }
    member.close();
}

#[test]
fn the_bytes_granted_are_exceeded_by_one_message_and_paid_back() {
    let world = World::new(1);
    world.produce(0, (0..20).map(|_| "x".repeat(100)));
    let member = world.start(OnRevoke::Answer);
    let held = member.take(1, Credit { messages: 1000, bytes: 250 });
    member.engine.wait_for_messages(3);
    let epoch = *held.values().next().expect("one");
    // 300 bytes were handed over, so 50 are owed.
    member.source.request(epoch, Credit { messages: 0, bytes: 50 });
    member.engine.wait_for_sweeps(3);
    assert_eq!(messages_of(&member.engine.told()).len(), 3);
    member.source.request(epoch, Credit { messages: 0, bytes: 1 });
    member.engine.wait_for_messages(4);
    member.engine.wait_for_sweeps(3);
    assert_eq!(messages_of(&member.engine.told()).len(), 4);
    member.close();
}

#[test]
fn a_closed_flow_hands_nothing_over_and_opens_without_a_stall() {
    let world = World::new(1);
    let member = world.start(OnRevoke::Answer);
    member.source.set_flow(Flow::Closed);
    member.take(1, PLENTY);
    let mut produced = 0;
    assert_no_stall(|| {
        member.source.set_flow(Flow::Closed);
        world.produce(0, numbers(produced..produced + 100));
        member.engine.wait_for_sweeps(10);
        assert_eq!(messages_of(&member.engine.told()).len(), produced);
        produced += 100;
        let opened = Instant::now();
        member.source.set_flow(Flow::Open);
        member.engine.wait_for_messages(produced);
        opened.elapsed()
    });
    assert_eq!(values(&messages_of(&member.engine.told())), numbers(0..produced));
    member.close();
}

#[test]
fn new_credit_after_a_long_pause_has_effect_at_once() {
    let world = World::new(1);
    // More than the client fetches ahead, so that it had to stop fetching.
    let source = world.source(|config| config.queued_max_kbytes = 64);
    let member = Member::start(source, OnRevoke::Answer);
    let text = "x".repeat(1000);
    world.produce(0, (0..2000).map(|_| text.clone()));
    let held = member.take(1, Credit { messages: 1, bytes: 1 << 20 });
    let epoch = *held.values().next().expect("one");
    let mut taken = 1;
    member.engine.wait_for_messages(taken);
    assert_no_stall(|| {
        member.engine.wait_for_sweeps(15);
        taken += 1;
        let granted = Instant::now();
        member.source.request(epoch, Credit { messages: 1, bytes: 1 << 20 });
        member.engine.wait_for_messages(taken);
        granted.elapsed()
    });
    member.source.request(epoch, PLENTY);
    member.engine.wait_for_messages(2000);
    member.close();
}

#[test]
fn a_full_partition_does_not_hold_up_the_others() {
    let world = World::new(2);
    for partition in 0..2 {
        world.produce(partition, numbers(0..300));
    }
    let member = world.start(OnRevoke::Answer);
    let held = member.engine.wait_for_assigned(2);
    let (_, open) = held.iter().find(|(partition, _)| partition.partition() == 1).expect("held");
    member.source.request(*open, PLENTY);
    let messages = member.engine.wait_for_messages(300);
    assert!(messages.iter().all(|(epoch, _)| epoch == open));
    member.close();
}

#[test]
fn a_message_arrives_whole() {
    let world = World::new(1);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some("1") })
        .insert(Header { key: "a", value: Some("") })
        .insert(Header::<&str> { key: "b", value: None });
    let record = || BaseRecord::<str, str>::to(TOPIC).partition(0).timestamp(1_700_000_000_123);
    world.send(record().key("k").payload("v").headers(headers));
    world.send(record().key("").payload(""));
    world.send(record().key("k"));
    world.send(record().payload("v"));
    let member = world.start(OnRevoke::Answer);
    member.take(1, PLENTY);
    let messages = member.engine.wait_for_messages(4);
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let found: Vec<_> =
        messages.iter().map(|(_, message)| (message.key.clone(), message.value.clone())).collect();
    let expected =
        [(bytes("k"), bytes("v")), (bytes(""), bytes("")), (bytes("k"), None), (None, bytes("v"))];
    assert_eq!(found, expected);
    let first = &messages[0].1;
    let headers: Vec<_> =
        first.headers.iter().map(|(name, value)| (name, value.cloned())).collect();
    assert_eq!(headers, [("a", bytes("1")), ("a", bytes("")), ("b", None)]);
    let (timestamp, kind) = first.timestamp.expect("a timestamp");
    assert_eq!((timestamp.millis(), kind), (1_700_000_000_123, TimestampKind::Create));
    assert_eq!(first.offset.get(), 0);
    assert_eq!((first.partition.topic(), first.partition.partition()), (TOPIC, 0));
    member.close();
}

// Promise: FT-1
#[test]
fn a_header_that_is_not_text_costs_itself_and_not_the_partition() {
    let world = World::new(1);
    world.kafka.produce_with_header_name(TOPIC, b"\xff\xfe").expect("delivered");
    world.produce(0, numbers(0..1));
    let member = world.start(OnRevoke::Answer);
    member.take(1, PLENTY);
    let messages = member.engine.wait_for_messages(2);
    assert!(messages[0].1.headers.is_empty());
    let trouble = member.engine.wait_for("trouble", |told| {
        told.iter().find_map(|told| match told {
            Told::Trouble(error) => Some(error.to_string()),
            _ => None,
        })
    });
    assert!(trouble.contains("1 headers of the message events:0:0"), "{trouble}");
    member.close();
}
