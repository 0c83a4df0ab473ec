//! The verdict, from recorded facts alone. Pure.
//!
//! A repeat is two copies of one result, one after the other. It is explained by a fault if the
//! fault could take the work from the process that did it, in time, and before it was committed:
//!
//! - a kill explains a copy that the killed process wrote before, whose offset was committed only
//!   after the kill, and which somebody else repeated after it;
//! - a long stop or a cut explains a copy of its process, on either side of the repeat: what it had
//!   done and not committed is repeated by others, and what it still finishes repeats what others did;
//! - so does an assignment that a process lost when its connections were reset, by its own log;
//! - a loss of the broker explains a copy of any process.
//!
//! An end that was asked for, a stop shorter than the session and a mere reset of connections explain
//! nothing, and nothing explains that one result of one process stands in the sink twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::copies::{Arrival, Place};
use super::fault::{Fault, Kind};
use super::plan::{FANOUT, Plan};
use crate::commit_log::Commit;
use crate::{Load, TaskKey, load};

/// How long after a kill the broker may still write down what was sent before.
const AFTER_KILL_MS: i64 = 1_000;

/// How long after the end of a stop, a cut or an outage work of before may still arrive or be taken
/// away: the client connects anew (at most 2 s between two tries) and hears from the group.
const AFTER_FAULT_MS: i64 = 10_000;

/// How many offenders are shown.
const EXAMPLES_MAX: usize = 5;

/// All that was recorded of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) seed: u64,
    pub(crate) messages: u64,
    pub(crate) arrivals: Vec<Arrival>,
    /// Every commit that the broker accepted, in its order.
    pub(crate) commits: Vec<Commit>,
    pub(crate) faults: Vec<Fault>,
    /// How many faults of each kind there were to be.
    pub(crate) planned: BTreeMap<Kind, usize>,
    /// By partition of the source, the offset after its last message.
    pub(crate) ends: BTreeMap<i32, i64>,
    /// How many children failed or hung: each leaves a mark.
    pub(crate) failed_children: u64,
    /// How many starts of workers failed, and were repeated, because the broker was away.
    pub(crate) refused_starts: u64,
    /// What else went wrong while it ran.
    pub(crate) troubles: Vec<String>,
}

/// What the record comes to.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    figures: Vec<(String, String)>,
    /// Why the run is rejected; empty for one that is not.
    objections: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.objections.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in &self.figures {
            writeln!(f, "{name:<34} {figure}")?;
        }
        for objection in &self.objections {
            writeln!(f, "OBJECTION: {objection}")?;
        }
        f.write_str(if self.is_good() { "verdict: passed" } else { "verdict: REJECTED" })
    }
}

/// Judges a run.
pub(crate) fn judge(record: &Record) -> Verdict {
    let mut verdict = Verdict { figures: Vec::new(), objections: Vec::new() };
    let copies = by_task(&record.arrivals);
    verdict.count_input(record, &copies);
    verdict.count_children(record);
    verdict.count_faults(record);
    verdict.check_lost(record, &copies);
    verdict.check_invented(record, &copies);
    verdict.check_repeats(record, &copies);
    verdict.check_commits(record);
    for trouble in &record.troubles {
        verdict.objections.push(trouble.clone());
    }
    verdict
}

type Copies<'a> = BTreeMap<TaskKey, Vec<&'a Arrival>>;

/// The copies of each task, in order of time.
fn by_task(arrivals: &[Arrival]) -> Copies<'_> {
    let mut copies = Copies::new();
    for arrival in arrivals {
        copies.entry(arrival.task).or_default().push(arrival);
    }
    for copies in copies.values_mut() {
        copies.sort_by_key(|copy| copy.at);
    }
    copies
}

impl Verdict {
    fn figure(&mut self, name: &str, figure: impl fmt::Display) {
        self.figures.push((name.to_owned(), figure.to_string()));
    }

    fn object(&mut self, is_wrong: bool, why: impl FnOnce() -> String) {
        if is_wrong {
            self.objections.push(why());
        }
    }

