#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod config;
mod connection;
mod encode;
mod error;
#[expect(unsafe_code, reason = "one call that the client library's wrapper lacks")]
mod persistence;
mod producer;
mod report;
mod settings;
mod sink;

pub use config::{Compression, FIELDS, KafkaSinkConfig, KafkaSinkSection};
pub use sink::KafkaSink;
