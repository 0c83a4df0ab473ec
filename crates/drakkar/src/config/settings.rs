//! The checked configuration and the typed views that the facade needs of it.

use super::environment::Environment;
use super::error::ConfigError;
use super::schema::{Shape, Table};
use super::tables::{SINK_TYPES, schema};
use super::walk::{check_root, check_value};
use super::yaml::{Entries, emit, from_json, put};
use super::{compiled, contradictions, mask, summary};
use crate::logging;
use config::ValueKind;
use drakkar_api::{Field, Problems};
use drakkar_core::SendFailurePolicy;
use drakkar_source_kafka::WORKER_ID;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration of a worker: every setting is present, checked and of its declared type.
///
/// Programs may change it before the pipeline starts, see [`Config::set`]. Its `Debug` hides secrets.
#[derive(Clone)]
pub struct Config {
    /// What the file, the environment and the program said.
    written: Entries,
    checked: Map<String, Value>,
    environment: Environment,
    file: Option<PathBuf>,
    /// The worker's name if nothing names it.
    nameless: String,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("file", &self.file)
            .field("settings", &mask::masked_table(schema(), &self.checked))
            .finish_non_exhaustive()
    }
}

/// A configuration as far as it could be read, and everything that is wrong with it. Settings with a
/// problem are missing.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) problems: Problems,
}

impl Draft {
    /// Checks merged settings; `problems` are those of reading the layers.
    pub(super) fn new(
        written: Entries,
        environment: Environment,
        file: Option<&Path>,
        mut problems: Problems,
    ) -> Self {
        let (checked, found) = check_root(schema(), &written);
        problems.extend(found);
        let random = RandomState::new().build_hasher().finish();
        let nameless = format!("drakkar-{:08x}", random >> 32);
        let file = file.map(Path::to_owned);
        let config = Config { written, checked, environment, file, nameless };
        config.check_together(&mut problems);
        Self { config, problems }
    }

    /// Takes a configuration that the program made; its settings may contradict each other.
    pub(crate) fn from_program(config: Config) -> Self {
        let mut problems = Problems::new();
        config.check_together(&mut problems);
        Self { config, problems }
    }

    /// Answers the configuration if nothing is wrong with it.
    pub(crate) fn accept(self) -> Result<Config, ConfigError> {
        let Self { config, problems } = self;
        match problems.into_result(()) {
            Ok(()) => Ok(config),
            Err(all) => Err(ConfigError::from_problems(config.file(), all)),
        }
    }
}

impl Config {
    /// Returns the file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the value at a path such as `executor.max_executors`: a setting, or a whole section.
    ///
    /// Secrets are in it as they are.
    pub fn get(&self, path: &str) -> Option<&Value> {
        find(&self.checked, path)
    }

    /// Changes one setting, before the pipeline starts. Whatever was there is replaced.
    ///
    /// The value is checked like one of the file. Whether it fits the other settings is checked by
    /// [`Config::validate`], which the application calls after its start-up closure, so that several
    /// settings can be changed one after the other.
    ///
    /// # Errors
    ///
    /// When there is no such setting or the value is not valid for it. Nothing is changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// # use drakkar::config::Config;
    /// let mut config = Config::default();
    /// config.set("executor.max_executors", 8)?;
    /// assert!(config.set("executor.max_executors", 0).is_err());
    /// assert_eq!(config.get("executor.max_executors"), Some(&8.into()));
    /// # Ok::<(), drakkar::config::ConfigError>(())
    /// ```
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<(), ConfigError> {
        let refuse = |problems| ConfigError::from_problems(None, problems);
        let Some((keys, shape)) = locate(schema(), path) else {
            let mut problems = Problems::new();
            problems.push(path, "is no setting");
            return Err(refuse(problems));
        };
        let value = from_json(value.into(), None);
        let problems = check_value(shape, &value, path);
        problems.into_result(()).map_err(refuse)?;
        let mut written = self.written.clone();
        put(&mut written, &keys, value);
        let (checked, problems) = check_root(schema(), &written);
        problems.into_result(()).map_err(refuse)?;
        self.written = written;
        self.checked = checked;
        Ok(())
    }

