//! The settings of a Kafka sink, beside those of its client.

use drakkar_api::{Field, Kind, Problems};
use serde::Deserialize;
use std::time::Duration;

/// The settings that this crate declares in `sinks.kafka.<name>`.
pub const FIELDS: &[Field] = &[
    Field {
        name: "topic",
        kind: Kind::Text { min_length: 1 },
        default: None,
        about: "The topic. It must exist.",
    },
    Field {
        name: "linger_ms",
        kind: Kind::Int { min: 0, max: 60_000 },
        default: Some("5"),
        about: "How long the client lets a record wait for others of its partition, in milliseconds.",
    },
    Field {
        name: "compression",
        kind: Kind::Word(&["none", "gzip", "snappy", "lz4", "zstd"]),
        default: Some("none"),
        about: "How the client compresses what it sends.",
    },
    Field {
        name: "attempt_timeout_seconds",
        kind: Kind::Int { min: 2, max: 3600 },
        default: Some("30"),
        about: "The deadline of one attempt to deliver a batch, in seconds. The client gives up on a \
                record a little earlier.",
    },
    Field {
        name: "batch_max_items",
        kind: Kind::Int { min: 1, max: 100_000 },
        default: Some("1000"),
        about: "The most records of one batch.",
    },
    Field {
        name: "batch_max_bytes",
        kind: Kind::Int { min: 1024, max: 1_073_741_824 },
        default: Some("1048576"),
        about: "The most bytes of one batch; a larger record goes alone.",
    },
    Field {
        name: "concurrency",
        kind: Kind::Int { min: 1, max: 1000 },
        default: Some("16"),
        about: "The most batches on their way at the same time.",
    },
];

/// The settings as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KafkaSinkSection {
    /// The topic.
    pub topic: String,
    /// How long a record may wait for others, in milliseconds.
    pub linger_ms: u64,
    /// How records are compressed.
    pub compression: Compression,
    /// The deadline of an attempt, in seconds.
    pub attempt_timeout_seconds: u64,
    /// The most records of one batch.
    pub batch_max_items: usize,
    /// The most bytes of one batch.
    pub batch_max_bytes: usize,
    /// The most batches on their way.
    pub concurrency: usize,
}

impl Default for KafkaSinkSection {
    fn default() -> Self {
        Self {
            topic: String::new(),
            linger_ms: 5,
            compression: Compression::None,
            attempt_timeout_seconds: 30,
            batch_max_items: 1000,
            batch_max_bytes: 1 << 20,
            concurrency: 16,
        }
    }
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

impl Compression {
    /// Returns librdkafka's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSinkConfig {
    pub(crate) topic: String,
    pub(crate) linger: Duration,
    pub(crate) compression: Compression,
    pub(crate) attempt_timeout: Duration,
    pub(crate) items_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) concurrency: usize,
}

impl KafkaSinkConfig {
    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns how long a record may wait for others.
    pub fn linger(&self) -> Duration {
        self.linger
    }

    /// Returns when the client gives up on a record: before the attempt ends.
    pub fn delivery_timeout(&self) -> Duration {
        self.attempt_timeout.mul_f64(0.8)
    }
}

impl KafkaSinkSection {
    /// Checks the settings. `path` is where the section stands, such as `sinks.kafka.results`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with its path.
    pub fn validate(self, path: &str) -> Result<KafkaSinkConfig, Problems> {
        let mut problems = Problems::new();
        if self.topic.is_empty() {
            problems.push(format!("{path}.topic"), "must name a topic, such as results");
        }
        let attempt_timeout = Duration::from_secs(self.attempt_timeout_seconds);
        let config = KafkaSinkConfig {
            topic: self.topic,
            linger: Duration::from_millis(self.linger_ms),
            compression: self.compression,
            attempt_timeout,
            items_max: self.batch_max_items,
            bytes_max: self.batch_max_bytes,
            concurrency: self.concurrency,
        };
        if config.linger >= config.delivery_timeout() {
            problems.push(
                format!("{path}.linger_ms"),
                format!(
                    "must be shorter than four fifths of attempt_timeout_seconds, found {} ms and {} s",
                    self.linger_ms, self.attempt_timeout_seconds
                ),
            );
        }
        problems.into_result(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_states_the_defaults() {
        let defaults = FIELDS.iter().filter_map(|field| {
            let text = field.default?;
            let value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
            Some((field.name.to_owned(), value))
        });
        let section: KafkaSinkSection =
            serde_json::from_value(serde_json::Value::Object(defaults.collect())).expect("typed");
        assert_eq!(section, KafkaSinkSection::default());
    }

    #[test]
    fn contradictions_are_refused_with_their_path() {
        let section = KafkaSinkSection {
            linger_ms: 2000,
            attempt_timeout_seconds: 2,
            ..KafkaSinkSection::default()
        };
        let problems = section.validate("sinks.kafka.results").expect_err("two problems");
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["sinks.kafka.results.topic", "sinks.kafka.results.linger_ms"]);
    }
}
