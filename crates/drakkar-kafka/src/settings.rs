//! Checked settings, and the client configurations that they make.

use crate::{options, refusal};
use drakkar_api::Secret;
use rdkafka::ClientConfig;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::types::RDKafkaType;
use std::collections::BTreeMap;
use std::time::Duration;

/// Client settings that were checked: they make the configuration of a consumer or a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    brokers: String,
    security: Vec<(&'static str, Secret<String>)>,
    client_config: BTreeMap<String, Secret<String>>,
}

/// What a producer needs to know beside the client settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How long the client may try to deliver one record. Shorter than the deadline of an attempt,
    /// so that the client's own verdict comes first; longer than `linger`.
    pub delivery_timeout: Duration,
    /// How long a record may wait for others to travel with.
    pub linger: Duration,
}

impl ProducerOptions {
    /// Makes options with a linger of 5 ms.
    pub const fn new(delivery_timeout: Duration) -> Self {
        Self { delivery_timeout, linger: Duration::from_millis(5) }
    }
}

/// What every client gets; a raw option of the same name wins.
const COMMON: &[(&str, &str)] = &[
    // After an outage the default of 10 s would keep a worker waiting that long.
    ("reconnect.backoff.max.ms", "2000"),
    // A connection that a firewall forgot is noticed while the client is idle.
    ("socket.keepalive.enable", "true"),
    // Brokers close idle connections as a matter of course.
    ("log.connection.close", "false"),
];

