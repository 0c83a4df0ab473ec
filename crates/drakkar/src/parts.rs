//! From settings to parts: an explicit list of what each section makes.

use crate::config::Config;
use drakkar_api::{Field, Problem, Problems, SinkId, SinkKind, WorkerId};
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
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// How much longer than a sink in Kafka the engine waits for one.
const CONNECT_MARGIN: Duration = Duration::from_secs(30);

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
    /// Every problem that is noted or that any of the parts finds, at once.
    ///
    /// `noted` are the problems that are known already. A section in which a setting is missing, for
    /// it has one of them, is left alone; a setting that has one is not blamed again.
    pub(crate) fn new(
        config: &Config,
        worker: &WorkerId,
        noted: Problems,
    ) -> Result<Self, Problems> {
        let mut problems = noted;
        let found = &mut problems;
        let executor: Option<RawExecutor> = own(found, config, "executor", EXECUTOR_FIELDS);
        let core_kafka: Option<RawKafka> = own(found, config, "kafka", KAFKA_FIELDS);
        let retry: Option<RawRetry> = own(found, config, "sinks.retry", RETRY_SECTION.fields);
        let pool: Option<PoolSection> = own(found, config, "executor", drakkar_exec::FIELDS);
        let source: Option<SourceConfig> =
            own(found, config, "kafka", drakkar_source_kafka::FIELDS);
        let client: Option<ClientSection> = own(found, config, "kafka", drakkar_kafka::FIELDS);
        let on_send_failure = config.dlq().on_send_failure;
        // Without a valid time, or with one that is blamed already, none is too long.
        let drain_timeout = executor
            .as_ref()
            .filter(|_| !is_blamed(found, "executor.drain_timeout_seconds"))
            .map_or(Duration::ZERO, |executor| Duration::from_secs(executor.drain_timeout_seconds));
        let engine = (|| {
            let slots = pool.as_ref()?.max_executors;
            let records = source.as_ref()?.max_poll_records as usize;
            let (executor, kafka, retry) = (executor?, core_kafka?, retry?);
            Some(EngineConfig::new(executor, kafka, retry, on_send_failure, slots, records))
        })();
        // Without a valid time there is a problem, and nothing is connected.
        let connect_timeout = source.as_ref().map_or(0, |source| source.connect_timeout_seconds);
        let connect_timeout = Duration::from_secs(connect_timeout.into());
        let engine = engine.and_then(|engine| note(found, engine)).map(|mut engine| {
            let limit = connect_timeout + CONNECT_MARGIN;
            engine.sink_connect_timeout = engine.sink_connect_timeout.max(limit);
            // Workers that wait for the same broker must not come back in step.
            engine.seed = RandomState::new().build_hasher().finish();
            engine
        });
        let pool = pool.and_then(|pool| note(found, pool.validate()));
        let source = source.and_then(|source| note(found, source.validate("kafka", drain_timeout)));
        let client = client.and_then(|client| note(found, client.validate("kafka")));
        let sinks = note(found, sinks(config, worker, connect_timeout));
        // Their topic may be made of the source's name.
        let dead_letters = match is_blamed(found, "kafka.source_topic") {
            true => None,
            false => note(found, dead_letters(config, worker, connect_timeout)),
        };
        problems.into_result(())?;
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
        Ok(parts.expect("every part that is missing has a problem"))
    }
}

/// Notes the problems of a part that could not be made, without those of settings that have one.
fn note<T>(problems: &mut Problems, made: Result<T, Problems>) -> Option<T> {
    made.map_err(|found| {
        let news = found.iter().filter(|problem| !is_blamed(problems, &problem.path));
        let news: Vec<_> = news.cloned().collect();
        for Problem { path, message, .. } in news {
            problems.push(path, message);
        }
    })
    .ok()
}

fn is_blamed(problems: &Problems, path: &str) -> bool {
    problems.iter().any(|problem| problem.path == path)
}

/// Deserialises those settings of a section that a crate declares.
fn own<T: DeserializeOwned>(
    problems: &mut Problems,
    config: &Config,
    section: &str,
    fields: &[Field],
) -> Option<T> {
    note(problems, part(config.as_read(section), fields, section))
}

