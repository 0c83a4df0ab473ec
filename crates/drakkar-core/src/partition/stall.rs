//! A partition that cannot go on says so and names what it waits for; again when that is something
//! else.
//!
//! Stalled is a partition whose oldest unfinished offset has not moved for
//! [`stall_after`](crate::EngineConfig::stall_after), whatever the reason: a hook that does not
//! answer, a task, a sink, a dead letter that cannot be written; or, for an offset that is in no window
//! yet, other partitions that fill the worker. Stalled is it, too, when what is
//! finished could not be committed for that long; and as soon as it has been read as far beyond its
//! oldest unfinished offset as it may be, if most of what was read is finished and only waits for
//! that one.

use super::effect::Effect;
use super::message::MessagePhase;
use super::output::Owner;
use super::task::{TaskKey, TaskPhase, TaskState};
use super::window::WindowPhase;
use super::{Partition, Timer};
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
    reported: Option<Report>,
}

/// That the partition is stalled, as it was told last.
#[derive(Debug)]
struct Report {
    stall: Stall,
    /// What it waits for.
    culprit: String,
    /// When it was last looked what that is.
    looked_at: Instant,
}

/// What was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// This offset is not finished.
    Offset(Offset),
    /// Nothing beyond this position is committed.
    Commit(Option<CommitOffset>),
}

/// What followed a stall beside the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Response {
    Told,
    /// What the partition waits for is killed.
    Killed,
    /// The worker is not ready until the partition goes on.
    Unready,
}

/// What is to be told of a stall.
struct Found {
    stall: Stall,
    told: String,
    culprit: String,
}

impl Partition {
    /// Returns whether it was told that this partition is stalled.
    pub(crate) fn is_stalled(&self) -> bool {
        self.progress.reported.is_some()
    }

    /// Hears that it was told already, for a hook that blocked its thread: what is left is to tell that
    /// it goes on.
    pub(crate) fn take_over_stall(&mut self, now: Instant) {
        self.now = now;
        if self.progress.reported.is_some() {
            return;
        }
        match self.oldest_unfinished() {
            Some(offset) => self.note_report(Stall::Offset(offset), String::new()),
            None => self.observer.observe(&Event::PartitionRecovered { partition: &self.id }),
        }
    }

    fn note_report(&mut self, stall: Stall, culprit: String) {
        self.progress.reported = Some(Report { stall, culprit, looked_at: self.now });
    }

