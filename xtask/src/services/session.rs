//! Services for as long as something needs them: what was not up is brought up, and taken down
//! afterwards.

use anyhow::{Context, Result};

use super::lifecycle::Services;
use super::state::State;
use super::{Provider, Service};

/// Services that are up until this is ended or dropped; those that were up before stay up.
#[derive(Debug)]
pub(crate) struct Session {
    services: Services,
    states: Vec<(Service, State)>,
    started: Vec<Service>,
}

impl Session {
    /// Brings up what is not up. If one service fails, those started before it are taken down
    /// again.
    pub(crate) fn begin(needed: &[Service], provider: Provider) -> Result<Self> {
        let services = Services::open()?;
        let mut session = Self { services, states: Vec::new(), started: Vec::new() };
        for &service in needed {
            let upped = session.services.up(service, provider)?;
            session.states.push((service, upped.state));
            if upped.was_started {
                session.started.push(service);
            }
        }
        Ok(session)
    }

    /// What one of the services that the session began with is like.
    pub(crate) fn state(&self, service: Service) -> Result<&State> {
        let found = self.states.iter().find(|(known, _)| *known == service);
        found.map(|(_, state)| state).with_context(|| format!("{service} was not asked for"))
    }

    /// Takes down what was started here.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop()
    }

    /// Goes on after a failure, so that one service does not keep the others up; the first failure
    /// is reported.
    fn stop(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(service) = self.started.pop() {
            eprintln!("stopping {service}");
            let stopped = self.services.down(service).map(drop);
            result = result.and(stopped);
        }
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("warning: {error:#}");
        }
    }
}
