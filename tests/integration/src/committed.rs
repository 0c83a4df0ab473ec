//! The committed offsets of a group, and what it means that they never go back.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::load;

/// By partition, the offset that the group reads next; partitions without a commit are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed(BTreeMap<i32, i64>);

impl Committed {
    /// Takes note of one more commit.
    ///
    /// # Errors
    ///
    /// It is behind an earlier one.
    pub fn advance(&mut self, partition: i32, offset: i64) -> Result<()> {
        let before = self.0.insert(partition, offset).unwrap_or(0);
        ensure!(
            before <= offset,
            "the committed offset of partition {partition} went back from {before} to {offset}"
        );
        Ok(())
    }

    /// Takes note of what the group has committed now; says whether anything is new.
    ///
    /// # Errors
    ///
    /// An offset went back, or a partition has no commit any more.
    pub fn advance_to(&mut self, now: &Self) -> Result<bool> {
        for (partition, before) in &self.0 {
            ensure!(
                now.0.contains_key(partition),
                "the commit of partition {partition} at {before} has gone"
            );
        }
        let is_new = *self != *now;
        for (&partition, &offset) in &now.0 {
            self.advance(partition, offset)?;
        }
        Ok(is_new)
    }

    /// Whether every partition is committed up to the end of the source; a partition without
    /// messages needs no commit.
    pub fn is_at(&self, ends: &BTreeMap<i32, i64>) -> bool {
        let at = |partition| self.0.get(partition).copied().unwrap_or(0);
        ends.iter().all(|(partition, end)| at(partition) == *end)
    }

    /// How many messages are committed.
    pub fn count(&self) -> i64 {
        self.0.values().sum()
    }

    /// The numbers of the messages that are committed.
    pub(crate) fn messages(&self) -> Result<impl Iterator<Item = u64>> {
        let mut messages = Vec::new();
        for (&partition, &next) in &self.0 {
            for offset in 0..next {
                messages.push(load::message_at(partition, offset)?);
            }
        }
        Ok(messages.into_iter())
    }
}

impl FromIterator<(i32, i64)> for Committed {
    fn from_iter<I: IntoIterator<Item = (i32, i64)>>(offsets: I) -> Self {
        Self(offsets.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed<const N: usize>(offsets: [(i32, i64); N]) -> Committed {
        Committed::from_iter(offsets)
    }

    #[test]
    fn offsets_may_stay_and_grow() {
        let mut seen = Committed::default();
        assert!(!seen.advance_to(&committed([])).expect("nothing yet"));
        assert!(seen.advance_to(&committed([(0, 5)])).expect("the first commit"));
        assert!(!seen.advance_to(&committed([(0, 5)])).expect("the same"));
        assert!(seen.advance_to(&committed([(0, 6), (1, 1)])).expect("more"));
        assert_eq!(seen.count(), 7);
    }

    #[test]
    fn an_offset_that_goes_back_is_found() {
        let mut seen = committed([(0, 5), (1, 1)]);
        let error = seen.advance_to(&committed([(0, 4), (1, 2)])).expect_err("back");
        assert_eq!(error.to_string(), "the committed offset of partition 0 went back from 5 to 4");
        assert!(committed([(0, 5)]).advance(0, 4).is_err());
        assert!(Committed::default().advance(0, -1).is_err());
    }

    #[test]
    fn a_commit_that_goes_away_is_found() {
        let error = committed([(0, 5)]).advance_to(&committed([(1, 9)])).expect_err("gone");
        assert_eq!(error.to_string(), "the commit of partition 0 at 5 has gone");
    }

    #[test]
    fn the_end_is_reached_when_every_partition_is_there() {
        let ends = BTreeMap::from([(0, 5), (1, 3), (2, 0)]);
        assert!(committed([(0, 5), (1, 3)]).is_at(&ends));
        assert!(committed([(0, 5), (1, 3), (2, 0)]).is_at(&ends));
        assert!(!committed([(0, 5), (1, 2)]).is_at(&ends));
        assert!(!committed([(0, 5)]).is_at(&ends));
        assert!(!committed([(0, 6), (1, 3)]).is_at(&ends));
    }

    #[test]
    fn committed_messages_are_those_below_the_offsets() {
        let messages: Vec<u64> =
            committed([(0, 2), (3, 1)]).messages().expect("of the source").collect();
        assert_eq!(messages, [0, 16, 3]);
        assert!(committed([(99, 1)]).messages().is_err());
    }
}
