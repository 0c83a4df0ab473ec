//! A partition that cannot go on says so, once, and names what it waits for.
//!
//! Stalled is a partition whose oldest unfinished offset has not moved for
//! [`stall_after`](crate::EngineConfig::stall_after), whatever the reason: a hook that does not
//! answer, a task, a sink, a dead letter that cannot be written; or, for an offset that is in no window
//! yet, other partitions that fill the worker. Stalled is it, too, when what is
//! finished could not be committed for that long; and as soon as it has been read as far beyond its
//! oldest unfinished offset as it may be, if most of what was read is finished and only waits for
//! that one.

use super::Partition;
use super::effect::Effect;
use super::message::MessagePhase;
use super::output::Owner;
use super::task::{TaskPhase, TaskState};
use super::window::WindowPhase;
use crate::backpressure::Admission;
use crate::config::StallResponse;
use drakkar_api::{CommitOffset, Event, Instant, Offset, RunId, SourceError, TaskId};

/// What is known of a partition's progress.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The oldest unfinished offset, and since when it is that.
    blocking: Option<(Offset, Instant)>,
    /// The committed position beyond which something is finished, and since when that is so.
    uncommitted: Option<(Option<CommitOffset>, Instant)>,
    /// Why the last commit failed.
    commit_error: Option<String>,
    reported: Option<Stall>,
    /// Whether what was reported was killed, so that it is looked at again.
    is_killing: bool,
}

/// What was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// This offset is not finished.
    Offset(Offset),
    /// Nothing beyond this position is committed.
    Commit(Option<CommitOffset>),
}

impl Partition {
    /// Returns whether it was told that this partition is stalled.
    pub(crate) fn is_stalled(&self) -> bool {
        self.progress.reported.is_some()
    }

    /// Hears that it was told already, for a hook that blocked its thread: what is left is to tell that
    /// it goes on.
    pub(crate) fn take_over_stall(&mut self) {
        let blocking = self.oldest_unfinished().map(Stall::Offset);
        self.progress.reported = self.progress.reported.or(blocking);
        if self.progress.reported.is_none() {
            self.observer.observe(&Event::PartitionRecovered { partition: &self.id });
        }
    }

