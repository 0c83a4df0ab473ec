//! The consumer's settings: as a configuration file holds them, and checked.

use drakkar_api::{COMMIT_GRACE, Field, Kind, Problems};
use drakkar_kafka::ClientSettings;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

const NAME: Kind = Kind::Text { min_length: 1 };

/// What stands for the worker's name in `group_instance_id`.
pub const WORKER_ID: &str = "{worker_id}";

const SESSION_TIMEOUT_MS: u32 = 45_000;
const HEARTBEAT_INTERVAL_MS: u32 = 3_000;

/// The consumer's settings of the section `kafka`, for the reference page and the validator.
pub const FIELDS: &[Field] = &[
    Field {
        name: "source_topic",
        kind: NAME,
        default: Some("\"input-events\""),
        about: "The topic that is consumed. It must exist.",
    },
    Field {
        name: "consumer_group",
        kind: NAME,
        default: Some("\"drakkar-workers\""),
        about: "The consumer group: workers of one group share the topic's partitions.",
    },
    Field {
        name: "group_protocol",
        kind: Kind::Word(&["classic", "consumer"]),
        default: Some("\"classic\""),
        about: "How the group shares partitions: `classic` with cooperative-sticky assignment, or \
                the newer `consumer` (KIP-848, Kafka 4.0), in which the broker decides. There \
                `session_timeout_ms` and `heartbeat_interval_ms` must be left out: the broker's \
                `group.consumer.session.timeout.ms` and `group.consumer.heartbeat.interval.ms` \
                hold.",
    },
    Field {
        name: "group_remote_assignor",
        kind: Kind::Optional(&NAME),
        default: Some("null"),
        about: "Which of the broker's assignors shares the partitions, such as `uniform` or \
                `range`; null leaves the choice to the broker. Only with `group_protocol: \
                consumer`.",
    },
    Field {
        name: "group_instance_id",
        kind: Kind::Optional(&NAME),
        default: Some("null"),
        about: "A name that is this worker's alone in the group and the same after a restart \
                (static membership). `{worker_id}` in it stands for the worker's name, so that \
                workers can share a file. A worker that ends does not leave the group then: its \
                partitions wait for it, and nobody works on them, until its session ends; a \
                restart before that moves no partition. Of two workers with one name, one ends \
                with an error: with `classic` the older one, with `consumer` the newer one, as \
                does a restart after a kill until the session has ended.",
    },
    Field {
        name: "client_rack",
        kind: Kind::Optional(&NAME),
        default: Some("null"),
        about: "Where this worker runs, as brokers name their racks, to read from a replica near \
                by.",
    },
    Field {
        name: "offset_reset",
        kind: Kind::Word(&["earliest", "latest"]),
        default: Some("\"earliest\""),
        about: "Where a partition is read from when the group has committed nothing of it, or what \
                it committed is no longer kept. `latest` skips what is there already.",
    },
    Field {
        name: "max_poll_records",
        kind: Kind::Int { min: 1, max: 1_000_000 },
        default: Some("100"),
        about: "The most messages that are taken from one partition before the next one has its \
                turn.",
    },
    Field {
        name: "max_poll_interval_ms",
        kind: Kind::Int { min: 1, max: 86_400_000 },
        default: Some("300000"),
        about: "How long the consumer may go without asking for messages, in milliseconds, before \
                the group gives its partitions to others. Only a revoke keeps it from asking, so \
                this must be longer than `executor.drain_timeout_seconds`; by 14 s or more, if the \
                last commit of a revoke is to have all of its 5 s.",
    },
    Field {
        name: "session_timeout_ms",
        kind: Kind::Int { min: 1, max: 3_600_000 },
        default: Some("45000"),
        about: "How long the group waits for a sign of life, in milliseconds, before it gives this \
                worker's partitions to others. Only with `group_protocol: classic`.",
    },
    Field {
        name: "heartbeat_interval_ms",
        kind: Kind::Int { min: 1, max: 3_600_000 },
        default: Some("3000"),
        about: "How often a sign of life is sent, in milliseconds. Shorter than \
                `session_timeout_ms`, better a third of it. Only with `group_protocol: classic`.",
    },
    Field {
        name: "connect_timeout_seconds",
        kind: Kind::Int { min: 1, max: 3600 },
        default: Some("30"),
        about: "How long the start waits for a broker to answer and for the topic to exist, in \
                seconds; then the worker ends with an error. Sinks in Kafka and the dead letters \
                wait as long for their brokers, but not for a topic that is missing.",
    },
    Field {
        name: "queued_max_kbytes",
        kind: Kind::Int { min: 1, max: 2_097_151 },
        default: Some("1024"),
        about: "How much the client fetches ahead for each partition, in KiB; then it stops \
                fetching that partition. One fetch may exceed it.",
    },
    Field {
        name: "fetch_wait_max_ms",
        kind: Kind::Int { min: 0, max: 300_000 },
        default: Some("500"),
        about: "How long a broker holds a fetch back when there is nothing new, in milliseconds. A \
                new message ends the wait at once.",
    },
];

