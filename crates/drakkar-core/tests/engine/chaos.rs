//! Everything at once, from seeds: faults of sinks, tasks and commits while partitions come and go;
//! then the faults end, and nothing may be missing.

use crate::world::{SECOND, Setup, World, input, partition, record};
use drakkar_api::{BatchLimits, DeliveryAction, ErrorAction, Message, Outputs, RawInput, Task};
use drakkar_core::{SendFailurePolicy, Thresholds};
use drakkar_testkit::{FakeExecutor, FaultPlan, FaultRates, Random, TestHandler};
use futures_util::FutureExt as _;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;

const PARTITIONS: i32 = 3;
const MESSAGES: usize = 60;

/// Which hooks a run has besides `on_task_complete`.
#[derive(Clone, Copy, Debug)]
struct Hooks {
    message: bool,
    window: bool,
}

/// Zero to two tasks per message, and for some messages one for the whole window.
fn arrange(window: &drakkar_api::Window<RawInput>) -> Vec<Task> {
    let tasks = |m: &Message<RawInput>| {
        let value = m.value().cloned().unwrap_or_default();
        let count = usize::try_from(m.offset().get() % 3).expect("small");
        let mut tasks = vec![Task::for_message(m).stdin(value.clone()); count];
        if has_shared_task(m.offset().get()) {
            let all = Task::for_offsets(window.messages().map(Message::offset));
            tasks.push(all.stdin(format!("all {}", String::from_utf8_lossy(&value))));
        }
        tasks
    };
    window.messages().flat_map(tasks).collect()
}

fn has_shared_task(offset: i64) -> bool {
    offset % 7 == 0
}

/// What the replacement of a task with this input is given.
fn replaced(input: &str) -> String {
    format!("replaced {}", input.trim_start_matches("replaced "))
}

fn second(output: &str) -> String {
    format!("second {output}")
}

fn handler(hooks: Hooks) -> TestHandler {
    let mut handler = TestHandler::new()
        .with_arrange(|window, _| match window.id().get() % 7 {
            3 if window.len() > 1 => Err("taken message by message".into()),
            _ => Ok(arrange(window)),
        })
        .with_task_complete(|done, _| {
            let second = second(&done.stdout_text());
            Ok(Outputs::new().with(record(done.stdout())).with(record(second)))
        })
        .with_error(|failure, _| {
            Ok(match failure.task.source_offsets[0].get() % 4 {
                0 => ErrorAction::Retry,
                1 => ErrorAction::RetryAfter(SECOND),
                2 => ErrorAction::Replace(vec![
                    Task::for_offsets(failure.task.source_offsets.clone())
                        .stdin(replaced(&input(&failure.task))),
                ]),
                _ => ErrorAction::Policy,
            })
        })
        .with_delivery_error(|failure, _| {
            Ok(match failure.payloads.len() % 2 {
                0 => DeliveryAction::Retry,
                _ => DeliveryAction::DeadLetter,
            })
        });
    if hooks.message {
        handler = handler.with_message_complete(|group, _| {
            let text = format!(
                "message {}:{}",
                group.message.partition().partition(),
                group.message.offset()
            );
            Ok(Outputs::new().with(record(text)))
        });
    }
    if hooks.window {
        handler = handler.with_window_complete(|window, _| {
            let mut text = format!("window {}", window.partition.partition());
            for message in &window.messages {
                write!(text, " {}", message.offset()).expect("a string takes all");
            }
            Ok(Outputs::new().with(record(text)))
        });
    }
    handler
}

fn rough() -> FaultRates {
    FaultRates { deliver_hangs: 20, task_hangs: 20, ..FaultRates::rough() }
}

async fn world(plan: &FaultPlan, hooks: Hooks) -> World {
    let limits = BatchLimits {
        items_max: 7,
        concurrency: 3,
        attempt_timeout: SECOND * 3,
        ..BatchLimits::default()
    };
    let setup = Setup::new(handler(hooks)).config(|config| {
        config.seed = plan.seed();
        config.window_size = 5;
        config.buffer_messages = 12;
        config.ahead_max = 40;
        config.load_count = Thresholds { pause_at: 30, resume_at: 10 };
        config.drain_timeout = SECOND * 4;
        config.on_send_failure = SendFailurePolicy::Hold;
    });
    let setup = setup
        .sink(|sink| sink.with_limits(limits).with_faults(plan))
        .letters(|letters| letters.with_limits(limits).with_faults(plan));
    let source = setup.source.clone().with_faults(plan);
    let executor = FakeExecutor::with_faults(4, plan).task_timeout(SECOND * 6);
    let setup = Setup { source, executor, ..setup };
    let world = setup.try_start().await.expect("all parts connect");
    world.until("the source has started", |w| w.status.since_polled().is_some()).await;
    world
}

