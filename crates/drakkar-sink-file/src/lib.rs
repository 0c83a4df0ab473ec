#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod encode;
mod error;
mod folder;
mod handles;
mod lines;
mod sink;
mod writer;

pub use config::{FIELDS, FileSinkConfig, FileSinkSection, Fsync};
pub use sink::FileSink;
