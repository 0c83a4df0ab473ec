//! What it costs to complete messages behind one that does not: the engine alone, with a source in
//! memory and an executor that never ends its only task.
//!
//! Both sides complete as many messages. One has all of them behind a single blocked head, the other
//! one begins anew every ten thousand: the ratio shows whether a completion costs more the more of
//! them wait.

use std::convert::identity;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drakkar_api::{
    Assignment, Batch, CancelScope, Clients, CommitOffset, CommitRequest, Context, Credit, Epoch,
    Event, Execution, Executor, Flow, Handler, Headers, HookResult, KafkaRecord, Observer, Offset,
    PartitionId, RawInput, Reply, Run, Settlement, Sink, SinkError, SinkId, SinkKind, Slots,
    Source, SourceError, SourceEvents, SourceMessage, Task, TaskOutcome, Verdict, Window, WorkerId,
    WorkerInfo,
};
use drakkar_core::{AnySink, Engine, EngineConfig, EngineParts};
use tokio::sync::Notify;

use super::pairs::alternate;
use crate::bench::Bench;
use crate::figures::{Figure, Figures, Pair};

/// How many messages complete on each side.
const COMPLETIONS: usize = 1_000_000;

/// How many of them the second side has behind one head.
const SHORT: usize = 10_000;

/// Longer than any side takes.
const PATIENCE: Duration = Duration::from_secs(120);

const EPOCH: Epoch = Epoch::new(1);

pub(crate) fn measure(bench: &Bench<'_>) -> Result<Vec<Pair>> {
    let short = || sum((0..COMPLETIONS / SHORT).map(|_| complete(SHORT)));
    let long = || sum([complete(COMPLETIONS)].into_iter());
    alternate(bench.plan.pairs, short, long, |_| Ok(()))
}

fn sum(runs: impl Iterator<Item = Result<Duration>>) -> Result<Figures> {
    let total = runs.sum::<Result<Duration>>()?;
    Ok(Figures::default().with(Figure::Seconds, total.as_secs_f64()))
}

/// Completes so many messages behind one that is blocked, lets that one end, and answers how long the
/// completions took.
fn complete(messages: usize) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let run = tokio::time::timeout(PATIENCE, run(messages)).await;
        run.context("the messages did not complete in time").and_then(identity)
    })
}

async fn run(messages: usize) -> Result<Duration> {
    let source = Arc::new(Memory::new(messages + 1));
    let executor = Arc::new(Stuck::default());
    let count = Arc::new(Count { wanted: messages, ..Count::default() });
    let mut config = EngineConfig::default();
    config.ahead_max = 2 * messages;
    let sink = |name| AnySink::new(Nowhere(name));
    let engine = Engine::connect(EngineParts {
        handler: Arc::new(FirstOnly),
        source: Arc::new(MemorySource(Arc::clone(&source))),
        executor: Arc::new(StuckExecutor(Arc::clone(&executor))),
        sinks: vec![sink("out")],
        dead_letters: sink("dead"),
        observer: Arc::new(CountObserver(Arc::clone(&count))),
        worker: WorkerInfo {
            worker_id: WorkerId::new("bench"),
            cluster: String::new(),
            consumer_group: String::new(),
        },
        clients: Clients::new(),
        config,
    })
    .await?;
    let committed = Arc::clone(&source);
    let end = CommitOffset::new(i64::try_from(messages + 1)?);
    let (done, took) = (Notify::new(), Mutex::new(None));
    let watch = async {
        count.reached.notified().await;
        let began = source.with(|state| state.began).context("nothing was handed over")?;
        *took.lock().unwrap_or_else(PoisonError::into_inner) = Some(began.elapsed());
        ensure!(committed.with(|state| state.committed.is_none()), "the head did not block");
        executor.end();
        while committed.with(|state| state.committed) != Some(end) {
            committed.moved.notified().await;
        }
        done.notify_one();
        anyhow::Ok(())
    };
    let engine = engine.run(ready(()), done.notified());
    let (watched, ended) = tokio::join!(watch, engine);
    watched?;
    ended?;
    let took = took.into_inner().unwrap_or_else(PoisonError::into_inner);
    took.context("nothing was measured")
}

/// Gives the first message a task and the others none.
struct FirstOnly;

impl Handler for FirstOnly {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        let first = window.messages().filter(|message| message.offset().get() == 0);
        Ok(first.map(Task::for_message).collect())
    }
}

/// Counts messages that are finished.
#[derive(Default)]
struct Count {
    wanted: usize,
    finished: AtomicUsize,
    reached: Notify,
}

struct CountObserver(Arc<Count>);

