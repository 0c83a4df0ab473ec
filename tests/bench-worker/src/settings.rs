//! The `BENCH_*` variables, and the configuration that they stand for.

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use std::str::FromStr;
use std::time::Duration;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Runs `/bin/true`.
    True,
    /// Runs `/bin/cat` with the message on its standard input.
    Cat,
    /// Has a precomputed result; no process runs.
    Precomputed,
    /// Runs `/bin/sleep` for half of `BENCH_SLEEP_SECONDS` to all of it.
    Sleep,
    /// Sleeps likewise, then writes `BENCH_OUTPUT_BYTES` to its standard output.
    Loud,
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        Ok(match word {
            "true" => Self::True,
            "cat" => Self::Cat,
            "pre" => Self::Precomputed,
            "sleep" => Self::Sleep,
            "loud" => Self::Loud,
            _ => bail!("BENCH_MODE must be true, cat, pre, sleep or loud, found \"{word}\""),
        })
    }
}

/// What the variables say.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) fanout: u64,
    pub(crate) sleep_seconds: f64,
    pub(crate) output_bytes: u64,
    /// How long `on_task_complete` takes.
    pub(crate) hook_time: Duration,
    /// What is lost for good with each task, to show that this is noticed.
    pub(crate) leak_bytes: usize,
    brokers: String,
    source: String,
    sink: String,
    group: String,
    pub(crate) worker_id: String,
}

impl Settings {
    /// Reads the variables.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let debug = variable("BENCH_DEBUG", "0")?;
        ensure!(
            debug == "0",
            "BENCH_DEBUG={debug}: this build has no recorder and no debug server"
        );
        Ok(Self {
            mode: variable("BENCH_MODE", "true")?.parse()?,
            fanout: number("BENCH_FANOUT", 1)?,
            sleep_seconds: variable("BENCH_SLEEP_SECONDS", "1")?
                .parse()
                .context("BENCH_SLEEP_SECONDS")?,
            output_bytes: number("BENCH_OUTPUT_BYTES", 1 << 20)?,
            hook_time: Duration::from_millis(number("BENCH_HOOK_MS", 0)?),
            leak_bytes: usize::try_from(number("BENCH_LEAK_BYTES", 0)?)?,
            brokers: required("BENCH_BROKERS")?,
            source: required("BENCH_SOURCE")?,
            sink: required("BENCH_SINK")?,
            group: required("BENCH_GROUP")?,
            worker_id: variable("BENCH_WORKER_ID", "bench-worker")?,
        })
    }

    /// Returns the configuration; JSON is YAML.
    pub(crate) fn yaml(&self) -> anyhow::Result<String> {
        let metrics = match number("BENCH_METRICS_PORT", 0)? {
            0 => json!({ "enabled": false }),
            port => json!({ "port": port }),
        };
        let security = match variable("BENCH_SASL_USER", "")?.as_str() {
            "" => json!({}),
            user => json!({
                "protocol": "sasl_plaintext",
                "mechanism": "PLAIN",
                "username": user,
                "password": required("BENCH_SASL_PASSWORD")?,
            }),
        };
        // Their own brokers, also without `kafka.security`; else those of the source.
        let sink_brokers = variable("BENCH_SINK_BROKERS", "")?;
        let mut config = json!({
            "kafka": {
                "brokers": self.brokers,
                "security": security,
                "on_parse_error": variable("BENCH_ON_PARSE_ERROR", "pass")?,
                "source_topic": self.source,
                "consumer_group": self.group,
                "max_poll_records": number("BENCH_POLL", 100)?,
                "startup_align_enabled": flag("BENCH_ALIGN", true)?,
            },
            "executor": {
                "binary_path": match self.mode {
                    Mode::Cat => "/bin/cat",
                    Mode::Sleep => "/bin/sleep",
                    Mode::Loud => "/bin/sh",
                    Mode::True | Mode::Precomputed => "/bin/true",
                },
                "max_executors": number("BENCH_MAX_EXECUTORS", 4)?,
                "window_size": number("BENCH_WINDOW", 100)?,
                "backpressure_high_multiplier": number("BENCH_BP_HIGH", 32)?,
                "backpressure_low_multiplier": number("BENCH_BP_LOW", 4)?,
                "max_buffered_bytes": number("BENCH_BUFFERED_BYTES", 256 << 20)?,
            },
            "sinks": { "kafka": { "results": { "topic": self.sink, "brokers": sink_brokers } } },
            "dlq": { "brokers": sink_brokers },
            "metrics": metrics,
            "logging": { "level": variable("BENCH_LOG_LEVEL", "INFO")? },
        });
        membership(&mut config["kafka"])?;
        ensure!(!self.worker_id.is_empty(), "BENCH_WORKER_ID is empty");
        Ok(config.to_string())
    }
}

/// Fills in how the worker is a member of its group.
fn membership(kafka: &mut serde_json::Value) -> anyhow::Result<()> {
    let protocol = variable("BENCH_GROUP_PROTOCOL", "classic")?;
    if protocol == "classic" {
        let session = number("BENCH_SESSION_MS", 45_000)?;
        kafka["session_timeout_ms"] = session.into();
        kafka["heartbeat_interval_ms"] = (session / 3).min(3000).into();
    }
    kafka["group_protocol"] = protocol.into();
    for (name, setting) in
        [("BENCH_INSTANCE_ID", "group_instance_id"), ("BENCH_CLIENT_RACK", "client_rack")]
    {
        let value = variable(name, "")?;
        if !value.is_empty() {
            kafka[setting] = value.into();
        }
    }
    Ok(())
}

fn variable(name: &str, default: &str) -> anyhow::Result<String> {
    match std::env::var(name) {
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Ok(default.to_owned()),
        Err(error) => Err(error).context(name.to_owned()),
    }
}

fn required(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    let text = variable(name, &default.to_string())?;
    text.parse().with_context(|| format!("{name}={text} is not a number"))
}

fn flag(name: &str, default: bool) -> anyhow::Result<bool> {
    let text = variable(name, if default { "true" } else { "false" })?;
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => bail!("{name}={text} is neither true nor false"),
    }
}
