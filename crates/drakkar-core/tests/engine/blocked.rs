//! User code that blocks its thread is named by a thread outside of the runtime.

use crate::world::{BlockedClock, SECOND, Setup, World, partition};
use drakkar_api::{Context, Handler, Hook, HookResult, PartitionId, RawInput, Task, Window};
use drakkar_core::EngineStatus;
use std::sync::{Arc, OnceLock};

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
