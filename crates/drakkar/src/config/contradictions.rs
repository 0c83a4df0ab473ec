//! Settings that are each valid and do not fit together.
//!
//! Every check reads checked values; a value that has a problem of its own is missing there, and
//! the check is left out.

use super::settings::LogLevel;
use drakkar_api::Problems;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Reports all contradictions.
pub(super) fn check(root: &Map<String, Value>, problems: &mut Problems) {
    let settings = Settings(root);
    check_executor(&settings, problems);
    check_kafka(&settings, problems);
    check_dlq(&settings, problems);
    check_metrics(&settings, problems);
    check_logging(&settings, problems);
    check_cache(&settings, problems);
    check_postgres(&settings, problems);
    check_http(&settings, problems);
}

struct Settings<'a>(&'a Map<String, Value>);

impl<'a> Settings<'a> {
    fn get(&self, section: &str, key: &str) -> Option<&'a Value> {
        self.0.get(section)?.get(key)
    }

    fn int(&self, section: &str, key: &str) -> Option<i64> {
        self.get(section, key)?.as_i64()
    }

    fn text(&self, section: &str, key: &str) -> Option<&'a str> {
        self.get(section, key)?.as_str()
    }

    fn instances(&self, kind: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.get("sinks", kind).and_then(Value::as_object).into_iter().flatten()
    }
}

fn check_executor(settings: &Settings<'_>, problems: &mut Problems) {
    let low = settings.int("executor", "backpressure_low_multiplier");
    let high = settings.int("executor", "backpressure_high_multiplier");
    if let (Some(low), Some(high)) = (low, high)
        && low >= high
    {
        problems.push(
            "executor.backpressure_low_multiplier",
            format!(
                "must be lower than executor.backpressure_high_multiplier, found {low} and {high}; \
                 such as 4 and 32"
            ),
        );
    }
}

fn check_kafka(settings: &Settings<'_>, problems: &mut Problems) {
    // With the newer protocol the broker decides about these two.
    let classic = settings.text("kafka", "group_protocol") != Some("consumer");
    let heartbeat = settings.int("kafka", "heartbeat_interval_ms").filter(|_| classic);
    let session = settings.int("kafka", "session_timeout_ms").filter(|_| classic);
    let poll = settings.int("kafka", "max_poll_interval_ms");
    let drain = settings.int("executor", "drain_timeout_seconds");
    if let (Some(heartbeat), Some(session)) = (heartbeat, session)
        && heartbeat >= session
    {
        problems.push(
            "kafka.heartbeat_interval_ms",
            format!(
                "must be lower than kafka.session_timeout_ms, found {heartbeat} and {session}; a \
                 third of it is usual"
            ),
        );
    }
    if let (Some(session), Some(poll)) = (session, poll)
        && session > poll
    {
        problems.push(
            "kafka.session_timeout_ms",
            format!("must not exceed kafka.max_poll_interval_ms, found {session} and {poll}"),
        );
    }
    if let (Some(drain), Some(poll)) = (drain, poll)
        && drain.saturating_mul(1000) >= poll
    {
        problems.push(
            "executor.drain_timeout_seconds",
            format!(
                "must be shorter than kafka.max_poll_interval_ms, else the group throws the worker \
                 out while it drains; found {drain} s and {poll} ms"
            ),
        );
    }
}

fn check_dlq(settings: &Settings<'_>, problems: &mut Problems) {
    let topic = settings.text("dlq", "topic");
    let source = settings.text("kafka", "source_topic");
    let brokers = settings.text("dlq", "brokers");
    let same_cluster = brokers == Some("") || brokers == settings.text("kafka", "brokers");
    if same_cluster && topic.is_some() && topic == source {
        let message = "must not be the source topic, else dead letters come back as messages";
        problems.push("dlq.topic", message);
    }
}

fn check_metrics(settings: &Settings<'_>, problems: &mut Problems) {
    if let Some(host) = settings.text("metrics", "host")
        && host.parse::<IpAddr>().is_err()
    {
        let message = format!("must be an address such as 0.0.0.0 or 127.0.0.1, found \"{host}\"");
        problems.push("metrics.host", message);
    }
}

