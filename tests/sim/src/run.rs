//! One seed, from its first message to the verdict.

use crate::census::Census;
use crate::group::Group;
use crate::journal::{Journal, Keep};
use crate::promise::{Breach, Promise};
use crate::quiet::quietly;
use crate::scenario::Scenario;
use crate::weather::Weather;
use crate::worker::Surroundings;
use drakkar_testkit::FakeBroker;
use std::sync::Arc;

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first promise that was broken.
    pub breach: Option<Breach>,
    /// What came about.
    pub census: Census,
    /// The entries of the journal that were kept.
    pub lines: Vec<String>,
}

/// Runs the world of `seed` on a runtime of its own, with its time paused.
///
/// # Panics
///
/// When the runtime cannot be made.
pub fn run(seed: u64, keep: Keep) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    let played = quietly(|| runtime.block_on(live(seed, keep)));
    played.unwrap_or_else(|panic| Outcome {
        seed,
        breach: Some(Breach {
            promise: Promise::Contract,
            what: format!("the play broke off: {panic}"),
        }),
        census: Census::default(),
        lines: Vec::new(),
    })
}

async fn live(seed: u64, keep: Keep) -> Outcome {
    let scenario = Arc::new(Scenario::draw(seed));
    let journal = Journal::new(&scenario, keep);
    let broker = FakeBroker::new();
    let weather = Weather::new(scenario.rates);
    let (cookbook, partitions) = (scenario.cookbook, scenario.partitions);
    let around =
        Surroundings { scenario, journal: journal.clone(), weather, broker: broker.clone() };
    let mut group = Group::new(around).await;
    group.play().await;
    if journal.breach().is_none() {
        group.recover().await;
    }
    if journal.breach().is_none() {
        group.end().await;
    }
    if journal.breach().is_none() {
        journal.ask(|judge| judge.close(&broker, &cookbook, partitions));
    }
    let (breach, census) = (journal.breach(), journal.census());
    Outcome { seed, breach, census, lines: journal.lines() }
}