/// The consumer's settings as a configuration file holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// The topic that is consumed.
    pub source_topic: String,
    /// The consumer group.
    pub consumer_group: String,
    /// How the group shares partitions.
    pub group_protocol: GroupProtocol,
    /// Which of the broker's assignors shares the partitions.
    pub group_remote_assignor: Option<String>,
    /// A name for static membership, in which `{worker_id}` stands for the worker's name.
    pub group_instance_id: Option<String>,
    /// Where this worker runs.
    pub client_rack: Option<String>,
    /// Where a partition without a valid commit is read from.
    pub offset_reset: OffsetReset,
    /// The most messages taken from one partition at a time.
    pub max_poll_records: u32,
    /// How long the consumer may go without polling, in milliseconds.
    pub max_poll_interval_ms: u32,
    /// How long the group waits for a sign of life, in milliseconds.
    pub session_timeout_ms: u32,
    /// How often a sign of life is sent, in milliseconds.
    pub heartbeat_interval_ms: u32,
    /// How long the start waits for a broker and the topic, in seconds.
    pub connect_timeout_seconds: u32,
    /// How much is fetched ahead for each partition, in KiB.
    pub queued_max_kbytes: u32,
    /// How long a broker holds an empty fetch back, in milliseconds.
    pub fetch_wait_max_ms: u32,
}

/// How a group shares partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// One member decides, with cooperative-sticky assignment.
    #[default]
    Classic,
    /// The broker decides (KIP-848).
    Consumer,
}

/// Where a partition without a valid commit is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffsetReset {
    /// The oldest message that is kept.
    #[default]
    Earliest,
    /// What arrives from now on.
    Latest,
}

/// The consumer's settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    config: SourceConfig,
    topic: Arc<str>,
    drain_timeout: Duration,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            source_topic: "input-events".to_owned(),
            consumer_group: "drakkar-workers".to_owned(),
            group_protocol: GroupProtocol::Classic,
            group_remote_assignor: None,
            group_instance_id: None,
            client_rack: None,
            offset_reset: OffsetReset::Earliest,
            max_poll_records: 100,
            max_poll_interval_ms: 300_000,
            session_timeout_ms: SESSION_TIMEOUT_MS,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            connect_timeout_seconds: 30,
            queued_max_kbytes: 1024,
            fetch_wait_max_ms: 500,
        }
    }
}

impl SourceConfig {
    /// Checks the settings against each other.
    ///
    /// `path` is where they stand, such as `kafka`; `drain_timeout` is how long a revoke waits for
    /// started work (`executor.drain_timeout_seconds`).
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once, with the path of each setting.
    pub fn validate(self, path: &str, drain_timeout: Duration) -> Result<SourceSettings, Problems> {
        let mut problems = Problems::new();
        self.check_names(path, &mut problems);
        self.check_instance(path, &mut problems);
        self.check_ranges(path, &mut problems);
        self.check_protocol(path, &mut problems);
        self.check_times(path, drain_timeout, &mut problems);
        problems.into_result(())?;
        let topic = Arc::from(self.source_topic.as_str());
        Ok(SourceSettings { config: self, topic, drain_timeout })
    }