/// Makes the sinks of the configuration.
fn sinks(
    config: &Config,
    worker: &WorkerId,
    connect_timeout: Duration,
) -> Result<Vec<AnySink>, Problems> {
    let mut problems = Problems::new();
    let made =
        config.sinks().filter_map(|(kind, name)| sink(config, kind, name, worker, connect_timeout));
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
    connect_timeout: Duration,
) -> Option<Result<AnySink, Problems>> {
    match kind {
        #[cfg(feature = "sink-kafka")]
        "kafka" => Some(kafka_sink(config, name, worker, connect_timeout)),
        #[cfg(feature = "sink-file")]
        "filesystem" => Some(file_sink(config, name)),
        _ => None,
    }
}

#[cfg(feature = "sink-kafka")]
fn kafka_sink(
    config: &Config,
    name: &str,
    worker: &WorkerId,
    connect_timeout: Duration,
) -> Result<AnySink, Problems> {
    let path = format!("sinks.kafka.{name}");
    let client = client(config, &path);
    // The client's settings are made apart, because they may be those of the section `kafka`.
    let is_client = |name| drakkar_kafka::FIELDS.iter().any(|field| field.name == name);
    let own = drakkar_sink_kafka::FIELDS.iter().filter(|field| !is_client(field.name));
    let own: Vec<_> = own.copied().collect();
    let section: KafkaSinkSection = part(config.as_read(&path), &own, &path)?;
    let (client, section) = both(client, section.validate(&path))?;
    let base = client.producer_config(worker.as_str(), section.producer_options());
    let sink = KafkaSink::new(SinkId::new(SinkKind::Kafka, name), section, base);
    Ok(AnySink::new(sink.with_connect_timeout(connect_timeout)))
}

#[cfg(feature = "sink-file")]
fn file_sink(config: &Config, name: &str) -> Result<AnySink, Problems> {
    use drakkar_sink_file::{FileSink, FileSinkSection};

    let path = format!("sinks.filesystem.{name}");
    let section: FileSinkSection = part(config.as_read(&path), drakkar_sink_file::FIELDS, &path)?;
    let id = SinkId::new(SinkKind::Filesystem, name);
    Ok(AnySink::new(FileSink::new(id, section.validate(&path)?)))
}

fn dead_letters(
    config: &Config,
    worker: &WorkerId,
    connect_timeout: Duration,
) -> Result<AnySink, Problems> {
    let section = KafkaSinkSection::dead_letters(config.dlq().topic);
    let (client, section) = both(client(config, "dlq"), section.validate("dlq"))?;
    let base = client.producer_config(worker.as_str(), section.producer_options());
    // Not a sink of the configuration: its type tells it apart in the log and in the metrics.
    let id = SinkId::new(SinkKind::Custom("dead_letters".into()), section.topic());
    let sink = KafkaSink::new(id, section, base);
    Ok(AnySink::new(sink.with_connect_timeout(connect_timeout)))
}

/// Makes the client settings of a destination in Kafka.
fn client(config: &Config, path: &str) -> Result<ClientSettings, Problems> {
    let own = config.as_read(path);
    check_complete(own, drakkar_kafka::FIELDS)?;
    let section = serde_json::from_value(config.kafka_client(path));
    let section: ClientSection = section.map_err(|error| disagreement(path, &error))?;
    section.validate(path).map_err(|problems| {
        // What is taken over from the section `kafka` is blamed there.
        let inherited = drakkar_kafka::FIELDS.iter().filter(|field| !is_given(own, field.name));
        let inherited: Vec<_> = inherited.map(|field| format!("{path}.{}", field.name)).collect();
        let mut its_own = Problems::new();
        for Problem { path, message, .. } in problems.iter() {
            if !inherited.iter().any(|setting| path.starts_with(setting.as_str())) {
                its_own.push(path, message);
            }
        }
        its_own
    })
}

/// Whether a setting of a destination stands there itself.
fn is_given(settings: &Value, name: &str) -> bool {
    settings.get(name).is_some_and(|value| !value.is_null() && *value != "")
}

/// Answers no new problem when a setting is missing: it has one, which is why it is missing.
fn check_complete(settings: &Value, fields: &[Field]) -> Result<(), Problems> {
    match fields.iter().all(|field| settings.get(field.name).is_some()) {
        true => Ok(()),
        false => Err(Problems::new()),
    }
}

