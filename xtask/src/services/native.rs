//! Services as plain processes of this machine.
//!
//! A process is started in its own process group with its output in a file, so that it outlives
//! xtask and a Ctrl-C meant for xtask does not reach it.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;

use super::home::Home;
use super::kafka::Kafka;
use super::ports::{self, loopback};
use super::postgres::Postgres;
use super::probe::probe;
use super::redis::Redis;
use super::state::{NativeState, State};
use super::{Provider, Service};
use crate::process::ProcessIdentity;

/// From the start of the process to its first answer.
const START_DEADLINE: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(200);

/// From the signal that asks a service to end to SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// From the end of a service to its id being free, which the next start waits for.
const REAP_DEADLINE: Duration = Duration::from_secs(10);

/// Where one service lives and listens.
#[derive(Debug)]
pub(crate) struct Site {
    /// For configuration; it exists before anything is asked of the service.
    pub(crate) folder: PathBuf,
    /// Exists, too, unless `NativeService::data` names another place.
    pub(crate) data: PathBuf,
    /// As many as `NativeService::port_count` says; clients connect to the first.
    pub(crate) ports: Vec<u16>,
}

/// What differs from service to service. The calls come in the order of the methods.
pub(crate) trait NativeService {
    /// How many ports it listens on.
    fn port_count(&self) -> usize;

    /// Those of its ports that it listens on itself.
    fn own_ports<'a>(&self, ports: &'a [u16]) -> &'a [u16] {
        ports
    }

    /// Where its data goes.
    fn data(&self, folder: &Path, _ports: &[u16]) -> PathBuf {
        folder.join("data")
    }

    /// Writes its configuration and, the first time, lays out its data.
    fn prepare(&self, site: &Site) -> Result<()>;

    /// The command that runs it in the foreground.
    fn command(&self, site: &Site) -> Result<Command>;

    /// Whether its log says that it serves, for services that answer before they do.
    fn says_started(&self, _log: &str) -> bool {
        true
    }

    /// What asks it to end cleanly and soon.
    fn stop_signal(&self) -> Signal {
        Signal::TERM
    }
}

/// Finds what the service needs on this machine; the error says what to install.
pub(crate) fn locate(service: Service) -> Result<Box<dyn NativeService>> {
    Ok(match service {
        Service::Kafka => Box::new(Kafka::locate()?),
        Service::Postgres => Box::new(Postgres::locate()?),
        Service::Redis => Box::new(Redis::locate()?),
        Service::Mongo => bail!(
            "mongo has no native provider yet; install Docker with its compose plugin \
             and use --provider docker"
        ),
    })
}

/// Starts the service and waits until it answers. The ports and the data of a process that died are
/// used again.
pub(crate) fn start(service: Service, home: &Home, died: Option<&NativeState>) -> Result<State> {
    let native = locate(service)?;
    if let Some(died) = died {
        // PostgreSQL refuses to start while the id in its lock file exists. If it stays, the log
        // will tell.
        died.process.is_reaped_within(REAP_DEADLINE)?;
    }
    let site = site(service, native.as_ref(), home, died)?;
    native.prepare(&site).with_context(|| format!("failed to prepare {service}"))?;

    let log_start = home.log_len();
    let mut child = spawn(native.command(&site)?, home)?;
    let started = ProcessIdentity::of(child.id()).and_then(|process| {
        let state = State {
            provider: Provider::Native,
            address: loopback(site.ports[0]),
            native: Some(NativeState { process, ports: site.ports, data: site.data }),
        };
        // Saved before it is ready: if xtask is interrupted now, `down` still finds the process.
        home.save(&state)?;
        let ready = || {
            probe(service, state.address)?;
            let says_started = native.says_started(&home.log_since(log_start)?);
            ensure!(says_started, "its log does not say that it has started");
            Ok(())
        };
        wait_until_ready(&mut child, ready)?;
        Ok(state)
    });
    started.map_err(|error| {
        // It may have ended by itself; that it is gone is all that matters.
        child.kill().ok();
        child.wait().ok();
        let tail = home.log_tail(log_start);
        anyhow!("failed to start {service}: {error:#}\n{tail}\n{}", begin_anew(service))
    })
}

/// Ends the service cleanly, or by force when it does not end.
pub(crate) fn stop(service: Service, state: &NativeState) -> Result<()> {
    // What runs can be stopped even if what it was started from has been uninstalled.
    let signal = locate(service).map_or(Signal::TERM, |native| native.stop_signal());
    state.process.terminate(signal, STOP_GRACE).with_context(|| format!("failed to stop {service}"))
}

fn begin_anew(service: Service) -> String {
    format!("to begin anew: cargo xtask services down {service}")
}

fn site(
    service: Service,
    native: &dyn NativeService,
    home: &Home,
    died: Option<&NativeState>,
) -> Result<Site> {
    let site = match died {
        Some(died) => {
            let (ports, advice) = (&died.ports, begin_anew(service));
            ensure!(
                ports::are_free(native.own_ports(ports)),
                "one of {service}'s ports {ports:?} is taken\n{advice}"
            );
            Site {
                folder: home.folder().to_owned(),
                data: died.data.clone(),
                ports: died.ports.clone(),
            }
        }
        None => {
            let ports = ports::free(native.port_count())?;
            Site {
                folder: home.folder().to_owned(),
                data: native.data(home.folder(), &ports),
                ports,
            }
        }
    };
    for folder in [&site.folder, &site.data] {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
    }
    Ok(site)
}

fn spawn(mut command: Command, home: &Home) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(home.log())?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("failed to run {}", command.get_program().display()))
}

fn wait_until_ready(child: &mut Child, ready: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("it ended while starting: {status}");
        }
        match ready() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("it was not ready within {START_DEADLINE:?}")));
            }
            Err(_) => thread::sleep(START_POLL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, home: &Home) -> Child {
        fs::create_dir_all(home.folder()).expect("created");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        spawn(command, home).expect("there is a shell")
    }

    #[test]
    fn a_process_that_ends_while_starting_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::of(Service::Redis, folder.path());
        let mut child = shell("echo no room >&2; exit 3", &home);
        let error = wait_until_ready(&mut child, || bail!("not yet")).expect_err("it ended");
        assert_eq!(error.to_string(), "it ended while starting: exit status: 3");
        assert!(home.log_tail(0).ends_with("no room"));
    }

    #[test]
    fn a_process_that_answers_is_ready() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = shell("sleep 600", &Home::of(Service::Redis, folder.path()));
        wait_until_ready(&mut child, || Ok(())).expect("ready at once");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
}
