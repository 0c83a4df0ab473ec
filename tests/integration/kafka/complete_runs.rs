//! Runs that nothing disturbs.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use drakkar_integration::{Books, Pipeline, WorkerCommand, report};

use crate::RUN;

/// One worker takes all messages and ends cleanly.
fn run(messages: u64, fanout: u64, mode: &str) -> Result<Books> {
    let pipeline = Pipeline::new(fanout)?;
    let load = pipeline.produce(messages)?;
    let worker = pipeline.worker("only")?.with("BENCH_MODE", mode);
    let worker = WorkerCommand::start(worker)?;
    pipeline.wait_until_committed(load, RUN)?;
    worker.terminate()?;
    let books = pipeline.finish(load)?;
    report(&format!("{mode}: {}", books.account))?;
    Ok(books)
}

// Promise: DL-1, WM-1
#[test]
fn twenty_thousand_messages_arrive_exactly_once_and_are_committed_to_the_end() -> Result<()> {
    let books = run(20_000, 1, "true")?;
    books.account.exactly_once()?;
    ensure!(books.ledger.stdout_lens() == &BTreeSet::from([0]), "{:?}", books.ledger);
    Ok(())
}

#[test]
fn a_process_gets_its_message_and_its_output_arrives() -> Result<()> {
    let books = run(3_000, 1, "cat")?;
    books.account.exactly_once()?;
    // /bin/cat gives back what it got: the whole value.
    ensure!(books.ledger.stdout_lens() == &BTreeSet::from([200]), "{:?}", books.ledger);
    Ok(())
}

#[test]
fn every_task_of_a_message_with_ten_arrives_exactly_once() -> Result<()> {
    let books = run(5_000, 10, "pre")?;
    books.account.exactly_once()?;
    ensure!(books.ledger.stdout_lens() == &BTreeSet::from(["ok".len() as u64]), "{books:?}");
    Ok(())
}
