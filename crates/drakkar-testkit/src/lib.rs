//! Fakes, fault plans and the conformance suite for tests of drakkar pipelines and sinks.
//!
//! Everything here runs on a tokio runtime without any real service, so a test may pause time
//! (`#[tokio::test(start_paused = true)]`) and run the same way every time. The fakes check what the
//! other side of their contract promises: a broken promise is noted and panics where it happens;
//! because the engine catches panics of its parts, a test should also call `assert_no_violations` at
//! its end.
//!
//! | Part | Fake | Script it with |
//! |---|---|---|
//! | [`Source`](drakkar_api::Source) | [`ScriptedSource`] on a [`FakeBroker`] | `assign`, `revoke`, `lose`, `fail_commits` |
//! | [`Executor`](drakkar_api::Executor) | [`FakeExecutor`] | a closure from task and attempt to [`FakeRun`] |
//! | [`Sink`](drakkar_api::Sink) | [`FakeSink`] | [`Reaction`]s, one after the other or by a closure |
//! | [`Handler`](drakkar_api::Handler) | [`TestHandler`] | closures per hook |
//! | [`Observer`](drakkar_api::Observer) | [`RecordingObserver`] | – |
//! | [`Clock`](drakkar_api::Clock) | [`ManualClock`], [`TokioClock`] | `advance`; tokio's paused time |
//!
//! The [`conformance`] suite checks sinks, real ones and fakes alike.
//!
//! A [`FaultPlan`] draws faults for all of them from one seed. Fakes keep all that they see, without
//! a bound: they are for tests.
#![forbid(unsafe_code)]

mod broker;
mod clock;
pub mod conformance;
mod executor;
mod fault;
mod handler;
mod observer;
mod random;
mod sink;
mod source;
mod violations;

pub use broker::FakeBroker;
pub use clock::{ManualClock, TokioClock};
pub use executor::{FakeExecutor, FakeRun, RunRecord};
pub use fault::{FaultPlan, FaultRates};
pub use handler::{HookCall, HookLog, TestHandler};
pub use observer::{Recorded, RecordingObserver};
pub use random::Random;
pub use sink::{Answer, Applied, Call, FakeSink, Offer, Reaction, Sighting};
pub use source::{CommitAnswer, ScriptedSource};