    /// Returns when a report is due if nothing happens: when the partition has not moved for so long,
    /// and then as often, because what it waits for may be something else or hang again.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        if self.drain.is_active() {
            return None;
        }
        let blocking = self.progress.blocking.map(|(_, since)| since);
        let uncommitted = self.progress.uncommitted.map(|(_, since)| since);
        let since = blocking.into_iter().chain(uncommitted).min()?;
        // What was told before that time, or is looked at again, comes in its own.
        let looked_at = self.progress.reported.as_ref().map(|report| report.looked_at);
        let looked_late = looked_at.filter(|&at| at - since >= self.config.stall_after);
        Some(looked_late.unwrap_or(since) + self.config.stall_after)
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
        let reported = self.progress.reported.as_ref().map(|report| report.stall);
        if reported.is_some_and(|stall| self.has_recovered(stall)) {
            self.progress.reported = None;
            self.observer.observe(&Event::PartitionRecovered { partition: &self.id });
        }
        let is_told = self.progress.reported.is_some();
        if self.drain.is_active() || is_told && self.stall_due().is_none_or(|due| due > self.now) {
            return;
        }
        if let Some(found) = self.find_stalled_offset().or_else(|| self.find_stalled_commit()) {
            self.tell_of_stall(found);
        }
    }

    /// Does what the settings say of a stall, and tells of it, unless the same was told before.
    fn tell_of_stall(&mut self, found: Found) {
        let Found { stall, told, culprit } = found;
        let told_before = self.progress.reported.as_ref();
        let is_new = told_before.is_none_or(|it| it.stall != stall || it.culprit != culprit);
        let reason = format!("stalled: {told}; {culprit}");
        self.note_report(stall, culprit);
        let response = self.respond(stall);
        let is_told = is_new || response == Response::Killed;
        if is_told && !cfg!(drakkar_fault = "stall_not_told") {
            self.observer.observe(&Event::PartitionFailed {
                partition: &self.id,
                reason: &reason,
                keeps_ready: response != Response::Unready,
            });
        }
    }

    /// Does what the settings say of a stalled partition. A task that has not had its time yet is
    /// killed when it has.
    fn respond(&mut self, stall: Stall) -> Response {
        let offset = match (self.config.stall_response, stall) {
            (StallResponse::KillTask, Stall::Offset(offset)) => offset,
            (StallResponse::Warn, _) => return Response::Told,
            _ => return Response::Unready,
        };
        let runs = self.runs_for(offset);
        let since = self.progress.blocking.map_or(self.now, |(_, since)| since);
        if runs.is_empty() {
            Response::Unready
        } else if self.now - since < self.config.stall_after
            && !cfg!(drakkar_fault = "tasks_killed_at_once")
        {
            Response::Told
        } else {
            self.kill_stalled(offset, &runs);
            Response::Killed
        }
    }

    /// Returns the tasks that a message waits for and that run.
    fn runs_for(&self, offset: Offset) -> Vec<TaskKey> {
        let holder = self.holder_of(offset);
        let runs = self
            .tasks
            .iter()
            .filter(|(_, task)| task.phase == TaskPhase::Running && task.offsets.contains(&holder));
        runs.map(|(&key, _)| key).collect()
    }

    /// Kills what a message waits for. Its time begins anew.
    fn kill_stalled(&mut self, offset: Offset, runs: &[TaskKey]) {
        for key in runs {
            self.tasks.get_mut(key).expect("it runs").phase = TaskPhase::Stalled;
        }
        if !cfg!(drakkar_fault = "stalled_tasks_spared") {
            self.effects.push(Effect::Kill(runs.iter().map(|&key| RunId::new(key)).collect()));
        }
        self.progress.blocking = Some((offset, self.now));
    }

    fn find_stalled_offset(&self) -> Option<Found> {
        let (offset, since) = self.progress.blocking?;
        let told = if self.is_full_of_finished() {
            let finished = self.watermark.ahead() - self.watermark.unfinished();
            format!(
                "offset {offset} is unfinished, {finished} later ones are finished and wait for it \
                 (kafka.max_ahead_offsets)"
            )
        } else if self.now - since >= self.config.stall_after {
            format!("offset {offset} is unfinished since {} s", (self.now - since).as_secs())
        } else {
            return None;
        };
        // Looked for only now: this is called at every input.
        Some(Found { stall: Stall::Offset(offset), told, culprit: self.waits_for(offset) })
    }

    fn find_stalled_commit(&self) -> Option<Found> {
        let (committed, since) = self.progress.uncommitted?;
        if self.now - since < self.config.stall_after {
            return None;
        }
        let position = self.watermark.position()?;
        let error = self.progress.commit_error.as_deref().unwrap_or("the source does not answer");
        let seconds = (self.now - since).as_secs();
        let told =
            format!("what is finished below {position} cannot be committed since {seconds} s");
        Some(Found { stall: Stall::Commit(committed), told, culprit: error.to_owned() })
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
        if let Some((&key, group)) = self.groups.iter().find(|(_, group)| group.owner == owner) {
            let sink = self.router.sink(group.lane);
            return if group.is_with_handler() {
                format!("on_delivery_error of sink {sink} has not answered")
            } else if self.has_letter_of(key) {
                format!("a dead letter of sink {sink} is not written")
            } else {
                format!("sink {sink} has not taken it")
            };
        }
        let hook = match owner {
            Owner::Task(_) => "on_task_complete".to_owned(),
            Owner::Message(_) => "on_message_complete".to_owned(),
            Owner::Window(id) => format!("on_window_complete of window {id}"),
        };
        let waits = |timer: &Timer| matches!(timer, Timer::Hook(of) if *of == owner);
        match self.timers.values().any(waits) {
            true => format!("{hook} failed and waits to be called again"),
            false => format!("{hook} has not answered"),
        }
    }
}
