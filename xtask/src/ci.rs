//! `cargo xtask ci`: the whole gate, the same here and on the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arguments::{Arguments, UsageError};
use crate::services::{Lint, command::lint_and_tell};
use crate::{cargo, workspace};

pub(crate) const HELP: &str = "\
Runs every check in order and stops at the first that fails.

Usage: cargo xtask ci [--keep-going] [--skip <step>]..

Steps:
  fmt, tidy, clippy, features, deny, advisories, rustdoc, test, sim, proof, quickstart, examples,
  services, integration

Options:
  --keep-going   Go on after a failure
  --skip <step>  Leave a step out, for local use; the summary says so
";

/// One check.
struct Step {
    name: &'static str,
    run: fn(&Gate) -> Result<Verdict>,
}

/// How a step ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It could not be made here, for a reason that was printed and that is tolerated.
    Unavailable,
}

impl From<Lint> for Verdict {
    fn from(lint: Lint) -> Self {
        match lint {
            Lint::Valid => Self::Passed,
            Lint::NotPossible => Self::Unavailable,
        }
    }
}

static STEPS: [Step; 14] = [
    Step { name: "fmt", run: |_| cargo(&["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: |gate| gate.xtask(&["tidy"]) },
    Step {
        name: "clippy",
        run: |_| cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Step { name: "features", run: |gate| gate.xtask(&["features"]) },
    Step { name: "deny", run: |_| deny(&["bans", "licenses", "sources"]) },
    Step { name: "advisories", run: |_| advisories() },
    Step { name: "rustdoc", run: |_| rustdoc() },
    Step { name: "test", run: |_| cargo(&["test", "--workspace"]) },
    Step { name: "sim", run: |gate| gate.xtask(&["sim", "--seeds", "2000"]) },
    Step { name: "proof", run: |gate| gate.xtask(&["sim", "--prove", "--brief"]) },
    Step { name: "quickstart", run: |_| quickstart() },
    Step { name: "examples", run: |_| examples() },
    Step { name: "services", run: |_| Ok(lint_and_tell()?.into()) },
    Step { name: "integration", run: |gate| gate.xtask(&["integration"]) },
];

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    let keep_going = arguments.flag("--keep-going");
    let skipped = arguments.values("--skip")?;
    arguments.finish()?;
    check_names(&skipped)?;

    let gate = Gate::new()?;
    let mut summary = Summary::default();
    for step in &STEPS {
        if skipped.iter().any(|name| name == step.name) {
            summary.add(step.name, Outcome::Skipped, Duration::ZERO);
            continue;
        }
        println!("== {}", step.name);
        let start = Instant::now();
        let outcome = Outcome::of((step.run)(&gate));
        println!(
            "== {}: {} after {:.1} s",
            step.name,
            outcome.word(),
            start.elapsed().as_secs_f64()
        );
        summary.add(step.name, outcome, start.elapsed());
        if outcome == Outcome::Failed && !keep_going {
            break;
        }
    }
    println!("{}", summary.table());
    Ok(if summary.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check_names(names: &[String]) -> Result<(), UsageError> {
    match names.iter().find(|name| !STEPS.iter().any(|step| step.name == name.as_str())) {
        Some(name) => {
            let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
            Err(UsageError(format!("unknown step \"{name}\"; known are {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

/// What the steps share.
struct Gate {
    /// Asked for once, at the start: the steps may build xtask anew, and the path of a replaced
    /// program is lost.
    xtask: PathBuf,
}

impl Gate {
    fn new() -> Result<Self> {
        let xtask = std::env::current_exe().context("failed to find the path of xtask")?;
        Ok(Self { xtask })
    }

    fn xtask(&self, arguments: &[&str]) -> Result<Verdict> {
        passes(Command::new(&self.xtask).args(arguments))
    }
}

fn cargo(arguments: &[&str]) -> Result<Verdict> {
    passes(&mut cargo::command(arguments)?)
}

fn passes(command: &mut Command) -> Result<Verdict> {
    cargo::run(command)?;
    Ok(Verdict::Passed)
}

fn rustdoc() -> Result<Verdict> {
    let mut command = cargo::command(&["doc", "--workspace", "--no-deps"])?;
    passes(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn deny(checks: &[&str]) -> Result<Verdict> {
    let mut command = cargo::command(&["deny", "check", "--hide-inclusion-graph"])?;
    passes(command.args(checks))
}

/// This step depends on somebody else's server. A known advisory fails; not being able to
/// ask does not.
fn advisories() -> Result<Verdict> {
    let fetched = cargo::status(&mut cargo::command(&["deny", "fetch", "db"])?)?;
    if fetched.success() {
        return deny(&["advisories"]);
    }
    println!(
        "NOT CHECKED: the advisory database could not be fetched; nobody looked for known holes"
    );
    Ok(Verdict::Unavailable)
}

/// Whoever tries the project out begins with this.
fn quickstart() -> Result<Verdict> {
    let out = workspace::target()?.join(format!("quickstart-{}", std::process::id()));
    fs::create_dir_all(&out).with_context(|| format!("failed to create {}", out.display()))?;
    let mut command = cargo::command(&["run", "--release", "--package", "drakkar-examples"])?;
    command.args(["--example", "quickstart", "--", "--messages", "2000", "--out"]).arg(&out);
    let verdict = passes(&mut command);
    fs::remove_dir_all(&out).with_context(|| format!("failed to remove {}", out.display()))?;
    verdict
}

/// Each crate that is useful alone shows it with an example.
fn examples() -> Result<Verdict> {
    let here = workspace::target()?.join(format!("examples-{}", std::process::id()));
    fs::create_dir_all(&here).with_context(|| format!("failed to create {}", here.display()))?;
    let lines = here.join("lines.txt");
    fs::write(&lines, "one\ntwo words\n\nand three words\n")
        .with_context(|| format!("failed to write {}", lines.display()))?;
    let run = |package: &str, example: &str, argument: &Path| -> Result<Verdict> {
        let mut command = cargo::command(&["run", "--package", package, "--example", example])?;
        passes(command.arg("--").arg(argument))
    };
    run("drakkar-exec", "checksums", &here)?;
    run("drakkar-core", "lines", &lines)?;
    let position = here.join("lines.txt.position");
    let committed = fs::read_to_string(&position)
        .with_context(|| format!("the example has left no {}", position.display()))?;
    anyhow::ensure!(committed == "4", "the example has committed {committed}, not 4");
    fs::remove_dir_all(&here).with_context(|| format!("failed to remove {}", here.display()))?;
    Ok(Verdict::Passed)
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Unavailable,
    Skipped,
}

impl Outcome {
    /// Prints why a step failed; the summary has no room for it.
    fn of(result: Result<Verdict>) -> Self {
        match result {
            Ok(Verdict::Passed) => Self::Passed,
            Ok(Verdict::Unavailable) => Self::Unavailable,
            Err(error) => {
                eprintln!("error: {error:#}");
                Self::Failed
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// The steps so far. A step that is not there was never reached.
#[derive(Debug, Default)]
struct Summary {
    rows: Vec<(&'static str, Outcome, Duration)>,
}

impl Summary {
    fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        self.rows.push((name, outcome, took));
    }

    fn has_failed(&self) -> bool {
        self.rows.iter().any(|(_, outcome, _)| *outcome == Outcome::Failed)
    }

    fn table(&self) -> String {
        let mut table = format!("\n{:<12} {:<11} {:>8}", "step", "outcome", "seconds");
        for (name, outcome, took) in &self.rows {
            let row = format!("\n{name:<12} {:<11} {:>8.1}", outcome.word(), took.as_secs_f64());
            table.push_str(&row);
        }
        let total: Duration = self.rows.iter().map(|(_, _, took)| *took).sum();
        table + &format!("\n{:<12} {:<11} {:>8.1}", "all", "", total.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_the_steps_in_order() {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        let help = HELP.replace(",\n  ", ", ");
        assert!(help.contains(&format!("Steps:\n  {}\n", names.join(", "))));
    }

    #[test]
    fn an_unknown_step_cannot_be_skipped() {
        check_names(&["test".to_owned(), "deny".to_owned()]).expect("both are known");
        assert!(check_names(&["tests".to_owned()]).is_err());
    }

    #[test]
    fn a_compose_file_that_nobody_checked_has_not_passed() {
        assert_eq!(Verdict::from(Lint::NotPossible), Verdict::Unavailable);
        assert_eq!(Verdict::from(Lint::Valid), Verdict::Passed);
    }

    #[test]
    fn only_a_failure_fails_the_gate() {
        let mut summary = Summary::default();
        summary.add("fmt", Outcome::Passed, Duration::from_millis(1250));
        summary.add("advisories", Outcome::Unavailable, Duration::ZERO);
        summary.add("test", Outcome::Skipped, Duration::ZERO);
        assert!(!summary.has_failed());
        summary.add("quickstart", Outcome::Failed, Duration::from_secs(2));
        assert!(summary.has_failed());
        let table = summary.table();
        assert!(table.contains("\nfmt          passed           1.2"), "{table}");
        assert!(table.contains("\nquickstart   FAILED           2.0"), "{table}");
    }
}
