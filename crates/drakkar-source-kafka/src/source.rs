//! The handle that the engine holds.

use crate::commit::CommitDesk;
use crate::config::SourceSettings;
use crate::flow::FlowTable;
use crate::poll::PollThread;
use crate::wake::Wake;
use crate::watch::{SourceGauges, Watch};
use drakkar_api::{
    CommitRequest, Credit, Epoch, Flow, Offset, Reply, Settlement, Source, SourceError,
    SourceErrorKind, SourceEvents, WorkerId,
};
use drakkar_kafka::ClientSettings;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A member of a consumer group, as a source of messages.
///
/// Dropping it is as good as [`close`](Source::close): its threads then leave the group and end.
///
/// ```
/// use drakkar_api::WorkerId;
/// use drakkar_kafka::ClientSection;
/// use drakkar_source_kafka::{KafkaSource, SourceConfig};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), drakkar_api::Problems> {
/// let client = ClientSection::default().validate("kafka")?;
/// let settings = SourceConfig::default().validate("kafka", Duration::from_secs(30))?;
/// let source = KafkaSource::new(client, settings, &WorkerId::new("worker-1"));
/// # drop(source);
/// # Ok(())
/// # }
/// ```
pub struct KafkaSource {
    client: ClientSettings,
    settings: SourceSettings,
    worker: WorkerId,
    shared: Arc<Shared>,
}

/// What the handle, the source's thread and the commit thread share.
#[derive(Default)]
pub(crate) struct Shared {
    flow: Mutex<FlowTable>,
    commits: CommitDesk,
    watch: Arc<Watch>,
    wake: Wake,
    is_closing: AtomicBool,
    failure: Mutex<Option<SourceError>>,
    events: OnceLock<Arc<dyn SourceEvents>>,
}

impl KafkaSource {
    /// Makes a source. Nothing is connected before [`start`](Source::start).
    ///
    /// Clients of this worker are called `drakkar-<worker>` on the brokers.
    pub fn new(client: ClientSettings, settings: SourceSettings, worker: &WorkerId) -> Self {
        Self { client, settings, worker: worker.clone(), shared: Arc::default() }
    }

    /// Returns a handle that tells how far each partition is behind and whether a broker answers.
    pub fn gauges(&self) -> SourceGauges {
        SourceGauges::new(Arc::clone(&self.shared.watch))
    }

    fn spawn(
        &self,
        events: Arc<dyn SourceEvents>,
        started: Reply<Result<(), SourceError>>,
    ) -> Result<(), SourceError> {
        if self.shared.is_closing() {
            return Err(SourceError::new(SourceErrorKind::Other, "the source is closed"));
        }
        if self.shared.events.set(Arc::clone(&events)).is_err() {
            return Err(SourceError::new(SourceErrorKind::Other, "the source was started before"));
        }
        let thread = PollThread {
            client: self.client.clone(),
            settings: self.settings.clone(),
            worker: self.worker.clone(),
            shared: Arc::clone(&self.shared),
            events,
        };
        std::thread::Builder::new()
            .name("drakkar-source".to_owned())
            .spawn(move || thread.run(started))
            .map(drop)
            .map_err(|error| {
                let text = format!("the source's thread could not be started: {error}");
                SourceError::new(SourceErrorKind::Other, text)
            })
    }
}

impl Source for KafkaSource {
    /// Connects, checks that the topic exists, and joins the group.
    ///
    /// Both are waited for until `connect_timeout_seconds` are over; credentials that are refused
    /// end the wait at once.
    fn start(
        &self,
        events: Arc<dyn SourceEvents>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>> {
        Box::pin(async move {
            let (started, answer) = Reply::channel();
            self.spawn(events, started)?;
            answer.await.unwrap_or_else(|_| {
                let text = "the source's thread ended before it had started";
                Err(SourceError::new(SourceErrorKind::Other, text))
            })
        })
    }

    fn request(&self, epoch: Epoch, credit: Credit) {
        self.shared.flow().grant(epoch, credit);
        self.shared.wake();
    }

    /// Opens or closes the flow. What is being handed over at this moment still arrives.
    fn set_flow(&self, flow: Flow) {
        self.shared.flow().set_flow(flow);
        self.shared.wake();
    }

    fn commit(&self, request: CommitRequest) {
        let Some(events) = self.shared.events.get() else { return };
        let epoch = request.epoch;
        if let Err(error) = self.shared.commits.submit(request) {
            events.committed(epoch, Err(error));
        }
    }

    /// Does nothing: a consumer group knows positions only.
    fn settle(&self, _epoch: Epoch, _offset: Offset, _settlement: Settlement) {}

    fn close(&self) {
        self.shared.close();
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("client", &self.client)
            .field("settings", &self.settings)
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Returns the credits. Held for a moment only, and never while the engine is called.
    pub(crate) fn flow(&self) -> MutexGuard<'_, FlowTable> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commits(&self) -> &CommitDesk {
        &self.commits
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Wakes the source's thread.
    pub(crate) fn wake(&self) {
        self.wake.raise();
    }

    /// Lets the source's thread sleep until it is woken, at most `timeout`.
    pub(crate) fn sleep(&self, timeout: Duration) {
        self.wake.wait(timeout);
    }

    /// Lets the source end with an error; the first one counts.
    pub(crate) fn fail(&self, error: SourceError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        drop(failure);
        self.wake();
    }

    /// Returns the error that the source cannot go on with.
    pub(crate) fn failure(&self) -> Option<SourceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Asks the source's thread to leave the group and to end.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        self.wake();
    }
}
