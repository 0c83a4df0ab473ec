//! The boundary to user code: calls hooks, times them, and turns an error and a panic into the same.
//!
//! A hook runs in a span that says which it is and what it works on, so that every line logged there
//! has its context. There is one span for a call and one for a window: `decode`, `message_label` and
//! `task_priority`, which are called for each message or task, run in that of the hook around them.

use crate::config::ParsePolicy;
use crate::delivery::{ERROR_BYTES_MAX, cut_text};
use crate::erased::{AnyMessage, guard, panic_text};
use crate::hook_watch::{HookWatch, Inside};
use crate::partition::{ArrangeCall, HookAnswer, HookCall, HookFailure, Input};
use crate::shared::Shared;
use drakkar_api::{
    Context, ContextScope, DeliveryAction, ErrorAction, Event, Hook, HookError, HookResult,
    Instant, Offset, Outputs, PartitionId, Priority, RunId, Task, TaskOutput, WindowId,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

/// Where a call belongs, for events.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    partition: Option<&'a PartitionId>,
    window: Option<WindowId>,
    offset: Option<Offset>,
    task: Option<&'a str>,
}

/// Makes the span of a hook. It costs somewhat more than half a microsecond, once for each call. Its
/// level is `error`, so that it is there for whatever line may be written.
fn span_of(hook: Hook, place: Place<'_>) -> Span {
    tracing::error_span!(
        "hook",
        hook = hook.as_str(),
        partition = place.partition.map(PartitionId::partition),
        window_id = place.window.map(WindowId::get),
        offset = place.offset.map(Offset::get),
        task_id = place.task,
        offsets = Empty,
        partitions = Empty,
        sink_type = Empty,
        sink_name = Empty,
    )
}

/// Makes the span of a hook of the whole worker.
fn worker_span(hook: Hook, partitions: &[PartitionId]) -> Span {
    let span = span_of(hook, Place::default());
    if !span.is_disabled() && !partitions.is_empty() {
        let numbers: Vec<_> = partitions.iter().map(PartitionId::partition).collect();
        span.record("partitions", tracing::field::debug(numbers));
    }
    span
}

/// Decodes what is not decoded, calls `arrange` and asks for priorities. Neither follows when a value
/// does not parse that the settings may have decoded again.
pub(crate) async fn run_arrange(
    shared: Arc<Shared>,
    watch: Arc<HookWatch>,
    call: ArrangeCall,
) -> Input {
    let (hook, window, offset) = (Hook::Arrange, Some(call.window), None);
    let mut arranging = pin!(arrange(Arc::clone(&shared), watch.partition.clone(), call));
    poll_fn(|cx| {
        let since = shared.clock.now();
        let _inside = watch.enter(Inside { hook, window, offset, since });
        arranging.as_mut().poll(cx)
    })
    .await
}

async fn arrange(shared: Arc<Shared>, partition: PartitionId, call: ArrangeCall) -> Input {
    let ArrangeCall { window, messages, pending } = call;
    let place = Place { partition: Some(&partition), window: Some(window), ..Place::default() };
    let span = span_of(Hook::Arrange, place);
    if !span.is_disabled() {
        let offsets: Vec<_> = messages.iter().map(|(source, _)| source.offset.get()).collect();
        span.record("offsets", tracing::field::debug(offsets));
    }
    let mut decoded: Vec<(Offset, AnyMessage)> = Vec::with_capacity(messages.len());
    let parses = |message: &AnyMessage| message.parse_error().is_none();
    let may_repeat = shared.config.on_failure.parse_error.is_some();
    let mut awaits_verdict = false;
    for (source, typed) in messages {
        let offset = source.offset;
        let is_new = typed.is_none();
        let message = match typed {
            Some(typed) => Ok(typed),
            None => span.in_scope(|| shared.handler.decode(source)),
        };
        match message {
            Ok(message) => {
                awaits_verdict |= may_repeat && is_new && !parses(&message);
                decoded.push((offset, message));
            }
            Err((hook, error)) => {
                let place = Place { offset: Some(offset), ..place };
                let failure = report(&shared, hook, place, error, true);
                return Input::Arranged { window, messages: decoded, result: Err(failure) };
            }
        }
    }
    if awaits_verdict {
        return Input::Unparsed { window, messages: decoded };
    }
    let policy = shared.config.parse_policy();
    // What comes after a value that stops the worker is not worked on any more.
    let wanted = decoded.iter().take_while(|(_, m)| parses(m) || policy != ParsePolicy::Stop);
    let passed = wanted.filter(|(_, m)| parses(m) || policy == ParsePolicy::Pass);
    let passed: Vec<_> = passed.map(|(_, message)| message.clone()).collect();
    let result = if passed.is_empty() {
        Ok(Vec::new())
    } else {
        let cx = scoped(&shared.context, &partition, Some(window));
        let future =
            Arc::clone(&shared.handler).arrange(window, partition.clone(), passed, pending, cx);
        let tasks = call_hook(&shared, Hook::Arrange, place, &span, future).await;
        tasks.and_then(|tasks| {
            let priorities = span.in_scope(|| priorities(&shared, &tasks, place))?;
            Ok(tasks.into_iter().map(Arc::new).zip(priorities).collect())
        })
    };
    Input::Arranged { window, messages: decoded, result }
}

