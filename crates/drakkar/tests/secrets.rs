//! Secrets in every place that a worker has for them, and none of them in anything that it writes.
//!
//! In a process of its own, because the log is the process's and is set up once.
#![cfg(feature = "sink-file")]

use drakkar::config::Config;
use drakkar::prelude::*;
use drakkar_mock_kafka::MockKafka;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

const PATIENCE: Duration = Duration::from_secs(30);

/// Each stands in one place. All begin alike, so that one search finds them all.
const MARK: &str = "hush-hush";

/// Runs programs that are given a secret and fail, in one way or another.
struct Failing;

impl Handler for Failing {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> Result<Vec<Task>> {
        let secret = format!("{MARK}-of-the-task");
        let task = |message: &Message<RawInput>| {
            let task = Task::for_message(message).env("TASK_TOKEN", &secret);
            match message.offset().get() % 4 {
                0 => task.binary("/bin/sh").args(["-c", "exit 3"]),
                1 => task.binary("/no/such/program"),
                2 => task.binary("/bin/sh").args(["-c", "kill -9 $$"]),
                // No program can be given this.
                _ => task.binary("/bin/true").env("BAD", format!("{MARK}\0")),
            }
        };
        Ok(window.messages().map(task).collect())
    }
}

/// Tells when so many dead letters are written.
struct Ear {
    wanted: usize,
    heard: std::sync::atomic::AtomicUsize,
    reached: Notify,
}

impl Observer for Ear {
    fn observe(&self, event: &Event<'_>) {
        let heard = match event {
            Event::DeadLettered { .. } => {
                self.heard.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1
            }
            _ => return,
        };
        if heard == self.wanted {
            self.reached.notify_one();
        }
    }
}

async fn page(port: u16, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

fn config(cluster: &MockKafka, folder: &std::path::Path, port: u16) -> Config {
    let text = format!(
        "kafka:\n  brokers: '{brokers}'\n  source_topic: jobs\n  startup_align_enabled: false\n  \
         client_config: {{sasl.kerberos.principal: {MARK}-of-the-client}}\n\
         executor: {{env: {{API_TOKEN: {MARK}-of-all-tasks}}}}\n\
         sinks:\n  kafka: {{out: {{topic: out, client_config: {{sasl.kerberos.principal: {MARK}-of-the-sink}}}}}}\n  \
         filesystem: {{log: {{base_path: '{folder}'}}}}\n\
         debug: {{enabled: true, auth_token: {MARK}-of-the-page}}\n\
         metrics: {{host: 127.0.0.1, port: {port}}}\n\
         logging: {{level: TRACE, output: '{folder}/worker.log'}}",
        brokers = cluster.bootstrap_servers(),
        folder = folder.display(),
    );
    Config::from_yaml_str(&text, []).expect("valid")
}

#[tokio::test]
async fn no_secret_is_in_anything_that_a_worker_writes() {
    const MESSAGES: usize = 8;
    let cluster = MockKafka::start(1).expect("it starts");
    for topic in ["jobs", "jobs_dlq", "out"] {
        cluster.create_topic(topic, 1).expect("created");
    }
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers());
    let producer: ThreadedProducer<_> = client.create().expect("valid");
    for _ in 0..MESSAGES {
        let record: BaseRecord<'_, [u8], str> = BaseRecord::to("jobs").payload("x");
        producer.send(record).expect("queued");
    }
    producer.flush(PATIENCE).expect("produced");

    let folder = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("it has one").port();
    drop(free);
    let config = config(&cluster, folder.path(), port);
    let shown = format!("{config:?}");
    let ear = Arc::new(Ear { wanted: MESSAGES, heard: 0.into(), reached: Notify::new() });
    let (stop, stopped) = oneshot::channel::<()>();
    let app = App::new(Failing).config(config).observer(Arc::clone(&ear));
    let running = tokio::spawn(app.run_until(async { drop(stopped.await) }));
    let all = tokio::time::timeout(PATIENCE, ear.reached.notified()).await;
    all.expect("all messages end in the dead letters");
    let pages = [page(port, "/metrics").await, page(port, "/readyz?verbose").await];
    stop.send(()).expect("it runs");
    running.await.expect("no panic").expect("an orderly end");

    let log = std::fs::read_to_string(folder.path().join("worker.log")).expect("it was written");
    for (what, text) in
        [("log", &log), ("configuration", &shown), ("metrics", &pages[0]), ("readiness", &pages[1])]
    {
        assert!(!text.contains(MARK), "a secret is in the {what}: {text}");
    }
    // The search is made where there is something to be found.
    for (text, expect) in [
        (&log, "\"executor_task_failed\""),
        (&log, "\"level\":\"debug\""),
        (&shown, "API_TOKEN"),
        (&shown, "***"),
        (&pages[0], "drakkar_executor_tasks_total"),
        (&pages[1], "kafka"),
    ] {
        assert!(text.contains(expect), "{expect} is missing in {text}");
    }
}
