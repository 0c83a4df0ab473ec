//! Raw options of librdkafka: which are refused, and why.

use crate::security::ENABLE_TLS;
use drakkar_api::{Problems, Secret};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;
use std::collections::BTreeMap;

/// Options that librdkafka knows by two names, each with the name that drakkar uses.
///
/// Both names set the same thing, and the last one wins; but a client's options have no order.
pub const ALIASES: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.send.max.retries", "retries"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// Returns the name that drakkar uses for an option.
pub fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical)
}

/// Options that cannot be set as raw options, under any of their names, each with what to do
/// instead or why not.
pub const RESERVED: &[(&str, &str)] = &[
    // These have settings of their own.
    ("bootstrap.servers", "set brokers instead"),
    ("security.protocol", "set security.protocol instead"),
    ("ssl.ca.location", "set security.ca_location instead"),
    ("ssl.ca.pem", "set security.ca_pem instead"),
    ("ssl.certificate.location", "set security.certificate_location instead"),
    ("ssl.key.location", "set security.key_location instead"),
    ("ssl.key.password", "set security.key_password instead"),
    ("sasl.mechanisms", "set security.mechanism instead"),
    ("sasl.username", "set security.username instead"),
    ("sasl.password", "set security.password instead"),
    ("sasl.oauthbearer.method", "set security.oauthbearer instead"),
    ("sasl.oauthbearer.client.id", "set security.oauthbearer.client_id instead"),
    ("sasl.oauthbearer.client.secret", "set security.oauthbearer.client_secret instead"),
    ("sasl.oauthbearer.token.endpoint.url", "set security.oauthbearer.token_endpoint_url instead"),
    ("sasl.oauthbearer.scope", "set security.oauthbearer.scope instead"),
    ("sasl.oauthbearer.extensions", "set security.oauthbearer.extensions instead"),
    ("group.id", "set kafka.consumer_group instead"),
    ("group.instance.id", "set kafka.group_instance_id instead"),
    ("group.protocol", "set kafka.group_protocol instead"),
    ("group.remote.assignor", "set kafka.group_remote_assignor instead"),
    ("client.rack", "set kafka.client_rack instead"),
    ("session.timeout.ms", "set kafka.session_timeout_ms instead"),
    ("heartbeat.interval.ms", "set kafka.heartbeat_interval_ms instead"),
    ("max.poll.interval.ms", "set kafka.max_poll_interval_ms instead"),
    ("auto.offset.reset", "set kafka.offset_reset instead"),
    ("queued.max.messages.kbytes", "set kafka.queued_max_kbytes instead"),
    ("fetch.wait.max.ms", "set kafka.fetch_wait_max_ms instead"),
    // Drakkar's guarantees rest on these.
    ("enable.auto.commit", "only finished work is committed, so drakkar commits by itself"),
    ("auto.commit.enable", "drakkar commits by itself"),
    ("auto.commit.interval.ms", "drakkar commits by itself"),
    ("enable.auto.offset.store", "only finished work is committed, so drakkar commits by itself"),
    (
        "partition.assignment.strategy",
        "partitions that stay with a worker must go on working while others move, which only \
         cooperative-sticky permits",
    ),
    ("enable.partition.eof", "the end of a partition is not an event here"),
    (
        "acks",
        "a delivery counts as confirmed only when all in-sync replicas have it, so it is always all",
    ),
    (
        "message.timeout.ms",
        "the client must give up before the attempt's deadline, so drakkar sets it",
    ),
    ("delivery.report.only.error", "drakkar needs the report of every delivery"),
    ("transactional.id", "drakkar's producers use no transactions and would fail with one"),
    ("transaction.timeout.ms", "drakkar's producers use no transactions"),
    // These belong to the client library's wrapper.
    ("enabled_events", "it belongs to the client library"),
    ("log.queue", "it belongs to the client library"),
    ("log_level", "set logging.level instead"),
    ("enable.random.seed", "it belongs to the client library"),
    ("test.mock.num.brokers", "it would replace the brokers by a cluster that keeps nothing"),
    ("test.mock.broker.rtt", "there is no mock cluster in this client"),
];

