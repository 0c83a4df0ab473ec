//! Partitions that move between members, are lost, and come back.

use crate::support::{
    Member, OnRevoke, PATIENCE, PLENTY, Told, World, check_contract, held_by, messages_of, numbers,
    use_consumer_protocol,
};
use drakkar_api::{CommitOffset, Epoch, PartitionId, Source, SourceError, SourceErrorKind};
use drakkar_mock_kafka::{ApiKey, BrokerError};
use drakkar_source_kafka::SourceConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 6;
const EACH: usize = 200;

/// Gives credit to whatever the members hold, and returns the offsets seen of each partition.
fn give_credit_and_collect(members: &[&Member]) -> BTreeMap<i32, BTreeSet<i64>> {
    let mut seen: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    for member in members {
        let told = member.engine.told();
        for epoch in held_by(&told).values() {
            member.source.request(*epoch, PLENTY);
        }
        for (_, message) in messages_of(&told) {
            seen.entry(message.partition.partition()).or_default().insert(message.offset.get());
        }
    }
    seen
}

/// Waits until the members together have seen every message.
fn wait_for_all(members: &[&Member], each: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = give_credit_and_collect(members);
        let is_all = seen.len() == usize::try_from(PARTITIONS).expect("small")
            && seen.values().all(|offsets| offsets.len() == each);
        if is_all {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{:?}",
            seen.iter().map(|(p, o)| (p, o.len())).collect::<Vec<_>>()
        );
        members[0].engine.wait_for_sweeps(0);
    }
}

fn share_and_leave(use_protocol: impl Fn(&mut SourceConfig)) {
    let world = World::new(PARTITIONS);
    for partition in 0..PARTITIONS {
        world.produce(partition, numbers(0..EACH));
    }
    let start = || Member::start(world.source(&use_protocol), OnRevoke::Answer);
    let first = start();
    first.take(6, PLENTY);
    let second = start();
    // Cooperative: the first gives up three and goes on with the others.
    second.engine.wait_for("share", |told| (held_by(told).len() == 3).then_some(()));
    first.engine.wait_for("share", |told| (held_by(told).len() == 3).then_some(()));
    for partition in 0..PARTITIONS {
        world.produce(partition, numbers(EACH..2 * EACH));
    }
    wait_for_all(&[&first, &second], 2 * EACH);
    second.close();
    first.engine.wait_for_assigned(6);
    for partition in 0..PARTITIONS {
        world.produce(partition, numbers(2 * EACH..3 * EACH));
    }
    wait_for_all(&[&first], 3 * EACH);
    for member in [&first, &second] {
        let told = member.engine.told();
        check_contract(&told);
        assert!(told.iter().any(|told| matches!(told, Told::Answered)));
    }
    first.close();
}

// Promise: RB-2
#[test]
fn members_share_partitions_and_take_them_over() {
    share_and_leave(|_| {});
}

// Promise: RB-2
#[test]
fn members_share_partitions_and_take_them_over_with_the_new_protocol() {
    share_and_leave(use_consumer_protocol);
}

