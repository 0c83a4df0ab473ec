//! `cargo xtask services`.

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::lifecycle::{Health, Services};
use super::{Lint, Provider, Service, docker, lint, native};
use crate::arguments::{Arguments, UsageError};

pub(crate) const HELP: &str = "\
Runs the real services that tests need, on loopback.

Usage: cargo xtask services <command> [service..] [options]

Commands:
  up       Start what is not up and print the addresses (default: all that the provider can run)
  down     End services and delete their data (default: all)
  status   Show what is up; fails if a named service is not
  restart  End a service cleanly and start it again, with the same address and data
  kill     End a service with SIGKILL; restart or up brings it back with the same address and data
  lint     Check the compose file

Services: kafka, postgres, redis, mongo

Options:
  --provider <docker|native>  Who runs what is started (default: XTASK_SERVICES_PROVIDER,
                              else docker if it answers, else native)
  --json                      Print an object keyed by service (up, status, restart)
";

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let Some(verb) = arguments.next() else {
        return Err(UsageError("services needs a command; see --help".to_owned()).into());
    };
    let json = arguments.flag("--json");
    let provider = chosen_provider(&mut arguments)?;
    let names = arguments.names()?;
    let named = names.iter().map(|name| name.parse()).collect::<Result<Vec<Service>, _>>()?;

    let services = Services::open()?;
    match verb.as_str() {
        "up" => up(&services, &named, provider, json),
        "down" => down(&services, &named),
        "status" => status(&services, &named, json),
        "restart" => restart(&services, &named, json),
        "kill" => kill(&services, &named),
        "lint" => run_lint(),
        _ => Err(UsageError(format!("unknown command \"services {verb}\"; see --help")).into()),
    }
}

/// The provider that `--provider` or the environment asks for.
pub(crate) fn chosen_provider(arguments: &mut Arguments) -> Result<Option<Provider>> {
    if let Some(name) = arguments.values("--provider")?.pop() {
        return Ok(Some(name.parse()?));
    }
    match env::var("XTASK_SERVICES_PROVIDER") {
        Ok(name) if !name.is_empty() => {
            Ok(Some(name.parse().context("failed to read XTASK_SERVICES_PROVIDER")?))
        }
        _ => Ok(None),
    }
}

/// Docker if it answers, because it can run everything; else plain processes.
pub(crate) fn default_provider() -> Provider {
    if docker::is_available() { Provider::Docker } else { Provider::Native }
}

fn up(
    services: &Services,
    named: &[Service],
    provider: Option<Provider>,
    json: bool,
) -> Result<ExitCode> {
    let provider = provider.unwrap_or_else(default_provider);
    let wanted = if named.is_empty() { runnable(provider) } else { named.to_vec() };
    if wanted.is_empty() {
        bail!("the {provider} provider can run none of the services");
    }
    for &service in &wanted {
        services.up(service, provider)?;
    }
    print(services, &wanted, json)
}

/// What the provider can run on this machine; says why it leaves the rest out.
fn runnable(provider: Provider) -> Vec<Service> {
    let can_run = |service: &Service| match provider {
        Provider::Docker => true,
        Provider::Native => match native::locate(*service) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("leaving out {service}: {error:#}");
                false
            }
        },
    };
    Service::ALL.into_iter().filter(can_run).collect()
}

fn down(services: &Services, named: &[Service]) -> Result<ExitCode> {
    for &service in all_unless(named) {
        if services.down(service)? {
            eprintln!("{service} is down");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn restart(services: &Services, named: &[Service], json: bool) -> Result<ExitCode> {
    at_least_one(named)?;
    for &service in named {
        services.restart(service)?;
    }
    print(services, named, json)
}

fn kill(services: &Services, named: &[Service]) -> Result<ExitCode> {
    at_least_one(named)?;
    for &service in named {
        services.kill(service)?;
        eprintln!("{service} was killed");
    }
    Ok(ExitCode::SUCCESS)
}

fn run_lint() -> Result<ExitCode> {
    lint_and_tell()?;
    Ok(ExitCode::SUCCESS)
}

/// Has the compose file checked and prints what became of it.
pub(crate) fn lint_and_tell() -> Result<Lint> {
    let lint = lint()?;
    println!(
        "{}",
        match lint {
            Lint::Valid => "services/compose.yaml is valid",
            Lint::NotPossible =>
                "NOT CHECKED: services/compose.yaml, as there is no docker compose here",
        }
    );
    Ok(lint)
}

fn status(services: &Services, named: &[Service], json: bool) -> Result<ExitCode> {
    let reports = reports(services, all_unless(named))?;
    if json {
        println!("{}", serde_json::to_string(&reports)?);
    } else {
        println!(
            "{:<10} {:<7} {:<9} {:<16} {:>8}  data",
            "service", "state", "provider", "address", "pid"
        );
        for (service, report) in &reports {
            println!("{}", report.row(service));
        }
    }
    let all_up = reports.values().all(|report| report.state == "up");
    Ok(if all_up || named.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the addresses, one `<service> <address>` a line.
fn print(services: &Services, wanted: &[Service], json: bool) -> Result<ExitCode> {
    let reports = reports(services, wanted)?;
    if json {
        println!("{}", serde_json::to_string(&reports)?);
    } else {
        for (service, report) in &reports {
            println!("{service} {}", report.address.as_deref().unwrap_or("-"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One service as `status` shows it.
#[derive(Debug, Default, Serialize)]
struct Report {
    state: &'static str,
    provider: Option<Provider>,
    address: Option<String>,
    pid: Option<u32>,
    data: Option<String>,
    log: Option<String>,
}

impl Report {
    fn of(services: &Services, service: Service) -> Result<Self> {
        let (word, state) = match services.health(service)? {
            Health::Down => return Ok(Self { state: "down", ..Self::default() }),
            Health::Up(state) => ("up", state),
            Health::Dead(state) => ("dead", state),
            Health::Silent(state, _) => ("silent", state),
        };
        let native = state.native.as_ref();
        Ok(Self {
            state: word,
            provider: Some(state.provider),
            address: Some(state.address.to_string()),
            pid: native.map(|native| native.process.pid()),
            data: native.map(|native| native.data.display().to_string()),
            log: native.map(|_| services.home(service).log().display().to_string()),
        })
    }

    fn row(&self, service: &str) -> String {
        let provider = self.provider.map_or("-".to_owned(), |provider| provider.to_string());
        let address = self.address.as_deref().unwrap_or("-");
        let pid = self.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let data = self.data.as_deref().unwrap_or("-");
        format!("{service:<10} {:<7} {provider:<9} {address:<16} {pid:>8}  {data}", self.state)
    }
}

fn reports(services: &Services, wanted: &[Service]) -> Result<BTreeMap<&'static str, Report>> {
    let report = |service: &Service| Ok((service.name(), Report::of(services, *service)?));
    wanted.iter().map(report).collect()
}

fn all_unless(named: &[Service]) -> &[Service] {
    if named.is_empty() { &Service::ALL } else { named }
}

fn at_least_one(named: &[Service]) -> Result<(), UsageError> {
    if named.is_empty() {
        return Err(UsageError("name the service".to_owned()));
    }
    Ok(())
}
