//! What each message is and what its tasks are: drawn from the seed and the message's place, so that
//! handler and ledger agree without speaking to each other.

use crate::seen::Shape;
use drakkar_api::Offset;
use drakkar_testkit::Random;

/// One message, as the seed wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) shape: Shape,
    /// How often its value does not parse before it does, if it ever does.
    pub(crate) parses_after: Option<u32>,
    /// The bytes of filling in its value.
    pub(crate) filling: usize,
    pub(crate) tasks: Vec<TaskRecipe>,
    /// Whether it also asks for a task of its whole window.
    pub(crate) shares: bool,
}

/// One task of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRecipe {
    /// Whether its result is known already, and is a success.
    pub(crate) precomputed: Option<bool>,
    /// How many payloads `on_task_complete` makes of it.
    pub(crate) outputs: usize,
    /// The bytes of filling in each.
    pub(crate) filling: usize,
    pub(crate) priority: i64,
}

/// How recipes are drawn in one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cookbook {
    pub(crate) seed: u64,
    pub(crate) unparsable: u16,
    pub(crate) tombstones: u16,
    pub(crate) precomputed: u16,
    pub(crate) shared: u16,
    pub(crate) tasks_max: u64,
    pub(crate) filling_max: u64,
    pub(crate) priorities: u64,
}

impl Cookbook {
    /// Returns the recipe of the message at this place.
    pub(crate) fn of(&self, partition: i32, offset: Offset) -> Recipe {
        let mut random = Random::fork(self.seed, &format!("message {partition}:{offset}"));
        let shape = if random.chance(self.unparsable) {
            Shape::Unparsable
        } else if random.chance(self.tombstones) {
            Shape::Tombstone
        } else {
            Shape::Plain
        };
        let parses_after = match shape {
            Shape::Unparsable => self.parses_after(partition, offset),
            Shape::Plain | Shape::Tombstone => Some(0),
        };
        let tasks = random.within(0..=self.tasks_max);
        Recipe {
            shape,
            parses_after,
            filling: size(random.within(0..=self.filling_max)),
            tasks: (0..tasks).map(|_| self.task(&mut random)).collect(),
            shares: random.chance(self.shared),
        }
    }

    fn parses_after(&self, partition: i32, offset: Offset) -> Option<u32> {
        let mut random = Random::fork(self.seed, &format!("lookup {partition}:{offset}"));
        let failures = u32::try_from(random.within(1..=2)).unwrap_or(1);
        random.chance(600).then_some(failures)
    }

    fn task(&self, random: &mut Random) -> TaskRecipe {
        let precomputed = random.chance(self.precomputed).then(|| random.chance(850));
        TaskRecipe {
            precomputed,
            outputs: size(random.within(0..=3)),
            filling: size(random.within(0..=self.filling_max)),
            priority: i64::try_from(random.below(self.priorities.max(1))).unwrap_or(0),
        }
    }
}

/// Turns a small drawn number into a size.
pub(crate) fn size(drawn: u64) -> usize {
    usize::try_from(drawn).unwrap_or(usize::MAX)
}
