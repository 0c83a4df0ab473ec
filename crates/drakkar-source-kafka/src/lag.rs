//! How far each assignment is behind. Pure: no clock, no client, no thread.

use drakkar_api::{Epoch, PartitionId};
use std::collections::BTreeMap;

/// Where the group stands in each partition that is ours, and where the partition ends.
#[derive(Debug, Default)]
pub(crate) struct LagTable {
    places: BTreeMap<Epoch, Place>,
}

/// Offsets of one partition; `None` as long as they are not known.
#[derive(Debug)]
struct Place {
    partition: PartitionId,
    /// The next offset to commit: what was committed last, or where the assignment began.
    position: Option<i64>,
    end: Option<i64>,
}

/// A partition and the assignment that it is ours by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) epoch: Epoch,
    pub(crate) partition: PartitionId,
}

impl LagTable {
    /// Adds an assignment of which nothing is known yet.
    pub(crate) fn open(&mut self, epoch: Epoch, partition: PartitionId) {
        self.places.insert(epoch, Place { partition, position: None, end: None });
    }

    /// Forgets an assignment; what comes later for it has no effect.
    pub(crate) fn close(&mut self, epoch: Epoch) {
        self.places.remove(&epoch);
    }

    /// Notes where an assignment stands: at its first message, or at what was committed.
    pub(crate) fn stands_at(&mut self, epoch: Epoch, offset: i64) {
        if let Some(place) = self.places.get_mut(&epoch) {
            place.position = Some(offset);
        }
    }

    /// Notes where an assignment begins, unless something better is known by now.
    pub(crate) fn begins_at(&mut self, epoch: Epoch, offset: i64) {
        if let Some(place) = self.places.get_mut(&epoch) {
            place.position.get_or_insert(offset);
        }
    }

    /// Notes where the partition of an assignment ends.
    pub(crate) fn ends_at(&mut self, epoch: Epoch, offset: i64) {
        if let Some(place) = self.places.get_mut(&epoch) {
            place.end = Some(offset);
        }
    }

    /// Returns all assignments.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        self.list(|_| true)
    }

    /// Returns the assignments of which it is not known where they stand.
    pub(crate) fn unplaced(&self) -> Vec<Watched> {
        self.list(|place| place.position.is_none())
    }

    fn list(&self, wanted: impl Fn(&Place) -> bool) -> Vec<Watched> {
        let places = self.places.iter().filter(|(_, place)| wanted(place));
        places
            .map(|(epoch, place)| Watched { epoch: *epoch, partition: place.partition.clone() })
            .collect()
    }

    /// Returns how many offsets each partition is behind, where both of its offsets are known.
    ///
    /// What is committed may have passed the end that was heard of last: then it is 0.
    pub(crate) fn lags(&self) -> Vec<(PartitionId, u64)> {
        let lag = |place: &Place| {
            let behind = place.end?.saturating_sub(place.position?);
            Some((place.partition.clone(), u64::try_from(behind).unwrap_or(0)))
        };
        self.places.values().filter_map(lag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Epoch = Epoch::new(1);
    const B: Epoch = Epoch::new(2);

    fn partition(number: i32) -> PartitionId {
        PartitionId::new("in", number)
    }

    fn opened() -> LagTable {
        let mut table = LagTable::default();
        table.open(A, partition(0));
        table.open(B, partition(1));
        table
    }

    #[test]
    fn a_lag_needs_both_offsets() {
        let mut table = opened();
        table.ends_at(A, 10);
        table.begins_at(B, 3);
        assert_eq!(table.lags(), []);
        table.begins_at(A, 4);
        table.ends_at(B, 3);
        assert_eq!(table.lags(), [(partition(0), 6), (partition(1), 0)]);
    }

    #[test]
    fn a_commit_counts_for_more_than_the_beginning() {
        let mut table = opened();
        table.ends_at(A, 10);
        table.stands_at(A, 8);
        // The answer to a question that was asked before the commit.
        table.begins_at(A, 0);
        assert_eq!(table.lags(), [(partition(0), 2)]);
        table.stands_at(A, 12);
        assert_eq!(table.lags(), [(partition(0), 0)], "the end is an old one");
    }

    #[test]
    fn where_an_assignment_stands_is_asked_for_once() {
        let mut table = opened();
        let watched = |epoch, number| Watched { epoch, partition: partition(number) };
        assert_eq!(table.unplaced(), [watched(A, 0), watched(B, 1)]);
        table.begins_at(A, 0);
        assert_eq!(table.unplaced(), [watched(B, 1)]);
        assert_eq!(table.watched(), [watched(A, 0), watched(B, 1)]);
    }

    // Promise: RB-2
    #[test]
    fn an_assignment_that_ended_does_not_come_back() {
        let mut table = opened();
        for offset in [0, 1] {
            table.close(A);
            table.begins_at(A, offset);
            table.stands_at(A, offset);
            table.ends_at(A, 10);
        }
        assert_eq!(table.lags(), []);
        assert_eq!(table.watched().len(), 1);
    }
}
