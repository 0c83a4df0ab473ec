//! What the engine tells of itself, in a form that can be counted.

use crate::journal::{Journal, WorkerNumber};
use crate::seen::{Seen, Told};
use drakkar_api::{Event, Observer, Offset, PartitionId};

/// The observer that an engine of the simulation is given.
pub(crate) struct TracedObserver {
    pub(crate) journal: Journal,
    pub(crate) worker: WorkerNumber,
}

impl Observer for TracedObserver {
    fn observe(&self, event: &Event<'_>) {
        if self.journal.keeps_all() && !matches!(event, Event::Polled) {
            self.journal.see(self.worker, Seen::ToldInFull(format!("{event:?}")));
        }
        if let Some(partition) = subject(event) {
            self.journal.ask(|judge| judge.hear_of(self.worker, partition.partition(), event));
        }
        if let Some(told) = told(event) {
            self.journal.see(self.worker, Seen::Told(told));
        }
    }
}

/// Returns the partition that an event is about.
fn subject<'a>(event: &Event<'a>) -> Option<&'a PartitionId> {
    match event {
        Event::Assigned { partition }
        | Event::Revoked { partition, .. }
        | Event::Lost { partition }
        | Event::Consumed { partition, .. }
        | Event::ParseFailed { partition, .. }
        | Event::Tombstone { partition, .. }
        | Event::Arranged { partition, .. }
        | Event::WindowFinished { partition, .. }
        | Event::MessageFinished { partition, .. }
        | Event::MessageLeft { partition, .. }
        | Event::Committed { partition, .. }
        | Event::CommitFailed { partition, .. }
        | Event::DeadLettered { partition, .. }
        | Event::DeadLetterFailed { partition, .. }
        | Event::Depth { partition, .. }
        | Event::PartitionFailed { partition, .. }
        | Event::PartitionRecovered { partition } => Some(partition),
        Event::HookFailed { partition, .. } => *partition,
        Event::TaskScheduled { path }
        | Event::TaskStarted { path, .. }
        | Event::TaskFinished { path, .. }
        | Event::TaskRetried { path, .. }
        | Event::RetriesExhausted { path }
        | Event::TaskSkipped { path }
        | Event::TaskReplaced { path, .. } => Some(path.partition),
        _ => None,
    }
}

fn told(event: &Event<'_>) -> Option<Told> {
    let of = |partition: &PartitionId| partition.partition();
    Some(match event {
        Event::Consumed { partition, messages } => {
            Told::Consumed { partition: of(partition), messages: *messages }
        }
        Event::MessageFinished { partition, offset, end, .. } => {
            Told::Finished { partition: of(partition), offset: *offset, end: end.as_str() }
        }
        Event::MessageLeft { partition, offset, .. } => {
            Told::Left { partition: of(partition), offset: *offset }
        }
        Event::TaskFinished { .. } => Told::TaskFinished,
        Event::TaskRetried { .. } => Told::TaskRetried,
        Event::TaskSkipped { .. } => Told::TaskSkipped,
        Event::TaskReplaced { .. } => Told::TaskReplaced,
        Event::Committed { partition, .. } => Told::Committed { partition: of(partition) },
        Event::CommitFailed { partition, .. } => Told::CommitFailed { partition: of(partition) },
        Event::DeadLettered { .. } => Told::DeadLettered,
        Event::DeadLetterFailed { dropped: true, .. } => Told::LetterDropped,
        Event::DeliverySkipped { payloads, .. } => Told::DeliverySkipped { payloads: *payloads },
        Event::Tombstone { .. } => Told::Tombstone,
        Event::ParseFailed { .. } => Told::ParseFailed,
        Event::HookFailed { .. } => Told::HookFailed,
        Event::PartitionFailed { partition, reason, keeps_ready }
            if reason.starts_with("stalled") =>
        {
            let offset = offset_after(reason, "stalled: offset ");
            Told::Stalled { partition: of(partition), offset, keeps_ready: *keeps_ready }
        }
        Event::PartitionFailed { partition, reason, .. } if reason.starts_with("stopped") => {
            let offset = offset_after(reason, "stopped at offset ")?;
            Told::Stopped { partition: of(partition), offset }
        }
        Event::PartitionFailed { reason, .. } => Told::Broken((*reason).to_owned()),
        Event::PartitionRecovered { partition } => Told::Recovered { partition: of(partition) },
        Event::Backpressure { active, .. } => Told::Backpressure { active: *active },
        _ => return None,
    })
}

/// Reads the offset that a reason names behind these words.
fn offset_after(reason: &str, words: &str) -> Option<Offset> {
    let rest = reason.strip_prefix(words)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok().map(Offset::new)
}