impl ClientSettings {
    pub(crate) fn new(
        brokers: String,
        security: Vec<(&'static str, Secret<String>)>,
        client_config: BTreeMap<String, Secret<String>>,
    ) -> Self {
        let canonical = |name: String| options::canonical(&name).to_owned();
        let client_config =
            client_config.into_iter().map(|(name, value)| (canonical(name), value)).collect();
        Self { brokers, security, client_config }
    }

    /// Returns the brokers to ask first.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Returns how this client proves who it is, such as `PLAIN`; `None` without SASL.
    pub fn mechanism(&self) -> Option<&str> {
        let option = self.security.iter().find(|(name, _)| *name == "sasl.mechanisms");
        option.map(|(_, mechanism)| mechanism.expose().as_str())
    }

    /// Returns a raw option that the user set under any of its names. `name` is the
    /// [canonical](options::canonical) one.
    ///
    /// For a client that must know a limit, such as `message.max.bytes`. May be a secret.
    pub fn raw_option(&self, name: &str) -> Option<&Secret<String>> {
        self.client_config.get(name)
    }

    /// Makes the configuration of a consumer. Group settings are the caller's.
    ///
    /// Only what the caller says is committed, and the end of a partition is no event.
    pub fn consumer_config(&self, worker: &str) -> ClientConfig {
        let own = [
            ("enable.auto.commit", "false".to_owned()),
            ("enable.auto.offset.store", "false".to_owned()),
            ("enable.partition.eof", "false".to_owned()),
        ];
        self.config(worker, &own)
    }

    /// Makes the configuration of a producer.
    ///
    /// A record is confirmed by all in-sync replicas, and the client's own retries make no
    /// duplicates and keep the order.
    pub fn producer_config(&self, worker: &str, options: ProducerOptions) -> ClientConfig {
        let own = [
            ("acks", "all".to_owned()),
            ("enable.idempotence", "true".to_owned()),
            ("linger.ms", options.linger.as_millis().to_string()),
            // Zero would mean that the client never gives up.
            ("message.timeout.ms", options.delivery_timeout.as_millis().max(1).to_string()),
        ];
        self.config(worker, &own)
    }

    /// Makes clients of the settings and drops them again, to find what contradicts itself. They
    /// know no broker and connect to nothing. Says which key of the section is to blame, and why.
    pub(crate) fn try_out(&self) -> Result<(), (&'static str, String)> {
        let Err(reason) = self.make_clients() else { return Ok(()) };
        let without_raw = Self { client_config: BTreeMap::new(), ..self.clone() };
        match without_raw.make_clients() {
            Ok(()) => Err(("client_config", reason)),
            Err(reason) => Err(("security", reason)),
        }
    }

    fn make_clients(&self) -> Result<(), String> {
        // Longer than any attempt may be.
        let options = ProducerOptions::new(Duration::from_secs(3600));
        let producer = self.producer_config("check", options);
        let consumer = self.consumer_config("check");
        for (mut config, kind) in
            [(producer, RDKafkaType::RD_KAFKA_PRODUCER), (consumer, RDKafkaType::RD_KAFKA_CONSUMER)]
        {
            config.remove("bootstrap.servers");
            config
                .create_native_config()
                .and_then(|native| Client::new(&config, native, kind, DefaultClientContext))
                .map_err(|failure| refusal(&failure).unwrap_or_else(|| failure.to_string()))?;
        }
        Ok(())
    }

    fn config(&self, worker: &str, own: &[(&'static str, String)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", format!("drakkar-{worker}"));
        for (name, value) in COMMON {
            config.set(*name, *value);
        }
        for (name, value) in own {
            config.set(*name, value);
        }
        for (name, value) in &self.security {
            config.set(*name, value.expose());
        }
        // Last, so that they win. What must not be set was refused by the check.
        for (name, value) in &self.client_config {
            config.set(name, value.expose());
        }
        config.set_log_level(self.log_level());
        config
    }

    /// Lets everything through that somebody asked librdkafka to tell.
    fn log_level(&self) -> RDKafkaLogLevel {
        match self.client_config.contains_key("debug") {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientSection;
    use rdkafka::producer::BaseProducer;

    fn settings(options: &[(&str, &str)]) -> ClientSettings {
        let mut section = ClientSection::default();
        for (name, value) in options {
            section.client_config.insert((*name).to_owned(), Secret::new((*value).to_owned()));
        }
        section.validate("kafka").expect("valid")
    }

    fn producer_options() -> ProducerOptions {
        ProducerOptions::new(Duration::from_secs(7))
    }

    #[test]
    fn a_consumer_never_commits_by_itself() {
        let config = settings(&[]).consumer_config("w1");
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("enable.auto.offset.store"), Some("false"));
        assert_eq!(config.get("client.id"), Some("drakkar-w1"));
        assert_eq!(config.get("security.protocol"), Some("plaintext"));
    }

    #[test]
    fn a_producer_is_idempotent_and_waits_for_all_replicas() {
        let config = settings(&[]).producer_config("w1", producer_options());
        assert_eq!(config.get("acks"), Some("all"));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("message.timeout.ms"), Some("7000"));
        assert_eq!(config.get("linger.ms"), Some("5"));
        config.create::<BaseProducer>().expect("librdkafka accepts all of it");
    }

    #[test]
    fn the_mechanism_is_known_where_there_is_one() {
        assert_eq!(settings(&[]).mechanism(), None);
        let security = crate::SecuritySection {
            protocol: crate::Protocol::SaslPlaintext,
            mechanism: Some(crate::Mechanism::Plain),
            username: "u".to_owned(),
            password: Secret::new("p".to_owned()),
            ..crate::SecuritySection::default()
        };
        let section = ClientSection { security, ..ClientSection::default() };
        assert_eq!(section.validate("kafka").expect("valid").mechanism(), Some("PLAIN"));
    }

    #[test]
    fn no_linger_is_no_linger_but_a_timeout_never_vanishes() {
        let options = ProducerOptions { delivery_timeout: Duration::ZERO, linger: Duration::ZERO };
        let config = settings(&[]).producer_config("w1", options);
        assert_eq!(config.get("linger.ms"), Some("0"));
        assert_eq!(config.get("message.timeout.ms"), Some("1"));
    }

    #[test]
    fn raw_options_win_over_our_own_choices() {
        let settings = settings(&[("linger.ms", "50"), ("client.id", "mine"), ("debug", "msg")]);
        let config = settings.producer_config("w1", producer_options());
        assert_eq!(config.get("linger.ms"), Some("50"));
        assert_eq!(config.get("client.id"), Some("mine"));
        assert!(matches!(config.log_level, RDKafkaLogLevel::Debug));
    }

    #[test]
    fn raw_options_win_under_their_other_names_too() {
        let settings = settings(&[
            ("compression.codec", "lz4"),
            ("queue.buffering.max.ms", "50"),
            ("max.in.flight", "3"),
        ]);
        let config = settings.producer_config("w1", producer_options());
        assert_eq!(config.get("linger.ms"), Some("50"));
        assert_eq!(config.get("compression.type"), Some("lz4"));
        assert_eq!(config.get("max.in.flight.requests.per.connection"), Some("3"));
        for (alias, _) in crate::options::ALIASES {
            assert_eq!(config.get(alias), None, "{alias} would be applied in any order");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = settings(&[("client.id", "hunter2")]);
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
