//! Delivery reports: each record of a batch carries a ticket, and each ticket comes back once.
//!
//! The tickets own their half of the batch's state, so reports that come after the delivery was
//! given up find everything they need and change nothing that anybody reads.

use rdkafka::types::RDKafkaErrorCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// What the client says became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The broker has acknowledged it.
    Delivered,
    /// The client did not take it; nobody else has seen it.
    Refused(RDKafkaErrorCode),
    /// The client took it, but it was not acknowledged.
    Failed {
        code: RDKafkaErrorCode,
        /// Whether it can be in the topic nevertheless.
        persistence: Persistence,
    },
}

/// Whether a record without an acknowledgement can be in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// It was never sent, or the broker said that it did not write it.
    NotPersisted,
    /// It was sent and nothing was heard, or it is not known.
    PossiblyPersisted,
}

/// The reports of one batch.
#[derive(Debug)]
pub(crate) struct Reports {
    slots: Box<[OnceLock<Report>]>,
    /// Tickets that are out, and one more as long as tickets may be taken.
    open: AtomicUsize,
    complete: Notify,
}

/// The claim of one record on a report. Comes back through the client's callback.
#[derive(Debug)]
pub(crate) struct Ticket {
    reports: Arc<Reports>,
    slot: usize,
}

impl Reports {
    pub(crate) fn new(records: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..records).map(|_| OnceLock::new()).collect(),
            open: AtomicUsize::new(1),
            complete: Notify::new(),
        })
    }

    /// Makes the ticket of the record at `slot`.
    pub(crate) fn ticket(self: &Arc<Self>, slot: usize) -> Ticket {
        self.open.fetch_add(1, Ordering::Relaxed);
        Ticket { reports: Arc::clone(self), slot }
    }

    /// Returns once every ticket has come back. No ticket may be made any longer.
    ///
    /// Called once per batch; dropping the future is harmless.
    pub(crate) async fn completed(&self) {
        if self.give_back() {
            return;
        }
        self.complete.notified().await;
    }

    /// Returns the report of the record at `slot`, if it has come.
    pub(crate) fn of(&self, slot: usize) -> Option<Report> {
        self.slots.get(slot).and_then(|report| report.get()).copied()
    }

    /// Answers whether this was the last one.
    fn give_back(&self) -> bool {
        self.open.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl Ticket {
    /// Notes the report. A second one for the same record changes nothing.
    pub(crate) fn settle(self, report: Report) {
        if let Some(slot) = self.reports.slots.get(self.slot) {
            slot.get_or_init(|| report);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.reports.give_back() {
            self.reports.complete.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_batch_is_complete_when_all_tickets_are_back() {
        let reports = Reports::new(3);
        let tickets: Vec<_> = (0..2).map(|slot| reports.ticket(slot)).collect();
        let waiting = tokio::spawn({
            let reports = Arc::clone(&reports);
            async move { reports.completed().await }
        });
        for ticket in tickets {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            ticket.settle(Report::Delivered);
        }
        waiting.await.expect("no panic");
        assert_eq!(reports.of(1), Some(Report::Delivered));
        assert_eq!(reports.of(2), None, "it was never enqueued");
    }

    #[tokio::test]
    async fn reports_after_the_wait_was_given_up_are_harmless() {
        let reports = Reports::new(1);
        let ticket = reports.ticket(0);
        let wait = tokio::time::timeout(Duration::from_millis(1), reports.completed());
        assert!(wait.await.is_err());
        assert_eq!(reports.of(0), None);
        drop(reports);
        ticket.settle(Report::Delivered);
    }

    #[tokio::test]
    async fn a_batch_without_tickets_is_complete() {
        Reports::new(4).completed().await;
    }
}
