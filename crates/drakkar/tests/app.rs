//! An application from its configuration to its end, on a broker inside the process.

use drakkar::config::Config;
use drakkar::prelude::*;
use drakkar::{Error, ErrorKind};
use drakkar_api::{Batch, Sink, SinkError, Verdict};
use drakkar_mock_kafka::MockKafka;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// More than any test sends.
const ROOM: usize = 10_000;

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "jobs";
const MESSAGES: usize = 20;

/// Waits for what must happen, and not for ever.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Answers each message by a payload for the sink `keep`, with a word from a client of the program.
struct Echo;

impl Handler for Echo {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> Result<Vec<Task>> {
        let offsets = window.messages().map(Message::offset);
        Ok(offsets.map(|o| Task::for_offset(o).precomputed(Precomputed::stdout("done"))).collect())
    }

    async fn on_task_complete(&self, _done: &TaskOutput, cx: &Context) -> Result<Outputs> {
        let worker = cx.worker_id().to_string();
        drakkar::metrics::counter!("echoes_total", "worker" => worker).increment(1);
        let word = cx.client::<String>("word")?;
        Ok(Outputs::new().with(CustomPayload {
            kind: "keep".into(),
            sink: None,
            value: word.as_bytes().to_vec().into(),
            attributes: serde_json::Map::new(),
        }))
    }
}

/// A sink that hands on what it is given.
struct Keep {
    kept: mpsc::Sender<Vec<u8>>,
    /// Ready when it may connect.
    gate: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
    /// Whether it never answers.
    is_stuck: bool,
    closed: Arc<AtomicBool>,
    name: &'static str,
}

impl Sink for Keep {
    type Payload = CustomPayload;

    fn id(&self) -> SinkId {
        SinkId::new(SinkKind::Custom("keep".into()), self.name)
    }

    async fn connect(&self) -> Result<(), SinkError> {
        if let Some(gate) = self.gate.lock().await.take() {
            gate.await.expect("the test opens it");
        }
        Ok(())
    }

    async fn deliver(&self, batch: Batch<'_, CustomPayload>) -> Vec<Verdict> {
        for item in batch.items() {
            self.kept.try_send(item.payload.value.to_vec()).expect("the test listens");
        }
        if self.is_stuck {
            std::future::pending::<()>().await;
        }
        batch.all(Verdict::Confirmed)
    }

    async fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    fn repeat_is_harmless(&self, _payload: &CustomPayload) -> bool {
        true
    }
}

struct Kept {
    sink: Keep,
    payloads: mpsc::Receiver<Vec<u8>>,
    closed: Arc<AtomicBool>,
}

fn keep(name: &'static str, gate: Option<oneshot::Receiver<()>>) -> Kept {
    let (kept, payloads) = mpsc::channel(ROOM);
    let closed = Arc::new(AtomicBool::new(false));
    let sink = Keep { kept, gate: gate.into(), closed: Arc::clone(&closed), name, is_stuck: false };
    Kept { sink, payloads, closed }
}

/// Tells the names of some events.
struct Ear(mpsc::Sender<String>);

impl Observer for Ear {
    fn observe(&self, event: &Event<'_>) {
        let heard = match event {
            Event::SinkConnected { sink } => format!("connected {sink}"),
            Event::Polled => "polled".to_owned(),
            _ => return,
        };
        // A test that has heard enough does not listen any more.
        self.0.try_send(heard).ok();
    }
}

struct Ears {
    ear: Arc<Ear>,
    heard: mpsc::Receiver<String>,
}

impl Ears {
    fn new() -> Self {
        let (ear, heard) = mpsc::channel(ROOM);
        Self { ear: Arc::new(Ear(ear)), heard }
    }

    async fn hear(&mut self, wanted: &str) {
        soon(wanted, async { while self.heard.recv().await.expect("it runs") != wanted {} }).await;
    }
}

/// A broker with messages, and a port for the metrics.
struct World {
    cluster: MockKafka,
    metrics: SocketAddr,
}

