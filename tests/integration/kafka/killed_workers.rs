//! Workers that are killed in the middle of their work.

use anyhow::{Result, ensure};
use drakkar_integration::{Pipeline, report};

use crate::RUN;

const KILLS: u64 = 5;

/// What each worker gets done, at the least, before it is killed.
const RECORDS_PER_WORKER: u64 = 600;

const BACKLOG: u64 = 1_000;

// Promise: DL-1, WM-1
#[test]
fn five_killed_workers_lose_nothing_and_repeat_only_what_was_not_committed() -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let feed = pipeline.feed(BACKLOG)?;
    let mut repeatable = 0;
    for kill in 1..=KILLS {
        let before = pipeline.records()?;
        let committed_before = pipeline.committed()?.count();
        let worker = pipeline.worker(&format!("killed-{kill}"))?.start()?;
        pipeline.wait_for_records(before + RECORDS_PER_WORKER, RUN)?;
        pipeline.wait_for_commits_beyond(committed_before, RUN)?;
        worker.kill()?;
        pipeline.wait_until_quiet()?;
        let (committed, ledger) = pipeline.check_commits_are_delivered()?;
        repeatable += ledger.uncommitted(&committed)?;
    }
    let load = feed.stop()?;
    ensure!(pipeline.records()? < load.tasks(), "the last kill came after the run");

    let last = pipeline.worker("last")?.start()?;
    pipeline.wait_until_committed(load, RUN)?;
    last.terminate()?;
    let account = pipeline.finish(load)?.account;
    report(&format!("{KILLS} kills: {account}; at most {repeatable} could be"))?;
    account.nothing_lost()?;
    ensure!(account.duplicates() <= repeatable, "only {repeatable} were not committed: {account}");
    Ok(())
}
