//! The process pool alone, without Kafka and without an async runtime: checksums of the files in a
//! folder, four at a time, each with a deadline.
//!
//! `cargo run -p drakkar-exec --example checksums -- /usr/share/common-licenses`
#![expect(clippy::print_stdout, reason = "the example prints what it found")]

use anyhow::Context;
use drakkar_api::{Task, TaskOutcome};
use drakkar_exec::{PoolSection, ProcessPool};
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let settings = PoolSection {
        binary_path: Some("sha256sum".into()),
        max_executors: 4,
        env_inherit_parent: false,
        ..PoolSection::default()
    };
    let pool = ProcessPool::start(settings.validate()?)?;

    let mut running = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("failed to list {folder:?}"))? {
        let path = entry?.path();
        if path.is_file() {
            let task = Task::default().arg("--").arg(path.to_string_lossy());
            running.push(pool.run(task.timeout(Duration::from_secs(10))));
        }
    }

    for task in running {
        let execution = task.wait();
        let cpu = execution.usage.map_or(Duration::ZERO, |usage| usage.user + usage.system);
        match &execution.outcome {
            TaskOutcome::Success => print!("{cpu:>8.1?}  {}", execution.stdout.text()),
            other => println!("{cpu:>8.1?}  {other}: {}", execution.stderr.text().trim()),
        }
    }
    Ok(())
}
