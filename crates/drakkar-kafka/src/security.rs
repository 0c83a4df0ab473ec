//! Encryption and authentication: the section, its contradictions, and the options it stands for.

use crate::Capabilities;
use drakkar_api::{Field, Kind, Problems, Secret, Section};
use serde::{Deserialize, Serialize};
use std::fmt;

const TEXT: Kind = Kind::Text { min_length: 0 };

/// The section `security`, for the reference page and the validator.
pub const SECURITY: Section = Section {
    about: "Encryption and authentication. TLS and SCRAM need a build with the feature `kafka-tls` \
            or `kafka-tls-system`, `OAUTHBEARER` one with `kafka-oidc`.",
    fields: &[
        Field {
            name: "protocol",
            kind: Kind::Word(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
            default: Some("\"plaintext\""),
            about: "How brokers are spoken to: in the clear or encrypted, and with SASL \
                    authentication or without.",
        },
        Field {
            name: "ca_location",
            kind: TEXT,
            default: Some("\"\""),
            about: "A PEM file or a directory with the certificates that are trusted. Empty means \
                    those of the system.",
        },
        Field {
            name: "ca_pem",
            kind: TEXT,
            default: Some("\"\""),
            about: "The trusted certificates themselves, as PEM text, instead of `ca_location`.",
        },
        Field {
            name: "certificate_location",
            kind: TEXT,
            default: Some("\"\""),
            about: "A PEM file with this client's certificate. Empty means that it shows none.",
        },
        Field {
            name: "key_location",
            kind: TEXT,
            default: Some("\"\""),
            about: "A PEM file with the private key of that certificate.",
        },
        Field {
            name: "key_password",
            kind: Kind::Secret,
            default: Some("\"\""),
            about: "The password of the private key, if it is encrypted.",
        },
        Field {
            name: "mechanism",
            kind: Kind::Optional(&Kind::Word(&[
                "PLAIN",
                "SCRAM-SHA-256",
                "SCRAM-SHA-512",
                "OAUTHBEARER",
                "GSSAPI",
            ])),
            default: Some("null"),
            about: "How the client proves who it is. Needed with, and only with, a protocol that \
                    begins with `sasl_`. Over `sasl_plaintext`, `PLAIN` sends the password in the \
                    clear. Kerberos (`GSSAPI`) is set up by `sasl.kerberos.*` in `client_config`.",
        },
        Field {
            name: "username",
            kind: TEXT,
            default: Some("\"\""),
            about: "The user, for `PLAIN` and `SCRAM`.",
        },
        Field {
            name: "password",
            kind: Kind::Secret,
            default: Some("\"\""),
            about: "The user's password, for `PLAIN` and `SCRAM`.",
        },
        Field {
            name: "oauthbearer",
            kind: Kind::Section(&OAUTHBEARER),
            default: Some("{}"),
            about: "Where tokens come from, for `OAUTHBEARER`.",
        },
    ],
};

const OAUTHBEARER: Section = Section {
    about: "Tokens of an OpenID Connect provider, by the grant of client credentials.",
    fields: &[
        Field {
            name: "client_id",
            kind: TEXT,
            default: Some("\"\""),
            about: "The id that the provider knows this client by.",
        },
        Field {
            name: "client_secret",
            kind: Kind::Secret,
            default: Some("\"\""),
            about: "The secret that goes with the id.",
        },
        Field {
            name: "token_endpoint_url",
            kind: TEXT,
            default: Some("\"\""),
            about: "The address that tokens are fetched from.",
        },
        Field {
            name: "scope",
            kind: TEXT,
            default: Some("\"\""),
            about: "The scope to ask for; empty for none.",
        },
        Field {
            name: "extensions",
            kind: TEXT,
            default: Some("\"\""),
            about: "What to tell the broker beside the token, as `key=value` separated by commas.",
        },
    ],
};

/// The section `security` as a configuration file holds it. Empty text means not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecuritySection {
    /// How brokers are spoken to.
    pub protocol: Protocol,
    /// A PEM file or a directory with trusted certificates.
    pub ca_location: String,
    /// Trusted certificates as PEM text.
    pub ca_pem: String,
    /// A PEM file with this client's certificate.
    pub certificate_location: String,
    /// A PEM file with its private key.
    pub key_location: String,
    /// The password of the private key.
    pub key_password: Secret<String>,
    /// How the client proves who it is.
    pub mechanism: Option<Mechanism>,
    /// The user, for `PLAIN` and `SCRAM`.
    pub username: String,
    /// The user's password.
    pub password: Secret<String>,
    /// Where tokens come from, for `OAUTHBEARER`.
    pub oauthbearer: OauthbearerSection,
}

