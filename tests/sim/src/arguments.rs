//! The command line.

use std::thread;

pub(crate) const HELP: &str = "\
Usage: drakkar-sim [--seeds N] [--from S] [--threads T]
       drakkar-sim --seed S [--trace]
       drakkar-sim --faults
       drakkar-sim --hunt [--seeds N] [--from S] [--threads T]
";

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run seeds.
    Campaign,
    /// Run one seed and tell of it.
    Show { seed: u64, trace: bool },
    /// List the faults that can be planted.
    Faults,
    /// Look for the planted fault.
    Hunt,
}

/// The whole command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    pub(crate) seeds: u64,
    pub(crate) from: u64,
    pub(crate) threads: usize,
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut parsed = Self { command: Command::Campaign, seeds: 2000, from: 0, threads };
        let (mut seed, mut trace) = (None, false);
        let mut words = words;
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
                value.parse().map_err(|_| format!("\"{value}\" is no number"))
            };
            match word.as_str() {
                "--seeds" => parsed.seeds = number()?,
                "--from" => parsed.from = number()?,
                "--threads" => parsed.threads = usize::try_from(number()?).unwrap_or(1).max(1),
                "--seed" => seed = Some(number()?),
                "--trace" => trace = true,
                "--faults" => parsed.command = Command::Faults,
                "--hunt" => parsed.command = Command::Hunt,
                _ => return Err(format!("unknown option \"{word}\"")),
            }
        }
        match seed {
            Some(seed) => parsed.command = Command::Show { seed, trace },
            None if trace => return Err("--trace needs --seed".to_owned()),
            None => {}
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_seed_is_shown_and_many_are_a_campaign() {
        let many = parse("--seeds 5 --from 7 --threads 1").expect("valid");
        let expect = Arguments { command: Command::Campaign, seeds: 5, from: 7, threads: 1 };
        assert_eq!(many, expect);
        let one = parse("--seed 9 --trace").expect("valid");
        assert_eq!(one.command, Command::Show { seed: 9, trace: true });
        for wrong in ["--seed", "--seeds x", "--trace", "seven"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
