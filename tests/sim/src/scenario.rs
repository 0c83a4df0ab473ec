//! Everything that a seed decides before the world begins: settings, hooks, and how often what goes
//! wrong.

use crate::handler::ROOMY;
use crate::recipe::{Cookbook, size};
use drakkar_api::BatchLimits;
use drakkar_core::{
    Backoff, CommitPolicy, EngineConfig, FailureAction, FailurePolicy, ParsePolicy,
    SendFailurePolicy, StallResponse, Thresholds,
};
use drakkar_testkit::Random;
use std::time::Duration;

/// One world, as it is drawn from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) partitions: i32,
    /// Messages of each partition at the beginning, and those that come later.
    pub(crate) messages: u64,
    pub(crate) messages_later: u64,
    pub(crate) gaps: u16,
    pub(crate) workers: usize,
    pub(crate) steps: u64,
    pub(crate) config: EngineConfig,
    pub(crate) slots: usize,
    pub(crate) task_timeout: Duration,
    /// What each run that succeeds puts out.
    pub(crate) output_bytes: usize,
    pub(crate) hand_over_max: usize,
    pub(crate) limits: BatchLimits,
    pub(crate) letter_limits: BatchLimits,
    pub(crate) repeats_are_harmless: bool,
    pub(crate) hooks: Hooks,
    pub(crate) cookbook: Cookbook,
    pub(crate) rates: Rates,
}

/// Which hooks the handler has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hooks {
    pub(crate) task: bool,
    pub(crate) message: bool,
    pub(crate) window: bool,
}

/// How often each fault strikes, in thousandths, and how long things take at most. Zero is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) delivery: DeliveryRates,
    pub(crate) letters: DeliveryRates,
    pub(crate) task_fails: u16,
    pub(crate) task_hangs: u16,
    pub(crate) task_longest: Duration,
    /// The report of a run comes late.
    pub(crate) report_late: u16,
    pub(crate) report_longest: Duration,
    pub(crate) commit_fails: u16,
    pub(crate) commit_longest: Duration,
    pub(crate) hook_errs: u16,
    pub(crate) hook_panics: u16,
    pub(crate) hook_slow: u16,
    pub(crate) hook_longest: Duration,
    pub(crate) arrange_fails: u16,
    pub(crate) arrange_refusable: u16,
    pub(crate) decode_panics: u16,
    pub(crate) label_panics: u16,
    pub(crate) priority_panics: u16,
    pub(crate) unroutable: u16,
}

/// Faults of one kind of sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeliveryRates {
    pub(crate) not_applied: u16,
    pub(crate) unknown: u16,
    pub(crate) rejected: u16,
    pub(crate) hangs: u16,
    /// A connection that breaks for all items of a call.
    pub(crate) disconnects: u16,
    pub(crate) longest: Duration,
}

impl Scenario {
    /// Draws the world of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::fork(seed, "scenario");
        let hooks = Hooks {
            task: random.chance(850),
            message: random.chance(500),
            window: random.chance(350),
        };
        let config = draw_config(&mut random, seed);
        let repeats_are_harmless = random.chance(500);
        let mut scenario = Self {
            seed,
            partitions: i32::try_from(random.within(1..=4)).unwrap_or(1),
            messages: random.within(5..=30),
            messages_later: random.within(0..=15),
            gaps: often(&mut random, 400),
            workers: if random.chance(700) { 2 } else { 1 },
            steps: random.within(3..=14),
            slots: size(random.within(1..=5)),
            task_timeout: Duration::from_secs(random.within(1..=8)),
            output_bytes: 4,
            hand_over_max: size(random.within(1..=20)),
            limits: draw_limits(&mut random),
            letter_limits: draw_limits(&mut random),
            repeats_are_harmless,
            hooks,
            cookbook: draw_cookbook(&mut random, seed),
            rates: draw_rates(&mut random),
            config,
        };
        enlarge_outputs(&mut scenario);
        repeat_parses(&mut scenario);
        scenario
    }
}

/// Nothing in half of the worlds, else a rate up to `most`.
fn often(random: &mut Random, most: u16) -> u16 {
    let rate = random.below(u64::from(most)) + 1;
    if random.chance(500) { u16::try_from(rate).unwrap_or(most) } else { 0 }
}

fn millis(random: &mut Random, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.within(range))
}

