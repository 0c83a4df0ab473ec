//! Secrets in every place that a worker has for them, and none of them in anything that it writes:
//! standard output and error, files, dead letters and pages.
//!
//! The program is its own helper, hence no harness: what a process writes is seen from outside only.
#![expect(clippy::disallowed_methods, reason = "it waits for another process")]

use drakkar::config::Config;
use drakkar::prelude::*;
use drakkar_mock_kafka::MockKafka;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Each secret stands in one place. All begin alike, so that one search finds them all.
const MARK: &str = "hush-hush";

const MESSAGES: usize = 8;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("worker") => return worker(),
        // What test runners ask for.
        Some("--list") => say("no_secret_is_in_anything_that_a_worker_writes: test"),
        _ => {
            a_worker_whose_tasks_fail_tells_no_secret();
            a_worker_that_cannot_log_in_tells_no_secret();
            a_configuration_that_is_refused_tells_no_secret();
            say("3 checks passed");
        }
    }
    ExitCode::SUCCESS
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output is open");
}

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

/// Says so when the dead letters of all messages are written.
#[derive(Default)]
struct Ear(AtomicUsize);

impl Observer for Ear {
    fn observe(&self, event: &Event<'_>) {
        let is_letter = matches!(event, Event::DeadLettered { .. });
        if is_letter && self.0.fetch_add(1, Ordering::SeqCst) + 1 == MESSAGES {
            say("all messages ended");
        }
    }
}

