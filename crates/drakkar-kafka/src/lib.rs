//! The Kafka client settings that the source and the sinks of drakkar share: brokers, encryption,
//! authentication and raw options of librdkafka.
//!
//! [`ClientSection`] is what a configuration file holds; [`ClientSection::validate`] checks all of
//! it at once and gives [`ClientSettings`], which make the configuration of a consumer or of a
//! producer. [`FIELDS`] describe the section for the reference page and for the facade's validator.
//!
//! # Invariants
//!
//! - An option that drakkar's guarantees rest on cannot be set as a raw option ([`options`]).
//! - What a build cannot do, such as TLS without OpenSSL, is refused at load and named.
//! - Settings of which librdkafka makes no client are refused at load, with its reason.
//! - Secrets are never shown: not in an error, not in `Debug`, not serialised.
//!
//! This crate knows nothing of messages, groups or deliveries.
#![forbid(unsafe_code)]

mod capabilities;
mod config;
mod error;
pub mod options;
mod security;
mod settings;

pub use capabilities::Capabilities;
pub use config::{ClientSection, FIELDS};
pub use error::{ErrorClass, classify, refusal};
pub use security::{Mechanism, OauthbearerSection, Protocol, SECURITY, SecuritySection};
pub use settings::{ClientSettings, ProducerOptions};