fn draw_config(random: &mut Random, seed: u64) -> EngineConfig {
    let mut config = EngineConfig::default();
    config.seed = seed;
    config.window_size = size(random.within(1..=8));
    config.task_retries_max = u32::try_from(random.within(0..=3)).unwrap_or(0);
    config.drain_timeout = Duration::from_secs(random.within(1..=8));
    let pause_at = size(random.within(2..=40));
    let resume_at = size(random.below(pause_at as u64 - 1)) + 1;
    config.load_count = Thresholds { pause_at, resume_at };
    if random.chance(300) {
        let pause_at = size(random.within(300..=4000));
        config.load_bytes = Thresholds { pause_at, resume_at: pause_at / 2 };
    }
    if seed.is_multiple_of(5) {
        let pause_at = size(seed / 5 % 30 + 2);
        config.load_payloads = Thresholds { pause_at, resume_at: pause_at / 2 };
    }
    config.window_tasks_max = match random.chance(300) {
        true => size(random.within(4..=12)),
        false => ROOMY,
    };
    config.replacements_max = u32::try_from(random.within(0..=4)).unwrap_or(0);
    config.open_windows_max = size(random.within(1..=6));
    config.on_parse_error = *random
        .pick(&[ParsePolicy::Pass, ParsePolicy::DeadLetter, ParsePolicy::Skip])
        .unwrap_or(&ParsePolicy::Pass);
    config.ahead_max = size(random.within(3..=60));
    config.stall_after = Duration::from_secs(random.within(3..=60));
    config.buffer_messages = size(random.within(1..=24));
    if random.chance(300) {
        config.buffer_bytes = size(random.within(100..=2000));
    }
    config.commit = CommitPolicy {
        interval: millis(random, 50..=1000),
        offsets_max: size(random.within(2..=40)),
    };
    config.on_failure.arrange_error.attempts_max = u32::try_from(random.within(1..=4)).unwrap_or(1);
    config.on_failure.arrange_error.backoff = draw_backoff(random);
    config.delivery_retries_max = u32::try_from(random.within(0..=3)).unwrap_or(0);
    config.delivery_backoff = draw_backoff(random);
    config.handler_delivery_retries_max = u32::try_from(random.within(0..=2)).unwrap_or(0);
    config.on_send_failure = match random.chance(600) {
        true => SendFailurePolicy::Hold,
        false => SendFailurePolicy::Drop,
    };
    draw_policies(&mut config, seed);
    config
}

/// In some worlds outputs are so large that few of them reach the mark of bytes, nothing else holds
/// windows back, and every run puts out the same, so that it can be told what is likely to come.
fn enlarge_outputs(scenario: &mut Scenario) {
    let mut random = Random::fork(scenario.seed, "outputs");
    if !random.chance(120) {
        return;
    }
    scenario.output_bytes = size(random.within(100..=500));
    let pause_at = scenario.output_bytes * size(random.within(3..=8));
    let config = &mut scenario.config;
    config.load_bytes = Thresholds { pause_at, resume_at: pause_at / 2 };
    config.load_count = Thresholds { pause_at: 100, resume_at: 50 };
    config.window_size = size(random.within(2..=4));
    config.open_windows_max = 6;
    config.window_tasks_max = ROOMY;
    scenario.messages = random.within(20..=30);
    scenario.cookbook.tasks_max = 3;
    scenario.cookbook.precomputed = 0;
    (scenario.rates.task_fails, scenario.rates.task_hangs) = (0, 0);
}

/// In some worlds a value that does not parse is decoded again, and many do not at first.
fn repeat_parses(scenario: &mut Scenario) {
    let mut random = Random::fork(scenario.seed, "parse errors");
    if !random.chance(80) {
        return;
    }
    let stops = if random.chance(250) { 400 } else { 0 };
    let config = &mut scenario.config;
    config.on_parse_error = ParsePolicy::Pass;
    config.on_failure.parse_error = Some(FailurePolicy {
        attempts_max: u32::try_from(random.within(1..=4)).unwrap_or(1),
        backoff: draw_backoff(&mut random),
        then: draw_action(&mut random, stops),
    });
    scenario.cookbook.unparsable = scenario.cookbook.unparsable.max(120);
}

/// In a third of the worlds not everything that fails goes to the dead letters at once, and in some
/// of these a failure may stop a worker.
fn draw_policies(config: &mut EngineConfig, seed: u64) {
    let mut random = Random::fork(seed, "policies");
    if !random.chance(330) {
        return;
    }
    let stops = if random.chance(350) { 200 } else { 0 };
    let policies = &mut config.on_failure;
    for policy in [
        &mut policies.exit_code,
        &mut policies.signal,
        &mut policies.timeout,
        &mut policies.spawn_failure,
        &mut policies.hook_error,
    ] {
        policy.attempts_max = u32::try_from(random.within(1..=4)).unwrap_or(1);
        policy.backoff = draw_backoff(&mut random);
        policy.then = draw_action(&mut random, stops);
    }
    policies.arrange_error.then = draw_action(&mut random, stops / 2);
    if random.chance(stops) {
        config.on_parse_error = ParsePolicy::Stop;
    }
    config.stall_response = random.pick(&STALL_RESPONSES).copied().unwrap_or_default();
}

