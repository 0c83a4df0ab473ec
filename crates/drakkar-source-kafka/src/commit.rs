//! Commits: one synchronous call at a time, on a thread of their own.
//!
//! A synchronous commit is answered by librdkafka's own main thread and not through the queue that
//! the source's thread polls, so it completes also while that thread waits inside a revoke. It has
//! no deadline of its own: without a coordinator librdkafka holds it back for up to a session
//! timeout. Whoever waits here therefore waits with a deadline.

use crate::error::{self, Standing};
use crate::rebalance::Consumer;
use drakkar_api::{CommitOffset, CommitRequest, Epoch, SourceError, SourceErrorKind, SourceEvents};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Where commits wait for the commit thread. Holds at most one of each assignment.
#[derive(Debug, Default)]
pub(crate) struct CommitDesk {
    state: Mutex<DeskState>,
    changed: Condvar,
}

/// The desk without its lock. Pure.
///
/// Invariant: whatever is waiting is of an assignment that lives.
#[derive(Debug, Default)]
struct DeskState {
    live: BTreeSet<Epoch>,
    /// Those of the living whose revoke has been announced.
    leaving: BTreeSet<Epoch>,
    waiting: BTreeMap<Epoch, CommitRequest>,
    in_flight: BTreeSet<Epoch>,
    is_closed: bool,
}

impl DeskState {
    /// Takes a request in, or says why not.
    fn submit(&mut self, request: CommitRequest) -> Result<(), SourceError> {
        let epoch = request.epoch;
        if !self.live.contains(&epoch) {
            return Err(error::ended_assignment());
        }
        if self.waiting.contains_key(&epoch) || self.in_flight.contains(&epoch) {
            return Err(SourceError::new(
                SourceErrorKind::Commit,
                "another commit of the assignment has not been answered yet",
            ));
        }
        self.waiting.insert(epoch, request);
        Ok(())
    }

    /// Takes out what one call commits: all that wait without metadata, or one with metadata.
    ///
    /// Metadata can be refused for one partition alone, which must not fail the others.
    fn take_batch(&mut self) -> Vec<CommitRequest> {
        let has_metadata = |request: &CommitRequest| !request.metadata.is_empty();
        let first = self.waiting.values().next();
        let batch: Vec<_> = match first {
            Some(request) if has_metadata(request) => vec![request.clone()],
            _ => self.waiting.values().filter(|r| !has_metadata(r)).cloned().collect(),
        };
        for request in &batch {
            self.waiting.remove(&request.epoch);
            self.in_flight.insert(request.epoch);
        }
        batch
    }

    /// Ends assignments. Returns those whose commit was still waiting and is now refused.
    fn retire(&mut self, epochs: &[Epoch]) -> Vec<Epoch> {
        for epoch in epochs {
            self.live.remove(epoch);
            self.leaving.remove(epoch);
        }
        epochs.iter().copied().filter(|epoch| self.waiting.remove(epoch).is_some()).collect()
    }

    fn is_in_flight(&self, epochs: &[Epoch]) -> bool {
        epochs.iter().any(|epoch| self.in_flight.contains(epoch))
    }
}

impl CommitDesk {
    /// Permits commits of an assignment.
    pub(crate) fn open(&self, epoch: Epoch) {
        self.lock().live.insert(epoch);
    }

    /// Notes that the revoke of assignments has been announced; they still commit.
    pub(crate) fn announce_end(&self, epochs: &[Epoch]) {
        self.lock().leaving.extend(epochs);
    }

    fn standing(&self, epoch: Epoch) -> Standing {
        let state = self.lock();
        match state.live.contains(&epoch) {
            false => Standing::Over,
            true if state.leaving.contains(&epoch) => Standing::Leaving,
            true => Standing::Held,
        }
    }

    /// Takes a request in.
    ///
    /// # Errors
    ///
    /// When its assignment has ended or has an unanswered commit already. The caller answers it.
    pub(crate) fn submit(&self, request: CommitRequest) -> Result<(), SourceError> {
        self.lock().submit(request)?;
        self.changed.notify_all();
        Ok(())
    }

    /// Ends assignments: refuses their commits from now on, and waits until none is on its way, at
    /// most until `deadline`.
    ///
    /// Returns the assignments whose commit was refused; the caller answers them.
    #[must_use]
    pub(crate) fn retire(&self, epochs: &[Epoch], deadline: Instant) -> Vec<Epoch> {
        let mut state = self.lock();
        let refused = state.retire(epochs);
        let patience = deadline.saturating_duration_since(Instant::now());
        drop(
            self.changed
                .wait_timeout_while(state, patience, |state| state.is_in_flight(epochs))
                .unwrap_or_else(PoisonError::into_inner),
        );
        refused
    }

