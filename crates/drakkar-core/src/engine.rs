//! The engine: connects the parts, runs partitions as they come and go, and ends in order.
//!
//! Order of start: sinks and dead letters connect, all at the same time; `on_ready`; then, when the
//! caller says so, the source. Order of the end: no message is polled any more; all partitions drain
//! in parallel under one deadline; the source leaves; the hooks of the whole worker end; the executor
//! closes; each lane drops what it still has in calls, then its sink closes.

use crate::backpressure::{Load, LoadGauge};
use crate::call_watch::WatchedCalls;
use crate::clock::TokioClock;
use crate::config::{EngineConfig, SendFailurePolicy};
use crate::delivery::{LaneHandle, LaneMail, LanePolicy, Router, spawn_lane};
use crate::driver::{DrainTicket, Mail, arrived_load, spawn_partition};
use crate::erased::AnySink;
use crate::error::{EngineError, EngineErrorKind};
use crate::hooks::run_worker_hook;
use crate::partition::{DrainCause, HookPresence, Input};
use crate::shared::{Partitions, Shared, SharedParts};
use drakkar_api::{
    Assignment, COMMIT_GRACE, Clients, Clock, CommitOffset, Context, ContextScope, Epoch, Event,
    Executor, Handler, Hook, Instant, Observer, Reply, ReplyDropped, ReplyReceiver, SinkError,
    SinkErrorKind, SinkId, Source, SourceError, SourceErrorKind, SourceEvents, SourceMessage,
    WorkerInfo,
};
use futures_util::future::join_all;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one sink may take to close.
const SINK_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the source may take to leave, once everything is drained.
const SOURCE_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How much later than a partition itself its hooks are blamed.
const HOOK_WATCH_MARGIN: Duration = Duration::from_secs(2);

/// How long hooks of the whole worker, such as `on_revoke`, may take once everything is drained.
const WORKER_HOOKS_GRACE: Duration = Duration::from_secs(5);

/// Why a running engine ends.
enum Cause {
    SourceEnded(Result<Result<(), SourceError>, ReplyDropped>),
    /// A failure after which the worker is to stop.
    Stopped(String),
    Asked,
}

/// Ready when the source has ended.
type SourceEnd = ReplyReceiver<Result<(), SourceError>>;

/// What an engine is made of.
pub struct EngineParts<H> {
    /// The user's code.
    pub handler: Arc<H>,
    /// Where messages come from.
    pub source: Arc<dyn Source>,
    /// What runs tasks.
    pub executor: Arc<dyn Executor>,
    /// Where outputs go; at least one.
    pub sinks: Vec<AnySink>,
    /// Where dead letters go: a sink that takes [`KafkaRecord`](drakkar_api::KafkaRecord).
    pub dead_letters: AnySink,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Who we are.
    pub worker: WorkerInfo,
    /// What hooks may use.
    pub clients: Clients,
    /// The settings.
    pub config: EngineConfig,
}

impl<H> std::fmt::Debug for EngineParts<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineParts")
            .field("sinks", &self.sinks)
            .field("worker", &self.worker)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// An engine whose sinks are connected. [`run`](Engine::run) starts the source.
pub struct Engine {
    shared: Arc<Shared>,
    polled: Arc<Mutex<Option<Instant>>>,
    /// Ready when a failure is to end the engine.
    stopped: ReplyReceiver<String>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Connects all sinks and the dead letters at the same time, then calls `on_ready`.
    ///
    /// # Errors
    ///
    /// The first failure in the order of `sinks`; what did connect is closed again. Must be called
    /// inside a runtime.
    pub async fn connect<H: Handler>(parts: EngineParts<H>) -> Result<Self, EngineError> {
        Self::connect_with_clock(parts, Arc::new(TokioClock::new())).await
    }

    /// The same with a clock of the caller's own.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with_clock<H: Handler>(
        parts: EngineParts<H>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EngineError> {
        let engine = Self::connect_until(parts, clock, drop, std::future::pending()).await?;
        Ok(engine.expect("nothing gives it up"))
    }

