//! A handler made of closures.

use crate::violations::lock;
use drakkar_api::{
    CompletedWindow, Context, DeliveryAction, DeliveryFailure, ErrorAction, Handler, Hook,
    HookResult, Message, MessageGroup, Offset, Outputs, PartitionId, Priority, RawInput, Task,
    TaskFailure, TaskOutput, Window,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Closure<A, R> = Box<dyn Fn(&A, &Context) -> HookResult<R> + Send + Sync>;
type ReadyClosure = Box<dyn Fn(&Context) -> HookResult<()> + Send + Sync>;
type PriorityClosure = Box<dyn Fn(&Task) -> Priority + Send + Sync>;

/// A [`Handler`] of raw messages whose hooks are closures and which remembers their calls.
///
/// Without closures it makes one task per message, with the message's value as standard input, and
/// all other hooks are the defaults. A hook without a closure counts as not written: the engine then
/// keeps nothing for it. Closures may panic or answer errors; [`with_slow`](TestHandler::with_slow) makes a
/// hook take time.
///
/// ```
/// use drakkar_api::{FileLine, Outputs};
/// use drakkar_testkit::TestHandler;
///
/// let handler = TestHandler::new().with_task_complete(|done, _cx| {
///     Ok(Outputs::new().with(FileLine::bytes("out.txt", done.stdout().clone())))
/// });
/// assert!(handler.log().all().is_empty());
/// ```
#[derive(Default)]
pub struct TestHandler {
    arrange: Option<Closure<Window<RawInput>, Vec<Task>>>,
    ready: Option<ReadyClosure>,
    task_complete: Option<Closure<TaskOutput, Outputs>>,
    message_complete: Option<Closure<MessageGroup<RawInput>, Outputs>>,
    window_complete: Option<Closure<CompletedWindow<RawInput>, Outputs>>,
    error: Option<Closure<TaskFailure, ErrorAction>>,
    delivery_error: Option<Closure<DeliveryFailure, DeliveryAction>>,
    priority: Option<PriorityClosure>,
    slow: BTreeMap<Hook, Duration>,
    log: HookLog,
}

/// The calls of hooks of one [`TestHandler`]. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct HookLog {
    calls: Arc<Mutex<Vec<HookCall>>>,
}

impl HookLog {
    /// Returns the calls so far, in the order in which they began.
    pub fn all(&self) -> Vec<HookCall> {
        lock(&self.calls).clone()
    }

    /// Returns how often `hook` was called.
    pub fn count(&self, hook: Hook) -> usize {
        lock(&self.calls).iter().filter(|call| call.hook == hook).count()
    }
}

/// One call of a hook, noted when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCall {
    /// Which hook.
    pub hook: Hook,
    /// The partition that it worked on.
    pub partition: Option<PartitionId>,
    /// The messages that it was about: all of a window, one of a message group, a task's.
    pub offsets: Vec<Offset>,
}

/// Where the defaults of [`Handler`] come from: only a hook that is not written can answer "not
/// written".
struct Defaults;

impl Handler for Defaults {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(window.messages().map(one_task).collect())
    }
}

fn one_task(message: &Message<RawInput>) -> Task {
    Task::for_message(message).stdin(message.value().cloned().unwrap_or_default())
}

