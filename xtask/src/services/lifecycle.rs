//! Bringing services up and down, whoever provides them.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::home::{Home, ServicesLock, services_dir};
use super::probe::probe;
use super::state::State;
use super::{Provider, Service, docker, native};

/// The services of one folder. Every change is made under a lock, so that two runs of xtask do not
/// interfere.
#[derive(Debug)]
pub(crate) struct Services {
    folder: PathBuf,
}

/// How a service is now.
#[derive(Debug)]
pub(crate) enum Health {
    /// It was never brought up, or was taken down.
    Down,
    /// It answers.
    Up(State),
    /// Its process has ended, but it was not taken down.
    Dead(State),
    /// It is there and does not answer.
    Silent(State, anyhow::Error),
}

/// What `up` found or did.
#[derive(Debug)]
pub(crate) struct Upped {
    pub(crate) state: State,
    /// False if it was up already.
    pub(crate) was_started: bool,
}

impl Services {
    /// The services of this workspace's target folder.
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { folder: services_dir()? })
    }

    pub(crate) fn home(&self, service: Service) -> Home {
        Home::of(service, &self.folder)
    }

    /// Looks at the service without changing anything.
    pub(crate) fn health(&self, service: Service) -> Result<Health> {
        let Some(state) = self.home(service).state()? else { return Ok(Health::Down) };
        if let Some(native) = &state.native
            && !native.process.is_alive()?
        {
            return Ok(Health::Dead(state));
        }
        Ok(match probe(service, state.address) {
            Ok(()) => Health::Up(state),
            Err(error) => Health::Silent(state, error),
        })
    }

    /// Brings the service up unless it is; one that died comes back with its data, at its address.
    pub(crate) fn up(&self, service: Service, provider: Provider) -> Result<Upped> {
        let _lock = ServicesLock::acquire(&self.folder)?;
        let state = match self.health(service)? {
            Health::Up(state) => return Ok(Upped { state, was_started: false }),
            Health::Silent(State { provider: Provider::Native, .. }, error) => {
                let advice = format!("try: cargo xtask services restart {service}");
                return Err(error.context(format!("{service} runs but does not answer; {advice}")));
            }
            Health::Dead(state) | Health::Silent(state, _) => self.start_again(service, &state)?,
            Health::Down => self.start(service, provider)?,
        };
        Ok(Upped { state, was_started: true })
    }

    /// Ends the service and deletes its data; says whether there was anything to end.
    pub(crate) fn down(&self, service: Service) -> Result<bool> {
        let _lock = ServicesLock::acquire(&self.folder)?;
        let home = self.home(service);
        let Some(state) = home.state()? else { return Ok(false) };
        match &state.native {
            Some(native) => native::stop(service, native)?,
            None => docker::remove(service)?,
        }
        home.clear()?;
        Ok(true)
    }

    /// Ends the service cleanly, if it runs, and starts it with the same data at the same address.
    pub(crate) fn restart(&self, service: Service) -> Result<State> {
        let _lock = ServicesLock::acquire(&self.folder)?;
        let state = self.known(service)?;
        match &state.native {
            Some(native) => native::stop(service, native)?,
            None => docker::stop(service)?,
        }
        self.start_again(service, &state)
    }

    /// Ends the service with SIGKILL; `up` and `restart` start it with the same data at the same
    /// address.
    pub(crate) fn kill(&self, service: Service) -> Result<()> {
        let _lock = ServicesLock::acquire(&self.folder)?;
        match self.known(service)?.native {
            Some(native) => native.process.kill(),
            None => docker::kill(service),
        }
    }

    fn known(&self, service: Service) -> Result<State> {
        match self.home(service).state()? {
            Some(state) => Ok(state),
            None => bail!("{service} is not up; try: cargo xtask services up {service}"),
        }
    }

    fn start(&self, service: Service, provider: Provider) -> Result<State> {
        eprintln!("starting {service} ({provider})");
        match provider {
            Provider::Native => native::start(service, &self.home(service), None),
            Provider::Docker => self.start_container(service),
        }
    }

    fn start_again(&self, service: Service, state: &State) -> Result<State> {
        eprintln!("starting {service} again ({})", state.provider);
        match &state.native {
            Some(died) => native::start(service, &self.home(service), Some(died)),
            None => self.start_container(service),
        }
    }

    fn start_container(&self, service: Service) -> Result<State> {
        let state = docker::start(service)?;
        self.home(service).save(&state)?;
        Ok(state)
    }
}
