//! A bounded pool of processes: tasks in, exit status, output and resource usage out.
//!
//! In drakkar the pool is what runs the tasks of a pipeline: it implements
//! [`Executor`](drakkar_api::Executor), which the engine drives. It is as useful alone:
//!
//! ```
//! use drakkar_api::{Task, TaskOutcome};
//! use drakkar_exec::{PoolSection, ProcessPool};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = PoolSection { max_executors: 2, ..PoolSection::default() };
//! let pool = ProcessPool::start(settings.validate()?)?;
//!
//! let sorted = pool.run(Task::default().binary("sort").stdin("pear\napple\n"));
//! let endless = pool.run(Task::default().binary("yes").timeout(Duration::from_millis(100)));
//!
//! // `wait` is for threads; in async code, await the very same thing.
//! assert_eq!(sorted.wait().stdout.text(), "apple\npear\n");
//! assert!(matches!(endless.wait().outcome, TaskOutcome::Timeout { .. }));
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **A task does not outlive its deadline.** Each runs in a process group of its own. At the
//!   deadline the group gets SIGTERM, after `kill_grace_seconds` SIGKILL. When the task's program
//!   itself has ended, what others of the group still write is read for `pipe_drain_seconds`; then
//!   they are killed, and the task has ended as its program did. See the limits below.
//! - **Nothing is signalled by mistake.** A group is signalled only while its leader is unreaped,
//!   so that its number cannot have passed to others.
//! - **Every run ends exactly once**, withdrawn ones too, and there are no magic exit codes: each
//!   way to end is a [`TaskOutcome`](drakkar_api::TaskOutcome).
//! - **Memory is bounded.** `stdout_bytes_max` and `stderr_bytes_max` are kept of each task; the
//!   rest is read, counted and dropped, so that no task is stopped by a full pipe; or, with
//!   `output_over_limit`, it ends the task.
//! - **Waiting is fair.** Among equal priorities the owners take turns. How many runs wait is the
//!   submitter's to bound; the pool refuses none.
//! - **Starting a task does not depend on the size of this process.** Children borrow its
//!   memory until their programs are loaded; nothing is forked, and a test would notice.
//! - **Nothing is inherited by accident:** neither secrets in the environment (`env_inherit_deny`),
//!   nor descriptors, nor standard input (a task without one reads `/dev/null`), nor the ignored
//!   SIGPIPE that Rust programs have.
//!
//! # How it works
//!
//! One thread per slot, `drakkar-slot-N`, takes a run from the gate, starts its program and
//! then waits in one `poll` for all there is to wait for: the three pipes, the program's end, a
//! cancellation, the time limit. What to do at which moment is a pure state machine. A
//! further thread, `drakkar-reaper`, tells the endings of runs that never got a slot, and reaps
//! processes that took longer than `reap_timeout_seconds` to die of SIGKILL.
//!
//! Listeners are called from these threads. They should be quick, as their slot waits for them, and
//! must not panic; if one does, this is logged, and the pool goes on.
//!
//! # Limits
//!
//! - A process that leaves its group (`setsid`, `setpgid`) escapes the kill, unless it is the task's
//!   program itself. So does one of another user, for want of permission.
//! - The pool's promises end with this process: after a `kill -9` of it, children run on, except
//!   programs that got a `parent_death_signal` by `executor.limits`.
//! - The orphans of a killed group are reaped by the system's first process. If this process is
//!   that one, as in a container without an init, nobody does: run it with one (`docker run --init`).
//! - To find a program and to load it has no deadline, and the time limit of the task begins after
//!   it. On a hanging network drive both may take for ever; the slot is then lost, and closing leaves
//!   its thread behind.
//! - Other parts of this process must not wait for *any* child (`wait`, `waitpid(-1)`): they would
//!   take the exit status of tasks. The task then fails, saying so.
//! - Peak memory is known where it exceeds this process's own, otherwise rarely.
//!
//! Linux only: it needs pidfds, eventfds and `/proc`.
#![deny(unsafe_code)]

mod config;
mod error;
mod pool;

mod gate;
mod listener;
mod reaper;

mod bell;
mod child;
mod course;
mod output;
mod signal;
mod spawn;
mod vfork;
mod wait4;

mod environment;
mod limits;
mod memory;
mod resolve;
mod wrap;

mod cpus;

pub use config::{FIELDS, OverLimitPolicy, PoolConfig, PoolSection};
pub use cpus::Cpus;
pub use error::{PoolError, PoolErrorKind};
pub use limits::{DeathSignal, LimitsSection};
pub use pool::{ProcessPool, Running};
