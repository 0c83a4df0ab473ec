//! `cargo xtask sim`: the engine in simulated worlds, and the proof that these find faults.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::arguments::{Arguments, UsageError};
use crate::{cargo, workspace};

pub(crate) const HELP: &str = "\
Runs the engine in simulated worlds, each decided by one seed, and checks every promise of it.

Usage: cargo xtask sim [--seeds <count>] [--from <seed>] [--threads <count>]
       cargo xtask sim --seed <seed> [--trace]
       cargo xtask sim --prove [--brief] [--seeds <count>] [fault..]

Options:
  --seeds <count>    How many worlds; 2000 unless said, 1000 for --prove. From 2000 on a situation
                     that never came about is an error
  --from <seed>      The first seed; 0 unless said
  --threads <count>  How many at a time; as many as there are cores unless said
  --seed <seed>      Run this one and tell how it went
  --trace            Print everything that was seen in it
  --prove            Build the engine with one planted fault after the other, and check that each is
                     found and the right promise is named
  --brief            Of the faults, only the first of each promise

Exit codes: 0 every promise was kept, 1 one was not, or a fault was not found.
";

const PACKAGE: &str = "drakkar-sim";
const PROFILE: &str = "sim";

/// What is ours is not optimised in it: most faults are found in the first seeds, and the compiler
/// takes longer than they do.
const PROOF_PROFILE: &str = "sim-proof";

/// The folder of builds with faults, in cargo's target folder.
const FAULTS_FOLDER: &str = "sim-faults";

const PROOF_SEEDS: &str = "1000";

pub(crate) fn run(mut arguments: Arguments) -> Result<ExitCode> {
    if arguments.flag("--prove") {
        return prove(arguments);
    }
    let program = build(&workspace::target()?, None)?;
    let status = cargo::status(Command::new(program).args(arguments.forwarded()))?;
    Ok(cargo::exit_code(status))
}

/// A fault as the simulation lists it: its name, and the promises that it breaks.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    name: String,
    promises: String,
}

/// How the hunt for one fault ended.
struct Hunt {
    found: bool,
    /// What the simulation said: the seed and the broken promise, or that there was none.
    said: String,
    seconds: f64,
}

fn prove(mut arguments: Arguments) -> Result<ExitCode> {
    let seeds = arguments.values("--seeds")?.pop().unwrap_or_else(|| PROOF_SEEDS.to_owned());
    let is_brief = arguments.flag("--brief");
    let wanted = arguments.names()?;
    let plain = build(&workspace::target()?, None)?;
    let mut faults = select(list_faults(&plain)?, &wanted)?;
    if is_brief {
        faults = one_of_each_promise(faults);
    }
    println!("without a fault:");
    cargo::run(Command::new(plain).args(["--seeds", &seeds]))
        .context("the simulation fails without any fault, so it proves nothing")?;
    let folder = workspace::target()?.join(FAULTS_FOLDER);
    let mut missed = 0;
    for fault in &faults {
        let hunt = hunt(&folder, fault, &seeds)?;
        missed += usize::from(!hunt.found);
        let outcome = if hunt.found { "found" } else { "MISSED" };
        let Fault { name, promises } = fault;
        println!("{name:<30} {promises:<10} {outcome:<7} {:>6.1} s  {}", hunt.seconds, hunt.said);
    }
    println!("{} of {} faults were found", faults.len() - missed, faults.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list_faults(program: &Path) -> Result<Vec<Fault>> {
    let list = cargo::captured(Command::new(program).arg("--faults"))?;
    let faults: Vec<_> = list.lines().filter_map(read_fault).collect();
    ensure!(!faults.is_empty(), "the simulation lists no faults");
    Ok(faults)
}

fn read_fault(line: &str) -> Option<Fault> {
    let (name, promises) = line.split_once(' ')?;
    Some(Fault { name: name.to_owned(), promises: promises.to_owned() })
}

fn select(all: Vec<Fault>, wanted: &[String]) -> Result<Vec<Fault>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|it| it.name == **name)) {
        return Err(UsageError(format!("there is no fault \"{unknown}\"")).into());
    }
    let is_wanted = |fault: &Fault| wanted.is_empty() || wanted.contains(&fault.name);
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// Keeps the first fault that breaks a promise which none before it breaks.
fn one_of_each_promise(faults: Vec<Fault>) -> Vec<Fault> {
    let mut seen = BTreeSet::new();
    let is_news = |fault: &Fault| {
        let promises: Vec<_> = fault.promises.split('/').map(str::to_owned).collect();
        let is_news = !promises.iter().any(|promise| seen.contains(promise));
        if is_news {
            seen.extend(promises);
        }
        is_news
    };
    faults.into_iter().filter(is_news).collect()
}

