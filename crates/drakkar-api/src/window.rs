//! What hooks are given: a window before its tasks exist, a message with all that became of it, and
//! a window when everything in it is settled.

use crate::{Message, PartitionId, PendingTasks, TaskOutput, WindowId};
use std::sync::Arc;
use std::time::Duration;

/// The messages given to one `arrange`, in offset order, all of one partition.
#[derive(Clone, Debug)]
pub struct Window<T> {
    id: WindowId,
    partition: PartitionId,
    messages: Vec<Arc<Message<T>>>,
    pending: PendingTasks,
}

impl<T> Window<T> {
    /// Puts the parts together; the engine, the probe and tests call this.
    pub fn new(
        id: WindowId,
        partition: PartitionId,
        messages: Vec<Arc<Message<T>>>,
        pending: PendingTasks,
    ) -> Self {
        Self { id, partition, messages, pending }
    }

    /// Returns the window's number inside this assignment, from 1.
    pub fn id(&self) -> WindowId {
        self.id
    }

    /// Returns the partition.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// Returns the messages in offset order; offsets may have gaps.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message<T>> + ExactSizeIterator {
        self.messages.iter().map(Arc::as_ref)
    }

    /// Returns how many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns whether there is no message; the engine never arranges such a window.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the tasks of earlier windows of this partition that are not settled yet.
    pub fn pending(&self) -> &PendingTasks {
        &self.pending
    }
}

/// A message whose tasks are all settled, with what became of them.
#[derive(Clone, Debug)]
pub struct MessageGroup<T> {
    /// The message.
    pub message: Arc<Message<T>>,
    /// Every task that was ever scheduled for it, in scheduling order, replaced ones included.
    pub tasks: Vec<Arc<crate::Task>>,
    /// The successes, in completion order.
    pub results: Vec<Arc<TaskOutput>>,
    /// The final failures, in completion order.
    pub errors: Vec<Arc<TaskOutput>>,
    /// From the forming of its window to this moment.
    pub elapsed: Duration,
}

impl<T> MessageGroup<T> {
    /// Returns how many tasks were scheduled.
    pub fn total(&self) -> usize {
        self.tasks.len()
    }

    /// Returns how many tasks succeeded.
    pub fn succeeded(&self) -> usize {
        self.results.len()
    }

    /// Returns how many tasks failed for good.
    pub fn failed(&self) -> usize {
        self.errors.len()
    }

    /// Returns how many tasks were replaced by others.
    pub fn replaced(&self) -> usize {
        self.total().saturating_sub(self.succeeded() + self.failed())
    }

    /// Returns whether no task failed and at least one succeeded.
    pub fn all_succeeded(&self) -> bool {
        self.errors.is_empty() && !self.results.is_empty()
    }

    /// Returns whether the message got no task at all.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// A window whose tasks are all settled and whose messages went through `on_message_complete`.
#[derive(Clone, Debug)]
pub struct CompletedWindow<T> {
    /// The window's number inside this assignment.
    pub id: WindowId,
    /// The partition.
    pub partition: PartitionId,
    /// The messages in offset order.
    pub messages: Vec<Arc<Message<T>>>,
    /// How its tasks ended, in completion order: successes and final failures, replaced tasks not.
    pub results: Vec<Arc<TaskOutput>>,
    /// From the forming of the window to this moment.
    pub elapsed: Duration,
}
