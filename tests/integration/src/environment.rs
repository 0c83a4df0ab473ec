//! What `cargo xtask integration` tells the tests.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where the services and programs of this run are.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The broker, `host:port`.
    pub kafka: String,
    /// The same broker where it asks for a user and a password, `host:port`.
    pub kafka_auth: String,
    /// Who may come in there.
    pub kafka_user: String,
    /// With this password.
    pub kafka_password: String,
    /// The worker to run, built in release mode.
    pub worker: PathBuf,
    /// The program that restarts and kills services.
    pub xtask: PathBuf,
}

impl Environment {
    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// One of them is missing: the tests never go on without a service.
    pub fn read() -> Result<Self> {
        Ok(Self {
            kafka: variable("DRAKKAR_TEST_KAFKA")?,
            kafka_auth: variable("DRAKKAR_TEST_KAFKA_AUTH")?,
            kafka_user: variable("DRAKKAR_TEST_KAFKA_USER")?,
            kafka_password: variable("DRAKKAR_TEST_KAFKA_PASSWORD")?,
            worker: variable("DRAKKAR_BENCH_WORKER")?.into(),
            xtask: variable("DRAKKAR_XTASK")?.into(),
        })
    }
}

fn variable(name: &str) -> Result<String> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    value.with_context(|| format!("{name} is not set; run cargo xtask integration kafka"))
}