    /// Lets the commit thread end. Returns the assignments whose commit was refused.
    #[must_use]
    pub(crate) fn close(&self) -> Vec<Epoch> {
        let mut state = self.lock();
        state.is_closed = true;
        let live: Vec<_> = state.live.iter().copied().collect();
        let refused = state.retire(&live);
        drop(state);
        self.changed.notify_all();
        refused
    }

    /// Waits for something to commit; `None` once the desk is closed.
    fn next_batch(&self) -> Option<Vec<CommitRequest>> {
        let state = self.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| state.waiting.is_empty() && !state.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        if state.is_closed { None } else { Some(state.take_batch()) }
    }

    fn finish(&self, epochs: impl IntoIterator<Item = Epoch>) {
        let mut state = self.lock();
        for epoch in epochs {
            state.in_flight.remove(&epoch);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What commits for the group: the client, or a stand-in for it.
trait Committer {
    /// Commits all requests in one call.
    fn commit(&self, batch: &[CommitRequest]) -> KafkaResult<()>;

    /// Returns whether the group has taken the assignments away.
    fn is_lost(&self) -> bool;
}

type Answer = (Epoch, Result<CommitOffset, SourceError>);

/// Runs the commit thread until the desk is closed.
pub(crate) fn run(desk: &CommitDesk, consumer: &Weak<Consumer>, events: &Arc<dyn SourceEvents>) {
    while let Some(batch) = desk.next_batch() {
        let answers = match consumer.upgrade() {
            Some(consumer) => commit_all(desk, &*consumer, &batch),
            None => batch.iter().map(|r| (r.epoch, Err(error::ended_assignment()))).collect(),
        };
        // First, so that whoever is answered can commit again at once.
        desk.finish(batch.iter().map(|request| request.epoch));
        for (epoch, result) in answers {
            events.committed(epoch, result);
        }
    }
}

fn commit_all(
    desk: &CommitDesk,
    committer: &impl Committer,
    batch: &[CommitRequest],
) -> Vec<Answer> {
    match committer.commit(batch) {
        Ok(()) => batch.iter().map(|request| (request.epoch, Ok(request.offset))).collect(),
        // One partition may have failed them all: librdkafka answers with the last error only.
        Err(_) if batch.len() > 1 && !committer.is_lost() => {
            batch.iter().map(|r| (r.epoch, commit_alone(desk, committer, r))).collect()
        }
        Err(error) => batch
            .iter()
            .map(|r| (r.epoch, answer(desk, committer, r, Err(error.clone()))))
            .collect(),
    }
}

/// Commits a request by itself, unless its assignment has ended since it was taken out.
///
/// The client commits with the membership of the moment, so that after a rejoin the group would
/// accept the commit of an assignment that it gave to somebody else.
fn commit_alone(
    desk: &CommitDesk,
    committer: &impl Committer,
    request: &CommitRequest,
) -> Result<CommitOffset, SourceError> {
    if committer.is_lost() || desk.standing(request.epoch) == Standing::Over {
        return Err(error::ended_assignment());
    }
    let result = committer.commit(std::slice::from_ref(request));
    answer(desk, committer, request, result)
}

fn answer(
    desk: &CommitDesk,
    committer: &impl Committer,
    request: &CommitRequest,
    result: KafkaResult<()>,
) -> Result<CommitOffset, SourceError> {
    let Err(error) = result else { return Ok(request.offset) };
    // Librdkafka notes a loss before it answers the commit that told it, and forgets it with the
    // unassign, before which the assignment ends here. So the order of these questions matters.
    let standing = match committer.is_lost() {
        true => Standing::Over,
        false => desk.standing(request.epoch),
    };
    Err(error::commit(&error, standing))
}

impl Committer for Consumer {
    fn commit(&self, batch: &[CommitRequest]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(batch.len());
        for request in batch {
            let mut element =
                list.add_partition(request.partition.topic(), request.partition.partition());
            element.set_offset(Offset::Offset(request.offset.get()))?;
            if !request.metadata.is_empty() {
                element.set_metadata(&request.metadata);
            }
        }
        rdkafka::consumer::Consumer::commit(self, &list, CommitMode::Sync)
    }

    fn is_lost(&self) -> bool {
        self.assignment_lost()
    }
}

/// How long the source's end waits for a commit that is on its way.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::PartitionId;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaErrorCode as Code;

    const A: Epoch = Epoch::new(1);
    const B: Epoch = Epoch::new(2);
    const C: Epoch = Epoch::new(3);

    fn request(epoch: Epoch, metadata: &str) -> CommitRequest {
        CommitRequest {
            epoch,
            partition: PartitionId::new("t", i32::try_from(epoch.get()).expect("small")),
            offset: CommitOffset::new(7),
            metadata: metadata.to_owned(),
        }
    }

    fn desk(live: &[Epoch]) -> DeskState {
        DeskState { live: live.iter().copied().collect(), ..DeskState::default() }
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn epochs(batch: &[CommitRequest]) -> Vec<Epoch> {
        batch.iter().map(|request| request.epoch).collect()
    }

    #[test]
    fn what_waits_goes_into_one_call() {
        let mut desk = desk(&[A, B, C]);
        for epoch in [C, A] {
            desk.submit(request(epoch, "")).expect("accepted");
        }
        assert_eq!(epochs(&desk.take_batch()), [A, C]);
        assert_eq!(epochs(&desk.take_batch()), []);
    }

    #[test]
    fn metadata_travels_alone() {
        let mut desk = desk(&[A, B, C]);
        desk.submit(request(A, "")).expect("accepted");
        desk.submit(request(B, "x")).expect("accepted");
        desk.submit(request(C, "")).expect("accepted");
        assert_eq!(epochs(&desk.take_batch()), [A, C]);
        assert_eq!(epochs(&desk.take_batch()), [B]);
    }

    // Promise: WM-2
    #[test]
    fn a_partition_has_one_commit_at_a_time() {
        let mut desk = desk(&[A]);
        desk.submit(request(A, "")).expect("accepted");
        assert_eq!(
            desk.submit(request(A, "")).expect_err("waiting").kind(),
            SourceErrorKind::Commit
        );
        assert_eq!(epochs(&desk.take_batch()), [A]);
        assert_eq!(
            desk.submit(request(A, "")).expect_err("flying").kind(),
            SourceErrorKind::Commit
        );
        desk.in_flight.clear();
        desk.submit(request(A, "")).expect("accepted");
    }

    // Promise: RB-2
    #[test]
    fn an_assignment_that_ended_commits_nothing() {
        let mut desk = desk(&[A, B]);
        desk.submit(request(A, "")).expect("accepted");
        desk.submit(request(B, "")).expect("accepted");
        assert_eq!(desk.retire(&[A, C]), [A]);
        assert_eq!(desk.submit(request(A, "")).expect_err("ended").kind(), SourceErrorKind::Fenced);
        assert_eq!(epochs(&desk.take_batch()), [B]);
    }

    #[test]
    fn the_end_of_an_assignment_waits_for_its_commit_but_not_for_ever() {
        let desk = CommitDesk::default();
        desk.open(A);
        desk.submit(request(A, "")).expect("accepted");
        assert_eq!(desk.next_batch().as_deref().map(epochs), Some(vec![A]));
        assert_eq!(desk.retire(&[A], Instant::now()), []);
        std::thread::scope(|scope| {
            let retired = scope.spawn(|| desk.retire(&[A], far()));
            desk.finish([A]);
            assert_eq!(retired.join().expect("in time"), []);
        });
        assert_eq!(desk.close(), []);
        assert_eq!(desk.next_batch(), None);
    }

    /// A group that fails calls of more than one request, and does something before the answer.
    struct Fails<F> {
        code: Code,
        on_failure: F,
        calls: Mutex<Vec<Vec<Epoch>>>,
    }

    impl<F: Fn()> Fails<F> {
        fn new(code: Code, on_failure: F) -> Self {
            Self { code, on_failure, calls: Mutex::default() }
        }

        fn calls(&self) -> Vec<Vec<Epoch>> {
            self.calls.lock().expect("no panic").clone()
        }
    }

    impl<F: Fn()> Committer for Fails<F> {
        fn commit(&self, batch: &[CommitRequest]) -> KafkaResult<()> {
            self.calls.lock().expect("no panic").push(epochs(batch));
            if batch.len() == 1 {
                return Ok(());
            }
            (self.on_failure)();
            Err(KafkaError::ConsumerCommit(self.code))
        }

        fn is_lost(&self) -> bool {
            false
        }
    }

    fn taken(desk: &CommitDesk, live: &[Epoch]) -> Vec<CommitRequest> {
        for epoch in live {
            desk.open(*epoch);
            desk.submit(request(*epoch, "")).expect("accepted");
        }
        desk.next_batch().expect("open")
    }

    // Promise: WM-1, RB-2
    #[test]
    fn an_assignment_that_ends_during_a_failing_call_is_not_committed_again() {
        let desk = CommitDesk::default();
        let batch = taken(&desk, &[A, B]);
        let committer = Fails::new(Code::OffsetMetadataTooLarge, || {
            assert_eq!(desk.retire(&[A], Instant::now()), []);
        });
        let answers = commit_all(&desk, &committer, &batch);
        assert_eq!(committer.calls(), [vec![A, B], vec![B]]);
        let ended = Err(error::ended_assignment());
        assert_eq!(answers, [(A, ended), (B, Ok(CommitOffset::new(7)))]);
    }
}
