//! The command line.

use anyhow::{Result, bail};

use crate::row::{self, Row};

pub(crate) const HELP: &str = "\
Measures a worker against bare loops on the same real Kafka.

Usage: drakkar-bench [--json] [--quick] [--list] [row..]

  --json   print one JSON object per row instead of a table
  --quick  2 pairs of 8 s instead of 5 pairs of 30 s
  --list   print the rows and their floors, and measure nothing
  row..    measure only these

Environment:
  DRAKKAR_BENCH_KAFKA   host:port of a broker on this machine
  DRAKKAR_BENCH_WORKER  path of the worker to measure

Exit codes: 0 every row measured and every floor met, 1 a row could not be measured (or a mistake in
the command line), 2 every row measured but a floor missed.
";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) list: bool,
    pub(crate) help: bool,
    /// In the order of the table, whatever the order on the command line; all if none was named.
    pub(crate) rows: Vec<&'static Row>,
}

impl Arguments {
    /// Reads the words after the program's name. A word that means nothing is an error.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut arguments = Self::default();
        let mut names: Vec<&str> = Vec::new();
        for word in words {
            match word.as_str() {
                "--json" => arguments.json = true,
                "--quick" => arguments.quick = true,
                "--list" => arguments.list = true,
                "--help" | "-h" => arguments.help = true,
                option if option.starts_with('-') => bail!("unknown option \"{option}\""),
                name => names.push(name),
            }
        }
        if let Some(unknown) =
            names.iter().find(|name| row::ROWS.iter().all(|row| row.name != **name))
        {
            bail!("unknown row \"{unknown}\": --list shows them");
        }
        let is_asked_for = |row: &&Row| names.is_empty() || names.contains(&row.name);
        arguments.rows = row::ROWS.iter().filter(is_asked_for).collect();
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn no_name_means_every_row() {
        let arguments = parse("--quick").expect("a known option");
        assert_eq!(arguments.rows.len(), row::ROWS.len());
        assert!(arguments.quick && !arguments.json && !arguments.list);
    }

    #[test]
    fn names_are_taken_in_the_order_of_the_table() {
        let arguments = parse("idle_mib --json spawn_true_4").expect("known names");
        let names: Vec<&str> = arguments.rows.iter().map(|row| row.name).collect();
        assert_eq!(names, ["spawn_true_4", "idle_mib"]);
        assert!(arguments.json);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for line in ["--fast", "spawn_true_5", "spawn_true_4 nothing"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