    fn check_names(&self, path: &str, problems: &mut Problems) {
        if let Err(reason) = check_topic(&self.source_topic) {
            problems.push(
                format!("{path}.source_topic"),
                format!("{reason}, found \"{}\"; such as input-events", self.source_topic),
            );
        }
        let names = [
            ("consumer_group", Some(&self.consumer_group)),
            ("group_remote_assignor", self.group_remote_assignor.as_ref()),
            ("group_instance_id", self.group_instance_id.as_ref()),
            ("client_rack", self.client_rack.as_ref()),
        ];
        for (name, value) in names {
            if value.is_some_and(|value| value.trim().is_empty() || value.contains('\0')) {
                problems.push(format!("{path}.{name}"), "must not be empty");
            }
        }
    }

    /// Checks that nothing but the worker's name is to be filled in: a mistyped placeholder would be
    /// the same name for all workers.
    fn check_instance(&self, path: &str, problems: &mut Problems) {
        let Some(id) = &self.group_instance_id else { return };
        if id.replace(WORKER_ID, "").contains(['{', '}']) {
            problems.push(
                format!("{path}.group_instance_id"),
                format!("only {WORKER_ID} can be filled in, found \"{id}\"; such as w-{WORKER_ID}"),
            );
        }
    }

    /// Checks that nothing is set that the other protocol is for.
    ///
    /// The two times have defaults, so only another value shows that somebody means them.
    fn check_protocol(&self, path: &str, problems: &mut Problems) {
        if self.group_protocol == GroupProtocol::Classic {
            if self.group_remote_assignor.is_some() {
                problems.push(
                    format!("{path}.group_remote_assignor"),
                    "is for group_protocol: consumer; leave it out, or set that".to_owned(),
                );
            }
            return;
        }
        let times = [
            ("session_timeout_ms", self.session_timeout_ms, SESSION_TIMEOUT_MS, "session.timeout"),
            (
                "heartbeat_interval_ms",
                self.heartbeat_interval_ms,
                HEARTBEAT_INTERVAL_MS,
                "heartbeat.interval",
            ),
        ];
        for (name, found, default, of_broker) in times {
            if found != default {
                problems.push(
                    format!("{path}.{name}"),
                    format!(
                        "the broker decides with group_protocol: consumer; leave it out, and set \
                         group.consumer.{of_broker}.ms on the broker, found {found}"
                    ),
                );
            }
        }
    }

    /// Checks the bounds of [`FIELDS`] again, for those who build the settings in code.
    fn check_ranges(&self, path: &str, problems: &mut Problems) {
        let numbers = [
            ("max_poll_records", self.max_poll_records),
            ("max_poll_interval_ms", self.max_poll_interval_ms),
            ("session_timeout_ms", self.session_timeout_ms),
            ("heartbeat_interval_ms", self.heartbeat_interval_ms),
            ("connect_timeout_seconds", self.connect_timeout_seconds),
            ("queued_max_kbytes", self.queued_max_kbytes),
            ("fetch_wait_max_ms", self.fetch_wait_max_ms),
        ];
        for (name, value) in numbers {
            let kind = FIELDS.iter().find(|field| field.name == name).map(|field| field.kind);
            let Some(Kind::Int { min, max }) = kind else { continue };
            if !(min..=max).contains(&i64::from(value)) {
                problems.push(
                    format!("{path}.{name}"),
                    format!("must be from {min} to {max}, found {value}"),
                );
            }
        }
    }

    fn check_times(&self, path: &str, drain_timeout: Duration, problems: &mut Problems) {
        let max_poll_interval = Duration::from_millis(self.max_poll_interval_ms.into());
        if drain_timeout >= max_poll_interval {
            problems.push(
                format!("{path}.max_poll_interval_ms"),
                format!(
                    "must be longer than executor.drain_timeout_seconds ({} s), found {} ms: a \
                     revoke that waits longer loses the worker's membership",
                    drain_timeout.as_secs_f64(),
                    self.max_poll_interval_ms
                ),
            );
        }
        if self.group_protocol == GroupProtocol::Consumer {
            return;
        }
        if self.heartbeat_interval_ms >= self.session_timeout_ms {
            problems.push(
                format!("{path}.heartbeat_interval_ms"),
                format!(
                    "must be shorter than session_timeout_ms ({}), found {}",
                    self.session_timeout_ms, self.heartbeat_interval_ms
                ),
            );
        }
        if self.session_timeout_ms > self.max_poll_interval_ms {
            problems.push(
                format!("{path}.session_timeout_ms"),
                format!(
                    "must not be longer than max_poll_interval_ms ({}), found {}",
                    self.max_poll_interval_ms, self.session_timeout_ms
                ),
            );
        }
    }
}

