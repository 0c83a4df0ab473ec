//! The form of a dead letter: the exact bytes as the value, everything else in headers.
//!
//! One record per payload (`drakkar-kind: payload`, the payload's bytes) or per message
//! (`drakkar-kind: message`, the source message's bytes under its key). A value that the topic would
//! refuse is cut, and `drakkar-truncated` says how long it was and what its SHA-256 is: a dead
//! letter is never refused for its size (promise DL-4).

use crate::partition::{Letter, LetterContent};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use drakkar_api::{Headers, KafkaRecord, SourceMessage, Timestamp, TimestampKind, WorkerId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The version of the form, in `drakkar-version`.
const VERSION: &str = "1";

/// What a record needs beside key, value and headers: the broker's own framing, generously.
const FRAMING_BYTES: usize = 1024;

/// The longest error text that a letter carries, in bytes.
const ERROR_BYTES_MAX: usize = 8 * 1024;

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

/// Who writes it and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LetterSource<'a> {
    pub(crate) worker: &'a WorkerId,
    pub(crate) failed_at: Timestamp,
    /// The most bytes that the destination takes for one record.
    pub(crate) record_bytes_max: Option<usize>,
}

/// Turns a letter into the record that is written.
pub(crate) fn write_letter(letter: &Letter, from: LetterSource<'_>) -> KafkaRecord {
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
    put("error", cut_text(&letter.error));
    put("attempts", letter.attempts.to_string());
    put("worker", from.worker.to_string());
    put("failed-at", from.failed_at.to_rfc3339());
    let (key, value) = match &letter.content {
        LetterContent::Message => {
            put("kind", "message".to_owned());
            if source.value.is_none() {
                put("tombstone", "true".to_owned());
            }
            (source.key.clone(), source.value.clone())
        }
        LetterContent::Payload { payload, sink, id } => {
            put("kind", "payload".to_owned());
            put("sink-type", sink.kind().to_string());
            put("sink-name", sink.name().to_owned());
            put("target", payload.target().to_string());
            put("delivery-id", id.to_string());
            if let Some(key) = &source.key {
                headers.push("drakkar-source-key", Some(key.clone()));
            }
            (source.key.clone(), Some(payload.to_bytes()))
        }
    };
    let record = KafkaRecord { sink: None, key, value, headers };
    fit(record, from.record_bytes_max)
}

fn source_headers(source: &SourceMessage) -> Value {
    let pairs = source.headers.iter().map(|(name, value)| match value {
        Some(value) => json!([name, BASE64.encode(value)]),
        None => json!([name, null]),
    });
    Value::Array(pairs.collect())
}

/// Cuts an error text at a character's border.
fn cut_text(text: &str) -> String {
    match text.char_indices().map(|(at, _)| at).take_while(|&at| at <= ERROR_BYTES_MAX).last() {
        Some(end) if text.len() > ERROR_BYTES_MAX => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

/// Cuts the value, and if need be the source's headers and key, so that the record is taken.
fn fit(mut record: KafkaRecord, limit: Option<usize>) -> KafkaRecord {
    let Some(limit) = limit.map(|limit| limit.saturating_sub(FRAMING_BYTES)) else {
        return record;
    };
    let size = |record: &KafkaRecord| {
        record.headers.size_bytes()
            + record.key.as_ref().map_or(0, Bytes::len)
            + record.value.as_ref().map_or(0, Bytes::len)
    };
    if size(&record) <= limit {
        return record;
    }
    let value = record.value.clone().unwrap_or_default();
    let truncated = describe_cut(&value);
    record.headers.push("drakkar-truncated", Some(Bytes::from(truncated)));
    let overhead = size(&record) - value.len();
    record.value = Some(value.slice(..value.len().min(limit.saturating_sub(overhead))));
    if size(&record) <= limit {
        return record;
    }
    // What users fill without a limit is what is too large; it goes, and the record says so.
    let kept = record.headers.iter().filter(|(name, _)| !UNBOUNDED_HEADERS.contains(name));
    record.headers = kept.map(|(name, value)| (name.to_owned(), value.cloned())).collect();
    record.headers.push("drakkar-cut", Some(Bytes::from(CUT)));
    record.key = None;
    let overhead = size(&record) - record.value.as_ref().map_or(0, Bytes::len);
    record.value = Some(value.slice(..value.len().min(limit.saturating_sub(overhead))));
    record
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
            source: message(value),
            task: Some(Arc::new(task)),
            hook: Some(Hook::OnTaskComplete),
            error_kind: "timeout".to_owned(),
            error: "too late".to_owned(),
            attempts: 4,
        }
    }

    fn write(letter: &Letter, limit: Option<usize>) -> KafkaRecord {
        let worker = WorkerId::new("w1");
        let failed_at = Timestamp::from_millis(0);
        write_letter(letter, LetterSource { worker: &worker, failed_at, record_bytes_max: limit })
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
        letter.source.headers.push("huge", Some(Bytes::from(vec![1; 20_000])));
        let record = write(&letter, Some(6000));
        let value = record.value.as_ref().map_or(0, Bytes::len);
        assert!(record.headers.size_bytes() + value <= 6000 - FRAMING_BYTES);
        assert_eq!(header(&record, "drakkar-cut"), CUT);
    }

    #[test]
    fn error_texts_are_cut_at_a_character() {
        let text = "ü".repeat(ERROR_BYTES_MAX);
        let cut = cut_text(&text);
        assert!(cut.ends_with('…') && cut.len() <= ERROR_BYTES_MAX + 5, "{}", cut.len());
        assert_eq!(cut_text("short"), "short");
    }
}
