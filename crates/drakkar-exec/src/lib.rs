//! The process pool of drakkar: to come.
#![deny(unsafe_code)]

mod bell;
mod child;
mod config;
mod course;
mod environment;
mod error;
mod gate;
mod listener;
mod memory;
mod output;
mod pool;
mod reaper;
mod resolve;
mod signal;
mod wait4;

pub use config::{FIELDS, PoolConfig, PoolSection};
pub use error::{PoolError, PoolErrorKind};
pub use pool::{ProcessPool, Running};
