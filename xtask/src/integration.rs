//! `cargo xtask integration`: the tests that need real services.
//!
//! Their targets have `test = false`, so that only this command runs them, and here a missing
//! service is a failure.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::arguments::{Arguments, UsageError};
use crate::services::command::{chosen_provider, default_provider};
use crate::services::session::Session;
use crate::services::state::State;
use crate::services::{Provider, Service, kafka};
use crate::{bench, cargo};

pub(crate) const HELP: &str = "\
Brings up what the integration tests need, runs them, and takes down what it brought up.

Usage: cargo xtask integration [suite..] [--provider <docker|native>] [--messages <N>] [--seconds <N>]
                               [-- argument..]

Suites: kafka, processes, soak (default: all). The second needs no service, only time. The third watches
the memory of a worker before a backlog of --messages (default: 200000) for --seconds (default: 16). What
follows -- goes to the test binary, such as a part of a test's name; a suite in which nothing matches is a
failure.

The tests find their services in DRAKKAR_TEST_<SERVICE> (host:port), the worker that they run in
DRAKKAR_BENCH_WORKER, and in DRAKKAR_XTASK the program that restarts a service for them. With
DRAKKAR_TEST_KAFKA_ before them, AUTH, USER and PASSWORD are the broker's listener with SASL and who may
come in by it.
";

/// Test targets that need the same services.
#[derive(Debug)]
struct Suite {
    /// Its name on the command line.
    name: &'static str,
    services: &'static [Service],
    targets: &'static [Target],
}

/// A test target that only this command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    package: &'static str,
    name: &'static str,
}

static SUITES: [Suite; 3] = [
    Suite {
        name: "kafka",
        services: &[Service::Kafka],
        targets: &[
            Target { package: "drakkar-sink-kafka", name: "real" },
            Target { package: "drakkar-integration", name: "kafka" },
        ],
    },
    Suite {
        name: "processes",
        services: &[],
        targets: &[Target { package: "drakkar-exec", name: "endurance" }],
    },
    Suite {
        name: "soak",
        services: &[Service::Kafka],
        targets: &[Target { package: "drakkar-integration", name: "soak" }],
    },
];

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let test_arguments = arguments.after_dashes();
    let provider = chosen_provider(&mut arguments)?.unwrap_or_else(default_provider);
    let soak = soak_variables(&mut arguments)?;
    let suites = selected(&arguments.names()?)?;
    run_suites(&suites, &test_arguments, &soak, provider)
}

/// What the soak is told of its size, if the command line says it.
fn soak_variables(arguments: &mut Arguments) -> Result<Vec<(&'static str, String)>, UsageError> {
    let mut variables = Vec::new();
    for (option, variable) in
        [("--messages", "DRAKKAR_SOAK_MESSAGES"), ("--seconds", "DRAKKAR_SOAK_SECONDS")]
    {
        if let Some(value) = arguments.values(option)?.pop() {
            let is_number = value.parse::<u64>().is_ok_and(|number| number > 0);
            if !is_number {
                return Err(UsageError(format!("{option} must be a number, found \"{value}\"")));
            }
            variables.push((variable, value));
        }
    }
    Ok(variables)
}

