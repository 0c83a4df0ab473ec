//! The real services that integration tests and benchmarks need, on loopback only.
//!
//! Two providers run them: Docker (a compose file with fixed ports) and native (plain processes on
//! free ports, no container engine). What runs is recorded in a state file per service, so that
//! another run of xtask finds it. Nothing here is meant to hold data that matters: `down` deletes
//! it.

mod docker;
mod home;
mod java;
pub(crate) mod kafka;
mod kafka_jars;
mod lifecycle;
mod native;
mod ports;
mod postgres;
mod probe;
mod redis;
mod service;
pub(crate) mod state;

pub(crate) mod command;
pub(crate) mod session;

pub(crate) use docker::{Lint, lint};
pub(crate) use service::{Provider, Service};
