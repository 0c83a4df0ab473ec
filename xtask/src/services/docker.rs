//! Services as containers, from `services/compose.yaml`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::ports::loopback;
use super::state::State;
use super::{Provider, Service};
use crate::workspace;

/// The port on loopback of the broker's listener with a user and a password, as in the compose file.
pub(crate) const KAFKA_AUTH_PORT: u16 = 19093;

/// Says whether there is a Docker daemon to talk to and a compose plugin to do it with.
pub(crate) fn is_available() -> bool {
    succeeds(&["info"]) && has_compose()
}

/// Starts the container and waits for its health check.
pub(crate) fn start(service: Service) -> Result<State> {
    compose(&["up", "--detach", "--wait", service.name()])?;
    Ok(State { provider: Provider::Docker, address: loopback(port(service)), native: None })
}

/// Ends the container cleanly; it can be started again with its data.
pub(crate) fn stop(service: Service) -> Result<()> {
    compose(&["stop", service.name()])
}

/// Ends the container with SIGKILL; it can be started again with its data.
pub(crate) fn kill(service: Service) -> Result<()> {
    compose(&["kill", service.name()])
}

/// Removes the container and its data.
pub(crate) fn remove(service: Service) -> Result<()> {
    compose(&["rm", "--stop", "--force", "--volumes", service.name()])
}

/// What became of checking the compose file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lint {
    Valid,
    /// There is no compose plugin that could check it.
    NotPossible,
}

/// Has Docker check the compose file, which needs no daemon.
pub(crate) fn lint() -> Result<Lint> {
    if !has_compose() {
        return Ok(Lint::NotPossible);
    }
    compose(&["config", "--quiet"])?;
    Ok(Lint::Valid)
}

/// The port on loopback, as in the compose file.
fn port(service: Service) -> u16 {
    match service {
        Service::Kafka => 19092,
        Service::Postgres => 15432,
        Service::Redis => 16379,
        Service::Mongo => 17017,
    }
}

fn has_compose() -> bool {
    succeeds(&["compose", "version"])
}

fn succeeds(arguments: &[&str]) -> bool {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn compose(arguments: &[&str]) -> Result<()> {
    let status = Command::new("docker")
        .args(["compose", "--file"])
        .arg(compose_file()?)
        .args(arguments)
        .stdin(Stdio::null())
        // Standard output is for results; compose tells its progress on standard error anyhow.
        .stdout(std::io::stderr())
        .status()
        .context("failed to run docker")?;
    ensure!(status.success(), "docker compose {}: {status}", arguments.join(" "));
    Ok(())
}

fn compose_file() -> Result<PathBuf> {
    Ok(workspace::root()?.join("xtask/services/compose.yaml"))
}

#[cfg(test)]
mod tests {
    use super::super::kafka;
    use super::*;

    #[test]
    fn every_service_is_in_the_compose_file_on_loopback() {
        let compose = include_str!("../../services/compose.yaml");
        for service in Service::ALL {
            assert!(compose.contains(&format!("\n  {service}:\n")), "{service} is missing");
            let port = format!("ports: [\"127.0.0.1:{}:", port(service));
            assert!(compose.contains(&port), "{service} has another port");
        }
        assert_eq!(compose.matches("ports:").count(), Service::ALL.len());
    }

    #[test]
    fn the_broker_lets_the_same_user_in_as_the_native_one() {
        let compose = include_str!("../../services/compose.yaml");
        let address = format!("AUTH://127.0.0.1:{KAFKA_AUTH_PORT}");
        let published = format!("\"127.0.0.1:{KAFKA_AUTH_PORT}:{KAFKA_AUTH_PORT}\"");
        let user = format!("user_{}=\"{}\";", kafka::AUTH_USER, kafka::AUTH_PASSWORD);
        for part in [address, published, user] {
            assert!(compose.contains(&part), "{part} is missing");
        }
    }
}
