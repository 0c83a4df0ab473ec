//! Which faults a simulated world has, drawn from one seed.

use crate::Random;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Faults for one run of a test: a seed, how often each kind of fault strikes, and a switch that
/// ends them all.
///
/// Clones share the switch. A test runs a safety phase under faults, calls
/// [`heal`](FaultPlan::heal), and then expects everything to drain. `Display` is what a failing test
/// should print.
#[derive(Clone, Debug)]
pub struct FaultPlan {
    seed: u64,
    rates: FaultRates,
    healed: Arc<AtomicBool>,
}

/// How often each fault strikes, in thousandths, and how long things take.
///
/// Every fault in this list must be survivable: nothing may be lost whatever the rates are. Only
/// [`deliver_rejected`](Self::deliver_rejected) and [`task_fails`](Self::task_fails) may lead to dead
/// letters when retries do not help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// An item of a batch is not applied, and the sink says so.
    pub deliver_not_applied: u16,
    /// The sink cannot say whether an item was applied; in half of the cases it was.
    pub deliver_unknown: u16,
    /// An item is rejected.
    pub deliver_rejected: u16,
    /// A call of `deliver` takes longer than any deadline.
    pub deliver_hangs: u16,
    /// The longest time that a call of `deliver` takes.
    pub deliver_longest: Duration,
    /// An attempt of a task ends with exit code 1.
    pub task_fails: u16,
    /// An attempt of a task lasts until its deadline.
    pub task_hangs: u16,
    /// The longest time that a task takes.
    pub task_longest: Duration,
    /// A commit is refused and nothing is stored.
    pub commit_fails: u16,
    /// The longest time until a commit is answered.
    pub commit_longest: Duration,
}

impl FaultRates {
    /// Returns rates that make every kind of fault happen in a run of a few hundred messages.
    pub const fn rough() -> Self {
        Self {
            deliver_not_applied: 50,
            deliver_unknown: 30,
            deliver_rejected: 5,
            deliver_hangs: 10,
            deliver_longest: Duration::from_millis(200),
            task_fails: 30,
            task_hangs: 5,
            task_longest: Duration::from_millis(500),
            commit_fails: 100,
            commit_longest: Duration::from_millis(300),
        }
    }
}

impl FaultPlan {
    /// Makes a plan without faults.
    pub fn none() -> Self {
        Self::new(0, FaultRates::default())
    }

    /// Makes the plan of `seed`.
    pub fn new(seed: u64, rates: FaultRates) -> Self {
        Self { seed, rates, healed: Arc::default() }
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the rates in force: all zero once healed.
    pub fn rates(&self) -> FaultRates {
        if self.is_healed() { FaultRates::default() } else { self.rates }
    }

    /// Ends all faults for good.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// Returns whether the faults have ended.
    pub fn is_healed(&self) -> bool {
        self.healed.load(Ordering::SeqCst)
    }

    /// Returns the random sequence of the part called `name`.
    pub fn random(&self, name: &str) -> Random {
        Random::fork(self.seed, name)
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} with {:?}", self.seed, self.rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healing_reaches_every_clone() {
        let plan = FaultPlan::new(9, FaultRates::rough());
        let copy = plan.clone();
        assert_eq!(copy.rates(), FaultRates::rough());
        plan.heal();
        assert_eq!(copy.rates(), FaultRates::default());
        assert!(copy.to_string().starts_with("seed 9 with"));
    }
}
