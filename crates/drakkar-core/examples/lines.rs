//! The engine alone, between a source, an executor and sinks of one's own: counts the words of each
//! line of a file. How far it has come is kept beside the file, so that the next run goes on there.
//!
//! `cargo run -p drakkar-core --example lines -- README.md`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the example prints what it found")]

use drakkar_api::{
    Assignment, Batch, CancelScope, Captured, Clients, CommitOffset, CommitRequest, Context,
    Credit, CustomPayload, Epoch, Execution, Executor, Flow, Handler, Headers, HookResult,
    KafkaRecord, NullObserver, Offset, Outputs, PartitionId, RawInput, Reply, Run, Settlement,
    Sink, SinkError, SinkId, SinkKind, Slots, Source, SourceError, SourceErrorKind, SourceEvents,
    SourceMessage, Task, TaskOutcome, TaskOutput, Verdict, Window, WorkerId, WorkerInfo,
};
use drakkar_core::{AnySink, Engine, EngineConfig, EngineParts};
use std::error::Error;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: lines FILE")?;
    let lines = Arc::new(Lines::open(Path::new(&path))?);
    let engine = Engine::connect(EngineParts {
        handler: Arc::new(CountWords),
        source: Arc::new(FileSource(Arc::clone(&lines))),
        executor: Arc::new(Threads),
        sinks: vec![AnySink::new(Print)],
        dead_letters: AnySink::new(DeadLetters),
        observer: Arc::new(NullObserver),
        worker: WorkerInfo {
            worker_id: WorkerId::new("lines"),
            cluster: String::new(),
            consumer_group: String::new(),
        },
        clients: Clients::new(),
        config: EngineConfig::default(),
    })
    .await?;
    // The end of the file is the end of the program.
    engine.run(std::future::ready(()), lines.all_settled()).await?;
    Ok(())
}

struct CountWords;

impl Handler for CountWords {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        let task = |message| Task::for_message(message);
        let tasks = window
            .messages()
            .map(|message| task(message).stdin(message.value().cloned().unwrap_or_default()));
        Ok(tasks.collect())
    }

    async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> HookResult<Outputs> {
        let line = done.offset().map_or(0, Offset::get) + 1;
        Ok(Outputs::new().with(CustomPayload {
            kind: "print".into(),
            sink: None,
            value: format!("line {line}: {} words", done.stdout_text()).into(),
            attributes: serde_json::Map::new(),
        }))
    }
}

/// Runs tasks on threads of the runtime. They start at once, so nothing waits that could be
/// withdrawn, and they end soon.
struct Threads;

impl Executor for Threads {
    fn submit(&self, run: Run) {
        tokio::task::spawn_blocking(move || {
            run.listener.started(run.id, 0, Duration::ZERO);
            let text = run.task.stdin.clone().unwrap_or_default();
            let words = String::from_utf8_lossy(&text).split_whitespace().count().to_string();
            let stdout = Captured { total_bytes: words.len() as u64, bytes: words.into() };
            let execution =
                Execution { stdout, ..Execution::without_process(TaskOutcome::Success) };
            run.listener.finished(run.id, execution);
        });
    }

    fn cancel(&self, _owner: Epoch, _scope: CancelScope) {}

