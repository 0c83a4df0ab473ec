//! The memory of a process over time, and what it means for it to be flat.

use std::fmt;
use std::fs;

use anyhow::{Context, Result, ensure};

const MIB: u64 = 1 << 20;

/// The memory of a process at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// What is resident now.
    pub resident: u64,
    /// The most that ever was.
    pub peak: u64,
}

impl Footprint {
    /// Asks the kernel.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&status)
    }

    fn parse(status: &str) -> Result<Self> {
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let line = line.with_context(|| format!("no {name} in the status of a process"))?;
            let kib = line.trim().trim_end_matches(" kB").parse::<u64>();
            Ok(kib.with_context(|| format!("{name}{line}"))? * 1024)
        };
        Ok(Self { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

/// The footprints of one process, in order.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    samples: Vec<Footprint>,
}

impl Curve {
    /// Adds the next one.
    pub fn add(&mut self, sample: Footprint) {
        self.samples.push(sample);
    }

    /// Checks that it is flat: the most that was resident in the second half is at most `slack` above
    /// the most of the first, and the peak is below `limit`.
    ///
    /// # Errors
    ///
    /// It is not, or there are too few samples to tell.
    pub fn ensure_flat(&self, slack: u64, limit: u64) -> Result<()> {
        ensure!(self.samples.len() >= 20, "{} samples tell nothing", self.samples.len());
        let (first, second) = self.halves();
        ensure!(
            second <= first + slack,
            "it grew by more than {} MiB from one half to the other: {self}",
            slack / MIB
        );
        ensure!(self.peak() <= limit, "it took more than {} MiB: {self}", limit / MIB);
        Ok(())
    }

    /// The most of the first half, and of the second.
    fn halves(&self) -> (u64, u64) {
        let (first, second) = self.samples.split_at(self.samples.len() / 2);
        let most = |half: &[Footprint]| half.iter().map(|it| it.resident).max().unwrap_or(0);
        (most(first), most(second))
    }

    fn peak(&self) -> u64 {
        self.samples.iter().map(|it| it.peak).max().unwrap_or(0)
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.halves();
        let last = self.samples.last().map_or(0, |it| it.resident);
        write!(
            f,
            "at most {} MiB in the first half, {} MiB in the second, {} MiB at the end, a peak of {} MiB",
            first / MIB,
            second / MIB,
            last / MIB,
            self.peak() / MIB
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(mib: impl IntoIterator<Item = u64>) -> Curve {
        let mut curve = Curve::default();
        let mut peak = 0;
        for mib in mib {
            let resident = mib * MIB;
            peak = peak.max(resident);
            curve.add(Footprint { resident, peak });
        }
        curve
    }

    #[test]
    fn the_status_of_a_process_is_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        let expect = Footprint { resident: MIB, peak: 2 * MIB };
        assert_eq!(Footprint::parse(status).expect("both are there"), expect);
        assert!(Footprint::parse("Name:\tx\n").is_err());
        assert!(Footprint::of(std::process::id()).expect("it runs").resident > 0);
    }

    #[test]
    fn what_goes_up_and_down_is_flat_and_what_climbs_is_not() {
        let saw = curve((0..40).map(|n| 50 + n % 10));
        saw.ensure_flat(MIB, 60 * MIB).expect("it is flat");
        assert!(saw.ensure_flat(MIB, 58 * MIB).is_err(), "it is too much");
        let climb = curve(0..40);
        assert!(climb.ensure_flat(19 * MIB, 60 * MIB).is_err());
        climb.ensure_flat(20 * MIB, 60 * MIB).expect("so much is allowed");
    }

    #[test]
    fn a_peak_between_two_looks_counts() {
        let mut curve = curve([10; 40]);
        curve.add(Footprint { resident: 10 * MIB, peak: 90 * MIB });
        let error = curve.ensure_flat(MIB, 50 * MIB).expect_err("it took 90");
        assert!(error.to_string().starts_with("it took more than 50 MiB"), "{error}");
    }

    #[test]
    fn few_samples_tell_nothing() {
        assert!(curve([1; 19]).ensure_flat(MIB, MIB).is_err());
    }
}
