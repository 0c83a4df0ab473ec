//! The form of a dead letter: the exact bytes as the value, everything else in headers.
//!
//! One record per payload (`drakkar-kind: payload`, the payload's bytes) or per message
//! (`drakkar-kind: message`, the source message's bytes under its key). A value that the topic would
//! refuse is cut, and `drakkar-truncated` says how long it was and what its SHA-256 is. A letter is
//! kept in full until it is written, so one that is refused for its size all the same is cut again,
//! down to a record of coordinates and the class of the error: a dead letter is never refused for
//! its size (promise DL-4).

use crate::partition::{Letter, LetterContent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use drakkar_api::{
    Headers, KafkaRecord, Payload, SourceMessage, Timestamp, TimestampKind, WorkerId,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The version of the form, in `drakkar-version`.
const VERSION: &str = "1";

/// What a record needs beside key, value and headers: the broker's own framing, generously.
const FRAMING_BYTES: usize = 1024;

/// The longest error text that a letter carries, in bytes.
pub(crate) const ERROR_BYTES_MAX: usize = 8 * 1024;

/// What ends a text that was cut.
const ELLIPSIS: &str = "…";

/// Headers whose length is up to producers and handlers.
const UNBOUNDED_HEADERS: &[&str] = &[
    "drakkar-source-headers",
    "drakkar-source-key",
    "drakkar-task-id",
    "drakkar-task-labels",
    "drakkar-target",
];

/// What `drakkar-cut` says was left out.
const CUT: &str = "key, source headers, task id, task labels and target";

/// The same, when the text of the error was too long as well.
const CUT_ERROR: &str = "key, source headers, task id, task labels, target and error";

/// Who writes it and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LetterSource<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) failed_at: Timestamp,
    /// What the sink that did not take a payload says of its destination.
    pub(crate) sink_target: &'a [(&'static str, String)],
}

/// A dead letter in full, of which a smaller form may be written.
#[derive(Debug)]
pub(crate) struct FullLetter {
    record: KafkaRecord,
    /// Whether it was refused for its size when that may have been the fault of its neighbours.
    is_suspect: bool,
}

impl FullLetter {
    /// Returns what is written to a destination that takes records of this size.
    pub(crate) fn fit(&self, record_bytes_max: Option<usize>) -> Payload {
        let record = match record_bytes_max {
            Some(limit) => fit(&self.record, limit.saturating_sub(FRAMING_BYTES)),
            None => self.record.clone(),
        };
        record.into()
    }

    /// Returns a form that is smaller than the one that was refused for its size, if there is one
    /// and one is needed: as the destination's limit asks, or half as large where that limit is not
    /// known or does not tell why.
    pub(crate) fn shrink(
        &mut self,
        refused: &Payload,
        record_bytes_max: Option<usize>,
        blame: Blame,
    ) -> Shrunk {
        let size = refused.size_bytes();
        let known = record_bytes_max.map(|limit| limit.saturating_sub(FRAMING_BYTES));
        let room = match (known.filter(|room| *room < size), blame) {
            (Some(room), _) => room,
            (None, Blame::Shared) if !self.is_suspect => {
                self.is_suspect = true;
                return Shrunk::NotYet;
            }
            (None, _) => size / 2,
        };
        let smaller = Payload::from(fit(&self.record, room));
        if smaller.size_bytes() < size { Shrunk::To(smaller) } else { Shrunk::Smallest }
    }
}

/// Whose size made a destination refuse a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Its own.
    Own,
    /// Its own or that of others in the same request.
    Shared,
}

/// What [`FullLetter::shrink`] came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Shrunk {
    /// This is to be sent.
    To(Payload),
    /// The same is to be sent once more: it may not be the one that was too large.
    NotYet,
    /// There is nothing left to cut.
    Smallest,
}

