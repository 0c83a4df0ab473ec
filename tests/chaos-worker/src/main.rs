//! The worker that `cargo xtask chaos` harms: a pipeline on the facade whose children succeed, take
//! time, fail once, hang once or fail for ever, as their message says.
//!
//! It reads `CHAOS_CONFIG` (the configuration, as YAML), `CHAOS_WORKER_ID`, `CHAOS_MARKS` (a folder in
//! which a child that fails once leaves a mark, so that it succeeds from then on, whoever runs it) and
//! `CHAOS_SABOTAGE`: what a broken worker would do, so that the harness can show that it notices.

use anyhow::{Context as _, bail};
use drakkar::prelude::*;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use std::time::Duration;

/// Of how many messages a broken worker harms one.
const SABOTAGE_EVERY: u64 = 1_000;

/// How long a child that hangs may take.
const HANG_TIMEOUT: Duration = Duration::from_secs(1);

/// Fails the first time, and leaves a mark.
const FLAKY: &str = "mkdir \"$0\" 2>/dev/null && exit 1; exit 0";

/// Hangs the first time, deaf to SIGTERM, and leaves a mark. The end is for a worker that was killed.
const HANG: &str = "mkdir \"$0\" 2>/dev/null && { trap '' TERM; sleep 30; }; exit 0";

const FAIL: &str = "exit 3";

#[derive(Deserialize)]
struct Input {
    id: String,
    n: u64,
    plan: Plan,
}

/// What the second task of a message does; the first one always succeeds at once.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Plan {
    Quick,
    Slow,
    Flaky,
    Hang,
    Dead,
}

#[derive(Serialize)]
struct Output<'a> {
    id: &'a str,
    n: u64,
    j: u64,
    task: &'a str,
    worker: &'a str,
    attempt: u32,
    exit_code: Option<i32>,
    stdout_len: usize,
}

/// What is broken in this worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    None,
    /// One result in a thousand is forgotten, and its offset is committed all the same.
    Drop,
    /// One result in a thousand is written twice.
    Repeat,
}

struct Chaos {
    marks: String,
    sabotage: Sabotage,
}

impl Chaos {
    fn task(&self, message: &Message<Input>, input: &Input, j: u64) -> Task {
        let task = Task::for_message(message)
            .meta("id", input.id.as_str())
            .meta("n", input.n)
            .meta("j", j);
        let script = |script: &str| {
            let mark = format!("{}/{}", self.marks, input.id);
            task.clone().binary("/bin/sh").args(["-c", script]).arg(mark)
        };
        match input.plan {
            _ if j == 0 => task.binary("/bin/true"),
            Plan::Quick => task.binary("/bin/true"),
            Plan::Slow => task.binary("/bin/sleep").arg("0.4"),
            Plan::Flaky => script(FLAKY),
            Plan::Hang => script(HANG).timeout(HANG_TIMEOUT),
            Plan::Dead => script(FAIL),
        }
    }
}

impl Handler for Chaos {
    type Input = Input;

    async fn arrange(&self, window: &Window<Input>, _cx: &Context) -> Result<Vec<Task>> {
        let parsed = window.messages().filter_map(|message| Some((message, message.payload()?)));
        Ok(parsed
            .flat_map(|(message, input)| (0..2).map(move |j| self.task(message, input, j)))
            .collect())
    }

    async fn on_task_complete(&self, done: &TaskOutput, cx: &Context) -> Result<Outputs> {
        let id = done.meta("id").and_then(|id| id.as_str()).unwrap_or_default();
        let number = |name| done.meta(name).and_then(|number| number.as_u64()).unwrap_or_default();
        let (n, j) = (number("n"), number("j"));
        let output = Output {
            id,
            n,
            j,
            task: done.id(),
            worker: cx.worker_id().as_str(),
            attempt: done.attempt,
            exit_code: done.exit_code(),
            stdout_len: done.stdout().len(),
        };
        let record = KafkaRecord::json(&output)?.key(format!("{id}/{j}"));
        let is_harmed = j == 0 && n % SABOTAGE_EVERY == SABOTAGE_EVERY / 2;
        Ok(match self.sabotage {
            Sabotage::Drop if is_harmed => Outputs::new(),
            Sabotage::Repeat if is_harmed => Outputs::new().with(record.clone()).with(record),
            _ => Outputs::new().with(record),
        })
    }

    async fn on_error(&self, _failure: &TaskFailure, _cx: &Context) -> Result<ErrorAction> {
        Ok(ErrorAction::Retry)
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<ExitCode> {
    let config = Config::from_yaml_str(&variable("CHAOS_CONFIG")?, [])?;
    let sabotage = match variable("CHAOS_SABOTAGE")?.as_str() {
        "none" => Sabotage::None,
        "drop" => Sabotage::Drop,
        "repeat" => Sabotage::Repeat,
        other => bail!("CHAOS_SABOTAGE must be none, drop or repeat, found \"{other}\""),
    };
    let handler = Chaos { marks: variable("CHAOS_MARKS")?, sabotage };
    let app = App::new(handler).worker_name(variable("CHAOS_WORKER_ID")?).config(config);
    Ok(app.run_to_exit_code().await)
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}
