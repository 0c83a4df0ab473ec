//! How one line looks.

use crate::config::LogFormat;
use drakkar_api::Timestamp;
use serde_json::Value;
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

/// The most bytes of one text in a line; the rest is cut off, visibly.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// What every line says about the worker. Empty names are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineIdentity {
    /// The worker's name.
    pub(crate) worker_id: String,
    /// The consumer group.
    pub(crate) consumer_group: String,
    /// The cluster's name.
    pub(crate) cluster_name: String,
}

/// The keys that the line itself uses; a field of that name gets an underscore.
const RESERVED: [&str; 9] = [
    "timestamp",
    "level",
    "message",
    "module",
    "service_name",
    "service_version",
    "worker_id",
    "consumer_group",
    "cluster_name",
];

/// The fields of an event or a span, in the order of the code.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    message: Option<String>,
    fields: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Takes over the fields of an enclosing span, except those that are set.
    pub(super) fn inherit(&mut self, span: &Self) {
        for (name, value) in &span.fields {
            if self.get(name).is_none() {
                self.fields.push((name, value.clone()));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn put(&mut self, field: &Field, value: Value) {
        match self.fields.iter_mut().find(|(key, _)| *key == field.name()) {
            Some((_, old)) => *old = value,
            None => self.fields.push((field.name(), value)),
        }
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        if text.len() > TEXT_BYTES_MAX {
            let is_boundary = |end: &usize| text.is_char_boundary(*end);
            let end = (0..=TEXT_BYTES_MAX).rev().find(is_boundary).unwrap_or_default();
            text.truncate(end);
            text.push('…');
        }
        match field.name() {
            "message" => self.message = Some(text),
            _ => self.put(field, text.into()),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            write!(text, ": {error}").expect("a string takes all");
            cause = error.source();
        }
        self.put_text(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }
}

/// Writes lines for one worker.
#[derive(Debug)]
pub(super) struct LineFormat {
    format: LogFormat,
    /// The part of a JSON line that never changes.
    identity: String,
}

impl LineFormat {
    pub(super) fn new(format: LogFormat, identity: &LineIdentity) -> Self {
        let mut text = String::new();
        for (name, value) in [
            ("service_name", "drakkar"),
            ("service_version", env!("CARGO_PKG_VERSION")),
            ("worker_id", &identity.worker_id),
            ("consumer_group", &identity.consumer_group),
            ("cluster_name", &identity.cluster_name),
        ] {
            if !value.is_empty() {
                put_pair(&mut text, name, &Value::from(value));
            }
        }
        Self { format, identity: text }
    }

    /// Returns the line of an event, with its line feed.
    pub(super) fn line(&self, now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
        match self.format {
            LogFormat::Json => self.json(now, metadata, fields),
            LogFormat::Console => console(now, metadata, fields),
        }
    }

    fn json(&self, now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
        let mut line = String::with_capacity(512);
        line.push('{');
        put_pair(&mut line, "timestamp", &timestamp(now).into());
        put_pair(&mut line, "level", &level_word(*metadata.level()).into());
        // What has no name of its own is named by its message, as in the original.
        let (event, message) = event_and_message(fields);
        put_pair(&mut line, "event", &event.into());
        if let Some(message) = message {
            put_pair(&mut line, "message", &message.into());
        }
        put_pair(&mut line, "category", &category(metadata, fields).into());
        for (name, value) in &fields.fields {
            match *name {
                "event" | "category" => {}
                name if RESERVED.contains(&name) => put_pair(&mut line, &format!("{name}_"), value),
                name => put_pair(&mut line, name, value),
            }
        }
        put_pair(&mut line, "module", &metadata.target().into());
        line.push(',');
        line.push_str(&self.identity);
        line.push_str("}\n");
        line
    }
}

fn console(now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
    let (event, message) = event_and_message(fields);
    let (stamp, level) = (timestamp(now), metadata.level());
    let mut line = format!("{stamp} {level:<5} {}", one_line(event));
    if let Some(message) = message {
        write!(line, ": {}", one_line(message)).expect("a string takes all");
    }
    for (name, value) in fields.fields.iter().filter(|(name, _)| !matches!(*name, "event")) {
        match value {
            Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '\n', '=']) => {
                write!(line, " {name}={}", one_line(text))
            }
            value => write!(line, " {name}={}", one_line(&value.to_string())),
        }
        .expect("a string takes all");
    }
    writeln!(line, " [{}]", metadata.target()).expect("a string takes all");
    line
}

/// Escapes control characters, so that a value can neither forge a line nor move the cursor.
fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, letter| {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
        line
    })
}

fn event_and_message(fields: &Fields) -> (&str, Option<&str>) {
    match (fields.get("event").and_then(Value::as_str), fields.message.as_deref()) {
        (Some(event), message) => (event, message),
        (None, message) => (message.unwrap_or(""), None),
    }
}

/// Returns what the line is about: the event's own word, else whether it is ours.
fn category<'a>(metadata: &Metadata<'_>, fields: &'a Fields) -> &'a str {
    match fields.get("category").and_then(Value::as_str) {
        Some(category) => category,
        None if metadata.target().starts_with("drakkar") => "lifecycle",
        None => "app",
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

fn put_pair(line: &mut String, name: &str, value: &Value) {
    if !line.is_empty() && !line.ends_with('{') {
        line.push(',');
    }
    write!(line, "{}:{value}", Value::from(name)).expect("a string takes all");
}

/// Writes a moment as `2026-01-31T12:00:00.123456Z`.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let text = Timestamp::from_millis(millis).to_rfc3339();
    let micros = since.subsec_micros() % 1000;
    format!("{}{micros:03}Z", text.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_microseconds() {
        let moment = UNIX_EPOCH + Duration::from_micros(951_782_400_123_045);
        assert_eq!(timestamp(moment), "2000-02-29T00:00:00.123045Z");
    }
}
