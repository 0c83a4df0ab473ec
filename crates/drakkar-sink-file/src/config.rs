//! The settings of one `filesystem` sink.

use drakkar_api::{BatchLimits, Field, Kind, Problems};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ITEMS_MAX: i64 = 100_000;
const BYTES_MAX: i64 = 256 * 1024 * 1024;
const SECONDS_MIN: f64 = 0.1;
const SECONDS_MAX: f64 = 3600.0;

/// The settings of one entry of `sinks.filesystem`, for the validator and the reference page.
pub const FIELDS: &[Field] = &[
    Field {
        name: "base_path",
        kind: Kind::Text { min_length: 1 },
        default: None,
        about: "The folder that holds all files of this sink. It must exist at start, and nothing \
                outside of it is ever written. Folders below it are never created.",
    },
    Field {
        name: "ui_url",
        kind: Kind::Text { min_length: 0 },
        default: Some("\"\""),
        about: "A link to the files for the UI; empty for none.",
    },
    Field {
        name: "fsync",
        kind: Kind::Word(&["never", "batch"]),
        default: Some("never"),
        about: "When a line counts as confirmed. `never`: when the system has taken it, so it \
                survives the worker's death but not a power failure. `batch`: when the device has \
                it, at the price of one flush per batch and file.",
    },
    Field {
        name: "batch_max_items",
        kind: Kind::Int { min: 1, max: ITEMS_MAX },
        default: Some("500"),
        about: "The most lines of one batch. What is queued beyond it waits for the next one.",
    },
    Field {
        name: "batch_max_bytes",
        kind: Kind::Int { min: 1, max: BYTES_MAX },
        default: Some("1048576"),
        about: "The most bytes of one batch. A longer line goes alone.",
    },
    Field {
        name: "attempt_timeout_seconds",
        kind: Kind::Float { min: SECONDS_MIN, max: SECONDS_MAX },
        default: Some("30.0"),
        about: "The deadline of one attempt to write a batch, the wait for other writers of the \
                same file included. What is not written by then is tried again or dead-lettered.",
    },
];

/// One entry of `sinks.filesystem` as a configuration file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSinkSection {
    /// The folder that holds all files of this sink.
    pub base_path: String,
    /// A link for the UI.
    #[serde(default)]
    pub ui_url: String,
    /// When a line counts as confirmed.
    #[serde(default)]
    pub fsync: Fsync,
    /// The most lines of one batch.
    #[serde(default = "default_items")]
    pub batch_max_items: i64,
    /// The most bytes of one batch.
    #[serde(default = "default_bytes")]
    pub batch_max_bytes: i64,
    /// The deadline of one attempt.
    #[serde(default = "default_seconds")]
    pub attempt_timeout_seconds: f64,
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

/// When a line counts as confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When the system has taken it.
    #[default]
    Never,
    /// When the device has it.
    Batch,
}

impl FileSinkSection {
    /// Makes a section for the folder `base_path` with all other settings at their defaults.
    pub fn new(base_path: impl Into<String>) -> Self {
        Self {
            base_path: base_path.into(),
            ui_url: String::new(),
            fsync: Fsync::default(),
            batch_max_items: default_items(),
            batch_max_bytes: default_bytes(),
            attempt_timeout_seconds: default_seconds(),
        }
    }

    /// Checks the section; `path` is where it stands, such as `sinks.filesystem.results`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once, with the path of each setting.
    pub fn validate(self, path: &str) -> Result<FileSinkConfig, Problems> {
        let mut problems = Problems::new();
        if self.base_path.is_empty() {
            let message = "must be a folder such as \"/var/lib/drakkar/out\", found \"\"";
            problems.push(format!("{path}.base_path"), message);
        }
        if self.base_path.contains('\0') {
            problems.push(format!("{path}.base_path"), "must not hold a NUL character");
        }
        let mut count = |name: &str, value: i64, max: i64| {
            if !(1..=max).contains(&value) {
                let message = format!("must be from 1 to {max}, found {value}");
                problems.push(format!("{path}.{name}"), message);
            }
            usize::try_from(value).unwrap_or(1)
        };
        let items_max = count("batch_max_items", self.batch_max_items, ITEMS_MAX);
        let bytes_max = count("batch_max_bytes", self.batch_max_bytes, BYTES_MAX);
        let seconds = self.attempt_timeout_seconds;
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
            let message = format!("must be from {SECONDS_MIN} to {SECONDS_MAX}, found {seconds}");
            problems.push(format!("{path}.attempt_timeout_seconds"), message);
        }
        let attempt_timeout = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        // One call at a time: a second one would wait for the first anyway, and its lines are
        // better off in the next batch.
        let limits = BatchLimits {
            items_max,
            bytes_max,
            concurrency: 1,
            item_bytes_max: None,
            attempt_timeout,
        };
        let base_path = PathBuf::from(self.base_path);
        let config = FileSinkConfig { base_path, ui_url: self.ui_url, fsync: self.fsync, limits };
        problems.into_result(config)
    }
}

/// Checked settings; made by [`FileSinkSection::validate`].
#[derive(Clone, Debug, PartialEq)]
pub struct FileSinkConfig {
    base_path: PathBuf,
    ui_url: String,
    fsync: Fsync,
    limits: BatchLimits,
}

impl FileSinkConfig {
    /// Returns the folder that holds all files.
    pub fn base_path(&self) -> &Path {
        &self.base_path
    }

    /// Returns the link for the UI; empty for none.
    pub fn ui_url(&self) -> &str {
        &self.ui_url
    }

    pub(crate) fn fsync(&self) -> Fsync {
        self.fsync
    }

    pub(crate) fn limits(&self) -> BatchLimits {
        self.limits
    }

    /// The deadline that the sink keeps by itself: shorter than the engine's, so that its verdicts
    /// arrive.
    pub(crate) fn own_deadline(&self) -> Duration {
        self.limits.attempt_timeout.mul_f64(0.9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn section(value: Value) -> FileSinkSection {
        serde_json::from_value(value).expect("a valid section")
    }

    #[test]
    fn the_table_and_the_struct_agree_on_defaults() {
        let minimal = section(json!({"base_path": "x"}));
        assert_eq!(minimal, FileSinkSection::new("x"));
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
            "base_path": "",
            "batch_max_items": 0,
            "batch_max_bytes": 1_i64 << 40,
            "attempt_timeout_seconds": -1.0,
        }))
        .validate("sinks.filesystem.a")
        .expect_err("all of it is wrong");
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "sinks.filesystem.a.base_path",
                "sinks.filesystem.a.batch_max_items",
                "sinks.filesystem.a.batch_max_bytes",
                "sinks.filesystem.a.attempt_timeout_seconds",
            ]
        );
    }

    #[test]
    fn the_sinks_deadline_is_shorter_than_the_engines() {
        let config = FileSinkSection::new("x").validate("p").expect("the defaults are valid");
        assert!(config.own_deadline() < config.limits().attempt_timeout);
    }
}
