//! Commits, and what a restart reads.

use crate::support::{Member, OnRevoke, PLENTY, Told, World, numbers, values};
use drakkar_api::{COMMIT_GRACE, CommitOffset, Epoch, PartitionId, Source, SourceErrorKind};
use drakkar_mock_kafka::{ApiKey, Broker, BrokerError};
use std::time::{Duration, Instant};

fn only(held: &std::collections::BTreeMap<PartitionId, Epoch>) -> (PartitionId, Epoch) {
    let (partition, epoch) = held.iter().next().expect("one");
    (partition.clone(), *epoch)
}

// Promise: DL-1
#[test]
fn a_restart_goes_on_exactly_where_the_commit_says() {
    let world = World::new(1);
    world.produce(0, numbers(0..100));
    let first = world.start(OnRevoke::Answer);
    let (partition, epoch) = only(&first.take(1, PLENTY));
    first.engine.wait_for_messages(100);
    first.commit(epoch, &partition, CommitOffset::new(42));
    assert_eq!(first.engine.wait_for_commit(epoch, 0), Ok(CommitOffset::new(42)));
    first.close();
    let second = world.start(OnRevoke::Answer);
    second.take(1, PLENTY);
    assert_eq!(values(&second.engine.wait_for_messages(58)), numbers(42..100));
    second.close();
}

#[test]
fn nothing_is_committed_that_nobody_asked_for() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let first = world.start(OnRevoke::Answer);
    first.take(1, PLENTY);
    first.engine.wait_for_messages(10);
    first.close();
    let second = world.start(OnRevoke::Answer);
    second.take(1, PLENTY);
    assert_eq!(values(&second.engine.wait_for_messages(10)), numbers(0..10));
    second.close();
}

#[test]
fn commits_of_many_partitions_share_calls() {
    let world = World::new(32);
    for partition in 0..32 {
        world.produce(partition, numbers(0..1));
    }
    let member = world.start(OnRevoke::Answer);
    let held = member.engine.wait_for_assigned(32);
    world.kafka.record_requests();
    member.engine.set_stalled(true);
    for (partition, epoch) in &held {
        member.commit(*epoch, partition, CommitOffset::new(1));
    }
    member.engine.set_stalled(false);
    for epoch in held.values() {
        assert_eq!(member.engine.wait_for_commit(*epoch, 0), Ok(CommitOffset::new(1)));
    }
    let calls = world.count_requests(ApiKey::OffsetCommit);
    // What the thread took before it hung in its answers, and all the others.
    assert!(calls <= 2, "{calls} calls");
    member.close();
}

// Promise: WM-2
#[test]
fn a_second_commit_of_a_partition_waits_its_turn_or_is_refused() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let member = world.start(OnRevoke::Answer);
    let (partition, epoch) = only(&member.engine.wait_for_assigned(1));
    for _ in 0..20 {
        member.commit(epoch, &partition, CommitOffset::new(3));
    }
    let answers: Vec<_> = (0..20).map(|nth| member.engine.wait_for_commit(epoch, nth)).collect();
    assert!(answers.iter().any(Result::is_ok), "{answers:?}");
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|error| error.kind() == SourceErrorKind::Commit), "{answers:?}");
    member.close();
}

#[test]
fn a_commit_that_fails_is_answered_and_the_next_one_succeeds() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let member = world.start(OnRevoke::Answer);
    let (partition, epoch) = only(&member.engine.wait_for_assigned(1));
    let rebalancing = BrokerError::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS;
    world.kafka.push_request_errors(ApiKey::OffsetCommit, &[rebalancing]);
    member.commit(epoch, &partition, CommitOffset::new(3));
    let error = member.engine.wait_for_commit(epoch, 0).expect_err("injected");
    assert_eq!(error.kind(), SourceErrorKind::Commit);
    member.commit(epoch, &partition, CommitOffset::new(4));
    assert_eq!(member.engine.wait_for_commit(epoch, 1), Ok(CommitOffset::new(4)));
    member.close();
}