/// Runs a worker with the configuration file of the second argument, and shows what it read.
fn worker() -> ExitCode {
    let path = std::env::args().nth(2).expect("the parent gives it");
    let app = App::new(Failing).observer(Arc::new(Ear::default()));
    let app = match Config::load(Some(path.as_ref())) {
        Ok(config) => {
            say(&format!("{config:?}\n{}", config.redacted_yaml()));
            app.config(config)
        }
        Err(error) => {
            say(&format!("{error}\n{error:?}"));
            app.config_file(path)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("it starts").block_on(app.run_to_exit_code())
}

/// A process of this program that writes into `folder` only, standard output and error included.
struct World {
    child: Child,
    folder: tempfile::TempDir,
    cluster: MockKafka,
}

impl World {
    /// Starts a worker; `settings` makes its configuration of the brokers and of its folder.
    fn start(settings: impl Fn(&str, &str) -> String, variables: &[(&str, &str)]) -> Self {
        let cluster = MockKafka::start(1).expect("it starts");
        for topic in ["jobs", "jobs_dlq", "out"] {
            cluster.create_topic(topic, 1).expect("created");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let config = tempfile::NamedTempFile::new().expect("a file");
        let written = folder.path().display().to_string();
        std::fs::write(config.path(), settings(&cluster.bootstrap_servers(), &written))
            .expect("it can be written");
        let create = |name| std::fs::File::create(folder.path().join(name)).expect("created");
        let child = Command::new(std::env::current_exe().expect("it has a path"))
            .arg("worker")
            .arg(config.path())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(create("stdout"))
            .stderr(create("stderr"))
            .spawn()
            .expect("it starts");
        let mut world = Self { child, folder, cluster };
        world.wait_until("it has read its configuration", |world| !world.text("stdout").is_empty());
        world
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            if began.elapsed() > PATIENCE {
                self.child.kill().expect("it is ours");
                panic!("never so: {what}; {}", self.text("stderr"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the process, and answers its exit code.
    fn end(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            if began.elapsed() > PATIENCE {
                self.child.kill().expect("it is ours");
                panic!("the process does not end; {}", self.text("stderr"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a number");
        kill_process(pid, Signal::TERM).expect("it runs");
    }

    /// Everything that the process wrote into its folder, as (name, text).
    fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        collect_files(self.folder.path(), &mut files);
        files
    }
}

fn collect_files(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect_files(&path, files);
        } else {
            let bytes = std::fs::read(&path).expect("it can be read");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            files.push((path.display().to_string(), text));
        }
    }
}

/// The search is made where there is something to be found, so each text holds what is `expected`.
fn check(texts: &[(String, String)], expected: &[(&str, &str)]) {
    for (what, text) in texts {
        assert!(!text.contains(MARK), "a secret is in {what}: {text}");
    }
    for (what, expect) in expected {
        let (_, text) = texts
            .iter()
            .find(|(name, _)| name.ends_with(what))
            .unwrap_or_else(|| panic!("there is no {what}"));
        assert!(text.contains(expect), "{expect} is missing in {what}: {text}");
    }
}

fn a_worker_whose_tasks_fail_tells_no_secret() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("it has one").port();
    drop(free);
    let settings = |brokers: &str, folder: &str| {
        format!(
            "kafka:\n  brokers: '{brokers}'\n  source_topic: jobs\n  startup_align_enabled: false\n  \
             client_config: {{sasl.kerberos.principal: {MARK}-of-the-client}}\n\
             executor: {{env: {{API_TOKEN: {MARK}-of-all-tasks}}}}\n\
             sinks:\n  \
             kafka: {{out: {{topic: out, client_config: {{sasl.kerberos.principal: {MARK}-of-the-sink}}}}}}\n  \
             filesystem: {{log: {{base_path: '{folder}'}}}}\n\
             debug: {{enabled: true, auth_token: {MARK}-of-the-page}}\n\
             metrics: {{host: 127.0.0.1, port: {port}}}\n\
             logging: {{level: TRACE, output: '{folder}/worker.log'}}"
        )
    };
    let secret = format!("{MARK}-of-the-environment");
    let mut world = World::start(settings, &[("DRAKKAR_EXECUTOR__ENV__MORE", &secret)]);
    produce(&world.cluster);
    world.wait_until("all messages are dead letters", |world| {
        world.text("stdout").contains("all messages ended")
    });
    let mut texts = pages(port);
    world.terminate();
    assert_eq!(world.end(), Some(0));
    texts.push(("dead letters".to_owned(), dead_letters(&world.cluster)));
    texts.extend(world.files());
    check(
        &texts,
        &[
            ("stdout", "API_TOKEN"),
            ("stdout", "MORE"),
            ("stdout", "***"),
            ("worker.log", "\"executor_task_failed\""),
            ("worker.log", "\"level\":\"debug\""),
            ("/metrics", "drakkar_executor_tasks_total"),
            ("/readyz?verbose", "sink_kafka:out"),
            ("/healthz", "ok"),
            ("dead letters", "/no/such/program"),
        ],
    );
}

fn a_worker_that_cannot_log_in_tells_no_secret() {
    let settings = |brokers: &str, folder: &str| {
        format!(
            "kafka:\n  brokers: '{brokers}'\n  source_topic: jobs\n  startup_align_enabled: false\n  \
             security: {{protocol: sasl_plaintext, mechanism: PLAIN, username: me}}\n\
             sinks: {{filesystem: {{log: {{base_path: '{folder}'}}}}}}\n\
             metrics: {{enabled: false}}\n\
             logging: {{level: TRACE, output: stdout}}"
        )
    };
    let password = format!("{MARK}-of-the-user");
    let mut world =
        World::start(settings, &[("DRAKKAR_KAFKA__SECURITY__PASSWORD", password.as_str())]);
    // The broker of the tests knows no SASL. The log tells that it was tried.
    world.wait_until("the client failed to log in", |world| world.text("stdout").contains("SASL"));
    world.terminate();
    let code = world.end();
    assert!(matches!(code, Some(0 | 3)), "{code:?}");
    check(&world.files(), &[("stdout", "sasl_plaintext"), ("stdout", "***"), ("stdout", "SASL")]);
}

/// Every secret is where it may not be, or beside something that is wrong.
fn a_configuration_that_is_refused_tells_no_secret() {
    let settings = |brokers: &str, _folder: &str| {
        format!(
            "kafka:\n  brokers: '{brokers}'\n  source_topic: jobs\n  \
             security:\n    protocol: plaintext\n    mechanism: OAUTHBEARER\n    username: me\n    \
             password: {MARK}-of-the-user\n    key_password: {MARK}-of-the-key\n    \
             oauthbearer: {{client_id: me, client_secret: {MARK}-of-the-client}}\n  \
             client_config: {{sasl.password: {MARK}-raw, ssl.key.password: {MARK}-raw, \
             ssl.keystore.password: {MARK}-raw, sasl.oauthbearer.client.secret: {MARK}-raw}}\n\
             executor: {{env: [{MARK}-of-all-tasks]}}\n\
             sinks:\n  postgres: {{a: {{dsn: 'postgres://me:{MARK}@h/d'}}}}\n  \
             mongo: {{a: {{uri: 'mongodb://me:{MARK}@h/d'}}}}\n  \
             redis: {{a: {{url: 'redis://:{MARK}@h'}}}}\n  \
             http: {{a: {{url: 'ftp://me:{MARK}@h', headers: {{Authorization: {MARK}-of-http}}}}}}\n\
             debug: {{auth_token: {{no: {MARK}-of-the-page}}}}\n\
             logging: {{level: TRACE, output: stderr}}"
        )
    };
    let secret = format!("{MARK}-of-the-environment");
    let variables = [("DRAKKAR_METRICS__PORT", secret.as_str())];
    let mut world = World::start(settings, &variables);
    assert_eq!(world.end(), Some(2));
    let problems = [
        "kafka.security.key_password",
        "kafka.security.password",
        "kafka.security.mechanism",
        "kafka.security.oauthbearer.token_endpoint_url",
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "executor.env",
        "sinks.postgres",
        "sinks.mongo",
        "sinks.redis",
        "sinks.http",
        "debug.auth_token",
        "metrics.port",
    ];
    check(&world.files(), &problems.map(|problem| ("stderr", problem)));
}

fn produce(cluster: &MockKafka) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers());
    let producer: ThreadedProducer<_> = client.create().expect("valid");
    for _ in 0..MESSAGES {
        let record: BaseRecord<'_, [u8], str> = BaseRecord::to("jobs").payload("x");
        producer.send(record).expect("queued");
    }
    producer.flush(PATIENCE).expect("produced");
}

/// All dead letters, with their headers.
fn dead_letters(cluster: &MockKafka) -> String {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "test");
    let consumer: BaseConsumer = client.create().expect("valid");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset("jobs_dlq", 0, Offset::Beginning).expect("an offset");
    consumer.assign(&partitions).expect("assigned");
    let mut text = String::new();
    for _ in 0..MESSAGES {
        let letter = consumer.poll(PATIENCE).expect("one for each message").expect("no error");
        for bytes in [letter.key(), letter.payload()].into_iter().flatten() {
            text += &String::from_utf8_lossy(bytes);
        }
        for header in letter.headers().into_iter().flat_map(|headers| headers.iter()) {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default());
            text += &format!("\n{}: {value}", header.key);
        }
    }
    text
}

/// Every page of the worker, as (path, answer): a page that is not there lists those that are.
fn pages(port: u16) -> Vec<(String, String)> {
    let missing = page(port, "/");
    let (_, body) = missing.split_once("\r\n\r\n").expect("it has a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let known = body["known"].as_array().expect("a list").iter();
    let mut pages = vec![("/".to_owned(), missing.clone())];
    for path in known.map(|path| path.as_str().expect("text")) {
        for path in [path.to_owned(), format!("{path}?verbose")] {
            let answer = page(port, &path);
            pages.push((path, answer));
        }
    }
    pages
}

fn page(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}
