//! The waiting runs and the order in which they get a slot. Plain data: no threads, no clock.
//!
//! The order, from the outside in:
//!
//! 1. the smallest [`Priority`] first;
//! 2. among equal priorities the owners take turns: while an owner waits, every other owner is
//!    served at most once before it;
//! 3. inside an owner the smallest source offset, then first come, first served.
//!
//! The original compared offsets across partitions, so that a partition with small offsets starved
//! the others. Here offsets are compared inside one owner only, where they mean something.
//!
//! Every operation takes O(log n) for each run it touches. The gate itself has no limit: whoever
//! submits bounds what waits, as the engine does with its backpressure.

use drakkar_api::{Epoch, Offset, Priority, RunId};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The runs that wait for a slot.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    levels: BTreeMap<Priority, Level<T>>,
    /// Where each waiting run stands. The sequence number is part of the key, so that two runs of
    /// the same id, against the contract, are still two runs.
    places: BTreeMap<(Epoch, RunId, Sequence), (Priority, Turn)>,
    arrivals: u64,
}

/// The owners that wait at one priority, and whose turn it was last.
#[derive(Debug)]
struct Level<T> {
    owners: BTreeMap<Epoch, BTreeMap<Turn, (RunId, T)>>,
    last_served: Option<Epoch>,
}

/// A run's place among those of its owner.
type Turn = (Option<Offset>, Sequence);

/// The how-manieth run the gate has seen.
type Sequence = u64;

impl<T> Gate<T> {
    pub(crate) fn new() -> Self {
        Self { levels: BTreeMap::new(), places: BTreeMap::new(), arrivals: 0 }
    }

    /// Returns how many runs wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Lets a run wait. `offset` is the smallest of its messages; a run without any goes first
    /// among those of its owner.
    pub(crate) fn push(
        &mut self,
        owner: Epoch,
        id: RunId,
        priority: Priority,
        offset: Option<Offset>,
        run: T,
    ) {
        let sequence = self.arrivals;
        self.arrivals += 1;
        let turn = (offset, sequence);
        self.places.insert((owner, id, sequence), (priority, turn));
        let level = self.levels.entry(priority).or_default();
        level.owners.entry(owner).or_default().insert(turn, (id, run));
    }

    /// Takes the run whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let mut level = self.levels.first_entry()?;
        let (owner, turn, id, run) = level.get_mut().pop();
        if level.get().owners.is_empty() {
            level.remove();
        }
        self.places.remove(&(owner, id, turn.1));
        Some(run)
    }

    /// Takes out the runs of `owner` that have this id: one, or none if it does not wait.
    pub(crate) fn withdraw(&mut self, owner: Epoch, id: RunId) -> Vec<T> {
        self.withdraw_range((owner, id, Sequence::MIN), (owner, id, Sequence::MAX))
    }

    /// Takes out all runs of `owner`, by ascending id.
    pub(crate) fn withdraw_all(&mut self, owner: Epoch) -> Vec<T> {
        let first = (owner, RunId::new(u64::MIN), Sequence::MIN);
        let last = (owner, RunId::new(u64::MAX), Sequence::MAX);
        self.withdraw_range(first, last)
    }

    /// Takes out everything, in the order in which it would have started.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    fn withdraw_range(
        &mut self,
        first: (Epoch, RunId, Sequence),
        last: (Epoch, RunId, Sequence),
    ) -> Vec<T> {
        let keys: Vec<_> = self.places.range(first..=last).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.take(key)).collect()
    }

    fn take(&mut self, key: (Epoch, RunId, Sequence)) -> Option<T> {
        let (priority, turn) = self.places.remove(&key)?;
        let level = self.levels.get_mut(&priority)?;
        let run = level.take(key.0, turn);
        if level.owners.is_empty() {
            self.levels.remove(&priority);
        }
        run
    }
}

impl<T> Level<T> {
    /// Takes the first run of the owner whose turn it is. A level is never empty.
    fn pop(&mut self) -> (Epoch, Turn, RunId, T) {
        let owner = self.next_owner().expect("a level holds at least one owner");
        self.last_served = Some(owner);
        let runs = self.owners.get_mut(&owner).expect("the owner was found in this map");
        let (turn, (id, run)) = runs.pop_first().expect("an owner holds at least one run");
        if runs.is_empty() {
            self.owners.remove(&owner);
        }
        (owner, turn, id, run)
    }

