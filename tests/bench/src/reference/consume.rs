//! Consumes, works, produces and commits, with rdkafka and threads and nothing in between.

use std::env;
use std::fmt::Write;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::epochs::{Epochs, Positions, Reports};
use super::settings::{COMMIT_EVERY, PRODUCER};
use super::task;
use crate::broker::client_config;
use crate::message::{NewSinkRecord, SourceMessage, partition_of};
use crate::program::Program;
use crate::worker::PRECOMPUTED_STDOUT;

/// Everything that was begun is acknowledged this long after the end of standard input.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages that wait for a slot.
const QUEUE_LEN: usize = 64;

/// What is done with a message.
#[derive(Debug)]
pub(crate) enum Work {
    /// Nothing: this many records are produced at once.
    Precomputed { fanout: usize },
    /// `true` is run on one of so many threads, and one record is produced.
    Spawn { slots: usize },
}

/// Runs until standard input ends, then finishes what it began.
pub(crate) fn run(work: &Work) -> Result<()> {
    let bare = BareLoop::connect()?;
    let ends = end_of_input();
    match *work {
        Work::Precomputed { fanout } => {
            let mut scratch = Scratch::default();
            bare.run(&ends, fanout, |message, epoch| {
                let value = message.payload().context("a message without a value")?;
                bare.sink.produce_precomputed(value, fanout, epoch, &mut scratch)
            })
        }
        Work::Spawn { slots } => thread::scope(|scope| {
            let queues: Vec<SyncSender<Job>> = (0..slots)
                .map(|_| {
                    let (sender, receiver) = sync_channel(QUEUE_LEN);
                    scope.spawn(|| bare.sink.run_slot(receiver));
                    sender
                })
                .collect();
            bare.run(&ends, 1, move |message, epoch| {
                let value = message.payload().context("a message without a value")?;
                let job = Job { value: value.to_vec(), epoch };
                // Messages are dealt to the partitions in turn, and so the slots get theirs.
                let slot = usize::try_from(message.partition())? % queues.len();
                queues[slot].send(job).context("a slot is gone")
            })
        }),
    }
}

struct BareLoop {
    consumer: BaseConsumer,
    source: String,
    sink: Sink,
}

struct Sink {
    producer: ThreadedProducer<Reports>,
    topic: String,
}

/// A message on its way to a slot.
struct Job {
    value: Vec<u8>,
    epoch: usize,
}

/// Kept from message to message, so that nothing is allocated for each.
#[derive(Default)]
struct Scratch {
    key: String,
    task: String,
    value: Vec<u8>,
}

impl BareLoop {
    fn connect() -> Result<Self> {
        let config = client_config(&variable("BENCH_BROKERS")?);
        let consumer: BaseConsumer = config
            .clone()
            .set("group.id", variable("BENCH_GROUP")?)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            // By default a full buffer stops fetching for a second, in which it can run empty.
            .set("fetch.queue.backoff.ms", "10")
            .create()
            .context("failed to make a consumer")?;
        let source = variable("BENCH_SOURCE")?;
        consumer.subscribe(&[&source]).context("failed to subscribe")?;
        let mut config = config;
        for (name, value) in PRODUCER {
            config.set(name, value);
        }
        let producer =
            config.create_with_context(Reports::default()).context("failed to make a producer")?;
        let sink = Sink { producer, topic: variable("BENCH_SINK")? };
        Ok(Self { consumer, source, sink })
    }

