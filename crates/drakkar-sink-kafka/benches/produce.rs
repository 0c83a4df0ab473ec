//! The sink against a bare loop of the same client: records per second, CPU per record, and how
//! long a batch takes.
//!
//! `cargo bench -p drakkar-sink-kafka`. The broker is librdkafka's mock cluster in a process of its
//! own, so that the CPU figures are the client's alone.
#![expect(clippy::disallowed_methods, reason = "the broker is a process of its own")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use drakkar_api::{
    Batch, BatchItem, DeliveryId, KafkaRecord, Offset, PartitionId, Sink, SinkId, SinkKind, Verdict,
};
use drakkar_kafka::ClientSection;
use drakkar_mock_kafka::MockKafka;
use drakkar_sink_kafka::{KafkaSink, KafkaSinkSection};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rustix::time::{ClockId, clock_gettime};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const BROKER: &str = "DRAKKAR_BENCH_BROKER";
const TOPIC: &str = "bench";
const VALUE: [u8; 200] = [b'x'; 200];

fn main() {
    if std::env::var(BROKER).is_ok() {
        return serve();
    }
    let mut broker = Command::new(std::env::current_exe().unwrap())
        .env(BROKER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut brokers = String::new();
    BufReader::new(broker.stdout.take().unwrap()).read_line(&mut brokers).unwrap();
    let brokers = brokers.trim();
    for linger in [0, 1, 5] {
        for (batch, batches) in [(1, 200), (50, 200), (500, 400)] {
            for _ in 0..2 {
                bare(brokers, linger, batch, batches);
                sink(brokers, linger, batch, batches);
            }
        }
    }
    for _ in 0..2 {
        stream_bare(brokers, 400_000);
        stream_sink(brokers, 500, 800);
    }
    drop(broker.stdin.take());
    broker.wait().unwrap();
}

/// The life of the broker's process: until its standard input ends.
fn serve() {
    let broker = MockKafka::start(1).unwrap();
    broker.create_topic(TOPIC, 8).unwrap();
    println!("{}", broker.bootstrap_servers());
    std::io::stdin().lines().for_each(drop);
}

fn now(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap()
}

fn report(what: &str, records: usize, started: (Duration, Duration), mut batches: Vec<Duration>) {
    let wall = now(ClockId::Monotonic) - started.0;
    let cpu = now(ClockId::ProcessCPUTime) - started.1;
    batches.sort();
    let at = |part: usize| batches[batches.len() * part / 100].as_secs_f64() * 1e3;
    println!(
        "{what:40} {:8.1} k records/s {:6.2} us CPU/record, batch p50 {:6.2} ms p99 {:6.2} ms",
        records as f64 / wall.as_secs_f64() / 1e3,
        cpu.as_secs_f64() * 1e6 / records as f64,
        at(50),
        at(99),
    );
}

fn started() -> (Duration, Duration) {
    (now(ClockId::Monotonic), now(ClockId::ProcessCPUTime))
}

/// Counts reports.
#[derive(Clone, Default)]
struct Count(Arc<(Mutex<usize>, Condvar, AtomicUsize)>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok());
        let (target, reached, done) = &*self.0;
        if done.fetch_add(1, Ordering::SeqCst) + 1 == *target.lock().unwrap() {
            reached.notify_all();
        }
    }
}

impl Count {
    fn expect(&self, target: usize) {
        *self.0.0.lock().unwrap() = target;
    }

    fn wait(&self) {
        let (target, reached, done) = &*self.0;
        let mut target = target.lock().unwrap();
        while done.load(Ordering::SeqCst) < *target {
            target = reached.wait_timeout(target, Duration::from_millis(1)).unwrap().0;
        }
    }
}

fn producer(brokers: &str, linger: u32) -> (ThreadedProducer<Count>, Count) {
    let count = Count::default();
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", linger.to_string())
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(count.clone())
        .unwrap();
    (producer, count)
}

fn send(producer: &ThreadedProducer<Count>) {
    producer.send(BaseRecord::<(), [u8], ()>::to(TOPIC).payload(&VALUE)).ok().unwrap();
}

/// A loop that sends a batch, waits for its reports and goes on.
fn bare(brokers: &str, linger: u32, batch: usize, batches: usize) {
    let (producer, count) = producer(brokers, linger);
    let mut times = Vec::new();
    count.expect(1);
    send(&producer);
    count.wait();
    let begin = started();
    for number in 0..batches {
        let began = now(ClockId::Monotonic);
        count.expect(1 + (number + 1) * batch);
        (0..batch).for_each(|_| send(&producer));
        count.wait();
        times.push(now(ClockId::Monotonic) - began);
    }
    report(
        &format!("bare loop, linger {linger}, batches of {batch}"),
        batch * batches,
        begin,
        times,
    );
}

/// A loop that sends without waiting.
fn stream_bare(brokers: &str, records: usize) {
    let (producer, count) = producer(brokers, 5);
    let begin = started();
    count.expect(records);
    (0..records).for_each(|_| send(&producer));
    count.wait();
    report("bare loop, everything at once", records, begin, vec![Duration::ZERO]);
    producer.flush(Duration::from_secs(1)).unwrap();
}

fn connected(brokers: &str, linger: u32) -> (tokio::runtime::Runtime, KafkaSink) {
    let section = KafkaSinkSection { linger_ms: i64::from(linger), ..KafkaSinkSection::new(TOPIC) };
    let inherited = ClientSection { brokers: brokers.to_owned(), ..ClientSection::default() };
    let client = section.client_section(&inherited).validate("sinks.kafka.bench").unwrap();
    let config = section.validate("sinks.kafka.bench").unwrap();
    let mut base = client.producer_config("bench", config.producer_options());
    base.set("linger.ms", linger.to_string());
    let sink = KafkaSink::new(SinkId::new(SinkKind::Kafka, "bench"), config, base);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        sink.connect().await.unwrap();
        deliver(&sink, 1).await;
    });
    (runtime, sink)
}

async fn deliver(sink: &KafkaSink, batch: usize) {
    let id = DeliveryId::new(PartitionId::new("in", 0), Offset::new(0), 0, 0);
    let payload = KafkaRecord::bytes(&VALUE[..]);
    let items = (0..batch).map(|_| BatchItem { payload: &payload, id: &id }).collect();
    let verdicts = sink.deliver(Batch::new(items)).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed));
}

fn sink(brokers: &str, linger: u32, batch: usize, batches: usize) {
    let (runtime, sink) = connected(brokers, linger);
    let mut times = Vec::new();
    let begin = started();
    runtime.block_on(async {
        for _ in 0..batches {
            let began = now(ClockId::Monotonic);
            deliver(&sink, batch).await;
            times.push(now(ClockId::Monotonic) - began);
        }
    });
    report(&format!("sink, linger {linger}, batches of {batch}"), batch * batches, begin, times);
    runtime.block_on(sink.close());
}

/// Four deliveries at once, as the engine's lane makes them.
fn stream_sink(brokers: &str, batch: usize, batches: usize) {
    let (runtime, sink) = connected(brokers, 1);
    let sink = Arc::new(sink);
    let begin = started();
    runtime.block_on(async {
        let lanes: Vec<_> = (0..4)
            .map(|_| {
                let sink = Arc::clone(&sink);
                tokio::spawn(async move {
                    for _ in 0..batches / 4 {
                        deliver(&sink, batch).await;
                    }
                })
            })
            .collect();
        for lane in lanes {
            lane.await.unwrap();
        }
    });
    report("sink, four batches of 500 at once", batch * batches, begin, vec![Duration::ZERO]);
    runtime.block_on(sink.close());
}
