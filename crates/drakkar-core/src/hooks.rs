//! The boundary to user code: calls hooks, times them, and turns an error and a panic into the same.
//!
//! A hook runs in a span that says which it is and what it works on, so that every line logged there
//! has its context. There is one span for a call and one for a window: `decode`, `message_label` and
//! `task_priority`, which are called for each message or task, run in that of the hook around them.

use crate::config::ParsePolicy;
use crate::erased::{AnyMessage, guard, panic_text};
use crate::partition::{ArrangeCall, HookAnswer, HookCall, HookFailure, Input};
use crate::shared::Shared;
use drakkar_api::{
    Context, ContextScope, ErrorAction, Event, Hook, HookError, HookResult, Offset, PartitionId,
    Priority, Task, WindowId,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
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
pub(crate) fn worker_span(hook: Hook, partitions: &[PartitionId]) -> Span {
    let span = span_of(hook, Place::default());
    if !span.is_disabled() && !partitions.is_empty() {
        let numbers: Vec<_> = partitions.iter().map(PartitionId::partition).collect();
        span.record("partitions", tracing::field::debug(numbers));
    }
    span
}

/// Decodes what is not decoded, calls `arrange` and asks for priorities.
pub(crate) async fn run_arrange(
    shared: Arc<Shared>,
    partition: PartitionId,
    call: ArrangeCall,
) -> Input {
    let ArrangeCall { window, messages, pending } = call;
    let place = Place { partition: Some(&partition), window: Some(window), ..Place::default() };
    let span = span_of(Hook::Arrange, place);
    if !span.is_disabled() {
        let offsets: Vec<_> = messages.iter().map(|(source, _)| source.offset.get()).collect();
        span.record("offsets", tracing::field::debug(offsets));
    }
    let mut decoded: Vec<(Offset, AnyMessage)> = Vec::with_capacity(messages.len());
    for (source, typed) in messages {
        let offset = source.offset;
        let message = match typed {
            Some(typed) => Ok(typed),
            None => span.in_scope(|| shared.handler.decode(source)),
        };
        match message {
            Ok(message) => decoded.push((offset, message)),
            Err((hook, error)) => {
                let place = Place { offset: Some(offset), ..place };
                let failure = report(&shared, hook, place, error, true);
                return Input::Arranged { window, messages: decoded, result: Err(failure) };
            }
        }
    }
    let passed = decoded.iter().filter(|(_, message)| {
        message.parse_error().is_none() || shared.config.on_parse_error == ParsePolicy::Pass
    });
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
            Ok(tasks.into_iter().zip(priorities).collect())
        })
    };
    Input::Arranged { window, messages: decoded, result }
}

/// Calls any other hook.
pub(crate) async fn run_hook(
    shared: Arc<Shared>,
    partition: PartitionId,
    call: HookCall,
) -> HookAnswer {
    let handler = Arc::clone(&shared.handler);
    let base = Place { partition: Some(&partition), ..Place::default() };
    let context = |window| scoped(&shared.context, &partition, window);
    match call {
        HookCall::TaskComplete { task, window, output } => {
            let run = Arc::clone(&output);
            let place =
                Place { window: Some(window), offset: run.offset(), task: Some(run.id()), ..base };
            let span = span_of(Hook::OnTaskComplete, place);
            let future = handler.on_task_complete(output, context(Some(window)));
            let result = call_hook(&shared, Hook::OnTaskComplete, place, &span, future).await;
            HookAnswer::TaskComplete { task, result }
        }
        HookCall::Error { task, window, failure } => {
            let run = Arc::clone(&failure.output);
            let place =
                Place { window: Some(window), offset: run.offset(), task: Some(run.id()), ..base };
            let span = span_of(Hook::OnError, place);
            let future = handler.on_error(failure, context(Some(window)));
            let action = call_hook(&shared, Hook::OnError, place, &span, future).await;
            let result = action.and_then(|action| {
                let replacements: &[Task] = match &action {
                    ErrorAction::Replace(tasks) => tasks,
                    _ => &[],
                };
                let priorities = span.in_scope(|| priorities(&shared, replacements, place))?;
                Ok((action, priorities))
            });
            HookAnswer::Error { task, result }
        }
        HookCall::MessageComplete { offset, window, group } => {
            let place = Place { window: Some(window), offset: Some(offset), ..base };
            let span = span_of(Hook::OnMessageComplete, place);
            let future = handler.on_message_complete(group, context(Some(window)));
            let result = call_hook(&shared, Hook::OnMessageComplete, place, &span, future).await;
            HookAnswer::MessageComplete { offset, result }
        }
        HookCall::WindowComplete { window } => {
            let id = window.id;
            let place = Place { window: Some(id), ..base };
            let span = span_of(Hook::OnWindowComplete, place);
            let future = handler.on_window_complete(window, context(Some(id)));
            let result = call_hook(&shared, Hook::OnWindowComplete, place, &span, future).await;
            HookAnswer::WindowComplete { window: id, result }
        }
        HookCall::DeliveryError { group, offset, failure } => {
            let place = Place { offset: Some(offset), ..base };
            let span = span_of(Hook::OnDeliveryError, place);
            span.record("sink_type", failure.sink.kind().as_str());
            span.record("sink_name", failure.sink.name());
            let future = handler.on_delivery_error(failure, context(None));
            let result = call_hook(&shared, Hook::OnDeliveryError, place, &span, future).await;
            HookAnswer::DeliveryError { group, result }
        }
    }
}

/// Calls a hook of the whole worker; a failure is reported and has no other consequence.
pub(crate) async fn run_worker_hook(
    shared: &Shared,
    hook: Hook,
    span: &Span,
    future: BoxFuture<'static, HookResult<()>>,
) -> Result<(), HookFailure> {
    call_hook(shared, hook, Place::default(), span, future).await
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
    let result = AssertUnwindSafe(future.instrument(span.clone())).catch_unwind().await;
    let duration = shared.clock.now() - started;
    shared.observer.observe(&Event::HookFinished { hook, duration });
    match result {
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
    let error = error_text(&error);
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
