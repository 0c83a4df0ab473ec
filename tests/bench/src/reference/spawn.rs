//! Spawns in a loop on as many threads as there are slots, without Kafka.

use std::io::{self, BufRead, Write};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};

use super::task;
use crate::message::write_value;
use crate::program::Program;

/// Runs until standard input ends. Answers each line with the number of tasks that were done.
pub(crate) fn run(program: Program, slots: usize) -> Result<()> {
    let done = AtomicU64::new(0);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..slots {
            scope.spawn(|| run_slot(program, &done, &ends));
        }
        let answered = answer(&done);
        ends.store(true, Ordering::Relaxed);
        answered
    })
}

fn answer(done: &AtomicU64) -> Result<()> {
    let mut stdout = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        line.context("failed to read a question")?;
        writeln!(stdout, "{}", done.load(Ordering::Relaxed)).context("failed to answer")?;
        stdout.flush().context("failed to answer")?;
    }
    Ok(())
}

fn run_slot(program: Program, done: &AtomicU64, ends: &AtomicBool) {
    let mut value = String::new();
    write_value(0, &mut value);
    while !ends.load(Ordering::Relaxed) {
        if let Err(error) = task::run(program, &value) {
            // The other threads would go on, and the figure would be of fewer slots.
            eprintln!("error: {error:#}");
            process::exit(1);
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}
