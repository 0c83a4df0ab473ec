//! Looks at the hooks from outside of the runtime: one that blocks its thread may block all of them,
//! and then nothing that runs there can say so.

use drakkar_core::EngineStatus;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// A thread that looks at hooks until this is dropped.
pub(crate) struct Watchdog {
    _alive: SyncSender<()>,
}

impl Watchdog {
    /// Starts the thread, or says in the log that there is none.
    pub(crate) fn start_or_warn(status: EngineStatus) -> Option<Self> {
        Self::start(status)
            .inspect_err(|error| {
                tracing::warn!(category = "lifecycle", %error, "watchdog_not_started");
            })
            .ok()
    }

    fn start(status: EngineStatus) -> io::Result<Self> {
        let (alive, owner) = sync_channel(0);
        let watch = move || watch(&status, &owner);
        thread::Builder::new().name("drakkar-watchdog".to_owned()).spawn(watch)?;
        Ok(Self { _alive: alive })
    }
}

fn watch(status: &EngineStatus, owner: &Receiver<()>) {
    while owner.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        status.watch_hooks();
    }
}