/// Deserialises those settings that a crate declares.
fn part<T: DeserializeOwned>(
    settings: &Value,
    fields: &[Field],
    path: &str,
) -> Result<T, Problems> {
    check_complete(settings, fields)?;
    let known = fields
        .iter()
        .filter_map(|field| Some((field.name.to_owned(), settings.get(field.name)?.clone())));
    serde_json::from_value(Value::Object(known.collect::<Map<_, _>>()))
        .map_err(|error| disagreement(path, &error))
}

fn disagreement(path: &str, error: &serde_json::Error) -> Problems {
    let mut problems = Problems::new();
    problems.push(path, format!("the settings table and its struct disagree: {error}"));
    problems
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Draft;

    /// Answers the paths of all problems, in order.
    fn blamed(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let pairs =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let draft = Config::draft_from_yaml_str(text, pairs).expect("it is YAML");
        let Draft { config, mut problems } = draft;
        config.check_sinks(&mut problems);
        match Parts::new(&config, &WorkerId::new("w1"), problems) {
            Ok(_) => Vec::new(),
            Err(all) => all.iter().map(|problem| problem.path.clone()).collect(),
        }
    }

    #[test]
    fn problems_of_all_kinds_are_reported_at_once() {
        let text = "kafka: {brokerz: 'x:1', client_config: {group.id: mine}}";
        let expect = ["kafka.brokerz", "sinks", "kafka.client_config.group.id"];
        assert_eq!(blamed(text, &[]), expect);
        let mut expect = Vec::from(expect);
        expect.insert(1, "DRAKKAR_LOG");
        assert_eq!(blamed(text, &[("DRAKKAR_LOG", "drakkar=loud")]), expect);
    }

    #[cfg(all(feature = "sink-kafka", feature = "sink-file"))]
    #[test]
    fn a_setting_is_blamed_once() {
        let check = |text: &str, expect: &[&str]| assert_eq!(blamed(text, &[]), expect, "{text}");
        let sinks = "sinks: {filesystem: {out: {base_path: out}}}";
        check(
            &format!(
                "executor: {{drain_timeout_seconds: 300, backpressure_low_multiplier: 40}}\n{sinks}"
            ),
            &["executor.backpressure_low_multiplier", "executor.drain_timeout_seconds"],
        );
        check(
            &format!("kafka: {{brokers: 'a:0', heartbeat_interval_ms: 50000}}\n{sinks}"),
            &["kafka.heartbeat_interval_ms", "kafka.brokers"],
        );
        for (executor, path) in [
            ("{wrap: [nice], limits: {cpu_seconds: 5}}", "executor.wrap"),
            ("{wrap: [\"\"]}", "executor.wrap[0]"),
            ("{limits: {cpu_seconds: 0}}", "executor.limits.cpu_seconds"),
            ("{limits: {cpu_secondz: 5}}", "executor.limits.cpu_secondz"),
            ("{limits: {parent_death_signal: HUP}}", "executor.limits.parent_death_signal"),
            ("{output_over_limit: explode}", "executor.output_over_limit"),
        ] {
            check(&format!("executor: {executor}\n{sinks}"), &[path]);
        }
        let fine = "{limits: {cpu_seconds: 5, parent_death_signal: KILL}, output_over_limit: fail}";
        check(&format!("executor: {fine}\n{sinks}"), &[]);
        check(
            "kafka: {client_config: {group.id: x}}\nsinks: {kafka: {a: {topic: t}, b: {topic: t}}}",
            &["kafka.client_config.group.id"],
        );
        check(
            "sinks: {kafka: {a: {topic: t, client_config: {acks: '0'}}}}",
            &["sinks.kafka.a.client_config.acks"],
        );
    }

    #[cfg(all(feature = "sink-kafka", feature = "sink-file"))]
    #[test]
    fn what_could_not_be_read_is_left_alone() {
        let check = |text: &str, expect: &[&str]| assert_eq!(blamed(text, &[]), expect, "{text}");
        check(
            "kafka: 5\nexecutor: 5\nsinks: 5\ndlq: 5\nlogging: 5",
            &["kafka", "executor", "sinks", "dlq", "logging"],
        );
        check("sinks: {kafka: {a: {}}}", &["sinks.kafka.a.topic"]);
        check(
            "executor: {max_executors: many}\nkafka: {client_config: {group.id: x}, source_topic: '^a'}\n\
             sinks: {kafka: {a: {topic: 't t'}}}",
            &[
                "executor.max_executors",
                "kafka.source_topic",
                "kafka.client_config.group.id",
                "sinks.kafka.a.topic",
            ],
        );
    }
}
