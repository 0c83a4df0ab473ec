//! Work that waits for something else than a slot leaves the slots to others.

use crate::world::{MILLISECOND, SECOND, Setup, input, partition};
use drakkar_api::{Context, Handler, HookResult, Outputs, RawInput, Task, TaskOutput, Window};
use drakkar_core::{Backoff, Thresholds};
use drakkar_testkit::FakeRun;

/// `on_task_complete` does not answer in partition 0.
struct HangingHook {
    /// The size of its tasks' inputs there.
    bytes: usize,
}

impl Handler for HangingHook {
    type Input = RawInput;

    async fn arrange(&self, window: &Window<RawInput>, _cx: &Context) -> HookResult<Vec<Task>> {
        let bytes = if window.partition() == &partition(0) { self.bytes } else { 0 };
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
    let setup = Setup::of(HangingHook { bytes: 0 })
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

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_partition_that_the_others_leave_no_room_is_named() {
    let setup = Setup::of(HangingHook { bytes: 3000 })
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
