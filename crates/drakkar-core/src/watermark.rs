//! The watermark: the point below which every registered offset of a partition is finished.
//!
//! Offsets are registered in the order in which the source delivers them, which is ascending but may
//! have gaps (compaction, transactions). Nothing here counts integers: the watermark walks over
//! *registered* offsets, and the position to commit is the last finished one plus one.
//!
//! Invariants, each a property test below:
//!
//! - it never passes a registered offset that is not finished;
//! - it never goes back;
//! - it reaches the last registered offset once all are finished;
//! - only the [`Token`] of a registration finishes it, once.
//!
//! Registering and finishing take constant time, amortised; memory is one byte and an offset for
//! each entry between the oldest unfinished offset and the newest registered one. The partition
//! bounds that distance (`kafka.max_ahead_offsets`).

use drakkar_api::{CommitOffset, Offset};
use std::collections::VecDeque;

/// The right to finish one registered offset. Consumed by [`Watermark::finish`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an offset whose token is dropped holds the watermark for ever"]
pub struct Token {
    sequence: u64,
}

/// Tracks the registered offsets of one assignment.
#[derive(Debug, Default)]
pub struct Watermark {
    /// Entries from the oldest unfinished one on.
    entries: VecDeque<Entry>,
    /// The sequence number of `entries[0]`.
    base: u64,
    /// How many of `entries` are not finished.
    open: usize,
    /// The newest offset that was ever registered.
    newest: Option<Offset>,
    /// The position after the newest offset below the watermark.
    position: Option<CommitOffset>,
}

#[derive(Debug)]
struct Entry {
    offset: Offset,
    finished: bool,
}

/// An offset was registered that is not above all earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} was delivered after offset {newest}")]
pub struct OutOfOrder {
    /// The offset that was refused.
    pub offset: Offset,
    /// The newest one before it.
    pub newest: Offset,
}

impl Watermark {
    /// Starts with nothing registered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the next offset of the partition.
    ///
    /// # Errors
    ///
    /// When `offset` is not above every earlier one, as after a repeat by the source.
    pub fn register(&mut self, offset: Offset) -> Result<Token, OutOfOrder> {
        if let Some(newest) = self.newest.filter(|&newest| newest >= offset) {
            return Err(OutOfOrder { offset, newest });
        }
        self.newest = Some(offset);
        let sequence = self.base + self.entries.len() as u64;
        self.entries.push_back(Entry { offset, finished: false });
        self.open += 1;
        Ok(Token { sequence })
    }