impl Observer for CountObserver {
    fn observe(&self, event: &Event<'_>) {
        let count = &self.0;
        if matches!(event, Event::MessageFinished { .. })
            && count.finished.fetch_add(1, Ordering::Relaxed) + 1 == count.wanted
        {
            count.reached.notify_one();
        }
    }
}

/// Keeps the run that it was given until it may end.
#[derive(Default)]
struct Stuck(Mutex<Option<Run>>);

impl Stuck {
    fn end(&self) {
        if let Some(run) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let execution = Execution::without_process(TaskOutcome::Success);
            run.listener.finished(run.id, execution);
        }
    }
}

struct StuckExecutor(Arc<Stuck>);

impl Executor for StuckExecutor {
    fn submit(&self, run: Run) {
        run.listener.started(run.id, 0, Duration::ZERO);
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    }

    fn cancel(&self, _owner: Epoch, _scope: CancelScope) {}

    fn slots(&self) -> Slots {
        Slots::default()
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}

/// One partition whose messages are made when they are asked for.
struct Memory {
    partition: PartitionId,
    state: Mutex<MemoryState>,
    work: Notify,
    moved: Notify,
}

#[derive(Default)]
struct MemoryState {
    next: usize,
    end: usize,
    credit: usize,
    began: Option<Instant>,
    commit: Option<CommitRequest>,
    committed: Option<CommitOffset>,
    closing: bool,
}

impl Memory {
    fn new(messages: usize) -> Self {
        let state = MemoryState { end: messages, ..MemoryState::default() };
        let (work, moved) = (Notify::new(), Notify::new());
        Self { partition: PartitionId::new("in", 0), state: Mutex::new(state), work, moved }
    }

    fn with<T>(&self, change: impl FnOnce(&mut MemoryState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, change: impl FnOnce(&mut MemoryState)) {
        self.with(change);
        self.work.notify_one();
    }

    async fn work(&self, events: &dyn SourceEvents) {
        events.assigned(vec![Assignment { partition: self.partition.clone(), epoch: EPOCH }]);
        events.polled();
        loop {
            let messages = self.take_messages();
            if !messages.is_empty() {
                events.messages(EPOCH, messages);
            }
            if let Some(request) = self.with(|state| state.commit.take()) {
                self.with(|state| state.committed = Some(request.offset));
                events.committed(EPOCH, Ok(request.offset));
                self.moved.notify_one();
            }
            if self.with(|state| state.closing) {
                break;
            }
            self.work.notified().await;
        }
        let (drained, answer) = Reply::channel();
        events.revoked(vec![EPOCH], drained);
        // An engine that has nothing left drops it, which is an answer too.
        let _is_answered = answer.await.is_ok();
        events.ended(Ok(()));
    }

    fn take_messages(&self) -> Vec<SourceMessage> {
        let range = self.with(|state| {
            let count = state.credit.min(state.end - state.next);
            state.credit -= count;
            if count > 0 {
                state.began.get_or_insert_with(Instant::now);
            }
            let first = state.next;
            state.next += count;
            first..state.next
        });
        let message = |offset| SourceMessage {
            partition: self.partition.clone(),
            offset: Offset::new(offset),
            key: None,
            value: Some("x".into()),
            timestamp: None,
            headers: Headers::new(),
        };
        (0..).skip(range.start).take(range.len()).map(message).collect()
    }
}

struct MemorySource(Arc<Memory>);

impl Source for MemorySource {
    fn start(
        &self,
        events: Arc<dyn SourceEvents>,
    ) -> Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + '_>> {
        let memory = Arc::clone(&self.0);
        tokio::spawn(async move { memory.work(events.as_ref()).await });
        Box::pin(ready(Ok(())))
    }

    fn request(&self, _epoch: Epoch, credit: Credit) {
        self.0.tell(|state| state.credit += credit.messages);
    }

    fn set_flow(&self, _flow: Flow) {
        // Nothing here comes near the marks: what is finished does not count.
    }

    fn commit(&self, request: CommitRequest) {
        self.0.tell(|state| state.commit = Some(request));
    }

    fn settle(&self, _epoch: Epoch, _offset: Offset, _settlement: Settlement) {}

    fn close(&self) {
        self.0.tell(|state| state.closing = true);
    }
}

/// Nothing is put out.
struct Nowhere(&'static str);

impl Sink for Nowhere {
    type Payload = KafkaRecord;

    fn id(&self) -> SinkId {
        SinkId::new(SinkKind::Kafka, self.0)
    }

    async fn connect(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&self, batch: Batch<'_, KafkaRecord>) -> Vec<Verdict> {
        batch.all(Verdict::Confirmed)
    }

    async fn close(&self) {}

    fn repeat_is_harmless(&self, _payload: &KafkaRecord) -> bool {
        true
    }
}