    /// The same, given up when `shutdown` is ready first: what did connect is closed again, and the
    /// answer is `None`. `known` is given the engine's status before any hook is called, so that
    /// `on_ready` can be watched, too.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_until<H: Handler>(
        parts: EngineParts<H>,
        clock: Arc<dyn Clock>,
        known: impl FnOnce(EngineStatus),
        shutdown: impl Future<Output = ()>,
    ) -> Result<Option<Self>, EngineError> {
        tokio::pin!(shutdown);
        let EngineParts {
            handler,
            source,
            executor,
            sinks,
            dead_letters,
            observer,
            worker,
            clients,
            config,
        } = parts;
        check_sinks(&sinks)?;
        let limit = config.sink_connect_timeout;
        let connecting =
            connect_all(&sinks, &dead_letters, observer.as_ref(), limit, &mut shutdown);
        if connecting.await?.is_none() {
            return Ok(None);
        }
        let config = Arc::new(config);
        let partitions = Arc::new(Partitions::default());
        let delivery = LanePolicy {
            retries_max: config.delivery_retries_max,
            backoff: config.delivery_backoff,
            hold: false,
        };
        let lane = |sink: &AnySink, policy, seed| {
            let (partitions, observer) = (Arc::clone(&partitions), Arc::clone(&observer));
            spawn_lane(sink.clone(), policy, seed, partitions, observer, Arc::clone(&clock))
        };
        let lanes = sinks.iter().zip(config.seed..).map(|(sink, seed)| lane(sink, delivery, seed));
        let lanes = lanes.collect();
        let letters =
            LanePolicy { hold: config.on_send_failure == SendFailurePolicy::Hold, ..delivery };
        let dead_letters = lane(&dead_letters, letters, !config.seed);
        let router = Router::new(sinks.iter().map(|sink| sink.id().clone()).collect());
        let context = Context::new(Arc::new(worker), Arc::new(clients), ContextScope::default());
        let (stop, stopped) = Reply::channel();
        let shared = Arc::new(Shared::new(SharedParts {
            stop,
            hooks: HookPresence::of::<H>(),
            handler,
            source,
            executor,
            observer,
            clock,
            config,
            context,
            router: Arc::new(router),
            lanes,
            dead_letters,
            partitions,
        }));
        let engine = Self { shared, polled: Arc::default(), stopped };
        known(engine.status());
        let ready = Arc::clone(&engine.shared.handler).on_ready(engine.shared.context.clone());
        let ready = tokio::select! {
            // A hook that has returned is heard.
            biased;
            ready = run_worker_hook(&engine.shared, Hook::OnReady, Vec::new(), ready) => Some(ready),
            () = &mut shutdown => None,
        };
        match ready {
            Some(Ok(())) => Ok(Some(engine)),
            Some(Err(failure)) => {
                engine.close_parts().await;
                Err(EngineError::new(EngineErrorKind::OnReady(failure.error)))
            }
            None => {
                engine.close_parts().await;
                Ok(None)
            }
        }
    }

    /// Returns a view for health checks.
    pub fn status(&self) -> EngineStatus {
        EngineStatus { shared: Arc::clone(&self.shared), polled: Arc::clone(&self.polled) }
    }

    /// Returns a view of the load alone, which an observer may keep.
    pub fn load_gauge(&self) -> LoadGauge {
        self.shared.load_gauge()
    }

    /// Returns the context of hooks of the whole worker.
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// Waits for `begin`, then runs until `shutdown` is ready, then drains and closes everything.
    ///
    /// # Errors
    ///
    /// When the source cannot start, or ends by itself, or a failure is to stop the worker;
    /// everything is closed then too.
    pub async fn run(
        self,
        begin: impl Future<Output = ()>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), EngineError> {
        tokio::pin!(shutdown);
        let mut begun = false;
        let started = tokio::select! {
            // A shutdown first: what has not begun need not.
            biased;
            () = &mut shutdown => None,
            started = async {
                begin.await;
                begun = true;
                self.start_source().await
            } => Some(started),
        };
        match started {
            None => {
                if begun {
                    self.shared.source.close();
                }
                self.close_parts().await;
                Ok(())
            }
            Some(Err(error)) => {
                self.close_parts().await;
                Err(EngineError::new(EngineErrorKind::Source(error)))
            }
            Some(Ok(on_ended)) => self.run_started(on_ended, shutdown).await,
        }
    }

    /// Starts the source; the answer is ready when it ends.
    async fn start_source(&self) -> Result<SourceEnd, SourceError> {
        let (ended, on_ended) = Reply::channel();
        let events = Arc::new(Events {
            shared: Arc::clone(&self.shared),
            polled: Arc::clone(&self.polled),
            ended: Mutex::new(Some(ended)),
        });
        self.shared.source.start(events).await?;
        Ok(on_ended)
    }

    async fn run_started(
        mut self,
        mut on_ended: SourceEnd,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), EngineError> {
        let cause = tokio::select! {
            // An end of the source first: there is nothing left to shut down then.
            biased;
            ended = &mut on_ended => Cause::SourceEnded(ended),
            Ok(reason) = &mut self.stopped => Cause::Stopped(reason),
            () = shutdown => Cause::Asked,
        };
        let result = match cause {
            Cause::SourceEnded(ended) => self.lose_all(ended).await.map_err(source_ended),
            Cause::Asked => self.drain_and_leave(on_ended).await.map_err(source_ended),
            Cause::Stopped(reason) => {
                if let Err(error) = self.drain_and_leave(on_ended).await {
                    tracing::error!(category = "kafka", %error, "source_ended");
                }
                Err(EngineError::new(EngineErrorKind::Stopped(reason)))
            }
        };
        self.shared.end_worker_hooks(WORKER_HOOKS_GRACE).await;
        self.close_parts().await;
        result
    }

    async fn drain_and_leave(&self, mut on_ended: SourceEnd) -> Result<(), SourceError> {
        self.shared.begin_closing();
        let epochs = self.shared.partitions.epochs();
        let drain_timeout_seconds = self.shared.config.drain_timeout.as_secs_f64();
        tracing::info!(
            category = "executor",
            partitions = epochs.len(),
            drain_timeout_seconds,
            "draining_executors"
        );
        spawn_revoke_hook(&self.shared, &epochs);
        let (reply, drained) = Reply::channel();
        drain(&self.shared, &epochs, DrainCause::Shutdown, reply);
        let limit = self.shared.config.drain_timeout + 2 * COMMIT_GRACE;
        tokio::select! {
            // An end of the source first: what is drained then can be committed no longer.
            biased;
            ended = &mut on_ended => return self.lose_all(ended).await,
            drained = tokio::time::timeout(limit, drained) => {
                match drained {
                    Ok(_) => tracing::info!(category = "executor", "executors_drained"),
                    Err(_) => tracing::error!(category = "lifecycle", "drain_timeout"),
                }
            }
        }
        self.shared.source.close();
        match tokio::time::timeout(SOURCE_CLOSE_TIMEOUT, on_ended).await {
            Ok(ended) => how_it_ended(ended),
            Err(_elapsed) => {
                tracing::error!(category = "lifecycle", "source_close_timeout");
                Ok(())
            }
        }
    }

    /// The source has ended by itself: nothing can be committed any more.
    async fn lose_all(
        &self,
        ended: Result<Result<(), SourceError>, ReplyDropped>,
    ) -> Result<(), SourceError> {
        let epochs = self.shared.partitions.epochs();
        spawn_revoke_hook(&self.shared, &epochs);
        for epoch in epochs {
            self.shared.partitions.send(epoch, Input::Lost);
        }
        if tokio::time::timeout(COMMIT_GRACE, self.shared.partitions.emptied()).await.is_err() {
            tracing::error!(category = "lifecycle", "lost_partitions_timeout");
        }
        how_it_ended(ended)
    }

    async fn close_parts(&self) {
        self.shared.executor.close().await;
        let lanes = self.shared.lanes.iter().chain([&self.shared.dead_letters]);
        join_all(lanes.map(close_lane)).await;
    }
}