impl World {
    fn start() -> Self {
        let cluster = MockKafka::start(1).expect("it starts");
        cluster.create_topic(TOPIC, 1).expect("created");
        cluster.create_topic("jobs_dlq", 1).expect("created");
        let world = Self { cluster, metrics: free_port() };
        let producer: ThreadedProducer<_> = world.client().create().expect("valid");
        for _ in 0..MESSAGES {
            let record: BaseRecord<'_, [u8], str> = BaseRecord::to(TOPIC).payload("x");
            producer.send(record).expect("queued");
        }
        producer.flush(PATIENCE).expect("produced");
        world
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.cluster.bootstrap_servers());
        config
    }

    fn config(&self) -> Config {
        self.config_of(TOPIC, self.metrics)
    }

    fn config_of(&self, topic: &str, metrics: SocketAddr) -> Config {
        let text = format!(
            "kafka: {{brokers: '{}', source_topic: {topic}, consumer_group: g, \
             fetch_wait_max_ms: 10, startup_align_enabled: false}}\n\
             metrics: {{host: 127.0.0.1, port: {}}}\n\
             logging: {{level: 'OFF'}}",
            self.cluster.bootstrap_servers(),
            metrics.port()
        );
        Config::from_yaml_str(&text, []).expect("valid")
    }

    fn app(&self) -> App<Echo> {
        App::new(Echo).config(self.config()).client("word", Arc::new("hello".to_owned()))
    }

    fn committed(&self) -> Option<i64> {
        let consumer: BaseConsumer = self.client().set("group.id", "g").create().expect("valid");
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(TOPIC, 0);
        let committed = consumer.committed_offsets(wanted, PATIENCE).expect("answered");
        committed.elements()[0].offset().to_raw()
    }

    /// Waits until all these lines are on the page of metrics.
    async fn wait_for_metrics(&self, lines: &[&str]) {
        let all_there = async {
            loop {
                let (_, page) = self.get("/metrics").await;
                if lines.iter().all(|line| page.lines().any(|other| other == *line)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(&format!("{lines:?}"), all_there).await;
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.metrics).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.expect("a status"), body.expect("a body"))
    }
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has one")
}

/// Runs an app until the sender is used or dropped.
fn spawn(app: App<Echo>) -> (oneshot::Sender<()>, JoinHandle<Result<(), Error>>) {
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(app.run_until(async { drop(stopped.await) }));
    (stop, running)
}

async fn refused(app: App<Echo>) -> Error {
    let run = app.run_until(std::future::pending());
    soon("the end", run).await.expect_err("it is refused")
}

#[tokio::test]
async fn a_wrong_configuration_is_told_at_once_and_starts_nothing() {
    let world = World::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("drakkar.yaml");
    let text = format!(
        "kafka: {{brokers: '{}', brokerz: x, source_topic: other, client_config: {{group.id: x}}}}\n\
         metrics: {{host: 127.0.0.1, port: {}}}",
        world.cluster.bootstrap_servers(),
        world.metrics.port()
    );
    std::fs::write(&path, text).expect("written");
    world.cluster.record_requests();
    let error = refused(App::new(Echo).config_file(path)).await;
    let ErrorKind::Config(config) = error.kind() else { panic!("{error:?}") };
    let paths: Vec<_> = config.problems().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["kafka.brokerz", "sinks", "kafka.client_config.group.id"]);
    assert_eq!(error.exit_code(), 2);
    assert_eq!(world.cluster.recorded_requests(), []);
    TcpListener::bind(world.metrics).expect("nobody listens there");
}

#[tokio::test]
async fn a_busy_port_is_a_failed_start() {
    let world = World::start();
    let taken = TcpListener::bind(world.metrics).expect("free");
    let error = refused(world.app().sink(keep("main", None).sink)).await;
    assert_eq!(error.exit_code(), 3, "{error:?}");
    assert!(error.to_string().contains("metrics"), "{error}");
    drop(taken);
}

