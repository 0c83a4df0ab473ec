//! What the sink holds, compared with what was produced and with what was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, ensure};

use crate::{Committed, Load, Record, TaskKey};

/// How many offenders a message shows.
const EXAMPLES_MAX: usize = 5;

/// Every record of the sink, counted by task.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    copies: BTreeMap<TaskKey, u64>,
    exit_codes: BTreeSet<i64>,
    stdout_lens: BTreeSet<u64>,
}

impl Ledger {
    /// Enters a record.
    pub fn add(&mut self, record: &Record) {
        *self.copies.entry(record.task).or_default() += 1;
        self.exit_codes.insert(record.exit_code);
        self.stdout_lens.insert(record.stdout_len);
    }

    /// How many records there are, repeats included.
    pub fn records(&self) -> u64 {
        self.copies.values().sum()
    }

    /// How tasks ended, each way once.
    pub fn exit_codes(&self) -> &BTreeSet<i64> {
        &self.exit_codes
    }

    /// How many bytes tasks wrote, each amount once.
    pub fn stdout_lens(&self) -> &BTreeSet<u64> {
        &self.stdout_lens
    }

    /// Compares what is here with what must be here.
    pub fn account(&self, load: Load) -> Account {
        let is_produced = |task: &TaskKey| task.n < load.messages && task.j < load.fanout;
        Account {
            load,
            records: self.records(),
            lost: load.keys().filter(|task| !self.copies.contains_key(task)).collect(),
            invented: self.copies.keys().copied().filter(|task| !is_produced(task)).collect(),
            repeated: self
                .copies
                .iter()
                .filter(|(_, copies)| **copies > 1)
                .map(|(task, copies)| (*task, copies - 1))
                .collect(),
        }
    }

    /// Tasks of committed messages that are not here: none, if an offset is committed only when
    /// everything that its message produced is in the sink.
    ///
    /// The offsets must have been read before the ledger.
    ///
    /// # Errors
    ///
    /// The offsets are not those of the source.
    pub fn missing_below(&self, committed: &Committed, fanout: u64) -> Result<Vec<TaskKey>> {
        let messages = committed.messages()?;
        let tasks = messages.flat_map(|n| (0..fanout).map(move |j| TaskKey { n, j }));
        Ok(tasks.filter(|task| !self.copies.contains_key(task)).collect())
    }

    /// How many different tasks are here although their messages are not committed: what a worker
    /// that goes on from the committed offsets will repeat.
    ///
    /// # Errors
    ///
    /// The offsets are not those of the source.
    pub fn uncommitted(&self, committed: &Committed) -> Result<u64> {
        let messages: BTreeSet<u64> = committed.messages()?.collect();
        let beyond = self.copies.keys().filter(|task| !messages.contains(&task.n)).count();
        Ok(u64::try_from(beyond)?)
    }
}

/// The result of a comparison.
#[derive(Clone, Debug)]
pub struct Account {
    load: Load,
    records: u64,
    lost: Vec<TaskKey>,
    invented: Vec<TaskKey>,
    /// With the number of copies beyond the first.
    repeated: Vec<(TaskKey, u64)>,
}

impl Account {
    /// How many records are repeats of another.
    pub fn duplicates(&self) -> u64 {
        self.repeated.iter().map(|(_, repeats)| repeats).sum()
    }

    /// Every task is there, and nothing that nobody asked for; repeats are allowed.
    ///
    /// # Errors
    ///
    /// Something was lost or invented.
    pub fn nothing_lost(&self) -> Result<()> {
        ensure!(self.load.tasks() > 0, "nothing was produced, so nothing is shown");
        ensure!(self.lost.is_empty() && self.invented.is_empty(), "{self}");
        Ok(())
    }

    /// Every task is there exactly once, and nothing else.
    ///
    /// # Errors
    ///
    /// Something was lost, invented or repeated.
    pub fn exactly_once(&self) -> Result<()> {
        self.nothing_lost()?;
        ensure!(self.repeated.is_empty(), "{self}");
        Ok(())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records of {} tasks: {} lost{}, {} invented{}, {} duplicated{}",
            self.records,
            self.load.tasks(),
            self.lost.len(),
            examples(self.lost.iter()),
            self.invented.len(),
            examples(self.invented.iter()),
            self.duplicates(),
            examples(self.repeated.iter().map(|(task, _)| task)),
        )
    }
}

