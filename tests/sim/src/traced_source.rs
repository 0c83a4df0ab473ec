//! A source between the engine and the scripted one, which enters what passes in either direction.

use crate::journal::{Journal, WorkerNumber};
use crate::recipe::Cookbook;
use crate::seen::{Delivered, Seen};
use bytes::Bytes;
use drakkar_api::{
    Assignment, CommitOffset, CommitRequest, Credit, Epoch, Flow, Headers, Offset, PartitionId,
    Reply, Settlement, Source, SourceError, SourceEvents, SourceMessage,
};
use drakkar_testkit::{FakeBroker, ScriptedSource};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

/// The header that carries the epoch in which a message was handed over. Eight digits, so that a
/// message has the same size in every epoch.
const EPOCH_HEADER: &str = "epoch";

/// Returns the headers of a message at the broker.
pub(crate) fn blank_headers() -> Headers {
    headers_of(Epoch::new(0))
}

fn headers_of(epoch: Epoch) -> Headers {
    let digits = Bytes::from(format!("{:08}", epoch.get()));
    [(EPOCH_HEADER.to_owned(), Some(digits))].into_iter().collect()
}

/// Returns the epoch in which a message was handed over.
pub(crate) fn epoch_in(headers: &Headers) -> Epoch {
    let digits = headers.get(EPOCH_HEADER).and_then(|digits| std::str::from_utf8(digits).ok());
    Epoch::new(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
}

/// The source that an engine of the simulation is given.
pub(crate) struct TracedSource {
    pub(crate) inner: ScriptedSource,
    pub(crate) broker: FakeBroker,
    pub(crate) journal: Journal,
    pub(crate) worker: WorkerNumber,
    pub(crate) cookbook: Cookbook,
}

impl TracedSource {
    fn see(&self, seen: Seen) {
        self.journal.see(self.worker, seen);
    }
}

impl Source for TracedSource {
    fn start(
        &self,
        events: Arc<dyn SourceEvents>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>> {
        let events = TracedEvents {
            inner: events,
            broker: self.broker.clone(),
            journal: self.journal.clone(),
            worker: self.worker,
            cookbook: self.cookbook,
            newest: Mutex::default(),
        };
        self.inner.start(Arc::new(events))
    }

    fn request(&self, epoch: Epoch, credit: Credit) {
        self.inner.request(epoch, credit);
    }

    fn set_flow(&self, flow: Flow) {
        self.see(Seen::Flow { open: flow == Flow::Open });
        self.inner.set_flow(flow);
    }

    fn commit(&self, request: CommitRequest) {
        self.see(Seen::CommitAsked { epoch: request.epoch, offset: request.offset });
        self.inner.commit(request);
    }

    fn settle(&self, epoch: Epoch, offset: Offset, settlement: Settlement) {
        self.see(Seen::Settled { epoch, offset, how: settlement });
        self.inner.settle(epoch, offset, settlement);
    }

    fn close(&self) {
        self.see(Seen::SourceClosed);
        self.inner.close();
    }
}

/// What the scripted source calls in the engine's place.
struct TracedEvents {
    inner: Arc<dyn SourceEvents>,
    broker: FakeBroker,
    journal: Journal,
    worker: WorkerNumber,
    cookbook: Cookbook,
    /// The newest message that each assignment was given.
    newest: Mutex<BTreeMap<Epoch, Offset>>,
}

impl TracedEvents {
    fn see(&self, seen: Seen) {
        self.journal.see(self.worker, seen);
    }

    fn position(&self, partition: &PartitionId) -> CommitOffset {
        self.broker.committed(partition).unwrap_or(CommitOffset::new(0))
    }
}

impl SourceEvents for TracedEvents {
    fn assigned(&self, assignments: Vec<Assignment>) {
        for Assignment { partition, epoch } in &assignments {
            let position = self.position(partition);
            let partition = partition.partition();
            self.see(Seen::Assigned { epoch: *epoch, partition, position });
        }
        self.inner.assigned(assignments);
    }

    fn revoked(&self, epochs: Vec<Epoch>, drained: Reply<()>) {
        self.see(Seen::RevokeHeard { epochs: epochs.clone() });
        let (reply, answered) = Reply::channel();
        let (journal, worker, named) = (self.journal.clone(), self.worker, epochs.clone());
        tokio::spawn(async move {
            // An engine that drops the reply has not drained; the source waits for its deadline then.
            if answered.await.is_ok() {
                journal.see(worker, Seen::Drained { epochs: named });
                drained.send(());
            }
        });
        self.inner.revoked(epochs, reply);
    }

    fn lost(&self, epochs: Vec<Epoch>) {
        for &epoch in &epochs {
            self.see(Seen::Lost { epoch });
        }
        self.inner.lost(epochs);
    }

    fn messages(&self, epoch: Epoch, messages: Vec<SourceMessage>) {
        let stamped: Vec<_> = messages
            .into_iter()
            .map(|message| SourceMessage { headers: headers_of(epoch), ..message })
            .collect();
        let delivered = |message: &SourceMessage| Delivered {
            offset: message.offset,
            bytes: message.size_bytes(),
            shape: self.cookbook.of(message.partition.partition(), message.offset).shape,
        };
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = newest.entry(epoch).or_insert(Offset::new(-1));
        let (news, repeats): (Vec<_>, Vec<_>) =
            stamped.iter().partition(|message| message.offset > *newest);
        *newest = news.iter().map(|message| message.offset).fold(*newest, Offset::max);
        for message in repeats {
            self.see(Seen::Repeated { epoch, offset: message.offset });
        }
        let delivered: Vec<_> = news.into_iter().map(delivered).collect();
        if !delivered.is_empty() {
            self.see(Seen::HandedOver { epoch, messages: delivered });
        }
        self.inner.messages(epoch, stamped);
    }

    fn committed(&self, epoch: Epoch, result: Result<CommitOffset, SourceError>) {
        let told = result.as_ref().copied().map_err(|error| error.kind().as_str().to_owned());
        self.see(Seen::CommitAnswered { epoch, result: told });
        self.inner.committed(epoch, result);
    }

    fn polled(&self) {
        self.inner.polled();
    }

    fn trouble(&self, error: SourceError) {
        self.inner.trouble(error);
    }

    fn ended(&self, result: Result<(), SourceError>) {
        if result.is_err() {
            self.see(Seen::SourceFailed);
        }
        self.inner.ended(result);
    }
}
