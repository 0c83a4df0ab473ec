//! Peak memory of children: a right number or none.
//!
//! `ru_maxrss`, which comes with the exit status for nothing, does not start at zero. The child
//! begins its life in the worker's own memory (that is what makes its start cheap), and the
//! kernel carries the worker's peak over. So the figure is the greater of the two, and it is the
//! child's only if it is clearly above the worker's own peak. This is the case that matters: a
//! child that needs less than the worker endangers nothing.
//!
//! With `executor.measure_peak_memory` the kernel is also asked for the peak of a child that has
//! closed its output and is about to exit. This reads a file in `/proc` for each task, and often
//! comes too late: most programs leave the closing to the kernel, which by then has already given
//! back their memory.

use rustix::process::{Pid, getpid};
use std::fs;

/// Tells a child's peak from the worker's.
#[derive(Debug)]
pub(crate) struct PeakMemory {
    /// The worker's own peak as last read. It never shrinks.
    ours: u64,
}

impl PeakMemory {
    pub(crate) fn new() -> Self {
        Self { ours: 0 }
    }

    /// Returns the child's peak in bytes, if `peak_or_ours` is one.
    pub(crate) fn of_child(&mut self, peak_or_ours: u64) -> Option<u64> {
        if peak_or_ours <= clear_of(self.ours) {
            return None;
        }
        self.ours = peak_of(getpid())?;
        (peak_or_ours > clear_of(self.ours)).then_some(peak_or_ours)
    }
}

/// Reads the peak of a process that has not ended, in bytes.
pub(crate) fn peak_of(process: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.as_raw_pid())).ok()?;
    parse_peak(&status)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Adds a distance that the kernel's approximate counters cannot bridge.
fn clear_of(peak: u64) -> u64 {
    const APART: u64 = 32 * 1024 * 1024;
    peak.saturating_add(peak / 8).saturating_add(APART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_peak_of_a_status_page() {
        let status = "Name:\tcat\nVmPeak:\t    5000 kB\nVmHWM:\t    1536 kB\nVmRSS:\t 900 kB\n";
        assert_eq!(parse_peak(status), Some(1536 * 1024));
        assert_eq!(parse_peak("Name:\tzombie\nState:\tZ (zombie)\n"), None);
        assert!(peak_of(getpid()).is_some_and(|peak| peak > 100 * 1024));
    }

    #[test]
    fn a_figure_that_may_be_ours_is_none() {
        let ours = peak_of(getpid()).expect("we run");
        let mut subject = PeakMemory::new();
        assert_eq!(subject.of_child(0), None);
        assert_eq!(subject.of_child(ours), None);
        let clearly_more = 4 * ours + (1 << 30);
        assert_eq!(subject.of_child(clearly_more), Some(clearly_more));
    }
}
