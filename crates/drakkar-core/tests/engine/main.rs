//! The engine against the fakes of the test kit, in paused time: what a user is promised, seen from
//! outside.

mod world;

mod delivery;
mod outcomes;