// Promise: RB-1
#[test]
fn a_revoke_waits_for_the_engine_and_then_for_its_commit() {
    let world = World::new(2);
    for partition in 0..2 {
        world.produce(partition, numbers(0..100));
    }
    // The mock confuses itself with the classic protocol when the second member is slow to ask for
    // its share: it then lets the group join anew, and refuses commits meanwhile.
    let source = || world.source(use_consumer_protocol);
    let first = Member::start(source(), OnRevoke::Keep);
    let held = first.take(2, PLENTY);
    first.engine.wait_for_messages(200);
    let second = Member::start(source(), OnRevoke::Answer);
    let revoked = first.engine.wait_for("revoke", |told| {
        told.iter().find_map(|told| match told {
            Told::Revoked(epochs) => Some(epochs.clone()),
            _ => None,
        })
    });
    assert_eq!(revoked.len(), 1);
    let (partition, epoch) = held.iter().find(|(_, epoch)| revoked.contains(epoch)).expect("held");
    first.commit(*epoch, partition, CommitOffset::new(60));
    assert_eq!(first.engine.wait_for_commit(*epoch, 0), Ok(CommitOffset::new(60)));
    // Nobody else has it before the answer.
    assert!(held_by(&second.engine.told()).is_empty());
    first.engine.answer_kept();
    second.take(1, PLENTY);
    let messages = second.engine.wait_for_messages(40);
    let offsets: Vec<_> = messages.iter().map(|(_, message)| message.offset.get()).collect();
    assert_eq!(offsets, (60..100).collect::<Vec<_>>());
    assert!(messages.iter().all(|(_, message)| message.partition == *partition));
    // A late commit of the one who gave it up is refused here.
    first.commit(*epoch, partition, CommitOffset::new(61));
    let error = first.engine.wait_for_commit(*epoch, 1).expect_err("ended");
    assert_eq!(error.kind(), SourceErrorKind::Fenced);
    second.close();
    first.source.close();
    first.engine.wait_for("revoke", |told| {
        (told.iter().filter(|told| matches!(told, Told::Revoked(_))).count() == 2).then_some(())
    });
    first.engine.answer_kept();
    first.close();
}

/// Waits until the engine was told that partitions are to go.
fn wait_for_revoke(member: &Member) -> Vec<Epoch> {
    member.engine.wait_for("revoke", |told| {
        told.iter().find_map(|told| match told {
            Told::Revoked(epochs) => Some(epochs.clone()),
            _ => None,
        })
    })
}

// Promise: RB-2, FT-2
#[test]
fn a_revoke_that_is_never_answered_ends_and_a_late_commit_is_fenced() {
    let world = World::new(2);
    let source = || world.source_with_drain(Duration::from_secs(1), use_consumer_protocol);
    let first = Member::start(source(), OnRevoke::Keep);
    let held = first.take(2, PLENTY);
    let second = Member::start(source(), OnRevoke::Answer);
    let revoked = wait_for_revoke(&first);
    let (partition, epoch) = held.iter().find(|(_, epoch)| revoked.contains(epoch)).expect("held");
    // Nobody answers, and the other one gets it all the same.
    let taken = second.take(1, PLENTY);
    assert!(taken.contains_key(partition));
    world.kafka.record_requests();
    first.commit(*epoch, partition, CommitOffset::new(1));
    let error = first.engine.wait_for_commit(*epoch, 0).expect_err("ended");
    assert_eq!(error.kind(), SourceErrorKind::Fenced);
    assert_eq!(world.count_requests(ApiKey::OffsetCommit), 0);
    second.close();
    first.close();
}

/// Starts a member that reads one partition, and takes its assignment away by `errors`.
fn lose_by(
    request: ApiKey,
    errors: &[BrokerError],
    then: impl FnOnce(&Member, &PartitionId, Epoch),
) {
    let world = World::new(1);
    world.produce(0, numbers(0..50));
    let member = world.start(OnRevoke::Answer);
    let held = member.take(1, PLENTY);
    let (partition, epoch) = held.iter().next().expect("one");
    member.engine.wait_for_messages(50);
    world.kafka.push_request_errors(request, errors);
    then(&member, partition, *epoch);
    member.engine.wait_for("loss", |told| {
        told.iter().any(|told| matches!(told, Told::Lost(of) if of == &[*epoch])).then_some(())
    });
    // It comes back under another epoch, from the last commit on.
    let again = member.take(1, PLENTY);
    assert_ne!(again[partition], *epoch);
    let messages = member.engine.wait_for_messages(100);
    assert!(messages[50..].iter().all(|(of, _)| *of == again[partition]));
    assert_eq!(messages[50].1.offset.get(), 0);
    let told = member.engine.told();
    let revoked = told.iter().any(|told| matches!(told, Told::Revoked(of) if of.contains(epoch)));
    assert!(!revoked, "a lost assignment cannot be drained");
    member.close();
}

