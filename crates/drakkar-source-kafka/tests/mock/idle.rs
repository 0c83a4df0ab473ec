//! What the source costs when nothing happens, and how soon it wakes.

use crate::support::{OnRevoke, PLENTY, Told, World, numbers};
use std::time::{Duration, Instant};

/// Returns the CPU time of this process's threads of that name, from `/proc`.
fn cpu_time_of(thread_name: &str) -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("proc") {
        let Ok(stat) = std::fs::read_to_string(task.expect("a task").path().join("stat")) else {
            continue;
        };
        let (before, after) = stat.rsplit_once(") ").expect("a name in brackets");
        if before.ends_with(&format!("({thread_name}")) {
            let fields: Vec<_> = after.split(' ').collect();
            ticks += fields[11].parse::<u64>().expect("utime");
            ticks += fields[12].parse::<u64>().expect("stime");
        }
    }
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

#[test]
fn an_idle_source_hardly_costs_anything() {
    let world = World::new(64);
    let member = world.start(OnRevoke::Answer);
    member.take(64, PLENTY);
    member.engine.wait_for_sweeps(5);
    let before = cpu_time_of("drakkar-source");
    let began = Instant::now();
    member.engine.wait_for_sweeps(20);
    // Threads of tests that run beside this one have the same name and ended meanwhile or work.
    let used = cpu_time_of("drakkar-source").saturating_sub(before);
    assert!(used < began.elapsed() / 4, "{used:?} of {:?}", began.elapsed());
    member.close();
}

#[test]
fn a_message_is_handed_over_soon_after_it_was_produced() {
    let world = World::new(1);
    let member = world.start(OnRevoke::Answer);
    member.take(1, PLENTY);
    let mut delays = Vec::new();
    for number in 0..50 {
        let began = Instant::now();
        world.produce(0, numbers(number..number + 1));
        let arrived = member.engine.wait_for("message", |told| match told.last() {
            Some(Told::Messages(_, batch, at)) => {
                let is_it = batch.last().is_some_and(|m| m.offset.get() == number as i64);
                is_it.then_some(*at)
            }
            _ => None,
        });
        delays.push(arrived.saturating_duration_since(began));
    }
    delays.sort();
    // The mock answers an empty fetch only after 5 ms; a poll every 100 ms would show.
    assert!(delays[25] < Duration::from_millis(50), "{delays:?}");
    member.close();
}
