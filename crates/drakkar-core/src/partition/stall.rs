//! A partition that cannot go on says so, once, and names what it waits for.
//!
//! Stalled is a partition whose oldest unfinished offset has not moved for
//! [`stall_after`](crate::EngineConfig::stall_after), whatever the reason: a hook that does not
//! answer, a task, a sink, a dead letter that cannot be written. Stalled is it, too, as soon as it
//! has been read as far beyond that offset as it may be, if most of what was read is finished and
//! only waits for that one.

use super::Partition;
use super::message::MessagePhase;
use super::output::Owner;
use super::task::{TaskPhase, TaskState};
use super::window::WindowPhase;
use drakkar_api::{Event, Instant, Offset, TaskId};

/// What is known of a partition's progress.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The oldest unfinished offset, and since when it is that.
    blocking: Option<(Offset, Instant)>,
    /// The offset that was reported.
    reported: Option<Offset>,
}

impl Partition {
    /// Returns when a report is due if nothing happens.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        let (_, since) = self.progress.blocking.filter(|_| self.progress.reported.is_none())?;
        (!self.drain.is_active()).then(|| since + self.config.stall_after)
    }

    /// Tells that the partition is stalled, or that it goes on.
    pub(super) fn report_stall(&mut self) {
        let blocking = self.watermark.blocking();
        if self.progress.blocking.map(|(offset, _)| offset) != blocking {
            self.progress.blocking = blocking.map(|offset| (offset, self.now));
        }
        if self.progress.reported.is_some() && self.has_recovered() {
            self.progress.reported = None;
            self.observer.observe(&Event::PartitionRecovered { partition: &self.id });
        }
        let Some((offset, since)) = self.progress.blocking else { return };
        if self.progress.reported.is_some() || self.drain.is_active() {
            return;
        }
        let stalled = if self.is_full_of_finished() {
            let finished = self.watermark.ahead() - self.watermark.unfinished();
            format!(
                "is unfinished, {finished} later ones are finished and wait for it \
                 (kafka.max_ahead_offsets)"
            )
        } else if self.now - since >= self.config.stall_after {
            format!("is unfinished since {} s", (self.now - since).as_secs())
        } else {
            return;
        };
        // Looked for only now: this is called at every input.
        let reason = format!("stalled: offset {offset} {stalled}; {}", self.waits_for(offset));
        self.progress.reported = Some(offset);
        if cfg!(drakkar_fault = "stall_not_told") {
            return;
        }
        let partition = &self.id;
        self.observer.observe(&Event::PartitionFailed { partition, reason: &reason });
    }

    /// Returns whether most of what may be read ahead is read and finished.
    fn is_full_of_finished(&self) -> bool {
        let ahead = self.watermark.ahead();
        let finished = ahead - self.watermark.unfinished();
        ahead >= self.config.ahead_max && finished * 2 >= ahead
    }

    /// Another offset is the oldest unfinished one, and half of the distance was made good.
    fn has_recovered(&self) -> bool {
        self.watermark.blocking() != self.progress.reported
            && self.watermark.ahead() <= self.config.ahead_max / 2
    }

    /// Says what an unfinished offset waits for.
    fn waits_for(&self, offset: Offset) -> String {
        let Some(message) = self.messages.get(&offset) else {
            return "it is in no window".to_owned();
        };
        match message.phase {
            MessagePhase::Arranging => {
                format!("window {} is being arranged", message.window)
            }
            MessagePhase::Working => {
                let task = self.tasks.iter().find(|(_, task)| task.offsets.contains(&offset));
                task.map_or_else(String::new, |(&key, task)| self.task_waits_for(key, task))
            }
            MessagePhase::Completing => self.outputs_wait_for(Owner::Message(offset)),
            MessagePhase::DeadLettering => "its dead letter is not written".to_owned(),
            MessagePhase::Held => match self.windows.get(&message.window).map(|w| w.phase) {
                Some(WindowPhase::Completing) => {
                    self.outputs_wait_for(Owner::Window(message.window))
                }
                Some(WindowPhase::DeadLettering) => {
                    format!("dead letters of window {} are not written", message.window)
                }
                _ => format!("window {} is not done", message.window),
            },
        }
    }

    fn task_waits_for(&self, key: u64, task: &TaskState) -> String {
        let id = task.task.id.as_ref().map_or("", TaskId::as_str);
        let what = match task.phase {
            TaskPhase::Attached | TaskPhase::BackingOff => "waits for its next attempt",
            TaskPhase::Waiting | TaskPhase::Withdrawing | TaskPhase::Withdrawn => {
                "waits for a slot"
            }
            TaskPhase::Running => "runs",
            TaskPhase::Deciding => "waits for on_error",
            TaskPhase::Completing => {
                return format!("task {id}: {}", self.outputs_wait_for(Owner::Task(key)));
            }
            TaskPhase::Killed => "was ended by the executor",
        };
        format!("task {id} {what}")
    }

    /// Says whether a hook has not answered yet, or which sink has not.
    fn outputs_wait_for(&self, owner: Owner) -> String {
        let group = self.groups.values().find(|group| group.owner == owner);
        match (group, owner) {
            (Some(group), _) => format!("sink {} has not taken it", self.router.sink(group.lane)),
            (None, Owner::Task(_)) => "on_task_complete has not answered".to_owned(),
            (None, Owner::Message(_)) => "on_message_complete has not answered".to_owned(),
            (None, Owner::Window(id)) => {
                format!("on_window_complete of window {id} has not answered")
            }
        }
    }
}
