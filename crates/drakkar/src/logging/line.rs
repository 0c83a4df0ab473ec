//! How one line looks.

use crate::config::LogFormat;
use drakkar_api::Timestamp;
use serde_json::Value;
use smallvec::SmallVec;
use std::fmt::{self, Write};
use std::ops::Range;
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
const RESERVED: [&str; 18] = [
    "@timestamp",
    "timestamp",
    "log.level",
    "level",
    "message",
    "event",
    "category",
    "log.logger",
    "module",
    "ecs.version",
    "service.name",
    "service_name",
    "service.version",
    "service_version",
    "service.node.name",
    "worker_id",
    "consumer_group",
    "cluster_name",
];

/// The version of the Elastic Common Schema whose names a line has.
const ECS_VERSION: &str = "8.11.0";

/// What that schema has objects for; an index that has its mapping refuses a value there.
pub(super) const ECS_OBJECTS: [&str; 41] = [
    "agent",
    "client",
    "cloud",
    "container",
    "data_stream",
    "destination",
    "device",
    "dll",
    "dns",
    "ecs",
    "email",
    "error",
    "event",
    "faas",
    "file",
    "group",
    "host",
    "http",
    "labels",
    "log",
    "network",
    "observer",
    "orchestrator",
    "organization",
    "package",
    "process",
    "registry",
    "related",
    "rule",
    "server",
    "service",
    "source",
    "span",
    "threat",
    "tls",
    "trace",
    "transaction",
    "url",
    "user",
    "user_agent",
    "vulnerability",
];

