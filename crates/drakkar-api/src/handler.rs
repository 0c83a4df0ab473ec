//! The contract of user code.

use crate::written::HookMissing;
use crate::{
    CompletedWindow, Context, DecodeError, DeliveryFailure, HookResult, Message, MessageGroup,
    Outputs, PartitionId, SourceMessage, Task, TaskFailure, TaskOutput, Window,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::future::{Future, ready};
use std::time::Duration;

/// What a pipeline does with its messages. One value serves all partitions.
///
/// Only [`arrange`](Handler::arrange) must be written; every other hook has a default that does
/// nothing. Write hooks as `async fn`.
///
/// # Call order
///
/// For each window: `decode`, `message_label` per message, then `arrange`. For each attempt of a
/// task: `task_priority`, the program, then `on_task_complete` or `on_error`. When all tasks of a
/// message are settled and their outputs confirmed: `on_message_complete`. When all messages of a
/// window went through that: `on_window_complete`. Then the offsets may be committed.
///
/// # Contract
///
/// - Work may be repeated after a crash: hooks must tolerate seeing a message twice.
/// - Everything a hook touches should come through the [`Context`]; then a probe leaves no trace.
/// - A hook that does not return blocks its message, and the engine says so.
///
/// # Concurrency
///
/// Hooks of different partitions run at the same time, on all threads of the runtime. Inside one
/// partition `arrange` runs for one window at a time, in offset order; other hooks are called one
/// after the other as long as they take microseconds, and at the same time when they wait or
/// compute for longer.
///
/// A hook must not block its thread: its partition is not attended to meanwhile. What blocks belongs
/// into `tokio::task::spawn_blocking`.
///
/// # Cancellation
///
/// The engine drops a hook's future when its partition is lost or a drain's deadline passes.
///
/// # Errors
///
/// An error and a panic are the same. In `arrange`, `decode`, `message_label` or `task_priority` the
/// window is retried, then taken message by message; what still fails is dead-lettered. In any other
/// hook the message is dead-lettered (`on_window_complete`: all messages of the window).
///
/// # Example
///
/// ```
/// use drakkar_api::{Context, Handler, HookResult, KafkaRecord, Message, Outputs, Task, TaskOutput};
/// use drakkar_api::Window;
///
/// struct Upper;
///
/// impl Handler for Upper {
///     type Input = drakkar_api::RawInput;
///
///     async fn arrange(
///         &self,
///         window: &Window<Self::Input>,
///         _cx: &Context,
///     ) -> HookResult<Vec<Task>> {
///         let tasks = window.messages().filter_map(Message::payload_with_offset);
///         Ok(tasks
///             .map(|(raw, offset)| {
///                 Task::for_offset(offset).args(["a-z", "A-Z"]).stdin(raw.0.clone())
///             })
///             .collect())
///     }
///
///     async fn on_task_complete(&self, done: &TaskOutput, _cx: &Context) -> HookResult<Outputs> {
///         Ok(Outputs::new().with(KafkaRecord::bytes(done.stdout().clone())))
///     }
/// }
/// ```
///
/// # Common mistake
///
/// Doing CPU-heavy work inside a hook. It blocks a thread of the runtime; give it to a task.
pub trait Handler: Send + Sync + 'static {
    /// The type that a message's value is decoded into: any `Deserialize` type from JSON, or
    /// [`RawInput`] for the bytes as they are.
    type Input: Input;

    /// Turns a window into tasks. Messages that get no task are finished at once.
    fn arrange(
        &self,
        window: &Window<Self::Input>,
        cx: &Context,
    ) -> impl Future<Output = HookResult<Vec<Task>>> + Send;

    /// Runs once, when sinks are connected and before the first message.
    fn on_ready(&self, _cx: &Context) -> impl Future<Output = HookResult<()>> + Send {
        ready(Ok(()))
    }

    /// Turns the success of a task into outputs. Called once per successful task.
    fn on_task_complete(
        &self,
        _done: &TaskOutput,
        _cx: &Context,
    ) -> impl Future<Output = HookResult<Outputs>> + Send {
        HookMissing::new()
    }

    /// Runs once per message, when all its tasks are settled or it got none.
    fn on_message_complete(
        &self,
        _group: &MessageGroup<Self::Input>,
        _cx: &Context,
    ) -> impl Future<Output = HookResult<Outputs>> + Send {
        HookMissing::new()
    }

    /// Runs once per window that had at least one task. A handler that writes this hook holds every
    /// offset of a window until the hook's outputs are confirmed; one that does not pays nothing.
    fn on_window_complete(
        &self,
        _window: &CompletedWindow<Self::Input>,
        _cx: &Context,
    ) -> impl Future<Output = HookResult<Outputs>> + Send {
        HookMissing::new()
    }

    /// Decides about a failed attempt. Called once per failed attempt, the last one included.
    fn on_error(
        &self,
        _failure: &TaskFailure,
        _cx: &Context,
    ) -> impl Future<Output = HookResult<ErrorAction>> + Send {
        ready(Ok(ErrorAction::Policy))
    }

    /// Decides about payloads that a sink did not take, after the automatic retries. Called once
    /// per answer of a hook and sink.
    fn on_delivery_error(
        &self,
        _failure: &DeliveryFailure,
        _cx: &Context,
    ) -> impl Future<Output = HookResult<DeliveryAction>> + Send {
        ready(Ok(DeliveryAction::DeadLetter))
    }

    /// Hears which partitions became ours; their messages may flow already.
    fn on_assign(
        &self,
        _partitions: &[PartitionId],
        _cx: &Context,
    ) -> impl Future<Output = HookResult<()>> + Send {
        ready(Ok(()))
    }

    /// Hears which partitions are about to be given back, or are lost already.
    fn on_revoke(
        &self,
        _partitions: &[PartitionId],
        _cx: &Context,
    ) -> impl Future<Output = HookResult<()>> + Send {
        ready(Ok(()))
    }

    /// Names a message in logs and in the UI.
    fn message_label(&self, message: &Message<Self::Input>) -> String {
        format!("{}:{}", message.partition().partition(), message.offset())
    }

    /// Gives a task its place among the waiting ones. Asked once per task, right after the hook that
    /// returned it; never for a precomputed task.
    fn task_priority(&self, _task: &Task) -> Priority {
        Priority::default()
    }

    /// Decodes a message's value. Never called for a tombstone.
    ///
    /// # Errors
    ///
    /// When the value is not what the handler expects; `kafka.on_parse_error` says what follows, or
    /// `executor.on_failure.parse_error`, by which the value can be decoded again.
    fn decode(&self, message: &SourceMessage) -> Result<Self::Input, DecodeError> {
        Self::Input::decode(message)
    }
}

