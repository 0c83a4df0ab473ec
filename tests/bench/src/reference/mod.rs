//! The bare loops: as little as can be written that does the same work.

pub(crate) mod command;
pub(crate) mod settings;

mod consume;
mod epochs;
mod spawn;
mod task;
