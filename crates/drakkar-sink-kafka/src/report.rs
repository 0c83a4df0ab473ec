//! Delivery reports: gathered per batch, whatever the order in which they come.

use crate::error::verdict;
use drakkar_api::{Reply, ReplyReceiver, Verdict};
use drakkar_kafka::persistence;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use std::sync::{Arc, Mutex, PoisonError};

/// The verdicts of one batch, as far as they are in.
pub(crate) struct Reports {
    state: Mutex<State>,
}

struct State {
    verdicts: Vec<Option<Verdict>>,
    missing: usize,
    done: Option<Reply<Vec<Verdict>>>,
}

impl Reports {
    /// Starts without any; the receiver hears when all are in.
    pub(crate) fn new(count: usize) -> (Arc<Self>, ReplyReceiver<Vec<Verdict>>) {
        let (done, on_done) = Reply::channel();
        let state = State { verdicts: vec![None; count], missing: count, done: Some(done) };
        (Arc::new(Self { state: Mutex::new(state) }), on_done)
    }

    /// Notes the verdict of one record. Nobody may listen any more; then it is forgotten.
    pub(crate) fn settle(&self, index: usize, verdict: Verdict) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.verdicts[index].replace(verdict).is_none() {
            state.missing -= 1;
        }
        if state.missing > 0 {
            return;
        }
        let Some(done) = state.done.take() else { return };
        let verdicts = std::mem::take(&mut state.verdicts).into_iter().flatten().collect();
        drop(state);
        done.send(verdicts);
    }
}

/// What travels with a record through the client.
pub(crate) struct Ticket {
    pub(crate) reports: Arc<Reports>,
    pub(crate) index: usize,
}

/// Hears the client.
pub(crate) struct Listener;

impl ClientContext for Listener {
    fn error(&self, error: KafkaError, reason: &str) {
        // The client goes on by itself; what it means for records is in their reports.
        tracing::debug!(category = "sink", error = %error, reason, "sink_client_error");
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let verdict = match result {
            Ok(_) => Verdict::Confirmed,
            Err((error, message)) => verdict(error, persistence(message)),
        };
        ticket.reports.settle(ticket.index, verdict);
    }
}
