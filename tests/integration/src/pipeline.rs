//! Two topics, the group between them, and the books about both.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::broker::{Ends, GroupOffsets};
use crate::commit_watch::CommitWatch;
use crate::producer::Producer;
use crate::reader::Reading;
use crate::wait::ask_until_answered;
use crate::{
    Account, Broker, Committed, Environment, Feed, Ledger, Load, Record, WorkerCommand, commit_log,
    load, member_log, wait_until,
};

/// For an answer of a broker that may have come back a moment ago.
const ANSWER: Duration = Duration::from_secs(60);

/// How long nothing may come into the sink for it to count as quiet.
const QUIET: Duration = Duration::from_millis(500);

const QUIET_DEADLINE: Duration = Duration::from_secs(30);

/// A source topic, a sink topic and a consumer group that exist for one test.
pub struct Pipeline {
    pub(crate) environment: Environment,
    pub(crate) broker: Broker,
    pub(crate) source: String,
    pub(crate) sink: String,
    pub(crate) dead_letters: String,
    pub(crate) group: String,
    fanout: u64,
    sink_ends: Ends,
    group_offsets: GroupOffsets,
    watch: Option<CommitWatch>,
    pub(crate) logs: TempDir,
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Books {
    /// The sink compared with what was produced.
    pub account: Account,
    /// What stands in the sink.
    pub ledger: Ledger,
}

/// One record of the sink, as a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// When it was written, in milliseconds since 1970.
    pub at: i64,
    /// The partition of the source that its message came from.
    pub partition: i32,
}

impl Pipeline {
    /// Creates the topics; each message will become `fanout` tasks.
    ///
    /// # Errors
    ///
    /// There is no broker.
    pub fn new(fanout: u64) -> Result<Self> {
        let environment = Environment::read()?;
        let broker = Broker::new(environment.clone());
        let name = unique_name()?;
        let (source, sink) = (format!("{name}-source"), format!("{name}-sink"));
        // The name that a worker uses by default.
        let dead_letters = format!("{source}_dlq");
        for topic in [&source, &sink, &dead_letters] {
            broker.create_topic(topic)?;
        }
        let watch = CommitWatch::start(&broker, &name, &source)?;
        Ok(Self {
            sink_ends: broker.ends(&sink)?,
            group_offsets: broker.group_offsets(&name, &source)?,
            watch: Some(watch),
            logs: tempfile::tempdir()?,
            group: name,
            environment,
            broker,
            source,
            sink,
            dead_letters,
            fanout,
        })
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Produces this many messages at once.
    ///
    /// # Errors
    ///
    /// Not all of them are where they must be.
    pub fn produce(&self, messages: u64) -> Result<Load> {
        let mut producer = Producer::new(&self.broker, &self.source)?;
        producer.send_until(messages)?;
        producer.confirm()?;
        Ok(Load { messages, fanout: self.fanout })
    }

    /// Produces one message more that no handler can decode.
    ///
    /// # Errors
    ///
    /// The broker does not take it.
    pub fn produce_nonsense(&self) -> Result<()> {
        Producer::new(&self.broker, &self.source)?.send_nonsense()
    }

    /// How many dead letters the broker has.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn dead_letters(&self) -> Result<u64> {
        self.broker.ends(&self.dead_letters)?.count()
    }

    /// Produces for as long as the feed runs, and always this many messages ahead of the sink.
    ///
    /// # Errors
    ///
    /// The first messages could not be produced.
    pub fn feed(&self, backlog: u64) -> Result<Feed> {
        Feed::start(&self.broker, &self.source, &self.sink, self.fanout, backlog)
    }

    /// A worker of this pipeline with four slots, whose tasks run /bin/true.
    ///
    /// # Errors
    ///
    /// There is no port for it.
    pub fn worker(&self, id: &str) -> Result<WorkerCommand> {
        let command = WorkerCommand::new(&self.environment.worker, id, self.logs.path())?;
        Ok(command
            .with("BENCH_BROKERS", self.broker.address())
            .with("BENCH_SOURCE", &self.source)
            .with("BENCH_SINK", &self.sink)
            .with("BENCH_GROUP", &self.group)
            .with("BENCH_MODE", "true")
            .with("BENCH_FANOUT", self.fanout)
            .with("BENCH_MAX_EXECUTORS", 4)
            .with("BENCH_SESSION_MS", 6000))
    }

    /// The same, by the listener that asks for a password, with this one.
    ///
    /// # Errors
    ///
    /// There is no port for it.
    pub fn worker_with_password(&self, id: &str, password: &str) -> Result<WorkerCommand> {
        let worker = self.worker(id)?;
        Ok(worker
            .with("BENCH_BROKERS", &self.environment.kafka_auth)
            .with("BENCH_SASL_USER", &self.environment.kafka_user)
            .with("BENCH_SASL_PASSWORD", password))
    }

