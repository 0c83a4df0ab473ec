//! The source against a mock cluster.

mod commit;
mod end;
mod flow;
mod gauges;
mod idle;
mod membership;
mod rebalance;
mod start;
mod support;