/// Writes a letter in full.
pub(crate) fn write_letter(letter: &Letter, from: LetterSource<'_>) -> FullLetter {
    let source = &letter.source;
    let mut headers = Headers::new();
    let mut put = |name: &str, value: String| {
        headers.push(format!("drakkar-{name}"), Some(Bytes::from(value)));
    };
    put("version", VERSION.to_owned());
    put("source-topic", source.partition.topic().to_owned());
    put("source-partition", source.partition.partition().to_string());
    put("source-offset", source.offset.to_string());
    if let Some((timestamp, kind)) = source.timestamp {
        put("source-timestamp", timestamp.millis().to_string());
        let kind = match kind {
            TimestampKind::LogAppend => "log_append",
            _ => "create",
        };
        put("source-timestamp-kind", kind.to_owned());
    }
    if !source.headers.is_empty() {
        put("source-headers", source_headers(source).to_string());
    }
    if let Some(task) = &letter.task {
        put("task-id", task.id.as_ref().map_or_else(String::new, ToString::to_string));
        if !task.labels.is_empty() {
            put("task-labels", json!(task.labels).to_string());
        }
    }
    if let Some(hook) = letter.hook {
        put("hook", hook.to_string());
    }
    put("error-kind", letter.error_kind.clone());
    put("error", cut_text(&letter.error, ERROR_BYTES_MAX));
    put("attempts", letter.attempts.to_string());
    put("worker", from.worker.to_string());
    put("failed-at", from.failed_at.to_rfc3339());
    let (key, value) = match &letter.content {
        LetterContent::Message => {
            put("kind", "message".to_owned());
            if source.value.is_none() {
                put("tombstone", "true".to_owned());
            }
            let value = source.value.clone();
            (source.key.clone(), value.filter(|_| !cfg!(drakkar_fault = "letter_without_value")))
        }
        LetterContent::Payload { payload, sink, id } => {
            put("kind", "payload".to_owned());
            put("sink-type", sink.kind().to_string());
            put("sink-name", sink.name().to_owned());
            put("target", target(payload, from.sink_target).to_string());
            put("delivery-id", id.to_string());
            let value = payload.to_bytes();
            if value.is_none() {
                put("tombstone", "true".to_owned());
            }
            if let Some(key) = &source.key {
                headers.push("drakkar-source-key", Some(key.clone()));
            }
            (source.key.clone(), value)
        }
    };
    let record = KafkaRecord { sink: None, key, value, headers };
    FullLetter { record, is_suspect: false }
}

