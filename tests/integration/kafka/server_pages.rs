//! What a worker says about itself, held against what the broker knows.

use anyhow::{Result, ensure};
use drakkar_integration::{Metrics, Pipeline, Worker};

use crate::RUN;

#[test]
fn the_pages_of_a_running_worker_agree_with_the_broker() -> Result<()> {
    let pipeline = Pipeline::new(2)?;
    let load = pipeline.produce(1_000)?;
    let worker = pipeline.worker("only")?.start()?;
    pipeline.wait_until_committed(load, RUN)?;
    check_status(&worker, "/healthz", 200)?;
    check_status(&worker, "/readyz", 200)?;
    let metrics = worker.metrics()?;
    let messages = load.messages as f64;
    let tasks = load.tasks() as f64;
    check_sum(&metrics, "drakkar_messages_consumed_total", "", messages)?;
    check_sum(&metrics, "drakkar_executor_tasks_total", "status=\"started\"", tasks)?;
    check_sum(&metrics, "drakkar_executor_tasks_total", "status=\"completed\"", tasks)?;
    check_sum(&metrics, "drakkar_messages_finished_total", "end=\"completed\"", messages)?;
    check_sum(&metrics, "drakkar_sink_payloads_delivered_total", "", tasks)?;
    check_sum(&metrics, "drakkar_assigned_partitions", "", 16.0)?;
    worker.terminate()?;
    pipeline.finish(load)?.account.exactly_once()
}

fn check_status(worker: &Worker, path: &str, expect: u16) -> Result<()> {
    let answer = worker.get(path)?;
    ensure!(answer.status == expect, "{path} answers {answer:?}");
    Ok(())
}

fn check_sum(metrics: &Metrics, name: &str, label: &str, expect: f64) -> Result<()> {
    let sum = metrics.sum_with(name, label)?;
    ensure!(sum == expect, "{name} with \"{label}\" is {sum}, not {expect}");
    Ok(())
}