    /// Checks the settings against each other and against what this build can do.
    ///
    /// # Errors
    ///
    /// Every contradiction, every sink whose type is not compiled in, and a filter of the log that is
    /// not valid.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::new();
        self.check_together(&mut problems);
        problems.into_result(()).map_err(|all| ConfigError::from_problems(self.file(), all))
    }

    /// Checks that at least one sink is configured.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn require_sinks(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::new();
        self.check_sinks(&mut problems);
        problems.into_result(()).map_err(|all| ConfigError::from_problems(self.file(), all))
    }

    /// Notes that there is no sink. A sink whose settings are wrong is one, too.
    pub(crate) fn check_sinks(&self, problems: &mut Problems) {
        let is_about_sinks = |path: &str| path == "sinks" || path.starts_with("sinks.");
        let is_doubtful = problems.iter().any(|problem| is_about_sinks(&problem.path));
        if self.sinks().next().is_none() && !is_doubtful {
            let message = "no sinks configured; add one, such as sinks: {kafka: {results: {topic: \
                           results}}}";
            problems.push("sinks", message);
        }
    }

    /// Notes what does not fit together, what this build cannot do, and a bad filter of the log.
    pub(crate) fn check_together(&self, problems: &mut Problems) {
        contradictions::check(&self.checked, problems);
        if let Some(Value::Object(sinks)) = self.checked.get("sinks") {
            compiled::check_sinks(sinks, problems);
        }
        if let Some((variable, filter)) = self.log_filter()
            && let Err(message) = logging::check_filter(filter)
        {
            problems.push(variable, message);
        }
    }

    /// Returns the filter of the log that the environment asks for, and the variable's name.
    fn log_filter(&self) -> Option<(&'static str, &str)> {
        ["DRAKKAR_LOG", "RUST_LOG"]
            .into_iter()
            .find_map(|variable| Some((variable, self.environment.get(variable)?)))
    }

    /// Returns what deserves a look but does not stop the worker, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let is_on = |section: &str| {
            let enabled = self.get(&format!("{section}.enabled")) == Some(&Value::Bool(true));
            enabled && self.written.contains_key(section)
        };
        if is_on("debug") && !compiled::is_debug_compiled() {
            warnings.push(
                "debug: this build has no debug server; of the section only log_min_duration_ms has \
                 an effect"
                    .into(),
            );
        }
        if is_on("cache") && !compiled::is_cache_compiled() {
            warnings.push("cache: this build has no cache; the section has no effect".into());
        }
        if self.writes_circuit_breaker() {
            warnings.push(
                "sinks.circuit_breaker: this version has no circuit breaker; the section has no effect"
                    .into(),
            );
        }
        if is_on("cache") && self.get("cache.max_memory_entries") == Some(&Value::Null) {
            warnings.push(
                "cache.max_memory_entries: without a limit the cache may use up the memory".into(),
            );
        }
        warnings
    }

    /// Whether file, environment or program say anything in the section `sinks.circuit_breaker`.
    fn writes_circuit_breaker(&self) -> bool {
        let Some(ValueKind::Table(sinks)) = self.written.get("sinks").map(|sinks| &sinks.kind)
        else {
            return false;
        };
        let section = sinks.get("circuit_breaker").map(|section| &section.kind);
        matches!(section, Some(ValueKind::Table(settings)) if !settings.is_empty())
    }

    /// Deserialises those settings of a section that one crate declares.
    ///
    /// # Errors
    ///
    /// When the crate's table and its struct disagree, which is a mistake in that crate.
    ///
    /// # Panics
    ///
    /// When there is no such section.
    pub fn part<T: DeserializeOwned>(
        &self,
        section: &str,
        fields: &[Field],
    ) -> Result<T, ConfigError> {
        let settings = self.section(section);
        let part = fields
            .iter()
            .filter_map(|field| Some((field.name.to_owned(), settings.get(field.name)?.clone())));
        serde_json::from_value(Value::Object(part.collect())).map_err(|error| {
            let mut problems = Problems::new();
            problems.push(section, format!("the settings table and its struct disagree: {error}"));
            ConfigError::from_problems(None, problems)
        })
    }

    /// Returns a whole section, such as `executor` or `sinks.retry`, with all defaults filled in.
    ///
    /// # Panics
    ///
    /// When there is no such section.
    pub fn section(&self, path: &str) -> &Value {
        self.get(path).unwrap_or_else(|| panic!("there is no section \"{path}\""))
    }

    /// Returns a whole section, or null when it could not be read.
    pub(crate) fn as_read(&self, path: &str) -> &Value {
        self.get(path).unwrap_or(&Value::Null)
    }

    /// Returns the type and name of every sink, types in the order of the original, names in
    /// alphabetical order.
    pub fn sinks(&self) -> impl Iterator<Item = (&'static str, &str)> {
        SINK_TYPES.into_iter().flat_map(|kind| {
            let instances =
                self.checked.get("sinks").and_then(|sinks| sinks.get(kind)?.as_object());
            instances.into_iter().flat_map(Map::keys).map(move |name| (kind, name.as_str()))
        })
    }

    /// Returns the settings of one sink. What a Kafka sink takes over from the section `kafka` is not
    /// filled in, see [`Config::kafka_client`].
    pub fn sink(&self, kind: &str, name: &str) -> Option<&Value> {
        self.checked.get("sinks")?.get(kind)?.get(name)
    }

    /// Returns the client settings (`brokers`, `security`, `client_config`) of a destination in
    /// Kafka: of `dlq`, or of a sink such as `sinks.kafka.results`.
    ///
    /// What is left out there is taken over from the section `kafka`. Credentials go to the same
    /// cluster only: a destination with brokers of its own takes over neither `security` nor
    /// `client_config`.
    pub fn kafka_client(&self, path: &str) -> Value {
        let kafka = self.as_read("kafka");
        let settings = self.as_read(path);
        let brokers = text(settings, "brokers");
        let same_cluster = brokers.is_empty() || brokers == text(kafka, "brokers");
        let client = drakkar_kafka::FIELDS.iter().filter_map(|field| {
            let own = settings.get(field.name).filter(|value| !value.is_null() && *value != "");
            // Without a value the owner's default holds.
            let value = own.or_else(|| kafka.get(field.name).filter(|_| same_cluster))?;
            Some((field.name.to_owned(), value.clone()))
        });
        Value::Object(client.collect())
    }

    /// Returns the settings of the dead letters.
    pub fn dlq(&self) -> DlqSettings {
        let settings = self.as_read("dlq");
        let topic = match text(settings, "topic") {
            "" => format!("{}_dlq", text(self.as_read("kafka"), "source_topic")),
            topic => topic.to_owned(),
        };
        let on_send_failure = match text(settings, "on_send_failure") {
            "drop" => SendFailurePolicy::Drop,
            _ => SendFailurePolicy::Hold,
        };
        DlqSettings { topic, on_send_failure }
    }

    /// Returns the settings of the metrics server.
    pub fn metrics(&self) -> MetricsSettings {
        let settings = self.section("metrics");
        let port = settings.get("port").and_then(Value::as_u64).unwrap_or_default();
        MetricsSettings {
            enabled: settings.get("enabled") == Some(&Value::Bool(true)),
            host: text(settings, "host").parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: u16::try_from(port).expect("checked at load"),
        }
    }

    /// Returns the settings of the log.
    pub fn logging(&self) -> LogSettings {
        let settings = self.section("logging");
        LogSettings {
            level: LogLevel::parse(text(settings, "level")).unwrap_or(LogLevel::Info),
            format: match text(settings, "format") {
                "ecs" => LogFormat::Ecs,
                "console" => LogFormat::Console,
                _ => LogFormat::Json,
            },
            output: text(settings, "output").to_owned(),
            filter: self.log_filter().map(|(_, filter)| filter.to_owned()),
        }
    }

    /// Returns the duration from which a task is logged as slow.
    pub(crate) fn slow_task_duration(&self) -> Duration {
        let millis = self.section("debug").get("log_min_duration_ms").and_then(Value::as_u64);
        Duration::from_millis(millis.unwrap_or_default())
    }

    /// Returns the worker's name: the value of the variable that `worker_name_env` names, else
    /// `drakkar-` and 8 hex digits that are drawn when the configuration is loaded.
    pub fn worker_name(&self) -> &str {
        self.given_worker_name().unwrap_or(&self.nameless)
    }

    /// Returns the worker's name if the environment gives it one.
    pub(crate) fn given_worker_name(&self) -> Option<&str> {
        let variable = self.checked.get("worker_name_env").and_then(Value::as_str);
        variable.and_then(|name| self.environment.get(name))
    }

    /// Notes what needs a name that is the same after a restart, for a worker that nobody named.
    pub(crate) fn check_nameless(&self, problems: &mut Problems) {
        let instance = self.get("kafka.group_instance_id").and_then(Value::as_str);
        if instance.is_some_and(|id| id.contains(WORKER_ID)) {
            let variable = self.get("worker_name_env").and_then(Value::as_str).unwrap_or_default();
            let message = format!(
                "{WORKER_ID} stands for a name that is the same after a restart, and this worker has \
                 none; give it one by the environment variable {variable}"
            );
            problems.push("kafka.group_instance_id", message);
        }
    }

    /// Returns the cluster's name, empty if there is none: the value of the variable that
    /// `cluster_name_env` names, else `cluster_name`.
    pub fn cluster_name(&self) -> &str {
        let setting = |key: &str| self.checked.get(key).and_then(Value::as_str).unwrap_or_default();
        self.environment.get(setting("cluster_name_env")).unwrap_or(setting("cluster_name"))
    }

    /// Returns the settings that matter most on one line, for the log.
    pub fn summary_line(&self, worker: &str) -> String {
        summary::summary_line(self, worker)
    }

    /// Returns all settings as YAML, with every secret replaced by `***`.
    pub fn redacted_yaml(&self) -> String {
        emit(&mask::masked_table(schema(), &self.checked))
    }
}

