//! `drakkar-chaos`: one run under faults; `cargo xtask chaos` starts it.

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use drakkar_integration::chaos::{Arguments, run};

fn main() -> ExitCode {
    let verdict = Arguments::read(std::env::args().skip(1)).and_then(|arguments| run(&arguments));
    match verdict {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Standard error may be gone; the exit code still tells.
            writeln!(stderr(), "error: no verdict: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}
