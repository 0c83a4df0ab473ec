//! Type erasure, once: the engine is not generic over the handler's input type or the sinks'
//! payload types, so that it compiles once and not in every user's crate.

use drakkar_api::{
    Batch, BatchItem, BatchLimits, CompletedWindow, Context, DecodeError, DeliveryAction,
    DeliveryFailure, DeliveryId, ErrorAction, Handler, Hook, HookError, HookResult, Message,
    MessageGroup, Outputs, ParsedPayload, PartitionId, Payload, PendingTasks, Priority, Sink,
    SinkError, SinkErrorKind, SinkId, SinkPayload, SourceMessage, Task, TaskFailure, TaskOutput,
    Verdict, Window, WindowId,
};
use futures_util::future::BoxFuture;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A decoded message of some input type.
#[derive(Clone)]
pub(crate) struct AnyMessage {
    typed: Arc<dyn Any + Send + Sync>,
    parse_error: Option<DecodeError>,
}

impl AnyMessage {
    fn new<T: Send + Sync + 'static>(message: Message<T>) -> Self {
        let parse_error = message.parse_error().cloned();
        Self { typed: Arc::new(message), parse_error }
    }

    fn downcast<T: Send + Sync + 'static>(&self) -> Arc<Message<T>> {
        Arc::clone(&self.typed)
            .downcast()
            .expect("a message is only given back to the handler that decoded it")
    }

    /// Returns why the value could not be decoded, if so.
    pub(crate) fn parse_error(&self) -> Option<&DecodeError> {
        self.parse_error.as_ref()
    }
}

impl fmt::Debug for AnyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyMessage").field("parse_error", &self.parse_error).finish_non_exhaustive()
    }
}

/// What [`MessageGroup`] holds, before its message has its type back.
#[derive(Debug)]
pub(crate) struct AnyGroup {
    pub(crate) message: AnyMessage,
    pub(crate) tasks: Vec<Arc<Task>>,
    pub(crate) results: Vec<Arc<TaskOutput>>,
    pub(crate) errors: Vec<Arc<TaskOutput>>,
    pub(crate) elapsed: Duration,
}

/// What [`CompletedWindow`] holds, before its messages have their type back.
#[derive(Debug)]
pub(crate) struct AnyCompletedWindow {
    pub(crate) id: WindowId,
    pub(crate) partition: PartitionId,
    pub(crate) messages: Vec<AnyMessage>,
    pub(crate) results: Vec<Arc<TaskOutput>>,
    pub(crate) elapsed: Duration,
}

