//! The end, and what happens when brokers go away.

use crate::support::{
    Member, OnRevoke, PLENTY, Recorder, Told, World, block_on, check_contract, numbers,
};
use drakkar_api::{Source, SourceErrorKind, SourceEvents};
use drakkar_mock_kafka::{ApiKey, Broker};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_close_revokes_everything_once_and_then_ends() {
    let world = World::new(4);
    let member = world.start(OnRevoke::Answer);
    let held = member.take(4, PLENTY);
    member.close();
    let told = member.engine.told();
    let revoked: Vec<_> = told
        .iter()
        .flat_map(|told| match told {
            Told::Revoked(epochs) => epochs.clone(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(revoked.len(), 4);
    assert!(held.values().all(|epoch| revoked.contains(epoch)));
    // A second close changes nothing.
    member.source.close();
    assert!(matches!(member.engine.told().last(), Some(Told::Ended(Ok(())))));
}

// Promise: FT-2
#[test]
fn a_close_does_not_wait_for_ever_for_an_engine_that_never_answers() {
    let world = World::new(1);
    let source = world.source_with_drain(Duration::from_secs(1), |_| {});
    let member = Member::start(source, OnRevoke::Keep);
    member.take(1, PLENTY);
    let asked = Instant::now();
    member.close();
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[test]
fn a_source_that_is_dropped_leaves_the_group() {
    let world = World::new(1);
    let Member { source, engine } = world.start(OnRevoke::Answer);
    engine.wait_for_assigned(1);
    drop(source);
    assert_eq!(engine.wait_for_end(), Ok(()));
}

#[test]
fn a_close_while_the_group_is_being_joined_leaves_it() {
    let world = World::new(1);
    world.kafka.record_requests();
    let source = world.source(|_| {});
    world.kafka.set_round_trip_time(Broker::All, Duration::from_millis(300)).expect("set");
    let member = Member::start(source, OnRevoke::Answer);
    // The answer to it is still to come.
    world.wait_for_requests(ApiKey::SyncGroup, 1);
    member.close();
    assert_eq!(world.count_requests(ApiKey::LeaveGroup), 1);
    check_contract(&member.engine.told());
}

#[test]
fn a_close_without_a_broker_ends_all_the_same() {
    let world = World::new(1);
    let member = world.start(OnRevoke::Answer);
    member.take(1, PLENTY);
    world.kafka.broker_down(Broker::All).expect("down");
    let asked = Instant::now();
    member.close();
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

#[test]
fn an_outage_is_reported_and_survived() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let member = world.start(OnRevoke::Answer);
    member.take(1, PLENTY);
    member.engine.wait_for_messages(10);
    world.kafka.broker_down(Broker::All).expect("down");
    member.engine.wait_for("trouble", |told| {
        let is_outage =
            |told: &Told| matches!(told, Told::Trouble(e) if e.kind() == SourceErrorKind::Unreachable);
        told.iter().any(is_outage).then_some(())
    });
    world.kafka.broker_up(Broker::All).expect("up");
    world.produce(0, numbers(10..20));
    // The outage may have cost the assignment; whatever came instead gets credit too.
    let seen = member.engine.wait_for("messages", |told| {
        for epoch in crate::support::held_by(told).values() {
            member.source.request(*epoch, PLENTY);
        }
        let messages = crate::support::messages_of(told);
        messages.iter().any(|(_, message)| message.offset.get() == 19).then_some(messages)
    });
    assert!(seen.len() >= 20);
    member.close();
}

#[test]
fn an_engine_that_panics_ends_the_source_and_not_silently() {
    struct Panics(Arc<Recorder>);
    impl SourceEvents for Panics {
        fn assigned(&self, _: Vec<drakkar_api::Assignment>) {
            panic!("a bug in the engine (this panic is part of the test)");
        }
        fn revoked(&self, epochs: Vec<drakkar_api::Epoch>, drained: drakkar_api::Reply<()>) {
            self.0.revoked(epochs, drained);
        }
        fn lost(&self, epochs: Vec<drakkar_api::Epoch>) {
            self.0.lost(epochs);
        }
        fn messages(&self, epoch: drakkar_api::Epoch, batch: Vec<drakkar_api::SourceMessage>) {
            self.0.messages(epoch, batch);
        }
        fn committed(
            &self,
            epoch: drakkar_api::Epoch,
            result: Result<drakkar_api::CommitOffset, drakkar_api::SourceError>,
        ) {
            self.0.committed(epoch, result);
        }
        fn polled(&self) {
            self.0.polled();
        }
        fn trouble(&self, error: drakkar_api::SourceError) {
            self.0.trouble(error);
        }
        fn ended(&self, result: Result<(), drakkar_api::SourceError>) {
            self.0.ended(result);
        }
    }
    let world = World::new(1);
    let source = world.source(|_| {});
    let engine = Recorder::new(OnRevoke::Answer);
    block_on(source.start(Arc::new(Panics(Arc::clone(&engine))))).expect("started");
    let error = engine.wait_for_end().expect_err("it panicked");
    assert!(error.to_string().contains("panicked"), "{error}");
    let told = engine.told();
    check_contract(&told);
    // The engine knows nothing of the partition, but what it may know ends, and is not drained.
    let lost = told.iter().filter(|told| matches!(told, Told::Lost(epochs) if epochs.len() == 1));
    assert_eq!(lost.count(), 1, "{told:?}");
    assert!(!told.iter().any(|told| matches!(told, Told::Revoked(_))), "{told:?}");
}
