//! The end: what the worker counted, beside what broker and files really hold.

use crate::PATIENCE;
use crate::arguments::{Arguments, is_result};
use crate::broker::{Broker, SINK, SOURCE};
use crate::progress::{Progress, say};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Prints the summary; answers failure if any figure does not add up.
pub(crate) fn check(
    progress: &Progress,
    broker: &Broker,
    arguments: &Arguments,
) -> anyhow::Result<ExitCode> {
    let seconds = progress.elapsed().as_secs_f64();
    let read = |counter: &AtomicU64| counter.load(Relaxed);
    let messages = arguments.messages;
    let tasks = read(&progress.tasks);
    let lines = Lines::of_folder(&arguments.out)?;
    let (committed, ends) = (broker.committed()?, broker.ends(SOURCE)?);
    let mut wrong = Vec::new();
    if progress.has_stalled() {
        wrong.push(format!("no message was finished for {} s", PATIENCE.as_secs()));
    }
    let mut row = |name: &str, figure: u64, expect: u64| {
        say(&format!("  {name:<28}{figure:>8}"));
        if figure != expect {
            wrong.push(format!("{name}: {figure}, expected {expect}"));
        }
    };
    say("");
    say("drakkar quickstart (the in-process broker is not durable: its topics end with it)");
    row("messages consumed", read(&progress.consumed), messages);
    row("tasks (wc -w)", tasks, messages);
    row("delivered to kafka", read(&progress.delivered_kafka), messages);
    row("delivered to filesystem", read(&progress.delivered_files), messages);
    row("dead-lettered", read(&progress.dead_lettered), 0);
    row("records in the topic", broker.count(SINK)?, messages);
    row("lines in the files", lines.total, messages);
    row("distinct lines in the files", lines.distinct, messages);
    say(&format!(
        "  committed = end offsets     {:>8}",
        if committed == ends { "yes" } else { "no" }
    ));
    if committed != ends {
        wrong.push(format!("committed {committed:?}, the partitions end at {ends:?}"));
    }
    say(&format!("  seconds                     {seconds:>8.2}"));
    say(&format!("  tasks per second            {:>8.0}", tasks as f64 / seconds));
    say(&format!("  files in                    {}", arguments.out.display()));
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say("the figures do not add up:");
    wrong.iter().for_each(|line| say(&format!("  {line}")));
    Ok(ExitCode::FAILURE)
}

/// The lines of all JSON-lines files in a folder: each message makes one, and no two are alike.
#[derive(Debug, PartialEq, Eq)]
struct Lines {
    total: u64,
    distinct: u64,
}

impl Lines {
    fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let mut total = 0;
        let mut distinct = BTreeSet::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if is_result(&path) {
                for line in std::fs::read_to_string(path)?.lines() {
                    total += 1;
                    distinct.insert(line.to_owned());
                }
            }
        }
        Ok(Self { total, distinct: distinct.len() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_there_twice_is_counted_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.jsonl"), "1\n2\n").expect("written");
        std::fs::write(folder.path().join("b.jsonl"), "2\n").expect("written");
        std::fs::write(folder.path().join("c.txt"), "3\n").expect("written");
        let lines = Lines::of_folder(folder.path()).expect("readable");
        assert_eq!(lines, Lines { total: 3, distinct: 2 });
    }
}
