//! The settings of one `kafka` sink.

use drakkar_api::{BatchLimits, Field, Kind, Problems, Secret};
use drakkar_kafka::{ClientSection, ProducerOptions, SECURITY, SecuritySection};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const ITEMS_MAX: i64 = 100_000;
const BYTES_MAX: i64 = 256 * 1024 * 1024;
const LINGER_MAX: i64 = 1000;
/// librdkafka looks for records that have timed out once a second, so the client's verdict on a
/// shorter attempt would come too late.
const SECONDS_MIN: f64 = 4.0;
const SECONDS_MAX: f64 = 3600.0;
/// How many calls of `deliver` may overlap: while one waits for its reports the next is enqueued.
const CONCURRENCY: usize = 4;

/// How long before the engine's deadline the sink answers, whatever is missing.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);
/// How long the client's report of a timeout may come late.
const REPORT_DELAY: Duration = Duration::from_millis(1500);

/// The settings of one entry of `sinks.kafka`, for the validator and the reference page.
pub const FIELDS: &[Field] = &[
    Field {
        name: "topic",
        kind: Kind::Text { min_length: 1 },
        default: None,
        about: "The topic. It must exist at start unless `create_topic` is set.",
    },
    Field {
        name: "brokers",
        kind: Kind::Text { min_length: 0 },
        default: Some("\"\""),
        about: "The brokers to ask first, as `host:port` separated by commas; empty takes \
                `kafka.brokers`.",
    },
    Field {
        name: "security",
        kind: Kind::Optional(&Kind::Section(&SECURITY)),
        default: Some("null"),
        about: "Encryption and authentication; null takes `kafka.security`, unless `brokers` names \
                another cluster.",
    },
    Field {
        name: "client_config",
        kind: Kind::Optional(&Kind::Map(&Kind::Secret)),
        default: Some("null"),
        about: "Raw options of librdkafka; null takes `kafka.client_config`, unless `brokers` names \
                another cluster. Values are not shown.",
    },
    Field {
        name: "ui_url",
        kind: Kind::Text { min_length: 0 },
        default: Some("\"\""),
        about: "A link to the topic for the UI; empty for none.",
    },
    Field {
        name: "create_topic",
        kind: Kind::Bool,
        default: Some("false"),
        about: "Whether a missing topic is created at start, with the brokers' defaults for \
                partitions, replicas and retention.",
    },
    Field {
        name: "compression",
        kind: Kind::Word(&["none", "gzip", "snappy", "lz4", "zstd"]),
        default: Some("none"),
        about: "How batches are compressed. `lz4` costs the least CPU, `zstd` saves the most \
                bytes.",
    },
    Field {
        name: "linger_ms",
        kind: Kind::Int { min: 0, max: LINGER_MAX },
        default: Some("5"),
        about: "How many milliseconds the client waits for more records of a partition to travel \
                with; its own default. 0 sends each at once and costs a request each.",
    },
    Field {
        name: "batch_max_items",
        kind: Kind::Int { min: 1, max: ITEMS_MAX },
        default: Some("500"),
        about: "The most records of one batch. What is queued beyond it waits for the next one.",
    },
    Field {
        name: "batch_max_bytes",
        kind: Kind::Int { min: 1, max: BYTES_MAX },
        default: Some("1048576"),
        about: "The most bytes of one batch. A larger record goes alone. The client keeps at most \
                eight batches, or 32 MiB if that is more.",
    },
    Field {
        name: "attempt_timeout_seconds",
        kind: Kind::Float { min: SECONDS_MIN, max: SECONDS_MAX },
        default: Some("30.0"),
        about: "The deadline of one attempt to deliver a batch. What was certainly not written by \
                then is tried again; what may have been written is not, unless a repeat is \
                harmless.",
    },
];

/// One entry of `sinks.kafka` as a configuration file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSinkSection {
    /// The topic.
    pub topic: String,
    /// The brokers to ask first; empty for those of the section `kafka`.
    #[serde(default)]
    pub brokers: String,
    /// Encryption and authentication; none for those of the section `kafka`, if it is its cluster.
    #[serde(default)]
    pub security: Option<SecuritySection>,
    /// Raw options of librdkafka; none for those of the section `kafka`, if it is its cluster.
    #[serde(default)]
    pub client_config: Option<BTreeMap<String, Secret<String>>>,
    /// A link for the UI.
    #[serde(default)]
    pub ui_url: String,
    /// Whether a missing topic is created.
    #[serde(default)]
    pub create_topic: bool,
    /// How batches are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// How long the client waits for more records.
    #[serde(default = "default_linger")]
    pub linger_ms: i64,
    /// The most records of one batch.
    #[serde(default = "default_items")]
    pub batch_max_items: i64,
    /// The most bytes of one batch.
    #[serde(default = "default_bytes")]
    pub batch_max_bytes: i64,
    /// The deadline of one attempt.
    #[serde(default = "default_seconds")]
    pub attempt_timeout_seconds: f64,
}

