//! `cargo xtask tidy`: the project's own rules, those that no compiler and no linter knows.
//!
//! Every rule is a function from the tracked files to findings, with tests that show that it can
//! fail.

mod code;
mod crate_graph;
mod dependencies;
mod faults;
mod finding;
mod links;
mod machine_paths;
mod promises;
mod sources;
mod tree;

pub(crate) mod command;
