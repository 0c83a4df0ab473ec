//! What each message must have left, computed from the seed alone, next to what was found at the
//! destinations when everything had ended.

use super::Judge;
use super::assignment::{Assignment, Message, Origin, Task, TaskPhase};
use crate::promise::Promise;
use crate::recipe::Cookbook;
use crate::seen::Heard;
use crate::worker::partition_id;
use drakkar_api::Offset;
use drakkar_testkit::FakeBroker;
use std::collections::BTreeSet;

impl Judge {
    /// Checks every message that the broker has and that is committed: somebody finished it, and
    /// whoever did left what the seed asks for, or a dead letter of it.
    pub(super) fn check_ledger(
        &mut self,
        broker: &FakeBroker,
        cookbook: &Cookbook,
        partitions: i32,
    ) {
        for number in 0..partitions {
            let committed = broker.committed(&partition_id(number));
            let messages = broker.messages(&partition_id(number));
            for message in messages.iter().filter(|it| Some(it.offset.next()) <= committed) {
                if let Some(problem) = self.missing(cookbook, number, message.offset) {
                    let what = format!("{number}:{} is committed, but {problem}", message.offset);
                    self.blame(Promise::Dl1, what);
                }
            }
        }
    }

    fn missing(&self, cookbook: &Cookbook, partition: i32, offset: Offset) -> Option<String> {
        let of_it = self.assignments.values().filter(|it| it.partition == partition);
        let finished = of_it.filter_map(|assignment| {
            let message = assignment.messages.get(&offset).filter(|message| message.is_finished());
            message.map(|message| (assignment, message))
        });
        let mut finished = finished.peekable();
        if finished.peek().is_none() {
            return Some("nobody finished it".to_owned());
        }
        finished.find_map(|(assignment, message)| {
            self.missing_of(cookbook, assignment, offset, message)
        })
    }

    fn missing_of(
        &self,
        cookbook: &Cookbook,
        assignment: &Assignment,
        offset: Offset,
        message: &Message,
    ) -> Option<String> {
        let recipe = cookbook.of(assignment.partition, offset);
        // What was doomed is in the dead letters, or was dropped by permission.
        if message.doom.is_some() || self.is_skipped(assignment, message) {
            return None;
        }
        let tasks = || message.tasks.iter().filter_map(|number| assignment.tasks.get(number));
        let made: BTreeSet<_> = tasks()
            .filter(|task| matches!(task.origin, Origin::Arrange(_)))
            .filter_map(|task| task.recipe)
            .collect();
        if made != (0..recipe.tasks.len()).collect() {
            return Some(format!("it got the tasks {made:?} of {}", recipe.tasks.len()));
        }
        let unfinished =
            tasks().find(|task| matches!(task.phase, TaskPhase::Open | TaskPhase::Failed));
        if let Some(task) = unfinished {
            return Some(format!("a task of it is {:?}, and it is in no dead letter", task.phase));
        }
        let done = |task: &&Task| {
            task.phase == TaskPhase::Succeeded && matches!(task.origin, Origin::Arrange(_))
        };
        let wanting = tasks().filter(done).find_map(|task| {
            let wanted = recipe.tasks.get(task.recipe?)?.outputs;
            (self.hooks.task && task.payloads.len() != wanted)
                .then_some((task.payloads.len(), wanted))
        });
        if let Some((found, wanted)) = wanting {
            return Some(format!("a task of it put out {found} payloads of {wanted}"));
        }
        let payloads = tasks().flat_map(|task| &task.payloads).chain(&message.payloads);
        let lost = payloads.filter_map(|number| Some((number, self.payloads.get(number)?)));
        let mut lost = lost
            .filter(|(_, payload)| payload.last == Some(Heard::Confirmed) && payload.applied == 0);
        lost.next().map(|(number, _)| format!("payload {number} is nowhere"))
    }
}