    fn count_input(&mut self, record: &Record, copies: &Copies<'_>) {
        let at = |place| record.arrivals.iter().filter(|it| it.place == place).count();
        let writers: BTreeSet<&str> = record.arrivals.iter().map(|it| it.writer.as_str()).collect();
        self.figure("messages produced", record.messages);
        self.figure("tasks", record.messages * FANOUT);
        self.figure("results that arrived", copies.len());
        self.figure("copies in the sink", at(Place::Sink));
        self.figure("dead-lettered messages", at(Place::MessageLetter));
        self.figure("dead-lettered payloads", at(Place::PayloadLetter));
        self.figure("worker processes that wrote", writers.len());
        self.figure("starts that an outage refused", record.refused_starts);
        self.object(record.messages == 0, || "nothing was produced".to_owned());
        self.object(record.arrivals.is_empty(), || "nothing arrived".to_owned());
    }

    fn count_children(&mut self, record: &Record) {
        let marks = (0..record.messages).filter(|&n| Plan::of(record.seed, n).leaves_mark());
        let expected = u64::try_from(marks.count()).unwrap_or(u64::MAX);
        self.figure("children that failed or hung", record.failed_children);
        self.object(expected == 0, || "no child was to fail or to hang".to_owned());
        self.object(record.failed_children != expected, || {
            format!("{} children failed or hung, not {expected}", record.failed_children)
        });
    }

    fn count_faults(&mut self, record: &Record) {
        for kind in Kind::ALL {
            let done = record.faults.iter().filter(|fault| fault.kind == kind).count();
            let planned = record.planned.get(&kind).copied().unwrap_or(0);
            self.figure(&format!("faults: {kind}"), done);
            self.object(done < planned, || format!("{done} faults of {planned}: {kind}"));
        }
        let total: usize = record.planned.values().sum();
        self.object(total == 0, || "no fault was planned".to_owned());
    }

    fn check_lost(&mut self, record: &Record, copies: &Copies<'_>) {
        let tasks = Load { messages: record.messages, fanout: FANOUT }.keys();
        let lost: Vec<_> = tasks.filter(|task| !copies.contains_key(task)).collect();
        self.figure("lost", lost.len());
        self.object(!lost.is_empty(), || format!("{} lost: {}", lost.len(), shown(&lost)));
    }

    /// A result that nobody asked for, or that stands where it must not.
    fn check_invented(&mut self, record: &Record, copies: &Copies<'_>) {
        let is_asked_for = |copy: &Arrival| {
            let TaskKey { n, j } = copy.task;
            let fails = Plan::of(record.seed, n) == Plan::Dead && j + 1 == FANOUT;
            n < record.messages && j < FANOUT && fails == (copy.place == Place::MessageLetter)
        };
        let all = copies.values().flatten().filter(|copy| !is_asked_for(copy));
        let invented: Vec<_> = all.collect();
        self.figure("invented", invented.len());
        let why = || format!("{} invented: {}", invented.len(), shown(&invented));
        self.object(!invented.is_empty(), why);
    }

    fn check_repeats(&mut self, record: &Record, copies: &Copies<'_>) {
        let committed_at = CommitTimes::new(&record.commits);
        let mut causes: BTreeMap<Kind, u64> = BTreeMap::new();
        let mut unexplained = Vec::new();
        let mut repeats = 0_u64;
        for copies in copies.values() {
            for pair in copies.windows(2) {
                repeats += 1;
                let committed = committed_at.of(pair[0].task.n);
                let causes_found = record.faults.iter().filter(|it| explains(it, pair, committed));
                // The figures name the one nearest in time.
                let distance = |it: &&Fault| (pair[0].at - it.from).unsigned_abs();
                match causes_found.min_by_key(distance) {
                    Some(fault) => *causes.entry(fault.kind).or_default() += 1,
                    None => unexplained.push(format!("{}, {}", pair[0], pair[1])),
                }
            }
        }
        self.figure("repeats", repeats);
        for (kind, count) in causes {
            self.figure(&format!("repeats explained by: {kind}"), count);
        }
        self.figure("repeats without explanation", unexplained.len());
        self.object(!unexplained.is_empty(), || {
            format!("{} repeats without explanation: {}", unexplained.len(), shown(&unexplained))
        });
    }

