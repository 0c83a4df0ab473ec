//! Calls of listeners. They are foreign code: a panic of theirs is logged and ends nothing.

use drakkar_api::{Execution, Run, RunId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Tells that `run` got slot `slot`.
pub(crate) fn tell_started(run: &Run, slot: usize, queue_wait: Duration) {
    guarded(run.id, "started", || run.listener.started(run.id, slot, queue_wait));
}

/// Tells that `run` ended, and lets go of it.
pub(crate) fn tell_finished(run: Run, execution: Execution) {
    let id = run.id;
    guarded(id, "finished", move || {
        run.listener.finished(id, execution);
        drop(run);
    });
}

fn guarded(id: RunId, call: &'static str, action: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(action)).is_err() {
        tracing::error!(run = id.get(), call, "a listener of the process pool panicked");
    }
}
