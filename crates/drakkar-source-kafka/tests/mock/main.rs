//! The source against a mock cluster.

mod flow;
mod support;