/// The fields of an event or a span, in the order of the code. Every call of a hook has a span and few
/// write a line, so what is cheap here is to take fields in.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    message: Option<String>,
    /// The texts of all fields, one after the other.
    texts: String,
    fields: SmallVec<[(&'static str, Held); 6]>,
}

/// The value of one field.
#[derive(Clone, Debug)]
enum Held {
    /// This part of the texts.
    Text(Range<usize>),
    /// A number, or a truth value.
    Plain(Value),
}

impl Fields {
    /// Takes over the fields of an enclosing span, except those that are set.
    pub(super) fn inherit(&mut self, span: &Self) {
        for (name, held) in &span.fields {
            if self.position(name).is_some() {
                continue;
            }
            let held = match held {
                Held::Text(range) => Held::Text(self.keep(&span.texts[range.clone()])),
                Held::Plain(value) => Held::Plain(value.clone()),
            };
            self.fields.push((name, held));
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|(key, _)| *key == name)
    }

    /// Returns a name for a field whose own is taken, which no other field has.
    fn free_name(&self, taken: &str) -> String {
        let mut name = format!("{taken}_");
        while self.position(&name).is_some() {
            name.push('_');
        }
        name
    }

    /// Returns a field that is a text.
    fn text(&self, name: &str) -> Option<&str> {
        match &self.fields[self.position(name)?].1 {
            Held::Text(range) => Some(&self.texts[range.clone()]),
            Held::Plain(_) => None,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.fields.iter().map(|(name, held)| match held {
            Held::Text(range) => (*name, Value::from(&self.texts[range.clone()])),
            Held::Plain(value) => (*name, value.clone()),
        })
    }

    fn keep(&mut self, text: &str) -> Range<usize> {
        let begin = self.texts.len();
        self.texts.push_str(text);
        begin..self.texts.len()
    }

    fn put(&mut self, field: &Field, held: Held) {
        match self.position(field.name()) {
            Some(at) => {
                let old = std::mem::replace(&mut self.fields[at].1, held);
                if matches!(old, Held::Text(_)) {
                    self.forget_texts();
                }
            }
            None => self.fields.push((field.name(), held)),
        }
    }

    /// Drops texts that no field has any more: a span may live as long as the worker, and say again
    /// and again where it is.
    fn forget_texts(&mut self) {
        let mut texts = String::new();
        for (_, held) in &mut self.fields {
            if let Held::Text(range) = held {
                let begin = texts.len();
                texts.push_str(&self.texts[range.clone()]);
                *range = begin..texts.len();
            }
        }
        self.texts = texts;
    }

    #[cfg(test)]
    pub(super) fn text_bytes(&self) -> usize {
        self.texts.len()
    }

    /// Takes in a text that `write` appends, cut to its limit.
    fn put_text(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        let begin = self.texts.len();
        write(&mut self.texts);
        if self.texts.len() - begin > TEXT_BYTES_MAX {
            let is_boundary = |end: &usize| self.texts.is_char_boundary(*end);
            let end = (begin..=begin + TEXT_BYTES_MAX).rev().find(is_boundary).unwrap_or(begin);
            self.texts.truncate(end);
            self.texts.push('…');
        }
        match field.name() {
            "message" => self.message = Some(self.texts.split_off(begin)),
            _ => self.put(field, Held::Text(begin..self.texts.len())),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, |texts| texts.push_str(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Held::Plain(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Held::Plain(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Held::Plain(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Held::Plain(value.into()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put_text(field, |texts| {
            write!(texts, "{value}").expect("a string takes all");
            let mut cause = value.source();
            while let Some(error) = cause {
                write!(texts, ": {error}").expect("a string takes all");
                cause = error.source();
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, |texts| write!(texts, "{value:?}").expect("a string takes all"));
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
        let version = env!("CARGO_PKG_VERSION");
        for (name, value, is_ecs) in [
            ("ecs.version", ECS_VERSION, true),
            ("service.name", "drakkar", true),
            ("service_name", "drakkar", false),
            ("service.version", version, true),
            ("service_version", version, false),
            ("service.node.name", &identity.worker_id, true),
            ("worker_id", &identity.worker_id, false),
            // The schema has no names for these.
            ("consumer_group", &identity.consumer_group, true),
            ("cluster_name", &identity.cluster_name, true),
        ] {
            if !value.is_empty() && (is_ecs || format != LogFormat::Ecs) {
                put_pair(&mut text, name, &Value::from(value));
            }
        }
        Self { format, identity: text }
    }

    /// Returns the line of an event, with its line feed.
    pub(super) fn line(&self, now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
        match self.format {
            LogFormat::Json => self.json(now, metadata, fields),
            LogFormat::Ecs => self.ecs(now, metadata, fields),
            LogFormat::Console => console(now, metadata, fields),
        }
    }

    /// Says what every line says under the names of the original and of the Elastic Common Schema.
    fn json(&self, now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
        let mut line = String::with_capacity(1024);
        line.push('{');
        let mut put_both = |names: [&str; 2], value: Value| {
            names.iter().for_each(|name| put_pair(&mut line, name, &value));
        };
        put_both(["@timestamp", "timestamp"], timestamp(now).into());
        put_both(["log.level", "level"], level_word(*metadata.level()).into());
        // What has no name of its own is named by its message, as in the original.
        let (event, message) = event_and_message(fields);
        put_pair(&mut line, "message", &message.unwrap_or(event).into());
        put_pair(&mut line, "event", &event.into());
        put_pair(&mut line, "category", &category(metadata, fields).into());
        for (name, value) in fields.iter().filter(is_not_told) {
            match RESERVED.contains(&name) {
                true => put_pair(&mut line, &fields.free_name(name), &value),
                false => put_pair(&mut line, name, &value),
            }
        }
        let target = metadata.target();
        put_pair(&mut line, "log.logger", &target.into());
        put_pair(&mut line, "module", &target.replace("::", ".").into());
        self.finished(line)
    }

    /// Says everything under names that an index with the mapping of the Elastic Common Schema takes.
    fn ecs(&self, now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
        let mut line = String::with_capacity(1024);
        line.push('{');
        put_pair(&mut line, "@timestamp", &timestamp(now).into());
        put_pair(&mut line, "log.level", &level_word(*metadata.level()).into());
        let (event, message) = event_and_message(fields);
        put_pair(&mut line, "message", &message.unwrap_or(event).into());
        if let Some(event) = fields.text("event") {
            put_pair(&mut line, "event.action", &event.into());
        }
        put_pair(&mut line, "category", &category(metadata, fields).into());
        for (name, value) in fields.iter().filter(is_not_told) {
            let is_taken = match name {
                "event.action" => fields.text("event").is_some(),
                name => RESERVED.contains(&name) || ECS_OBJECTS.contains(&name),
            };
            match name {
                "error" if fields.position("error.message").is_none() => {
                    put_pair(&mut line, "error.message", &value);
                }
                name if is_taken => put_pair(&mut line, &fields.free_name(name), &value),
                name => put_pair(&mut line, name, &value),
            }
        }
        put_pair(&mut line, "log.logger", &metadata.target().into());
        self.finished(line)
    }

    fn finished(&self, mut line: String) -> String {
        line.push(',');
        line.push_str(&self.identity);
        line.push_str("}\n");
        line
    }
}

/// Whether a field is not the name or the category of its line.
fn is_not_told((name, value): &(&'static str, Value)) -> bool {
    !(matches!(*name, "event" | "category") && value.is_string())
}

fn console(now: SystemTime, metadata: &Metadata<'_>, fields: &Fields) -> String {
    let (event, message) = event_and_message(fields);
    let (stamp, level) = (timestamp(now), metadata.level());
    let mut line = format!("{stamp} {level:<5} {}", one_line(event));
    if let Some(message) = message {
        write!(line, ": {}", one_line(message)).expect("a string takes all");
    }
    for (name, value) in fields.iter().filter(|(name, _)| *name != "event") {
        match &value {
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
    match (fields.text("event"), fields.message.as_deref()) {
        (Some(event), message) => (event, message),
        (None, message) => (message.unwrap_or(""), None),
    }
}

/// Returns what the line is about: the event's own word, else that of the part it comes from.
fn category<'a>(metadata: &Metadata<'_>, fields: &'a Fields) -> &'a str {
    if let Some(category) = fields.text("category") {
        return category;
    }
    let target = metadata.target();
    match target.split_once("::").map_or(target, |(crate_name, _)| crate_name) {
        "librdkafka" | "drakkar_kafka" | "drakkar_source_kafka" => "kafka",
        "drakkar_sink_kafka" | "drakkar_sink_file" => "sink",
        "drakkar_exec" => "executor",
        "drakkar" | "drakkar_core" => "lifecycle",
        _ => "app",
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
