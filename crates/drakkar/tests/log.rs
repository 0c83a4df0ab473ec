//! What the log tells of a worker that ends for an error.
//!
//! In a process of its own, because the log is the process's and is set up once.
#![cfg(feature = "sink-file")]

use drakkar::config::Config;
use drakkar::prelude::*;
use serde_json::Value;
use std::net::TcpListener;

struct Idle;

impl Handler for Idle {
    type Input = RawInput;

    async fn arrange(&self, _window: &Window<RawInput>, _cx: &Context) -> Result<Vec<Task>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn the_log_of_a_failed_start_tells_the_sinks_and_why() {
    const PASSWORD: &str = "hush-hush";
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it has one").port();
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("worker.log");
    let slots = drakkar::Cpus::available().count() + 1;
    let text = format!(
        "cluster_name: blue\n\
         kafka:\n  source_topic: jobs\n  security: {{protocol: sasl_plaintext, mechanism: PLAIN, \
         username: me, password: {PASSWORD}}}\n\
         sinks: {{filesystem: {{first: {{base_path: '{out}'}}, second: {{base_path: '{out}'}}}}}}\n\
         executor: {{max_executors: {slots}}}\n\
         metrics: {{host: 127.0.0.1, port: {port}}}\n\
         logging: {{output: '{log}'}}",
        out = folder.path().display(),
        log = log.display(),
    );
    let config = Config::from_yaml_str(&text, []).expect("valid");
    let app = App::new(Idle).config(config).worker_name("w1");
    let error = app.run_until(std::future::pending()).await.expect_err("the port is taken");

    let written = std::fs::read_to_string(&log).expect("it was written out at the end");
    assert!(!written.contains(PASSWORD), "{written}");
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let line = |event: &str| -> &Value {
        lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{lines:#?}"))
    };
    for line in &lines {
        for name in [
            "@timestamp",
            "log.level",
            "message",
            "service.name",
            "ecs.version",
            "timestamp",
            "level",
            "event",
            "category",
            "module",
            "service_name",
            "service_version",
            "worker_id",
            "consumer_group",
            "cluster_name",
        ] {
            assert!(line[name].is_string(), "{name} is missing in {line}");
        }
    }

    let sinks = line("sinks_configured");
    assert_eq!(sinks["level"], "info");
    assert_eq!(sinks["category"], "sink");
    assert_eq!(sinks["sinks"], "filesystem:first filesystem:second");

    let shortage = line("executor_slots_exceed_cpus");
    assert_eq!(shortage["level"], "warning");
    assert_eq!(shortage["slots"], slots);
    assert_eq!(shortage["cpus"], slots - 1);

    let failed = line("drakkar_failed");
    assert_eq!(failed["level"], "error");
    assert_eq!(failed["category"], "lifecycle");
    assert_eq!(failed["worker_id"], "w1");
    // The whole chain of reasons, as standard error shows it.
    assert_eq!(failed["error"], format!("{error:?}"));
    let reason = failed["error"].as_str().expect("text");
    let begin = format!("failed to start (metrics): failed to listen on 127.0.0.1:{port}");
    assert!(reason.starts_with(&begin), "{reason}");
    assert_eq!(lines.last(), Some(failed), "it is the last word");
}
