//! The pool with real processes.
#![expect(
    clippy::disallowed_methods,
    reason = "the operating system is asked again until it agrees"
)]

mod deadlines;
mod outcomes;
mod scheduling;
mod support;
mod wraps;