/// A [`Handler`] without its input type.
pub(crate) trait DynHandler: Send + Sync {
    /// Decodes and labels a message; a panic comes back with the name of its hook.
    fn decode(&self, source: Arc<SourceMessage>) -> Result<AnyMessage, (Hook, HookError)>;
    fn arrange(
        self: Arc<Self>,
        id: WindowId,
        partition: PartitionId,
        messages: Vec<AnyMessage>,
        pending: PendingTasks,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Vec<Task>>>;
    fn on_ready(self: Arc<Self>, cx: Context) -> BoxFuture<'static, HookResult<()>>;
    fn on_task_complete(
        self: Arc<Self>,
        done: Arc<TaskOutput>,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Outputs>>;
    fn on_message_complete(
        self: Arc<Self>,
        group: AnyGroup,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Outputs>>;
    fn on_window_complete(
        self: Arc<Self>,
        window: AnyCompletedWindow,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Outputs>>;
    fn on_error(
        self: Arc<Self>,
        failure: TaskFailure,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<ErrorAction>>;
    fn on_delivery_error(
        self: Arc<Self>,
        failure: DeliveryFailure,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<DeliveryAction>>;
    fn on_assign(
        self: Arc<Self>,
        partitions: Vec<PartitionId>,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<()>>;
    fn on_revoke(
        self: Arc<Self>,
        partitions: Vec<PartitionId>,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<()>>;
    fn task_priority(&self, task: &Task) -> Priority;
}

impl<H: Handler> DynHandler for H {
    fn decode(&self, source: Arc<SourceMessage>) -> Result<AnyMessage, (Hook, HookError)> {
        let payload = match &source.value {
            None => ParsedPayload::Tombstone,
            Some(_) => guard(|| Handler::decode(self, &source))
                .map_err(|error| (Hook::Decode, error))?
                .map_or_else(ParsedPayload::Invalid, ParsedPayload::Decoded),
        };
        let mut message = Message::new(source, payload);
        let label =
            guard(|| self.message_label(&message)).map_err(|error| (Hook::MessageLabel, error))?;
        message.set_label(label);
        Ok(AnyMessage::new(message))
    }

    fn arrange(
        self: Arc<Self>,
        id: WindowId,
        partition: PartitionId,
        messages: Vec<AnyMessage>,
        pending: PendingTasks,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Vec<Task>>> {
        Box::pin(async move {
            let messages = messages.iter().map(AnyMessage::downcast).collect();
            let window = Window::new(id, partition, messages, pending);
            Handler::arrange(self.as_ref(), &window, &cx).await
        })
    }

    fn on_ready(self: Arc<Self>, cx: Context) -> BoxFuture<'static, HookResult<()>> {
        Box::pin(async move { Handler::on_ready(self.as_ref(), &cx).await })
    }

    fn on_task_complete(
        self: Arc<Self>,
        done: Arc<TaskOutput>,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Outputs>> {
        Box::pin(async move { Handler::on_task_complete(self.as_ref(), &done, &cx).await })
    }

    fn on_message_complete(
        self: Arc<Self>,
        group: AnyGroup,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Outputs>> {
        Box::pin(async move {
            let AnyGroup { message, tasks, results, errors, elapsed } = group;
            let message = message.downcast();
            let group = MessageGroup { message, tasks, results, errors, elapsed };
            Handler::on_message_complete(self.as_ref(), &group, &cx).await
        })
    }

    fn on_window_complete(
        self: Arc<Self>,
        window: AnyCompletedWindow,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<Outputs>> {
        Box::pin(async move {
            let AnyCompletedWindow { id, partition, messages, results, elapsed } = window;
            let messages = messages.iter().map(AnyMessage::downcast).collect();
            let window = CompletedWindow { id, partition, messages, results, elapsed };
            Handler::on_window_complete(self.as_ref(), &window, &cx).await
        })
    }

    fn on_error(
        self: Arc<Self>,
        failure: TaskFailure,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<ErrorAction>> {
        Box::pin(async move { Handler::on_error(self.as_ref(), &failure, &cx).await })
    }

    fn on_delivery_error(
        self: Arc<Self>,
        failure: DeliveryFailure,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<DeliveryAction>> {
        Box::pin(async move { Handler::on_delivery_error(self.as_ref(), &failure, &cx).await })
    }

    fn on_assign(
        self: Arc<Self>,
        partitions: Vec<PartitionId>,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<()>> {
        Box::pin(async move { Handler::on_assign(self.as_ref(), &partitions, &cx).await })
    }

    fn on_revoke(
        self: Arc<Self>,
        partitions: Vec<PartitionId>,
        cx: Context,
    ) -> BoxFuture<'static, HookResult<()>> {
        Box::pin(async move { Handler::on_revoke(self.as_ref(), &partitions, &cx).await })
    }

    fn task_priority(&self, task: &Task) -> Priority {
        Handler::task_priority(self, task)
    }
}

/// A [`Sink`] without its payload type, shared by the engine and its lanes.
#[derive(Clone)]
pub struct AnySink {
    inner: Arc<dyn DynSink>,
    id: SinkId,
}

impl AnySink {
    /// Erases the payload type of a sink.
    pub fn new(sink: impl Sink) -> Self {
        let id = sink.id();
        Self { inner: Arc::new(sink), id }
    }

    /// Returns the type and name.
    pub fn id(&self) -> &SinkId {
        &self.id
    }

    /// Asks for the sizes of batches; a sink that panics gets the default ones.
    pub(crate) fn limits(&self) -> BatchLimits {
        self.ask("limits", || self.inner.limits()).unwrap_or_default()
    }

    /// Asks for a description of the destination; a sink that panics has none.
    pub(crate) fn target(&self) -> Vec<(&'static str, String)> {
        self.ask("target", || self.inner.target()).unwrap_or_default()
    }

    pub(crate) async fn connect(&self) -> Result<(), SinkError> {
        self.inner.connect().await
    }

    /// Delivers payloads and answers exactly one verdict for each: a sink that answers another
    /// number broke its contract, and then nothing is known of any of them.
    pub(crate) async fn deliver(&self, items: &[(Arc<Payload>, DeliveryId)]) -> Vec<Verdict> {
        let verdicts = self.inner.deliver(items).await;
        if verdicts.len() == items.len() {
            return verdicts;
        }
        let message =
            format!("the sink answered {} verdicts for {} payloads", verdicts.len(), items.len());
        let error = SinkError::permanent(SinkErrorKind::Internal, message);
        vec![Verdict::Unknown(error); items.len()]
    }

    pub(crate) async fn close(&self) {
        self.inner.close().await;
    }

    /// Asks whether a payload may be sent twice; of a sink that panics nothing is repeated.
    pub(crate) fn repeat_is_harmless(&self, payload: &Payload) -> bool {
        self.ask("repeat_is_harmless", || self.inner.repeat_is_harmless(payload)).unwrap_or(false)
    }

    /// Calls a method of the sink that cannot fail. Its panic must not reach the partition or the
    /// lane that asks.
    fn ask<T>(&self, method: &'static str, call: impl FnOnce() -> T) -> Option<T> {
        let answer = guard(call).inspect_err(|error| {
            tracing::error!(category = "sink", sink = %self.id, method, %error, "sink_panicked");
        });
        answer.ok()
    }
}

impl fmt::Debug for AnySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnySink").field(&self.id).finish()
    }
}

trait DynSink: Send + Sync {
    fn target(&self) -> Vec<(&'static str, String)>;
    fn limits(&self) -> BatchLimits;
    fn connect(&self) -> BoxFuture<'_, Result<(), SinkError>>;
    fn deliver<'a>(
        &'a self,
        items: &'a [(Arc<Payload>, DeliveryId)],
    ) -> BoxFuture<'a, Vec<Verdict>>;
    fn close(&self) -> BoxFuture<'_, ()>;
    fn repeat_is_harmless(&self, payload: &Payload) -> bool;
}

impl<S: Sink> DynSink for S {
    fn target(&self) -> Vec<(&'static str, String)> {
        Sink::target(self)
    }

    fn limits(&self) -> BatchLimits {
        Sink::limits(self)
    }

    fn connect(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(Sink::connect(self))
    }

    fn deliver<'a>(
        &'a self,
        items: &'a [(Arc<Payload>, DeliveryId)],
    ) -> BoxFuture<'a, Vec<Verdict>> {
        let typed: Option<Vec<_>> = items
            .iter()
            .map(|(payload, id)| {
                S::Payload::from_payload(payload).map(|payload| BatchItem { payload, id })
            })
            .collect();
        let Some(typed) = typed else {
            let message = "a payload of another type was routed to this sink";
            let error = SinkError::permanent(SinkErrorKind::Internal, message);
            return Box::pin(std::future::ready(vec![Verdict::Rejected(error); items.len()]));
        };
        Box::pin(Sink::deliver(self, Batch::new(typed)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Sink::close(self))
    }

    fn repeat_is_harmless(&self, payload: &Payload) -> bool {
        S::Payload::from_payload(payload)
            .is_some_and(|payload| Sink::repeat_is_harmless(self, payload))
    }
}

/// Calls synchronous user code and turns its panic into an error.
pub(crate) fn guard<T>(call: impl FnOnce() -> T) -> Result<T, HookError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_text(panic.as_ref()))
}

/// Turns what a panic carried into text.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> HookError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    text.into()
}