    /// Returns when a report is due if nothing happens.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        let is_told = self.progress.reported.is_some();
        if (is_told && !self.progress.is_killing) || self.drain.is_active() {
            return None;
        }
        let blocking = self.progress.blocking.map(|(_, since)| since);
        // While tasks are killed only they are looked at: a due time that nothing uses would come
        // again and again.
        let uncommitted = self.progress.uncommitted.filter(|_| !is_told).map(|(_, since)| since);
        Some(blocking.into_iter().chain(uncommitted).min()? + self.config.stall_after)
    }

    /// Returns the oldest offset that is not finished, also if it is in no window yet.
    fn oldest_unfinished(&self) -> Option<Offset> {
        let queued = || self.queue.front().map(|message| message.offset);
        self.watermark.blocking().or_else(queued)
    }

    /// Remembers how a commit was answered.
    pub(super) fn note_commit(&mut self, error: Option<&SourceError>) {
        self.progress.commit_error = error.map(ToString::to_string);
    }

    /// Tells that the partition is stalled, or that it goes on.
    pub(super) fn report_stall(&mut self) {
        let blocking = self.oldest_unfinished();
        if self.progress.blocking.map(|(offset, _)| offset) != blocking {
            self.progress.blocking = blocking.map(|offset| (offset, self.now));
        }
        let committed = self.commit.committed();
        if self.watermark.position() <= committed {
            self.progress.uncommitted = None;
        } else if self.progress.uncommitted.is_none_or(|(position, _)| position != committed) {
            self.progress.uncommitted = Some((committed, self.now));
        }
        if self.progress.reported.is_some_and(|stall| self.has_recovered(stall)) {
            self.progress.reported = None;
            self.progress.is_killing = false;
            self.observer.observe(&Event::PartitionRecovered { partition: &self.id });
        }
        if !self.may_report() {
            return;
        }
        let found = self.find_stalled_offset().or_else(|| self.find_stalled_commit());
        if let Some((stall, reason)) = found {
            self.progress.reported = Some(stall);
            let keeps_ready = self.respond(stall);
            if cfg!(drakkar_fault = "stall_not_told") {
                return;
            }
            let (partition, reason) = (&self.id, &reason);
            self.observer.observe(&Event::PartitionFailed { partition, reason, keeps_ready });
        }
    }

    /// Once is enough, unless tasks are killed: the next attempt may hang too, and gets its time.
    fn may_report(&self) -> bool {
        let hangs_again = || {
            let since = self.progress.blocking.map(|(_, since)| since);
            let is_over = since.is_some_and(|since| self.now - since >= self.config.stall_after);
            self.progress.is_killing && is_over
        };
        !self.drain.is_active() && (self.progress.reported.is_none() || hangs_again())
    }

    /// Does what the settings say of a stalled partition, and answers whether the worker is ready
    /// nevertheless.
    fn respond(&mut self, stall: Stall) -> bool {
        let killed = match (self.config.stall_response, stall) {
            (StallResponse::KillTask, Stall::Offset(offset)) => self.kill_tasks_of(offset),
            _ => false,
        };
        self.progress.is_killing = killed;
        killed || self.config.stall_response == StallResponse::Warn
    }

    /// Kills the tasks that a message waits for and that run, and answers whether there are any. Its
    /// time begins anew.
    fn kill_tasks_of(&mut self, offset: Offset) -> bool {
        let holder = self.holder_of(offset);
        let mut runs = Vec::new();
        for (&key, task) in self.tasks.iter_mut() {
            if task.phase == TaskPhase::Running && task.offsets.contains(&holder) {
                task.phase = TaskPhase::Stalled;
                runs.push(RunId::new(key));
            }
        }
        if runs.is_empty() {
            return false;
        }
        if !cfg!(drakkar_fault = "stalled_tasks_spared") {
            self.effects.push(Effect::Kill(runs));
        }
        self.progress.blocking = Some((offset, self.now));
        true
    }

    fn find_stalled_offset(&self) -> Option<(Stall, String)> {
        let (offset, since) = self.progress.blocking?;
        let stalled = if self.is_full_of_finished() {
            let finished = self.watermark.ahead() - self.watermark.unfinished();
            format!(
                "is unfinished, {finished} later ones are finished and wait for it \
                 (kafka.max_ahead_offsets)"
            )
        } else if self.now - since >= self.config.stall_after {
            format!("is unfinished since {} s", (self.now - since).as_secs())
        } else {
            return None;
        };
        // Looked for only now: this is called at every input.
        let reason = format!("stalled: offset {offset} {stalled}; {}", self.waits_for(offset));
        Some((Stall::Offset(offset), reason))
    }

    fn find_stalled_commit(&self) -> Option<(Stall, String)> {
        let (committed, since) = self.progress.uncommitted?;
        if self.now - since < self.config.stall_after {
            return None;
        }
        let position = self.watermark.position()?;
        let error = self.progress.commit_error.as_deref().unwrap_or("the source does not answer");
        let reason = format!(
            "stalled: what is finished below {position} cannot be committed since {} s; {error}",
            (self.now - since).as_secs()
        );
        Some((Stall::Commit(committed), reason))
    }

    /// Returns whether most of what may be read ahead is read and finished.
    fn is_full_of_finished(&self) -> bool {
        let ahead = self.watermark.ahead();
        let finished = ahead - self.watermark.unfinished();
        ahead >= self.config.ahead_max && finished * 2 >= ahead
    }

    /// Another offset is the oldest unfinished one, and half of the distance was made good; or
    /// something was committed.
    fn has_recovered(&self, stall: Stall) -> bool {
        match stall {
            Stall::Offset(offset) => {
                self.oldest_unfinished() != Some(offset)
                    && self.watermark.ahead() <= self.config.ahead_max / 2
            }
            Stall::Commit(position) => self.commit.committed() != position,
        }
    }

    /// Says what an unfinished offset waits for.
    fn waits_for(&self, offset: Offset) -> String {
        let Some(message) = self.messages.get(&offset) else {
            return match self.admission {
                Admission::Nothing => {
                    "it is in no window, and none is formed: the worker is full of \
                                       what others hold (executor.max_buffered_bytes, \
                                       executor.max_buffered_payloads)"
                        .to_owned()
                }
                _ => "it is in no window".to_owned(),
            };
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
                _ => match self.holder_of(offset) {
                    holder if holder == offset => format!("window {} is not done", message.window),
                    holder => {
                        let why = self.waits_for(holder);
                        format!("its window waits for offset {holder}: {why}")
                    }
                },
            },
        }
    }

    /// Returns the message whose work holds this one: the first of its window that is not settled, if
    /// this one is and waits for that.
    fn holder_of(&self, offset: Offset) -> Offset {
        let held = self.messages.get(&offset).filter(|m| m.phase == MessagePhase::Held);
        let window = held.and_then(|message| self.windows.get(&message.window));
        let is_open = |offset: &&Offset| {
            self.messages.get(offset).is_some_and(|m| m.phase != MessagePhase::Held)
        };
        window.and_then(|window| window.messages.iter().find(is_open)).map_or(offset, |&open| open)
    }

    fn task_waits_for(&self, key: u64, task: &TaskState) -> String {
        let id = task.task.id.as_ref().map_or("", TaskId::as_str);
        let what = match task.phase {
            TaskPhase::Attached | TaskPhase::BackingOff => "waits for its next attempt",
            TaskPhase::Waiting | TaskPhase::Withdrawing | TaskPhase::Withdrawn => {
                "waits for a slot"
            }
            TaskPhase::Running => {
                let pid = self.pids.as_ref().and_then(|pids| pids(RunId::new(key)));
                return match pid {
                    Some(pid) => format!("task {id} runs, its process is {pid}"),
                    None => format!("task {id} runs"),
                };
            }
            TaskPhase::Stalled => "is being killed",
            TaskPhase::Deciding => "waits for on_error",
            TaskPhase::Completing => {
                return format!("task {id}: {}", self.outputs_wait_for(Owner::Task(key)));
            }
            TaskPhase::Killed => "was ended by the executor",
            TaskPhase::Halted => "failed, and the worker stops (executor.on_failure)",
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