    /// Goes round the circle of owners, from the one that was served last.
    fn next_owner(&self) -> Option<Epoch> {
        let after = self.last_served.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.owners.range((after, Bound::Unbounded)).next();
        next.or_else(|| self.owners.first_key_value()).map(|(owner, _)| *owner)
    }

    fn take(&mut self, owner: Epoch, turn: Turn) -> Option<T> {
        let runs = self.owners.get_mut(&owner)?;
        let (_, run) = runs.remove(&turn)?;
        if runs.is_empty() {
            self.owners.remove(&owner);
        }
        Some(run)
    }
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { owners: BTreeMap::new(), last_served: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes `runs` of (owner, priority, offset) with ids 0, 1, … and returns the ids in the
    /// order in which they start.
    fn order(runs: &[(u64, i64, i64)]) -> Vec<usize> {
        let mut gate = Gate::new();
        for (index, (owner, priority, offset)) in runs.iter().enumerate() {
            let id = RunId::new(index as u64);
            let offset = Some(Offset::new(*offset));
            gate.push(Epoch::new(*owner), id, Priority::new(*priority), offset, index);
        }
        gate.drain()
    }

    #[test]
    fn smaller_priorities_go_first() {
        assert_eq!(order(&[(1, 5, 0), (2, -1, 9), (1, 0, 4)]), [1, 2, 0]);
    }

    #[test]
    fn inside_an_owner_the_smallest_offset_goes_first_then_the_first_to_come() {
        assert_eq!(order(&[(1, 0, 7), (1, 0, 3), (1, 0, 7), (1, 0, 3)]), [1, 3, 0, 2]);
    }

    #[test]
    fn owners_take_turns_whatever_their_offsets() {
        let small = (1, 0, 0);
        let large = (2, 0, 1_000_000);
        assert_eq!(order(&[large, large, small, small, small]), [2, 0, 3, 1, 4]);
    }

    #[test]
    fn an_owner_that_comes_back_at_once_does_not_overtake_one_that_waits() {
        let mut gate = Gate::new();
        let push = |gate: &mut Gate<u64>, owner| {
            gate.push(Epoch::new(owner), RunId::new(0), Priority::new(0), None, owner);
        };
        push(&mut gate, 3);
        let mut served = Vec::new();
        for _ in 0..4 {
            push(&mut gate, 1);
            push(&mut gate, 2);
            served.extend(gate.pop());
        }
        assert_eq!(served, [1, 2, 3, 1]);
    }

    #[test]
    fn runs_of_one_id_are_still_two_runs() {
        let mut gate = Gate::new();
        let (owner, id) = (Epoch::new(1), RunId::new(7));
        gate.push(owner, id, Priority::new(0), None, "first");
        gate.push(owner, id, Priority::new(3), None, "second");
        assert_eq!(gate.withdraw(owner, id), ["first", "second"]);
        assert_eq!((gate.len(), gate.pop()), (0, None));
    }

    /// The same rules written down naively: one list, searched from end to end.
    #[derive(Default)]
    struct Model {
        waiting: Vec<Waiting>,
        last_served: BTreeMap<i64, u64>,
        arrivals: u64,
    }

    #[derive(Clone, Debug, PartialEq)]
    struct Waiting {
        owner: u64,
        id: u64,
        priority: i64,
        offset: Option<i64>,
        sequence: u64,
    }

    impl Model {
        fn push(&mut self, owner: u64, id: u64, priority: i64, offset: Option<i64>) -> Waiting {
            let sequence = self.arrivals;
            self.arrivals += 1;
            let run = Waiting { owner, id, priority, offset, sequence };
            self.waiting.push(run.clone());
            run
        }

        fn pop(&mut self) -> Option<Waiting> {
            let priority = self.waiting.iter().map(|run| run.priority).min()?;
            let level: Vec<_> =
                self.waiting.iter().filter(|run| run.priority == priority).collect();
            let last = self.last_served.get(&priority).copied();
            let owners = || level.iter().map(|run| run.owner);
            let later = owners().filter(|owner| last.is_some_and(|last| *owner > last)).min();
            let owner = later.or_else(|| owners().min())?;
            let ours = level.iter().filter(|run| run.owner == owner);
            let chosen = (*ours.min_by_key(|run| (run.offset, run.sequence))?).clone();
            self.waiting.retain(|run| *run != chosen);
            self.last_served.insert(priority, owner);
            self.forget_empty_levels();
            Some(chosen)
        }

        fn withdraw(&mut self, mut which: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
            let (mut out, kept) = self.waiting.drain(..).partition::<Vec<_>, _>(|run| which(run));
            self.waiting = kept;
            self.forget_empty_levels();
            out.sort_by_key(|run| (run.id, run.sequence));
            out
        }

        fn forget_empty_levels(&mut self) {
            let waiting = &self.waiting;
            self.last_served.retain(|level, _| waiting.iter().any(|run| run.priority == *level));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { owner: u64, priority: i64, offset: Option<i64> },
        PushAgain { owner: u64, id: u64 },
        Pop,
        Withdraw { owner: u64, id: u64 },
        WithdrawAll { owner: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let owner = 0..4_u64;
        let push = (owner.clone(), -1..2_i64, prop::option::of(0..5_i64))
            .prop_map(|(owner, priority, offset)| Step::Push { owner, priority, offset });
        let again =
            (owner.clone(), 0..40_u64).prop_map(|(owner, id)| Step::PushAgain { owner, id });
        let withdraw =
            (owner.clone(), 0..40_u64).prop_map(|(owner, id)| Step::Withdraw { owner, id });
        let withdraw_all = owner.prop_map(|owner| Step::WithdrawAll { owner });
        let step = prop_oneof![
            8 => push,
            1 => again,
            5 => Just(Step::Pop),
            3 => withdraw,
            1 => withdraw_all,
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn the_gate_agrees_with_the_model(steps in steps()) {
            let mut gate = Gate::new();
            let mut model = Model::default();
            let mut next_id = 0;
            for step in steps {
                match step {
                    Step::Push { owner, priority, offset } => {
                        let run = model.push(owner, next_id, priority, offset);
                        push(&mut gate, run);
                        next_id += 1;
                    }
                    Step::PushAgain { owner, id } => {
                        let run = model.push(owner, id, 0, None);
                        push(&mut gate, run);
                    }
                    Step::Pop => prop_assert_eq!(gate.pop(), model.pop()),
                    Step::Withdraw { owner, id } => {
                        let expect = model.withdraw(|run| (run.owner, run.id) == (owner, id));
                        prop_assert_eq!(gate.withdraw(Epoch::new(owner), RunId::new(id)), expect);
                    }
                    Step::WithdrawAll { owner } => {
                        let expect = model.withdraw(|run| run.owner == owner);
                        prop_assert_eq!(gate.withdraw_all(Epoch::new(owner)), expect);
                    }
                }
                prop_assert_eq!(gate.len(), model.waiting.len());
            }
            let rest: Vec<_> = std::iter::from_fn(|| model.pop()).collect();
            prop_assert_eq!(gate.drain(), rest);
            prop_assert!(gate.levels.is_empty() && gate.places.is_empty(), "nothing is left behind");
        }

        /// While an owner waits, no other owner of its priority is served twice.
        #[test]
        fn nobody_is_passed_over_twice_by_the_same_owner(
            moves in prop::collection::vec((prop::bool::weighted(0.6), 0..5_u64), 1..200),
        ) {
            let mut gate = Gate::new();
            let mut waiting: BTreeMap<u64, BTreeMap<u64, u32>> = BTreeMap::new();
            let mut queued: BTreeMap<u64, u32> = BTreeMap::new();
            for (arrives, owner) in moves {
                if arrives {
                    gate.push(Epoch::new(owner), RunId::new(0), Priority::new(0), None, owner);
                    *queued.entry(owner).or_default() += 1;
                    waiting.entry(owner).or_default();
                } else if let Some(served) = gate.pop() {
                    for (_, passed_by) in waiting.iter_mut().filter(|(owner, _)| **owner != served) {
                        let times = passed_by.entry(served).or_default();
                        *times += 1;
                        prop_assert!(*times <= 1);
                    }
                    let left = queued.get_mut(&served).expect("it was queued");
                    *left -= 1;
                    waiting.remove(&served);
                    if *left > 0 {
                        waiting.insert(served, BTreeMap::new());
                    }
                }
            }
        }
    }

    fn push(gate: &mut Gate<Waiting>, run: Waiting) {
        let (owner, id) = (Epoch::new(run.owner), RunId::new(run.id));
        gate.push(owner, id, Priority::new(run.priority), run.offset.map(Offset::new), run);
    }
}