/// Tells how the source ended. One that is gone without a word has failed.
fn how_it_ended(ended: Result<Result<(), SourceError>, ReplyDropped>) -> Result<(), SourceError> {
    ended.unwrap_or_else(|ReplyDropped| {
        let message = "the source went away without saying why";
        Err(SourceError::new(SourceErrorKind::Other, message))
    })
}

/// Ends a lane, and closes its sink when no delivery is under way any more.
async fn close_lane(lane: &LaneHandle) {
    let (reply, closed) = Reply::channel();
    lane.send(LaneMail::Close(reply));
    if tokio::time::timeout(SINK_CLOSE_TIMEOUT, closed).await.is_err() {
        tracing::warn!(category = "sink", sink = %lane.sink().id(), "lane_close_timeout");
    }
    close_sink(lane.sink()).await;
}

/// What health checks want to know of an engine. Reading it locks nothing for long.
#[derive(Clone)]
pub struct EngineStatus {
    shared: Arc<Shared>,
    polled: Arc<Mutex<Option<Instant>>>,
}

impl std::fmt::Debug for EngineStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineStatus").finish_non_exhaustive()
    }
}

impl EngineStatus {
    /// Returns how long ago the source's loop went round; `None` before the first time.
    pub fn since_polled(&self) -> Option<Duration> {
        let polled = *self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        polled.map(|polled| self.shared.clock.now() - polled)
    }