macro_rules! setter {
    ($(#[$doc:meta])* $name:ident, $field:ident, $given:ty, $answer:ty) => {
        $(#[$doc])*
        #[must_use]
        pub fn $name(
            mut self,
            hook: impl Fn(&$given, &Context) -> HookResult<$answer> + Send + Sync + 'static,
        ) -> Self {
            self.$field = Some(Box::new(hook));
            self
        }
    };
}

impl TestHandler {
    /// Makes a handler with one task per message.
    pub fn new() -> Self {
        Self::default()
    }

    setter!(
        /// Sets `arrange`.
        with_arrange, arrange, Window<RawInput>, Vec<Task>
    );
    setter!(
        /// Sets `on_task_complete`.
        with_task_complete, task_complete, TaskOutput, Outputs
    );
    setter!(
        /// Sets `on_message_complete`.
        with_message_complete, message_complete, MessageGroup<RawInput>, Outputs
    );
    setter!(
        /// Sets `on_window_complete`.
        with_window_complete, window_complete, CompletedWindow<RawInput>, Outputs
    );
    setter!(
        /// Sets `on_error`.
        with_error, error, TaskFailure, ErrorAction
    );
    setter!(
        /// Sets `on_delivery_error`.
        with_delivery_error, delivery_error, DeliveryFailure, DeliveryAction
    );

    /// Sets `on_ready`.
    #[must_use]
    pub fn with_ready(
        mut self,
        hook: impl Fn(&Context) -> HookResult<()> + Send + Sync + 'static,
    ) -> Self {
        self.ready = Some(Box::new(hook));
        self
    }

    /// Sets `task_priority`.
    #[must_use]
    pub fn with_priority(
        mut self,
        hook: impl Fn(&Task) -> Priority + Send + Sync + 'static,
    ) -> Self {
        self.priority = Some(Box::new(hook));
        self
    }

    /// Makes `hook` take this time before its closure runs. Only asynchronous hooks can be slow.
    #[must_use]
    pub fn with_slow(mut self, hook: Hook, by: Duration) -> Self {
        self.slow.insert(hook, by);
        self
    }

    /// Returns the log of hook calls; it can be kept when the handler is given away.
    pub fn log(&self) -> HookLog {
        self.log.clone()
    }

    async fn enter(&self, hook: Hook, cx: &Context, offsets: Vec<Offset>) {
        let call = HookCall { hook, partition: cx.partition().cloned(), offsets };
        lock(&self.log.calls).push(call);
        if let Some(delay) = self.slow.get(&hook) {
            tokio::time::sleep(*delay).await;
        }
    }
}

impl Handler for TestHandler {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, cx: &Context) -> HookResult<Vec<Task>> {
        let offsets = window.messages().map(Message::offset).collect();
        self.enter(Hook::Arrange, cx, offsets).await;
        match &self.arrange {
            Some(hook) => hook(window, cx),
            None => Defaults.arrange(window, cx).await,
        }
    }

    async fn on_ready(&self, cx: &Context) -> HookResult<()> {
        self.enter(Hook::OnReady, cx, Vec::new()).await;
        self.ready.as_ref().map_or(Ok(()), |hook| hook(cx))
    }

    async fn on_task_complete(&self, done: &TaskOutput, cx: &Context) -> HookResult<Outputs> {
        let Some(hook) = &self.task_complete else {
            return Defaults.on_task_complete(done, cx).await;
        };
        self.enter(Hook::OnTaskComplete, cx, done.task.source_offsets.clone()).await;
        hook(done, cx)
    }

    async fn on_message_complete(
        &self,
        group: &MessageGroup<RawInput>,
        cx: &Context,
    ) -> HookResult<Outputs> {
        let Some(hook) = &self.message_complete else {
            return Defaults.on_message_complete(group, cx).await;
        };
        self.enter(Hook::OnMessageComplete, cx, vec![group.message.offset()]).await;
        hook(group, cx)
    }

    async fn on_window_complete(
        &self,
        window: &CompletedWindow<RawInput>,
        cx: &Context,
    ) -> HookResult<Outputs> {
        let Some(hook) = &self.window_complete else {
            return Defaults.on_window_complete(window, cx).await;
        };
        let offsets = window.messages.iter().map(|message| message.offset()).collect();
        self.enter(Hook::OnWindowComplete, cx, offsets).await;
        hook(window, cx)
    }

    async fn on_error(&self, failure: &TaskFailure, cx: &Context) -> HookResult<ErrorAction> {
        self.enter(Hook::OnError, cx, failure.task.source_offsets.clone()).await;
        self.error.as_ref().map_or(Ok(ErrorAction::Policy), |hook| hook(failure, cx))
    }

    async fn on_delivery_error(
        &self,
        failure: &DeliveryFailure,
        cx: &Context,
    ) -> HookResult<DeliveryAction> {
        self.enter(Hook::OnDeliveryError, cx, Vec::new()).await;
        self.delivery_error
            .as_ref()
            .map_or(Ok(DeliveryAction::DeadLetter), |hook| hook(failure, cx))
    }

    async fn on_assign(&self, _partitions: &[PartitionId], cx: &Context) -> HookResult<()> {
        self.enter(Hook::OnAssign, cx, Vec::new()).await;
        Ok(())
    }

    async fn on_revoke(&self, _partitions: &[PartitionId], cx: &Context) -> HookResult<()> {
        self.enter(Hook::OnRevoke, cx, Vec::new()).await;
        Ok(())
    }

    fn task_priority(&self, task: &Task) -> Priority {
        self.priority.as_ref().map_or(Priority::default(), |hook| hook(task))
    }
}

impl fmt::Debug for TestHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHandler").field("log", &self.log).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use drakkar_api::{
        Clients, ContextScope, Headers, ParsedPayload, PendingTasks, SourceMessage, WindowId,
        WorkerId, WorkerInfo,
    };

    fn context() -> Context {
        let worker = WorkerInfo {
            worker_id: WorkerId::new("w"),
            cluster: String::new(),
            consumer_group: String::new(),
        };
        Context::new(Arc::new(worker), Arc::new(Clients::new()), ContextScope::default())
    }

    fn window() -> Window<RawInput> {
        let partition = PartitionId::new("in", 0);
        let source = SourceMessage {
            partition: partition.clone(),
            offset: Offset::new(3),
            key: None,
            value: Some(Bytes::from_static(b"x")),
            timestamp: None,
            headers: Headers::new(),
        };
        let parsed = ParsedPayload::Decoded(RawInput(Bytes::from_static(b"x")));
        let message = Arc::new(Message::new(source, parsed));
        Window::new(WindowId::new(1), partition, vec![message], PendingTasks::default())
    }

    #[tokio::test]
    async fn a_handler_without_closures_makes_one_task_per_message() {
        let handler = TestHandler::new();
        let tasks = handler.arrange(&window(), &context()).await.expect("the default arrange");
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].stdin.as_deref(), Some(b"x".as_slice()));
        assert_eq!(handler.log().all()[0].offsets, [Offset::new(3)]);
    }

    #[tokio::test]
    async fn a_hook_without_a_closure_counts_as_not_written() {
        let done = CompletedWindow {
            id: WindowId::new(1),
            partition: PartitionId::new("in", 0),
            messages: Vec::new(),
            results: Vec::new(),
            elapsed: Duration::ZERO,
        };
        let plain = TestHandler::new();
        let answer = plain.on_window_complete(&done, &context()).await.expect("the default hook");
        assert!(answer.is_hook_missing());
        let written = TestHandler::new().with_window_complete(|_, _| Ok(Outputs::new()));
        let answer = written.on_window_complete(&done, &context()).await.expect("the closure");
        assert!(!answer.is_hook_missing());
        assert_eq!(written.log().count(Hook::OnWindowComplete), 1);
    }
}