fn default_linger() -> i64 {
    5
}

fn default_items() -> i64 {
    500
}

fn default_bytes() -> i64 {
    1024 * 1024
}

fn default_seconds() -> f64 {
    30.0
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With gzip.
    Gzip,
    /// With Snappy.
    Snappy,
    /// With LZ4.
    Lz4,
    /// With Zstandard.
    Zstd,
}

impl Compression {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl KafkaSinkSection {
    /// Makes a section for `topic` with all other settings at their defaults.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            brokers: String::new(),
            security: None,
            client_config: None,
            ui_url: String::new(),
            create_topic: false,
            compression: Compression::default(),
            linger_ms: default_linger(),
            batch_max_items: default_items(),
            batch_max_bytes: default_bytes(),
            attempt_timeout_seconds: default_seconds(),
        }
    }

    /// Makes the section of the dead letter topic: as [`new`](Self::new), but created if missing.
    pub fn dead_letters(topic: impl Into<String>) -> Self {
        Self { create_topic: true, ..Self::new(topic) }
    }

    /// Returns the client settings of this sink. Validate them under the sink's own path.
    ///
    /// What is left out is taken over from the section `kafka`, whole settings at a time.
    /// Credentials go to the same cluster only: a sink with brokers of its own takes over neither
    /// `security` nor `client_config`.
    pub fn client_section(&self, inherited: &ClientSection) -> ClientSection {
        let is_same_cluster = self.brokers.is_empty() || self.brokers == inherited.brokers;
        let mut section = match is_same_cluster {
            true => inherited.clone(),
            false => ClientSection { brokers: self.brokers.clone(), ..ClientSection::default() },
        };
        if let Some(security) = &self.security {
            section.security.clone_from(security);
        }
        if let Some(client_config) = &self.client_config {
            section.client_config.clone_from(client_config);
        }
        section
    }

    /// Checks the section; `path` is where it stands, such as `sinks.kafka.results`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once, with the path of each setting. What
    /// [`client_section`](Self::client_section) makes is not checked here.
    pub fn validate(self, path: &str) -> Result<KafkaSinkConfig, Problems> {
        let mut problems = Problems::new();
        if let Err(why) = check_topic(&self.topic) {
            let message =
                format!("{why}, found {:?}; a topic is named like \"results\"", self.topic);
            problems.push(format!("{path}.topic"), message);
        }
        let mut number = |name: &str, value: i64, min: i64, max: i64| {
            if !(min..=max).contains(&value) {
                let message = format!("must be from {min} to {max}, found {value}");
                problems.push(format!("{path}.{name}"), message);
            }
            u32::try_from(value).unwrap_or(1)
        };
        let linger_ms = number("linger_ms", self.linger_ms, 0, LINGER_MAX);
        let items_max = number("batch_max_items", self.batch_max_items, 1, ITEMS_MAX);
        let bytes_max = number("batch_max_bytes", self.batch_max_bytes, 1, BYTES_MAX);
        let seconds = self.attempt_timeout_seconds;
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            let message = format!("must be from {SECONDS_MIN} to {SECONDS_MAX}, found {seconds}");
            problems.push(format!("{path}.attempt_timeout_seconds"), message);
        }
        let limits = BatchLimits {
            items_max: items_max as usize,
            bytes_max: bytes_max as usize,
            concurrency: CONCURRENCY,
            item_bytes_max: None,
            attempt_timeout: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        };
        let config = KafkaSinkConfig {
            topic: self.topic,
            ui_url: self.ui_url,
            create_topic: self.create_topic,
            compression: self.compression,
            linger: Duration::from_millis(u64::from(linger_ms)),
            limits,
        };
        problems.into_result(config)
    }
}

/// Checks a topic's name by the brokers' rules.
fn check_topic(topic: &str) -> Result<(), &'static str> {
    let is_legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    match topic {
        "" => Err("must not be empty"),
        "." | ".." => Err("must not be \".\" or \"..\""),
        _ if topic.len() > 249 => Err("must have at most 249 characters"),
        _ if !topic.chars().all(is_legal) => {
            Err("may hold only ASCII letters, digits, \".\", \"_\" and \"-\"")
        }
        _ => Ok(()),
    }
}

/// Checked settings; made by [`KafkaSinkSection::validate`].
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaSinkConfig {
    topic: String,
    ui_url: String,
    create_topic: bool,
    compression: Compression,
    linger: Duration,
    limits: BatchLimits,
}

impl KafkaSinkConfig {
    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the link for the UI; empty for none.
    pub fn ui_url(&self) -> &str {
        &self.ui_url
    }

