//! Apache Kafka as a plain process: one node in KRaft mode that is broker and controller.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::native::{NativeService, Site};
use super::{java, kafka_jars};

const SERVER_PROPERTIES: &str = include_str!("../../services/kafka/server.properties");
const LOG4J2_PROPERTIES: &str = include_str!("../../services/kafka/log4j2.properties");

/// Sixteen bytes in base64, which is how Kafka writes ids.
const CLUSTER_ID: &str = "ZHJha2thcl9zZXJ2aWNlcw";

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
        2
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
    let [broker_port, controller_port] = site.ports[..] else { bail!("Kafka needs two ports") };
    // A backslash would begin an escape in a properties file.
    let data = site.data.to_str().filter(|path| !path.contains('\\'));
    let data = data.context("the path of the data folder has characters that Kafka cannot read")?;
    Ok(SERVER_PROPERTIES
        .replace("@BROKER_PORT@", &broker_port.to_string())
        .replace("@CONTROLLER_PORT@", &controller_port.to_string())
        .replace("@DATA@", data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled_in() {
        let site = Site {
            folder: "/services/kafka".into(),
            data: "/services/kafka/data".into(),
            ports: vec![20_001, 20_002],
        };
        let properties = server_properties(&site).expect("two ports and a plain path");
        let settings: Vec<&str> =
            properties.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(
            settings
                .contains(&"listeners=PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002")
        );
        assert!(settings.contains(&"log.dirs=/services/kafka/data"));
        assert!(settings.iter().all(|line| !line.contains("@DATA") && !line.contains("_PORT@")));
    }

    #[test]
    fn an_odd_number_of_ports_is_refused() {
        let site = Site { folder: "/k".into(), data: "/k/data".into(), ports: vec![20_001] };
        assert!(server_properties(&site).is_err());
    }
}