/// Checks a topic by Kafka's own rule. It also keeps out `^`, with which librdkafka would take the
/// name for a pattern.
fn check_topic(topic: &str) -> Result<(), &'static str> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match topic {
        "" => Err("must not be empty"),
        "." | ".." => Err("must be a name"),
        long if long.len() > 249 => Err("must not be longer than 249 characters"),
        odd if !odd.bytes().all(is_legal) => {
            Err("must be of letters, digits, \".\", \"_\" and \"-\"")
        }
        _ => Ok(()),
    }
}

impl SourceSettings {
    /// Returns the topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Returns the consumer group.
    pub fn group(&self) -> &str {
        &self.config.consumer_group
    }

    /// Returns the name of a worker's static membership, if it is to have one.
    pub(crate) fn instance_id(&self, worker: &str) -> Option<String> {
        Some(self.config.group_instance_id.as_ref()?.replace(WORKER_ID, worker))
    }

    /// Returns whether an end must not tell the group that this member leaves: with the classic
    /// protocol its partitions would go to others at once, whoever has a lasting name. The newer
    /// protocol knows a leave that keeps them.
    pub(crate) fn ends_silently(&self) -> bool {
        self.config.group_instance_id.is_some()
            && self.config.group_protocol == GroupProtocol::Classic
    }

    /// Returns whether a member that has left the group has no name any more. In the newer protocol
    /// names are the client's own and stay.
    pub(crate) fn leaves_by_name(&self) -> bool {
        self.config.group_protocol == GroupProtocol::Classic
    }

    /// Returns where a partition without a valid commit is read from.
    pub(crate) fn offset_reset(&self) -> OffsetReset {
        self.config.offset_reset
    }

    /// Returns how long the start waits for a broker and the topic.
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.config.connect_timeout_seconds.into())
    }

    /// Returns the most messages taken from one partition at a time.
    pub(crate) fn messages_per_turn(&self) -> usize {
        usize::try_from(self.config.max_poll_records).unwrap_or(usize::MAX)
    }

    /// Returns how long a revoke waits for its answer: the whole drain, with its last commit, and a
    /// margin for the answer to arrive. To lose the membership would be worse than to cut a commit
    /// off, so half of the time between the drain's deadline and that is never used.
    pub(crate) fn revoke_timeout(&self) -> Duration {
        const MARGIN: Duration = Duration::from_secs(2);
        let poll_interval = Duration::from_millis(self.config.max_poll_interval_ms.into());
        let room = poll_interval.saturating_sub(self.drain_timeout);
        self.drain_timeout + (COMMIT_GRACE + MARGIN).min(room / 2)
    }

    /// Makes the client's configuration.
    pub(crate) fn client_config(&self, client: &ClientSettings, worker: &str) -> ClientConfig {
        let config = &self.config;
        let mut own = vec![
            ("group.id", config.consumer_group.clone()),
            ("auto.offset.reset", config.offset_reset.as_str().to_owned()),
            ("max.poll.interval.ms", config.max_poll_interval_ms.to_string()),
            ("queued.max.messages.kbytes", config.queued_max_kbytes.to_string()),
            ("fetch.wait.max.ms", config.fetch_wait_max_ms.to_string()),
        ];
        match config.group_protocol {
            GroupProtocol::Classic => own.extend([
                ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
                ("session.timeout.ms", config.session_timeout_ms.to_string()),
                ("heartbeat.interval.ms", config.heartbeat_interval_ms.to_string()),
            ]),
            // The times and the assignor are the broker's then; librdkafka refuses ours.
            GroupProtocol::Consumer => own.push(("group.protocol", "consumer".to_owned())),
        }
        let assignor = config.group_remote_assignor.clone();
        own.extend(assignor.map(|assignor| ("group.remote.assignor", assignor)));
        own.extend(self.instance_id(worker).map(|id| ("group.instance.id", id)));
        own.extend(config.client_rack.clone().map(|rack| ("client.rack", rack)));

        let mut client_config = client.consumer_config(worker);
        // How much is fetched ahead is bounded by bytes. These are defaults that a raw option may
        // override.
        let overridable = [
            // Small messages cost more than their bytes: about half a KiB each.
            ("queued.min.messages", "300"),
            // For each partition, and all of it is in memory at once. A larger batch still comes.
            ("fetch.message.max.bytes", "131072"),
            // How soon a partition is fetched again after its queue was full; 1 s by default.
            ("fetch.queue.backoff.ms", "20"),
        ];
        for (name, value) in overridable {
            if client.raw_option(name).is_none() {
                client_config.set(name, value);
            }
        }
        for (name, value) in own {
            client_config.set(name, value);
        }
        client_config
    }
}

