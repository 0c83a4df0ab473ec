//! What the broker wrote down about the members of a group.
//!
//! Members stand in `__consumer_offsets` beside the commits: those of the newer protocol in a record
//! each, those of the classic one together in the record of their group, as what each said of itself
//! when it joined. The formats are Kafka's `ConsumerGroupMemberMetadata`, `GroupMetadata` and
//! `ConsumerProtocolSubscription`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::Broker;
use crate::commit_log::TOPIC;
use crate::fields::Fields;
use crate::reader::Reading;

const GROUP_KEY: i16 = 2;
const MEMBER_KEY: i16 = 5;

/// The first version of what a classic member says of itself that tells the rack.
const SUBSCRIPTION_WITH_RACK: i16 = 3;

/// Reads the racks that members of the group ever said they were in.
///
/// # Errors
///
/// The log cannot be read, or no member ever stood in it.
pub(crate) fn racks(broker: &Broker, group: &str) -> Result<BTreeSet<String>> {
    let mut told = Vec::new();
    Reading::of(broker, TOPIC)?.for_each(|record| {
        // Nothing stands for a member that left.
        let Some(value) = record.value else { return Ok(()) };
        let mut key = Fields(record.key);
        let kind = key.i16()?;
        if ![GROUP_KEY, MEMBER_KEY].contains(&kind) || key.text()? != group.as_bytes() {
            return Ok(());
        }
        match kind {
            MEMBER_KEY => told.push(rack_of_member(value)?),
            _ => told.extend(racks_of_group(value)?),
        }
        Ok(())
    })?;
    ensure!(!told.is_empty(), "no member of {group} was ever written down");
    Ok(told.into_iter().flatten().collect())
}

/// The rack of a member of the newer protocol.
fn rack_of_member(value: &[u8]) -> Result<Option<String>> {
    let mut value = Fields(value);
    let _version = value.i16()?;
    let _instance = value.compact_text()?;
    name(value.compact_text()?)
}

/// The rack of each member of a classic group.
fn racks_of_group(value: &[u8]) -> Result<Vec<Option<String>>> {
    let mut value = Fields(value);
    let version = value.i16()?;
    ensure!((1..=3).contains(&version), "groups are written in version {version}");
    let _kind = value.text()?;
    let _generation = value.i32()?;
    let _protocol = value.optional_text()?;
    let _leader = value.optional_text()?;
    if version >= 2 {
        let _since: [u8; 8] = value.take()?;
    }
    let count = value.i32()?;
    let member = |_| {
        let _id = value.text()?;
        if version >= 3 {
            let _instance = value.optional_text()?;
        }
        let _client = (value.text()?, value.text()?);
        let _timeouts = (value.i32()?, value.i32()?);
        let rack = rack_of_subscription(value.bytes()?)?;
        let _assignment = value.bytes()?;
        Ok(rack)
    };
    (0..count).map(member).collect()
}

fn rack_of_subscription(said: &[u8]) -> Result<Option<String>> {
    let mut said = Fields(said);
    if said.i16()? < SUBSCRIPTION_WITH_RACK {
        return Ok(None);
    }
    for _ in 0..said.i32()? {
        let _topic = said.text()?;
    }
    let _own = said.bytes()?;
    for _ in 0..said.i32()? {
        let _topic = said.text()?;
        for _ in 0..said.i32()? {
            let _partition = said.i32()?;
        }
    }
    let _generation = said.i32()?;
    name(said.optional_text()?)
}

/// An empty name is none.
fn name(text: Option<&[u8]>) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    Ok(Some(String::from_utf8(text.to_vec()).context("a rack")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBSCRIPTION: &[u8] = b"\0\x03\0\0\0\x01\0\x02in\0\0\0\x01u\
        \0\0\0\x01\0\x02in\0\0\0\x01\0\0\0\x04\0\0\0\x09\0\x03r-1";

    #[test]
    fn a_member_of_the_newer_protocol_has_its_rack_behind_its_instance() {
        let rack = |value: &[u8]| rack_of_member(value).expect("well-formed");
        assert_eq!(rack(b"\0\0\x02i\x04r-1\x02c"), Some("r-1".to_owned()));
        assert_eq!(rack(b"\0\0\0\x04r-1\x02c"), Some("r-1".to_owned()));
        assert_eq!(rack(b"\0\0\0\0\x02c"), None);
        assert_eq!(rack(b"\0\0\0\x01\x02c"), None, "empty is none");
    }

    #[test]
    fn a_classic_member_says_its_rack_last() {
        let rack = |said: &[u8]| rack_of_subscription(said).expect("well-formed");
        assert_eq!(rack(SUBSCRIPTION), Some("r-1".to_owned()));
        let (without, _) = SUBSCRIPTION.split_at(SUBSCRIPTION.len() - 5);
        assert_eq!(rack(&[without, b"\xff\xff"].concat()), None);
        assert_eq!(rack(b"\0\x01\0\0\0\0"), None, "an older version has none");
        assert!(rack_of_subscription(without).is_err());
    }

    #[test]
    fn a_group_tells_the_racks_of_all_its_members() {
        let members = b"\0\x01m\xff\xff\0\x01c\0\x01h\0\0\0\x01\0\0\0\x01";
        let length = i32::try_from(SUBSCRIPTION.len()).expect("it is short").to_be_bytes();
        let head = b"\0\x03\0\x08consumer\0\0\0\x01\0\x01p\0\x01m\0\0\0\0\0\0\0\0\0\0\0\x02";
        let member = [members.as_slice(), &length, SUBSCRIPTION, b"\0\0\0\0"].concat();
        let value = [head.as_slice(), &member, &member].concat();
        let rack = Some("r-1".to_owned());
        assert_eq!(racks_of_group(&value).expect("well-formed"), [rack.clone(), rack]);
        assert!(racks_of_group(b"\0\x04").is_err(), "a version that nobody knows");
    }
}
