//! What a worker says about itself, held against what the broker knows.

use anyhow::{Result, ensure};
use drakkar_integration::{Metrics, Pipeline, Worker, wait_until};

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
    check_sum(&metrics, "drakkar_kafka_connected", "", 1.0)?;
    check_sum(&metrics, "drakkar_message_e2e_seconds_count", "", messages)?;
    let resident = metrics.sum("process_resident_memory_bytes")?;
    ensure!(resident > 1e6, "it has {resident} bytes");
    let verbose = worker.get("/readyz?verbose")?;
    for check in ["\"kafka\"", "\"sink_kafka:results\"", "\"sink_kafka:results_delivery\""] {
        ensure!(verbose.body.contains(check), "{check} is missing in {verbose:?}");
    }
    wait_for_lag(&worker, 0.0)?;
    worker.terminate()?;
    pipeline.finish(load)?.account.exactly_once()
}

#[test]
fn the_lag_of_a_worker_is_what_the_broker_has_more() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let worker = pipeline.worker("only")?.start()?;
    wait_for_lag(&worker, 0.0)?;
    let feed = pipeline.feed(5_000)?;
    wait_until("a lag", RUN, || {
        Ok((worker.metrics()?.sum("drakkar_consumer_lag")? >= 1_000.0).then_some(()))
    })?;
    let load = feed.stop()?;
    pipeline.wait_until_committed(load, RUN)?;
    wait_for_lag(&worker, 0.0)?;
    worker.terminate()?;
    pipeline.finish(load)?.account.exactly_once()
}

/// Waits until every partition has a lag and they add up to this.
fn wait_for_lag(worker: &Worker, expect: f64) -> Result<()> {
    let what = format!("a lag of {expect} over all partitions");
    wait_until(&what, RUN, || {
        let metrics = worker.metrics()?;
        let Ok(sum) = metrics.sum("drakkar_consumer_lag") else { return Ok(None) };
        let has_all = (0..16)
            .all(|it| metrics.sum_with("drakkar_consumer_lag", &format!("\"{it}\"")).is_ok());
        Ok((has_all && sum == expect).then_some(()))
    })
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
