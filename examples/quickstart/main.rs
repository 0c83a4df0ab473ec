//! The whole of drakkar with one command and no service: an in-process Kafka, sample messages, a
//! real program for each of them, and results in a topic and in files.
//!
//! `cargo run --release --example quickstart -- [--messages N] [--out DIR]`
//!
//! The handler below is all that a pipeline needs; the other files of this folder bring the sample
//! broker, show the progress and check that every figure adds up.

mod arguments;
mod broker;
mod progress;
mod summary;

use arguments::Arguments;
use broker::Broker;
use drakkar::prelude::*;
use progress::Progress;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the worker may go on without finishing a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a message says.
#[derive(Deserialize)]
struct Job {
    id: String,
    text: String,
}

/// What a result says.
#[derive(Serialize)]
struct Counted<'a> {
    id: &'a str,
    words: u64,
}

/// Counts the words of each message with `wc -w`.
struct CountWords;

impl Handler for CountWords {
    type Input = Job;

    async fn arrange(&self, window: &Window<Job>, _cx: &Context) -> Result<Vec<Task>> {
        let jobs = window.messages().filter_map(Message::payload_with_offset);
        let task = |(job, offset): (&Job, Offset)| {
            Task::for_offset(offset).arg("-w").stdin(job.text.clone()).label("id", &job.id)
        };
        Ok(jobs.map(task).collect())
    }

    async fn on_task_complete(&self, done: &TaskOutput, cx: &Context) -> Result<Outputs> {
        let id = done.label("id").unwrap_or_default();
        let counted = Counted { id, words: done.stdout_text().trim().parse()? };
        let partition = cx.partition().map_or(0, PartitionId::partition);
        Ok(Outputs::new()
            .with(KafkaRecord::json(&counted)?.key(id.to_owned()))
            .with(FileLine::json(format!("counts-{partition}.jsonl"), &counted)?))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(usage) => {
            progress::say(&usage);
            return Ok(ExitCode::from(2));
        }
    };
    let broker = Broker::start(arguments.messages)?;
    let config = Config::from_yaml_str(&configuration(&broker, &arguments)?, [])?;
    let progress = Arc::new(Progress::new(arguments.messages));
    App::new(CountWords)
        .config(config)
        .observer(Arc::clone(&progress))
        .run_until(progress.finished(PATIENCE))
        .await?;
    summary::check(&progress, &broker, &arguments)
}

/// What a file `drakkar.yaml` would say.
fn configuration(broker: &Broker, arguments: &Arguments) -> anyhow::Result<String> {
    Ok(format!(
        "
kafka:
  brokers: {brokers}
  source_topic: {source}
  consumer_group: {group}
  startup_align_enabled: false
executor:
  binary_path: wc
sinks:
  kafka:
    counts: {{ topic: {sink} }}
  filesystem:
    lines: {{ base_path: {out} }}
metrics: {{ enabled: false }}
logging: {{ level: WARN, format: console }}
",
        brokers = broker.address(),
        source = broker::SOURCE,
        group = broker::GROUP,
        sink = broker::SINK,
        out = serde_json::to_string(&arguments.out)?,
    ))
}