/// A call of any other hook, with whom the answer is for. It can be polled where the partition is
/// handled and, if it waits, be moved into a task of the runtime: only the handler's own future is
/// boxed.
pub(crate) enum HookRun {
    TaskComplete(RunId, Running<Outputs>),
    Error(RunId, Running<ErrorAction>),
    MessageComplete(Offset, Running<Outputs>),
    WindowComplete(WindowId, Running<Outputs>),
    DeliveryError(u64, Running<DeliveryAction>),
}

impl HookRun {
    /// Prepares the call; no user code runs before the first poll.
    pub(crate) fn new(shared: &Shared, partition: &PartitionId, call: HookCall) -> Self {
        let handler = Arc::clone(&shared.handler);
        let cx = |window| scoped(&shared.context, partition, window);
        match call {
            HookCall::TaskComplete { task, window, output } => {
                let subject = Subject::of_task(window, &output);
                let future = handler.on_task_complete(output, cx(Some(window)));
                let running = Running::new(Hook::OnTaskComplete, partition, subject, future);
                Self::TaskComplete(task, running)
            }
            HookCall::Error { task, window, failure } => {
                let subject = Subject::of_task(window, &failure.output);
                let future = handler.on_error(failure, cx(Some(window)));
                Self::Error(task, Running::new(Hook::OnError, partition, subject, future))
            }
            HookCall::MessageComplete { offset, window, group } => {
                let subject = Subject { window: Some(window), offset: Some(offset), task: None };
                let future = handler.on_message_complete(*group, cx(Some(window)));
                let running = Running::new(Hook::OnMessageComplete, partition, subject, future);
                Self::MessageComplete(offset, running)
            }
            HookCall::WindowComplete { window } => {
                let id = window.id;
                let subject = Subject { window: Some(id), ..Subject::default() };
                let future = handler.on_window_complete(window, cx(Some(id)));
                let running = Running::new(Hook::OnWindowComplete, partition, subject, future);
                Self::WindowComplete(id, running)
            }
            HookCall::DeliveryError { group, offset, failure } => {
                let subject = Subject { offset: Some(offset), ..Subject::default() };
                let sink = failure.sink.clone();
                let future = handler.on_delivery_error(failure, cx(None));
                let running = Running::new(Hook::OnDeliveryError, partition, subject, future);
                running.span.record("sink_type", sink.kind().as_str());
                running.span.record("sink_name", sink.name());
                Self::DeliveryError(group, running)
            }
        }
    }

    /// Lets the hook go on; it is ready once. `watch` learns who computes, and for how long.
    pub(crate) fn poll(
        &mut self,
        shared: &Shared,
        partition: &PartitionId,
        watch: &HookWatch,
        cx: &mut TaskContext<'_>,
    ) -> Poll<HookAnswer> {
        match self {
            Self::TaskComplete(task, running) => running
                .poll(shared, partition, watch, cx)
                .map(|result| HookAnswer::TaskComplete { task: *task, result }),
            Self::Error(task, running) => {
                let action = ready!(running.poll(shared, partition, watch, cx));
                let result = action.and_then(|action| {
                    let replacements: &[Task] = match &action {
                        ErrorAction::Replace(tasks) => tasks,
                        _ => &[],
                    };
                    let place = running.subject.place(partition);
                    let ask = || priorities(shared, replacements, place);
                    let priorities = running.span.in_scope(ask)?;
                    Ok((action, priorities))
                });
                Poll::Ready(HookAnswer::Error { task: *task, result })
            }
            Self::MessageComplete(offset, running) => running
                .poll(shared, partition, watch, cx)
                .map(|result| HookAnswer::MessageComplete { offset: *offset, result }),
            Self::WindowComplete(window, running) => running
                .poll(shared, partition, watch, cx)
                .map(|result| HookAnswer::WindowComplete { window: *window, result }),
            Self::DeliveryError(group, running) => running
                .poll(shared, partition, watch, cx)
                .map(|result| HookAnswer::DeliveryError { group: *group, result }),
        }
    }
}

/// A hook that was called and has not answered.
pub(crate) struct Running<T> {
    hook: Hook,
    subject: Subject,
    span: Span,
    started: Option<Instant>,
    future: BoxFuture<'static, HookResult<T>>,
}