// Promise: RB-1
#[test]
fn an_assignment_that_the_group_took_away_is_reported_as_lost() {
    let unknown = BrokerError::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    lose_by(ApiKey::Heartbeat, &[unknown], |_, _, _| {});
}

#[test]
fn a_commit_that_tells_of_the_loss_is_fenced() {
    let unknown = BrokerError::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID;
    lose_by(ApiKey::OffsetCommit, &[unknown], |member, partition, epoch| {
        member.commit(epoch, partition, CommitOffset::new(50));
        let error = member.engine.wait_for_commit(epoch, 0).expect_err("injected");
        assert_eq!(error.kind(), SourceErrorKind::Fenced);
    });
}

#[test]
fn a_commit_of_an_old_generation_is_fenced_when_the_assignment_is_lost() {
    let old = BrokerError::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION;
    lose_by(ApiKey::OffsetCommit, &[old], |member, partition, epoch| {
        member.commit(epoch, partition, CommitOffset::new(50));
        let error = member.engine.wait_for_commit(epoch, 0).expect_err("injected");
        assert_eq!(error.kind(), SourceErrorKind::Fenced);
    });
}

#[test]
fn a_member_that_did_not_poll_for_too_long_says_so_and_recovers() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let source = world.source_with_drain(Duration::from_secs(1), |config| {
        config.max_poll_interval_ms = 4000;
    });
    let member = Member::start(source, OnRevoke::Answer);
    world.kafka.record_requests();
    member.engine.set_stalled(true);
    let first = member.take(1, PLENTY);
    // The source's thread hangs in the engine now, until librdkafka has left the group.
    world.wait_for_requests(ApiKey::LeaveGroup, 1);
    member.engine.set_stalled(false);
    let epoch = *first.values().next().expect("one");
    member.engine.wait_for("loss", |told| {
        told.iter().any(|told| matches!(told, Told::Lost(of) if of == &[epoch])).then_some(())
    });
    member.engine.wait_for("trouble", |told| {
        let is_it = |e: &SourceError| e.to_string().contains("maximum poll interval");
        told.iter().any(|told| matches!(told, Told::Trouble(e) if is_it(e))).then_some(())
    });
    member.take(1, PLENTY);
    member.engine.wait_for_messages(20);
    member.close();
}

// Promise: DL-1, RB-2
#[test]
fn offsets_that_go_back_inside_an_assignment_come_under_a_new_epoch() {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let member = world.start(OnRevoke::Answer);
    let held = member.take(1, PLENTY);
    let (partition, epoch) = held.iter().next().expect("one");
    member.engine.wait_for_messages(10);
    // What a broker says whose topic was cut off: librdkafka begins again at the first offset.
    let unknown = BrokerError::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    // The mock cluster may spend the error on a request of which nobody hears, so it is asked again.
    let restarted = |_| {
        world.kafka.push_request_errors(ApiKey::Fetch, &[unknown]);
        member.engine.wait_within(Duration::from_secs(5), |told| {
            held_by(told).get(partition).copied().filter(|now| now != epoch)
        })
    };
    let again = (0..5).find_map(restarted).expect("a restart");
    member.source.request(again, PLENTY);
    let messages = member.engine.wait_for_messages(20);
    let offsets: Vec<_> = messages[10..].iter().map(|(_, message)| message.offset.get()).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    assert!(messages[10..].iter().all(|(of, _)| *of == again));
    let told = member.engine.told();
    assert!(told.iter().any(|told| matches!(told, Told::Lost(of) if of == &[*epoch])));
    let is_it = |e: &SourceError| e.to_string().contains("went back from 9 to 0");
    assert!(told.iter().any(|told| matches!(told, Told::Trouble(e) if is_it(e))), "{told:?}");
    member.commit(again, partition, CommitOffset::new(3));
    assert_eq!(member.engine.wait_for_commit(again, 0), Ok(CommitOffset::new(3)));
    member.close();
}
