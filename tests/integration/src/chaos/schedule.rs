//! When what happens to whom: decided by the seed alone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Kind;
use super::random::Random;

/// A part of the run in which every kind of fault has its turn.
const ROUND: Duration = Duration::from_secs(60);

/// The faults of one round beside the one of the broker.
const OF_A_ROUND: [Kind; 9] = [
    Kind::Kill,
    Kind::Kill,
    Kind::Terminate,
    Kind::Pause,
    Kind::Freeze,
    Kind::Reset,
    Kind::Refuse,
    Kind::Stall,
    Kind::Kill,
];

/// How long the faults of a kind last: from, until, in milliseconds.
fn length(kind: Kind) -> (u64, u64) {
    match kind {
        // From the end of a worker to its next start.
        Kind::Kill | Kind::Terminate => (300, 3_000),
        Kind::Pause => (300, 2_000),
        // A session is 6 s.
        Kind::Freeze => (8_000, 14_000),
        Kind::Refuse | Kind::Stall => (1_000, 12_000),
        Kind::Reset | Kind::BrokerRestart | Kind::BrokerKill => (0, 1),
    }
}

/// One fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    /// Which worker; of no meaning for the broker.
    pub(crate) slot: usize,
    /// When it begins, from the beginning of the run.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
}

/// The faults of a run, in order of time. One worker has one fault at a time.
pub(crate) fn schedule(seed: u64, length_of_run: Duration, workers: usize) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let rounds = (length_of_run.as_secs() / ROUND.as_secs()).max(1);
    let round_ms = millis(length_of_run) / rounds;
    let mut free_from = vec![0_u64; workers];
    let mut planned = Vec::new();
    for round in 0..rounds {
        let mut kinds = Vec::from(OF_A_ROUND);
        kinds.push(if round % 2 == 0 { Kind::BrokerRestart } else { Kind::BrokerKill });
        random.shuffle(&mut kinds);
        let step_ms = round_ms / u64::try_from(kinds.len()).unwrap_or(1);
        for (place, kind) in (0_u64..).zip(kinds) {
            let mut at = round * round_ms + place * step_ms + random.between(0, step_ms);
            let (least, most) = length(kind);
            let lasts = random.between(least, most);
            let slot = free_slot(&free_from, at, &mut random);
            if !kind.is_of_broker() {
                at = at.max(free_from[slot]);
                free_from[slot] = at + lasts + SETTLE_MS;
            }
            let (at, lasts) = (Duration::from_millis(at), Duration::from_millis(lasts));
            planned.push(Planned { kind, slot, at, lasts });
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// How long a worker is left alone after a fault, so that the next one meets it at work.
const SETTLE_MS: u64 = 4_000;

/// A worker that has no fault at that time, or the first to be without.
fn free_slot(free_from: &[u64], at: u64, random: &mut Random) -> usize {
    let mut order: Vec<usize> = (0..free_from.len()).collect();
    random.shuffle(&mut order);
    let free = order.iter().copied().find(|slot| free_from[*slot] <= at);
    free.or_else(|| order.into_iter().min_by_key(|slot| free_from[*slot])).unwrap_or(0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How many faults of each kind there are to be.
pub(crate) fn counts(planned: &[Planned]) -> BTreeMap<Kind, usize> {
    let mut counts = BTreeMap::new();
    for fault in planned {
        *counts.entry(fault.kind).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE_MINUTES: Duration = Duration::from_secs(180);

    #[test]
    fn the_seed_decides_the_schedule() {
        assert_eq!(schedule(5, THREE_MINUTES, 3), schedule(5, THREE_MINUTES, 3));
        assert_ne!(schedule(5, THREE_MINUTES, 3), schedule(6, THREE_MINUTES, 3));
    }

    #[test]
    fn every_kind_has_its_turn_in_every_run_of_two_minutes() {
        for seed in 0..50 {
            let counts = counts(&schedule(seed, Duration::from_secs(120), 3));
            assert!(Kind::ALL.iter().all(|kind| counts.contains_key(kind)), "{counts:?}");
            assert_eq!(counts[&Kind::Kill], 6);
        }
        let minute = counts(&schedule(1, Duration::from_secs(60), 3));
        assert_eq!(minute.values().sum::<usize>(), 10);
        assert!(!minute.contains_key(&Kind::BrokerKill));
    }

    #[test]
    fn a_worker_has_one_fault_at_a_time() {
        for seed in 0..50 {
            let planned = schedule(seed, THREE_MINUTES, 3);
            for slot in 0..3 {
                let of_slot =
                    planned.iter().filter(|it| it.slot == slot && !it.kind.is_of_broker());
                let of_slot: Vec<_> = of_slot.collect();
                let apart = |two: &[&Planned]| two[0].at + two[0].lasts <= two[1].at;
                assert!(of_slot.windows(2).all(apart), "seed {seed}: {of_slot:?}");
            }
            assert!(planned.is_sorted_by_key(|planned| planned.at));
        }
    }

    #[test]
    fn long_stops_outlast_a_session_and_short_ones_do_not() {
        for planned in schedule(9, Duration::from_secs(600), 3) {
            match planned.kind {
                Kind::Freeze => assert!(planned.lasts >= Duration::from_secs(8)),
                Kind::Pause => assert!(planned.lasts < Duration::from_secs(2)),
                _ => {}
            }
        }
    }
}
