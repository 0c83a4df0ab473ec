//! The engine in a simulated world that one seed decides.
//!
//! The real `drakkar-core` runs on a single thread whose time is paused. Everything around it is
//! fake and comes from the seed: messages, group life, how long runs and deliveries take, what fails,
//! how often and how, when a worker ends or dies, and who goes on in its place. A judge sees what the
//! fakes see, keeps a naive account of its own, and names the promise of `docs/guarantees.md` that is
//! broken, at the moment when it is. When the faults have ended, everything must be done within a
//! bounded time.
//!
//! Reading order: `scenario` (what a seed draws), `seen` (what can be observed), `group` (what befalls
//! the workers), `judge` (what must hold), `fault` (the proof that the judge finds something).
//!
//! It never believes the engine: what that says of itself is only compared with what was seen.
#![forbid(unsafe_code)]

mod fault;
mod promise;
mod run;

mod recipe;
mod scenario;
mod weather;

mod journal;
mod seen;
mod text;

mod group;
mod handler;
mod traced_executor;
mod traced_observer;
mod traced_sink;
mod traced_source;
mod worker;

mod census;
mod judge;
mod quiet;

pub use census::{Census, SITUATIONS};
pub use fault::{FAULTS, Fault, planted};
pub use journal::Keep;
pub use promise::{Breach, Promise};
pub use run::{Outcome, run};