    /// What this run knows of its services.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// How many records the sink has had.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn records(&self) -> Result<u64> {
        ask_until_answered(ANSWER, || self.sink_ends.count())
    }

    /// Waits until the sink has had at least this many records, and says how many it has.
    ///
    /// # Errors
    ///
    /// They do not come in time.
    pub fn wait_for_records(&self, count: u64, within: Duration) -> Result<u64> {
        let what = format!("{count} records in the sink");
        let enough = || Ok(Some(self.records()?).filter(|records| *records >= count));
        wait_until(&what, within, enough)
    }

    /// Waits until nobody writes to the sink any more: what a killed worker had sent may still be on
    /// its way.
    ///
    /// # Errors
    ///
    /// Somebody goes on writing.
    pub fn wait_until_quiet(&self) -> Result<()> {
        wait_until("the sink to be quiet", QUIET_DEADLINE, || {
            let before = self.records()?;
            thread::sleep(QUIET);
            Ok((self.records()? == before).then_some(()))
        })
    }

    /// What the group has committed.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn committed(&self) -> Result<Committed> {
        ask_until_answered(ANSWER, || self.group_offsets.read())
    }

    /// The racks that workers ever told the broker to be in.
    ///
    /// # Errors
    ///
    /// No worker has joined, or the broker does not answer.
    pub fn racks(&self) -> Result<BTreeSet<String>> {
        member_log::racks(&self.broker, &self.group)
    }

    /// Waits until more messages are committed than this.
    ///
    /// # Errors
    ///
    /// It does not come to that in time.
    pub fn wait_for_commits_beyond(&self, count: i64, within: Duration) -> Result<()> {
        let what = format!("more than {count} messages to be committed");
        wait_until(&what, within, || Ok((self.committed()?.count() > count).then_some(())))
    }

    /// Waits until every message of the source is committed.
    ///
    /// # Errors
    ///
    /// It does not come to that in time.
    pub fn wait_until_committed(&self, load: Load, within: Duration) -> Result<()> {
        let ends = self.broker.end_offsets(&self.source)?;
        let produced = i64::try_from(load.messages)?;
        ensure!(ends.values().sum::<i64>() == produced, "{load:?} is not what the source holds");
        let mut last = Committed::default();
        let reached = || {
            last = self.committed()?;
            Ok(last.is_at(&ends).then_some(()))
        };
        let waited = wait_until("everything to be committed", within, reached);
        waited.with_context(|| format!("{last:?} is committed of {ends:?}"))
    }

    /// Reads the sink up to where it ends now.
    ///
    /// # Errors
    ///
    /// It holds something that no worker should have written, or lacks a record.
    pub fn ledger(&self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        Reading::of(&self.broker, &self.sink)?.for_each(|found| {
            let value = found.value.context("a record of the sink has no value")?;
            ledger.add(&Record::parse(found.key, value, self.fanout)?);
            Ok(())
        })?;
        Ok(ledger)
    }

    /// When each record of the sink was written and of which partition of the source it is, in order
    /// of time.
    ///
    /// # Errors
    ///
    /// As [`ledger`](Self::ledger).
    pub fn completions(&self) -> Result<Vec<Completion>> {
        let mut completions = Vec::new();
        Reading::of(&self.broker, &self.sink)?.for_each(|found| {
            let value = found.value.context("a record of the sink has no value")?;
            let record = Record::parse(found.key, value, self.fanout)?;
            let (partition, _) = load::place(record.task.n)?;
            completions.push(Completion { at: found.at, partition });
            Ok(())
        })?;
        completions.sort_by_key(|completion| completion.at);
        Ok(completions)
    }

    /// Checks that nothing is committed that the sink does not hold, and gives both.
    ///
    /// # Errors
    ///
    /// A commit is ahead of the sink.
    pub fn check_commits_are_delivered(&self) -> Result<(Committed, Ledger)> {
        // In this order: what is committed now must be there already.
        let committed = self.committed()?;
        let ledger = self.ledger()?;
        let missing = ledger.missing_below(&committed, self.fanout)?;
        ensure!(
            missing.is_empty(),
            "{} tasks are committed and not in the sink, {} first",
            missing.len(),
            missing[0]
        );
        Ok((committed, ledger))
    }

    /// Keeps the logs of the workers beyond the end of this process, and says where they are.
    pub(crate) fn keep_logs(&mut self) -> &Path {
        self.logs.disable_cleanup(true);
        self.logs.path()
    }

    /// Ends the look at the committed offsets.
    ///
    /// # Errors
    ///
    /// An offset went back, or too little was seen to say that none did.
    pub(crate) fn finish_watch(&mut self, committed: &Committed) -> Result<()> {
        self.watch.take().context("finished twice")?.finish(committed)
    }

    /// Closes the books after the last worker has ended: everything is committed, no commit ever
    /// went back, every task succeeded, nothing was dead-lettered.
    ///
    /// # Errors
    ///
    /// One of these is not so.
    pub fn finish(mut self, load: Load) -> Result<Books> {
        let ends = self.broker.end_offsets(&self.source)?;
        let (committed, ledger) = self.check_commits_are_delivered()?;
        ensure!(committed.is_at(&ends), "{committed:?} is committed of {ends:?}");
        self.finish_watch(&committed)?;
        let replayed = commit_log::replay(&self.broker, &self.group, &self.source)?;
        ensure!(
            replayed == committed,
            "the log of commits ends at {replayed:?}, not {committed:?}"
        );
        let dead = self.dead_letters()?;
        ensure!(dead == 0, "{dead} dead letters were written");
        ensure!(ledger.exit_codes().iter().eq(&[0]), "tasks ended with {:?}", ledger.exit_codes());
        Ok(Books { account: ledger.account(load), ledger })
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // A failed test has already said what is wrong; a topic that stays harms nobody.
        self.broker.delete_topics(&[&self.source, &self.sink, &self.dead_letters]).ok();
    }
}

/// A broker may have outlived an earlier run, so the name must be new.
fn unique_name() -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("integration-{seconds}-{}-{count}", process::id()))
}