/// The section `security.oauthbearer` as a configuration file holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OauthbearerSection {
    /// The id that the provider knows this client by.
    pub client_id: String,
    /// The secret that goes with it.
    pub client_secret: Secret<String>,
    /// The address that tokens are fetched from.
    pub token_endpoint_url: String,
    /// The scope to ask for.
    pub scope: String,
    /// What to tell the broker beside the token.
    pub extensions: String,
}

/// How brokers are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// In the clear, without authentication.
    #[default]
    Plaintext,
    /// Encrypted; the client may show a certificate.
    Ssl,
    /// In the clear, with authentication.
    SaslPlaintext,
    /// Encrypted, with authentication.
    SaslSsl,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// User and password, as they are.
    #[serde(rename = "PLAIN")]
    Plain,
    /// User and salted password with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// User and salted password with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token of an OpenID Connect provider.
    #[serde(rename = "OAUTHBEARER")]
    Oauthbearer,
    /// Kerberos.
    #[serde(rename = "GSSAPI")]
    Gssapi,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn is_encrypted(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl Mechanism {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Oauthbearer => "OAUTHBEARER",
            Self::Gssapi => "GSSAPI",
        }
    }

    fn has_password(self) -> bool {
        matches!(self, Self::Plain | Self::ScramSha256 | Self::ScramSha512)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SecuritySection {
    /// Notes what contradicts itself and what this build cannot do.
    pub(crate) fn check(&self, path: &str, capabilities: Capabilities, problems: &mut Problems) {
        self.check_encryption(path, capabilities, problems);
        self.check_mechanism(path, capabilities, problems);
        self.check_credentials(path, problems);
        self.check_oauthbearer(&format!("{path}.oauthbearer"), problems);
    }

    fn check_encryption(&self, path: &str, capabilities: Capabilities, problems: &mut Problems) {
        let protocol = self.protocol;
        if protocol.is_encrypted() && !capabilities.tls {
            problems.push(
                format!("{path}.protocol"),
                format!("\"{protocol}\" needs TLS, which this build does not have; {ENABLE_TLS}"),
            );
        }
        let settings = [
            ("ca_location", self.ca_location.is_empty()),
            ("ca_pem", self.ca_pem.is_empty()),
            ("certificate_location", self.certificate_location.is_empty()),
            ("key_location", self.key_location.is_empty()),
            ("key_password", self.key_password.expose().is_empty()),
        ];
        for (name, is_empty) in settings {
            if !is_empty && !protocol.is_encrypted() {
                problems.push(
                    format!("{path}.{name}"),
                    format!(
                        "has no effect with the protocol \"{protocol}\"; set protocol to ssl or \
                         sasl_ssl"
                    ),
                );
            }
        }
        if !self.ca_location.is_empty() && !self.ca_pem.is_empty() {
            problems.push(format!("{path}.ca_pem"), "give either ca_location or ca_pem, not both");
        }
        if self.certificate_location.is_empty() != self.key_location.is_empty() {
            let missing = match self.key_location.is_empty() {
                true => "key_location",
                false => "certificate_location",
            };
            problems.push(
                format!("{path}.{missing}"),
                "a client certificate needs both certificate_location and key_location",
            );
        }
        if !self.key_password.expose().is_empty() && self.key_location.is_empty() {
            problems
                .push(format!("{path}.key_password"), "there is no key_location that it is for");
        }
    }

    fn check_mechanism(&self, path: &str, capabilities: Capabilities, problems: &mut Problems) {
        let protocol = self.protocol;
        let path = format!("{path}.mechanism");
        let Some(mechanism) = self.mechanism else {
            if protocol.has_sasl() {
                problems.push(
                    path,
                    format!("the protocol \"{protocol}\" needs a mechanism, such as SCRAM-SHA-512"),
                );
            }
            return;
        };
        if !protocol.has_sasl() {
            problems.push(
                &path,
                format!(
                    "\"{mechanism}\" has no effect with the protocol \"{protocol}\"; set protocol \
                     to sasl_ssl or sasl_plaintext"
                ),
            );
        }
        let missing = match mechanism {
            Mechanism::Plain => None,
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                (!capabilities.scram).then_some(ENABLE_TLS)
            }
            Mechanism::Oauthbearer => {
                (!capabilities.oidc).then_some("enable the feature `kafka-oidc`")
            }
            Mechanism::Gssapi => {
                (!capabilities.gssapi).then_some("enable the feature `kafka-gssapi`")
            }
        };
        if let Some(remedy) = missing {
            problems.push(path, format!("this build does not have \"{mechanism}\"; {remedy}"));
        }
    }

    fn check_credentials(&self, path: &str, problems: &mut Problems) {
        let settings = [
            ("username", self.username.is_empty()),
            ("password", self.password.expose().is_empty()),
        ];
        let needed_by = self.mechanism.filter(|mechanism| mechanism.has_password());
        for (name, is_empty) in settings {
            match needed_by {
                Some(mechanism) if is_empty => {
                    problems.push(format!("{path}.{name}"), format!("\"{mechanism}\" needs it"));
                }
                None if !is_empty => problems.push(
                    format!("{path}.{name}"),
                    "has no effect unless mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
                ),
                _ => {}
            }
        }
    }

    fn check_oauthbearer(&self, path: &str, problems: &mut Problems) {
        let section = &self.oauthbearer;
        if self.mechanism != Some(Mechanism::Oauthbearer) {
            if *section != OauthbearerSection::default() {
                problems.push(path, "has no effect unless mechanism is OAUTHBEARER");
            }
            return;
        }
        let needed = [
            ("client_id", section.client_id.is_empty()),
            ("client_secret", section.client_secret.expose().is_empty()),
            ("token_endpoint_url", section.token_endpoint_url.is_empty()),
        ];
        for (name, is_empty) in needed {
            if is_empty {
                problems.push(format!("{path}.{name}"), "\"OAUTHBEARER\" needs it");
            }
        }
    }

    /// Returns librdkafka's options for a section that was checked.
    pub(crate) fn options(&self) -> Vec<(&'static str, Secret<String>)> {
        let text = |value: &str| Secret::new(value.to_owned());
        let mut options = vec![("security.protocol", text(self.protocol.as_str()))];
        if let Some(mechanism) = self.mechanism {
            options.push(("sasl.mechanisms", text(mechanism.as_str())));
        }
        if self.mechanism == Some(Mechanism::Oauthbearer) {
            options.push(("sasl.oauthbearer.method", text("oidc")));
        }
        // A vendored OpenSSL looks for the system's certificates where the system has none.
        if self.protocol.is_encrypted() && self.ca_location.is_empty() && self.ca_pem.is_empty() {
            options.push(("ssl.ca.location", text("probe")));
        }
        let section = &self.oauthbearer;
        let settings = [
            ("ssl.ca.location", text(&self.ca_location)),
            ("ssl.ca.pem", text(&self.ca_pem)),
            ("ssl.certificate.location", text(&self.certificate_location)),
            ("ssl.key.location", text(&self.key_location)),
            ("ssl.key.password", self.key_password.clone()),
            ("sasl.username", text(&self.username)),
            ("sasl.password", self.password.clone()),
            ("sasl.oauthbearer.client.id", text(&section.client_id)),
            ("sasl.oauthbearer.client.secret", section.client_secret.clone()),
            ("sasl.oauthbearer.token.endpoint.url", text(&section.token_endpoint_url)),
            ("sasl.oauthbearer.scope", text(&section.scope)),
            ("sasl.oauthbearer.extensions", text(&section.extensions)),
        ];
        options.extend(settings.into_iter().filter(|(_, value)| !value.expose().is_empty()));
        options
    }
}