    /// Marks an offset as finished and moves the watermark as far as it goes.
    pub fn finish(&mut self, token: Token) {
        let entry = usize::try_from(token.sequence - self.base)
            .ok()
            .and_then(|index| self.entries.get_mut(index))
            .expect("a token belongs to an unfinished entry of the watermark that made it");
        entry.finished = true;
        if cfg!(drakkar_fault = "watermark_passes_open") {
            self.position = self.position.max(Some(entry.offset.next()));
        }
        self.open -= 1;
        while let Some(entry) = self.entries.front().filter(|entry| entry.finished) {
            self.position = Some(entry.offset.next());
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// Returns the position to commit: everything below it that was registered is finished. `None`
    /// until the first registered offset is finished.
    pub fn position(&self) -> Option<CommitOffset> {
        self.position
    }

    /// Returns the oldest unfinished offset, which holds the watermark.
    pub fn blocking(&self) -> Option<Offset> {
        self.entries.front().map(|entry| entry.offset)
    }

    /// Returns how many registered offsets are not finished.
    pub fn unfinished(&self) -> usize {
        self.open
    }

    /// Returns how many entries are kept: from the oldest unfinished offset to the newest one.
    pub fn ahead(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The definition, without a thought for cost.
    #[derive(Default)]
    struct Model {
        finished: BTreeMap<Offset, bool>,
    }

    impl Model {
        fn position(&self) -> Option<CommitOffset> {
            let below = self.finished.iter().take_while(|(_, finished)| **finished);
            below.last().map(|(offset, _)| offset.next())
        }

        fn unfinished(&self) -> Vec<Offset> {
            let open = self.finished.iter().filter(|(_, finished)| !**finished);
            open.map(|(offset, _)| *offset).collect()
        }

        /// From the oldest unfinished offset on.
        fn ahead(&self) -> usize {
            self.finished.values().skip_while(|finished| **finished).count()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Register {
            gap: i64,
        },
        /// The source delivers once more what it delivered before.
        Repeat {
            back: i64,
        },
        Finish {
            which: usize,
        },
        /// The partition leaves, and comes back at what is committed: all that is below the position, or
        /// less.
        Reassign {
            uncommitted: i64,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            20 => (0_i64..5).prop_map(|gap| Step::Register { gap }),
            2 => (0_i64..10).prop_map(|back| Step::Repeat { back }),
            20 => (0_usize..64).prop_map(|which| Step::Finish { which }),
            1 => (0_i64..10).prop_map(|uncommitted| Step::Reassign { uncommitted }),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        // Promise: WM-1
        #[test]
        fn agrees_with_the_model(steps in steps()) {
            let mut watermark = Watermark::new();
            let mut model = Model::default();
            let mut tokens = Vec::new();
            let mut next = 0;
            let mut before = None;
            for step in steps {
                match step {
                    Step::Register { gap } => {
                        let offset = Offset::new(next + gap);
                        next = offset.get() + 1;
                        tokens.push((offset, watermark.register(offset).expect("ascending")));
                        model.finished.insert(offset, false);
                    }
                    Step::Repeat { back } => {
                        if let Some(newest) = model.finished.keys().next_back().copied() {
                            let offset = Offset::new(newest.get() - back);
                            let refusal = Err(OutOfOrder { offset, newest });
                            prop_assert_eq!(watermark.register(offset), refusal);
                        }
                    }
                    Step::Finish { which } if !tokens.is_empty() => {
                        let (offset, token) = tokens.swap_remove(which % tokens.len());
                        watermark.finish(token);
                        model.finished.insert(offset, true);
                    }
                    Step::Finish { .. } => {}
                    Step::Reassign { uncommitted } => {
                        next = watermark.position().map_or(0, CommitOffset::get);
                        next = (next - uncommitted).max(0);
                        watermark = Watermark::new();
                        model = Model::default();
                        // They die with their assignment.
                        tokens.clear();
                        before = None;
                    }
                }
                prop_assert_eq!(watermark.position(), model.position());
                prop_assert!(watermark.position() >= before, "it went back");
                before = watermark.position();
                let unfinished = model.unfinished();
                prop_assert_eq!(watermark.blocking(), unfinished.first().copied());
                prop_assert_eq!(watermark.unfinished(), unfinished.len());
                prop_assert_eq!(watermark.ahead(), model.ahead());
            }
            for (_, token) in tokens {
                watermark.finish(token);
            }
            let last = model.finished.keys().last().map(|offset| offset.next());
            prop_assert_eq!(watermark.position(), last);
            prop_assert_eq!(watermark.ahead(), 0);
        }
    }

    // Promise: WM-1
    #[test]
    fn a_repeat_is_refused() {
        let mut watermark = Watermark::new();
        let token = watermark.register(Offset::new(5)).expect("the first");
        let error = watermark.register(Offset::new(5)).expect_err("a repeat");
        assert_eq!(error, OutOfOrder { offset: Offset::new(5), newest: Offset::new(5) });
        watermark.finish(token);
        assert!(watermark.register(Offset::new(4)).is_err(), "older than a finished one");
    }

    // Promise: WM-1
    #[test]
    fn gaps_are_no_obstacle_and_the_head_holds_everything() {
        let mut watermark = Watermark::new();
        let mut tokens: Vec<_> = [10, 20, 30]
            .map(|offset| watermark.register(Offset::new(offset)).expect("ascending"))
            .into_iter()
            .rev()
            .collect();
        let head = tokens.pop().expect("three tokens");
        for token in tokens {
            watermark.finish(token);
        }
        assert_eq!(watermark.position(), None);
        assert_eq!(watermark.blocking(), Some(Offset::new(10)));
        watermark.finish(head);
        assert_eq!(watermark.position(), Some(CommitOffset::new(31)));
    }

    // Promise: WM-1
    #[test]
    fn a_million_behind_an_unfinished_offset_cost_no_more_each() {
        // If a completion looked at what is behind the head, this would not end.
        let mut watermark = Watermark::new();
        let mut tokens: Vec<_> = (0..1_000_000)
            .map(|offset| watermark.register(Offset::new(offset)).expect("ascending"))
            .collect();
        let head = tokens.remove(0);
        for token in tokens {
            watermark.finish(token);
        }
        assert_eq!((watermark.position(), watermark.ahead()), (None, 1_000_000));
        watermark.finish(head);
        assert_eq!(watermark.position(), Some(CommitOffset::new(1_000_000)));
    }
}
