//! `drakkar-bench`: measures a worker against bare loops that do the same work.
//!
//! Both sides run as processes of their own on the same machine and the same real Kafka, one after
//! the other, and are judged from outside: by the broker's append times, by the group's committed
//! offsets and by the operating system's account of the process. Nothing that a worker says about
//! itself is used, but for its readiness. After every run the sink topic is read back whole: a lost,
//! doubled or wrong record makes the row fail, and so does anything else that could not be measured.
//!
//! Refuses to guess: a run that ran out of messages, a clock that stepped, or children that the
//! account does not show are errors and never a smaller number. `docs/benchmarks.md` says how to
//! run it and what each row means.

#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "it runs bare loops and workers and watches them from outside"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its user"
)]

mod account;
mod arguments;
mod bench;
mod block_on;
mod broker;
mod census;
mod figures;
mod floor;
mod message;
mod plan;
mod program;
mod reference;
mod report;
mod row;
mod source;
mod statistics;
mod subject;
mod wall_clock;
mod worker;

mod measure;

use std::env;
use std::process::ExitCode;

use arguments::Arguments;

/// The worker's allocator, so that it makes no difference between the two sides (decision 011).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let ended = match words.split_first() {
        Some((first, rest)) if first == "reference" => {
            reference::command::run(rest).map(|()| ExitCode::SUCCESS)
        }
        _ => Arguments::parse(&words).and_then(|arguments| bench::run(&arguments)),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        report::COULD_NOT_MEASURE.into()
    })
}
