//! Every commit that the broker ever accepted of a group.
//!
//! The broker keeps its groups in the topic `__consumer_offsets`, one record a commit. A client that
//! looks now and then can miss an offset that goes back and forth between two looks; this log
//! cannot. Its format is internal to Kafka, but the part used here has never changed: the key is
//! version, group, topic and partition, the value begins with version and offset.

use anyhow::{Context, Result, ensure};

use crate::fields::Fields;
use crate::reader::Reading;
use crate::{Broker, Committed};

pub(crate) const TOPIC: &str = "__consumer_offsets";

/// The versions of a key that mean a commit; later ones mean members and groups.
const COMMIT_KEYS: [i16; 2] = [0, 1];

/// One commit that the broker accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) partition: i32,
    /// The offset that the group reads next.
    pub(crate) offset: i64,
    /// When the broker wrote it down, in milliseconds since 1970.
    pub(crate) at: i64,
}

/// Reads all commits of the group, in the order in which the broker accepted them.
///
/// # Errors
///
/// The log cannot be read.
pub(crate) fn history(broker: &Broker, group: &str, topic: &str) -> Result<Vec<Commit>> {
    let mut commits = Vec::new();
    Reading::of(broker, TOPIC)?.for_each(|record| {
        let Some(partition) = partition_committed(record.key, group, topic)? else { return Ok(()) };
        let value = record.value.with_context(|| {
            format!("the commit of partition {partition} was removed by the broker")
        })?;
        commits.push(Commit { partition, offset: offset_committed(value)?, at: record.at });
        Ok(())
    })?;
    Ok(commits)
}

/// Replays all commits of the group; the result is what is committed in the end.
///
/// # Errors
///
/// An offset went back, or the log cannot be read.
pub(crate) fn replay(broker: &Broker, group: &str, topic: &str) -> Result<Committed> {
    let mut committed = Committed::default();
    for commit in history(broker, group, topic)? {
        committed.advance(commit.partition, commit.offset)?;
    }
    Ok(committed)
}

/// Of which partition of the topic the record is a commit of the group, if it is one.
fn partition_committed(key: &[u8], group: &str, topic: &str) -> Result<Option<i32>> {
    let mut key = Fields(key);
    if !COMMIT_KEYS.contains(&key.i16()?) {
        return Ok(None);
    }
    let is_ours = key.text()? == group.as_bytes() && key.text()? == topic.as_bytes();
    if !is_ours {
        return Ok(None);
    }
    let partition = key.i32()?;
    ensure!(key.0.is_empty(), "a commit's key is longer than known");
    Ok(Some(partition))
}

fn offset_committed(value: &[u8]) -> Result<i64> {
    let mut value = Fields(value);
    let _version: [u8; 2] = value.take()?;
    Ok(i64::from_be_bytes(value.take()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"\0\x01\0\x01g\0\x02in\0\0\0\x07";

    #[test]
    fn a_commit_is_known_by_its_key() {
        let check = |group, topic, expect| {
            assert_eq!(partition_committed(KEY, group, topic).expect("well-formed"), expect);
        };
        check("g", "in", Some(7));
        check("h", "in", None);
        check("g", "out", None);
        let group_metadata = b"\0\x02\0\x01g";
        assert_eq!(partition_committed(group_metadata, "g", "in").expect("well-formed"), None);
    }

    #[test]
    fn a_key_that_is_not_understood_is_an_error() {
        for key in [b"".as_slice(), b"\0\x01\0\x01g\0\x02in", b"\0\x01\0\x09g", b"\0\x01\xff\xff"] {
            assert!(partition_committed(key, "g", "in").is_err(), "{key:?}");
        }
        assert!(partition_committed(&[KEY, b"\0"].concat(), "g", "in").is_err());
    }

    #[test]
    fn the_offset_follows_the_version() {
        let value = b"\0\x03\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\0\0";
        assert_eq!(offset_committed(value).expect("well-formed"), 258);
        assert!(offset_committed(b"\0\x03\0\0").is_err());
    }
}