/// A type that a message's value can be decoded into.
///
/// Implemented for every `Deserialize` type, which is then read from JSON, and for [`RawInput`].
pub trait Input: Sized + Send + Sync + 'static {
    /// Decodes the value of `message`.
    ///
    /// # Errors
    ///
    /// When the value is not of this type.
    fn decode(message: &SourceMessage) -> Result<Self, DecodeError>;
}

impl<T: DeserializeOwned + Send + Sync + 'static> Input for T {
    fn decode(message: &SourceMessage) -> Result<Self, DecodeError> {
        let value = message.value.as_deref().unwrap_or_default();
        serde_json::from_slice(value).map_err(|error| DecodeError::new(error.to_string()))
    }
}

/// A message's value as it came. Decoding it cannot fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawInput(pub Bytes);

impl Input for RawInput {
    fn decode(message: &SourceMessage) -> Result<Self, DecodeError> {
        Ok(Self(message.value.clone().unwrap_or_default()))
    }
}

/// A task's place among the waiting ones: smaller starts first. Equal ones are served fairly across
/// partitions; see [`Executor`](crate::Executor).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i64);

impl Priority {
    /// Makes a priority; the default is 0.
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// Returns the number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// What `on_error` answers.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ErrorAction {
    /// What `executor.on_failure` says for this kind of ending: by default the message is
    /// dead-lettered once its tasks are settled.
    #[default]
    Policy,
    /// Run the task again at once; when `executor.max_retries` is used up, as [`Self::Policy`].
    Retry,
    /// Run the task again after this time, without holding a slot meanwhile.
    RetryAfter(Duration),
    /// Accept the failure: counted, and the message goes on.
    Skip,
    /// Run these instead; an empty list drops the task.
    Replace(Vec<Task>),
    /// Dead-letter the message once its tasks are settled.
    DeadLetter,
}

/// What `on_delivery_error` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryAction {
    /// Write the payloads to the dead letters.
    #[default]
    DeadLetter,
    /// Try again, as often as the settings allow; then the dead letters.
    Retry,
    /// Drop the payloads: counted, and the message goes on.
    Skip,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Headers, Offset};

    fn message(value: &'static str) -> SourceMessage {
        SourceMessage {
            partition: PartitionId::new("in", 0),
            offset: Offset::new(1),
            key: None,
            value: Some(Bytes::from_static(value.as_bytes())),
            timestamp: None,
            headers: Headers::new(),
        }
    }

    #[test]
    fn any_deserialize_type_is_an_input() {
        assert_eq!(<Vec<u8> as Input>::decode(&message("[1,2]")), Ok(vec![1, 2]));
        let error = <Vec<u8> as Input>::decode(&message("{")).expect_err("not a list");
        assert!(error.reason().contains("line 1"), "{error}");
    }

    #[test]
    fn raw_input_takes_everything() {
        assert_eq!(RawInput::decode(&message("{")), Ok(RawInput(Bytes::from_static(b"{"))));
    }
}
