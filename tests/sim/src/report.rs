//! What is printed.

use crate::campaign::CampaignResult;
use drakkar_sim::{Census, Fault, Outcome, Promise, SITUATIONS};
use std::fmt::Write as _;

/// Writes how often each situation came about.
pub(crate) fn census(census: &Census) -> String {
    let mut text = String::new();
    for situation in SITUATIONS {
        writeln!(text, "{:>10}  {situation}", census.of(situation)).expect("a string takes all");
    }
    text
}

pub(crate) fn summary(result: &CampaignResult) -> String {
    let seconds = result.elapsed.as_secs_f64();
    let rate = result.seeds as f64 / seconds.max(f64::EPSILON);
    format!("{} seeds in {seconds:.1} s, {rate:.1} a second", result.seeds)
}

/// Writes what led to a broken promise, and how to see it again.
pub(crate) fn failure(outcome: &Outcome) -> String {
    let mut text = String::from("the last entries:\n");
    for line in &outcome.lines {
        writeln!(text, "  {line:.400}").expect("a string takes all");
    }
    if let Some(breach) = &outcome.breach {
        writeln!(text, "seed {} broke {breach}", outcome.seed).expect("a string takes all");
    }
    write!(text, "replay it: cargo xtask sim --seed {} --trace", outcome.seed)
        .expect("a string takes all");
    text
}

/// Writes a fault and the promises that it breaks.
pub(crate) fn fault_line(fault: &Fault) -> String {
    let promises: Vec<_> = fault.breaks.iter().map(|promise| Promise::name(*promise)).collect();
    format!("{} {}", fault.name, promises.join("/"))
}
