//! Measures how soon a message is handed over after it was produced, and how many can be.
//!
//! `cargo run --release -p drakkar-source-kafka --example latency -- [brokers] [classic|consumer]`;
//! without brokers it starts a mock cluster.

use drakkar_api::{
    Assignment, CommitOffset, CommitRequest, Credit, Epoch, Reply, Source, SourceError,
    SourceEvents, SourceMessage, WorkerId,
};
use drakkar_kafka::ClientSection;
use drakkar_mock_kafka::MockKafka;
use drakkar_source_kafka::{GroupProtocol, KafkaSource, SourceConfig};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 8;
const SINGLE_MESSAGES: usize = 500;
const BULK_MESSAGES: usize = 400_000;

/// Grants everything that was taken, and passes batches on with the moment of their arrival.
struct Engine {
    source: OnceLock<Weak<KafkaSource>>,
    batches: mpsc::Sender<(Instant, Epoch, Vec<SourceMessage>)>,
    commits: mpsc::Sender<Instant>,
}

const CREDIT: Credit = Credit { messages: 1000, bytes: 4 << 20 };

impl Engine {
    fn with_source(&self, act: impl FnOnce(&KafkaSource)) {
        if let Some(source) = self.source.get().and_then(Weak::upgrade) {
            act(&source);
        }
    }
}

impl SourceEvents for Engine {
    fn assigned(&self, assignments: Vec<Assignment>) {
        for assignment in assignments {
            self.with_source(|source| source.request(assignment.epoch, CREDIT));
        }
    }
    fn revoked(&self, _: Vec<Epoch>, drained: Reply<()>) {
        drained.send(());
    }
    fn lost(&self, _: Vec<Epoch>) {}
    fn messages(&self, epoch: Epoch, messages: Vec<SourceMessage>) {
        let bytes = messages.iter().map(SourceMessage::size_bytes).sum();
        let used = Credit { messages: messages.len(), bytes };
        drop(self.batches.send((Instant::now(), epoch, messages)));
        self.with_source(|source| source.request(epoch, used));
    }
    fn committed(&self, _: Epoch, result: Result<CommitOffset, SourceError>) {
        if result.is_ok() {
            self.commits.send(Instant::now()).unwrap_or_default();
        }
    }
    fn polled(&self) {}
    fn trouble(&self, _: SourceError) {}
    fn ended(&self, _: Result<(), SourceError>) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mock = MockKafka::start(1)?;
    let (brokers, is_real) = match arguments.next() {
        Some(brokers) if brokers != "mock" => (brokers, true),
        _ => (mock.bootstrap_servers(), false),
    };
    let group_protocol = match arguments.next().as_deref() {
        Some("consumer") => GroupProtocol::Consumer,
        _ => GroupProtocol::Classic,
    };
    let topic = format!("latency-{}", std::process::id());
    if is_real {
        create_topic(&brokers, &topic)?;
    } else {
        mock.create_topic(&topic, PARTITIONS)?;
    }
    let client = ClientSection { brokers: brokers.clone(), ..ClientSection::default() };
    let settings = SourceConfig {
        source_topic: topic.clone(),
        consumer_group: topic.clone(),
        group_protocol,
        // The mock answers an empty fetch only after this time.
        fetch_wait_max_ms: if is_real { 500 } else { 5 },
        ..SourceConfig::default()
    };
    let settings = settings.validate("kafka", Duration::from_secs(5))?;
    let worker = WorkerId::new("latency");
    let source = Arc::new(KafkaSource::new(client.validate("kafka")?, settings, &worker));
    let (batches, arrived) = mpsc::channel();
    let (commits, committed) = mpsc::channel();
    let engine = Arc::new(Engine { source: OnceLock::new(), batches, commits });
    drop(engine.source.set(Arc::downgrade(&source)));
    block_on(source.start(engine))?;

    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "1000000")
        .create()?;
    let mut out = std::io::stdout();
    warm_up(&producer, &topic, &arrived)?;

    let mut delays = Vec::new();
    let mut last = None;
    for number in 0..SINGLE_MESSAGES {
        // Not in step with the fetch that waits at the broker.
        std::thread::park_timeout(Duration::from_micros(1500 + (number as u64 * 37) % 1000));
        let began = Instant::now();
        send(&producer, &topic, "x")?;
        let (at, epoch, batch) = arrived.recv_timeout(PATIENCE)?;
        delays.push(at.saturating_duration_since(began));
        producer.poll(Duration::ZERO);
        last = batch.last().map(|message| (epoch, message.clone()));
    }
    delays.sort();
    let at = |percent: usize| delays[delays.len() * percent / 100];
    writeln!(
        out,
        "send() -> messages(), through the broker: p50 {:?} p99 {:?} max {:?}",
        at(50),
        at(99),
        delays[delays.len() - 1]
    )?;

    let (epoch, message) = last.ok_or("no message")?;
    let mut delays = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        source.commit(CommitRequest {
            epoch,
            partition: message.partition.clone(),
            offset: message.offset.next(),
            metadata: String::new(),
        });
        delays.push(committed.recv_timeout(PATIENCE)?.saturating_duration_since(began));
    }
    delays.sort();
    writeln!(out, "commit() -> committed(): p50 {:?} p99 {:?}", delays[100], delays[198])?;

    let began = Instant::now();
    let value = "x".repeat(200);
    let taken = std::thread::spawn(move || {
        let mut taken = 0;
        while taken < BULK_MESSAGES {
            match arrived.recv_timeout(PATIENCE) {
                Ok((_, _, batch)) => taken += batch.len(),
                Err(_) => return (taken, Instant::now()),
            }
        }
        (taken, Instant::now())
    });
    for number in 0..BULK_MESSAGES {
        send(&producer, &topic, &value)?;
        if number % 10_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE)?;
    let (taken, ended) = taken.join().map_err(|_| "the taker panicked")?;
    let rate = taken as f64 / (ended - began).as_secs_f64();
    writeln!(out, "{taken} messages of 200 B, produced and taken at once: {rate:.0}/s")?;
    source.close();
    Ok(())
}

fn warm_up(
    producer: &BaseProducer,
    topic: &str,
    arrived: &mpsc::Receiver<(Instant, Epoch, Vec<SourceMessage>)>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..20 {
        send(producer, topic, "x")?;
        producer.flush(PATIENCE)?;
        arrived.recv_timeout(PATIENCE)?;
    }
    Ok(())
}

fn send(producer: &BaseProducer, topic: &str, value: &str) -> Result<(), Box<dyn Error>> {
    let record = BaseRecord::<str, str>::to(topic).payload(value);
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(())
}

fn create_topic(brokers: &str, topic: &str) -> Result<(), Box<dyn Error>> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    block_on(admin.create_topics([&new], &AdminOptions::new()))?;
    Ok(())
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
