//! The pool against programs that mean it ill: whatever they do, each ends in time, the end is told
//! as it was, and nothing of them is left, no process of their group and no descriptor.
//!
//! The program is its own helper, hence no harness: called with `act NAME` it behaves badly (see
//! [`programs`]), called with `work …` it is a worker of its own (see [`worker`]), and else it runs
//! the checks, those whose name holds one of its arguments.
#![expect(clippy::disallowed_methods, reason = "hostile programs sleep, and start others")]
#![expect(clippy::zombie_processes, reason = "and wait for nobody")]

mod checks;
mod programs;
mod worker;

use std::io::Write;
use std::process::ExitCode;

/// One check, which panics when it fails.
type Check = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["act", name, rest @ ..] => return programs::act(name, rest),
        ["work", rest @ ..] => return worker::work(rest),
        _ => {}
    }
    let all = || checks::ALL.iter().chain(worker::ALL);
    if words.contains(&"--list") {
        all().for_each(|(name, _)| say(&format!("{name}: test")));
        return ExitCode::SUCCESS;
    }
    let parts: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(**part));
    let mut passed = 0;
    for (name, check) in all().filter(|(name, _)| wanted(name)) {
        say(&format!("check {name}"));
        check();
        passed += 1;
    }
    say(&format!("{passed} checks passed"));
    ExitCode::SUCCESS
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}
