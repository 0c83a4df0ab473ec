//! Assignments that a worker lost when its connections were reset, by its own log.
//!
//! A reset is made good at once, as a rule. But in the middle of a rebalance the group can move on while
//! the client connects anew; its next request is then of an older generation, and it loses what it had.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::fault::{Fault, Kind};

/// How long after a reset a loss is taken for one of its effects: the client's next heartbeat or commit
/// tells it of the group.
const AFTER_RESET_MS: i64 = 5_000;

/// Notes the losses that followed a reset of the connections of their worker.
pub(super) fn note(faults: &mut [Fault], logs: &Path) -> Result<()> {
    for reset in faults.iter_mut().filter(|fault| fault.kind == Kind::Reset) {
        let Some(worker) = &reset.worker else { continue };
        let path = logs.join(format!("{worker}.log"));
        let log = fs::read_to_string(&path);
        let log = log.with_context(|| format!("failed to read {}", path.display()))?;
        let during = reset.from..=reset.until + AFTER_RESET_MS;
        reset.lost_at = log.lines().filter_map(lost_at).find(|at| during.contains(at));
    }
    Ok(())
}

/// Reads when a line says that partitions were lost, if it does.
fn lost_at(line: &str) -> Option<i64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["event"] != "partitions_lost" {
        return None;
    }
    milliseconds(line["timestamp"].as_str()?)
}

/// Reads a time such as `2026-11-27T20:17:23.378718Z`, in milliseconds since 1970.
fn milliseconds(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| {
        let all: Option<Vec<i64>> = text.split(by).map(|part| part.parse().ok()).collect();
        all.filter(|all| all.len() == 3)
    };
    let date = numbers(date, '-')?;
    let (whole, fraction) = time.split_once('.')?;
    let time = numbers(whole, ':')?;
    let fraction: i64 = fraction.get(..3)?.parse().ok()?;
    let seconds = (days(date[0], date[1], date[2]) * 24 + time[0]) * 3600 + time[1] * 60 + time[2];
    Some(seconds * 1000 + fraction)
}

/// Returns the days from 1970 to a date, by years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let days_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + days_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(milliseconds("1970-01-01T00:00:00.000000Z"), Some(0));
        assert_eq!(milliseconds("2026-11-27T20:17:23.378718Z"), Some(1_795_810_643_378));
        assert_eq!(milliseconds("2024-02-29T23:59:59.999000Z"), Some(1_709_251_199_999));
        assert_eq!(milliseconds("yesterday"), None);
    }

    #[test]
    fn only_a_loss_soon_after_a_reset_of_its_worker_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let line = |event: &str| {
            format!("{{\"event\":\"{event}\",\"timestamp\":\"2026-11-27T20:17:23.378718Z\"}}\n")
        };
        let log = format!("no JSON\n{}{}", line("partition_lost"), line("partitions_lost"));
        fs::write(folder.path().join("w0-1.log"), log).expect("written");
        fs::write(folder.path().join("w1-1.log"), line("drakkar_starting")).expect("written");
        let at = 1_795_810_643_378;
        let noted = |kind, worker: &str, from| {
            let worker = Some(worker.to_owned());
            let mut faults = [Fault { kind, worker, from, until: from, lost_at: None }];
            note(&mut faults, folder.path()).map(|()| faults[0].lost_at)
        };
        let lost_at = |kind, worker: &str, from| noted(kind, worker, from).expect("there is a log");
        assert_eq!(lost_at(Kind::Reset, "w0-1", at - 80), Some(at));
        assert_eq!(lost_at(Kind::Reset, "w0-1", at + 1), None, "it came before");
        assert_eq!(lost_at(Kind::Reset, "w0-1", at - AFTER_RESET_MS - 1), None, "too late");
        assert_eq!(lost_at(Kind::Reset, "w1-1", at - 80), None, "it lost nothing");
        assert_eq!(lost_at(Kind::Terminate, "w0-1", at - 80), None, "no reset");
        assert!(noted(Kind::Reset, "w9-9", at).is_err(), "there is no log");
    }
}