fn examples<'a>(tasks: impl ExactSizeIterator<Item = &'a TaskKey>) -> String {
    if tasks.len() == 0 {
        return String::new();
    }
    let dots = if tasks.len() > EXAMPLES_MAX { " .." } else { "" };
    let shown: Vec<String> = tasks.take(EXAMPLES_MAX).map(TaskKey::to_string).collect();
    format!(" ({}{dots})", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger with these tasks, each given as message and task number.
    fn ledger(tasks: &[(u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(n, j) in tasks {
            ledger.add(&Record { task: TaskKey { n, j }, exit_code: 0, stdout_len: 2 });
        }
        ledger
    }

    fn check(tasks: &[(u64, u64)], messages: u64, fanout: u64, expect: &str) -> Account {
        let account = ledger(tasks).account(Load { messages, fanout });
        assert_eq!(account.to_string(), expect);
        account
    }

    #[test]
    fn each_task_once_is_exactly_once() {
        let expect = "4 records of 4 tasks: 0 lost, 0 invented, 0 duplicated";
        let account = check(&[(1, 1), (0, 0), (0, 1), (1, 0)], 2, 2, expect);
        account.exactly_once().expect("it is");
        account.nothing_lost().expect("nothing was");
    }

    #[test]
    fn a_lost_task_is_found() {
        let expect = "2 records of 3 tasks: 1 lost (m00000001/0), 0 invented, 0 duplicated";
        let account = check(&[(0, 0), (2, 0)], 3, 1, expect);
        assert!(account.nothing_lost().is_err());
        assert!(account.exactly_once().is_err());
    }

    #[test]
    fn a_task_of_a_fan_out_that_is_missing_is_lost() {
        let expect = "3 records of 4 tasks: 1 lost (m00000001/1), 0 invented, 0 duplicated";
        assert!(check(&[(0, 0), (0, 1), (1, 0)], 2, 2, expect).nothing_lost().is_err());
    }

    #[test]
    fn a_repeat_is_found_and_is_no_loss() {
        let expect = "4 records of 2 tasks: 0 lost, 0 invented, 2 duplicated (m00000001/0)";
        let account = check(&[(0, 0), (1, 0), (1, 0), (1, 0)], 2, 1, expect);
        account.nothing_lost().expect("both are there");
        assert!(account.exactly_once().is_err());
        assert_eq!(account.duplicates(), 2);
    }

    #[test]
    fn a_repeat_does_not_make_up_for_a_loss() {
        let expect =
            "2 records of 2 tasks: 1 lost (m00000001/0), 0 invented, 1 duplicated (m00000000/0)";
        assert!(check(&[(0, 0), (0, 0)], 2, 1, expect).nothing_lost().is_err());
    }

    #[test]
    fn what_nobody_produced_is_invented() {
        let expect = "2 records of 1 tasks: 0 lost, 1 invented (m00000001/0), 0 duplicated";
        assert!(check(&[(0, 0), (1, 0)], 1, 1, expect).nothing_lost().is_err());
        let expect = "2 records of 1 tasks: 0 lost, 1 invented (m00000000/1), 0 duplicated";
        assert!(check(&[(0, 0), (0, 1)], 1, 1, expect).nothing_lost().is_err());
    }

    #[test]
    fn only_a_few_examples_are_shown() {
        let shown = ledger(&[]).account(Load { messages: 9, fanout: 1 }).to_string();
        assert!(shown.contains("9 lost (m00000000/0 m00000001/0 m00000002/0"), "{shown}");
        assert!(shown.contains("m00000004/0 ..)"), "{shown}");
        assert!(!shown.contains("m00000005"), "{shown}");
    }

    #[test]
    fn an_empty_run_shows_nothing() {
        assert!(ledger(&[]).account(Load { messages: 0, fanout: 1 }).nothing_lost().is_err());
    }

    #[test]
    fn a_commit_ahead_of_the_sink_is_found() {
        // Committed: messages 0 and 16 of partition 0, message 1 of partition 1.
        let committed = Committed::from_iter([(0, 2), (1, 1)]);
        let sink = ledger(&[(0, 0), (1, 0), (2, 0)]);
        let missing = sink.missing_below(&committed, 1).expect("offsets of the source");
        assert_eq!(missing, [TaskKey { n: 16, j: 0 }]);
        let whole = ledger(&[(0, 0), (1, 0), (16, 0)]);
        assert_eq!(whole.missing_below(&committed, 1).expect("offsets of the source"), []);
        assert_eq!(whole.missing_below(&committed, 2).expect("offsets of the source").len(), 3);
    }

    #[test]
    fn what_is_beyond_the_commits_will_be_repeated() {
        let committed = Committed::from_iter([(0, 1)]);
        let sink = ledger(&[(0, 0), (1, 0), (1, 0), (16, 0)]);
        assert_eq!(sink.uncommitted(&committed).expect("offsets of the source"), 2);
    }
}