/// What a hook works on.
#[derive(Default)]
struct Subject {
    window: Option<WindowId>,
    offset: Option<Offset>,
    task: Option<Arc<TaskOutput>>,
}

impl Subject {
    fn of_task(window: WindowId, output: &Arc<TaskOutput>) -> Self {
        let task = Some(Arc::clone(output));
        Self { window: Some(window), offset: output.offset(), task }
    }

    fn place<'a>(&'a self, partition: &'a PartitionId) -> Place<'a> {
        Place {
            partition: Some(partition),
            window: self.window,
            offset: self.offset,
            task: self.task.as_ref().map(|output| output.id()),
        }
    }
}

impl<T> Running<T> {
    fn new(
        hook: Hook,
        partition: &PartitionId,
        subject: Subject,
        future: BoxFuture<'static, HookResult<T>>,
    ) -> Self {
        let span = span_of(hook, subject.place(partition));
        Self { hook, subject, span, started: None, future }
    }

    fn poll(
        &mut self,
        shared: &Shared,
        partition: &PartitionId,
        watch: &HookWatch,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<T, HookFailure>> {
        let began = shared.clock.now();
        let started = *self.started.get_or_insert(began);
        let Subject { window, offset, .. } = self.subject;
        let inside = watch.enter(Inside { hook: self.hook, window, offset, since: began });
        let future = AssertUnwindSafe(|| self.future.as_mut().poll(cx));
        let polled = self.span.in_scope(|| catch_unwind(future));
        drop(inside);
        let now = shared.clock.now();
        watch.pace.note(began, now);
        let outcome = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(answer)) => Ok(answer),
            Err(panic) => Err(panic),
        };
        let place = self.subject.place(partition);
        Poll::Ready(judge(shared, self.hook, place, now - started, outcome))
    }
}

/// Calls a hook of the whole worker; a failure is reported and has no other consequence.
pub(crate) async fn run_worker_hook(
    shared: &Shared,
    hook: Hook,
    partitions: Vec<PartitionId>,
    future: BoxFuture<'static, HookResult<()>>,
) -> Result<(), HookFailure> {
    let span = worker_span(hook, &partitions);
    let call = call_hook(shared, hook, Place::default(), &span, future);
    shared.calls.watch(hook.to_string(), partitions, shared.clock.as_ref(), call).await
}

/// Awaits a hook's future, catching its panic, and emits how long it took and whether it failed.
async fn call_hook<T>(
    shared: &Shared,
    hook: Hook,
    place: Place<'_>,
    span: &Span,
    future: impl Future<Output = HookResult<T>>,
) -> Result<T, HookFailure> {
    let started = shared.clock.now();
    let outcome = AssertUnwindSafe(future.instrument(span.clone())).catch_unwind().await;
    judge(shared, hook, place, shared.clock.now() - started, outcome)
}

/// Tells how long a hook took and, if so, that it failed; an error and a panic become the same.
fn judge<T>(
    shared: &Shared,
    hook: Hook,
    place: Place<'_>,
    duration: Duration,
    outcome: Result<HookResult<T>, Box<dyn Any + Send>>,
) -> Result<T, HookFailure> {
    shared.observer.observe(&Event::HookFinished { hook, duration });
    match outcome {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(report(shared, hook, place, error, false)),
        Err(panic) => Err(report(shared, hook, place, panic_text(panic.as_ref()), true)),
    }
}

/// Asks for the priority of each task that needs a slot.
fn priorities(
    shared: &Shared,
    tasks: &[Task],
    place: Place<'_>,
) -> Result<Vec<Priority>, HookFailure> {
    let ask = |task: &Task| match task.precomputed {
        Some(_) => Ok(Priority::default()),
        None => guard(|| shared.handler.task_priority(task)),
    };
    tasks
        .iter()
        .map(ask)
        .collect::<Result<_, _>>()
        .map_err(|error| report(shared, Hook::TaskPriority, place, error, true))
}

fn report(
    shared: &Shared,
    hook: Hook,
    place: Place<'_>,
    error: HookError,
    panicked: bool,
) -> HookFailure {
    // It may be kept for as long as a dead letter is.
    let error = cut_text(&error_text(&error), ERROR_BYTES_MAX);
    shared.observer.observe(&Event::HookFailed {
        hook,
        partition: place.partition,
        window: place.window,
        offset: place.offset,
        task: place.task,
        error: &error,
        panicked,
    });
    HookFailure { hook, error, panicked }
}

/// Writes an error of user code and its sources on one line, whatever its own text does.
pub(crate) fn error_text(error: &HookError) -> String {
    guard(|| chain(error.as_ref()))
        .unwrap_or_else(|panic| format!("an error whose text panicked: {panic}"))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn scoped(context: &Context, partition: &PartitionId, window: Option<WindowId>) -> Context {
    let partition = Some(partition.clone());
    context.scoped(ContextScope { partition, window, probe: false })
}
