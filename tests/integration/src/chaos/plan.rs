//! What the processes of a message do: decided here, written into the message, obeyed by the worker.

use serde_json::json;

use super::random::Random;
use crate::load;

/// How many tasks a message becomes. The first one always succeeds at once, so that a message whose
/// second task takes long or fails has something delivered already.
pub(crate) const FANOUT: u64 = 2;

/// What the second task of a message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plan {
    /// Ends at once.
    Quick,
    /// Takes some time.
    Slow,
    /// Fails the first time it runs anywhere, and succeeds from then on.
    Flaky,
    /// Hangs and is deaf to SIGTERM the first time it runs anywhere, and succeeds from then on.
    Hang,
    /// Fails for ever: the message goes to the dead letters.
    Dead,
}

impl Plan {
    /// The plan of message `n`.
    pub(crate) fn of(seed: u64, n: u64) -> Self {
        match Random::new(seed ^ n.wrapping_mul(0x2545_f491_4f6c_dd1d)).between(0, 100) {
            0..15 => Self::Slow,
            15..20 => Self::Flaky,
            20..22 => Self::Hang,
            22..25 => Self::Dead,
            _ => Self::Quick,
        }
    }

    /// The word for it that the worker knows.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Slow => "slow",
            Self::Flaky => "flaky",
            Self::Hang => "hang",
            Self::Dead => "dead",
        }
    }

    /// Whether its first run leaves a mark behind: the evidence that a child did fail.
    pub(crate) fn leaves_mark(self) -> bool {
        matches!(self, Self::Flaky | Self::Hang)
    }
}

/// The value of message `n`.
pub(crate) fn value(seed: u64, n: u64) -> String {
    json!({ "id": load::key(n), "n": n, "plan": Plan::of(seed, n).word() }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_plan_has_its_share_and_the_seed_decides() {
        let mut counts: BTreeMap<Plan, u32> = BTreeMap::new();
        for n in 0..10_000 {
            assert_eq!(Plan::of(3, n), Plan::of(3, n));
            *counts.entry(Plan::of(3, n)).or_default() += 1;
        }
        let share = |plan| counts[&plan];
        assert!((7_200..7_800).contains(&share(Plan::Quick)), "{counts:?}");
        assert!((150..250).contains(&share(Plan::Hang)), "{counts:?}");
        assert!((240..360).contains(&share(Plan::Dead)), "{counts:?}");
        assert_eq!(counts.len(), 5);
        assert!((0..100).any(|n| Plan::of(3, n) != Plan::of(4, n)));
    }

    #[test]
    fn the_worker_finds_its_orders_in_the_message() {
        let value: serde_json::Value = serde_json::from_str(&value(1, 7)).expect("JSON");
        assert_eq!((value["id"].as_str(), value["n"].as_u64()), (Some("m00000007"), Some(7)));
        assert_eq!(value["plan"].as_str(), Some(Plan::of(1, 7).word()));
    }
}
