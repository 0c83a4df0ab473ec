//! `cargo xtask prove`: what finds faults is given some, all of them.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::Arguments;
use crate::cargo;

pub(crate) const HELP: &str = "\
Shows that the simulation and the chaos test find faults: every planted fault of the engine, and a worker
that loses results, and one that repeats them, on a real broker under the faults of `cargo xtask chaos`.
Takes a quarter of an hour. `cargo xtask ci` plants one fault for each promise.

Usage: cargo xtask prove

Exit codes: 0 everything was found, 1 something was not.
";

/// The least in which every kind of fault has its turn.
const CHAOS_MINUTES: &str = "2";

/// What a test worker does wrong, and what must be said of it.
const SABOTAGES: [(&str, &str); 2] =
    [("drop", " lost: "), ("repeat", " repeats without explanation: ")];

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    arguments.finish()?;
    // Asked for before anything is built: the path of a program that was replaced is lost.
    let xtask = std::env::current_exe().context("failed to find the path of xtask")?;
    cargo::run(Command::new(&xtask).args(["sim", "--prove"]))?;
    for (sabotage, expect) in SABOTAGES {
        let output = Command::new(&xtask)
            .args(["chaos", "--minutes", CHAOS_MINUTES, "--sabotage", sabotage])
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to run {}", xtask.display()))?;
        let verdict = String::from_utf8_lossy(&output.stdout);
        println!("{verdict}");
        ensure!(!output.status.success(), "the sabotage \"{sabotage}\" has passed");
        check(&verdict, expect).with_context(|| format!("the sabotage \"{sabotage}\""))?;
        println!("the sabotage \"{sabotage}\" was found");
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails unless a run was rejected for this and nothing else: one that came to no verdict, or that
/// went wrong in another way, has found nothing.
fn check(verdict: &str, expect: &str) -> Result<()> {
    ensure!(verdict.lines().any(|line| line == "verdict: REJECTED"), "it came to no verdict");
    let objections = || verdict.lines().filter_map(|line| line.strip_prefix("OBJECTION: "));
    ensure!(objections().any(|objection| objection.contains(expect)), "it was not found");
    match objections().find(|objection| !objection.contains(expect)) {
        Some(other) => bail!("something else was wrong: {other}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rejection_for_the_right_reason_is_a_find() {
        let check = |verdict: &str| check(verdict, " lost: ").map_err(|error| error.to_string());
        assert_eq!(check("lost 1\nOBJECTION: 1 lost: [m1]\nverdict: REJECTED\n"), Ok(()));
        let real = "OBJECTION: 1 lost: [m1]\nverdict: REJECTED\nseed 7; the logs are in /logs\n";
        assert_eq!(check(real), Ok(()));
        let no_verdict = Err("it came to no verdict".to_owned());
        assert_eq!(check("OBJECTION: 1 lost: [m1]\n"), no_verdict);
        assert_eq!(check("lost 0\nverdict: passed\n"), no_verdict);
        let missed = Err("it was not found".to_owned());
        assert_eq!(check("OBJECTION: nothing arrived\nverdict: REJECTED\n"), missed);
        let more = "OBJECTION: 1 lost: [m1]\nOBJECTION: commits went back\nverdict: REJECTED\n";
        let other = Err("something else was wrong: commits went back".to_owned());
        assert_eq!(check(more), other);
    }
}
