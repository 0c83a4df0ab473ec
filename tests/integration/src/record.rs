//! One record of the sink topic: what one task left there.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::load;

/// Names a task: the number of its message and its own number among the message's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskKey {
    /// The message.
    pub n: u64,
    /// The task of that message, from 0.
    pub j: u64,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", load::key(self.n), self.j)
    }
}

/// What a task left in the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which task it was.
    pub task: TaskKey,
    /// How its process ended.
    pub exit_code: i64,
    /// How many bytes its process wrote.
    pub stdout_len: u64,
}

impl Record {
    /// Reads a record; under fan-out the key names the task, else only the message.
    ///
    /// # Errors
    ///
    /// It is not what the worker promises to write, or its key and its value disagree.
    pub fn parse(key: &[u8], value: &[u8], fanout: u64) -> Result<Self> {
        let key = str::from_utf8(key).context("the key is not text")?;
        let (id, j) = match key.split_once('/') {
            Some((id, j)) if fanout > 1 => (id, j.parse().context("the key's task is no number")?),
            None if fanout == 1 => (key, 0),
            _ => anyhow::bail!("the key \"{key}\" does not fit a fan-out of {fanout}"),
        };
        let value: Value = serde_json::from_slice(value).context("the value is not JSON")?;
        let number = |field: &str| {
            value[field].as_i64().with_context(|| format!("{key}: \"{field}\" is no number"))
        };
        let n = u64::try_from(number("n")?)?;
        ensure!(id == load::key(n), "the key \"{key}\" is not that of message {n}");
        Ok(Self {
            task: TaskKey { n, j },
            exit_code: number("exit_code")?,
            stdout_len: u64::try_from(number("stdout_len")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = r#"{"id":"m00000007","n":7,"task":"t","exit_code":0,"stdout_len":200}"#;

    fn parse(key: &str, value: &str, fanout: u64) -> Result<Record> {
        Record::parse(key.as_bytes(), value.as_bytes(), fanout)
    }

    #[test]
    fn the_key_names_the_message_or_under_fan_out_the_task() {
        let expect = |j| Record { task: TaskKey { n: 7, j }, exit_code: 0, stdout_len: 200 };
        assert_eq!(parse("m00000007", VALUE, 1).expect("well-formed"), expect(0));
        assert_eq!(parse("m00000007/3", VALUE, 10).expect("well-formed"), expect(3));
        assert_eq!(expect(3).task.to_string(), "m00000007/3");
    }

    #[test]
    fn what_the_worker_does_not_promise_is_refused() {
        for (key, value, fanout) in [
            ("m00000007", VALUE, 10),
            ("m00000007/0", VALUE, 1),
            ("m00000007/x", VALUE, 10),
            ("m00000008", VALUE, 1),
            ("m7", VALUE, 1),
            ("m00000007", "", 1),
            ("m00000007", "{}", 1),
            ("m00000007", r#"{"n":7,"exit_code":null,"stdout_len":0}"#, 1),
            ("m00000007", r#"{"n":7,"exit_code":0,"stdout_len":-1}"#, 1),
        ] {
            assert!(parse(key, value, fanout).is_err(), "{key} {value}");
        }
    }
}
