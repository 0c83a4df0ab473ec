//! The project's chores: `cargo xtask <command>`.
//!
//! Depends on nothing of ours, so that it builds in seconds and works when the rest does not
//! compile. Results go to standard output, progress to standard error.

#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a chore runs other programs and polls them")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its user"
)]

mod arguments;
mod bench;
mod cargo;
mod chaos;
mod ci;
mod features;
mod integration;
mod process;
mod prove;
mod services;
mod sim;
mod tidy;
mod workspace;

use std::env;
use std::process::ExitCode;

use anyhow::Result;

use arguments::{Arguments, UsageError};

const HELP: &str = "\
The project's chores.

Usage: cargo xtask <command> [arguments]

Commands:
  ci           Run every check there is: what a change must pass
  tidy         Check the rules that no compiler knows
  features     Build each feature by itself and check what the crates link
  sim          Run the engine in simulated worlds
  integration  Run the tests that need real services
  bench        Run the benchmarks
  chaos        Run workers under faults and judge what arrived
  prove        Show that the simulation and the chaos test find faults
  services     Start, stop and show the real services

`cargo xtask <command> --help` says more.
Exit codes: 0 done, 1 failed, 2 mistake in the command line; or what tests and benchmarks exit with.
";

fn main() -> ExitCode {
    match dispatch(Arguments::new(env::args().skip(1))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

fn dispatch(mut arguments: Arguments) -> Result<ExitCode> {
    let command = arguments.next();
    let (help, run): (&str, fn(Arguments) -> Result<ExitCode>) = match command.as_deref() {
        Some("integration") => (integration::HELP, integration::run),
        Some("bench") => (bench::HELP, bench::run),
        Some("sim") => (sim::HELP, sim::run),
        Some("chaos") => (chaos::HELP, chaos::run),
        Some("prove") => (prove::HELP, prove::run),
        Some("ci") => (ci::HELP, ci::run),
        Some("features") => (features::HELP, features::run),
        Some("tidy") => (tidy::command::HELP, tidy::command::run),
        Some("services") => (services::command::HELP, services::command::run),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some(unknown) => {
            return Err(UsageError(format!("unknown command \"{unknown}\"; see --help")).into());
        }
    };
    if arguments.flag("--help") || arguments.flag("-h") {
        print!("{help}");
        return Ok(ExitCode::SUCCESS);
    }
    run(arguments)
}