    fn slots(&self) -> Slots {
        Slots::default()
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// One partition: the lines of a file, each a message.
struct FileSource(Arc<Lines>);

struct Lines {
    partition: PartitionId,
    /// Where the position is kept.
    position: PathBuf,
    state: Mutex<State>,
    /// The source has something to do.
    work: Notify,
    settled: Notify,
}

struct State {
    waiting: Vec<SourceMessage>,
    unsettled: usize,
    credit: usize,
    flow: Flow,
    commit: Option<CommitRequest>,
    closing: bool,
}

const EPOCH: Epoch = Epoch::new(1);

impl Lines {
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(path)?;
        let mut position = path.as_os_str().to_owned();
        position.push(".position");
        let position = PathBuf::from(position);
        let done: usize = match fs::read_to_string(&position) {
            Ok(text) => text.trim().parse()?,
            Err(_none_yet) => 0,
        };
        let partition = PartitionId::new(path.display().to_string(), 0);
        let lines = text.lines().zip(0..).skip(done);
        let mut waiting: Vec<_> = lines.map(|(line, at)| message(&partition, at, line)).collect();
        waiting.reverse();
        let state = State {
            unsettled: waiting.len(),
            waiting,
            credit: 0,
            flow: Flow::Open,
            commit: None,
            closing: false,
        };
        let (work, settled) = (Notify::new(), Notify::new());
        Ok(Self { partition, position, state: Mutex::new(state), work, settled })
    }

    async fn all_settled(&self) {
        while self.with(|state| state.unsettled) > 0 {
            self.settled.notified().await;
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes something that the source has to act on.
    fn tell(&self, change: impl FnOnce(&mut State)) {
        self.with(change);
        self.work.notify_one();
    }

    /// Everything that the source does, in a task of its own: its methods return at once.
    async fn work(&self, events: &dyn SourceEvents) {
        events.assigned(vec![Assignment { partition: self.partition.clone(), epoch: EPOCH }]);
        events.polled();
        loop {
            let (messages, commit, closing) = self.with(State::take);
            if !messages.is_empty() {
                events.messages(EPOCH, messages);
            }
            if let Some(commit) = commit {
                events.committed(EPOCH, self.keep(commit.offset));
            }
            if closing {
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

    fn keep(&self, position: CommitOffset) -> Result<CommitOffset, SourceError> {
        fs::write(&self.position, position.get().to_string())
            .map(|()| position)
            .map_err(|error| SourceError::new(SourceErrorKind::Commit, error.to_string()))
    }
}

impl State {
    /// Takes what may be handed over, what is to be committed, and whether it is time to leave.
    fn take(&mut self) -> (Vec<SourceMessage>, Option<CommitRequest>, bool) {
        let count = match self.flow {
            Flow::Open => self.credit.min(self.waiting.len()),
            Flow::Closed => 0,
        };
        self.credit -= count;
        let rest = self.waiting.len() - count;
        let messages = self.waiting.drain(rest..).rev().collect();
        (messages, self.commit.take(), self.closing)
    }
}

fn message(partition: &PartitionId, at: i64, line: &str) -> SourceMessage {
    SourceMessage {
        partition: partition.clone(),
        offset: Offset::new(at),
        key: None,
        value: Some(line.to_owned().into()),
        timestamp: None,
        headers: Headers::new(),
    }
}

impl Source for FileSource {
    fn start(&self, events: Arc<dyn SourceEvents>) -> Answer<'_, Result<(), SourceError>> {
        let lines = Arc::clone(&self.0);
        tokio::spawn(async move { lines.work(events.as_ref()).await });
        Box::pin(std::future::ready(Ok(())))
    }

    fn request(&self, _epoch: Epoch, credit: Credit) {
        self.0.tell(|state| state.credit += credit.messages);
    }

    fn set_flow(&self, flow: Flow) {
        self.0.tell(|state| state.flow = flow);
    }

    fn commit(&self, request: CommitRequest) {
        self.0.tell(|state| state.commit = Some(request));
    }

    fn settle(&self, _epoch: Epoch, _offset: Offset, settlement: Settlement) {
        if matches!(settlement, Settlement::Finished | Settlement::DeadLettered) {
            self.0.with(|state| state.unsettled -= 1);
            self.0.settled.notify_one();
        }
    }

    fn close(&self) {
        self.0.tell(|state| state.closing = true);
    }
}

struct Print;

impl Sink for Print {
    type Payload = CustomPayload;

    fn id(&self) -> SinkId {
        SinkId::new(SinkKind::Custom("print".into()), "stdout")
    }

    async fn connect(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&self, batch: Batch<'_, CustomPayload>) -> Vec<Verdict> {
        for item in batch.items() {
            println!("{}", String::from_utf8_lossy(&item.payload.value));
        }
        batch.all(Verdict::Confirmed)
    }

    async fn close(&self) {}

    fn repeat_is_harmless(&self, _payload: &CustomPayload) -> bool {
        true
    }
}

struct DeadLetters;

impl Sink for DeadLetters {
    type Payload = KafkaRecord;

    fn id(&self) -> SinkId {
        SinkId::new(SinkKind::Kafka, "dead letters")
    }

    async fn connect(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&self, batch: Batch<'_, KafkaRecord>) -> Vec<Verdict> {
        for item in batch.items() {
            eprintln!("dead letter: {:?}", item.payload);
        }
        batch.all(Verdict::Confirmed)
    }

    async fn close(&self) {}

    fn repeat_is_harmless(&self, _payload: &KafkaRecord) -> bool {
        true
    }
}
