//! Which services there are, and who can run them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::arguments::UsageError;

/// A service that tests may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kafka,
    Postgres,
    Redis,
    Mongo,
}

impl Service {
    pub(crate) const ALL: [Self; 4] = [Self::Kafka, Self::Postgres, Self::Redis, Self::Mongo];

    /// The name on the command line, in the compose file and of the service's folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Mongo => "mongo",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Service {
    type Err = UsageError;

    fn from_str(name: &str) -> Result<Self, UsageError> {
        let known = Self::ALL.map(Self::name).join(", ");
        let unknown = || UsageError(format!("unknown service \"{name}\"; known are {known}"));
        Self::ALL.into_iter().find(|service| service.name() == name).ok_or_else(unknown)
    }
}

/// Who runs a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// Containers, from `services/compose.yaml`.
    Docker,
    /// Processes of this machine.
    Native,
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Docker => "docker",
            Self::Native => "native",
        })
    }
}

impl FromStr for Provider {
    type Err = UsageError;

    fn from_str(name: &str) -> Result<Self, UsageError> {
        match name {
            "docker" => Ok(Self::Docker),
            "native" => Ok(Self::Native),
            _ => Err(UsageError(format!("unknown provider \"{name}\"; known are docker, native"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for service in Service::ALL {
            assert_eq!(service.name().parse::<Service>().expect("its own name"), service);
        }
        for provider in [Provider::Docker, Provider::Native] {
            assert_eq!(provider.to_string().parse::<Provider>().expect("its own name"), provider);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "kafak".parse::<Service>().expect_err("mistyped");
        let text = "unknown service \"kafak\"; known are kafka, postgres, redis, mongo";
        assert_eq!(error.to_string(), text);
    }
}
