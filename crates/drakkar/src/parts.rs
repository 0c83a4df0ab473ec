//! From settings to parts: an explicit list of what each section makes.

use crate::config::{Config, ConfigError};
use drakkar_api::{Field, Problems, SinkId, SinkKind, WorkerId};
use drakkar_core::{
    AnySink, EXECUTOR_FIELDS, EngineConfig, KAFKA_FIELDS, RETRY_SECTION, RawExecutor, RawKafka,
    RawRetry,
};
use drakkar_exec::{PoolConfig, PoolSection};
use drakkar_kafka::{ClientSection, ClientSettings};
use drakkar_sink_kafka::{KafkaSink, KafkaSinkSection};
use drakkar_source_kafka::{SourceConfig, SourceSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::time::Duration;

/// Everything that the configuration makes. Nothing is connected or started.
pub(crate) struct Parts {
    pub(crate) engine: EngineConfig,
    pub(crate) pool: PoolConfig,
    pub(crate) client: ClientSettings,
    pub(crate) source: SourceSettings,
    pub(crate) sinks: Vec<AnySink>,
    pub(crate) dead_letters: AnySink,
}

impl Parts {
    /// Makes the parts.
    ///
    /// # Errors
    ///
    /// Every problem that any of the parts finds, at once.
    pub(crate) fn new(config: &Config, worker: &WorkerId) -> Result<Self, ConfigError> {
        let executor: RawExecutor = config.part("executor", EXECUTOR_FIELDS)?;
        let core_kafka: RawKafka = config.part("kafka", KAFKA_FIELDS)?;
        let retry: RawRetry = config.part("sinks.retry", RETRY_SECTION.fields)?;
        let pool: PoolSection = config.part("executor", drakkar_exec::FIELDS)?;
        let source: SourceConfig = config.part("kafka", drakkar_source_kafka::FIELDS)?;
        let client: ClientSection = config.part("kafka", drakkar_kafka::FIELDS)?;
        let mut problems = Problems::new();
        let on_send_failure = config.dlq().on_send_failure;
        let drain_timeout = Duration::from_secs(executor.drain_timeout_seconds);
        let (slots, records) = (pool.max_executors, source.max_poll_records as usize);
        let engine =
            EngineConfig::new(executor, core_kafka, retry, on_send_failure, slots, records);
        let engine = note(&mut problems, engine);
        let pool = note(&mut problems, pool.validate());
        let source = note(&mut problems, source.validate("kafka", drain_timeout));
        let client = note(&mut problems, client.validate("kafka"));
        let sinks = note(&mut problems, sinks(config, worker));
        let dead_letters = note(&mut problems, dead_letters(config, worker));
        let parts = (|| {
            Some(Self {
                engine: engine?,
                pool: pool?,
                client: client?,
                source: source?,
                sinks: sinks?,
                dead_letters: dead_letters?,
            })
        })();
        problems
            .into_result(())
            .map_err(|problems| ConfigError::from_problems(config.file(), problems))?;
        Ok(parts.expect("every part that is missing noted a problem"))
    }
}

/// Keeps the problems of a part that could not be made.
fn note<T>(problems: &mut Problems, made: Result<T, Problems>) -> Option<T> {
    made.map_err(|found| problems.extend(found)).ok()
}

/// Makes the sinks of the configuration.
fn sinks(config: &Config, worker: &WorkerId) -> Result<Vec<AnySink>, Problems> {
    let mut problems = Problems::new();
    let made = config.sinks().filter_map(|(kind, name)| sink(config, kind, name, worker));
    let made: Vec<_> = made.filter_map(|sink| note(&mut problems, sink)).collect();
    problems.into_result(made)
}

/// Makes one sink. `None` for a type that is not compiled in, which was refused before.
#[cfg_attr(
    not(feature = "sink-kafka"),
    expect(unused_variables, reason = "each sink needs some of them")
)]
fn sink(
    config: &Config,
    kind: &str,
    name: &str,
    worker: &WorkerId,
) -> Option<Result<AnySink, Problems>> {
    match kind {
        #[cfg(feature = "sink-kafka")]
        "kafka" => Some(kafka_sink(config, name, worker)),
        #[cfg(feature = "sink-file")]
        "filesystem" => Some(file_sink(config, name)),
        _ => None,
    }
}

#[cfg(feature = "sink-kafka")]
fn kafka_sink(config: &Config, name: &str, worker: &WorkerId) -> Result<AnySink, Problems> {
    let path = format!("sinks.kafka.{name}");
    let client = client(config, &path);
    // The client's settings are made apart, because they may be those of the section `kafka`.
    let is_client = |name| drakkar_kafka::FIELDS.iter().any(|field| field.name == name);
    let own = drakkar_sink_kafka::FIELDS.iter().filter(|field| !is_client(field.name));
    let own: Vec<_> = own.copied().collect();
    let section: KafkaSinkSection = part(config.section(&path), &own, &path)?;
    let (client, section) = both(client, section.validate(&path))?;
    let base = client.producer_config(worker.as_str(), section.producer_options());
    Ok(AnySink::new(KafkaSink::new(SinkId::new(SinkKind::Kafka, name), section, base)))
}

#[cfg(feature = "sink-file")]
fn file_sink(config: &Config, name: &str) -> Result<AnySink, Problems> {
    use drakkar_sink_file::{FileSink, FileSinkSection};

    let path = format!("sinks.filesystem.{name}");
    let section: FileSinkSection = part(config.section(&path), drakkar_sink_file::FIELDS, &path)?;
    let id = SinkId::new(SinkKind::Filesystem, name);
    Ok(AnySink::new(FileSink::new(id, section.validate(&path)?)))
}

fn dead_letters(config: &Config, worker: &WorkerId) -> Result<AnySink, Problems> {
    let section = KafkaSinkSection::dead_letters(config.dlq().topic);
    let (client, section) = both(client(config, "dlq"), section.validate("dlq"))?;
    let base = client.producer_config(worker.as_str(), section.producer_options());
    // Not a sink of the configuration: its type tells it apart in the log and in the metrics.
    let id = SinkId::new(SinkKind::Custom("dead_letters".into()), section.topic());
    Ok(AnySink::new(KafkaSink::new(id, section, base)))
}

/// Makes the client settings of a destination in Kafka.
fn client(config: &Config, path: &str) -> Result<ClientSettings, Problems> {
    let section: ClientSection = part(&config.kafka_client(path), drakkar_kafka::FIELDS, path)?;
    section.validate(path)
}

/// Deserialises those settings that a crate declares.
fn part<T: DeserializeOwned>(
    settings: &Value,
    fields: &[Field],
    path: &str,
) -> Result<T, Problems> {
    let known = fields
        .iter()
        .filter_map(|field| Some((field.name.to_owned(), settings.get(field.name)?.clone())));
    serde_json::from_value(Value::Object(known.collect::<Map<_, _>>())).map_err(|error| {
        let mut problems = Problems::new();
        problems.push(path, format!("the settings table and its struct disagree: {error}"));
        problems
    })
}

/// Keeps the problems of both.
fn both<A, B>(first: Result<A, Problems>, second: Result<B, Problems>) -> Result<(A, B), Problems> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (first, second) => {
            let mut problems = Problems::new();
            problems.extend(first.err().unwrap_or_default());
            problems.extend(second.err().unwrap_or_default());
            Err(problems)
        }
    }
}