/// Finds a value by its dotted path. Names of sinks and options may hold dots themselves.
fn find<'a>(entries: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    entries.get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| {
            let inner = entries.get(&path[..dot])?.as_object()?;
            find(inner, &path[dot + 1..])
        })
    })
}

/// Finds a setting by its dotted path: the keys, and the shape of the value.
fn locate<'a>(table: &'a Table, path: &str) -> Option<(Vec<String>, &'a Shape)> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let setting = table.get(first)?;
    let mut keys = vec![first.to_owned()];
    let Some(rest) = rest else { return Some((keys, &setting.shape)) };
    let (inner, shape) = locate_inside(&setting.shape, rest)?;
    keys.extend(inner);
    Some((keys, shape))
}

fn locate_inside<'a>(shape: &'a Shape, path: &str) -> Option<(Vec<String>, &'a Shape)> {
    match shape {
        Shape::Table(table) => locate(table, path),
        Shape::Optional(inner) => locate_inside(inner, path),
        Shape::Map(inner) => match (inner.as_table(), path.split_once('.')) {
            (Some(_), Some((name, rest))) => {
                let (mut keys, shape) = locate_inside(inner, rest)?;
                keys.insert(0, name.to_owned());
                Some((keys, shape))
            }
            // A free name may itself hold dots, as options of librdkafka do.
            _ => Some((vec![path.to_owned()], inner)),
        },
        Shape::List(_) | Shape::Scalar(_) => None,
    }
}