#[test]
fn one_partition_does_not_fail_the_commits_of_the_others() {
    let world = World::new(4);
    let member = world.start(OnRevoke::Answer);
    let held = member.engine.wait_for_assigned(4);
    let mut rest = held.iter();
    let first = rest.next().expect("one");
    // While the commit thread hangs in the answer to the first one, the others gather for one call.
    member.engine.set_stalled(true);
    member.commit(*first.1, first.0, CommitOffset::new(1));
    assert_eq!(member.engine.wait_for_commit(*first.1, 0), Ok(CommitOffset::new(1)));
    world.kafka.record_requests();
    // That call fails, and then one of the three that follow.
    let too_large = BrokerError::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE;
    world.kafka.push_request_errors(ApiKey::OffsetCommit, &[too_large, too_large]);
    for (partition, epoch) in rest.clone() {
        member.commit(*epoch, partition, CommitOffset::new(1));
    }
    member.engine.set_stalled(false);
    let answers: Vec<_> = rest.map(|(_, epoch)| member.engine.wait_for_commit(*epoch, 0)).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1, "{answers:?}");
    assert_eq!(world.count_requests(ApiKey::OffsetCommit), 4);
    member.close();
}

// Promise: RB-2
#[test]
fn a_commit_under_an_old_epoch_never_reaches_the_broker() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let member = world.start(OnRevoke::Answer);
    let (partition, epoch) = only(&member.take(1, PLENTY));
    member.engine.wait_for_messages(10);
    member.close();
    world.kafka.record_requests();
    member.commit(epoch, &partition, CommitOffset::new(9));
    let error = member.engine.wait_for_commit(epoch, 0).expect_err("ended");
    assert_eq!(error.kind(), SourceErrorKind::Fenced);
    assert_eq!(world.count_requests(ApiKey::OffsetCommit), 0);
}

// Promise: RB-1
#[test]
fn a_commit_completes_while_the_revoke_waits() {
    let world = World::new(1);
    world.produce(0, numbers(0..100));
    let source = world.source_with_drain(Duration::from_secs(15), |_| {});
    let member = Member::start(source, OnRevoke::Keep);
    let (partition, epoch) = only(&member.take(1, PLENTY));
    member.engine.wait_for_messages(100);
    member.source.close();
    member.engine.wait_for("revoke", |told| {
        told.iter().any(|told| matches!(told, Told::Revoked(_))).then_some(())
    });
    // The source's thread is inside the callback now, and stays there. Once it is out, a commit of the
    // old epoch is refused.
    for (nth, offset) in [40, 41, 42].into_iter().enumerate() {
        member.commit(epoch, &partition, CommitOffset::new(offset));
        assert_eq!(member.engine.wait_for_commit(epoch, nth), Ok(CommitOffset::new(offset)));
    }
    member.engine.answer_kept();
    member.close();
    let second = Member::start(world.source(|_| {}), OnRevoke::Answer);
    second.take(1, PLENTY);
    assert_eq!(values(&second.engine.wait_for_messages(58)), numbers(42..100));
    second.close();
}

// Promise: RB-1
#[test]
fn the_last_commit_of_a_drain_has_its_time_beyond_the_deadline() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let source = world.source_with_drain(Duration::from_secs(1), |config| {
        // The heartbeats are slow too.
        config.session_timeout_ms = 15_000;
    });
    let member = Member::start(source, OnRevoke::Keep);
    let (partition, epoch) = only(&member.take(1, PLENTY));
    member.engine.wait_for_messages(10);
    world.kafka.set_round_trip_time(Broker::All, COMMIT_GRACE).expect("set");
    let asked = Instant::now();
    member.source.close();
    member.engine.wait_for("revoke", |told| {
        told.iter().any(|told| matches!(told, Told::Revoked(_))).then_some(())
    });
    member.commit(epoch, &partition, CommitOffset::new(7));
    assert_eq!(member.engine.wait_for_commit(epoch, 0), Ok(CommitOffset::new(7)));
    assert!(asked.elapsed() >= COMMIT_GRACE, "{:?}", asked.elapsed());
    // The partition has not been given back while that was on its way: it can still commit.
    world.kafka.set_round_trip_time(Broker::All, Duration::ZERO).expect("set");
    member.commit(epoch, &partition, CommitOffset::new(8));
    assert_eq!(member.engine.wait_for_commit(epoch, 1), Ok(CommitOffset::new(8)));
    member.engine.answer_kept();
    member.close();
}
