//! One module per group of rows: each runs the two sides in turn and gives their figures.

pub(crate) mod blocked_head;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod pairs;
pub(crate) mod spawn;
pub(crate) mod throughput;

mod side;