    /// Returns what the client settings must be told to make the base configuration of this sink's
    /// producer.
    pub fn producer_options(&self) -> ProducerOptions {
        ProducerOptions { delivery_timeout: self.delivery_timeout(), linger: self.linger }
    }

    pub(crate) fn create_topic(&self) -> bool {
        self.create_topic
    }

    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    pub(crate) fn linger(&self) -> Duration {
        self.linger
    }

    pub(crate) fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// When the sink answers at the latest, from the beginning of an attempt.
    pub(crate) fn answer_after(&self) -> Duration {
        self.limits.attempt_timeout.saturating_sub(ANSWER_MARGIN)
    }

    /// How long the client may try to deliver a record: so short that its report precedes the
    /// sink's answer, also for a record that had to wait to be enqueued.
    pub(crate) fn delivery_timeout(&self) -> Duration {
        (self.answer_after() - REPORT_DELAY).mul_f64(0.9)
    }

    /// How long records may wait for room in the client's queue.
    pub(crate) fn enqueue_within(&self) -> Duration {
        self.answer_after() - REPORT_DELAY - self.delivery_timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn section(value: Value) -> KafkaSinkSection {
        serde_json::from_value(value).expect("a valid section")
    }

    #[test]
    fn the_table_and_the_struct_agree_on_defaults() {
        let minimal = section(json!({"topic": "x"}));
        assert_eq!(minimal, KafkaSinkSection::new("x"));
        let values = serde_json::to_value(&minimal).expect("plain data");
        let names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        let mut known: Vec<_> = values.as_object().expect("a map").keys().collect();
        known.sort_by_key(|key| names.iter().position(|name| name == *key));
        assert_eq!(known, names);
        for field in FIELDS {
            let Some(default) = field.default else { continue };
            // YAML reads a bare word as text.
            let default = serde_json::from_str(default).unwrap_or_else(|_| json!(default));
            assert_eq!(values[field.name], default, "{}", field.name);
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_path() {
        let problems = section(json!({
            "topic": "no spaces",
            "linger_ms": -1,
            "batch_max_items": 0,
            "batch_max_bytes": 0,
            "attempt_timeout_seconds": 1,
        }))
        .validate("sinks.kafka.a")
        .expect_err("all of it is wrong");
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "sinks.kafka.a.topic",
                "sinks.kafka.a.linger_ms",
                "sinks.kafka.a.batch_max_items",
                "sinks.kafka.a.batch_max_bytes",
                "sinks.kafka.a.attempt_timeout_seconds",
            ]
        );
    }

    #[test]
    fn topics_are_named_by_the_brokers_rules() {
        assert_eq!(check_topic("a.B-c_9"), Ok(()));
        for wrong in ["", ".", "..", "a/b", "ä", &"x".repeat(250)] {
            check_topic(wrong).expect_err(wrong);
        }
    }

    // Promise: FT-2
    #[test]
    fn the_clients_verdict_precedes_the_sinks_and_that_the_engines() {
        for seconds in [SECONDS_MIN, 30.0, SECONDS_MAX] {
            let section =
                KafkaSinkSection { attempt_timeout_seconds: seconds, ..KafkaSinkSection::new("t") };
            let config = section.validate("p").expect("valid");
            let latest_report = config.enqueue_within() + config.delivery_timeout() + REPORT_DELAY;
            assert!(latest_report <= config.answer_after());
            assert!(config.answer_after() < config.limits().attempt_timeout);
            assert!(config.delivery_timeout() >= Duration::from_secs(1));
            assert!(!config.enqueue_within().is_zero());
        }
    }

    #[test]
    fn client_settings_are_own_or_inherited() {
        let raw = |name: &str| BTreeMap::from([(name.to_owned(), Secret::new("7".to_owned()))]);
        let inherited = ClientSection {
            security: SecuritySection { username: "u".to_owned(), ..SecuritySection::default() },
            client_config: raw("linger.ms"),
            ..ClientSection::default()
        };
        let sink = KafkaSinkSection::new("t");
        assert_eq!(sink.client_section(&inherited), inherited);
        let named = KafkaSinkSection { brokers: inherited.brokers.clone(), ..sink.clone() };
        assert_eq!(named.client_section(&inherited), inherited, "the same cluster, said again");
        let own = KafkaSinkSection { client_config: Some(raw("batch.size")), ..sink.clone() };
        let expected = ClientSection { client_config: raw("batch.size"), ..inherited.clone() };
        assert_eq!(own.client_section(&inherited), expected, "it replaces, and adds nothing");
        let far = KafkaSinkSection { brokers: "far:9092".to_owned(), ..sink };
        let expected = ClientSection { brokers: "far:9092".to_owned(), ..ClientSection::default() };
        assert_eq!(far.client_section(&inherited), expected, "credentials stay at home");
    }
}
