//! `cargo xtask integration`: the tests that need real services.
//!
//! Their targets have `test = false`, so that only this command runs them, and here a missing
//! service is a failure.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::arguments::{Arguments, UsageError};
use crate::services::command::{chosen_provider, default_provider};
use crate::services::session::Session;
use crate::services::{Provider, Service};
use crate::{bench, cargo};

pub(crate) const HELP: &str = "\
Brings up what the integration tests need, runs them, and takes down what it brought up.

Usage: cargo xtask integration [suite..] [--provider <docker|native>] [-- argument..]

Suites: kafka (default: all). What follows -- goes to the test binary, such as a part of a test's
name; a suite in which nothing matches is a failure.

The tests find their services in DRAKKAR_TEST_<SERVICE> (host:port), the worker that they run in
DRAKKAR_BENCH_WORKER, and in DRAKKAR_XTASK the program that restarts a service for them.
";

/// A test target of the package `drakkar-integration` and what it needs.
#[derive(Debug)]
struct Suite {
    /// Its name on the command line and that of the target.
    name: &'static str,
    services: &'static [Service],
}

static SUITES: [Suite; 1] = [Suite { name: "kafka", services: &[Service::Kafka] }];

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let test_arguments = arguments.after_dashes();
    let provider = chosen_provider(&mut arguments)?;
    let suites = selected(&arguments.names()?)?;
    run_suites(&suites, &test_arguments, provider.unwrap_or_else(default_provider))
}

fn run_suites(
    suites: &[&'static Suite],
    test_arguments: &[String],
    provider: Provider,
) -> Result<ExitCode> {
    // Asked for before anything is built: the path of a program that was replaced is lost.
    let xtask = std::env::current_exe().context("failed to find the path of xtask")?;
    let worker = bench::build_worker()?;
    for suite in suites {
        ensure_tests_match(suite, test_arguments)?;
        let session = Session::begin(suite.services, provider)?;
        let mut tests = test_command(suite, test_arguments);
        for &service in suite.services {
            let address = session.address(service)?;
            tests.env(address_variable(service), address.to_string());
        }
        tests.env("DRAKKAR_BENCH_WORKER", &worker).env("DRAKKAR_XTASK", &xtask);
        let status = cargo::status(&mut tests)?;
        session.end()?;
        if !status.success() {
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
fn test_command(suite: &Suite, test_arguments: &[String]) -> Command {
    let mut command = cargo::command(&["test", "--release", "--package", "drakkar-integration"]);
    command.args(["--test", suite.name, "--", "--test-threads=1"]).args(test_arguments);
    command
}

/// Fails when the arguments leave no test to run: the test binary would call that a success.
fn ensure_tests_match(suite: &Suite, test_arguments: &[String]) -> Result<()> {
    let mut list = test_command(suite, test_arguments);
    if !test_arguments.iter().any(|argument| argument == "--list") {
        list.arg("--list");
    }
    let listed = cargo::captured(&mut list)?;
    let filter = test_arguments.join(" ");
    ensure!(lists_a_test(&listed), "no test of the suite \"{}\" matches: {filter}", suite.name);
    Ok(())
}

/// Reads what a test binary prints for `--list`.
fn lists_a_test(listed: &str) -> bool {
    listed.lines().any(|line| line.ends_with(": test"))
}

fn address_variable(service: Service) -> String {
    format!("DRAKKAR_TEST_{}", service.name().to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_every_suite_is_run() {
        assert_eq!(selected(&[]).expect("none is unknown").len(), SUITES.len());
    }

    #[test]
    fn an_unknown_suite_lists_the_known_ones() {
        let error = selected(&["kafka".to_owned(), "pulsar".to_owned()]).expect_err("unknown");
        assert_eq!(error.to_string(), "unknown suite \"pulsar\"; known are kafka");
    }

    #[test]
    fn tests_run_one_at_a_time_with_the_arguments_given() {
        let command = test_command(&SUITES[0], &["--nocapture".to_owned(), "rebalance".to_owned()]);
        let arguments: Vec<_> = command.get_args().map(|it| it.to_str().expect("ours")).collect();
        assert_eq!(
            arguments[4..],
            ["--test", "kafka", "--", "--test-threads=1", "--nocapture", "rebalance"]
        );
    }

    #[test]
    fn a_filter_that_matches_nothing_is_noticed() {
        assert!(lists_a_test("clean_exits::a_signal: test\n\n1 test, 0 benchmarks\n"));
        assert!(!lists_a_test("0 tests, 0 benchmarks\n"));
    }

    #[test]
    fn the_variable_is_named_after_the_service() {
        assert_eq!(address_variable(Service::Kafka), "DRAKKAR_TEST_KAFKA");
    }
}
