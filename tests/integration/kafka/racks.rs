//! Where a worker is, as the broker knows it.
//!
//! Of which replica a worker reads is decided by the brokers, by this and by what they are told of
//! themselves; with the one broker of these tests there is no choice to be seen.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use drakkar_integration::{Pipeline, wait_until};

use crate::RUN;
use crate::clean_exits::REBALANCE;

const MESSAGES: u64 = 200;

const RACK: &str = "shelf-7";

#[test]
fn the_broker_is_told_the_rack() -> Result<()> {
    tell("classic")
}

#[test]
fn the_broker_is_told_the_rack_in_the_new_protocol() -> Result<()> {
    tell("consumer")
}

fn tell(protocol: &str) -> Result<()> {
    let pipeline = Pipeline::new(1)?;
    let load = pipeline.produce(MESSAGES)?;
    let worker =
        |id| -> Result<_> { Ok(pipeline.worker(id)?.with("BENCH_GROUP_PROTOCOL", protocol)) };
    let nowhere = worker("nowhere")?.start()?;
    pipeline.wait_until_committed(load, RUN)?;
    let racks = pipeline.racks()?;
    ensure!(racks.is_empty(), "a worker that has no rack is in {racks:?}");
    nowhere.terminate()?;

    let somewhere = worker("somewhere")?.with("BENCH_CLIENT_RACK", RACK).start()?;
    let expect = BTreeSet::from([RACK.to_owned()]);
    wait_until("the broker to know the rack", REBALANCE, || {
        Ok((pipeline.racks()? == expect).then_some(()))
    })?;
    somewhere.terminate()?;
    pipeline.finish(load)?.account.exactly_once()
}
