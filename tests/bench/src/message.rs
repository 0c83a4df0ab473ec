//! The messages of the source topic and the records of the sink topic.
//!
//! The load is the same for every worker: message `n` has the key `m%08d`, goes to partition `n mod
//! 16` and is 200 bytes of JSON. Since it is the only content of its topic, `n` is known from the
//! partition and the offset as well.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Of the source topic and of the sink topic.
pub(crate) const PARTITIONS: usize = 16;

/// Bytes in the value of a source message.
pub(crate) const VALUE_LEN: usize = 200;

/// A source message as a typed handler sees it.
#[derive(Debug, Deserialize)]
pub(crate) struct SourceMessage<'a> {
    pub(crate) id: &'a str,
    pub(crate) n: u64,
    #[serde(rename = "body")]
    pub(crate) _body: &'a str,
}

/// A sink record as a worker writes it, and the bare loops too.
#[derive(Debug, Serialize)]
pub(crate) struct NewSinkRecord<'a> {
    pub(crate) id: &'a str,
    pub(crate) n: u64,
    pub(crate) task: &'a str,
    pub(crate) exit_code: i32,
    pub(crate) stdout_len: usize,
}

/// A sink record that was read back.
#[derive(Debug, Deserialize)]
pub(crate) struct SinkRecord<'a> {
    pub(crate) id: &'a str,
    pub(crate) n: u64,
    #[serde(rename = "task")]
    _task: IgnoredAny,
    pub(crate) exit_code: i32,
    pub(crate) stdout_len: usize,
}

pub(crate) fn partition_of(n: u64) -> usize {
    usize::try_from(n % PARTITIONS as u64).expect("less than the number of partitions")
}

pub(crate) fn offset_of(n: u64) -> i64 {
    i64::try_from(n / PARTITIONS as u64).expect("far fewer messages")
}

/// Writes the key of message `n`, which is its id.
pub(crate) fn write_key(n: u64, key: &mut String) {
    key.clear();
    write!(key, "m{n:08}").expect("a string takes everything");
}

/// Writes the value of message `n`.
pub(crate) fn write_value(n: u64, value: &mut String) {
    value.clear();
    write!(value, r#"{{"id":"m{n:08}","n":{n},"body":""#).expect("a string takes everything");
    let padding = VALUE_LEN.saturating_sub(value.len() + r#""}"#.len());
    value.extend(std::iter::repeat_n('x', padding));
    value.push_str(r#""}"#);
}

/// Reads the key of a sink record: the id, and under fan-out which task of the message it is.
pub(crate) fn task_index(key: &str, id: &str, fanout: usize) -> Result<usize> {
    let rest = key.strip_prefix(id).with_context(|| format!("key \"{key}\" of \"{id}\""))?;
    let index = match rest.strip_prefix('/') {
        Some(index) if fanout > 1 => index.parse().ok(),
        None if fanout == 1 && rest.is_empty() => Some(0),
        _ => None,
    };
    let index = index.with_context(|| format!("key \"{key}\" names no task of \"{id}\""))?;
    ensure!(index < fanout, "key \"{key}\" names a task beyond the {fanout} of its message");
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_length_and_parse() {
        let mut value = String::new();
        for n in [0, 7, 12_345_678, 99_999_999] {
            write_value(n, &mut value);
            assert_eq!(value.len(), VALUE_LEN);
            let message: SourceMessage<'_> = serde_json::from_str(&value).expect("is JSON");
            let mut key = String::new();
            write_key(n, &mut key);
            assert_eq!((message.id, message.n), (key.as_str(), n));
        }
        write_value(7, &mut value);
        assert!(value.starts_with(r#"{"id":"m00000007","n":7,"body":"xxx"#));
    }

    #[test]
    fn places_are_dealt_in_turn() {
        assert_eq!((partition_of(0), offset_of(0)), (0, 0));
        assert_eq!((partition_of(15), offset_of(15)), (15, 0));
        assert_eq!((partition_of(33), offset_of(33)), (1, 2));
    }

    #[test]
    fn keys_tell_the_task() {
        let check = |key, fanout, expect: Option<usize>| {
            assert_eq!(task_index(key, "m00000007", fanout).ok(), expect, "{key} of {fanout}");
        };
        check("m00000007", 1, Some(0));
        check("m00000007/0", 10, Some(0));
        check("m00000007/9", 10, Some(9));
        check("m00000007/10", 10, None);
        check("m00000007/x", 10, None);
        check("m00000007", 10, None);
        check("m00000007/0", 1, None);
        check("m00000008", 1, None);
    }

    #[test]
    fn records_are_read_back() {
        let json = r#"{"id":"m00000007","n":7,"task":{"any":1},"exit_code":0,"stdout_len":200}"#;
        let record: SinkRecord<'_> = serde_json::from_str(json).expect("is a record");
        assert_eq!((record.id, record.n), ("m00000007", 7));
        assert_eq!((record.exit_code, record.stdout_len), (0, 200));
    }
}