    /// Looks at all user code, and tells of what has blocked its thread for somewhat longer than
    /// [`stall_after`](EngineConfig::stall_after): a hook of a partition as a stall of that which names
    /// hook, window and offset, if the partition did not say so by itself; a hook of the whole worker
    /// and a periodic task as [`CallBlocked`](Event::CallBlocked).
    ///
    /// To be called every second or so by a thread outside of the runtime, whose threads may all be
    /// blocked. The facade does. Observers are called on that thread.
    pub fn watch_hooks(&self) {
        let limit = self.shared.config.stall_after.saturating_add(HOOK_WATCH_MARGIN);
        self.shared.look_at_hooks(limit);
        self.shared.look_at_calls(limit);
    }

    /// Returns the list of calls that [`watch_hooks`](Self::watch_hooks) looks at, for
    /// [`PeriodicTask::run_forever`](crate::PeriodicTask::run_forever).
    pub fn watched_calls(&self) -> WatchedCalls {
        self.shared.calls.clone()
    }

    /// Returns whether the engine is draining for good.
    pub fn is_closing(&self) -> bool {
        self.shared.is_closing()
    }

    /// Returns how many partitions are ours.
    pub fn assigned(&self) -> usize {
        self.shared.partitions.len()
    }

    /// Returns the load that backpressure sees.
    pub fn load(&self) -> Load {
        self.shared.load()
    }

    /// Returns whether the flow is closed by backpressure.
    pub fn is_backpressured(&self) -> bool {
        self.shared.is_backpressured()
    }

    /// Returns the sinks, in order.
    pub fn sinks(&self) -> Vec<SinkId> {
        self.shared.lanes.iter().map(|lane| lane.sink().id().clone()).collect()
    }
}

fn check_sinks(sinks: &[AnySink]) -> Result<(), EngineError> {
    if sinks.is_empty() {
        return Err(EngineError::new(EngineErrorKind::NoSinks));
    }
    for (index, sink) in sinks.iter().enumerate() {
        if sinks[..index].iter().any(|other| other.id() == sink.id()) {
            let kind = EngineErrorKind::DuplicateSink(sink.id().clone());
            return Err(EngineError::new(kind));
        }
    }
    Ok(())
}

/// Connects everything; `None` when `shutdown` was ready first. Unless all connect, those that did
/// are closed again.
async fn connect_all(
    sinks: &[AnySink],
    dead_letters: &AnySink,
    observer: &dyn Observer,
    limit: Duration,
    shutdown: impl Future<Output = ()>,
) -> Result<Option<()>, EngineError> {
    let connected = Mutex::new(Vec::new());
    let connect = async |sink: &AnySink| {
        let answer = tokio::time::timeout(limit, sink.connect()).await;
        let answer = answer.unwrap_or_else(|_elapsed| {
            let text = format!("no answer within {} s", limit.as_secs());
            Err(SinkError::temporary(SinkErrorKind::Timeout, text))
        });
        answer.map_err(|error| {
            let sink = sink.id().clone();
            EngineError::new(EngineErrorKind::Connect { sink, error })
        })?;
        connected.lock().unwrap_or_else(PoisonError::into_inner).push(sink.clone());
        observer.observe(&Event::SinkConnected { sink: sink.id() });
        Ok(())
    };
    let results = tokio::select! {
        // What has connected is used, if only to close it in order.
        biased;
        results = join_all(sinks.iter().chain([dead_letters]).map(connect)) => Some(results),
        () = shutdown => None,
    };
    let result = results.map(|results| results.into_iter().collect::<Result<(), _>>()).transpose();
    if !matches!(result, Ok(Some(()))) {
        let connected = connected.into_inner().unwrap_or_else(PoisonError::into_inner);
        join_all(connected.iter().map(close_sink)).await;
    }
    result
}

fn source_ended(error: SourceError) -> EngineError {
    EngineError::new(EngineErrorKind::SourceEnded(error))
}

async fn close_sink(sink: &AnySink) {
    if tokio::time::timeout(SINK_CLOSE_TIMEOUT, sink.close()).await.is_err() {
        tracing::warn!(category = "sink", sink = %sink.id(), "sink_close_timeout");
    }
}