/// Gives, revokes and takes away partitions for a while.
async fn rebalance(world: &World, random: &mut Random) {
    for number in 0..PARTITIONS {
        world.source.assign(&[partition(number)]);
    }
    for _ in 0..random.within(3..=12) {
        tokio::time::sleep(random.duration(SECOND * 5)).await;
        let some: Vec<_> = (0..PARTITIONS).filter(|_| random.chance(400)).map(partition).collect();
        let owned: Vec<_> =
            some.iter().filter(|id| world.source.epoch(id).is_some()).cloned().collect();
        let free: Vec<_> = some.into_iter().filter(|id| world.source.epoch(id).is_none()).collect();
        if random.chance(500) {
            assert!(world.source.revoke(&owned).await, "a drain ends in time");
        } else {
            world.source.lose(&owned);
        }
        world.source.assign(&free);
    }
    for number in 0..PARTITIONS {
        if world.source.epoch(&partition(number)).is_none() {
            world.source.assign(&[partition(number)]);
        }
    }
}

/// What is there at the end: in the sink, or as a payload in the dead letters.
fn kept(world: &World) -> BTreeSet<String> {
    let letters = world.all_letters().into_iter();
    let payloads = letters.filter(|letter| letter.header("kind") == "payload");
    let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
    let payloads = payloads.map(|letter| text(letter.value.expect("no tombstones")));
    world.sent().into_iter().chain(payloads).collect()
}

/// Checks that each message left all that it must leave.
fn check(world: &World, hooks: Hooks) {
    let kept = kept(world);
    let letters = world.all_letters();
    let lettered: BTreeSet<_> = letters
        .iter()
        .filter(|letter| letter.header("kind") == "message")
        .map(|letter| (letter.header("source-partition"), letter.header("source-offset")))
        .collect();
    let in_windows: BTreeSet<(&str, &str)> = kept
        .iter()
        .filter_map(|text| text.strip_prefix("window ")?.split_once(' '))
        .flat_map(|(number, offsets)| offsets.split(' ').map(move |offset| (number, offset)))
        .collect();
    for number in 0..PARTITIONS {
        for message in world.broker.messages(&partition(number)) {
            let offset = message.offset.get();
            let (number, at) = (number.to_string(), offset.to_string());
            let place = (number.as_str(), at.as_str());
            if lettered.contains(&place) {
                continue;
            }
            if hooks.message {
                let expect = format!("message {number}:{offset}");
                assert!(kept.contains(&expect), "{expect} is nowhere");
            }
            let value = format!("value {number}:{offset}");
            let own = (offset % 3 != 0).then(|| value.clone());
            let shared = has_shared_task(offset).then(|| format!("all {value}"));
            // A window without tasks is not completed by its hook.
            if hooks.window && (own.is_some() || shared.is_some()) {
                assert!(in_windows.contains(&place), "{place:?} is in no window's output");
            }
            for input in own.into_iter().chain(shared) {
                let is_there = |input: &str| kept.contains(input) && kept.contains(&second(input));
                assert!(is_there(&input) || is_there(&replaced(&input)), "{input} is nowhere");
            }
        }
    }
}

async fn run(seed: u64) -> Vec<String> {
    let plan = FaultPlan::new(seed, rough());
    let mut random = plan.random("script");
    let hooks = Hooks { message: random.chance(500), window: random.chance(500) };
    let world = world(&plan, hooks).await;
    for number in 0..PARTITIONS {
        for _ in 0..MESSAGES {
            let offset = world.broker.end(&partition(number));
            world.produce(number, &[&format!("value {number}:{offset}")]);
            world.broker.leave_gap(&partition(number), random.below(2));
        }
    }
    rebalance(&world, &mut random).await;
    plan.heal();
    let last = |w: &World, number| {
        w.broker.messages(&partition(number)).last().map(|message| message.offset.next().get())
    };
    world
        .until("everything is committed", |w| {
            (0..PARTITIONS).all(|number| w.committed(number) == last(w, number))
        })
        .await;
    check(&world, hooks);
    let sent = world.sent();
    let failed = world.seen.named("PartitionFailed");
    // A blocked partition is stalled, and says so; nothing else may fail one.
    assert!(failed.iter().all(|event| event.text.contains("\"stalled: ")), "{failed:?}");
    world.check_account();
    world.seen.clear();
    world.finish().await;
    sent
}

// Promise: DL-1, DL-3, WM-1, WM-2, RB-1, RB-2, FT-1
#[tokio::test(start_paused = true)]
async fn nothing_is_lost_whatever_happens() {
    for seed in 0..25 {
        let outcome = AssertUnwindSafe(run(seed)).catch_unwind().await;
        assert!(outcome.is_ok(), "seed {seed} failed; what was seen stands above");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_does_the_same() {
    assert_eq!(run(7).await, run(7).await);
}
