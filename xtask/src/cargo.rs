//! Running cargo.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::workspace;

/// Prepares a cargo command at the workspace root, with the cargo that runs xtask.
pub(crate) fn command(arguments: &[&str]) -> Result<Command> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace::root()?);
    Ok(command)
}

/// Reads `cargo metadata --no-deps` into the fields that the caller cares about.
pub(crate) fn metadata<T: DeserializeOwned>() -> Result<T> {
    let json = output(&["metadata", "--no-deps", "--format-version", "1"])?;
    serde_json::from_str(&json).context("failed to read the output of cargo metadata")
}

/// Runs cargo and gives its standard output; its standard error stays visible.
pub(crate) fn output(arguments: &[&str]) -> Result<String> {
    captured(&mut command(arguments)?)
}

/// Runs a prepared command and gives its standard output; its standard error stays visible.
pub(crate) fn captured(command: &mut Command) -> Result<String> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("failed to run {}", shown(command)))?;
    ensure!(output.status.success(), "{}: {}", shown(command), output.status);
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} did not print UTF-8", shown(command)))
}

/// Runs a prepared command with its output visible and gives its exit status.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("failed to run {}", shown(command)))
}

/// Runs a prepared command with its output visible; ending in failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    ensure!(status.success(), "{}: {status}", shown(command));
    Ok(())
}

/// Hands a child's exit status on, as a shell would.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let by_signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(by_signal).and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