/// Notes the options that are reserved, unknown or not accepted by the linked library.
///
/// Values are never shown, since any of them may be a secret.
pub(crate) fn check(
    options: &BTreeMap<String, Secret<String>>,
    path: &str,
    problems: &mut Problems,
) {
    for (name, value) in options {
        let name_used = canonical(name);
        if name_used != name && options.contains_key(name_used) {
            problems.push(
                format!("{path}.{name}"),
                format!("is another name of \"{name_used}\", which is set too; keep one of them"),
            );
        } else if let Err(reason) = check_one(name, value.expose()) {
            problems.push(format!("{path}.{name}"), reason);
        }
    }
}

fn check_one(name: &str, value: &str) -> Result<(), String> {
    if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| *reserved == canonical(name)) {
        return Err(format!("cannot be set here: {reason}"));
    }
    let native = ClientConfig::new().set(name, value).create_native_config();
    match native {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Err("librdkafka knows no such option".to_owned())
        }
        Err(KafkaError::ClientConfig(_, text, ..))
            if text.contains("not supported in this build") =>
        {
            Err(format!("this build of librdkafka does not have it; {ENABLE_TLS}"))
        }
        Err(_) => Err("librdkafka does not accept this value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_without_showing_their_values() {
        let check = |name, expect: &str| {
            let reason = check_one(name, "hunter2").expect_err(name);
            assert!(reason.contains(expect), "{name}: {reason}");
            assert!(!reason.contains("hunter2"), "{reason}");
        };
        check("group.id", "kafka.consumer_group");
        check("acks", "in-sync");
        check("linger.mss", "no such option");
        check("linger.ms", "does not accept");
        // Options that take a callback cannot be given as text.
        check("error_cb", "does not accept");
        assert_eq!(check_one("linger.ms", "20"), Ok(()));
        assert_eq!(check_one("client.id", "mine"), Ok(()));
        assert_eq!(check_one("enable.idempotence", "false"), Ok(()));
    }

    #[test]
    fn an_option_is_refused_under_its_other_name_too() {
        let check = |name, expect: &str| {
            let reason = check_one(name, "x").expect_err(name);
            assert!(reason.contains("cannot be set here"), "{name}: {reason}");
            assert!(reason.contains(expect), "{name}: {reason}");
        };
        check("metadata.broker.list", "set brokers");
        check("auto.commit.enable", "commits by itself");
        check("request.required.acks", "in-sync");
        check("delivery.timeout.ms", "deadline");
        check("sasl.mechanism", "security.mechanism");
    }

    #[test]
    fn one_option_cannot_be_set_twice() {
        let option = |name: &str, value: &str| (name.to_owned(), Secret::new(value.to_owned()));
        let twice = [option("linger.ms", "5"), option("queue.buffering.max.ms", "9")];
        let mut problems = Problems::new();
        check(&twice.into_iter().collect(), "c", &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["c.queue.buffering.max.ms"], "{problems}");
    }

    #[test]
    fn reserved_options_and_aliases_exist() {
        let reserved = RESERVED.iter().map(|(name, _)| name);
        let aliases = ALIASES.iter().flat_map(|(alias, name)| [alias, name]);
        for name in reserved.chain(aliases) {
            let answer = ClientConfig::new().set(*name, "").create_native_config();
            let is_unknown = matches!(
                answer,
                Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
            );
            assert!(!is_unknown, "{name} is no option of librdkafka");
        }
    }

    #[test]
    fn aliases_set_what_their_other_name_sets() {
        for (alias, name) in ALIASES {
            let read = |name: &str, value| {
                let config = ClientConfig::new().set(*alias, value).create_native_config().ok()?;
                config.get(name).ok()
            };
            // Each accepts one of these; options of a build without OpenSSL accept none.
            for value in ["7", "false", "lz4", "1", "PLAIN"] {
                assert_eq!(read(alias, value), read(name, value), "{alias}, {name}");
            }
        }
    }

    #[test]
    fn an_option_that_needs_openssl_names_the_feature() {
        if !crate::Capabilities::of_this_build().tls {
            let reason = check_one("ssl.crl.location", "/x").expect_err("no OpenSSL");
            assert!(reason.contains("kafka-tls"), "{reason}");
        }
    }
}
