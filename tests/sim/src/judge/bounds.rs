//! What may be kept in a worker (promise FT-3), and that a partition which cannot go on says so
//! (promise FT-1).

use super::assignment::{Assignment, Message, Task, TaskPhase};
use super::{Judge, SLACK};
use crate::journal::WorkerNumber;
use crate::promise::Promise;
use drakkar_api::{Epoch, Offset, WindowId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much later than its deadline a stall may be told.
pub(super) const STALL_SLACK: Duration = Duration::from_millis(250);

/// After so many attempts in a row that put out the same, their average is more than half of that.
const OUTPUTS_IN_ROW: u32 = 8;

impl Judge {
    /// No message is handed over while more than enough is in the worker.
    pub(super) fn check_flow(&mut self, worker: WorkerNumber, epoch: Epoch) {
        // What was too much a moment ago may be gone by now.
        self.note_loads();
        let full = self.accounts.get(&worker).and_then(|account| account.full_since);
        if let Some((since, why)) = full.filter(|(since, _)| *since < self.now) {
            let what = format!(
                "messages of epoch {epoch} were taken, though {why} are at the mark since {since:?}"
            );
            self.blame(Promise::Ft3, what);
        }
    }

    /// Looks, at the end of an instant, how much is in each worker at least: runs that the executor
    /// has, bytes of messages that are not settled, and payloads in calls of sinks.
    pub(super) fn note_loads(&mut self) {
        self.note_outputs();
        let now = self.now;
        let live = self.assignments.iter().filter(|(_, it)| it.end.is_none() && !it.fenced);
        let mut loads: BTreeMap<WorkerNumber, (usize, usize, usize)> =
            self.accounts.keys().map(|worker| (*worker, (0, 0, 0))).collect();
        let in_calls = self.payloads.values().filter(|payload| payload.in_flight);
        let mut payloads: BTreeMap<Epoch, usize> = BTreeMap::new();
        in_calls.for_each(|payload| *payloads.entry(payload.epoch).or_default() += 1);
        for (epoch, assignment) in live {
            let load = loads.entry(assignment.worker).or_default();
            let runs = assignment.tasks.values().filter(|task| task.run.is_with_executor());
            load.0 += runs.count();
            let open = assignment.messages.values().filter(|message| message.settled.is_none());
            load.1 += open.map(|message| message.bytes).sum::<usize>();
            load.2 += payloads.get(epoch).copied().unwrap_or(0);
        }
        let config = &self.config;
        let (runs_max, bytes_max) = (config.load_count.pause_at, config.load_bytes.pause_at);
        let payloads_max = config.load_payloads.pause_at;
        for (worker, (runs, bytes, payloads)) in loads {
            let why = match (runs >= runs_max, bytes >= bytes_max, payloads >= payloads_max) {
                (true, _, _) => Some("runs"),
                (_, true, _) => Some("bytes"),
                (_, _, true) => Some("payloads"),
                _ => None,
            };
            let account = self.account(worker);
            account.full_since = match (why, account.full_since) {
                (None, _) => None,
                (Some(_), Some(since)) => Some(since),
                (Some(why), None) => Some((now, why)),
            };
            let crowded_since = account.crowded_since.unwrap_or(now);
            account.crowded_since = (runs >= runs_max).then_some(crowded_since);
        }
    }

    /// An attempt has ended, and put out as much as any that succeeds, or something else.
    pub(super) fn note_output(&mut self, epoch: Epoch, is_full: bool) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            let in_row = assignment.full_outputs + 1;
            assignment.full_outputs = if is_full { in_row } else { 0 };
        }
    }

    /// Looks whether what runs in each worker is likely to put out too much, judged by at least half
    /// of what came out of each assignment lately.
    fn note_outputs(&mut self) {
        let now = self.now;
        let live = self.assignments.values().filter(|it| it.end.is_none() && !it.fenced);
        let mut bytes: BTreeMap<WorkerNumber, usize> =
            self.accounts.keys().map(|worker| (*worker, 0)).collect();
        for assignment in live {
            let is_first = |task: &&Task| task.run.is_with_executor() && task.outcome.is_none();
            let runs = assignment.tasks.values().filter(is_first).count();
            let is_known = assignment.full_outputs >= OUTPUTS_IN_ROW;
            let each = if is_known { self.output_bytes / 2 } else { 0 };
            *bytes.entry(assignment.worker).or_default() += runs * each;
        }
        for (worker, bytes) in bytes {
            let is_heavy = bytes >= self.config.load_bytes.pause_at;
            let account = self.account(worker);
            let since = account.heavy_since.unwrap_or(now);
            if is_heavy && account.heavy_since.replace(since).is_none() {
                self.count("outputs that would reach the mark of bytes");
            } else if !is_heavy {
                account.heavy_since = None;
            }
        }
    }

    /// A partition that has a window takes no other one while more than enough is in the worker.
    pub(super) fn check_crowd(&mut self, epoch: Epoch, window: WindowId) {
        self.note_loads();
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let has_another = assignment.tasks.values().any(|task| {
            task.window != window && task.phase == TaskPhase::Open && task.run.is_with_executor()
        });
        let account = self.accounts.get(&assignment.worker);
        let since = account.and_then(|account| account.crowded_since);
        // In an instant in which runs were reported there may have been room for a moment.
        let eased_now = self.eased_at == Some(self.now);
        let is_forbidden = |since: &Duration| *since < self.now && has_another && !eased_now;
        let heavy = account.and_then(|account| account.heavy_since);
        let heavy = heavy.filter(|since| is_forbidden(since) && self.settled_at != Some(self.now));
        if let Some(since) = since.filter(is_forbidden) {
            let what = format!(
                "epoch {epoch} made another window, though the runs are at the mark since {since:?}"
            );
            self.blame(Promise::Ft3, what);
        } else if let Some(since) = heavy {
            let what = format!(
                "epoch {epoch} made another window, though what runs since {since:?} is likely to put \
                 out more than the mark"
            );
            self.blame(Promise::Ft3, what);
        }
    }

    /// Returns whether so much may be in windows that a partition which has one takes no other.
    pub(super) fn may_be_crowded(&self, worker: WorkerNumber) -> bool {
        let live = self.assignments.values().filter(|it| it.worker == worker && it.end.is_none());
        let in_windows = live.map(|assignment| {
            let is_open = |message: &Message| message.taken && message.settled.is_none();
            let messages = assignment.messages.values().filter(|message| is_open(message)).count();
            // A task counts until its outputs are settled, and so may all of an open message.
            let of_open = |offset| assignment.messages.get(offset).is_some_and(is_open);
            let tasks = assignment.tasks.values().filter(|task| task.offsets.iter().any(of_open));
            // Of each message there may be a window in its last hook.
            messages * 2 + tasks.count()
        });
        let marks = self.config.load_count;
        in_windows.sum::<usize>() > marks.resume_at + (marks.pause_at - marks.resume_at) / 2
    }

    /// What waits for a window fits into the buffer. What is in a window that is just being taken
    /// cannot be told from it.
    pub(super) fn check_buffer(&mut self, epoch: Epoch) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let waiting = || {
            let waits = assignment.messages.values();
            waits.filter(|message| !message.taken && message.settled.is_none())
        };
        let (count, bytes) = (waiting().count(), waiting().map(|m| m.bytes).sum::<usize>());
        let largest = waiting().map(|message| message.bytes).max().unwrap_or(0);
        let window = self.config.window_size;
        let count_max = self.config.buffer_messages + window;
        let bytes_max = self.config.buffer_bytes + (window + 1) * largest;
        if count > count_max || bytes > bytes_max {
            let what = format!("{count} messages of {bytes} bytes wait in epoch {epoch}");
            self.blame(Promise::Ft3, what);
        }
    }

    /// Not too far is read beyond an unfinished offset.
    pub(super) fn check_ahead(&mut self, epoch: Epoch) {
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let taken = assignment.messages.values().filter(|message| message.taken);
        let ahead = taken.skip_while(|message| message.is_finished()).count();
        if ahead > self.config.ahead_max {
            let what = format!(
                "epoch {epoch} has {ahead} messages from the oldest unfinished one on; the limit is {}",
                self.config.ahead_max
            );
            self.blame(Promise::Ft3, what);
        }
    }

    /// Not too many windows are open. One more may be what is left of a divided one; where a narrow
    /// bound of tasks divides windows, it cannot be seen from outside which messages went where.
    pub(super) fn check_windows(&mut self, epoch: Epoch) {
        if self.has_narrow_bounds {
            return;
        }
        let Some(assignment) = self.assignments.get(&epoch) else { return };
        let is_open = |offset| {
            let message = assignment.messages.get(offset);
            message.is_some_and(|message| message.settled.is_none())
        };
        let open = assignment.windows.values().filter(|window| window.messages.iter().any(is_open));
        let open = open.count();
        if open > self.config.open_windows_max + 1 {
            let what = format!(
                "epoch {epoch} has {open} open windows; the limit is {}",
                self.config.open_windows_max
            );
            self.blame(Promise::Ft3, what);
        }
    }

    /// Remembers the oldest unfinished message, and the oldest of those in windows, and since when
    /// they are that.
    pub(super) fn note_oldest(&mut self, epoch: Epoch) {
        let now = self.now;
        let Some(assignment) = self.assignments.get_mut(&epoch) else { return };
        let mut unfinished =
            assignment.messages.iter().filter(|(_, message)| !message.is_finished());
        let blocking = unfinished.clone().next().map(|(at, _)| *at);
        let oldest = unfinished.find(|(_, message)| message.taken).map(|(at, _)| *at);
        let note = |known: &mut Option<(Offset, Duration)>, found: Option<Offset>| {
            if known.map(|(at, _)| at) != found {
                *known = found.map(|at| (at, now));
            }
        };
        note(&mut assignment.blocking, blocking);
        note(&mut assignment.oldest, oldest);
    }

    /// A partition whose oldest unfinished offset has not moved for long says so.
    pub(super) fn check_stalls_are_told(&mut self, at: Duration) {
        let limit = self.config.stall_after + STALL_SLACK + SLACK;
        let silent = |assignment: &Assignment| {
            assignment.end.is_none()
                && assignment.drain.is_none()
                && !assignment.stalled
                && assignment.oldest.is_some_and(|(_, since)| since + limit < at)
        };
        if let Some((epoch, assignment)) = self.assignments.iter().find(|(_, it)| silent(it)) {
            let what = format!(
                "epoch {epoch} does not move beyond {:?}, and nobody says so",
                assignment.oldest
            );
            self.blame(Promise::Ft1, what);
        }
    }
}
