//! The worker that benchmarks and integration tests run: a pipeline on the facade, configured by
//! `BENCH_*` variables alone (`docs/benchmarks.md`). Runs until SIGTERM, then drains and exits 0.

mod settings;

use drakkar::prelude::*;
use serde::{Deserialize, Serialize};
use settings::{Mode, Settings};
use std::process::ExitCode;
use std::time::Duration;

/// Messages are allocated on one thread and freed on others, which glibc's allocator is slow at
/// (decision 011). The bare loops have the same.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Deserialize)]
struct Input {
    id: String,
    n: u64,
}

#[derive(Serialize)]
struct Output<'a> {
    id: &'a str,
    n: u64,
    task: &'a str,
    exit_code: Option<i32>,
    stdout_len: usize,
}

struct Bench {
    mode: Mode,
    fanout: u64,
    sleep_seconds: f64,
    output_bytes: u64,
    hook_time: Duration,
    leak_bytes: usize,
}

impl Bench {
    /// Of different lengths, so that they do not end in step.
    fn sleep(&self, n: u64) -> String {
        let share = 1.0 - f64::from(u32::try_from(n % 8).unwrap_or(0)) / 16.0;
        (self.sleep_seconds * share).to_string()
    }

    fn task(&self, message: &Message<Input>, input: &Input, j: u64) -> Task {
        let task = Task::for_message(message)
            .meta("id", input.id.as_str())
            .meta("n", input.n)
            .meta("j", j);
        match self.mode {
            Mode::True => task,
            Mode::Cat => task.stdin(message.value().cloned().unwrap_or_default()),
            Mode::Sleep => task.arg(self.sleep(input.n)),
            Mode::Loud => task
                .arg("-c")
                .arg(r#"sleep "$0" && exec head -c "$1" /dev/zero"#)
                .arg(self.sleep(input.n))
                .arg(self.output_bytes.to_string()),
            Mode::Precomputed => task.precomputed(Precomputed::stdout("ok")),
        }
    }
}

impl Handler for Bench {
    type Input = Input;

    async fn arrange(&self, window: &Window<Input>, _cx: &Context) -> Result<Vec<Task>> {
        let parsed = window.messages().filter_map(|message| Some((message, message.payload()?)));
        Ok(parsed
            .flat_map(|(message, input)| {
                (0..self.fanout).map(move |j| self.task(message, input, j))
            })
            .collect())
    }

    async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> Result<Outputs> {
        if !self.hook_time.is_zero() {
            tokio::time::sleep(self.hook_time).await;
        }
        if self.leak_bytes > 0 {
            // Looked at, or the compiler leaves it out.
            std::hint::black_box(vec![1_u8; self.leak_bytes].leak());
        }
        let id = done.meta("id").and_then(|id| id.as_str()).unwrap_or_default();
        let number = |name| done.meta(name).and_then(|number| number.as_u64()).unwrap_or_default();
        let output = Output {
            id,
            n: number("n"),
            task: done.id(),
            exit_code: done.exit_code(),
            stdout_len: done.stdout().len(),
        };
        let key = match self.fanout {
            1 => id.to_owned(),
            _ => format!("{id}/{}", number("j")),
        };
        Ok(Outputs::new().with(KafkaRecord::json(&output)?.key(key)))
    }

    async fn on_error(&self, _failure: &TaskFailure, _cx: &Context) -> Result<ErrorAction> {
        Ok(ErrorAction::Retry)
    }
}

// One thread does: hooks are small here, and the cores are for the processes (decision 011).
#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<ExitCode> {
    let settings = Settings::from_env()?;
    let config = Config::from_yaml_str(&settings.yaml()?, [])?;
    let handler = Bench {
        mode: settings.mode,
        fanout: settings.fanout,
        sleep_seconds: settings.sleep_seconds,
        output_bytes: settings.output_bytes,
        hook_time: settings.hook_time,
        leak_bytes: settings.leak_bytes,
    };
    Ok(App::new(handler).worker_name(settings.worker_id).config(config).run_to_exit_code().await)
}