fn text<'a>(settings: &'a Value, key: &str) -> &'a str {
    settings.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The settings of the metrics server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// The address that it listens on.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
}

/// The settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSettings {
    /// The least level that is written.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
    /// `stderr`, `stdout` or the template of a path.
    pub output: String,
    /// A filter from the environment that replaces the level.
    pub filter: Option<String>,
}

/// The least level of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What went wrong and was recovered.
    Warn,
    /// What was lost or needs a human.
    Error,
    /// Nothing.
    Off,
}

impl LogLevel {
    /// The words of the configuration.
    pub(super) const NAMES: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"];

    /// Reads a level in any case, also under the names that the original's log had for it.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_uppercase().as_str() {
            "TRACE" => Self::Trace,
            "DEBUG" => Self::Debug,
            "INFO" => Self::Info,
            "WARN" | "WARNING" => Self::Warn,
            "ERROR" | "CRITICAL" => Self::Error,
            "OFF" => Self::Off,
            _ => return None,
        })
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object for each line.
    Json,
    /// The same, under names of the Elastic Common Schema alone.
    Ecs,
    /// Text for people.
    Console,
}

/// The settings of the dead letters, beside those of their client, see [`Config::kafka_client`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DlqSettings {
    /// The topic.
    pub topic: String,
    /// What follows when a dead letter cannot be written.
    pub on_send_failure: SendFailurePolicy,
}
