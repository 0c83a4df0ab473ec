//! From layers to a checked configuration.

use super::environment::{Environment, overrides};
use super::error::ConfigError;
use super::settings::{Config, Draft};
use super::tables::schema;
use super::yaml::{Entries, parse};
use config::{Map, Source, Value, ValueKind};
use drakkar_api::Problems;
use std::path::{Path, PathBuf};

impl Config {
    /// Reads the configuration of this process.
    ///
    /// The file is `path`, else the one that the environment variable `DRAKKAR_CONFIG` names, else
    /// there is none. Variables that begin with `DRAKKAR_` override it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and for everything that is wrong with the settings, all at once.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::draft(path)?.accept()
    }

    /// The same as far as it goes: what is wrong with the settings is kept beside them, so that the
    /// parts can add what they find.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is not YAML.
    pub(crate) fn draft(path: Option<&Path>) -> Result<Draft, ConfigError> {
        load_from(path, Environment::of_process())
    }

    /// Reads a configuration from the text of a file and a given environment.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    ///
    /// # Examples
    ///
    /// ```
    /// use drakkar::config::Config;
    ///
    /// let variable = ("DRAKKAR_EXECUTOR__MAX_EXECUTORS".to_owned(), "8".to_owned());
    /// let config = Config::from_yaml_str("kafka: {brokers: \"broker:9092\"}", [variable])?;
    /// assert_eq!(config.get("kafka.brokers"), Some(&"broker:9092".into()));
    /// assert_eq!(config.get("executor.max_executors"), Some(&8.into()));
    /// # Ok::<(), drakkar::config::ConfigError>(())
    /// ```
    pub fn from_yaml_str(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::draft_from_yaml_str(text, environment)?.accept()
    }

    /// As [`Config::draft`], from a text.
    pub(crate) fn draft_from_yaml_str(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Draft, ConfigError> {
        read(text, None, environment.into_iter().collect())
    }
}

/// Reads the file that `path` or the environment names, if any.
pub(super) fn load_from(
    path: Option<&Path>,
    environment: Environment,
) -> Result<Draft, ConfigError> {
    let file = match path {
        Some(path) => Some(path.to_owned()),
        None => environment.get("DRAKKAR_CONFIG").map(PathBuf::from),
    };
    let Some(path) = file else { return read("", None, environment) };
    let bytes = std::fs::read(&path).map_err(|error| ConfigError::from_io(&path, error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::from_syntax(Some(&path), format!("line {line} is not UTF-8"))
    })?;
    read(&text, Some(&path), environment)
}

fn read(text: &str, path: Option<&Path>, environment: Environment) -> Result<Draft, ConfigError> {
    let file = parse(text).map_err(|reason| ConfigError::from_syntax(path, reason))?;
    let (variables, problems) = overrides(&environment, schema(), &file);
    Ok(Draft::new(merge(file, variables), environment, path, problems))
}

/// Lays the variables over the file: tables merge, everything else is replaced.
fn merge(file: Entries, variables: Entries) -> Entries {
    // The `config` crate reads a top-level key such as `a.b` as a path; only keys that can be
    // settings go through it, the others meet the check as they are.
    let (known, unknown): (Entries, Entries) =
        file.into_iter().partition(|(key, _)| schema().get(key).is_some());
    let merged = config::Config::builder()
        .add_source(Layer(known))
        .add_source(Layer(variables))
        .build()
        .expect("layers that are already read cannot fail");
    let ValueKind::Table(mut merged) = merged.cache.kind else { return unknown };
    merged.extend(unknown);
    merged
}

/// One layer that is already read.
#[derive(Clone, Debug)]
struct Layer(Entries);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

impl Default for Config {
    /// The configuration without a file and without an environment.
    fn default() -> Self {
        Draft::new(Entries::new(), Environment::default(), None, Problems::new())
            .accept()
            .expect("a test checks that the defaults are valid")
    }
}
