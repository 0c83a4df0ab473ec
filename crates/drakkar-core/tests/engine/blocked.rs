//! User code that blocks its thread is named by a thread outside of the runtime.

use crate::world::{BlockedClock, SECOND, Setup, World, partition};
use drakkar_api::{
    Context, Event, Handler, Hook, HookResult, Observer, Outputs, PartitionId, RawInput, Task,
    Window,
};
use drakkar_core::EngineStatus;
use drakkar_testkit::{RecordingObserver, TestHandler};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

/// A handler one of whose hooks blocks its thread for somewhat longer than a minute.
struct Blocking {
    hook: Hook,
    clock: BlockedClock,
    status: Arc<OnceLock<EngineStatus>>,
}

impl Blocking {
    fn enter(&self, hook: Hook) {
        if hook == self.hook {
            self.look_after(SECOND * 50);
            self.look_after(SECOND * 20);
            self.look_after(SECOND * 5);
        }
    }

    /// Has another thread look for what blocks; the runtime has only this one.
    fn look_after(&self, blocked: std::time::Duration) {
        self.clock.block(blocked);
        let status = self.status.get().expect("it is known before any hook").clone();
        std::thread::spawn(move || status.watch_hooks()).join().expect("no panic");
    }
}

impl Handler for Blocking {
    type Input = RawInput;

    async fn arrange(&self, _: &Window<RawInput>, _: &Context) -> HookResult<Vec<Task>> {
        Ok(Vec::new())
    }

    async fn on_ready(&self, _: &Context) -> HookResult<()> {
        self.enter(Hook::OnReady);
        Ok(())
    }

    async fn on_assign(&self, _: &[PartitionId], _: &Context) -> HookResult<()> {
        self.enter(Hook::OnAssign);
        Ok(())
    }

    async fn on_revoke(&self, _: &[PartitionId], _: &Context) -> HookResult<()> {
        self.enter(Hook::OnRevoke);
        Ok(())
    }
}

/// Returns a worker in which this hook has blocked, for the partitions 0 and 1 if it is about some.
async fn blocked_in(hook: Hook) -> World {
    let clock = BlockedClock::default();
    let status = Arc::<OnceLock<EngineStatus>>::default();
    let handler = Blocking { hook, clock: clock.clone(), status: Arc::clone(&status) };
    let setup = Setup { clock: Arc::new(clock), status, ..Setup::of(handler) };
    let world = setup.config(|config| config.stall_after = SECOND * 60).try_start().await;
    let world = world.expect("all parts connect");
    world.until("the source has started", |w| w.status.since_polled().is_some()).await;
    let both = [partition(0), partition(1)];
    world.source.assign(&both);
    world.until_seen("Assigned", 2).await;
    world.source.revoke(&both).await;
    world
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_hook_of_the_worker_that_blocks_is_named_with_its_partitions_and_its_end_is_told() {
    for (hook, has_partitions) in
        [(Hook::OnReady, false), (Hook::OnAssign, true), (Hook::OnRevoke, true)]
    {
        let world = blocked_in(hook).await;
        world.status.watch_hooks();
        let told = world.seen.named("CallBlocked");
        let [told] = &told[..] else { panic!("{hook}: {world:?}") };
        let names = |text: &str| told.text.contains(text);
        assert!(names(&format!("name: \"{hook}\"")), "{}", told.text);
        assert_eq!(names(&format!("{:?}", partition(1))), has_partitions, "{}", told.text);
        assert!(names("keeps_ready: false"), "{}", told.text);
        world.until_seen("CallWentOn", 1).await;
        world.finish().await;
    }
}

/// An observer that is slow to hear of a failed partition: until what follows has been heard, or it is
/// clear that this waits.
struct SlowToHear {
    seen: RecordingObserver,
    failing: Sender<()>,
    followed: (Sender<()>, Mutex<Receiver<()>>),
}

impl Observer for SlowToHear {
    fn observe(&self, event: &Event<'_>) {
        let (tell, hear) = &self.followed;
        if matches!(event, Event::PartitionFailed { .. }) {
            self.failing.send(()).expect("the hook waits for it");
            let heard = hear.lock().expect("no panic").recv_timeout(SECOND / 2);
            assert_eq!(
                heard,
                Err(RecvTimeoutError::Timeout),
                "it was told of as failed after that"
            );
        }
        self.seen.observe(event);
        if matches!(event, Event::PartitionRecovered { .. } | Event::Lost { .. }) {
            tell.send(()).expect("it is received, or kept");
        }
    }
}

/// Lets a hook go on just when the other thread tells that it blocks, and has its partition be lost
/// before if asked to. Answers what was told of the partition, in order.
async fn told_while_it_goes_on(is_lost: bool) -> Vec<String> {
    let clock = BlockedClock::default();
    let (failing, is_failing) = channel();
    let (tell, hear) = channel();
    let watchdog = Arc::new(Mutex::new(None));
    let setup = Setup::new(TestHandler::new());
    let (blocked, source, status) =
        (clock.clone(), setup.source.clone(), Arc::clone(&setup.status));
    let (keep, is_failing) = (Arc::clone(&watchdog), Mutex::new(is_failing));
    let handler = TestHandler::new().with_task_complete(move |_, _| {
        blocked.block(SECOND * 70);
        let status = status.get().expect("it is known before any hook").clone();
        if is_lost {
            source.lose(&[partition(0)]);
        }
        let look = std::thread::spawn(move || status.watch_hooks());
        *keep.lock().expect("no panic") = Some(look);
        is_failing.lock().expect("no panic").recv().expect("the other thread tells of this hook");
        Ok(Outputs::new())
    });
    let observer =
        SlowToHear { seen: setup.seen.clone(), failing, followed: (tell, Mutex::new(hear)) };
    let (observer, clock) = (Some(Arc::new(observer) as Arc<dyn Observer>), Arc::new(clock));
    let setup = Setup { handler, observer, clock, ..setup };
    let world = setup.config(|config| config.stall_after = SECOND * 60).start(&["a"]).await;
    let last = if is_lost { "Lost" } else { "PartitionRecovered" };
    world.until_seen(last, 1).await;
    let watchdog = watchdog.lock().expect("no panic").take().expect("the hook was called");
    watchdog.join().expect("the observer did not panic");
    let states = ["PartitionFailed", "PartitionRecovered", "Lost"];
    world.seen.names().into_iter().filter(|name| states.contains(&name.as_str())).collect()
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_on_or_is_lost_is_not_called_stalled_after_that() {
    assert_eq!(told_while_it_goes_on(false).await, ["PartitionFailed", "PartitionRecovered"]);
    assert_eq!(told_while_it_goes_on(true).await, ["PartitionFailed", "Lost"]);
}
