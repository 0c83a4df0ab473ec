//! Everything that arrived: each copy of each result, where it stands, who wrote it and when.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::message::{BorrowedHeaders, Headers};
use serde_json::Value;

use super::plan::FANOUT;
use crate::reader::{Found, Reading};
use crate::{Broker, Record, TaskKey, load};

/// Where a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the sink.
    Sink,
    /// Among the dead letters, because the sink could not be reached.
    PayloadLetter,
    /// Among the dead letters, as the message that the task is of.
    MessageLetter,
}

/// One copy of a task's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) task: TaskKey,
    pub(crate) place: Place,
    /// The process of a worker that wrote it.
    pub(crate) writer: String,
    /// The name of the task inside that process: of one name there is one result.
    pub(crate) run: String,
    /// When the broker wrote it down, in milliseconds since 1970.
    pub(crate) at: i64,
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} at {} ({:?})", self.task, self.writer, self.at, self.place)
    }
}

/// Reads the sink from its beginning.
pub(crate) fn of_sink(broker: &Broker, topic: &str) -> Result<Vec<Arrival>> {
    read(broker, topic, |found| {
        let value = found.value.context("a record of the sink has no value")?;
        let task = Record::parse(found.key, value, FANOUT)?.task;
        let (writer, run) = (text_in(value, "worker")?, text_in(value, "task")?);
        Ok(Arrival { task, place: Place::Sink, writer, run, at: found.at })
    })
}

/// Reads the dead letters from their beginning.
pub(crate) fn of_dead_letters(broker: &Broker, topic: &str) -> Result<Vec<Arrival>> {
    read(broker, topic, |found| {
        let headers = found.headers.context("a dead letter without headers")?;
        let value = found.value.context("a dead letter without a value")?;
        let writer = header(headers, "drakkar-worker")?.to_owned();
        let (task, place, run) = match header(headers, "drakkar-kind")? {
            // Not of one run alone.
            "message" => (of_message(value)?, Place::MessageLetter, String::new()),
            "payload" => (of_payload(value)?, Place::PayloadLetter, text_in(value, "task")?),
            other => bail!("a dead letter of the kind \"{other}\""),
        };
        let offset: i64 = header(headers, "drakkar-source-offset")?.parse()?;
        let partition: i32 = header(headers, "drakkar-source-partition")?.parse()?;
        let place_of_source = load::place(task.n)?;
        ensure!(
            place_of_source == (partition, offset),
            "the dead letter of {task} says that it is of {partition}:{offset}"
        );
        Ok(Arrival { task, place, writer, run, at: found.at })
    })
}

fn read(
    broker: &Broker,
    topic: &str,
    parse: impl Fn(Found<'_>) -> Result<Arrival>,
) -> Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    Reading::of(broker, topic)?.for_each(|found| {
        arrivals.push(parse(found).with_context(|| format!("reading {topic}"))?);
        Ok(())
    })?;
    Ok(arrivals)
}

fn text_in(value: &[u8], field: &str) -> Result<String> {
    let value: Value = serde_json::from_slice(value)?;
    let text = value[field].as_str().with_context(|| format!("a record without its {field}"))?;
    Ok(text.to_owned())
}

/// A message is dead-lettered for its last task: only that one may fail.
fn of_message(value: &[u8]) -> Result<TaskKey> {
    let value: Value = serde_json::from_slice(value)?;
    let n = value["n"].as_u64().context("a dead-lettered message without its number")?;
    Ok(TaskKey { n, j: FANOUT - 1 })
}

fn of_payload(value: &[u8]) -> Result<TaskKey> {
    let value: Value = serde_json::from_slice(value)?;
    let number = |field: &str| value[field].as_u64().with_context(|| format!("no {field}"));
    Ok(TaskKey { n: number("n")?, j: number("j")? })
}

fn header<'a>(headers: &'a BorrowedHeaders, name: &str) -> Result<&'a str> {
    let found = headers.iter().find(|header| header.key == name);
    let value = found.and_then(|header| header.value);
    let value = value.with_context(|| format!("a dead letter without {name}"))?;
    Ok(str::from_utf8(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_their_task() {
        let message = br#"{"id":"m00000007","n":7,"plan":"dead"}"#;
        assert_eq!(of_message(message).expect("well-formed"), TaskKey { n: 7, j: 1 });
        let payload = br#"{"id":"m00000007","n":7,"j":0,"task":"t-1","worker":"w1-2"}"#;
        assert_eq!(of_payload(payload).expect("well-formed"), TaskKey { n: 7, j: 0 });
        assert_eq!(text_in(payload, "worker").expect("well-formed"), "w1-2");
        assert_eq!(text_in(payload, "task").expect("well-formed"), "t-1");
        assert!(of_payload(message).is_err());
        assert!(text_in(message, "worker").is_err());
        assert!(of_message(b"{}").is_err());
    }
}