fn check_logging(settings: &Settings<'_>, problems: &mut Problems) {
    if let Some(level) = settings.text("logging", "level")
        && LogLevel::parse(level).is_none()
    {
        let valid = LogLevel::NAMES.join(", ");
        problems.push("logging.level", format!("must be one of {valid}, found \"{level}\""));
    }
    if let Some(output) = settings.text("logging", "output")
        && let Err(message) = crate::logging::output::Output::parse(output)
    {
        problems.push("logging.output", message);
    }
}

fn check_cache(settings: &Settings<'_>, problems: &mut Problems) {
    let Some(sync) = settings.get("cache", "peer_sync") else { return };
    let number = |key| sync.get(key).and_then(Value::as_f64);
    if let (Some(deadline), Some(interval)) =
        (number("cycle_deadline_seconds"), number("interval_seconds"))
        && deadline >= interval
    {
        problems.push(
            "cache.peer_sync.cycle_deadline_seconds",
            format!("must be lower than interval_seconds, found {deadline} and {interval}"),
        );
    }
}

fn check_postgres(settings: &Settings<'_>, problems: &mut Problems) {
    for (name, sink) in settings.instances("postgres") {
        let number = |key| sink.get(key).and_then(Value::as_i64);
        if let (Some(min), Some(max)) = (number("pool_min"), number("pool_max"))
            && min > max
        {
            problems.push(
                format!("sinks.postgres.{name}.pool_min"),
                format!("must not exceed pool_max, found {min} and {max}"),
            );
        }
    }
}

fn check_http(settings: &Settings<'_>, problems: &mut Problems) {
    for (name, sink) in settings.instances("http") {
        if let Some(url) = sink.get("url").and_then(Value::as_str)
            && let Err(message) = check_http_url(url)
        {
            problems.push(format!("sinks.http.{name}.url"), message);
        }
    }
}

/// Checks the form of an address. The sink itself checks the address that a name resolves to.
fn check_http_url(url: &str) -> Result<(), &'static str> {
    const METADATA_HOSTS: [&str; 5] = [
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "metadata.google.internal",
        "metadata.packet.net",
    ];
    let lower = url.to_ascii_lowercase();
    let rest = lower
        .strip_prefix("http://")
        .or_else(|| lower.strip_prefix("https://"))
        .ok_or("must begin with http:// or https://, such as http://localhost:8080/results")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if name.is_empty() {
        return Err("must name a host, such as http://localhost:8080/results");
    }
    if METADATA_HOSTS.contains(&name.trim_end_matches('.')) {
        return Err("must not be the address of a cloud metadata service");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_group_protocol_leaves_times_to_the_broker() {
        let count = |protocol: &str| {
            let kafka = serde_json::json!({
                "group_protocol": protocol,
                "heartbeat_interval_ms": 50_000,
                "session_timeout_ms": 45_000,
            });
            let mut problems = Problems::new();
            check(&Map::from_iter([("kafka".to_owned(), kafka)]), &mut problems);
            problems.iter().count()
        };
        assert_eq!((count("classic"), count("consumer")), (1, 0));
    }

    #[test]
    fn addresses_of_http_sinks_are_checked() {
        let check = |url, word: Option<&str>| match (check_http_url(url), word) {
            (Ok(()), None) => {}
            (Err(message), Some(word)) => assert!(message.contains(word), "{message}"),
            (outcome, _) => panic!("{url}: {outcome:?}"),
        };
        check("http://localhost:8080/x", None);
        check("HTTPS://u:p@10.0.0.1/x?y", None);
        check("http://[::1]:80/", None);
        check("ftp://host/", Some("http://"));
        check("host/x", Some("http://"));
        check("http:///x", Some("host"));
        check("http://169.254.169.254/latest", Some("metadata"));
        check("http://x@Metadata.Google.Internal.:80/", Some("metadata"));
    }
}
