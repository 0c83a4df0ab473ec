//! The pool with real processes.

mod deadlines;
mod outcomes;
mod scheduling;
mod support;