/// Returns where a payload was to go: what the sink says of its destination, and what the payload
/// says itself.
fn target(payload: &Payload, sink_target: &[(&'static str, String)]) -> Value {
    let mut target = payload.target();
    for (name, value) in sink_target {
        target[*name] = json!(value);
    }
    target
}

fn source_headers(source: &SourceMessage) -> Value {
    let pairs = source.headers.iter().map(|(name, value)| match value {
        Some(value) => json!([name, BASE64.encode(value)]),
        None => json!([name, null]),
    });
    Value::Array(pairs.collect())
}

/// Cuts an error text to `bytes_max`, at a character's border, and marks it as cut.
pub(crate) fn cut_text(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let Some(most) = bytes_max.checked_sub(ELLIPSIS.len()) else { return String::new() };
    let borders = text.char_indices().map(|(at, _)| at);
    let end = borders.take_while(|&at| at <= most).last().unwrap_or(0);
    format!("{}{ELLIPSIS}", &text[..end])
}

/// Cuts the value, then what users fill without a limit, then the error text, until the record has
/// at most `room` bytes or nothing is left to cut.
fn fit(full: &KafkaRecord, room: usize) -> KafkaRecord {
    if size(full) <= room {
        return full.clone();
    }
    let value = full.value.clone().unwrap_or_default();
    let truncated = (!value.is_empty()).then(|| Bytes::from(describe_cut(&value)));
    let mut record = full.clone();
    if cut_value(&mut record, &value, truncated.as_ref(), room) {
        return record;
    }
    // What users fill without a limit is what is too large; it goes, and the record says so.
    let mut record = bare(full, CUT);
    if cut_value(&mut record, &value, truncated.as_ref(), room) {
        return record;
    }
    let mut record = bare(full, CUT_ERROR);
    cut_value(&mut record, &value, truncated.as_ref(), 0);
    let error = record.headers.get("drakkar-error").cloned().unwrap_or_default();
    let rest = room.saturating_sub(size(&record) - error.len());
    let error = Bytes::from(cut_text(&String::from_utf8_lossy(&error), rest));
    let headers = record.headers.iter().map(|(name, value)| match name {
        "drakkar-error" => (name.to_owned(), Some(error.clone())),
        _ => (name.to_owned(), value.cloned()),
    });
    record.headers = headers.collect();
    record
}

fn size(record: &KafkaRecord) -> usize {
    record.headers.size_bytes()
        + record.key.as_ref().map_or(0, Bytes::len)
        + record.value.as_ref().map_or(0, Bytes::len)
}

/// Returns the record without what users fill without a limit.
fn bare(full: &KafkaRecord, cut: &'static str) -> KafkaRecord {
    let kept = full.headers.iter().filter(|(name, _)| !UNBOUNDED_HEADERS.contains(name));
    let mut headers: Headers =
        kept.map(|(name, value)| (name.to_owned(), value.cloned())).collect();
    headers.push("drakkar-cut", Some(Bytes::from(cut)));
    KafkaRecord { sink: None, key: None, value: full.value.clone(), headers }
}

/// Gives the record as much of `value` as there is room for, and answers whether all the rest of it
/// has room.
fn cut_value(
    record: &mut KafkaRecord,
    value: &Bytes,
    truncated: Option<&Bytes>,
    room: usize,
) -> bool {
    if size(record) <= room {
        return true;
    }
    if let Some(truncated) = truncated {
        record.headers.push("drakkar-truncated", Some(truncated.clone()));
        record.value = Some(Bytes::new());
        let rest = room.saturating_sub(size(record));
        record.value = Some(value.slice(..value.len().min(rest)));
    }
    size(record) <= room
}

fn describe_cut(value: &Bytes) -> String {
    let digest = Sha256::digest(value).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    });
    json!({ "bytes": value.len(), "sha256": digest }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::TaskName;
    use drakkar_api::{
        DeliveryId, FileLine, Hook, Offset, PartitionId, SinkId, SinkKind, Task, TaskId,
    };
    use std::sync::Arc;

    fn message(value: &[u8]) -> SourceMessage {
        let mut headers = Headers::new();
        headers.push("trace", Some(Bytes::from_static(&[0xff])));
        headers.push("none", None);
        SourceMessage {
            partition: PartitionId::new("in", 3),
            offset: Offset::new(7),
            key: Some(Bytes::from_static(b"k\xff")),
            value: Some(Bytes::copy_from_slice(value)),
            timestamp: Some((Timestamp::from_millis(5), TimestampKind::LogAppend)),
            headers,
        }
    }

    fn letter(content: LetterContent, value: &[u8]) -> Letter {
        let mut task = Task::for_offset(Offset::new(7)).label("id", "x");
        task.id = Some(TaskId::new("t-1"));
        Letter {
            content,
            source: Arc::new(message(value)),
            task: Some(TaskName::of(&task)),
            hook: Some(Hook::OnTaskComplete),
            error_kind: "timeout".to_owned(),
            error: "too late".to_owned(),
            attempts: 4,
        }
    }

    fn write(letter: &Letter, limit: Option<usize>) -> KafkaRecord {
        let worker = WorkerId::new("w1");
        let failed_at = Timestamp::from_millis(0);
        record(
            write_letter(letter, LetterSource { worker: &worker, failed_at, sink_target: &[] })
                .fit(limit),
        )
    }

    fn record(payload: Payload) -> KafkaRecord {
        let Payload::Kafka(record) = payload else { panic!("a letter is a Kafka record") };
        record
    }

    fn header(record: &KafkaRecord, name: &str) -> String {
        let value = record.headers.get(name).unwrap_or_else(|| panic!("no header {name}"));
        String::from_utf8(value.to_vec()).expect("text")
    }

    // Promise: DL-4
    #[test]
    fn a_message_keeps_its_bytes_key_and_coordinates() {
        let record = write(&letter(LetterContent::Message, b"\x00raw"), None);
        assert_eq!(record.value.as_deref(), Some(&b"\x00raw"[..]));
        assert_eq!(record.key.as_deref(), Some(&b"k\xff"[..]));
        let expect = [
            ("version", "1"),
            ("kind", "message"),
            ("source-topic", "in"),
            ("source-partition", "3"),
            ("source-offset", "7"),
            ("source-timestamp", "5"),
            ("source-timestamp-kind", "log_append"),
            ("source-headers", r#"[["trace","/w=="],["none",null]]"#),
            ("task-id", "t-1"),
            ("task-labels", r#"{"id":"x"}"#),
            ("hook", "on_task_complete"),
            ("error-kind", "timeout"),
            ("error", "too late"),
            ("attempts", "4"),
            ("worker", "w1"),
            ("failed-at", "1970-01-01T00:00:00.000Z"),
        ];
        for (name, value) in expect {
            assert_eq!(header(&record, &format!("drakkar-{name}")), value, "{name}");
        }
    }

    // Promise: DL-4
    #[test]
    fn a_payload_keeps_its_bytes_and_target() {
        let payload = Arc::new(FileLine::bytes("a.jsonl", "{\"ü\":1}").into());
        let sink = SinkId::new(SinkKind::Filesystem, "logs");
        let id = DeliveryId::new(PartitionId::new("in", 3), Offset::new(7), 0, 1);
        let record = write(&letter(LetterContent::Payload { payload, sink, id }, b"v"), None);
        assert_eq!(record.value.as_deref(), Some("{\"ü\":1}".as_bytes()));
        assert_eq!(header(&record, "drakkar-kind"), "payload");
        assert_eq!(header(&record, "drakkar-sink-name"), "logs");
        assert_eq!(header(&record, "drakkar-target"), r#"{"path":"a.jsonl"}"#);
        assert_eq!(header(&record, "drakkar-delivery-id"), "in/3/7/0/1");
        assert_eq!(record.headers.get("drakkar-source-key").map(|k| &k[..]), Some(&b"k\xff"[..]));
    }

    // Promise: DL-4
    #[test]
    fn what_is_too_large_is_cut_and_says_so() {
        let large = vec![b'x'; 10_000];
        let record = write(&letter(LetterContent::Message, &large), Some(5000));
        let value = record.value.as_ref().expect("a value");
        let size = record.headers.size_bytes() + value.len() + 2;
        assert!(size <= 5000 - FRAMING_BYTES && value.len() > 2000, "{size} {}", value.len());
        let truncated: Value =
            serde_json::from_str(&header(&record, "drakkar-truncated")).expect("JSON");
        assert_eq!(truncated["bytes"], 10_000);
        assert_eq!(truncated["sha256"].as_str().map(str::len), Some(64));
    }

    // Promise: DL-4
    #[test]
    fn even_large_source_headers_do_not_stop_a_letter() {
        let mut letter = letter(LetterContent::Message, b"v");
        Arc::make_mut(&mut letter.source).headers.push("huge", Some(Bytes::from(vec![1; 20_000])));
        let record = write(&letter, Some(6000));
        let value = record.value.as_ref().map_or(0, Bytes::len);
        assert!(record.headers.size_bytes() + value <= 6000 - FRAMING_BYTES);
        assert_eq!(header(&record, "drakkar-cut"), CUT);
    }

    // Promise: DL-4
    #[test]
    fn even_a_long_error_does_not_stop_a_letter() {
        let mut letter = letter(LetterContent::Message, &[b'v'; 3000]);
        letter.error = "e".repeat(20_000);
        let room = 2000;
        let record = write(&letter, Some(room + FRAMING_BYTES));
        assert!(size(&record) <= room, "{}", size(&record));
        assert!(header(&record, "drakkar-error").len() > 800);
        assert!(header(&record, "drakkar-truncated").contains(r#""bytes":3000"#));
        assert_eq!(header(&record, "drakkar-cut"), CUT_ERROR);
        let record = write(&letter, Some(1));
        assert!(size(&record) < 900, "{}", size(&record));
        assert_eq!(header(&record, "drakkar-source-offset"), "7");
        assert_eq!(header(&record, "drakkar-error-kind"), "timeout");
    }

    // Promise: DL-4
    #[test]
    fn what_is_refused_for_its_size_gets_smaller_until_nothing_is_left_to_cut() {
        let worker = WorkerId::new("w1");
        let failed_at = Timestamp::from_millis(0);
        let from = LetterSource { worker: &worker, failed_at, sink_target: &[] };
        let large = letter(LetterContent::Message, &[b'v'; 100_000]);
        let mut full = write_letter(&large, from);
        let mut refused = full.fit(None);
        for _ in 0..20 {
            match full.shrink(&refused, None, Blame::Own) {
                Shrunk::To(smaller) => {
                    assert!(smaller.size_bytes() < refused.size_bytes());
                    let record = record(smaller.clone());
                    assert!(header(&record, "drakkar-truncated").contains(r#""bytes":100000"#));
                    refused = smaller;
                }
                Shrunk::Smallest => return assert!(refused.size_bytes() < 900, "{refused:?}"),
                Shrunk::NotYet => panic!("it is its own fault"),
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn a_limit_that_was_learnt_since_is_used() {
        let worker = WorkerId::new("w1");
        let failed_at = Timestamp::from_millis(0);
        let from = LetterSource { worker: &worker, failed_at, sink_target: &[] };
        let large = letter(LetterContent::Message, &[b'v'; 100_000]);
        let mut full = write_letter(&large, from);
        let refused = full.fit(None);
        assert_eq!(full.shrink(&refused, Some(200_000), Blame::Shared), Shrunk::NotYet);
        let Shrunk::To(smaller) = full.shrink(&refused, Some(90_000), Blame::Shared) else {
            panic!("it has to be smaller");
        };
        assert_eq!(smaller.size_bytes(), 90_000 - FRAMING_BYTES);
        let again = full.shrink(&smaller, Some(90_000), Blame::Shared);
        let Shrunk::To(half) = again else { panic!("that limit does not tell why: {again:?}") };
        assert!(half.size_bytes() <= smaller.size_bytes() / 2);
    }

    #[test]
    fn error_texts_are_cut_at_a_character() {
        let text = "ü".repeat(ERROR_BYTES_MAX);
        let cut = cut_text(&text, ERROR_BYTES_MAX);
        assert!(cut.ends_with('…') && cut.len() <= ERROR_BYTES_MAX, "{}", cut.len());
        assert_eq!(cut_text("short", 5), "short");
        assert_eq!([4, 3, 2].map(|max| cut_text("short", max)), ["s…", "…", ""]);
    }
}