/// What to do about a build without OpenSSL.
pub(crate) const ENABLE_TLS: &str = "enable the feature `kafka-tls` (or `kafka-tls-system`)";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Capabilities = Capabilities { tls: true, scram: true, oidc: true, gssapi: true };
    const NONE: Capabilities =
        Capabilities { tls: false, scram: false, oidc: false, gssapi: false };

    fn with(change: impl FnOnce(&mut SecuritySection)) -> SecuritySection {
        let mut section = SecuritySection::default();
        change(&mut section);
        section
    }

    fn with_user(protocol: Protocol, mechanism: Mechanism) -> SecuritySection {
        with(|section| {
            section.protocol = protocol;
            section.mechanism = Some(mechanism);
            section.username = "u".to_owned();
            section.password = Secret::new("p".to_owned());
        })
    }

    /// Checks which settings are complained about.
    fn check(section: &SecuritySection, capabilities: Capabilities, expect: &[&str]) {
        let mut problems = Problems::new();
        section.check("s", capabilities, &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, expect, "{problems}");
    }

    #[test]
    fn what_fits_together_is_accepted() {
        check(&SecuritySection::default(), NONE, &[]);
        check(&with_user(Protocol::SaslPlaintext, Mechanism::Plain), NONE, &[]);
        check(&with_user(Protocol::SaslSsl, Mechanism::ScramSha512), ALL, &[]);
        let certificates = with(|section| {
            section.protocol = Protocol::Ssl;
            section.ca_location = "/ca".to_owned();
            section.certificate_location = "/c".to_owned();
            section.key_location = "/k".to_owned();
            section.key_password = Secret::new("p".to_owned());
        });
        check(&certificates, ALL, &[]);
        let tokens = with(|section| {
            section.protocol = Protocol::SaslSsl;
            section.mechanism = Some(Mechanism::Oauthbearer);
            section.oauthbearer.client_id = "c".to_owned();
            section.oauthbearer.client_secret = Secret::new("s".to_owned());
            section.oauthbearer.token_endpoint_url = "https://x".to_owned();
        });
        check(&tokens, ALL, &[]);
    }

    #[test]
    fn what_the_build_cannot_do_is_refused() {
        check(&with(|section| section.protocol = Protocol::Ssl), NONE, &["s.protocol"]);
        check(
            &with_user(Protocol::SaslSsl, Mechanism::ScramSha256),
            NONE,
            &["s.protocol", "s.mechanism"],
        );
        check(&with_user(Protocol::SaslPlaintext, Mechanism::ScramSha256), NONE, &["s.mechanism"]);
        let kerberos = with(|section| {
            section.protocol = Protocol::SaslPlaintext;
            section.mechanism = Some(Mechanism::Gssapi);
        });
        check(&kerberos, NONE, &["s.mechanism"]);
    }

    #[test]
    fn what_the_build_lacks_names_the_feature() {
        let check = |mechanism, feature: &str| {
            let section = with(|section| {
                section.protocol = Protocol::SaslPlaintext;
                section.mechanism = Some(mechanism);
            });
            let mut problems = Problems::new();
            section.check("s", NONE, &mut problems);
            assert!(problems.to_string().contains(feature), "{problems}");
        };
        check(Mechanism::ScramSha256, "`kafka-tls`");
        check(Mechanism::Oauthbearer, "`kafka-oidc`");
        check(Mechanism::Gssapi, "`kafka-gssapi`");
    }

    #[test]
    fn tokens_come_from_the_provider() {
        let section = with(|section| {
            section.protocol = Protocol::SaslPlaintext;
            section.mechanism = Some(Mechanism::Oauthbearer);
            section.oauthbearer.client_id = "c".to_owned();
            section.oauthbearer.client_secret = Secret::new("s".to_owned());
            section.oauthbearer.token_endpoint_url = "https://localhost:1/token".to_owned();
            section.oauthbearer.scope = "a b".to_owned();
        });
        let options: Vec<_> =
            section.options().into_iter().map(|(k, v)| (k, v.expose().clone())).collect();
        let expected = [
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.id", "c"),
            ("sasl.oauthbearer.client.secret", "s"),
            ("sasl.oauthbearer.token.endpoint.url", "https://localhost:1/token"),
            ("sasl.oauthbearer.scope", "a b"),
        ];
        assert_eq!(options, expected.map(|(name, value)| (name, value.to_owned())));
        if Capabilities::of_this_build().oidc {
            let client = crate::ClientSection { security: section, ..Default::default() };
            let config = client.validate("kafka").expect("valid").consumer_config("w");
            config.create::<rdkafka::consumer::BaseConsumer>().expect("librdkafka accepts it");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        check(&with_user(Protocol::Plaintext, Mechanism::Plain), ALL, &["s.mechanism"]);
        check(&with(|section| section.protocol = Protocol::SaslSsl), ALL, &["s.mechanism"]);
        check(&with(|section| section.ca_pem = "x".to_owned()), ALL, &["s.ca_pem"]);
        let halves = with(|section| {
            section.protocol = Protocol::Ssl;
            section.ca_pem = "x".to_owned();
            section.ca_location = "/x".to_owned();
            section.certificate_location = "/c".to_owned();
            section.key_password = Secret::new("p".to_owned());
        });
        check(&halves, ALL, &["s.ca_pem", "s.key_location", "s.key_password"]);
    }

    #[test]
    fn credentials_are_complete_or_absent() {
        let missing = with(|section| {
            section.protocol = Protocol::SaslSsl;
            section.mechanism = Some(Mechanism::Plain);
        });
        check(&missing, ALL, &["s.username", "s.password"]);
        let stray = with(|section| {
            section.username = "u".to_owned();
            section.oauthbearer.scope = "x".to_owned();
        });
        check(&stray, ALL, &["s.username", "s.oauthbearer"]);
        let tokens = with(|section| {
            section.protocol = Protocol::SaslSsl;
            section.mechanism = Some(Mechanism::Oauthbearer);
        });
        let needed = [
            "s.oauthbearer.client_id",
            "s.oauthbearer.client_secret",
            "s.oauthbearer.token_endpoint_url",
        ];
        check(&tokens, ALL, &needed);
    }

    #[test]
    fn words_are_spelled_as_kafka_spells_them() {
        let read: SecuritySection = serde_json::from_str(
            r#"{"protocol": "sasl_ssl", "mechanism": "SCRAM-SHA-512", "username": "u"}"#,
        )
        .expect("valid words");
        let options: Vec<_> =
            read.options().into_iter().map(|(k, v)| (k, v.expose().clone())).collect();
        let expected = [
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanisms", "SCRAM-SHA-512".to_owned()),
            ("ssl.ca.location", "probe".to_owned()),
            ("sasl.username", "u".to_owned()),
        ];
        assert_eq!(options, expected);
    }

    #[test]
    fn the_systems_certificates_are_looked_for_unless_others_are_given() {
        let check = |section: SecuritySection, expect: Option<&str>| {
            let options = section.options();
            let found: Vec<_> =
                options.iter().filter(|(name, _)| *name == "ssl.ca.location").collect();
            assert!(found.len() <= 1, "{found:?}");
            assert_eq!(found.first().map(|(_, value)| value.expose().as_str()), expect);
        };
        let encrypted = with(|section| section.protocol = Protocol::Ssl);
        check(encrypted.clone(), Some("probe"));
        check(SecuritySection { ca_location: "/ca".to_owned(), ..encrypted.clone() }, Some("/ca"));
        check(SecuritySection { ca_pem: "x".to_owned(), ..encrypted }, None);
        check(with_user(Protocol::SaslPlaintext, Mechanism::Plain), None);
    }

    /// Checking a section makes clients of it.
    #[test]
    fn librdkafka_makes_a_client_of_each_form() {
        let check = |security: SecuritySection| {
            let what = format!("{security:?}");
            let section = crate::ClientSection { security, ..crate::ClientSection::default() };
            section.validate("kafka").map_err(|problems| problems.to_string()).expect(&what);
        };
        check(SecuritySection::default());
        check(with_user(Protocol::SaslPlaintext, Mechanism::Plain));
        if !Capabilities::of_this_build().tls {
            return;
        }
        let fixture = |name| format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        check(with(|section| section.protocol = Protocol::Ssl));
        check(with(|section| {
            section.protocol = Protocol::Ssl;
            section.ca_location = fixture("client.pem");
            section.certificate_location = fixture("client.pem");
            section.key_location = fixture("client-key.pem");
        }));
        for protocol in [Protocol::SaslPlaintext, Protocol::SaslSsl] {
            check(with_user(protocol, Mechanism::ScramSha256));
            check(with_user(protocol, Mechanism::ScramSha512));
        }
        check(with_user(Protocol::SaslSsl, Mechanism::Plain));
    }
}
