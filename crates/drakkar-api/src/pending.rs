//! The tasks that a window finds when it is arranged.

use crate::{Task, TaskId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

/// The tasks of a partition that are scheduled and not settled at the moment a window is arranged:
/// waiting, running, in a hook, in delivery or between two attempts.
///
/// A clone costs nothing but a count. It shares what it holds with the original until that changes, and
/// then all but the pieces in which something does, so that the engine can give one to each window.
#[derive(Clone, Debug, Default)]
pub struct PendingTasks {
    /// Ascending by number; no piece is empty.
    pieces: Arc<VecDeque<Arc<Piece>>>,
    len: usize,
    by_id: OnceLock<BTreeMap<TaskId, Arc<Task>>>,
}

/// Some tasks in a row, by their numbers.
type Piece = Vec<(u64, Arc<Task>)>;

/// How many tasks a piece has at most: what one change may copy.
const PIECE_MAX: usize = 64;

impl PendingTasks {
    /// Takes tasks in scheduling order. The index by id is made when it is first asked for.
    pub fn new(tasks: Vec<Arc<Task>>) -> Self {
        let mut pending = Self::default();
        for (number, task) in (0..).zip(tasks) {
            pending.insert(number, task);
        }
        pending
    }

    /// Adds a task that was scheduled; the engine calls this, on a list of its own.
    ///
    /// # Panics
    ///
    /// When `number` is not above all numbers that are in the list.
    pub fn insert(&mut self, number: u64, task: Arc<Task>) {
        let pieces = Arc::make_mut(&mut self.pieces);
        let last = pieces.back().and_then(|piece| piece.last());
        assert!(last.is_none_or(|(last, _)| *last < number), "numbers come in ascending order");
        match pieces.back_mut().filter(|piece| piece.len() < PIECE_MAX) {
            Some(piece) => Arc::make_mut(piece).push((number, task)),
            None => pieces.push_back(Arc::new(vec![(number, task)])),
        }
        self.len += 1;
        self.by_id = OnceLock::new();
    }

    /// Takes a task out that is settled, and answers whether it was there; the engine calls this, on a
    /// list of its own.
    pub fn remove(&mut self, number: u64) -> bool {
        let is_before = |piece: &Arc<Piece>| piece.last().is_some_and(|(last, _)| *last < number);
        let at = self.pieces.partition_point(is_before);
        let Some(piece) = self.pieces.get(at) else { return false };
        let Ok(place) = piece.binary_search_by_key(&number, |(number, _)| *number) else {
            return false;
        };
        let pieces = Arc::make_mut(&mut self.pieces);
        if pieces[at].len() == 1 {
            pieces.remove(at);
        } else {
            Arc::make_mut(&mut pieces[at]).remove(place);
        }
        self.len -= 1;
        self.by_id = OnceLock::new();
        true
    }

    /// Returns whether a task of this id is pending.
    pub fn contains(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// Returns the pending task of this id; of several the one scheduled last.
    pub fn get(&self, id: &str) -> Option<&Arc<Task>> {
        let index = self.by_id.get_or_init(|| {
            self.iter().filter_map(|task| Some((task.id.clone()?, Arc::clone(task)))).collect()
        });
        index.get(&TaskId::new(id))
    }

    /// Returns the pending tasks in scheduling order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        let tasks = self.pieces.iter().flat_map(|piece| piece.iter()).map(|(_, task)| task);
        Counted { tasks, left: self.len }
    }

    /// Returns how many tasks are pending.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no task is pending.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// An iterator with as many items as are left.
struct Counted<I> {
    tasks: I,
    left: usize,
}

impl<I: Iterator> Iterator for Counted<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let task = self.tasks.next()?;
        self.left -= 1;
        Some(task)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Counted<I> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offset;

    fn task(id: &str) -> Arc<Task> {
        Arc::new(Task::for_offset(Offset::new(1)).id(id))
    }

    fn ids(pending: &PendingTasks) -> Vec<String> {
        pending.iter().filter_map(|task| task.id.as_ref()).map(ToString::to_string).collect()
    }

    #[test]
    fn pending_tasks_are_found_by_id() {
        let mut pending = PendingTasks::new(vec![task("a"), task("b"), task("a")]);
        assert!(pending.contains("b") && !pending.contains("c"));
        let last = pending.iter().last().expect("three tasks");
        assert!(Arc::ptr_eq(pending.get("a").expect("pending"), last));
        assert!(pending.remove(1) && !pending.remove(1));
        pending.insert(7, task("c"));
        assert!(!pending.contains("b") && pending.contains("c"));
        assert_eq!((pending.len(), pending.iter().len()), (3, 3));
    }

    /// Tasks come, and go in some order; at times a list is kept, and must stay as it is.
    #[test]
    fn a_clone_stays_as_it_is() {
        let mut pending = PendingTasks::default();
        let mut model = BTreeMap::new();
        let mut kept = Vec::new();
        let mut random = 1_u64;
        for number in 0..3000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let id = format!("t{number}");
            pending.insert(number, task(&id));
            model.insert(number, id);
            for _ in 0..random >> 62 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let leaves = number.saturating_sub((random >> 33) % 600);
                assert_eq!(pending.remove(leaves), model.remove(&leaves).is_some());
            }
            if number % 100 == 0 {
                kept.push((pending.clone(), model.values().cloned().collect::<Vec<_>>()));
            }
            assert_eq!(pending.len(), model.len());
        }
        assert!(kept.iter().any(|(pending, _)| pending.pieces.len() > 2), "several pieces");
        kept.push((pending, model.into_values().collect()));
        for (pending, expect) in &kept {
            assert_eq!(ids(pending), *expect);
        }
    }

    #[test]
    fn a_change_copies_one_piece_of_what_a_clone_holds() {
        let mut pending = PendingTasks::new((0..10_000).map(|_| task("t")).collect());
        let clone = pending.clone();
        assert!(Arc::ptr_eq(&pending.pieces, &clone.pieces), "nothing is copied");
        assert!(pending.remove(5000));
        pending.insert(10_000, task("u"));
        let is_shared = |piece| clone.pieces.iter().any(|other| Arc::ptr_eq(piece, other));
        let own = pending.pieces.iter().filter(|piece| !is_shared(piece)).count();
        assert_eq!((own, pending.pieces.len()), (2, 157));
    }
}