impl OffsetReset {
    fn as_str(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_kafka::ClientSection;
    use rdkafka::consumer::BaseConsumer;

    const DRAIN: Duration = Duration::from_secs(30);

    fn check(change: impl FnOnce(&mut SourceConfig), expect: &[&str]) {
        let mut config = SourceConfig::default();
        change(&mut config);
        let problems = config.validate("kafka", DRAIN).err().unwrap_or_default();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, expect, "{problems}");
    }

    #[test]
    fn the_table_declares_the_defaults_that_serde_fills_in() {
        let entry = |field: &Field| {
            let value = serde_json::from_str(field.default.expect("a default")).expect("JSON");
            (field.name.to_owned(), value)
        };
        let declared = serde_json::Value::Object(FIELDS.iter().map(entry).collect());
        let declared: SourceConfig = serde_json::from_value(declared).expect("complete");
        assert_eq!(declared, SourceConfig::default());
        let shown = serde_json::to_value(SourceConfig::default()).expect("JSON");
        assert_eq!(shown.as_object().map_or(0, serde_json::Map::len), FIELDS.len());
    }

    #[test]
    fn contradictions_are_refused() {
        check(|_| {}, &[]);
        check(|config| config.heartbeat_interval_ms = 45_000, &["kafka.heartbeat_interval_ms"]);
        check(|config| config.session_timeout_ms = 300_001, &["kafka.session_timeout_ms"]);
        check(|config| config.max_poll_records = 0, &["kafka.max_poll_records"]);
        check(|config| config.connect_timeout_seconds = 0, &["kafka.connect_timeout_seconds"]);
        check(
            |config| config.group_instance_id = Some(" ".to_owned()),
            &["kafka.group_instance_id"],
        );
    }

    #[test]
    fn a_drain_must_end_before_the_group_gives_up() {
        check(|config| config.max_poll_interval_ms = 30_001, &["kafka.session_timeout_ms"]);
        let both = ["kafka.max_poll_interval_ms", "kafka.session_timeout_ms"];
        check(|config| config.max_poll_interval_ms = 30_000, &both);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let change = |config: &mut SourceConfig| {
            config.source_topic.clear();
            config.consumer_group.clear();
            config.max_poll_records = 0;
            config.heartbeat_interval_ms = 50_000;
        };
        let expected = [
            "kafka.source_topic",
            "kafka.consumer_group",
            "kafka.max_poll_records",
            "kafka.heartbeat_interval_ms",
        ];
        check(change, &expected);
    }

    #[test]
    fn a_topic_is_a_name_and_not_a_pattern() {
        for good in ["a", "A.b_c-9", "_"] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        let long = "x".repeat(250);
        for bad in ["", ".", "..", "^in.*", "a b", "a,b", "ä", long.as_str()] {
            check_topic(bad).expect_err(bad);
        }
    }

