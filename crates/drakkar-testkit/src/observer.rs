//! An observer that remembers.

use crate::violations::lock;
use drakkar_api::{Event, Observer, Offset, PartitionId, SinkId};
use std::sync::{Arc, Mutex};

/// Keeps every event as owned data. Clones share what they have seen.
#[derive(Clone, Debug, Default)]
pub struct RecordingObserver {
    seen: Arc<Mutex<Vec<Recorded>>>,
}

/// One event as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The name of the event's variant, such as `TaskFinished`.
    pub name: String,
    /// The partition, for events about one.
    pub partition: Option<PartitionId>,
    /// The message, for events about one.
    pub offset: Option<Offset>,
    /// The task's id, for events about one.
    pub task: Option<String>,
    /// The sink, for events about one.
    pub sink: Option<SinkId>,
    /// The whole event in its `Debug` form.
    pub text: String,
}

impl RecordingObserver {
    /// Makes an observer that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all events in order.
    pub fn all(&self) -> Vec<Recorded> {
        lock(&self.seen).clone()
    }

    /// Returns the events of the variant called `name`, in order.
    pub fn named(&self, name: &str) -> Vec<Recorded> {
        lock(&self.seen).iter().filter(|event| event.name == name).cloned().collect()
    }

    /// Returns how many events of the variant called `name` were seen.
    pub fn count(&self, name: &str) -> usize {
        lock(&self.seen).iter().filter(|event| event.name == name).count()
    }

    /// Returns the names of all events in order.
    pub fn names(&self) -> Vec<String> {
        lock(&self.seen).iter().map(|event| event.name.clone()).collect()
    }

    /// Forgets what was seen.
    pub fn clear(&self) {
        lock(&self.seen).clear();
    }
}

impl Observer for RecordingObserver {
    fn observe(&self, event: &Event<'_>) {
        let recorded = record(event);
        lock(&self.seen).push(recorded);
    }
}

fn record(event: &Event<'_>) -> Recorded {
    let text = format!("{event:?}");
    let name = text.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
    let mut recorded =
        Recorded { name, partition: None, offset: None, task: None, sink: None, text };
    match event {
        Event::Assigned { partition }
        | Event::Revoked { partition, .. }
        | Event::Lost { partition }
        | Event::Consumed { partition, .. }
        | Event::Arranged { partition, .. }
        | Event::WindowFinished { partition, .. }
        | Event::Committed { partition, .. }
        | Event::CommitFailed { partition, .. }
        | Event::Depth { partition, .. }
        | Event::PartitionFailed { partition, .. }
        | Event::PartitionRecovered { partition } => {
            recorded.partition = Some((*partition).clone());
        }
        Event::ParseFailed { partition, offset, .. }
        | Event::Tombstone { partition, offset }
        | Event::MessageFinished { partition, offset, .. }
        | Event::MessageLeft { partition, offset, .. }
        | Event::DeadLettered { partition, offset, .. }
        | Event::DeadLetterFailed { partition, offset, .. } => {
            recorded.partition = Some((*partition).clone());
            recorded.offset = Some(*offset);
        }
        Event::HookFailed { partition, offset, task, .. } => {
            recorded.partition = partition.cloned();
            recorded.offset = *offset;
            recorded.task = task.map(str::to_owned);
        }
        Event::TaskScheduled { path }
        | Event::TaskStarted { path, .. }
        | Event::TaskFinished { path, .. }
        | Event::TaskRetried { path, .. }
        | Event::RetriesExhausted { path }
        | Event::TaskSkipped { path }
        | Event::TaskReplaced { path, .. } => {
            recorded.partition = Some(path.partition.clone());
            recorded.offset = path.task.source_offsets.first().copied();
            recorded.task = Some(path.task_id().to_owned());
        }
        Event::Delivered { sink, .. }
        | Event::DeliveryFailed { sink, .. }
        | Event::DeliveryRetried { sink, .. }
        | Event::DeliverySkipped { sink, .. } => recorded.sink = Some((*sink).clone()),
        _ => {}
    }
    recorded
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{CommitOffset, TaskId, TaskPath, WindowId};

    #[test]
    fn events_are_kept_with_their_names_and_places() {
        let observer = RecordingObserver::new();
        let partition = PartitionId::new("in", 1);
        let mut task = drakkar_api::Task::for_offset(Offset::new(5));
        task.id = Some(TaskId::new("t1"));
        let path =
            TaskPath { partition: &partition, window: WindowId::new(1), task: &task, attempt: 1 };
        observer.observe(&Event::TaskScheduled { path });
        observer.observe(&Event::Committed { partition: &partition, offset: CommitOffset::new(6) });
        assert_eq!(observer.names(), ["TaskScheduled", "Committed"]);
        let scheduled = &observer.named("TaskScheduled")[0];
        assert_eq!(scheduled.task.as_deref(), Some("t1"));
        assert_eq!(scheduled.offset, Some(Offset::new(5)));
        assert_eq!(observer.named("Committed")[0].partition, Some(partition));
    }
}