    fn run(
        &self,
        ends: &AtomicBool,
        records_per_message: usize,
        mut work: impl FnMut(&BorrowedMessage<'_>, usize) -> Result<()>,
    ) -> Result<()> {
        let mut epochs = Epochs::default();
        let mut committed_at = Instant::now();
        while !ends.load(Ordering::Relaxed) {
            if let Some(message) = self.consumer.poll(Duration::from_millis(10)) {
                let message = message.context("failed to consume")?;
                let partition = usize::try_from(message.partition())?;
                let epoch = epochs.note(partition, message.offset(), records_per_message);
                work(&message, epoch)?;
            }
            if committed_at.elapsed() >= COMMIT_EVERY {
                committed_at = Instant::now();
                epochs.close()?;
                if let Some(positions) = epochs.committable(self.reports())? {
                    self.commit(&positions, CommitMode::Async)?;
                }
            }
        }
        // The slots go with the closure that feeds them, once their queues are empty.
        drop(work);
        self.finish(epochs)
    }

    fn finish(&self, mut epochs: Epochs) -> Result<()> {
        epochs.close()?;
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let mut last = None;
        while !epochs.is_settled() {
            ensure!(Instant::now() < deadline, "records are not acknowledged in {FLUSH_TIMEOUT:?}");
            last = epochs.committable(self.reports())?.or(last);
            thread::sleep(Duration::from_millis(1));
        }
        match last {
            Some(positions) => self.commit(&positions, CommitMode::Sync),
            None => Ok(()),
        }
    }

    fn commit(&self, positions: &Positions, mode: CommitMode) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        for (partition, position) in (0..).zip(positions) {
            if let Some(position) = position {
                let next = Offset::Offset(*position);
                offsets.add_partition_offset(&self.source, partition, next)?;
            }
        }
        if offsets.count() == 0 {
            return Ok(());
        }
        self.consumer.commit(&offsets, mode).context("failed to commit")
    }

    fn reports(&self) -> &Reports {
        self.sink.producer.context()
    }
}

impl Sink {
    fn produce_precomputed(
        &self,
        value: &[u8],
        fanout: usize,
        epoch: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let message = parse(value)?;
        for index in 0..fanout {
            scratch.key.clear();
            scratch.key.push_str(message.id);
            if fanout > 1 {
                write!(scratch.key, "/{index}")?;
            }
            self.produce(&message, index, PRECOMPUTED_STDOUT.len(), epoch, scratch)?;
        }
        Ok(())
    }

    fn run_slot(&self, jobs: Receiver<Job>) {
        let mut scratch = Scratch::default();
        for job in jobs {
            if let Err(error) = self.run_job(&job, &mut scratch) {
                // The loop would wait for its acknowledgement for ever.
                eprintln!("error: {error:#}");
                std::process::exit(1);
            }
        }
    }

    fn run_job(&self, job: &Job, scratch: &mut Scratch) -> Result<()> {
        let message = parse(&job.value)?;
        let stdout_len = task::run(Program::True, "")?;
        scratch.key.clear();
        scratch.key.push_str(message.id);
        self.produce(&message, 0, stdout_len, job.epoch, scratch)
    }

    /// Produces the record of one task under the key in `scratch`.
    fn produce(
        &self,
        message: &SourceMessage<'_>,
        index: usize,
        stdout_len: usize,
        epoch: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        scratch.task.clear();
        // As long as the ids that a worker gives.
        write!(scratch.task, "t-{:012x}-{}-1-{index:08x}", message.n, partition_of(message.n))?;
        let (id, n, task) = (message.id, message.n, scratch.task.as_str());
        let record = NewSinkRecord { id, n, task, exit_code: 0, stdout_len };
        scratch.value.clear();
        serde_json::to_writer(&mut scratch.value, &record)?;
        let mut record = BaseRecord::with_opaque_to(&self.topic, epoch)
            .key(&scratch.key)
            .payload(&scratch.value);
        while let Err((error, unsent)) = self.producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            ensure!(is_full, "failed to produce: {error}");
            thread::sleep(Duration::from_millis(1));
            record = unsent;
        }
        Ok(())
    }
}

fn parse(value: &[u8]) -> Result<SourceMessage<'_>> {
    serde_json::from_slice(value).context("a message that does not parse")
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set"))
}

/// Becomes true when standard input ends.
fn end_of_input() -> Arc<AtomicBool> {
    let ends = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ends);
    thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
        seen.store(true, Ordering::Relaxed);
    });
    ends
}