    #[test]
    fn what_the_other_protocol_is_for_is_refused() {
        let times = |config: &mut SourceConfig| {
            config.group_protocol = GroupProtocol::Consumer;
            config.session_timeout_ms = 6_000;
            config.heartbeat_interval_ms = 50_000;
        };
        check(times, &["kafka.session_timeout_ms", "kafka.heartbeat_interval_ms"]);
        let assignor =
            |config: &mut SourceConfig| config.group_remote_assignor = Some("range".to_owned());
        check(assignor, &["kafka.group_remote_assignor"]);
        let both = |config: &mut SourceConfig| {
            config.group_protocol = GroupProtocol::Consumer;
            assignor(config);
        };
        check(both, &[]);
    }

    #[test]
    fn a_refused_time_names_what_to_set_instead() {
        let config = SourceConfig {
            group_protocol: GroupProtocol::Consumer,
            session_timeout_ms: 6_000,
            ..SourceConfig::default()
        };
        let problems = config.validate("kafka", DRAIN).expect_err("the broker's").to_string();
        assert!(problems.contains("group.consumer.session.timeout.ms"), "{problems}");
    }

    #[test]
    fn an_instance_is_named_after_the_worker_where_it_says_so() {
        let named = |id: Option<&str>| {
            let group_instance_id = id.map(str::to_owned);
            let config = SourceConfig { group_instance_id, ..SourceConfig::default() };
            let settings = config.validate("kafka", DRAIN).expect("valid");
            settings.instance_id("w1")
        };
        assert_eq!(named(None), None);
        assert_eq!(named(Some("fixed")).as_deref(), Some("fixed"));
        assert_eq!(named(Some("a-{worker_id}-b")).as_deref(), Some("a-w1-b"));
        for wrong in ["{worker}", "{worker_id", "w-{WORKER_ID}", "}{"] {
            let change =
                |config: &mut SourceConfig| config.group_instance_id = Some(wrong.to_owned());
            check(change, &["kafka.group_instance_id"]);
        }
    }

    #[test]
    fn only_a_static_member_of_a_classic_group_ends_silently() {
        let check = |group_protocol, id: Option<&str>, expect| {
            let group_instance_id = id.map(str::to_owned);
            let config =
                SourceConfig { group_protocol, group_instance_id, ..SourceConfig::default() };
            assert_eq!(config.validate("k", DRAIN).expect("valid").ends_silently(), expect);
        };
        check(GroupProtocol::Classic, Some("w"), true);
        check(GroupProtocol::Classic, None, false);
        check(GroupProtocol::Consumer, Some("w"), false);
    }

    #[test]
    fn a_revoke_ends_before_the_membership_does() {
        let check = |drain_seconds, interval_ms, expect_ms| {
            let config = SourceConfig {
                max_poll_interval_ms: interval_ms,
                session_timeout_ms: 10_000,
                ..SourceConfig::default()
            };
            let settings = config.validate("k", Duration::from_secs(drain_seconds)).expect("valid");
            assert_eq!(settings.revoke_timeout(), Duration::from_millis(expect_ms));
        };
        check(30, 300_000, 37_000);
        check(30, 44_000, 37_000);
        check(30, 32_000, 31_000);
    }

    #[test]
    fn a_revoke_outlasts_the_drain_of_the_engine() {
        let settings = SourceConfig::default().validate("k", DRAIN).expect("valid");
        assert!(settings.revoke_timeout() > DRAIN + COMMIT_GRACE);
    }

    #[test]
    fn the_client_accepts_the_settings_of_both_protocols() {
        let client = ClientSection::default().validate("kafka").expect("valid");
        for group_protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
            let is_consumer = group_protocol == GroupProtocol::Consumer;
            let config = SourceConfig {
                group_protocol,
                group_remote_assignor: is_consumer.then(|| "uniform".to_owned()),
                group_instance_id: Some("i-{worker_id}".to_owned()),
                client_rack: Some("r".to_owned()),
                offset_reset: OffsetReset::Latest,
                ..SourceConfig::default()
            };
            let settings = config.validate("kafka", DRAIN).expect("valid");
            let client_config = settings.client_config(&client, "w");
            assert_eq!(client_config.get("enable.auto.commit"), Some("false"));
            assert_eq!(client_config.get("group.instance.id"), Some("i-w"));
            assert_eq!(client_config.get("client.rack"), Some("r"));
            client_config.create::<BaseConsumer>().expect("librdkafka accepts all of it");
        }
    }
}
