//! To come.
#![forbid(unsafe_code)]

pub mod config;
#[cfg_attr(not(test), expect(dead_code, reason = "the application, which uses it, is to come"))]
mod health;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the application, which uses it, is to come")
)]
mod logging;
#[cfg(test)]
mod pages;
#[cfg_attr(not(test), expect(dead_code, reason = "the application, which uses it, is to come"))]
mod server;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the application, which uses it, is to come")
)]
mod telemetry;
