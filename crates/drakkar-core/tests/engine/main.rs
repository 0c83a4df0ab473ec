//! The engine against the fakes of the test kit, in paused time: what a user is promised, seen from
//! outside.

mod world;

mod accounting;
mod answers;
mod arrange;
mod backpressure;
mod blocked;
mod chaos;
mod commits;
mod delivery;
mod failure;
mod hooks;
mod letters;
mod outcomes;
mod parked;
mod parse;
mod rebalance;
mod retry;
mod shutdown;
mod stalls;
