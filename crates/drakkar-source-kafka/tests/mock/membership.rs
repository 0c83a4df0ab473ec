//! Members with a name of their own, which outlives them.

use crate::support::{Member, OnRevoke, PLENTY, Told, World, numbers};
use drakkar_api::{CommitOffset, SourceErrorKind};
use drakkar_mock_kafka::{ApiKey, BrokerError};
use drakkar_source_kafka::SourceConfig;

const NAME: &str = "name-{worker_id}";

/// What the group and the log see: the worker of these tests is called `test`.
const NAME_USED: &str = "name-test";

fn be_static(config: &mut SourceConfig) {
    config.group_instance_id = Some(NAME.to_owned());
}

/// Reads and commits something, and closes; says how often the group was told goodbye.
fn goodbyes(change: impl FnOnce(&mut SourceConfig)) -> usize {
    let world = World::new(1);
    world.produce(0, numbers(0..10));
    let member = Member::start(world.source(change), OnRevoke::Answer);
    let held = member.take(1, PLENTY);
    member.engine.wait_for_messages(10);
    let (partition, epoch) = held.iter().next().expect("one");
    member.commit(*epoch, partition, CommitOffset::new(10));
    assert_eq!(member.engine.wait_for_commit(*epoch, 0), Ok(CommitOffset::new(10)));
    world.kafka.record_requests();
    member.close();
    // It was drained like any other one.
    assert!(member.engine.told().iter().any(|told| matches!(told, Told::Answered)));
    world.count_requests(ApiKey::LeaveGroup)
}

#[test]
fn a_static_member_ends_without_leaving_the_group() {
    assert_eq!(goodbyes(|_| {}), 1);
    assert_eq!(goodbyes(be_static), 0);
}

// Of the newer protocol the mock cluster's requests cannot be made to fail by name: an integration test
// has a real broker refuse one.
#[test]
fn a_member_whose_name_was_taken_ends_and_tells_the_name() {
    let world = World::new(1);
    let member = Member::start(world.source(be_static), OnRevoke::Answer);
    member.take(1, PLENTY);
    let refusal = BrokerError::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
    world.kafka.push_request_errors(ApiKey::Heartbeat, &[refusal]);
    let error = member.engine.wait_for_end().expect_err("it was refused");
    assert_eq!(error.kind(), SourceErrorKind::Fenced);
    assert!(error.to_string().contains(NAME_USED), "{error}");
}
