//! The sink itself: deadlines and verdicts around the blocking writer.

use crate::config::FileSinkConfig;
use crate::encode::{Group, encode};
use crate::writer::Writer;
use drakkar_api::{Batch, BatchLimits, FileLine, Sink, SinkError, SinkErrorKind, SinkId, Verdict};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep, timeout_at};

/// The shortest and the longest pause before a file that another process has locked is tried again.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

type Slot = Option<Writer>;

/// Appends lines to files below one folder. See the crate's documentation for what it promises.
#[derive(Debug)]
pub struct FileSink {
    id: SinkId,
    config: FileSinkConfig,
    /// Held while a thread writes, so a disk that hangs holds up one thread, never more.
    writer: Arc<tokio::sync::Mutex<Slot>>,
}

impl FileSink {
    /// Makes a sink that is not connected.
    pub fn new(id: SinkId, config: FileSinkConfig) -> Self {
        Self { id, config, writer: Arc::default() }
    }

    /// Returns the folder that holds all files.
    pub fn base_path(&self) -> &Path {
        self.config.base_path()
    }

    /// Returns the link for the UI, if there is one.
    pub fn ui_url(&self) -> Option<&str> {
        Some(self.config.ui_url()).filter(|url| !url.is_empty())
    }

    /// Writes the groups; comes back early only when its future is dropped.
    async fn write_all(&self, progress: &Arc<Progress>) {
        let (mut pause, longest) = BUSY_PAUSES;
        loop {
            let writer = Arc::clone(&self.writer).lock_owned().await;
            let shared = Arc::clone(progress);
            let thread = tokio::task::spawn_blocking(move || write_groups(writer, &shared));
            match thread.await {
                Ok(Step::Busy) => sleep(pause).await,
                Ok(Step::Done) | Err(_) => return,
            }
            pause = (pause * 2).min(longest);
        }
    }
}

impl Sink for FileSink {
    type Payload = FileLine;

    fn id(&self) -> SinkId {
        self.id.clone()
    }

    async fn connect(&self) -> Result<(), SinkError> {
        let slot = Arc::clone(&self.writer);
        let (base_path, fsync) = (self.config.base_path().to_owned(), self.config.fsync());
        let connect = async move {
            let mut slot = slot.lock_owned().await;
            let thread = tokio::task::spawn_blocking(move || {
                *slot = None;
                *slot = Some(Writer::connect(base_path, fsync)?);
                Ok(())
            });
            let gone = |_| SinkError::temporary(SinkErrorKind::Internal, "the runtime has ended");
            thread.await.map_err(gone)?
        };
        let deadline = self.config.own_deadline();
        let late = |_| {
            let text = format!("the folder {:?} did not answer in time", self.base_path());
            SinkError::temporary(SinkErrorKind::Timeout, text)
        };
        tokio::time::timeout(deadline, connect).await.map_err(late)?
    }

    async fn deliver(&self, batch: Batch<'_, FileLine>) -> Vec<Verdict> {
        let deadline = Instant::now() + self.config.own_deadline();
        let encoded = encode(batch.items());
        let progress = Arc::new(Progress::new(encoded.groups));
        let abandon = AbandonOnDrop(&progress);
        let in_time = timeout_at(deadline, self.write_all(&progress)).await.is_ok();
        drop(abandon);
        let internal = SinkError::permanent(SinkErrorKind::Internal, "the item got no verdict");
        let mut verdicts = batch.all(Verdict::NotApplied(internal));
        for (item, verdict) in encoded.rejected {
            verdicts[item] = verdict;
        }
        for (group, verdict) in progress.groups.iter().zip(progress.verdicts(in_time)) {
            for item in &group.items {
                verdicts[*item] = verdict.clone();
            }
        }
        verdicts
    }

