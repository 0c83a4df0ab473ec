//! What a run is to be like.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

/// The words of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// How long faults are made.
    pub minutes: u64,
    /// What decides the schedule and what children do.
    pub seed: u64,
    /// How many workers share the source.
    pub workers: usize,
    /// `classic` or `consumer`.
    pub protocol: String,
    /// What the workers do wrong: `none`, `drop` or `repeat`. A run with a broken worker must be
    /// rejected.
    pub sabotage: String,
}

impl Arguments {
    /// Reads the words; without a seed it is drawn from the clock.
    ///
    /// # Errors
    ///
    /// A word is unknown, or a value does not fit.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = Self {
            minutes: 3,
            seed: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
            workers: 3,
            protocol: "classic".to_owned(),
            sabotage: "none".to_owned(),
        };
        let mut words = words.flat_map(|word| match word.split_once('=') {
            Some((name, value)) => vec![name.to_owned(), value.to_owned()],
            None => vec![word],
        });
        while let Some(name) = words.next() {
            let value = words.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--minutes" => arguments.minutes = number(&name, &value)?,
                "--seed" => arguments.seed = number(&name, &value)?,
                "--workers" => arguments.workers = number(&name, &value)?,
                "--protocol" => arguments.protocol = value,
                "--sabotage" => arguments.sabotage = value,
                _ => bail!("unknown option \"{name}\""),
            }
        }
        arguments.check()?;
        Ok(arguments)
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=24 * 60).contains(&self.minutes), "--minutes must be from 1 to 1440");
        ensure!((2..=16).contains(&self.workers), "--workers must be from 2 to 16");
        let protocols = ["classic", "consumer"];
        ensure!(protocols.contains(&self.protocol.as_str()), "--protocol is classic or consumer");
        let sabotages = ["none", "drop", "repeat"];
        ensure!(sabotages.contains(&self.sabotage.as_str()), "--sabotage is none, drop or repeat");
        Ok(())
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.minutes * 60)
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("{name} needs a number, found \"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments> {
        Arguments::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn words_are_read_in_any_order_and_form() {
        let arguments = read("--seed 7 --minutes=10 --protocol consumer").expect("valid");
        assert_eq!((arguments.seed, arguments.minutes, arguments.workers), (7, 10, 3));
        assert_eq!(arguments.length(), Duration::from_secs(600));
        assert_eq!(
            (arguments.protocol.as_str(), arguments.sabotage.as_str()),
            ("consumer", "none")
        );
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for line in [
            "--minutes",
            "--minutes x",
            "--minutes 0",
            "--workers 1",
            "--protocol new",
            "--sabotage all",
            "--sead 7",
            "7",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
