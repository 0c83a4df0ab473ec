//! `drakkar-sim`: runs seeds of the simulation, shows one, or hunts for a planted fault.
//!
//! `cargo xtask sim` builds and calls it; `docs/testing.md` says how.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its user"
)]

mod arguments;
mod campaign;
mod report;

use arguments::{Arguments, Command};
use campaign::Campaign;
use drakkar_sim::{FAULTS, Keep, planted, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => execute(&arguments),
        Err(mistake) => {
            eprintln!("error: {mistake}\n{}", arguments::HELP);
            ExitCode::from(2)
        }
    }
}

fn execute(arguments: &Arguments) -> ExitCode {
    match arguments.command {
        Command::Campaign => campaign(arguments),
        Command::Show { seed, trace } => show(seed, trace),
        Command::Faults => {
            FAULTS.iter().for_each(|fault| println!("{}", report::fault_line(fault)));
            ExitCode::SUCCESS
        }
        Command::Hunt => hunt(arguments),
    }
}

/// Runs all seeds; every situation must have come about where they are many.
fn campaign(arguments: &Arguments) -> ExitCode {
    let result = Campaign::new(arguments).run();
    println!("{}", report::census(&result.census));
    println!("{}", report::summary(&result));
    if let Some(outcome) = &result.failure {
        println!("{}", report::failure(outcome));
        return ExitCode::FAILURE;
    }
    let missing = result.census.missing();
    if result.seeds >= campaign::COMPLETE_FROM && !missing.is_empty() {
        println!("error: never came about: {}", missing.join("; "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn show(seed: u64, trace: bool) -> ExitCode {
    let outcome = run(seed, if trace { Keep::All } else { Keep::Tail });
    if trace {
        outcome.lines.iter().for_each(|line| println!("{line}"));
    }
    match &outcome.breach {
        None => {
            println!("seed {seed}: every promise was kept");
            ExitCode::SUCCESS
        }
        Some(breach) if trace => {
            println!("seed {seed}: {breach}");
            ExitCode::FAILURE
        }
        Some(_) => {
            println!("{}", report::failure(&outcome));
            ExitCode::FAILURE
        }
    }
}

/// Looks for the fault that was built in; finds it only where the right promise is named.
fn hunt(arguments: &Arguments) -> ExitCode {
    let Some(fault) = planted() else {
        eprintln!("error: no fault was built in");
        return ExitCode::from(2);
    };
    let result = Campaign::new(arguments).run();
    let Some(outcome) = result.failure else {
        println!("{} was not found in {} seeds", fault.name, result.seeds);
        return ExitCode::FAILURE;
    };
    let breach = outcome.breach.as_ref().expect("a failure is a breach");
    println!("{} seed {} {breach}", fault.name, outcome.seed);
    match fault.breaks.contains(&breach.promise) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
