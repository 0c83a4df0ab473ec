//! What stands still although nothing is wrong any more.

use super::Judge;
use super::assignment::{Assignment, Message, RunPhase, TaskPhase};
use super::ending::Need;
use crate::promise::Promise;
use crate::seen::{Heard, Number};
use drakkar_api::Epoch;

impl Judge {
    /// Finds out why not everything is done: names the first thing that a partition waits for.
    /// `last_position` tells where the commits of a partition must end.
    pub(crate) fn explain_stall(&mut self, last_position: &dyn Fn(i32) -> Option<i64>) {
        let live = self.assignments.iter().filter(|(_, assignment)| assignment.end.is_none());
        let behind = live.filter(|(_, assignment)| {
            let committed = self.committed.get(&assignment.partition);
            committed.map(|position| position.get()) != last_position(assignment.partition)
        });
        let found = behind.map(|(epoch, assignment)| self.stuck(*epoch, assignment)).next();
        let (promise, why) = found.unwrap_or_else(|| {
            (Promise::Rb1, "a partition is behind and nobody has it".to_owned())
        });
        self.blame(promise, format!("the faults have ended, and yet {why}"));
    }

    fn stuck(&self, epoch: Epoch, assignment: &Assignment) -> (Promise, String) {
        let open = assignment.messages.iter().find(|(_, message)| message.settled.is_none());
        let Some((offset, message)) = open else {
            let position = assignment.finished_position();
            let committed = self.committed.get(&assignment.partition).copied();
            let wants = position > assignment.position && committed < Some(position);
            return if assignment.commits.is_open || wants {
                (Promise::Wm2, format!("epoch {epoch} does not commit {position}"))
            } else {
                (Promise::Ft3, format!("no message is handed over in epoch {epoch}"))
            };
        };
        let (promise, why) = match self.need(assignment, message) {
            None => (Promise::Dl2, "needs nothing more and is not finished".to_owned()),
            Some(need) => self.stuck_in(assignment, message, need),
        };
        (promise, format!("{offset} of epoch {epoch} {why}"))
    }

    fn stuck_in(
        &self,
        assignment: &Assignment,
        message: &Message,
        need: Need,
    ) -> (Promise, String) {
        match need {
            Need::Tasks if !message.taken => (Promise::Ft3, "is in no window".to_owned()),
            Need::Tasks => (Promise::Ft1, "is not arranged".to_owned()),
            Need::Hook => (Promise::Ft1, "waits for a hook that is not called".to_owned()),
            Need::Task(number) => {
                let task = &assignment.tasks[&number];
                debug_assert!(task.phase == TaskPhase::Open);
                let promise = match task.run {
                    RunPhase::None => Promise::Ft1,
                    RunPhase::Waiting | RunPhase::Running(_) | RunPhase::Unreported => Promise::Ft2,
                };
                (promise, format!("waits for task {number}, {:?}", task.run))
            }
            Need::NextStart => (Promise::Ft1, "stopped a worker that must not stop".to_owned()),
            Need::Payload(number, _) => self.stuck_payload(number),
            Need::Letter(doom) => {
                let promise = if message.letter.offers == 0 { Promise::Ft1 } else { Promise::Dl4 };
                (promise, format!("waits for its dead letter, doomed by {doom:?}"))
            }
        }
    }

    fn stuck_payload(&self, number: Number) -> (Promise, String) {
        let Some(payload) = self.payloads.get(&number) else {
            return (Promise::Dl1, format!("waits for payload {number}, which is not there"));
        };
        if payload.lettering {
            return (Promise::Dl4, format!("waits for the dead letter of payload {number}"));
        }
        let promise = match payload.last {
            _ if payload.in_flight => Promise::Ft2,
            Some(Heard::NotApplied | Heard::Unknown) => Promise::Dl3,
            Some(_) => Promise::Ft1,
            None => Promise::Dl1,
        };
        (promise, format!("waits for payload {number}, {payload:?}"))
    }
}
