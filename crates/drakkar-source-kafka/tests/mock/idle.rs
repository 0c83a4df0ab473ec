//! What the source costs when nothing happens, and how soon it wakes.

use crate::support::{OnRevoke, PLENTY, Told, World, numbers};
use std::time::{Duration, Instant};

/// Returns the CPU time of a thread of this process, from `/proc`.
fn cpu_time_of(thread: &str) -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat")).expect("a living thread");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<_> = fields.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND)
}

#[test]
fn an_idle_source_hardly_costs_anything() {
    let world = World::new(64);
    let member = world.start(OnRevoke::Answer);
    member.take(64, PLENTY);
    member.engine.wait_for_sweeps(5);
    let thread = member.engine.source_thread();
    let before = cpu_time_of(&thread);
    let began = Instant::now();
    member.engine.wait_for_sweeps(20);
    let used = cpu_time_of(&thread).saturating_sub(before);
    assert!(used < began.elapsed() / 20, "{used:?} of {:?}", began.elapsed());
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
    // The mock answers an empty fetch only after 5 ms. With a poll every 100 ms all would take that long,
    // as each begins right after one; a busy machine delays most of them, but not all.
    assert!(delays[5] < Duration::from_millis(50), "{delays:?}");
    member.close();
}
