//! A small generator of pseudo-random numbers whose sequence never changes.
//!
//! Regression seeds are kept for years, so the generator is our own: splitmix64, whose output for a
//! seed is fixed by this file and by nothing else. Not for secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts the sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Starts a sequence of its own for the part called `name`, so that one part's draws do not
    /// shift another's.
    pub fn fork(seed: u64, name: &str) -> Self {
        // FNV-1a mixes the name; the first draw then spreads it over all bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mixer = Self::new(seed ^ hash);
        Self::new(mixer.next_u64())
    }

    /// Returns the next number of the sequence.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a 128-bit product: as even as makes no difference here.
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of 128 bits has 64")
    }

    /// Returns a number of the range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let width = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.below(width)
    }

    /// Returns true in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// Returns a time from zero to `longest`, in whole microseconds.
    pub fn duration(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.within(0..=micros))
    }

    /// Returns one of `choices`, or `None` if there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(choices.len() as u64)).ok()?;
        choices.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut random = Random::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        // The published reference values of splitmix64 for this seed.
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn parts_draw_from_sequences_of_their_own() {
        let (mut one, mut two) = (Random::fork(7, "source"), Random::fork(7, "sink"));
        assert_ne!(one.next_u64(), two.next_u64());
        assert_eq!(Random::fork(7, "source").next_u64(), Random::fork(7, "source").next_u64());
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut random = Random::new(3);
        for _ in 0..1000 {
            assert!((5..=9).contains(&random.within(5..=9)));
            assert!(random.duration(Duration::from_millis(2)) <= Duration::from_millis(2));
            assert!(!random.chance(0));
            assert!(random.chance(1000));
        }
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