    fn check_commits(&mut self, record: &Record) {
        let mut committed: BTreeMap<i32, i64> = BTreeMap::new();
        let mut back = Vec::new();
        for commit in &record.commits {
            let before = committed.insert(commit.partition, commit.offset);
            if before.is_some_and(|before| before > commit.offset) {
                back.push(format!("partition {} to {}", commit.partition, commit.offset));
            }
        }
        let at = |partition: &i32| committed.get(partition).copied().unwrap_or(0);
        let open: i64 = record.ends.iter().map(|(partition, end)| end - at(partition)).sum();
        let produced = record.ends.values().sum::<i64>();
        self.figure("commits", record.commits.len());
        self.figure("commits that went back", back.len());
        self.figure("messages not committed in the end", open);
        self.object(record.commits.is_empty(), || "nothing was committed".to_owned());
        self.object(!back.is_empty(), || format!("commits went back: {}", shown(&back)));
        self.object(u64::try_from(produced) != Ok(record.messages), || {
            format!("the source holds {produced} messages, {} were produced", record.messages)
        });
        let beyond = record.ends.iter().any(|(partition, end)| at(partition) > *end);
        self.object(open != 0 || beyond, || "the end of the source is not committed".to_owned());
    }
}

/// Whether a fault explains that the first of two copies was followed by the second.
fn explains(fault: &Fault, pair: &[&Arrival], committed: Option<i64>) -> bool {
    let [first, second] = pair else { return false };
    let was_committed = committed.is_some_and(|at| at <= fault.from);
    if !fault.can_cause_repeats() || was_committed || second.at < fault.from {
        return false;
    }
    if is_written_twice(first, second) {
        return false;
    }
    let wrote = |copy: &Arrival| fault.worker.as_deref() == Some(copy.writer.as_str());
    let grace = if fault.kind == Kind::Kill { AFTER_KILL_MS } else { AFTER_FAULT_MS };
    let in_time = first.at <= fault.end() + grace;
    match fault.kind {
        Kind::Kill => wrote(first) && in_time,
        kind if kind.is_of_broker() => in_time,
        _ => {
            let late = wrote(second) && second.at <= fault.end() + grace;
            in_time && (wrote(first) || late)
        }
    }
}

/// Whether both are one and the same result, which no fault makes two: the producer is idempotent.
fn is_written_twice(first: &Arrival, second: &Arrival) -> bool {
    let is_sink = [first, second].iter().all(|copy| copy.place == Place::Sink);
    is_sink && first.writer == second.writer && first.run == second.run
}

/// When each message's offset was committed first.
struct CommitTimes(BTreeMap<i32, Vec<(i64, i64)>>);

impl CommitTimes {
    fn new(commits: &[Commit]) -> Self {
        let mut times: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        for commit in commits {
            let of_partition = times.entry(commit.partition).or_default();
            if of_partition.last().is_none_or(|(offset, _)| *offset < commit.offset) {
                of_partition.push((commit.offset, commit.at));
            }
        }
        Self(times)
    }

    fn of(&self, n: u64) -> Option<i64> {
        let (partition, offset) = load::place(n).ok()?;
        let times = self.0.get(&partition)?;
        // The committed offset is that of the next message.
        let first = times.partition_point(|(next, _)| *next <= offset);
        times.get(first).map(|(_, at)| *at)
    }
}

fn shown<T: fmt::Display>(items: &[T]) -> String {
    let mut text = String::new();
    for item in items.iter().take(EXAMPLES_MAX) {
        write!(text, "[{item}] ").unwrap_or_default();
    }
    if items.len() > EXAMPLES_MAX {
        text.push_str("..");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
