//! Commits: one synchronous call at a time, on a thread of their own.
//!
//! A synchronous commit is answered by librdkafka's own main thread and not through the queue that
//! the source's thread polls, so it completes also while that thread waits inside a revoke. It has
//! no deadline of its own: without a coordinator librdkafka holds it back for up to a session
//! timeout. Whoever waits here therefore waits with a deadline.

use crate::error::{self, Standing};
use crate::rebalance::Consumer;
use crate::watch::Watch;
use drakkar_api::{CommitOffset, CommitRequest, Epoch, SourceError, SourceErrorKind, SourceEvents};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;
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

/// Runs the commit thread until the desk is closed.
pub(crate) fn run(
    desk: &CommitDesk,
    watch: &Watch,
    consumer: &Weak<Consumer>,
    events: &Arc<dyn SourceEvents>,
) {
    let tell = |epoch, result: Result<CommitOffset, SourceError>| {
        if let Ok(offset) = result {
            watch.committed(epoch, offset);
        }
        events.committed(epoch, result);
    };
    while let Some(batch) = desk.next_batch() {
        match consumer.upgrade() {
            Some(consumer) => commit_all(desk, &*consumer, &batch, tell),
            None => finish_all(desk, &batch, |_| Err(error::ended_assignment()), tell),
        }
    }
}

/// Commits in one call, and one by one if a single partition may have failed them all.
fn commit_all(
    desk: &CommitDesk,
    committer: &impl Committer,
    batch: &[CommitRequest],
    tell: impl Fn(Epoch, Result<CommitOffset, SourceError>),
) {
    match committer.commit(batch) {
        Err(error) if batch.len() > 1 && is_of_one_partition(&error) && !committer.is_lost() => {
            commit_one_by_one(desk, committer, batch, tell);
        }
        result => {
            finish_all(desk, batch, |r| answer(desk, committer, r, result.clone()), tell);
        }
    }
}

/// Answers each request as soon as it is known. A failure that the others would share ends it:
/// each further call could wait for a coordinator as long as a session lasts.
fn commit_one_by_one(
    desk: &CommitDesk,
    committer: &impl Committer,
    batch: &[CommitRequest],
    tell: impl Fn(Epoch, Result<CommitOffset, SourceError>),
) {
    for (place, request) in batch.iter().enumerate() {
        let result = match may_commit(desk, committer, request) {
            Ok(()) => committer.commit(std::slice::from_ref(request)),
            Err(ended) => {
                finish_all(desk, std::slice::from_ref(request), |_| Err(ended.clone()), &tell);
                continue;
            }
        };
        if result.as_ref().is_err_and(|error| !is_of_one_partition(error)) {
            let left = &batch[place..];
            return finish_all(desk, left, |r| answer(desk, committer, r, result.clone()), tell);
        }
        let request = std::slice::from_ref(request);
        finish_all(desk, request, |r| answer(desk, committer, r, result.clone()), &tell);
    }
}

/// Ends requests and answers them.
fn finish_all(
    desk: &CommitDesk,
    batch: &[CommitRequest],
    answer: impl Fn(&CommitRequest) -> Result<CommitOffset, SourceError>,
    tell: impl Fn(Epoch, Result<CommitOffset, SourceError>),
) {
    let answers: Vec<_> = batch.iter().map(|request| (request.epoch, answer(request))).collect();
    // First, so that whoever is answered can commit again at once.
    desk.finish(batch.iter().map(|request| request.epoch));
    for (epoch, result) in answers {
        tell(epoch, result);
    }
}

/// Returns whether a failure can be one partition's alone: librdkafka answers a call with the last
/// error of its partitions only.
fn is_of_one_partition(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::OffsetMetadataTooLarge
                | Code::InvalidCommitOffsetSize
                | Code::TopicAuthorizationFailed
                | Code::UnknownTopicOrPartition
                | Code::InvalidTopic
        )
    )
}

