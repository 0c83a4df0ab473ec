//! A group of workers under faults, and a judge who was not there.
//!
//! Processes of a test worker (`tests/chaos-worker`) consume what a producer writes steadily. Meanwhile a
//! schedule, decided by a seed alone, kills, stops and ends them, takes the broker away,
//! and cuts their connections at a proxy that all their traffic passes. What a message's
//! processes do (succeed, fail once, hang once, fail for ever) stands in the message.
//!
//! Afterwards the topics and the log of commits are read from the beginning, and the judge
//! compares three records that no worker made: what was produced, what arrived and when each offset
//! was committed, and when each fault was. Nothing may be lost or invented; a repeat needs a fault
//! that explains it; no committed offset may go back; everything must be done in the end.
//!
//! It fails closed: too little of anything, a worker that does not come back or ends by itself, or
//! a topic that cannot be read is a failure.

mod arguments;
mod copies;
mod crew;
mod fault;
mod judge;
mod losses;
mod plan;
mod proxy;
mod random;
mod run;
mod schedule;

pub use arguments::Arguments;
pub use run::run;
