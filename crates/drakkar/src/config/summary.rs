//! The configuration on one line.

use super::compiled;
use super::settings::Config;
use serde_json::Value;

pub(super) fn summary_line(config: &Config, worker: &str) -> String {
    let text = |path: &str| config.get(path).and_then(Value::as_str).unwrap_or_default();
    let shown = |path: &str| config.get(path).map(number).unwrap_or_default();
    let worker = if worker.is_empty() { "?" } else { worker };
    let who = match config.cluster_name() {
        "" => worker.to_owned(),
        cluster => format!("{worker}/{cluster}"),
    };
    let dlq = match text("dlq.topic") {
        "" => "on",
        topic => topic,
    };
    format!(
        "[{who}] topic={} group={} exec={}w/{}win/{}poll retries={}/{}s debug={} cache={} \
         metrics={} dlq={dlq} sinks=[{}] log={}",
        text("kafka.source_topic"),
        text("kafka.consumer_group"),
        shown("executor.max_executors"),
        shown("executor.window_size"),
        shown("kafka.max_poll_records"),
        shown("executor.max_retries"),
        shown("executor.task_timeout_seconds"),
        debug(config),
        cache(config),
        metrics(config),
        sinks(config),
        text("logging.level"),
    )
}

fn is_on(config: &Config, path: &str) -> bool {
    config.get(path) == Some(&Value::Bool(true))
}

fn debug(config: &Config) -> String {
    match config.get("debug.port") {
        Some(port) if compiled::is_debug_compiled() && is_on(config, "debug.enabled") => {
            format!("on:{port}")
        }
        _ => "off".to_owned(),
    }
}

fn cache(config: &Config) -> String {
    if !compiled::is_cache_compiled() || !is_on(config, "cache.enabled") {
        return "off".to_owned();
    }
    cache_details(config)
}

fn cache_details(config: &Config) -> String {
    let seconds = |path: &str| config.get(path).map(number).unwrap_or_default();
    let sync = match is_on(config, "cache.peer_sync.enabled") {
        true => format!("{}s", seconds("cache.peer_sync.interval_seconds")),
        false => "off".to_owned(),
    };
    let max = match config.get("cache.max_memory_entries") {
        Some(Value::Number(max)) => format!("/max={max}"),
        _ => String::new(),
    };
    format!(
        "on:f={}s/s={sync}/c={}s{max}",
        seconds("cache.flush_interval_seconds"),
        seconds("cache.cleanup_interval_seconds"),
    )
}

fn metrics(config: &Config) -> String {
    let settings = config.metrics();
    if settings.enabled { settings.port.to_string() } else { "off".to_owned() }
}

fn sinks(config: &Config) -> String {
    let mut types: Vec<(&str, Vec<&str>)> = Vec::new();
    for (kind, name) in config.sinks() {
        match types.last_mut() {
            Some((last, names)) if *last == kind => names.push(name),
            _ => types.push((kind, vec![name])),
        }
    }
    if types.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = types
        .iter()
        .map(|(kind, names)| format!("{}:{}", abbreviation(kind), names.join(",")))
        .collect();
    shown.join(" ")
}

fn abbreviation(kind: &str) -> &str {
    match kind {
        "kafka" => "kf",
        "postgres" => "pg",
        "mongo" => "mg",
        "redis" => "rd",
        "filesystem" => "fs",
        kind => kind,
    }
}

/// Writes a number without trailing zeros: 3.0 as `3`, 0.5 as `0.5`.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => number.to_string(),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_yaml_str(text, []).expect("valid")
    }

    #[test]
    fn the_defaults_on_one_line() {
        assert_eq!(
            Config::default().summary_line(""),
            "[?] topic=input-events group=drakkar-workers exec=4w/100win/100poll retries=3/120s \
             debug=off cache=off metrics=9090 dlq=on sinks=[none] log=INFO"
        );
    }

    #[cfg(all(feature = "sink-kafka", feature = "sink-file"))]
    #[test]
    fn what_is_set_is_shown() {
        let config = config(
            "cluster_name: blue\n\
             metrics: {enabled: false}\n\
             dlq: {topic: dead}\n\
             logging: {level: debug}\n\
             sinks: {filesystem: {out: {base_path: /x}}, kafka: {b: {topic: t}, a: {topic: t}}}",
        );
        let line = config.summary_line("w1");
        assert!(line.starts_with("[w1/blue] "), "{line}");
        let end = "metrics=off dlq=dead sinks=[kf:a,b fs:out] log=debug";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn the_cache_is_shown_as_in_the_original() {
        let check = |text: &str, expect| assert_eq!(cache_details(&config(text)), expect);
        check("", "on:f=3s/s=30s/c=60s/max=10000");
        check(
            "cache: {flush_interval_seconds: 0.5, max_memory_entries: null, peer_sync: {enabled: no}}",
            "on:f=0.5s/s=off/c=60s",
        );
    }
}
