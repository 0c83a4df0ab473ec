//! How often each kind of fault struck and each situation came about, so that one sees what was
//! tried. What never came about proves nothing.

use std::collections::BTreeMap;

/// Every situation that must come about in a long run.
pub const SITUATIONS: &[&str] = &[
    "assignments",
    "reassignments to the same worker",
    "reassignments to another worker",
    "revokes",
    "revokes while another partition stays",
    "revokes with work under way",
    "messages given back",
    "drains beyond their deadline",
    "drains cut short by a late retry",
    "partitions lost",
    "partitions lost with runs under way",
    "shutdowns",
    "shutdowns with work under way",
    "crashes",
    "crashes with work under way",
    "failed sources",
    "commits stored",
    "commits refused",
    "commits in flight at the end of an assignment",
    "messages handed over again",
    "repeats of the source",
    "messages that do not parse",
    "values decoded again",
    "values that parse in the end",
    "tombstones",
    "messages without tasks",
    "tasks of several messages",
    "precomputed successes",
    "precomputed failures",
    "runs that failed",
    "runs beyond their deadline",
    "runs cancelled while they ran",
    "runs withdrawn",
    "reports after the end of their assignment",
    "windows arranged again",
    "windows taken message by message",
    "tasks that must be refused",
    "tasks retried",
    "retries used up",
    "tasks skipped",
    "tasks tried again by the settings",
    "tasks skipped by the settings",
    "hooks called again by the settings",
    "failures of hooks skipped by the settings",
    "messages skipped that could not be arranged",
    "stops for a task",
    "stops for a hook",
    "stops for what could not be arranged",
    "stops for a value that does not parse",
    "tasks replaced",
    "chains of replacements",
    "hooks that failed: on_task_complete",
    "hooks that failed: on_message_complete",
    "hooks that failed: on_window_complete",
    "hooks that failed: on_error",
    "hooks that failed: on_delivery_error",
    "hooks that failed: arrange",
    "hooks that failed: decode",
    "hooks that failed: message_label",
    "hooks that failed: task_priority",
    "outputs that route nowhere",
    "payloads with a sibling for another sink",
    "outputs of messages",
    "outputs of windows",
    "payloads not applied",
    "payloads of unknown fate",
    "payloads rejected",
    "deliveries cut off by their deadline",
    "payloads sent again by themselves",
    "payloads sent again for the handler",
    "payloads skipped",
    "payloads applied twice",
    "letters of messages",
    "letters of payloads",
    "letters refused under hold",
    "letters dropped",
    "flows closed",
    "outputs that would reach the mark of bytes",
    "stalls reported",
    "stalls that made a worker unready",
    "stalls whose tasks were killed",
];

/// Counts by situation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    counts: BTreeMap<&'static str, u64>,
}

impl Census {
    /// Counts a situation.
    pub(crate) fn count(&mut self, situation: &'static str) {
        debug_assert!(SITUATIONS.contains(&situation), "\"{situation}\" is not in the list");
        *self.counts.entry(situation).or_default() += 1;
    }

    /// Adds the counts of another world.
    pub fn add(&mut self, other: &Self) {
        for (situation, count) in &other.counts {
            *self.counts.entry(situation).or_default() += count;
        }
    }

    /// Returns how often a situation came about.
    pub fn of(&self, situation: &str) -> u64 {
        self.counts.get(situation).copied().unwrap_or(0)
    }

    /// Returns the situations that never came about.
    pub fn missing(&self) -> Vec<&'static str> {
        SITUATIONS.iter().copied().filter(|situation| self.of(situation) == 0).collect()
    }
}
