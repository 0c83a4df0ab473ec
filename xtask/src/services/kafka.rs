//! Apache Kafka as a plain process: one node in KRaft mode that is broker and controller.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::native::{NativeService, Site};
use super::ports::loopback;
use super::state::State;
use super::{docker, java, kafka_jars};

const SERVER_PROPERTIES: &str = include_str!("../../services/kafka/server.properties");
const LOG4J2_PROPERTIES: &str = include_str!("../../services/kafka/log4j2.properties");

/// Sixteen bytes in base64, which is how Kafka writes ids.
const CLUSTER_ID: &str = "ZHJha2thcl9zZXJ2aWNlcw";

/// Who may come in by the listener that asks for a user and a password (SASL with PLAIN, in the clear),
/// whoever provides the broker.
pub(crate) const AUTH_USER: &str = "drakkar";
pub(crate) const AUTH_PASSWORD: &str = "tests-only";

/// Enough for tests and benchmarks, and a bound for a machine that runs them beside a build.
const HEAP: &str = "-Xmx768m";

/// A broker that can be started on this machine.
#[derive(Debug)]
pub(crate) struct Kafka {
    java: PathBuf,
}

impl Kafka {
    /// Finds what the broker needs, without fetching anything.
    pub(crate) fn locate() -> Result<Self> {
        let java = java::find()?;
        kafka_jars::check_available()?;
        Ok(Self { java })
    }

    fn java(&self, site: &Site, main_class: &str) -> Result<Command> {
        let mut command = Command::new(&self.java);
        command
            .arg(HEAP)
            .args(["-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"])
            .arg("-Dlog4j2.configurationFile=log4j2.properties")
            .arg("-classpath")
            .arg(kafka_jars::fetch()?.join("*"))
            .arg(main_class)
            .current_dir(&site.folder);
        Ok(command)
    }

    /// Writes the cluster id into an empty data folder, without which the broker refuses it.
    fn format(&self, site: &Site) -> Result<()> {
        if site.data.join("meta.properties").exists() {
            return Ok(());
        }
        let output = self
            .java(site, "kafka.tools.StorageTool")?
            .args(["format", "--config", "server.properties", "--cluster-id", CLUSTER_ID])
            .output()
            .context("failed to run Kafka's storage tool")?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            bail!("Kafka's storage tool failed ({}):\n{}", output.status, said.trim());
        }
        Ok(())
    }
}

impl NativeService for Kafka {
    fn port_count(&self) -> usize {
        5
    }

    /// All but the last, which is for a proxy.
    fn own_ports<'a>(&self, ports: &'a [u16]) -> &'a [u16] {
        ports.split_last().map_or(ports, |(_, own)| own)
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        fs::write(site.folder.join("server.properties"), server_properties(site)?)?;
        fs::write(site.folder.join("log4j2.properties"), LOG4J2_PROPERTIES)?;
        self.format(site)
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = self.java(site, "kafka.Kafka")?;
        command.arg("server.properties");
        Ok(command)
    }

    fn says_started(&self, log: &str) -> bool {
        log.contains("Kafka Server started")
    }
}

fn server_properties(site: &Site) -> Result<String> {
    let [broker_port, controller_port, auth_port, proxied_port, proxy_port] = site.ports[..] else {
        bail!(
            "Kafka needs five ports, {} are known; begin anew with services down",
            site.ports.len()
        )
    };
    // A backslash would begin an escape in a properties file.
    let data = site.data.to_str().filter(|path| !path.contains('\\'));
    let data = data.context("the path of the data folder has characters that Kafka cannot read")?;
    Ok(SERVER_PROPERTIES
        .replace("@BROKER_PORT@", &broker_port.to_string())
        .replace("@CONTROLLER_PORT@", &controller_port.to_string())
        .replace("@AUTH_PORT@", &auth_port.to_string())
        .replace("@PROXIED_PORT@", &proxied_port.to_string())
        .replace("@PROXY_PORT@", &proxy_port.to_string())
        .replace("@AUTH_USER@", AUTH_USER)
        .replace("@AUTH_PASSWORD@", AUTH_PASSWORD)
        .replace("@DATA@", data))
}

/// Where the broker asks for a user and a password.
pub(crate) fn auth_address(state: &State) -> Result<SocketAddr> {
    let Some(native) = &state.native else { return Ok(loopback(docker::KAFKA_AUTH_PORT)) };
    let port =
        native.ports.get(2).context("the broker was started without a listener with SASL")?;
    Ok(loopback(*port))
}

/// A way to the broker by which all traffic can be made to pass a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detour {
    /// Where the broker listens for what the proxy passes on.
    pub(crate) broker: SocketAddr,
    /// Where the broker sends clients that came that way: the proxy must listen there.
    pub(crate) proxy: SocketAddr,
}

/// The detour of a broker that runs as a process of this machine.
pub(crate) fn detour(state: &State) -> Result<Detour> {
    let native = state.native.as_ref().context("only the native provider has a detour")?;
    let port = |place: usize| {
        let port = native.ports.get(place).copied();
        port.context("the broker was started without a detour; begin anew with services down")
    };
    Ok(Detour { broker: loopback(port(3)?), proxy: loopback(port(4)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled_in() {
        let site = Site {
            folder: "/services/kafka".into(),
            data: "/services/kafka/data".into(),
            ports: vec![20_001, 20_002, 20_003, 20_004, 20_005],
        };
        let properties = server_properties(&site).expect("five ports and a plain path");
        let settings: Vec<&str> =
            properties.lines().filter(|line| !line.starts_with('#')).collect();
        let listeners = "listeners=PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002,\
             AUTH://127.0.0.1:20003,PROXIED://127.0.0.1:20004";
        assert!(settings.contains(&listeners), "{settings:?}");
        let proxied = |line: &&str| line.ends_with(",PROXIED://127.0.0.1:20005");
        assert_eq!(settings.iter().filter(|line| proxied(line)).count(), 1, "{settings:?}");
        assert!(settings.contains(&"log.dirs=/services/kafka/data"));
        let left = ["@DATA", "_PORT@", "@AUTH"];
        let is_left = |line: &&str| left.iter().any(|part| line.contains(part));
        assert!(!settings.iter().any(is_left), "{settings:?}");
    }

    #[test]
    fn a_detour_leads_from_the_proxys_port_to_the_brokers() {
        let process = crate::process::ProcessIdentity::of(std::process::id()).expect("it runs");
        let of = |ports: Vec<u16>| {
            let data = "/k/data".into();
            let native = crate::services::state::NativeState { process, ports, data };
            let (provider, address) = (crate::services::Provider::Native, loopback(20_001));
            detour(&State { provider, address, native: Some(native) })
        };
        let expect = Detour { broker: loopback(20_004), proxy: loopback(20_005) };
        assert_eq!(of((20_001..=20_005).collect()).expect("five ports"), expect);
        let error = of((20_001..=20_003).collect()).expect_err("three ports").to_string();
        assert!(error.contains("services down"), "{error}");
    }

    #[test]
    fn the_ports_of_an_older_broker_are_refused() {
        let ports = vec![20_001, 20_002, 20_003];
        let site = Site { folder: "/k".into(), data: "/k/data".into(), ports };
        let error = server_properties(&site).expect_err("one is missing").to_string();
        assert!(error.contains("services down"), "{error}");
    }
}
