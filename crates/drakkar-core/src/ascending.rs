//! A map whose keys only ever come in ascending order, as offsets and drawn numbers do.
//!
//! A queue of entries: a removed one stays as a gap until it reaches the front or most entries are
//! gaps. A key is looked for where it is if none is missing before it, which takes one comparison,
//! and by bisection otherwise. So a look-up takes constant time where keys are dense and O(log n)
//! where they are not; inserting and removing take constant time, amortised. A gap takes as much
//! memory as an entry, so large values should be boxed.

use drakkar_api::{Offset, WindowId};
use std::collections::VecDeque;
use std::ops::Index;

/// What may be a key.
pub(crate) trait Key: Copy + Ord {
    /// Returns how far above `first` this one is; `None` if it is below, or farther than a place in
    /// memory can be.
    fn steps_from(self, first: Self) -> Option<usize>;
}

/// The map.
#[derive(Debug)]
pub(crate) struct AscendingMap<K, V> {
    /// Ascending; the first one, if there is any, is no gap.
    entries: VecDeque<(K, Option<V>)>,
    len: usize,
}

impl<K: Key, V> AscendingMap<K, V> {
    /// From here on the gaps are removed when they are most of the entries.
    const GAPS_MIN: usize = 64;

    pub(crate) fn new() -> Self {
        Self { entries: VecDeque::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry.
    ///
    /// # Panics
    ///
    /// When `key` is not above all keys before it.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let last = self.entries.back().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < key), "keys come in ascending order");
        self.entries.push_back((key, Some(value)));
        self.len += 1;
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries[self.find(*key)?].1.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(*key)?;
        self.entries[at].1.as_mut()
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(*key)?;
        let value = self.entries[at].1.take()?;
        self.len -= 1;
        while self.entries.front().is_some_and(|(_, value)| value.is_none()) {
            self.entries.pop_front();
        }
        if self.entries.len() > Self::GAPS_MIN && self.entries.len() > self.len * 4 {
            self.entries.retain(|(_, value)| value.is_some());
        }
        Some(value)
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.len = 0;
    }

    /// Keeps only the entries that `stays` is true of.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&K, &V) -> bool) {
        self.entries.retain(|(key, value)| value.as_ref().is_some_and(|value| stays(key, value)));
        self.len = self.entries.len();
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().filter_map(|(key, value)| Some((&*key, value.as_mut()?)))
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }

    /// Finds the place of a key, which may be a gap.
    fn find(&self, key: K) -> Option<usize> {
        let (first, _) = self.entries.front()?;
        let dense = key.steps_from(*first)?;
        if self.entries.get(dense).is_some_and(|(found, _)| *found == key) {
            return Some(dense);
        }
        self.entries.binary_search_by_key(&key, |(key, _)| *key).ok()
    }
}

impl<K: Key, V> Index<&K> for AscendingMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the caller knows that it is there")
    }
}

impl Key for u64 {
    fn steps_from(self, first: Self) -> Option<usize> {
        usize::try_from(self.checked_sub(first)?).ok()
    }
}

impl Key for Offset {
    fn steps_from(self, first: Self) -> Option<usize> {
        usize::try_from(self.get().checked_sub(first.get())?).ok()
    }
}

impl Key for WindowId {
    fn steps_from(self, first: Self) -> Option<usize> {
        self.get().steps_from(first.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { gap: u64 },
        Change { which: usize },
        Remove { which: usize },
        Retain { of: u64 },
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => prop_oneof![4 => Just(0_u64), 1 => 0_u64..1000]
                .prop_map(|gap| Step::Insert { gap }),
            1 => any::<usize>().prop_map(|which| Step::Change { which }),
            // Mostly the oldest, as work ends.
            6 => prop_oneof![0_usize..3, any::<usize>()].prop_map(|which| Step::Remove { which }),
            1 => (1_u64..4).prop_map(|of| Step::Retain { of }),
        ];
        let clear = prop_oneof![60 => step, 1 => Just(Step::Clear)];
        prop::collection::vec(clear, 0..600)
    }

    fn nth(model: &BTreeMap<u64, u64>, which: usize) -> Option<u64> {
        model.keys().nth(which.checked_rem(model.len())?).copied()
    }

    proptest! {
        #[test]
        fn agrees_with_a_tree(steps in steps()) {
            let mut map = AscendingMap::new();
            let mut model = BTreeMap::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Insert { gap } => {
                        next += gap + 1;
                        map.insert(next, next);
                        model.insert(next, next);
                    }
                    Step::Change { which } => if let Some(key) = nth(&model, which) {
                        *map.get_mut(&key).expect("the model has it") += 1;
                        *model.get_mut(&key).expect("it was found") += 1;
                    }
                    Step::Remove { which } => if let Some(key) = nth(&model, which) {
                        prop_assert_eq!(map.remove(&key), model.remove(&key));
                        prop_assert_eq!(map.remove(&key), None, "it is gone");
                    }
                    Step::Retain { of } => {
                        map.retain(|key, _| key % of == 0);
                        model.retain(|key, _| key % of == 0);
                    }
                    Step::Clear => {
                        map.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert!(map.keys().rev().eq(model.keys().rev()));
            prop_assert!(map.values().eq(model.values()));
            for key in 0..=next + 1 {
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
            }
        }
    }

    #[test]
    fn what_stays_behind_does_not_keep_what_is_gone() {
        let mut map = AscendingMap::new();
        map.insert(0_u64, 0);
        for key in 1..10_000 {
            map.insert(key, key);
            if key % 100 != 0 {
                map.remove(&key);
            }
            assert!(map.entries.len() <= map.len() * 4 + AscendingMap::<u64, u64>::GAPS_MIN);
        }
        assert!(map.keys().copied().eq((0..10_000).step_by(100)));
        assert!((0..10_000).all(|key| map.contains_key(&key) == (key % 100 == 0)));
    }

    #[test]
    #[should_panic(expected = "ascending")]
    fn a_key_that_comes_late_is_a_bug() {
        let mut map = AscendingMap::new();
        map.insert(2_u64, ());
        map.insert(2_u64, ());
    }

    #[test]
    fn a_distance_beyond_all_numbers_is_none() {
        let (low, high) = (Offset::new(i64::MIN), Offset::new(i64::MAX));
        assert_eq!(high.steps_from(low), None, "the difference is no number");
        assert_eq!(low.steps_from(high), None);
        assert_eq!(high.steps_from(high), Some(0));
    }
}