    async fn close(&self) {
        let writer = Arc::clone(&self.writer);
        let close = async move { writer.lock_owned().await.take() };
        if let Ok(writer) = tokio::time::timeout(self.config.own_deadline(), close).await {
            // Closing a file of a network file system can wait for its server.
            let thread = tokio::task::spawn_blocking(move || drop(writer));
            let closed = tokio::time::timeout(self.config.own_deadline(), thread).await;
            if closed.is_ok() {
                return;
            }
        }
        tracing::warn!(sink = %self.id, "gave up waiting for a write that does not return");
    }

    fn repeat_is_harmless(&self, _payload: &FileLine) -> bool {
        false
    }

    fn limits(&self) -> BatchLimits {
        self.config.limits()
    }
}

/// What a thread came to.
enum Step {
    Done,
    /// Other processes have locked the files of the groups that are left.
    Busy,
}

/// Writes the groups that are left, on a thread that may block. Passes over files that are locked,
/// so that they hold up their own lines only.
fn write_groups(mut slot: OwnedMutexGuard<Slot>, progress: &Progress) -> Step {
    let refreshed = match slot.as_mut() {
        Some(writer) => writer.refresh(),
        None => Err(SinkError::permanent(SinkErrorKind::Internal, "the sink is not connected")),
    };
    let mut step = Step::Done;
    let mut first = 0;
    while let Some((place, group)) = progress.begin(first) {
        let verdict = match (&refreshed, slot.as_mut()) {
            (Ok(()), Some(writer)) => writer.write(group),
            (Ok(()), None) => return Step::Done,
            (Err(error), _) => Ok(Verdict::NotApplied(error.clone())),
        };
        match verdict {
            Ok(verdict) => progress.end(place, Some(verdict)),
            Err(_busy) => {
                progress.end(place, None);
                step = Step::Busy;
            }
        }
        first = place + 1;
    }
    step
}

/// How far a delivery has come: shared by the future that answers and the thread that writes.
struct Progress {
    groups: Vec<Group>,
    state: Mutex<ProgressState>,
}

struct ProgressState {
    /// For each group its verdict once it is done.
    done: Vec<Option<Verdict>>,
    /// The place of the group that is being written.
    writing: Option<usize>,
    /// Nobody waits any longer: nothing more may be begun.
    abandoned: bool,
}

impl Progress {
    fn new(groups: Vec<Group>) -> Self {
        let done = vec![None; groups.len()];
        let state = ProgressState { done, writing: None, abandoned: false };
        Self { groups, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next group that is not done, from the place `first` on, and returns its place too.
    /// `None` if there is none or the delivery is abandoned.
    fn begin(&self, first: usize) -> Option<(usize, &Group)> {
        let mut state = self.state();
        if state.abandoned {
            return None;
        }
        let left = state.done.iter().skip(first).position(Option::is_none)?;
        let place = first + left;
        state.writing = Some(place);
        Some((place, &self.groups[place]))
    }

    /// Ends the group that was begun; without a verdict it is not done and had no effect.
    fn end(&self, place: usize, verdict: Option<Verdict>) {
        let mut state = self.state();
        state.writing = None;
        state.done[place] = verdict;
    }

    /// Answers for each group. Called when nothing more can begin.
    fn verdicts(&self, in_time: bool) -> Vec<Verdict> {
        let state = self.state();
        let stopped = |text: &str| match in_time {
            true => SinkError::permanent(SinkErrorKind::Internal, "the writing thread failed"),
            false => SinkError::temporary(SinkErrorKind::Timeout, text),
        };
        let late = stopped("the file stayed locked, or an earlier write did not return in time");
        let verdict = |(place, done): (usize, &Option<Verdict>)| match done {
            Some(verdict) => verdict.clone(),
            None if state.writing == Some(place) => {
                Verdict::Unknown(stopped("the write did not return in time"))
            }
            None => Verdict::NotApplied(late.clone()),
        };
        state.done.iter().enumerate().map(verdict).collect()
    }
}

/// Sees to it that nothing is begun once nobody waits: at the sink's own deadline and when the
/// engine drops the delivery.
struct AbandonOnDrop<'a>(&'a Progress);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.state().abandoned = true;
    }
}
