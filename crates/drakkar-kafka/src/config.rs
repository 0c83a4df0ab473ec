//! The section as a configuration file holds it, and its check.

use crate::security::{Mechanism, SECURITY, SecuritySection};
use crate::settings::ClientSettings;
use crate::{Capabilities, options};
use drakkar_api::{Field, Kind, Problems, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The client settings of the section `kafka`, for the reference page and the validator.
pub const FIELDS: &[Field] = &[
    Field {
        name: "brokers",
        kind: Kind::Text { min_length: 1 },
        default: Some("\"localhost:9092\""),
        about: "The brokers to ask first, as `host:port` separated by commas. The client learns \
                the others from them.",
    },
    Field {
        name: "security",
        kind: Kind::Section(&SECURITY),
        default: Some("{}"),
        about: "Encryption and authentication.",
    },
    Field {
        name: "client_config",
        kind: Kind::Map(&Kind::Secret),
        default: Some("{}"),
        about: "Raw options of librdkafka, from name to text. They win over drakkar's own choices; \
                those on which its guarantees rest, and those that have a setting of their own, are \
                refused. Values are not shown.",
    },
];

/// The client settings as a configuration file holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientSection {
    /// The brokers to ask first, as `host:port` separated by commas.
    pub brokers: String,
    /// Encryption and authentication.
    pub security: SecuritySection,
    /// Raw options of librdkafka.
    pub client_config: BTreeMap<String, Secret<String>>,
}

impl Default for ClientSection {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            security: SecuritySection::default(),
            client_config: BTreeMap::new(),
        }
    }
}

impl ClientSection {
    /// Checks the section against itself and against what this build can do.
    ///
    /// `path` is where the section stands, such as `kafka`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once, with the path of each setting.
    pub fn validate(self, path: &str) -> Result<ClientSettings, Problems> {
        self.validate_for(path, Capabilities::of_this_build())
    }

    /// Checks the section as a build with these capabilities would.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn validate_for(
        self,
        path: &str,
        capabilities: Capabilities,
    ) -> Result<ClientSettings, Problems> {
        let mut problems = Problems::new();
        check_brokers(&self.brokers, &format!("{path}.brokers"), &mut problems);
        self.security.check(&format!("{path}.security"), capabilities, &mut problems);
        options::check(&self.client_config, &format!("{path}.client_config"), &mut problems);
        problems.into_result(())?;
        // A client of these two begins to fetch a ticket or a token as soon as it is made.
        let is_tried_out =
            !matches!(self.security.mechanism, Some(Mechanism::Gssapi | Mechanism::Oauthbearer));
        let settings =
            ClientSettings::new(self.brokers, self.security.options(), self.client_config);
        let mut problems = Problems::new();
        if is_tried_out && let Err((key, reason)) = settings.try_out() {
            problems.push(format!("{path}.{key}"), reason);
        }
        problems.into_result(settings)
    }
}

fn check_brokers(brokers: &str, path: &str, problems: &mut Problems) {
    for broker in brokers.split(',').map(str::trim) {
        if let Err(reason) = check_broker(broker) {
            problems.push(
                path,
                format!("{reason} in \"{brokers}\"; give host:port, such as localhost:9092"),
            );
        }
    }
}

/// Checks one broker: a host, optionally with a port.
fn check_broker(broker: &str) -> Result<(), String> {
    if broker.is_empty() {
        return Err("an empty broker".to_owned());
    }
    if broker.contains(char::is_whitespace) {
        return Err(format!("white space inside \"{broker}\""));
    }
    // An IPv6 address stands in brackets, so that its colons are not taken for the port's.
    let after_host = match broker.rsplit_once(']') {
        Some((_, rest)) => rest.strip_prefix(':'),
        None => broker.split_once(':').map(|(_, port)| port),
    };
    let Some(port) = after_host else { return Ok(()) };
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("\"{port}\" is not a port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::Protocol;

    const NOTHING: Capabilities =
        Capabilities { tls: false, scram: false, oidc: false, gssapi: false };

    /// Builds the defaults that a table of fields declares.
    fn declared(fields: &[Field]) -> serde_json::Value {
        let entry = |field: &Field| {
            let value = match field.kind {
                Kind::Section(section) => declared(section.fields),
                _ => serde_json::from_str(field.default.expect("a default")).expect("JSON"),
            };
            (field.name.to_owned(), value)
        };
        serde_json::Value::Object(fields.iter().map(entry).collect())
    }

    #[test]
    fn the_table_declares_the_defaults_that_serde_fills_in() {
        let declared: ClientSection = serde_json::from_value(declared(FIELDS)).expect("complete");
        let empty: ClientSection = serde_json::from_str("{}").expect("all have defaults");
        assert_eq!(declared, empty);
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        serde_json::from_str::<ClientSection>(r#"{"brokerz": "x"}"#).expect_err("unknown");
        serde_json::from_str::<ClientSection>(r#"{"security": {"user": "x"}}"#)
            .expect_err("unknown");
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        let check = |brokers: &str, problems_expected: usize| {
            let mut problems = Problems::new();
            check_brokers(brokers, "kafka.brokers", &mut problems);
            assert_eq!(problems.iter().len(), problems_expected, "{brokers}: {problems}");
        };
        check("localhost:9092", 0);
        check("a:1, b:65535 ,[::1]:9092,c,[fe80::1]", 0);
        check("", 1);
        check("a:1,,b:0,c:x", 3);
        check("a b:1", 1);
        check("a:65536", 1);
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_paths() {
        let mut section = ClientSection { brokers: "a:0".to_owned(), ..ClientSection::default() };
        section.security.protocol = Protocol::Ssl;
        section.security.password = Secret::new("hunter2".to_owned());
        section.client_config.insert("group.id".to_owned(), Secret::new("mine".to_owned()));
        section.client_config.insert("no.such.option".to_owned(), Secret::new("x".to_owned()));
        let problems = section.validate_for("kafka", NOTHING).expect_err("four problems");
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "kafka.brokers",
            "kafka.security.protocol",
            "kafka.security.password",
            "kafka.client_config.group.id",
            "kafka.client_config.no.such.option",
        ];
        assert_eq!(paths, expected);
        let text = problems.to_string();
        assert!(text.contains("kafka-tls"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn options_that_contradict_each_other_are_named_at_load() {
        let check = |name: &str, value: &str, expect: &str| {
            let mut section = ClientSection::default();
            section.client_config.insert(name.to_owned(), Secret::new(value.to_owned()));
            let problems = section.validate("kafka").expect_err(name);
            let found: Vec<_> = problems.iter().collect();
            assert_eq!(found[0].path, "kafka.client_config", "{problems}");
            assert!(problems.to_string().contains(expect), "{problems}");
        };
        // An idempotent producer allows five.
        check("max.in.flight", "10", "max.in.flight");
        check("receive.message.max.bytes", "1000", "receive.message.max.bytes");
    }
}