/// Tells the handler that partitions leave, each once.
fn spawn_revoke_hook(shared: &Arc<Shared>, epochs: &[Epoch]) {
    let ids = shared.partitions.leave(epochs);
    if ids.is_empty() {
        return;
    }
    let call = Arc::clone(shared);
    shared.spawn_worker_hook(async move {
        let future = Arc::clone(&call.handler).on_revoke(ids.clone(), call.context.clone());
        // A failure is reported where it is caught; a rebalance goes on regardless.
        drop(run_worker_hook(&call, Hook::OnRevoke, ids, future).await);
    });
}

/// Tells partitions to drain; `reply` is answered when the last of them is done.
fn drain(shared: &Shared, epochs: &[Epoch], cause: DrainCause, reply: Reply<()>) {
    let ticket = DrainTicket::new(reply);
    let deadline = shared.clock.now() + shared.config.drain_timeout;
    for &epoch in epochs {
        let ticket = Arc::clone(&ticket);
        shared.partitions.mail(epoch, Mail::Drain { cause, deadline, ticket });
    }
}

/// Hears the source. Every method returns at once.
struct Events {
    shared: Arc<Shared>,
    polled: Arc<Mutex<Option<Instant>>>,
    ended: Mutex<Option<Reply<Result<(), SourceError>>>>,
}

impl Events {
    fn rebalance(&self, kind: &'static str, partitions: usize, assigned: usize) {
        self.shared.observer.observe(&Event::Rebalance { kind, partitions, assigned });
    }
}

impl SourceEvents for Events {
    fn assigned(&self, assignments: Vec<Assignment>) {
        let ids: Vec<_> = assignments.iter().map(|a| a.partition.clone()).collect();
        let assigned = self.shared.partitions.staying() + assignments.len();
        self.rebalance("assign", assignments.len(), assigned);
        if self.shared.is_closing() {
            return;
        }
        for Assignment { partition, epoch } in assignments {
            self.shared.observer.observe(&Event::Assigned { partition: &partition });
            spawn_partition(&self.shared, partition, epoch);
        }
        if ids.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.shared.spawn_worker_hook(async move {
            let future = Arc::clone(&shared.handler).on_assign(ids.clone(), shared.context.clone());
            // A failure is reported where it is caught; the partitions are ours regardless.
            drop(run_worker_hook(&shared, Hook::OnAssign, ids, future).await);
        });
    }

    fn revoked(&self, epochs: Vec<Epoch>, drained: Reply<()>) {
        spawn_revoke_hook(&self.shared, &epochs);
        self.rebalance("revoke", epochs.len(), self.shared.partitions.staying());
        for partition in self.shared.partitions.forget_broken(&epochs) {
            self.shared.observer.observe(&Event::Revoked {
                partition: &partition,
                clean: false,
                given_back: 0,
                duration: Duration::ZERO,
            });
        }
        if cfg!(drakkar_fault = "staying_partitions_drained") {
            let all = self.shared.partitions.epochs();
            return drain(&self.shared, &all, DrainCause::Revoke, drained);
        }
        drain(&self.shared, &epochs, DrainCause::Revoke, drained);
    }

    fn lost(&self, epochs: Vec<Epoch>) {
        spawn_revoke_hook(&self.shared, &epochs);
        self.rebalance("lost", epochs.len(), self.shared.partitions.staying());
        for partition in self.shared.partitions.forget_broken(&epochs) {
            self.shared.observer.observe(&Event::Lost { partition: &partition });
        }
        for epoch in epochs {
            self.shared.partitions.send(epoch, Input::Lost);
        }
    }

    fn messages(&self, epoch: Epoch, messages: Vec<SourceMessage>) {
        let arrived = arrived_load(&messages);
        self.shared.change_load(Load::default(), arrived);
        if !self.shared.partitions.send(epoch, Input::Messages(messages)) {
            self.shared.change_load(arrived, Load::default());
        }
    }

    fn committed(&self, epoch: Epoch, result: Result<CommitOffset, SourceError>) {
        self.shared.partitions.send(epoch, Input::Committed(result));
    }

    fn polled(&self) {
        let now = self.shared.clock.now();
        *self.polled.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.shared.observer.observe(&Event::Polled);
    }

    fn trouble(&self, error: SourceError) {
        self.shared.observer.observe(&Event::SourceTrouble { error: &error });
    }

    fn ended(&self, result: Result<(), SourceError>) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            ended.send(result);
        }
    }
}
