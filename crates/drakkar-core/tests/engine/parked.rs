//! Work that waits for something else than a slot leaves the slots to others.

use crate::world::{MILLISECOND, SECOND, Setup, input, partition, record};
use drakkar_api::{
    Context, DeliveryAction, DeliveryFailure, Handler, HookResult, KafkaRecord, Outputs, RawInput,
    Task, TaskOutput, Window,
};
use drakkar_core::{Backoff, Thresholds};
use drakkar_testkit::{Answer, FakeRun, Offer, Reaction};

/// `on_task_complete` does not answer in partition 0.
struct HangingHook {
    /// The sizes of tasks' inputs there and elsewhere.
    bytes: [usize; 2],
}

impl Handler for HangingHook {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        let [there, elsewhere] = self.bytes;
        let bytes = if window.partition() == &partition(0) { there } else { elsewhere };
        let stdin = || vec![b'i'; bytes];
        Ok(window.messages().map(|message| Task::for_message(message).stdin(stdin())).collect())
    }

    async fn on_task_complete(&self, _done: &TaskOutput, cx: &Context) -> HookResult<Outputs> {
        if cx.partition() == Some(&partition(0)) {
            std::future::pending::<()>().await;
        }
        Ok(Outputs::new())
    }
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn hooks_that_hang_in_one_partition_do_not_stop_the_others() {
    let setup = Setup::of(HangingHook { bytes: [0, 0] })
        .tasks(8, |_, _| FakeRun::exit(0).lasting(SECOND))
        .config(|config| {
            config.window_size = 10;
            config.buffer_messages = 20;
            config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
        });
    let world = setup.start(&["x"; 9]).await;
    tokio::time::sleep(SECOND * 10).await;
    world.produce(1, &["x"; 200]);
    world.source.assign(&[partition(1)]);
    tokio::time::sleep(SECOND * 280).await;
    assert_eq!(world.committed(1), Some(200), "{:?}", world.status.load());
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn retries_that_wait_for_an_hour_do_not_stop_everything_else() {
    let setup = Setup::new(drakkar_testkit::TestHandler::new())
        .tasks(8, |task, _| match input(task).as_str() {
            "bad" => FakeRun::exit(1),
            _ => FakeRun::exit(0).lasting(MILLISECOND * 100),
        })
        .config(|config| {
            config.window_size = 10;
            config.on_failure.exit_code.attempts_max = 3;
            config.on_failure.exit_code.backoff =
                Backoff { initial: SECOND * 3600, max: SECOND * 3600 };
            config.load_count = Thresholds { pause_at: 32, resume_at: 8 };
        });
    let world = setup.start(&["bad"; 9]).await;
    world.produce(0, &["x"; 2000]);
    world.produce(1, &["x"; 2000]);
    world.source.assign(&[partition(1)]);
    tokio::time::sleep(SECOND * 280).await;
    assert_eq!(world.committed(1), Some(2000), "{:?}", world.status.load());
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn bytes_that_hooks_hold_for_ever_do_not_stop_everything_else() {
    let setup = Setup::of(HangingHook { bytes: [600, 600] })
        .tasks(8, |_, _| FakeRun::exit(0).lasting(MILLISECOND * 100))
        .config(|config| {
            config.window_size = 10;
            config.load_bytes = Thresholds { pause_at: 10_000, resume_at: 5_000 };
        });
    let world = setup.start(&["x"; 10]).await;
    tokio::time::sleep(SECOND * 10).await;
    world.produce(1, &["x"; 2000]);
    world.source.assign(&[partition(1)]);
    world.until("the flow was closed", |world| world.seen.count("Backpressure") > 0).await;
    tokio::time::sleep(SECOND * 280).await;
    assert_eq!(world.committed(1), Some(2000), "{:?}", world.status.load());
}

/// Its payloads of partition 0 are rejected, and it does not say what is to become of them.
struct HangingDelivery;

impl Handler for HangingDelivery {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        Ok(window.messages().map(Task::for_message).collect())
    }

    async fn on_task_complete(&self, _done: &TaskOutput, cx: &Context) -> HookResult<Outputs> {
        let hangs = cx.partition() == Some(&partition(0));
        Ok(Outputs::new().with(record(if hangs { "hangs" } else { "goes" })))
    }

    async fn on_delivery_error(
        &self,
        _failure: &DeliveryFailure,
        _cx: &Context,
    ) -> HookResult<DeliveryAction> {
        std::future::pending().await
    }
}

// Promise: FT-3
#[tokio::test(start_paused = true)]
async fn payloads_that_are_never_settled_do_not_stop_everything_else() {
    let answer = |offer: &Offer<KafkaRecord>| match offer.payload.value.as_deref() {
        Some(b"hangs") => Answer::rejected(),
        _ => Answer::Confirm,
    };
    let setup = Setup::of(HangingDelivery)
        .tasks(8, |_, _| FakeRun::exit(0).lasting(MILLISECOND * 100))
        .sink(|sink| {
            sink.react_with(move |offers| {
                Reaction::answers(offers.iter().map(answer)).taking(MILLISECOND * 10)
            })
        })
        .config(|config| {
            config.window_size = 10;
            config.load_payloads = Thresholds { pause_at: 10, resume_at: 5 };
        });
    let world = setup.start(&["x"; 6]).await;
    tokio::time::sleep(SECOND * 10).await;
    world.produce(1, &["x"; 2000]);
    world.source.assign(&[partition(1)]);
    world.until("the flow was closed", |world| world.seen.count("Backpressure") > 0).await;
    tokio::time::sleep(SECOND * 280).await;
    assert_eq!(world.committed(1), Some(2000), "{:?}", world.status.load());
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_partition_that_the_others_leave_no_room_is_named() {
    let setup = Setup::of(HangingHook { bytes: [3000, 0] })
        .tasks(8, |_, _| FakeRun::exit(0).lasting(MILLISECOND))
        .config(|config| {
            config.window_size = 4;
            config.stall_after = SECOND * 60;
            config.load_bytes = Thresholds { pause_at: 10_000, resume_at: 5_000 };
        });
    let world = setup.try_start().await.expect("connects");
    world.produce(0, &["x"; 4]);
    world.produce(1, &["x"; 50]);
    world.until("the source has started", |w| w.status.since_polled().is_some()).await;
    world.source.assign(&[partition(0), partition(1)]);
    tokio::time::sleep(SECOND * 280).await;
    assert_ne!(world.committed(1), Some(50), "partition 0 holds too much for it");
    let told = world.seen.named("PartitionFailed");
    let text = told.iter().find(|event| event.partition == Some(partition(1)));
    let text = &text.unwrap_or_else(|| panic!("it is not named: {told:?}")).text;
    assert!(text.contains("offset 4") && text.contains("executor.max_buffered_bytes"), "{text}");
}
