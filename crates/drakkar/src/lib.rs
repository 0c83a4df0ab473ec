//! To come.

pub mod config;
mod logging;
#[cfg(all(test, feature = "sink-kafka", feature = "sink-file"))]
mod pages;
