//! Which optional hooks a handler writes, known from its type before anything runs.
//!
//! The default body of a hook that has outputs answers a future of a type that only this crate can
//! make. Whoever writes the hook thereby gives it another type, so it is impossible to write one and
//! not have it called, and a handler without one pays nothing for it from its first message on.

use crate::{CompletedWindow, Context, Handler, HookResult, MessageGroup, Outputs, TaskOutput};
use std::any::type_name;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::Poll;

/// The answer of a default hook.
pub(crate) struct HookMissing {
    answer: Ready<HookResult<Outputs>>,
}

impl HookMissing {
    pub(crate) fn new() -> Self {
        Self { answer: ready(Ok(Outputs::hook_missing())) }
    }
}

impl Future for HookMissing {
    type Output = HookResult<Outputs>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx)
    }
}

/// Which of the hooks that have outputs a handler writes.
///
/// A handler that writes a hook only to forward to another handler's counts as writing it; the
/// engine still notices when the other's default answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenHooks {
    /// `on_task_complete`
    pub task_complete: bool,
    /// `on_message_complete`
    pub message_complete: bool,
    /// `on_window_complete`
    pub window_complete: bool,
}

impl WrittenHooks {
    /// Looks at the type of a handler. Calls nothing.
    pub fn of<H: Handler>() -> Self {
        Self {
            task_complete: is_written::<H, TaskOutput, _>(H::on_task_complete),
            message_complete: is_written::<H, MessageGroup<H::Input>, _>(H::on_message_complete),
            window_complete: is_written::<H, CompletedWindow<H::Input>, _>(H::on_window_complete),
        }
    }
}

/// Compares the type of a hook's future with that of the default's. Names are compared because a
/// future that borrows has no `TypeId`; no other crate can have a type of this path.
fn is_written<'a, H, A, F>(_hook: fn(&'a H, &'a A, &'a Context) -> F) -> bool
where
    F: Future<Output = HookResult<Outputs>>,
{
    type_name::<F>() != type_name::<HookMissing>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RawInput, Task, Window};

    struct Plain;

    impl Handler for Plain {
        type Input = RawInput;

        async fn arrange(&self, _: &Window<RawInput>, _: &Context) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }
    }

    struct Summing;

    impl Handler for Summing {
        type Input = RawInput;

        async fn arrange(&self, _: &Window<RawInput>, _: &Context) -> HookResult<Vec<Task>> {
            Ok(Vec::new())
        }

        async fn on_window_complete(
            &self,
            _: &CompletedWindow<RawInput>,
            _: &Context,
        ) -> HookResult<Outputs> {
            Ok(Outputs::new())
        }

        fn on_message_complete(
            &self,
            _: &MessageGroup<RawInput>,
            _: &Context,
        ) -> impl Future<Output = HookResult<Outputs>> + Send {
            ready(Ok(Outputs::new()))
        }
    }

    // Promise: DL-2
    #[test]
    fn a_hook_is_known_to_be_written_before_it_is_called() {
        let none =
            WrittenHooks { task_complete: false, message_complete: false, window_complete: false };
        assert_eq!(WrittenHooks::of::<Plain>(), none);
        let two = WrittenHooks { message_complete: true, window_complete: true, ..none };
        assert_eq!(WrittenHooks::of::<Summing>(), two);
    }
}
