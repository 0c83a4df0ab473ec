//! SIGTERM and SIGINT: the first begins the drain, the second ends the process at once.

use crate::exit::Emergency;
use std::future::Future;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many signals came so far.
pub(crate) struct Signals {
    count: watch::Receiver<u32>,
}

impl Signals {
    /// Listens from now on; the default action of both signals is off until the process ends.
    pub(crate) fn install() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (counter, count) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    // Both count the same; the order is of no consequence.
                    biased;
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return,
                };
                tracing::info!(category = "lifecycle", signal = name, "shutdown_signal_received");
                counter.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count })
    }

    /// Waits for the first signal.
    pub(crate) fn first(&self) -> impl Future<Output = ()> + Send + 'static {
        reached(self.count.clone(), 1)
    }

    /// Ends the process at the second signal.
    pub(crate) fn spawn_second(&self, emergency: Arc<Emergency>) -> JoinHandle<()> {
        let second = reached(self.count.clone(), 2);
        tokio::spawn(async move {
            second.await;
            emergency.leave().await;
        })
    }
}

async fn reached(mut count: watch::Receiver<u32>, wanted: u32) {
    if count.wait_for(|count| *count >= wanted).await.is_err() {
        // No signal can come any more.
        std::future::pending::<()>().await;
    }
}
