//! The configuration of a worker: one YAML file, overridden by environment variables.
//!
//! [`Config::load`] merges the layers, checks every value against the tables that the crates declare
//! ([`drakkar_api::Section`]), and reports everything that is wrong at once ([`ConfigError`]). All
//! settings are listed in `docs/configuration.md`, which is made from the same tables.
//!
//! Limits: one file, one YAML document; no includes and no templates. Values are never converted
//! from one YAML type to another; text from the environment is converted to the type of its setting.

mod compiled;
mod contradictions;
mod environment;
mod error;
mod load;
mod mask;
mod nearest;
mod reference;
mod schema;
mod settings;
mod summary;
mod tables;
#[cfg(test)]
mod tests;
mod walk;
mod yaml;

pub use error::{ConfigError, ConfigErrorKind};
pub use reference::reference_markdown;
pub(crate) use settings::Draft;
pub use settings::{Config, DlqSettings, LogFormat, LogLevel, LogSettings, MetricsSettings};
