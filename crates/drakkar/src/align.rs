//! Start alignment: workers that are started together join the group together, so that partitions
//! move once.
//!
//! A worker waits `startup_min_wait_seconds`, then until the wall clock shows a multiple of
//! `startup_align_interval_seconds`.

use crate::config::Config;
use drakkar_api::{Clock, Timestamp};
use std::time::Duration;

/// Waits as the configuration says.
pub(crate) async fn wait(config: &Config, clock: &dyn Clock) {
    let kafka = config.section("kafka");
    if kafka.get("startup_align_enabled") != Some(&serde_json::Value::Bool(true)) {
        return;
    }
    let number = |key: &str| kafka.get(key).and_then(serde_json::Value::as_f64).unwrap_or_default();
    let min_wait = Duration::from_secs_f64(number("startup_min_wait_seconds").max(0.0));
    let interval = Duration::from_secs_f64(number("startup_align_interval_seconds").max(0.0));
    tracing::info!(
        category = "lifecycle",
        min_wait_seconds = min_wait.as_secs_f64(),
        interval_seconds = interval.as_secs_f64(),
        "startup_align_waiting"
    );
    tokio::time::sleep(min_wait).await;
    tokio::time::sleep(to_next_multiple(clock.wall(), interval)).await;
    tracing::info!(category = "lifecycle", "startup_align_done");
}

/// Returns the time until the wall clock shows a multiple of `interval`; zero if it does now.
fn to_next_multiple(now: Timestamp, interval: Duration) -> Duration {
    let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
    if interval == 0 {
        return Duration::ZERO;
    }
    let past = now.millis().rem_euclid(interval);
    let left = (interval - past) % interval;
    Duration::from_millis(left.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_on_a_multiple() {
        let check = |now, expect| {
            let wait = to_next_multiple(Timestamp::from_millis(now), Duration::from_secs(10));
            assert_eq!(wait, Duration::from_millis(expect), "{now}");
        };
        check(20_000, 0);
        check(20_001, 9_999);
        check(29_999, 1);
    }
}