/// What is drawn from. Killing is drawn most, since it needs a stall by a task that runs.
const STALL_RESPONSES: [StallResponse; 4] = [
    StallResponse::Warn,
    StallResponse::FailReady,
    StallResponse::KillTask,
    StallResponse::KillTask,
];

fn draw_action(random: &mut Random, stops: u16) -> FailureAction {
    match random.chance(stops) {
        true => FailureAction::Stop,
        false if random.chance(400) => FailureAction::Skip,
        false => FailureAction::DeadLetter,
    }
}

/// Returns whether some failure stops a worker.
pub(crate) fn may_stop(config: &mut EngineConfig) -> bool {
    policies_of(config).any(|policy| policy.then == FailureAction::Stop)
        || config.on_parse_error == ParsePolicy::Stop
}

/// Has no failure stop a worker any more, as an operator would who wants it to go on.
pub(crate) fn forbid_stops(config: &mut EngineConfig) {
    for policy in policies_of(config) {
        if policy.then == FailureAction::Stop {
            policy.then = FailureAction::DeadLetter;
        }
    }
    if config.on_parse_error == ParsePolicy::Stop {
        config.on_parse_error = ParsePolicy::DeadLetter;
    }
}

fn policies_of(config: &mut EngineConfig) -> impl Iterator<Item = &mut FailurePolicy> {
    let policies = &mut config.on_failure;
    [
        &mut policies.exit_code,
        &mut policies.signal,
        &mut policies.timeout,
        &mut policies.spawn_failure,
        &mut policies.output_over_limit,
        &mut policies.hook_error,
        &mut policies.arrange_error,
    ]
    .into_iter()
    .chain(&mut policies.parse_error)
}

fn draw_backoff(random: &mut Random) -> Backoff {
    let initial = millis(random, 10..=300);
    Backoff { initial, max: initial + millis(random, 0..=2000) }
}

fn draw_limits(random: &mut Random) -> BatchLimits {
    BatchLimits {
        items_max: size(random.within(1..=12)),
        bytes_max: size(random.within(100..=4000)),
        concurrency: size(random.within(1..=4)),
        item_bytes_max: None,
        attempt_timeout: millis(random, 300..=4000),
    }
}

fn draw_cookbook(random: &mut Random, seed: u64) -> Cookbook {
    Cookbook {
        seed,
        unparsable: often(random, 150),
        tombstones: often(random, 150),
        precomputed: often(random, 600),
        shared: often(random, 250),
        tasks_max: random.within(1..=3),
        filling_max: if random.chance(300) { 200 } else { 8 },
        priorities: if random.chance(300) { 3 } else { 1 },
    }
}

fn draw_delivery(random: &mut Random) -> DeliveryRates {
    DeliveryRates {
        not_applied: often(random, 200),
        unknown: often(random, 120),
        rejected: often(random, 50),
        hangs: often(random, 80),
        disconnects: often(random, 100),
        longest: millis(random, 0..=800),
    }
}

fn draw_rates(random: &mut Random) -> Rates {
    Rates {
        delivery: draw_delivery(random),
        letters: draw_delivery(random),
        task_fails: often(random, 350),
        task_hangs: often(random, 80),
        task_longest: millis(random, 0..=3000),
        report_late: often(random, 150),
        report_longest: millis(random, 10..=3000),
        commit_fails: often(random, 300),
        // In a few worlds a commit may take longer than a drain waits for it.
        commit_longest: if random.chance(80) {
            Duration::from_secs(12)
        } else {
            millis(random, 0..=600)
        },
        hook_errs: often(random, 80),
        hook_panics: often(random, 60),
        hook_slow: often(random, 250),
        hook_longest: millis(random, 100..=6000),
        arrange_fails: often(random, 350),
        arrange_refusable: often(random, 80),
        decode_panics: often(random, 40),
        label_panics: often(random, 40),
        priority_panics: often(random, 40),
        unroutable: often(random, 40),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_response_to_a_stall_is_drawn() {
        let responses = [StallResponse::Warn, StallResponse::FailReady, StallResponse::KillTask];
        let drawn_over = |before, seed| {
            let mut config = EngineConfig::default();
            config.stall_response = before;
            draw_policies(&mut config, seed);
            config.stall_response
        };
        for wanted in responses {
            // Drawn is what does not depend on what was there before.
            let is_drawn = |seed: &u64| responses.iter().all(|it| drawn_over(*it, *seed) == wanted);
            let seeds = (0..1000).filter(is_drawn).count();
            assert!(seeds > 50, "{wanted:?} is drawn in {seeds} of 1000 worlds");
        }
    }
}
