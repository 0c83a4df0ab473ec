//! Redis as a plain process, from the distribution's binary. It keeps nothing on disk.

use std::process::Command;

use anyhow::{Context, Result};

use super::native::{NativeService, Site};
use super::ports::loopback;

const PROGRAM: &str = "redis-server";

/// A server that can be started on this machine.
#[derive(Debug)]
pub(crate) struct Redis;

impl Redis {
    /// Finds the server through `PATH`.
    pub(crate) fn locate() -> Result<Self> {
        let version = Command::new(PROGRAM).arg("--version").output();
        version.context("Redis is not installed (Debian, Ubuntu: apt-get install redis-server)")?;
        Ok(Self)
    }
}

impl NativeService for Redis {
    fn port_count(&self) -> usize {
        1
    }

    fn prepare(&self, _site: &Site) -> Result<()> {
        Ok(())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let address = loopback(site.ports[0]);
        let mut command = Command::new(PROGRAM);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--bind").arg(address.ip().to_string());
        command.arg("--port").arg(address.port().to_string());
        command.arg("--dir").arg(&site.data);
        Ok(command)
    }
}
