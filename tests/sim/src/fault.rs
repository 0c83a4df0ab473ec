//! The faults that can be planted in the engine, to show that the simulation finds them.
//!
//! Each stands in `drakkar-core` at the place of a decision, as `cfg!(drakkar_fault = "name")`, and is
//! compiled in only by `cargo xtask sim --prove`, one at a time.

use crate::promise::Promise;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name in the code of the engine.
    pub name: &'static str,
    /// The promise that it breaks. Where it breaks two at once, either may be seen first.
    pub breaks: &'static [Promise],
    /// Whether this program was built with it.
    pub is_planted: bool,
}

macro_rules! faults {
    ($($name:tt breaks $($promise:ident)+;)+) => {
        /// Every fault.
        pub const FAULTS: &[Fault] = &[
            $(Fault {
                name: $name,
                breaks: &[$(Promise::$promise),+],
                is_planted: cfg!(drakkar_fault = $name),
            }),+
        ];
    };
}

faults! {
    "task_outputs_not_awaited" breaks Dl1;
    "task_failure_forgotten" breaks Dl1;
    "stop_finishes_its_offset" breaks Dl1;
    "message_outputs_not_awaited" breaks Dl2;
    "window_holds_nothing" breaks Dl2;
    "window_hook_assumed" breaks Dl2;
    "retry_lost" breaks Dl3;
    "retry_repeats_confirmed" breaks Dl3;
    "unknown_repeated" breaks Dl3;
    "letter_forgotten_under_hold" breaks Dl4;
    "letter_without_value" breaks Dl4;
    "watermark_passes_open" breaks Wm1;
    "commit_goes_back" breaks Wm1;
    "two_commits_in_flight" breaks Wm2;
    "commits_not_coalesced" breaks Wm2;
    "commit_forgotten" breaks Wm2;
    "runs_outlive_assignment" breaks Rb1;
    "loss_taken_for_revoke" breaks Rb1 Rb2;
    "drain_waits_for_unstarted" breaks Rb1;
    "drain_waits_for_nothing" breaks Rb1;
    "drain_without_deadline" breaks Rb1;
    "drain_without_commit" breaks Rb1;
    "drain_finishes_the_unfinished" breaks Rb1;
    "lanes_not_fenced" breaks Rb2;
    "verdicts_of_any_epoch" breaks Rb2;
    "commits_of_any_epoch" breaks Rb1 Rb2;
    "staying_partitions_drained" breaks Rb3;
    "drain_stops_others" breaks Rb3;
    "hook_error_swallowed" breaks Ft1;
    "arrange_error_stops" breaks Ft1;
    "stall_not_told" breaks Ft1;
    "stalled_tasks_spared" breaks Ft1;
    "tasks_killed_at_once" breaks Ft1;
    "attempt_without_deadline" breaks Ft2;
    "backpressure_ignored" breaks Ft3;
    "load_leaks" breaks Ft3;
    "ahead_unbounded" breaks Ft3;
    "windows_unbounded" breaks Ft3;
    "windows_ignore_the_crowd" breaks Ft3;
    "forecast_ignored" breaks Ft3;
    "payloads_unbounded" breaks Ft3;
    "buffer_unbounded" breaks Ft3;
    "repeat_taken_in" breaks Contract;
}

/// Returns the fault that this program was built with.
pub fn planted() -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.is_planted)
}
