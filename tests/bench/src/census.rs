//! Counts what arrived in the sink topic, and lets nothing pass that should not be there.

use anyhow::{Context, Result, bail, ensure};
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use crate::broker::{Topic, append_millis};
use crate::message::{PARTITIONS, SinkRecord, offset_of, partition_of, task_index, write_key};

/// What the sink topic must hold.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Tasks a message.
    pub(crate) fanout: usize,
    /// Bytes that every task wrote: the sign that it ran and was given its input.
    pub(crate) stdout_len: usize,
    /// Per partition, the offset that the group would go on from.
    pub(crate) committed: Vec<i64>,
}

/// One record of the sink topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) n: u64,
    pub(crate) append_millis: i64,
}

/// The records that were seen.
#[derive(Debug)]
pub(crate) struct Census {
    expected: Expected,
    /// One bit per task.
    seen: Vec<u64>,
    seen_count: u64,
}

/// Reads a sink topic to its end and checks it: every task of every committed message is there once,
/// and nothing else. Hands each record to `visit`.
pub(crate) fn take(
    sink: &Topic<'_>,
    expected: Expected,
    mut visit: impl FnMut(Arrival),
) -> Result<()> {
    let mut census = Census::new(expected)?;
    sink.read(|record| {
        let n = census.admit_record(record)?;
        visit(Arrival { n, append_millis: append_millis(record)? });
        Ok(())
    })?;
    census.close()
}

impl Census {
    fn new(expected: Expected) -> Result<Self> {
        ensure!(expected.committed.len() == PARTITIONS, "a partition without an offset");
        ensure!(expected.committed.iter().all(|offset| *offset >= 0), "a negative offset");
        Ok(Self { expected, seen: Vec::new(), seen_count: 0 })
    }

    fn admit_record(&mut self, record: &BorrowedMessage<'_>) -> Result<u64> {
        let key = record.key().context("a sink record without a key")?;
        let key = str::from_utf8(key).context("a sink record with a key that is not UTF-8")?;
        let value = record.payload().context("a sink record without a value")?;
        self.admit(key, value).with_context(|| format!("the sink record with key \"{key}\""))
    }

    fn admit(&mut self, key: &str, value: &[u8]) -> Result<u64> {
        let record: SinkRecord<'_> = serde_json::from_slice(value).context("not as agreed")?;
        let n = record.n;
        let mut id = String::new();
        write_key(n, &mut id);
        ensure!(record.id == id, "id \"{}\" with n {n}", record.id);
        let task = task_index(key, record.id, self.expected.fanout)?;
        ensure!(record.exit_code == 0, "exit code {}", record.exit_code);
        let (found, expected) = (record.stdout_len, self.expected.stdout_len);
        ensure!(found == expected, "{found} bytes of output, expected {expected}");
        let committed = self.expected.committed[partition_of(n)];
        ensure!(offset_of(n) < committed, "its message was not committed (up to {committed})");
        self.mark(n, task)?;
        Ok(n)
    }

    fn mark(&mut self, n: u64, task: usize) -> Result<()> {
        let bit = usize::try_from(n)? * self.expected.fanout + task;
        let (word, mask) = (bit / 64, 1 << (bit % 64));
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        if self.seen[word] & mask != 0 {
            bail!("it is there twice");
        }
        self.seen[word] |= mask;
        self.seen_count += 1;
        Ok(())
    }

    /// Every record belongs to a committed message and none is there twice, so that counting tells
    /// whether one is missing.
    fn close(&self) -> Result<()> {
        let messages: i64 = self.expected.committed.iter().sum();
        let tasks = u64::try_from(messages)? * self.expected.fanout as u64;
        let seen = self.seen_count;
        ensure!(tasks > 0, "nothing was committed");
        ensure!(seen == tasks, "{} of {tasks} committed tasks left no sink record", tasks - seen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(fanout: usize, committed_in_first: i64) -> Census {
        let mut committed = vec![0; PARTITIONS];
        committed[0] = committed_in_first;
        Census::new(Expected { fanout, stdout_len: 2, committed }).expect("16 offsets")
    }

    fn record(id: &str, n: u64, exit_code: i32, stdout_len: usize) -> String {
        format!(
            r#"{{"id":"{id}","n":{n},"task":"t","exit_code":{exit_code},"stdout_len":{stdout_len}}}"#
        )
    }

    #[test]
    fn all_once_is_well() {
        let mut census = census(2, 2);
        for (key, id, n) in [
            ("m00000016/1", "m00000016", 16),
            ("m00000000/0", "m00000000", 0),
            ("m00000000/1", "m00000000", 0),
            ("m00000016/0", "m00000016", 16),
        ] {
            census.admit(key, record(id, n, 0, 2).as_bytes()).expect("is expected");
        }
        census.close().expect("is complete");
    }

    #[test]
    fn a_missing_record_is_noticed() {
        let mut census = census(1, 2);
        census.admit("m00000000", record("m00000000", 0, 0, 2).as_bytes()).expect("is expected");
        assert!(census.close().is_err());
    }

    #[test]
    fn nothing_at_all_is_an_error() {
        assert!(census(1, 0).close().is_err());
    }

    #[test]
    fn a_double_is_noticed() {
        let mut census = census(1, 2);
        let first = record("m00000000", 0, 0, 2);
        census.admit("m00000000", first.as_bytes()).expect("is expected");
        assert!(census.admit("m00000000", first.as_bytes()).is_err());
    }

    #[test]
    fn wrong_records_are_refused() {
        for (key, value) in [
            ("m00000000", record("m00000000", 0, 1, 2)),
            ("m00000000", record("m00000000", 0, 0, 3)),
            ("m00000000", record("m00000000", 16, 0, 2)),
            ("m00000001", record("m00000000", 0, 0, 2)),
            ("m00000032", record("m00000032", 32, 0, 2)),
            ("m00000001", record("m00000001", 1, 0, 2)),
            ("m00000000", "{}".to_owned()),
        ] {
            assert!(census(1, 2).admit(key, value.as_bytes()).is_err(), "{key} {value}");
        }
    }
}
