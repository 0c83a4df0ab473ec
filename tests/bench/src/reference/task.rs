//! One task, as a blocking program would run it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::program::Program;

/// Runs the program in a process group of its own with `value` on its standard input (`cat`) or
/// with none (`true`), reads both its pipes to their ends and waits. Gives the length of its
/// output.
pub(crate) fn run(program: Program, value: &str) -> Result<usize> {
    let mut command = Command::new(program.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    match program {
        Program::True => command.stdin(Stdio::null()),
        Program::Cat => command.stdin(Stdio::piped()),
    };
    let mut child = command.spawn().context("failed to spawn")?;
    if let Some(mut stdin) = child.stdin.take() {
        // It fits into the pipe, so that this cannot wait for a reader.
        stdin.write_all(value.as_bytes()).context("failed to write to a child")?;
    }
    let output = child.wait_with_output().context("failed to wait for a child")?;
    ensure!(output.status.success(), "a child ended with {}", output.status);
    ensure!(output.stderr.is_empty(), "a child complained");
    ensure!(output.stdout.len() == program.stdout_len(value.len()), "a child said something else");
    Ok(output.stdout.len())
}
