//! `drakkar-bench reference …`: a bare loop as a process of its own, so that the operating system
//! accounts for it as it does for a worker. It ends with its standard input.

use anyhow::{Context, Result, bail};

use super::{consume, spawn};
use crate::program::Program;

/// Runs the loop that the words name. Kafka's address and the topics come in the variables that a
/// worker gets.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["spawn", program, slots] => spawn::run(Program::parse(program)?, number(slots)?),
        ["precomputed", fanout] => {
            consume::run(&consume::Work::Precomputed { fanout: number(fanout)? })
        }
        ["latency", slots] => consume::run(&consume::Work::Spawn { slots: number(slots)? }),
        _ => bail!("unknown reference \"{}\"", words.join(" ")),
    }
}

fn number(word: &str) -> Result<usize> {
    let number = word.parse().ok().filter(|number| *number > 0);
    number.with_context(|| format!("\"{word}\" is no positive number"))
}