/// Refuses a request whose assignment has ended since it was taken out.
///
/// The client commits with the membership of the moment, so that after a rejoin the group would
/// accept the commit of an assignment that it gave to somebody else.
fn may_commit(
    desk: &CommitDesk,
    committer: &impl Committer,
    request: &CommitRequest,
) -> Result<(), SourceError> {
    if committer.is_lost() || desk.standing(request.epoch) == Standing::Over {
        return Err(error::ended_assignment());
    }
    Ok(())
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
    use std::cell::RefCell;

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

    type Answer = (Epoch, Result<CommitOffset, SourceError>);

    /// A group that fails calls, the first one first; before the first answer something happens.
    struct Fails<'a> {
        codes: Vec<Code>,
        meanwhile: &'a dyn Fn(),
        calls: RefCell<Vec<Vec<Epoch>>>,
    }

    impl Committer for Fails<'_> {
        fn commit(&self, batch: &[CommitRequest]) -> KafkaResult<()> {
            let mut calls = self.calls.borrow_mut();
            if calls.is_empty() {
                (self.meanwhile)();
            }
            calls.push(epochs(batch));
            let code = self.codes.get(calls.len() - 1);
            code.map_or(Ok(()), |code| Err(KafkaError::ConsumerCommit(*code)))
        }

        fn is_lost(&self) -> bool {
            false
        }
    }

    /// Commits A, B and C in one go while calls fail with `codes`. Returns the calls and the answers.
    fn commit_abc(
        desk: &CommitDesk,
        codes: &[Code],
        meanwhile: &dyn Fn(),
    ) -> (Vec<Vec<Epoch>>, Vec<Answer>) {
        for epoch in [A, B, C] {
            desk.open(epoch);
            desk.submit(request(epoch, "")).expect("accepted");
        }
        let batch = desk.next_batch().expect("open");
        let committer = Fails { codes: codes.to_vec(), meanwhile, calls: RefCell::default() };
        let answers = RefCell::new(Vec::new());
        commit_all(desk, &committer, &batch, |epoch, result| {
            assert!(!desk.lock().is_in_flight(&[epoch]), "it can commit again");
            let calls = committer.calls.borrow().len();
            answers.borrow_mut().push((epoch, result));
            // A call of its own is answered before the next one.
            assert!(calls <= answers.borrow().len() + 1, "answered late");
        });
        (committer.calls.into_inner(), answers.into_inner())
    }

    fn kinds(answers: &[Answer]) -> Vec<(Epoch, Option<SourceErrorKind>)> {
        answers
            .iter()
            .map(|(epoch, result)| (*epoch, result.as_ref().err().map(SourceError::kind)))
            .collect()
    }

    // Promise: WM-1, RB-2
    #[test]
    fn an_assignment_that_ends_during_a_failing_call_is_not_committed_again() {
        let desk = CommitDesk::default();
        let (calls, answers) = commit_abc(&desk, &[Code::OffsetMetadataTooLarge], &|| {
            assert_eq!(desk.retire(&[A], Instant::now()), []);
        });
        assert_eq!(calls, [vec![A, B, C], vec![B], vec![C]]);
        assert_eq!(answers[0], (A, Err(error::ended_assignment())));
        assert_eq!(kinds(&answers[1..]), [(B, None), (C, None)]);
    }

    // Promise: FT-2
    #[test]
    fn a_failure_of_all_partitions_is_not_asked_for_again() {
        let commit = Some(SourceErrorKind::Commit);
        let check = |codes: &[Code], expect_calls: &[Vec<Epoch>], expect: [Option<_>; 3]| {
            let (calls, answers) = commit_abc(&CommitDesk::default(), codes, &|| {});
            assert_eq!(calls, expect_calls, "{codes:?}");
            let [a, b, c] = expect;
            assert_eq!(kinds(&answers), [(A, a), (B, b), (C, c)], "{codes:?}");
        };
        let all = vec![A, B, C];
        check(&[Code::WaitingForCoordinator], std::slice::from_ref(&all), [commit; 3]);
        check(&[Code::RequestTimedOut], std::slice::from_ref(&all), [commit; 3]);
        // One by one, until a failure that the others share.
        let own = Code::UnknownTopicOrPartition;
        let one_by_one = [all.clone(), vec![A], vec![B], vec![C]];
        check(&[own, own], &one_by_one, [commit, None, None]);
        let shared = Code::CoordinatorNotAvailable;
        check(&[own, own, shared], &[all, vec![A], vec![B]], [commit; 3]);
    }
}