fn hunt(folder: &Path, fault: &Fault, seeds: &str) -> Result<Hunt> {
    let began = Instant::now();
    let program = build(folder, Some(&wrapper(folder, &fault.name)?))?;
    let output = Command::new(&program)
        .args(["--hunt", "--seeds", seeds])
        .output()
        .with_context(|| format!("failed to run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let found = output.status.success();
    ensure!(!found || said.starts_with(&fault.name), "the wrong fault was built: {said}");
    let said = said.trim_start_matches(&fault.name).trim().to_owned();
    Ok(Hunt { found, said, seconds: began.elapsed().as_secs_f64() })
}

/// Builds the simulation into this target folder, with this wrapper around the compiler.
fn build(target: &Path, wrapper: Option<&Path>) -> Result<PathBuf> {
    let profile = if wrapper.is_some() { PROOF_PROFILE } else { PROFILE };
    let mut command = cargo::command(&["build", "--quiet", "--profile", profile])?;
    command.args(["--package", PACKAGE, "--target-dir"]).arg(target);
    if let Some(wrapper) = wrapper {
        command.env("RUSTC_WORKSPACE_WRAPPER", wrapper);
    }
    cargo::run(&mut command)?;
    Ok(target.join(profile).join(PACKAGE))
}

/// Writes a program that calls the compiler with the fault. Cargo calls it for our own crates only,
/// and keeps what it makes apart from what any other wrapper makes; with `RUSTFLAGS` every
/// dependency would be built anew for each fault.
fn wrapper(folder: &Path, fault: &str) -> Result<PathBuf> {
    let folder = folder.join("wrappers");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let path = folder.join(fault);
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'drakkar_fault=\"{fault}\"'\n");
    fs::write(&path, script).with_context(|| format!("failed to write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("failed to make {} executable", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_selected() {
        let lines = ["a DL-1", "b RB-1/RB-2", "nonsense"];
        let all = || lines.iter().filter_map(|line| read_fault(line)).collect::<Vec<_>>();
        assert_eq!(all().len(), 2);
        assert_eq!(all()[1].promises, "RB-1/RB-2");
        assert_eq!(select(all(), &[]).expect("all of them").len(), 2);
        let one = select(all(), &["b".to_owned()]).expect("it is there");
        assert_eq!(one.len(), 1);
        assert!(select(all(), &["c".to_owned()]).is_err());
    }

    #[test]
    fn each_promise_has_one_fault_in_a_brief_proof() {
        let lines = ["a DL-1", "b DL-1", "c RB-1", "d RB-1/RB-2", "e RB-2", "f FT-1/FT-2"];
        let all = lines.iter().filter_map(|line| read_fault(line)).collect();
        let names: Vec<_> = one_of_each_promise(all).into_iter().map(|fault| fault.name).collect();
        assert_eq!(names, ["a", "c", "e", "f"]);
    }

    #[test]
    fn a_wrapper_passes_everything_on_and_adds_the_fault() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = wrapper(folder.path(), "some_fault").expect("written");
        let output = Command::new(path).args(["echo", "a b"]).output().expect("a shell is there");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "a b --cfg drakkar_fault=\"some_fault\"\n"
        );
    }
}
