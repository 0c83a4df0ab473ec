//! SIGTERM and SIGINT: the first begins the drain, the second ends the process at once. SIGHUP has the
//! file of the log opened anew; if the log goes elsewhere, it does what it does by default, or under
//! `nohup`.
//!
//! They are heard by a thread of their own, one for the whole process: a hook that blocks the threads
//! of the runtime must not make the worker deaf. While no application runs, all do what they do by
//! default, so that a program that hangs after its worker's end can still be ended.

use crate::exit::Emergency;
use crate::logging;
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Handle;
use signal_hook::low_level::{emulate_default_handler, signal_name};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use tokio::sync::watch;

/// Who is told.
static REGISTRY: Mutex<Registry> = Mutex::new(Registry { thread: None, listeners: Vec::new() });

struct Registry {
    /// The thread, once it runs.
    thread: Option<Handle>,
    listeners: Vec<Arc<Listener>>,
}

/// One running application.
struct Listener {
    /// How many signals came so far.
    count: watch::Sender<u32>,
    emergency: Arc<Emergency>,
}

/// Hears of signals until it is dropped.
pub(crate) struct Signals(Arc<Listener>);

impl Signals {
    /// Listens from now on. The second signal ends the process through `emergency`.
    pub(crate) fn install(emergency: Arc<Emergency>) -> io::Result<Self> {
        let listener = Arc::new(Listener { count: watch::Sender::new(0), emergency });
        let mut registry = registry();
        if registry.thread.is_none() {
            let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
            let handle = signals.handle();
            thread::Builder::new().name("drakkar-signals".to_owned()).spawn(|| hear(signals))?;
            registry.thread = Some(handle);
        }
        registry.listeners.push(Arc::clone(&listener));
        Ok(Self(listener))
    }

    /// Waits for the first signal.
    pub(crate) fn first(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut count = self.0.count.subscribe();
        async move {
            if count.wait_for(|&count| count > 0).await.is_err() {
                // No signal can come any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Has the log opened anew at SIGHUP from now on, if it goes to a file and signals are ours.
pub(crate) fn reopen_log_at_hangup() -> io::Result<()> {
    match &registry().thread {
        Some(thread) if logging::goes_to_a_file() => thread.add_signal(SIGHUP),
        _ => Ok(()),
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        registry().listeners.retain(|listener| !Arc::ptr_eq(listener, &self.0));
    }
}

fn hear(mut signals: signal_hook::iterator::Signals) {
    for signal in signals.forever() {
        let listeners = registry().listeners.clone();
        if listeners.is_empty() && emulate_default_handler(signal).is_ok() {
            continue;
        }
        if signal == SIGHUP {
            logging::reopen();
            continue;
        }
        let name = signal_name(signal);
        tracing::info!(category = "lifecycle", signal = name, "shutdown_signal_received");
        for listener in listeners {
            listener.hear();
        }
    }
}

impl Listener {
    fn hear(&self) {
        let mut is_second = false;
        self.count.send_modify(|count| {
            *count += 1;
            is_second = *count > 1;
        });
        if is_second {
            self.emergency.leave();
        }
    }
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}
