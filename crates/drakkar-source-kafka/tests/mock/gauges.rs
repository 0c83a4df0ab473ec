//! How far the source is behind, and whether a broker answers.

use crate::support::{Member, OnRevoke, PATIENCE, PLENTY, World, numbers};
use drakkar_api::{CommitOffset, PartitionId};
use drakkar_mock_kafka::Broker;
use drakkar_source_kafka::{OffsetReset, SourceGauges};
use std::time::{Duration, Instant};

/// How often a test looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until the gauges show something.
fn wait_until(gauges: &SourceGauges, what: &str, is_so: impl Fn(&SourceGauges) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(gauges) {
        assert!(Instant::now() < deadline, "{what} in time: {:?}", gauges.lags());
        std::thread::park_timeout(LOOK_INTERVAL);
    }
}

/// Waits until the partitions are so far behind, and no other has a lag.
fn wait_for_lags(gauges: &SourceGauges, expect: &[u64]) {
    wait_until(gauges, &format!("no {expect:?}"), |gauges| {
        let mut lags: Vec<_> =
            gauges.lags().iter().map(|(id, lag)| (id.partition(), *lag)).collect();
        lags.sort_unstable();
        lags.into_iter().map(|(_, lag)| lag).eq(expect.iter().copied())
    });
}

fn next(offset: i64) -> CommitOffset {
    CommitOffset::new(offset)
}

#[test]
fn a_lag_goes_from_what_is_committed_to_the_end() {
    let world = World::new(2);
    world.produce(0, numbers(0..10));
    let member = world.start(OnRevoke::Answer);
    let gauges = member.source.gauges();
    let held = member.take(2, PLENTY);
    member.engine.wait_for_messages(10);
    wait_for_lags(&gauges, &[10, 0]);
    let partition = PartitionId::new(crate::support::TOPIC, 0);
    member.commit(held[&partition], &partition, next(4));
    wait_for_lags(&gauges, &[6, 0]);
    world.produce(0, numbers(10..15));
    world.produce(1, numbers(0..3));
    wait_for_lags(&gauges, &[11, 3]);
    member.close();
    wait_for_lags(&gauges, &[]);
}

#[test]
fn a_partition_that_is_held_back_shows_what_it_does_not_get() {
    let world = World::new(1);
    let member = world.start(OnRevoke::Answer);
    let gauges = member.source.gauges();
    // Without credit nothing is polled, and what was fetched ahead fills the client's queue of 1 MiB.
    member.engine.wait_for_assigned(1);
    let large = |count| std::iter::repeat_n("x".repeat(100_000), count);
    world.produce(0, large(20));
    wait_for_lags(&gauges, &[20]);
    world.produce(0, large(10));
    wait_for_lags(&gauges, &[30]);
    member.close();
}

#[test]
fn a_worker_that_starts_again_is_behind_from_where_its_group_was() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let first = world.start(OnRevoke::Answer);
    let held = first.take(1, PLENTY);
    let (partition, epoch) = held.iter().next().expect("one");
    first.commit(*epoch, partition, next(7));
    first.engine.wait_for_commit(*epoch, 0).expect("committed");
    first.close();
    let second = world.start(OnRevoke::Answer);
    // Nothing is handed over without credit, so only the group can tell.
    second.engine.wait_for_assigned(1);
    wait_for_lags(&second.source.gauges(), &[3]);
    second.close();
}

#[test]
fn a_group_that_begins_at_the_end_is_not_behind() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let source = world.source(|config| config.offset_reset = OffsetReset::Latest);
    let member = Member::start(source, OnRevoke::Answer);
    member.engine.wait_for_assigned(1);
    wait_for_lags(&member.source.gauges(), &[0]);
    member.close();
}

#[test]
fn a_broker_that_is_away_shows_until_it_is_back() {
    let world = World::new(1);
    let source = world.source(|_| {});
    let gauges = source.gauges();
    assert!(!gauges.is_connected(), "it has not begun");
    let member = Member::start(source, OnRevoke::Answer);
    assert!(gauges.is_connected());
    member.engine.wait_for_assigned(1);
    world.kafka.broker_down(Broker::All).expect("down");
    wait_until(&gauges, "the fault does not show", |gauges| !gauges.is_connected());
    world.kafka.broker_up(Broker::All).expect("up");
    wait_until(&gauges, "the end of the fault does not show", SourceGauges::is_connected);
    member.close();
    assert!(!gauges.is_connected(), "it has ended");
}
