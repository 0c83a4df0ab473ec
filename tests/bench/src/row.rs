//! The rows: what is printed, and which run gives it.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::figures::{Figure, Pair};
use crate::floor::Floor;
use crate::program::Program;
use crate::statistics::{median, ratio};

/// Runs that give several rows at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Spawn { program: Program, slots: usize },
    Precomputed { fanout: usize },
    Latency,
    Idle,
    BlockedHead,
}

/// What is divided by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ratio {
    OursOverReference,
    ReferenceOverOurs,
}

/// One row before it is measured.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) group: Group,
    pub(crate) figure: Figure,
    pub(crate) ratio: Ratio,
    pub(crate) floor: Option<Floor>,
}

/// One row after it was measured: what `--json` prints. `reference` and `ratio` are null where there
/// is nothing to compare with.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) reference: Option<f64>,
    pub(crate) ratio: Option<f64>,
}

impl Row {
    /// Sums the pairs up. The ratio is the median of the pairs' own ratios, since only the two runs
    /// of one pair had the same neighbours; it need not be `ours` over `reference`.
    pub(crate) fn measured(&self, pairs: &[Pair]) -> Result<Measured> {
        self.summed_up(pairs).with_context(|| format!("failed to sum \"{}\" up", self.name))
    }

    fn summed_up(&self, pairs: &[Pair]) -> Result<Measured> {
        let (mut ours, mut references, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in pairs {
            let our = pair.ours.get(self.figure)?;
            ours.push(our);
            let Some(reference) = &pair.reference else { continue };
            let reference = reference.get(self.figure)?;
            references.push(reference);
            ratios.push(match self.ratio {
                Ratio::OursOverReference => ratio(our, reference)?,
                Ratio::ReferenceOverOurs => ratio(reference, our)?,
            });
        }
        let median_of = |values: &[f64]| (!values.is_empty()).then(|| median(values)).transpose();
        Ok(Measured {
            name: self.name,
            unit: self.unit,
            ours: median(&ours)?,
            reference: median_of(&references)?,
            ratio: median_of(&ratios)?,
        })
    }
}

const TRUE_1: Group = Group::Spawn { program: Program::True, slots: 1 };
const TRUE_4: Group = Group::Spawn { program: Program::True, slots: 4 };
const TRUE_16: Group = Group::Spawn { program: Program::True, slots: 16 };
const CAT_1: Group = Group::Spawn { program: Program::Cat, slots: 1 };
const CAT_4: Group = Group::Spawn { program: Program::Cat, slots: 4 };
const CAT_16: Group = Group::Spawn { program: Program::Cat, slots: 16 };

/// Every row, in the order in which they are printed. Rows of one group stand together.
pub(crate) static ROWS: [Row; 19] = [
    wall("spawn_true_1", TRUE_1, 0.70),
    wall("spawn_true_4", TRUE_4, 0.80),
    cpu("spawn_true_4_cpu", TRUE_4),
    row("worker_cpu_per_task_us", "us", TRUE_4, Figure::OwnCpuMicrosPerTask)
        .floor(Floor::OursAtMost(120.0)),
    row("peak_mib", "MiB", TRUE_4, Figure::PeakMib).floor(Floor::OursAtMost(40.0)),
    wall("spawn_true_16", TRUE_16, 0.80),
    cpu("spawn_true_16_cpu", TRUE_16),
    wall("spawn_cat_1", CAT_1, 0.70),
    wall("spawn_cat_4", CAT_4, 0.80),
    cpu("spawn_cat_4_cpu", CAT_4),
    wall("spawn_cat_16", CAT_16, 0.80),
    cpu("spawn_cat_16_cpu", CAT_16),
    messages("pre_messages", 1),
    messages("pre_fanout10", 10),
    row("latency_p50", "ms", Group::Latency, Figure::LatencyMillis(50))
        .floor(Floor::RatioAtMost(1.5)),
    row("latency_p99", "ms", Group::Latency, Figure::LatencyMillis(99))
        .floor(Floor::RatioAtMost(2.0)),
    row("idle_mib", "MiB", Group::Idle, Figure::IdleMib).floor(Floor::OursAtMost(20.0)),
    row("start_ready_ms", "ms", Group::Idle, Figure::StartReadyMillis),
    row("blocked_head", "s", Group::BlockedHead, Figure::Seconds)
        .floor(Floor::BothAtMost { ours: 2.0, ratio: 1.5 }),
];

const fn row(name: &'static str, unit: &'static str, group: Group, figure: Figure) -> Row {
    Row { name, unit, group, figure, ratio: Ratio::OursOverReference, floor: None }
}

const fn wall(name: &'static str, group: Group, floor: f64) -> Row {
    row(name, "tasks/s", group, Figure::TasksPerSecond).floor(Floor::RatioAtLeast(floor))
}

/// The only ratio that is turned round, so that here too more is better.
const fn cpu(name: &'static str, group: Group) -> Row {
    let row = row(name, "us/task", group, Figure::CpuMicrosPerTask);
    Row { ratio: Ratio::ReferenceOverOurs, ..row }.floor(Floor::RatioAtLeast(0.92))
}

const fn messages(name: &'static str, fanout: usize) -> Row {
    row(name, "messages/s", Group::Precomputed { fanout }, Figure::MessagesPerSecond)
        .floor(Floor::RatioAtLeast(0.35))
}

impl Row {
    const fn floor(self, floor: Floor) -> Self {
        Self { floor: Some(floor), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;

    fn pair(ours: f64, reference: Option<f64>) -> Pair {
        let figures = |value| {
            Figures::default()
                .with(Figure::TasksPerSecond, value)
                .with(Figure::CpuMicrosPerTask, value)
        };
        Pair { ours: figures(ours), reference: reference.map(figures) }
    }

    fn find(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).expect("is in the table")
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs() {
        let pairs = [pair(10.0, Some(20.0)), pair(30.0, Some(30.0)), pair(40.0, Some(50.0))];
        let measured = find("spawn_true_4").measured(&pairs).expect("was measured");
        assert_eq!((measured.ours, measured.reference), (30.0, Some(30.0)));
        assert_eq!(measured.ratio, Some(0.8));
    }

    #[test]
    fn the_ratio_of_cpu_is_turned_round() {
        let measured = find("spawn_true_4_cpu").measured(&[pair(10.0, Some(9.0))]);
        assert_eq!(measured.expect("was measured").ratio, Some(0.9));
    }

    #[test]
    fn without_a_reference_there_is_no_ratio() {
        let measured = find("spawn_true_4").measured(&[pair(10.0, None)]).expect("was measured");
        assert_eq!((measured.reference, measured.ratio), (None, None));
    }

    #[test]
    fn a_blocked_head_makes_no_completion_dearer() {
        let floor = find("blocked_head").floor.expect("has a floor");
        let check = |seconds, ratio, expect| {
            let (name, unit, reference) = ("blocked_head", "s", Some(seconds / ratio));
            let row = Measured { name, unit, ours: seconds, reference, ratio: Some(ratio) };
            assert_eq!(floor.is_met_by(&row), expect, "{floor} of {row:?}");
        };
        check(0.7, 1.05, true);
        check(0.7, 10.0, false);
        check(2.1, 1.05, false);
    }

    #[test]
    fn what_was_not_measured_is_an_error() {
        assert!(find("spawn_true_4").measured(&[]).is_err());
        assert!(find("peak_mib").measured(&[pair(1.0, Some(1.0))]).is_err());
        assert!(find("spawn_true_4").measured(&[pair(1.0, Some(0.0))]).is_err());
    }

    #[test]
    fn json_has_these_fields() {
        let measured =
            Measured { name: "idle_mib", unit: "MiB", ours: 12.5, reference: None, ratio: None };
        assert_eq!(
            serde_json::to_string(&measured).expect("is JSON"),
            r#"{"name":"idle_mib","unit":"MiB","ours":12.5,"reference":null,"ratio":null}"#
        );
    }

    #[test]
    fn names_are_unique_and_groups_stand_together() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            let earlier = ROWS[..index].iter().rposition(|other| other.group == row.group);
            assert!(earlier.is_none_or(|at| at + 1 == index), "{} stands apart", row.name);
        }
    }
}
