//! PostgreSQL as a plain process, from the distribution's binaries.

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, geteuid};

use super::native::{NativeService, Site};
use super::ports::loopback;

/// Where Debian and Ubuntu keep one folder per major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A server that can be started on this machine.
#[derive(Debug)]
pub(crate) struct Postgres {
    binaries: PathBuf,
    /// The server refuses to run as root; then it runs as the user that its package made.
    user: Option<User>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Finds the newest server that is installed.
    pub(crate) fn locate() -> Result<Self> {
        let binaries = newest_binaries(Path::new(VERSIONS))
            .context("PostgreSQL is not installed (Debian, Ubuntu: apt-get install postgresql)")?;
        let user = if geteuid().is_root() { Some(User::named("postgres")?) } else { None };
        Ok(Self { binaries, user })
    }

    fn program(&self, name: &str, site: &Site) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command.arg("-D").arg(&site.data).current_dir("/");
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

impl User {
    fn named(name: &str) -> Result<Self> {
        let id = |what: &str| -> Result<u32> {
            let output = Command::new("id").args([what, name]).output();
            let output = output.context("failed to run id")?;
            ensure!(output.status.success(), "there is no user \"{name}\"");
            Ok(String::from_utf8(output.stdout)?.trim().parse()?)
        };
        Ok(Self { uid: id("-u")?, gid: id("-g")? })
    }
}

impl NativeService for Postgres {
    fn port_count(&self) -> usize {
        1
    }

    /// Another user cannot be expected to reach into the workspace, which may be below somebody's
    /// home.
    fn data(&self, folder: &Path, ports: &[u16]) -> PathBuf {
        match self.user {
            Some(_) => env::temp_dir().join(format!("drakkar-postgres-{}", ports[0])),
            None => folder.join("data"),
        }
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        if site.data.join("PG_VERSION").exists() {
            return Ok(());
        }
        fs::create_dir_all(&site.data)?;
        if let Some(user) = self.user {
            chown(&site.data, Some(user.uid), Some(user.gid))?;
        }
        let output = self
            .program("initdb", site)
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .output()
            .context("failed to run initdb")?;
        if !output.status.success() {
            bail!("initdb failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let address = loopback(site.ports[0]);
        let mut command = self.program("postgres", site);
        command.arg("-p").arg(address.port().to_string());
        command.arg("-c").arg(format!("listen_addresses={}", address.ip()));
        command.args(["-c", "unix_socket_directories="]);
        Ok(command)
    }

    /// SIGTERM would wait for every client to leave; SIGINT sends them away.
    fn stop_signal(&self) -> Signal {
        Signal::INT
    }
}

fn newest_binaries(versions: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(versions).ok()?.flatten();
    let majors = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let binaries = majors.map(|major| (major, versions.join(major.to_string()).join("bin")));
    let servers = binaries.filter(|(_, folder)| folder.join("postgres").is_file());
    servers.max_by_key(|(major, _)| *major).map(|(_, folder)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_with_a_server_is_used() {
        let versions = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(newest_binaries(versions.path()), None);
        for (version, program) in [("9", "postgres"), ("15", "postgres"), ("17", "psql")] {
            let folder = versions.path().join(version).join("bin");
            fs::create_dir_all(&folder).expect("created");
            fs::write(folder.join(program), "").expect("written");
        }
        assert_eq!(newest_binaries(versions.path()), Some(versions.path().join("15").join("bin")));
    }
}