#[cfg(feature = "sink-kafka")]
#[tokio::test]
async fn the_program_may_change_the_configuration_and_it_is_checked_again() {
    let world = World::start();
    let app = || world.app().sink(keep("main", None).sink);
    let error = refused(app().on_startup(|_| Err("not today".into()))).await;
    assert_eq!(format!("{error:?}"), "failed to start (on_startup): not today");
    assert_eq!(error.exit_code(), 3);
    let contradict = |config: &mut Config| Ok(config.set("executor.drain_timeout_seconds", 300)?);
    let error = refused(app().on_startup(contradict)).await;
    assert!(error.to_string().contains("executor.drain_timeout_seconds"), "{error}");
    assert_eq!(error.exit_code(), 2);
    let add = |config: &mut Config| Ok(config.set("sinks.kafka.out.topic", "bad topic")?);
    let error = refused(app().on_startup(add)).await;
    assert!(error.to_string().contains("sinks.kafka.out.topic"), "{error}");
}

#[tokio::test]
async fn an_app_delivers_commits_and_ends() {
    let world = World::start();
    let mut kept = keep("main", None);
    let mut ears = Ears::new();
    let (ran, mut runs) = mpsc::channel(1);
    let app = world.app().sink(kept.sink).observer(Arc::clone(&ears.ear)).periodic(
        "count",
        Duration::from_millis(5),
        move |_handler, cx| {
            let ran = ran.clone();
            async move {
                // Only the first run is looked at.
                ran.try_send(cx.client::<String>("word")?).ok();
                Ok(())
            }
        },
    );
    let (stop, running) = spawn(app);
    ears.hear("connected keep:main").await;
    for _ in 0..MESSAGES {
        let payload = soon("a delivery", kept.payloads.recv()).await;
        assert_eq!(payload.as_deref(), Some(&b"hello"[..]));
    }
    let word = soon("a periodic run", runs.recv()).await;
    assert_eq!(word.as_deref().map(String::as_str), Some("hello"));
    assert_eq!(world.get("/healthz").await, (200, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(world.get("/readyz").await, (200, r#"{"status":"ready"}"#.to_owned()));
    world
        .wait_for_metrics(&[
            "drakkar_consumer_lag{partition=\"0\"} 0",
            "drakkar_kafka_connected 1",
            "drakkar_message_e2e_seconds_bucket{le=\"+Inf\"} 20",
            // It was produced a moment ago, so its timestamp is not mistaken for something else.
            "drakkar_message_e2e_seconds_bucket{le=\"60\"} 20",
        ])
        .await;
    stop.send(()).expect("it runs");
    soon("the end", running).await.expect("no panic").expect("an orderly end");
    assert!(kept.closed.load(SeqCst));
    assert_eq!(world.committed(), Some(20));
    TcpListener::bind(world.metrics).expect("nobody listens there");
}

#[tokio::test]
async fn what_waits_for_a_sink_is_in_the_worker() {
    let world = World::start();
    let mut kept = keep("main", None);
    kept.sink.is_stuck = true;
    let app = world
        .app()
        .on_startup(|config| Ok(config.set("executor.drain_timeout_seconds", 1)?))
        .sink(kept.sink);
    let mut ears = Ears::new();
    let (stop, running) =
        spawn(app.worker_name("waits-for-a-sink").observer(Arc::clone(&ears.ear)));
    ears.hear("polled").await;
    // No task takes a slot, and none is settled.
    let queued = format!("drakkar_total_queued {MESSAGES}");
    let echoes = format!("echoes_total{{worker=\"waits-for-a-sink\"}} {MESSAGES}");
    let lines = [queued.as_str(), "drakkar_executor_pool_active 0", echoes.as_str()];
    world.wait_for_metrics(&lines).await;
    stop.send(()).expect("it runs");
    soon("the end", running).await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn a_partition_that_another_worker_takes_leaves_the_page() {
    const SHARED: &str = "shared";
    let world = World::start();
    world.cluster.create_topic(SHARED, 2).expect("created");
    world.cluster.create_topic("shared_dlq", 1).expect("created");
    let app = |metrics| {
        let app = App::new(Echo).config(world.config_of(SHARED, metrics));
        app.on_startup(|config| {
            // The broker of this process lets a newcomer wait for as long as a session lasts.
            config.set("kafka.session_timeout_ms", 3000)?;
            Ok(config.set("kafka.heartbeat_interval_ms", 200)?)
        })
    };
    let mut ears = Ears::new();
    let sink = keep("main", None).sink;
    let first = spawn(app(world.metrics).sink(sink).observer(Arc::clone(&ears.ear)));
    ears.hear("polled").await;
    let lag = |partition| format!("drakkar_consumer_lag{{partition=\"{partition}\"}} 0");
    world.wait_for_metrics(&[&lag(0), &lag(1)]).await;

    let second = spawn(app(free_port()).sink(keep("main", None).sink));
    let one_is_left = async {
        loop {
            let (_, page) = world.get("/metrics").await;
            let names = |partition| {
                let label = format!("{{partition=\"{partition}\"}}");
                page.lines().filter(|line| line.contains(&label)).count()
            };
            match (names(0), names(1)) {
                (0, some) | (some, 0) if some > 0 => break,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    soon("the other's series go", one_is_left).await;
    for (stop, running) in [first, second] {
        stop.send(()).expect("it runs");
        soon("the end", running).await.expect("no panic").expect("an orderly end");
    }
}

#[tokio::test]
async fn a_lasting_membership_of_a_worker_without_a_name_is_refused() {
    let config = Config::from_yaml_str("kafka: {group_instance_id: 'w-{worker_id}'}", []);
    let app = App::new(Echo).config(config.expect("valid")).sink(keep("main", None).sink);
    let error = soon("the end", app.run_until(std::future::pending())).await.expect_err("no name");
    assert_eq!(error.exit_code(), 2);
    let text = format!("{error:?}");
    assert!(text.contains("kafka.group_instance_id") && text.contains("WORKER_ID"), "{text}");
}

// The readiness of a worker named every sink while one of them connected.
#[tokio::test]
async fn readiness_blames_the_sink_that_does_not_connect() {
    let world = World::start();
    let mut ears = Ears::new();
    let (open, gate) = oneshot::channel();
    let app = world.app().sink(keep("quick", None).sink).sink(keep("slow", Some(gate)).sink);
    let (stop, running) = spawn(app.observer(Arc::clone(&ears.ear)));
    ears.hear("connected dead_letters:jobs_dlq").await;
    let (status, body) = world.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(
        body,
        r#"{"reasons":["not_started","sink_keep:slow_not_connected"],"status":"not_ready"}"#
    );
    open.send(()).expect("it waits");
    ears.hear("polled").await;
    assert_eq!(world.get("/readyz").await.0, 200);
    stop.send(()).expect("it runs");
    soon("the end", running).await.expect("no panic").expect("an orderly end");
}

// A signal while one sink connected left those open that had.
#[tokio::test]
async fn a_stop_while_connecting_closes_what_is_connected() {
    let world = World::start();
    let mut ears = Ears::new();
    let (_open, gate) = oneshot::channel();
    let (quick, slow) = (keep("quick", None), keep("slow", Some(gate)));
    let app = world.app().sink(quick.sink).sink(slow.sink);
    let (stop, running) = spawn(app.observer(Arc::clone(&ears.ear)));
    ears.hear("connected dead_letters:jobs_dlq").await;
    stop.send(()).expect("it runs");
    soon("the end", running).await.expect("no panic").expect("an orderly end");
    assert!(quick.closed.load(SeqCst), "it was connected");
    assert!(!slow.closed.load(SeqCst), "it was not");
    TcpListener::bind(world.metrics).expect("nobody listens there");
}
