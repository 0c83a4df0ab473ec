//! How a process ends.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | drained and closed after SIGTERM, SIGINT or the caller's own shutdown; also when the drain ran out of time |
//! | 2 | the configuration is wrong; nothing was started |
//! | 3 | a part could not start: a broker or sink that cannot be reached, a busy port, a missing program, a hook |
//! | 4 | the source ended by itself |
//! | 5 | a task or a hook failed, or a value did not parse, in a way at which `executor.on_failure` or `kafka.on_parse_error` has the worker stop |
//! | 130 | a second signal: left at once, without draining |
//!
//! A drain that runs out of time (`executor.drain_timeout_seconds`) is no failure: what was unfinished
//! then is killed, not committed, and comes again.

use crate::error::Error;
use crate::logging::LogGuard;
use drakkar_api::Executor;
use drakkar_exec::ProcessPool;
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// The exit code after a second signal.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// How long a program may take to end once its worker has ended.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long children are given to be killed when the process leaves at once.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the log is given to be written out then. Others may still be adding to it.
const LOG_TIMEOUT: Duration = Duration::from_millis(250);

/// Writes an error to standard error and answers its exit code. The process ends with it soon, even
/// if a thread of the runtime never does: a runtime that is dropped waits for all that block.
pub(crate) fn report(result: Result<(), Error>) -> ExitCode {
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            tell(format_args!("{error:?}"));
            error.exit_code()
        }
    };
    end_within(END_TIMEOUT, code);
    ExitCode::from(code)
}

/// Ends the process if it has not ended by itself until then.
fn end_within(limit: Duration, code: u8) {
    let until = Instant::now() + limit;
    let end = move || {
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        tell(format_args!("a thread does not end and is left behind"));
        std::process::exit(code.into())
    };
    if let Err(error) = thread::Builder::new().name("drakkar-end".to_owned()).spawn(end) {
        tell(format_args!("nothing watches over the end of the process: {error}"));
    }
}

/// Writes to standard error. It may be gone; the exit code still tells.
fn tell(text: fmt::Arguments<'_>) {
    writeln!(std::io::stderr(), "drakkar: {text}").ok();
}

/// What must be done even when the process leaves at once.
#[derive(Debug, Default)]
pub(crate) struct Emergency {
    log: Mutex<Option<LogGuard>>,
    pool: Mutex<Weak<ProcessPool>>,
}

impl Emergency {
    pub(crate) fn keep_log(&self, log: LogGuard) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    pub(crate) fn keep_pool(&self, pool: &Arc<ProcessPool>) {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(pool);
    }

    /// Writes out the log of a run that has ended.
    pub(crate) fn write_out_log(&self) {
        drop(self.log.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Kills the children, writes out the log, and ends the process. Needs no runtime: its threads
    /// may all be blocked.
    pub(crate) fn leave(&self) -> ! {
        tracing::warn!(category = "lifecycle", "second_signal_leaving_at_once");
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(pool) = pool {
            close_within(KILL_TIMEOUT, &pool);
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(log) = log {
            log.flush_within(LOG_TIMEOUT);
        }
        std::process::exit(EXIT_INTERRUPTED.into())
    }
}

/// Kills all children, and waits until they are dead, but not for long.
fn close_within(limit: Duration, pool: &ProcessPool) {
    // They are killed before this returns; what follows is only the wait.
    let closed = pool.close();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    if let Ok(runtime) = runtime {
        drop(runtime.block_on(async { tokio::time::timeout(limit, closed).await }));
    }
}
