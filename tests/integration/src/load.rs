//! The messages that are produced, and where each must stand.

use anyhow::{Result, ensure};

use crate::TaskKey;

/// How many partitions the source has.
pub(crate) const PARTITIONS: i32 = 16;

/// The length of every message's value.
pub(crate) const VALUE_BYTES: usize = 200;

/// What a run is given: messages 0, 1, .. and how many tasks each becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How many messages.
    pub messages: u64,
    /// How many tasks a message becomes; each leaves one record in the sink.
    pub fanout: u64,
}

impl Load {
    /// How many tasks there are in all.
    pub fn tasks(self) -> u64 {
        self.messages * self.fanout
    }

    /// Every task, in order.
    pub(crate) fn keys(self) -> impl Iterator<Item = TaskKey> {
        (0..self.messages).flat_map(move |n| (0..self.fanout).map(move |j| TaskKey { n, j }))
    }
}

/// The key of message `n`.
pub(crate) fn key(n: u64) -> String {
    format!("m{n:08}")
}

/// The value of message `n`.
pub(crate) fn value(n: u64) -> String {
    let bare = format!(r#"{{"id":"{}","n":{n},"body":""}}"#, key(n)).len();
    let body = "x".repeat(VALUE_BYTES.saturating_sub(bare));
    format!(r#"{{"id":"{}","n":{n},"body":"{body}"}}"#, key(n))
}

/// Where message `n` stands in the source: its partition and its offset there.
pub(crate) fn place(n: u64) -> Result<(i32, i64)> {
    let partitions = u64::try_from(PARTITIONS)?;
    Ok((i32::try_from(n % partitions)?, i64::try_from(n / partitions)?))
}

/// The message at a place of the source.
pub(crate) fn message_at(partition: i32, offset: i64) -> Result<u64> {
    ensure!((0..PARTITIONS).contains(&partition), "there is no partition {partition}");
    Ok(u64::try_from(offset)? * u64::try_from(PARTITIONS)? + u64::try_from(partition)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_worker_expects_them() {
        assert_eq!(key(7), "m00000007");
        assert!(value(7).starts_with(r#"{"id":"m00000007","n":7,"body":"xxx"#));
        for n in [0, 7, 19_999, 99_999_999] {
            assert_eq!(value(n).len(), VALUE_BYTES);
            serde_json::from_str::<serde_json::Value>(&value(n)).expect("it is JSON");
        }
    }

    #[test]
    fn a_message_is_found_at_its_place() {
        assert_eq!(place(35).expect("it has one"), (3, 2));
        for n in [0, 1, 15, 16, 17, 20_000] {
            let (partition, offset) = place(n).expect("it has one");
            assert_eq!(message_at(partition, offset).expect("a message"), n);
        }
        assert!(message_at(PARTITIONS, 0).is_err());
        assert!(message_at(0, -1).is_err());
    }

    #[test]
    fn every_task_has_a_key_of_its_own() {
        let load = Load { messages: 2, fanout: 3 };
        let keys: Vec<_> = load.keys().map(|key| (key.n, key.j)).collect();
        assert_eq!(keys, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(load.tasks(), 6);
    }
}
