//! What all actors of an engine share: the table of assigned partitions, the flow gate, and the
//! parts that the engine was made of.

use crate::backpressure::{Admission, FlowGate, Load, LoadGauge, SharedGate};
use crate::call_watch::{CallNews, WatchedCalls};
use crate::config::{EngineConfig, StallResponse};
use crate::courier::Courier;
use crate::delivery::{LaneHandle, Router};
use crate::driver::Mail;
use crate::erased::DynHandler;
use crate::hook_watch::{HookWatch, News};
use crate::inbox::Inbox;
use crate::partition::{HookPresence, Input};
use drakkar_api::{
    Clock, Context, Epoch, Event, Executor, Flow, Observer, PartitionId, Reply, Source,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;

/// The assigned partitions, by epoch. What comes for an epoch that is not here is discarded
/// (promise RB-2).
#[derive(Default)]
pub(crate) struct Partitions {
    by_epoch: Mutex<BTreeMap<Epoch, Entry>>,
    /// Assignments that stopped for a broken invariant and that the source still has.
    broken: Mutex<BTreeMap<Epoch, PartitionId>>,
    emptied: tokio::sync::Notify,
}

#[derive(Clone)]
struct Entry {
    id: PartitionId,
    inbox: Arc<Inbox<Mail>>,
    /// Whether `on_revoke` was told of it.
    leaves: bool,
}

impl Partitions {
    pub(crate) fn insert(&self, epoch: Epoch, id: PartitionId, inbox: Arc<Inbox<Mail>>) {
        self.lock().insert(epoch, Entry { id, inbox, leaves: false });
    }

    pub(crate) fn remove(&self, epoch: Epoch) {
        let mut table = self.lock();
        table.remove(&epoch);
        if table.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Remembers an assignment that stopped although the source still has it.
    pub(crate) fn keep_broken(&self, epoch: Epoch, id: PartitionId) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(epoch, id);
    }

    /// Forgets those of these assignments that stopped before, and answers their partitions.
    pub(crate) fn forget_broken(&self, epochs: &[Epoch]) -> Vec<PartitionId> {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.iter().filter_map(|epoch| broken.remove(epoch)).collect()
    }

    /// Waits until no partition is assigned.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Hands an input to the partition of `epoch`, and answers whether there is one.
    pub(crate) fn send(&self, epoch: Epoch, input: Input) -> bool {
        let epoch = match &input {
            Input::ItemsEnded(_) if cfg!(drakkar_fault = "verdicts_of_any_epoch") => {
                self.some_epoch(epoch)
            }
            Input::Committed(_) if cfg!(drakkar_fault = "commits_of_any_epoch") => {
                self.some_epoch(epoch)
            }
            _ => epoch,
        };
        self.mail(epoch, Mail::Input(input))
    }

    /// The table stays locked while the mail is pushed: what is pushed is seen by whoever removes
    /// the partition.
    pub(crate) fn mail(&self, epoch: Epoch, mail: Mail) -> bool {
        let table = self.lock();
        table.get(&epoch).map(|entry| entry.inbox.push(mail)).is_some()
    }

    /// Returns the newest assignment in the place of one that is over: for planted faults only.
    fn some_epoch(&self, epoch: Epoch) -> Epoch {
        let table = self.lock();
        if table.contains_key(&epoch) {
            return epoch;
        }
        table.keys().next_back().copied().unwrap_or(epoch)
    }

    /// Returns whether a partition leaves: for a planted fault only.
    pub(crate) fn some_leave(&self) -> bool {
        self.lock().values().any(|entry| entry.leaves)
    }

    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        self.lock().keys().copied().collect()
    }

    /// Notes that these partitions leave, and answers those of which that was not known.
    pub(crate) fn leave(&self, epochs: &[Epoch]) -> Vec<PartitionId> {
        let mut table = self.lock();
        let mut ids = Vec::new();
        for epoch in epochs {
            if let Some(entry) = table.get_mut(epoch).filter(|entry| !entry.leaves) {
                entry.leaves = true;
                ids.push(entry.id.clone());
            }
        }
        ids
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns how many partitions are assigned and not about to leave.
    pub(crate) fn staying(&self) -> usize {
        self.lock().values().filter(|entry| !entry.leaves).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Epoch, Entry>> {
        self.by_epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of an engine.
pub(crate) struct Shared {
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) context: Context,
    pub(crate) router: Arc<Router>,
    pub(crate) lanes: Vec<LaneHandle>,
    pub(crate) dead_letters: LaneHandle,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) courier: Arc<Courier>,
    /// The courier's task, which ends with this.
    _courier_task: JoinSet<()>,
    gate: SharedGate,
    /// The flow that source and observer were told of.
    told: Mutex<Flow>,
    hooks: Mutex<HookPresence>,
    /// Who computes in hooks, for each assignment whose hooks may still run.
    watches: Mutex<Vec<Arc<HookWatch>>>,
    /// Who computes in user code beside the partitions.
    pub(crate) calls: WatchedCalls,
    /// The running hooks of the whole worker.
    worker_hooks: Mutex<JoinSet<()>>,
    closing: AtomicBool,
    /// Ends the engine; taken by the first failure that is to stop it.
    stop: Mutex<Option<Reply<String>>>,
    /// What windows may be formed, as an [`Admission`].
    admission: AtomicU8,
}

/// What [`Shared`] is made of.
pub(crate) struct SharedParts {
    pub(crate) hooks: HookPresence,
    pub(crate) handler: Arc<dyn DynHandler>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) context: Context,
    pub(crate) router: Arc<Router>,
    pub(crate) lanes: Vec<LaneHandle>,
    pub(crate) dead_letters: LaneHandle,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) stop: Reply<String>,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let config = &parts.config;
        let gate = FlowGate::new(config.load_count, config.load_bytes, config.load_payloads);
        let courier: Arc<Courier> = Arc::default();
        let mut courier_task = JoinSet::new();
        courier_task.spawn(Arc::clone(&courier).run());
        Self {
            handler: parts.handler,
            source: parts.source,
            executor: parts.executor,
            observer: parts.observer,
            clock: parts.clock,
            config: parts.config,
            context: parts.context,
            router: parts.router,
            lanes: parts.lanes,
            dead_letters: parts.dead_letters,
            partitions: parts.partitions,
            runtime: tokio::runtime::Handle::current(),
            courier,
            _courier_task: courier_task,
            gate: SharedGate::new(gate),
            told: Mutex::new(Flow::Open),
            hooks: Mutex::new(parts.hooks),
            watches: Mutex::default(),
            calls: WatchedCalls::default(),
            worker_hooks: Mutex::default(),
            closing: AtomicBool::new(false),
            stop: Mutex::new(Some(parts.stop)),
            admission: AtomicU8::new(Admission::Any as u8),
        }
    }

    /// Replaces one contribution to the load by another; closes or opens the flow if need be.
    pub(crate) fn change_load(&self, before: Load, after: Load) {
        if before == after {
            return;
        }
        let (changed, may_form_windows) = {
            let mut gate = self.gate.lock();
            let changed = gate.update(before, after).is_some();
            let admission = gate.admission() as u8;
            (changed, self.admission.swap(admission, Ordering::SeqCst) < admission)
        };
        if may_form_windows {
            // Whoever waits for it looks again.
            for epoch in self.partitions.epochs() {
                self.partitions.send(epoch, Input::Tick);
            }
        }
        if changed {
            self.tell_flow();
        }
    }

    /// Tells source and observer of the flow as it is now. The gate is not locked meanwhile, so that an
    /// observer may ask for the load; what was told last is, so that two changes cannot arrive
    /// swapped.
    fn tell_flow(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (flow, load) = {
            let gate = self.gate.lock();
            (gate.flow(), gate.load().count)
        };
        if std::mem::replace(&mut *told, flow) == flow {
            return;
        }
        if !self.is_closing() && !cfg!(drakkar_fault = "backpressure_ignored") {
            self.source.set_flow(flow);
        }
        self.observer.observe(&Event::Backpressure { active: flow == Flow::Closed, load });
    }

    pub(crate) fn load(&self) -> Load {
        self.gate.lock().load()
    }

    pub(crate) fn load_gauge(&self) -> LoadGauge {
        LoadGauge(self.gate.clone())
    }

    pub(crate) fn is_backpressured(&self) -> bool {
        self.gate.lock().flow() == Flow::Closed
    }

    /// Returns what windows may be formed, as far as all partitions together go.
    pub(crate) fn admission(&self) -> Admission {
        let now = self.admission.load(Ordering::SeqCst);
        let all = [Admission::Nothing, Admission::Single, Admission::First, Admission::Any];
        all.into_iter().find(|it| *it as u8 == now).unwrap_or(Admission::Any)
    }

    /// Closes the flow for good.
    pub(crate) fn begin_closing(&self) {
        // Whoever tells the source to go on does so before this, or not at all.
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.closing.store(true, Ordering::SeqCst);
        self.source.set_flow(Flow::Closed);
        drop(told);
    }

    /// Has the engine end because of a failure.
    pub(crate) fn stop(&self, reason: String) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            stop.send(reason);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Begins to watch the hooks of an assignment.
    pub(crate) fn watch_hooks_of(&self, id: PartitionId) -> Arc<HookWatch> {
        let watch = Arc::new(HookWatch::new(id));
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of which no hook can run any more are held by this list only.
        watches.retain(|watch| Arc::strong_count(watch) > 1);
        watches.push(Arc::clone(&watch));
        watch
    }

    /// Tells of hooks that have blocked their thread for `limit`, and of those that go on.
    pub(crate) fn look_at_hooks(&self, limit: Duration) {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = self.clock.now();
        for watch in watches {
            watch.look(now, limit, |news| self.tell_of_hook(&watch.partition, news));
        }
    }

    fn tell_of_hook(&self, partition: &PartitionId, news: News) {
        match news {
            News::Blocked(inside, lasted) => {
                let reason = &inside.reason(lasted);
                let keeps_ready = self.config.stall_response == StallResponse::Warn;
                let failed = Event::PartitionFailed { partition, reason, keeps_ready };
                self.observer.observe(&failed);
            }
            News::Outlives(inside, lasted) => {
                let reason = inside.reason(lasted);
                tracing::error!(category = "handler", %partition, reason, "hook_blocked");
            }
            News::WentOn => self.observer.observe(&Event::PartitionRecovered { partition }),
        }
    }

    /// The same for what is called beside the partitions.
    pub(crate) fn look_at_calls(&self, limit: Duration) {
        let keeps_ready = self.config.stall_response == StallResponse::Warn;
        for news in self.calls.look(self.clock.now(), limit) {
            self.observer.observe(&match &news {
                CallNews::Blocked(call, lasted) => {
                    Event::CallBlocked { call, lasted: *lasted, keeps_ready }
                }
                CallNews::WentOn(call) => Event::CallWentOn { call },
            });
        }
    }

    /// Calls a hook of the whole worker beside everything else.
    pub(crate) fn spawn_worker_hook(&self, call: impl Future<Output = ()> + Send + 'static) {
        let mut hooks = self.worker_hooks.lock().unwrap_or_else(PoisonError::into_inner);
        while hooks.try_join_next().is_some() {}
        hooks.spawn_on(call, &self.runtime);
    }

    /// Waits for the hooks of the whole worker, at most `limit`; then drops them.
    pub(crate) async fn end_worker_hooks(&self, limit: Duration) {
        let mut hooks =
            std::mem::take(&mut *self.worker_hooks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while hooks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(category = "lifecycle", "worker_hooks_timeout");
            hooks.shutdown().await;
        }
    }

    /// Returns the hooks that are known to be missing, for a new partition.
    pub(crate) fn hooks(&self) -> HookPresence {
        *self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what a partition learnt.
    pub(crate) fn learn_hooks(&self, learnt: HookPresence) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.task_missing |= learnt.task_missing;
        hooks.message_missing |= learnt.message_missing;
        hooks.window_missing |= learnt.window_missing;
    }
}