fn run_suites(
    suites: &[&'static Suite],
    test_arguments: &[String],
    soak: &[(&'static str, String)],
    provider: Provider,
) -> Result<ExitCode> {
    // Asked for before anything is built: the path of a program that was replaced is lost.
    let xtask = std::env::current_exe().context("failed to find the path of xtask")?;
    // Building it takes minutes, and only what has to do with services runs it.
    let needs_worker = suites.iter().any(|suite| !suite.services.is_empty());
    let worker = needs_worker.then(bench::build_worker).transpose()?;
    for suite in suites {
        ensure_tests_match(suite, test_arguments)?;
        let session = Session::begin(suite.services, provider)?;
        let mut failure = None;
        for target in suite.targets {
            let mut tests = test_command(target, test_arguments)?;
            for &service in suite.services {
                tests.envs(variables(service, session.state(service)?)?);
            }
            tests.env("DRAKKAR_XTASK", &xtask);
            tests.envs(soak.iter().map(|(name, value)| (name, value)));
            tests.envs(worker.iter().map(|worker| ("DRAKKAR_BENCH_WORKER", worker)));
            let status = cargo::status(&mut tests)?;
            if !status.success() {
                failure = Some(status);
                break;
            }
        }
        session.end()?;
        if let Some(status) = failure {
            return Ok(cargo::exit_code(status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn selected(names: &[String]) -> Result<Vec<&'static Suite>, UsageError> {
    if names.is_empty() {
        return Ok(SUITES.iter().collect());
    }
    let known = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
    let unknown = |name: &str| UsageError(format!("unknown suite \"{name}\"; known are {known}"));
    let find =
        |name: &String| SUITES.iter().find(|suite| suite.name == name).ok_or_else(|| unknown(name));
    names.iter().map(find).collect()
}

/// One test at a time: the tests share a broker, and some of them restart it.
fn test_command(target: &Target, test_arguments: &[String]) -> Result<Command> {
    let mut command = cargo::command(&["test", "--release", "--package", target.package])?;
    command.args(["--test", target.name, "--", "--test-threads=1"]).args(test_arguments);
    // The error that a test returns says what is wrong; where it was made is noise of many lines.
    command.env("RUST_LIB_BACKTRACE", "0");
    Ok(command)
}

/// Fails when the arguments leave no test to run: the test binary would call that a success.
fn ensure_tests_match(suite: &Suite, test_arguments: &[String]) -> Result<()> {
    for target in suite.targets {
        let mut list = test_command(target, test_arguments)?;
        if !test_arguments.iter().any(|argument| argument == "--list") {
            list.arg("--list");
        }
        if lists_a_test(&cargo::captured(&mut list)?) {
            return Ok(());
        }
    }
    let filter = test_arguments.join(" ");
    bail!("no test of the suite \"{}\" matches: {filter}", suite.name)
}

/// Reads what a test binary prints for `--list`.
fn lists_a_test(listed: &str) -> bool {
    listed.lines().any(|line| line.ends_with(": test"))
}

/// What the tests are told of a service.
pub(crate) fn variables(service: Service, state: &State) -> Result<Vec<(String, String)>> {
    let address = format!("DRAKKAR_TEST_{}", service.name().to_uppercase());
    let mut variables = vec![(address.clone(), state.address.to_string())];
    if service == Service::Kafka {
        variables.extend([
            (format!("{address}_AUTH"), kafka::auth_address(state)?.to_string()),
            (format!("{address}_USER"), kafka::AUTH_USER.to_owned()),
            (format!("{address}_PASSWORD"), kafka::AUTH_PASSWORD.to_owned()),
        ]);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn without_a_name_every_suite_is_run() {
        assert_eq!(selected(&[]).expect("none is unknown").len(), SUITES.len());
    }

    #[test]
    fn an_unknown_suite_lists_the_known_ones() {
        let error = selected(&["kafka".to_owned(), "pulsar".to_owned()]).expect_err("unknown");
        assert_eq!(error.to_string(), "unknown suite \"pulsar\"; known are kafka, processes, soak");
    }

    #[test]
    fn the_soak_is_told_its_size_only_if_the_command_line_says_it() {
        let variables = |line: &str| {
            soak_variables(&mut Arguments::new(line.split_whitespace().map(str::to_owned)))
        };
        assert_eq!(variables("soak").expect("nothing is wrong"), []);
        let given = variables("soak --messages 2000000 --seconds=600").expect("two numbers");
        let pair = |name, value: &str| (name, value.to_owned());
        let expect =
            [pair("DRAKKAR_SOAK_MESSAGES", "2000000"), pair("DRAKKAR_SOAK_SECONDS", "600")];
        assert_eq!(given, expect);
        assert!(variables("--seconds soon").is_err() && variables("--messages 0").is_err());
    }

    #[test]
    fn tests_run_one_at_a_time_with_the_arguments_given() {
        let target = Target { package: "p", name: "t" };
        let command = test_command(&target, &["--nocapture".to_owned(), "rebalance".to_owned()]);
        let command = command.expect("a workspace");
        let arguments: Vec<_> = command.get_args().map(|it| it.to_str().expect("ours")).collect();
        assert_eq!(
            arguments[2..],
            ["--package", "p", "--test", "t", "--", "--test-threads=1", "--nocapture", "rebalance"]
        );
    }

    #[test]
    fn every_target_that_cargo_test_leaves_out_is_in_a_suite() {
        #[derive(serde::Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        #[derive(serde::Deserialize)]
        struct Package {
            name: String,
            targets: Vec<CargoTarget>,
        }
        #[derive(serde::Deserialize)]
        struct CargoTarget {
            name: String,
            kind: Vec<String>,
            test: bool,
        }
        let metadata: Metadata = cargo::metadata().expect("cargo knows the workspace");
        let mut left_out = BTreeSet::new();
        for package in &metadata.packages {
            let is_left_out = |it: &&CargoTarget| !it.test && it.kind.iter().any(|it| it == "test");
            let targets = package.targets.iter().filter(is_left_out);
            left_out.extend(targets.map(|it| (package.name.as_str(), it.name.as_str())));
        }
        let listed = SUITES.iter().flat_map(|suite| suite.targets);
        let listed: BTreeSet<_> = listed.map(|it| (it.package, it.name)).collect();
        assert_eq!(left_out, listed);
    }

    #[test]
    fn a_filter_that_matches_nothing_is_noticed() {
        assert!(lists_a_test("clean_exits::a_signal: test\n\n1 test, 0 benchmarks\n"));
        assert!(!lists_a_test("0 tests, 0 benchmarks\n"));
    }

    #[test]
    fn the_variables_are_named_after_the_service() {
        let address = "127.0.0.1:5000".parse().expect("an address");
        let state = State { provider: Provider::Docker, address, native: None };
        let named =
            |service| -> Vec<(String, String)> { variables(service, &state).expect("it has them") };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(named(Service::Redis), [pair("DRAKKAR_TEST_REDIS", "127.0.0.1:5000")]);
        let kafka = named(Service::Kafka);
        assert_eq!(kafka[0], pair("DRAKKAR_TEST_KAFKA", "127.0.0.1:5000"));
        assert_eq!(kafka[1], pair("DRAKKAR_TEST_KAFKA_AUTH", "127.0.0.1:19093"));
        assert_eq!(
            (kafka[2].0.as_str(), kafka[3].0.as_str()),
            ("DRAKKAR_TEST_KAFKA_USER", "DRAKKAR_TEST_KAFKA_PASSWORD",)
        );
    }
}
