//! What is printed, and with which code the program ends.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::row::{Measured, ROWS, Row};

/// A row could not be measured, or there was nothing to measure with.
pub(crate) const COULD_NOT_MEASURE: u8 = 1;

/// Every row was measured, and at least one misses its floor.
pub(crate) const FLOOR_MISSED: u8 = 2;

/// Collects what the exit code depends on.
#[derive(Debug, Default)]
pub(crate) struct Report {
    json: bool,
    failed: Vec<&'static str>,
    missed: Vec<&'static str>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, ..Self::default() }
    }

    /// Prints a row at once, so that a run that is broken off leaves what it had.
    pub(crate) fn measured(&mut self, row: &Row, measured: &Measured) -> Result<()> {
        let verdict = verdict(row, measured);
        if row.floor.is_some_and(|floor| !floor.is_met_by(measured)) {
            self.missed.push(row.name);
        }
        if self.json {
            println!("{}", serde_json::to_string(&rounded(measured)).context("a row in JSON")?);
            eprintln!("{}: {verdict}", row.name);
        } else {
            println!("{} {verdict}", cells(measured));
        }
        Ok(())
    }

    pub(crate) fn failed(&mut self, row: &Row, error: &anyhow::Error) {
        self.failed.push(row.name);
        eprintln!("{}: could not be measured: {error:#}", row.name);
    }

    /// Sums up and gives the exit code.
    pub(crate) fn close(&self) -> u8 {
        let list = |what, names: &[&str]| {
            if !names.is_empty() {
                eprintln!("{what}: {}", names.join(", "));
            }
        };
        list("could not be measured", &self.failed);
        list("floor missed", &self.missed);
        match (self.failed.is_empty(), self.missed.is_empty()) {
            (false, _) => COULD_NOT_MEASURE,
            (true, false) => FLOOR_MISSED,
            (true, true) => 0,
        }
    }
}

/// The rows and their floors, for `--list`.
pub(crate) fn list() -> String {
    let mut list = String::new();
    for row in &ROWS {
        let floor = row.floor.map_or_else(|| "no floor".to_owned(), |floor| floor.to_string());
        writeln!(list, "{:<24} {:<10} {floor}", row.name, row.unit)
            .expect("a string takes everything");
    }
    list
}

/// The head of the table.
pub(crate) fn head() -> String {
    format!("{:<24} {:>12} {:>12} {:>8}  {:<10} floor", "row", "ours", "reference", "ratio", "unit")
}

fn cells(row: &Measured) -> String {
    let cell = |value: Option<f64>, digits| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let Measured { name, unit, ours, reference, ratio } = row;
    let (ours, reference, ratio) = (cell(Some(*ours), 1), cell(*reference, 1), cell(*ratio, 3));
    format!("{name:<24} {ours:>12} {reference:>12} {ratio:>8}  {unit:<10}")
}

fn verdict(row: &Row, measured: &Measured) -> String {
    match row.floor {
        None => "no floor".to_owned(),
        Some(floor) if floor.is_met_by(measured) => format!("met: {floor}"),
        Some(floor) => format!("MISSED: {floor}"),
    }
}

/// Digits beyond the fourth after the point are noise.
fn rounded(row: &Measured) -> Measured {
    let round = |value: f64| (value * 1e4).round() / 1e4;
    Measured {
        name: row.name,
        unit: row.unit,
        ours: round(row.ours),
        reference: row.reference.map(round),
        ratio: row.ratio.map(round),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).expect("is in the table")
    }

    fn measured(row: &Row, ratio: f64) -> Measured {
        let (name, unit) = (row.name, row.unit);
        Measured { name, unit, ours: 1.0, reference: Some(1.0), ratio: Some(ratio) }
    }

    fn exit_code(ratio: f64, fails: bool) -> u8 {
        let (row, mut report) = (find("spawn_true_4"), Report::default());
        report.measured(row, &measured(row, ratio)).expect("is printed");
        if fails {
            report.failed(find("idle_mib"), &anyhow::anyhow!("no broker"));
        }
        report.close()
    }

    #[test]
    fn a_failure_weighs_more_than_a_missed_floor() {
        assert_eq!(exit_code(0.9, false), 0);
        assert_eq!(exit_code(0.6, false), FLOOR_MISSED);
        assert_eq!(exit_code(0.9, true), COULD_NOT_MEASURE);
        assert_eq!(exit_code(0.6, true), COULD_NOT_MEASURE);
    }

    #[test]
    fn the_verdict_names_the_floor() {
        let row = find("spawn_true_4");
        assert_eq!(verdict(row, &measured(row, 0.8)), "met: ratio >= 0.80");
        assert_eq!(verdict(row, &measured(row, 0.1)), "MISSED: ratio >= 0.80");
        assert_eq!(verdict(find("start_ready_ms"), &measured(row, 0.1)), "no floor");
    }

    #[test]
    fn cells_stand_under_their_heads() {
        let row =
            Measured { name: "idle_mib", unit: "MiB", ours: 12.34, reference: None, ratio: None };
        let (head, cells) = (head(), cells(&row));
        assert_eq!(head.find("floor"), Some(cells.len() + 1));
        assert!(cells.contains("12.3") && cells.contains(" - "));
    }

    #[test]
    fn every_row_is_listed() {
        let list = list();
        assert!(ROWS.iter().all(|row| list.contains(row.name)));
        assert!(list.contains(" ours <= 2, ratio <= 1.50\n"), "a floor of two bounds shows both");
    }
}
