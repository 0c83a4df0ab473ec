//! The configuration as a whole: layers, problems, secrets and views.

use super::environment::Environment;
use super::load::load_from;
use super::settings::Draft;
use super::*;
use drakkar_core::SendFailurePolicy;
use serde_json::{Value, json};
use std::time::Duration;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_yaml_str(text, pairs)
}

/// Loads and answers the value at `path`.
fn value(text: &str, environment: &[(&str, &str)], path: &str) -> Value {
    let config = load(text, environment).unwrap_or_else(|error| panic!("{error}"));
    config.get(path).unwrap_or_else(|| panic!("nothing at {path}")).clone()
}

/// Loads and answers the problems as `path: message`.
fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match load(text, environment) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().map(ToString::to_string).collect(),
    }
}

/// Expects exactly one problem, of which the text has these pieces.
fn one_problem(text: &str, environment: &[(&str, &str)], pieces: &[&str]) {
    let found = problems(text, environment);
    assert_eq!(found.len(), 1, "{found:?}");
    for piece in pieces {
        assert!(found[0].contains(piece), "\"{piece}\" is missing in: {}", found[0]);
    }
}

#[test]
fn defaults_are_those_of_the_original() {
    let config = Config::default();
    for (path, expect) in [
        ("worker_name_env", json!("WORKER_ID")),
        ("kafka.brokers", json!("localhost:9092")),
        ("kafka.source_topic", json!("input-events")),
        ("kafka.consumer_group", json!("drakkar-workers")),
        ("kafka.startup_min_wait_seconds", json!(4.0)),
        ("executor.binary_path", Value::Null),
        ("executor.max_executors", json!(4)),
        ("executor.drain_timeout_seconds", json!(30)),
        ("sinks.kafka", json!({})),
        ("sinks.circuit_breaker.cooldown_seconds", json!(30.0)),
        ("metrics.port", json!(9090)),
        ("debug.db_dir", json!("/tmp")),
        ("cache.peer_sync.cycle_deadline_seconds", Value::Null),
    ] {
        assert_eq!(config.get(path), Some(&expect), "{path}");
    }
    assert_eq!(config.validate().map_err(|error| error.to_string()), Ok(()));
}

/// A file of the original with every setting that it had.
const ORIGINAL: &str = include_str!("../../tests/original.yaml");

#[test]
fn a_file_of_the_original_loads_unchanged() {
    let found = problems(ORIGINAL, &[]);
    // All values are accepted; only this build's missing sinks are named.
    for problem in &found {
        assert!(problem.contains("this build has no"), "{problem}");
    }
    let missing =
        ["sinks.postgres.main-db", "sinks.mongo.archive", "sinks.http.hook", "sinks.redis.live"];
    for path in missing {
        assert!(found.iter().any(|problem| problem.starts_with(path)), "{path}");
    }
}

#[cfg(all(feature = "sink-kafka", feature = "sink-file"))]
#[test]
fn a_file_of_the_original_means_what_it_says() {
    let absent = ["postgres", "mongo", "http", "redis"];
    let mut tree = super::yaml::to_json(&super::yaml::parse(ORIGINAL).expect("valid").into());
    for kind in absent {
        tree["sinks"].as_object_mut().expect("a map").remove(kind);
    }
    let config = load(&super::yaml::emit(&tree), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.get("executor.env.LANG"), Some(&json!("C.UTF-8")));
    assert_eq!(config.get("debug.auth_token"), Some(&json!("hunter2")));
    assert_eq!(config.get("sinks.filesystem.out.base_path"), Some(&json!("/var/lib/out")));
    assert_eq!(config.warnings().len(), 4, "{:?}", config.warnings());
    assert_eq!(config.sinks().collect::<Vec<_>>(), [("kafka", "results"), ("filesystem", "out")]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "\
kafka:
  brokerz: a:9092
  max_poll_records: 0
  heartbeat_interval_ms: 50000
executor:
  binary_path: 5
  max_executors: many
  backpressure_low_multiplier: 32
sinks:
  postgres:
    main: {dsn: 'postgres://u:hunter2@h/d', pool_min: 0}
  kafkaa: {}
logging: {level: loud, format: xml, output: '/var/{worker}.log'}
metrics: [9090]
extra: 1
";
    let found =
        problems(text, &[("DRAKKAR_EXECUTOR__WINDOW_SIZE", "ten"), ("DRAKKAR_KAFKA_BROKERS", "b")]);
    for (path, piece) in [
        ("extra", "unknown key"),
        ("kafka.brokerz", "did you mean \"brokers\"?"),
        ("kafka.max_poll_records", "found 0"),
        (
            "kafka.heartbeat_interval_ms",
            "lower than kafka.session_timeout_ms, found 50000 and 45000",
        ),
        ("executor.binary_path", "must be text, found 5; write binary_path: \"5\""),
        ("executor.max_executors", "must be a whole number, found \"many\""),
        ("executor.backpressure_low_multiplier", "found 32 and 32"),
        ("executor.window_size", "whole number such as 10 (set by DRAKKAR_EXECUTOR__WINDOW_SIZE)"),
        ("sinks.postgres.main.pool_min", "at least 1, found 0"),
        ("sinks.postgres.main", "enable the feature \"sink-postgres\""),
        ("sinks.kafkaa", "did you mean \"kafka\"?"),
        ("logging.level", "one of TRACE, DEBUG, INFO, WARN, ERROR, OFF, found \"loud\""),
        ("logging.format", "one of json, ecs, console, found \"xml\""),
        ("logging.output", "{worker_id}"),
        ("metrics", "must be a table of settings, found a list"),
        ("DRAKKAR_KAFKA_BROKERS", "did you mean DRAKKAR_KAFKA__BROKERS?"),
    ] {
        let prefix = format!("{path}: ");
        let hit =
            found.iter().any(|problem| problem.starts_with(&prefix) && problem.contains(piece));
        assert!(hit, "{path}: {piece} is missing in {found:#?}");
    }
    assert_eq!(found.len(), 16, "{found:#?}");
    let shown = load(text, &[]).expect_err("invalid").to_string();
    assert!(shown.starts_with("14 problems in the configuration\n  "), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn values_of_the_file_are_not_converted() {
    one_problem(
        "executor: {max_executors: \"8\"}",
        &[],
        &["write it without quotes, max_executors: 8"],
    );
    one_problem(
        "executor: {env: {A: 5}}",
        &[],
        &["executor.env.A", "must be text, found a number"],
    );
    one_problem("kafka: {consumer_group: true}", &[], &["write consumer_group: \"true\""]);
    one_problem("kafka: {consumer_group: }", &[], &["found nothing", "leave the key out"]);
    one_problem("metrics: {enabled: 1}", &[], &["must be true or false, found 1"]);
    one_problem("executor: {max_executors: 4.5}", &[], &["must be a whole number, found 4.5"]);
    one_problem(
        "debug: {expose_env_vars: A}",
        &[],
        &["must be a list, found text", "[\"a\", \"b\"]"],
    );
    one_problem("debug: {expose_env_vars: [A, 5]}", &[], &["debug.expose_env_vars[1]", "found 5"]);
    one_problem("cache: {flush_interval_seconds: 0}", &[], &["must be above 0", "found 0"]);
    assert_eq!(value("metrics: {enabled: off}", &[], "metrics.enabled"), json!(false));
    assert_eq!(
        value("cache: {flush_interval_seconds: 3}", &[], "cache.flush_interval_seconds"),
        3.0
    );
}

#[test]
fn a_section_with_nothing_under_it_has_its_defaults() {
    assert_eq!(value("kafka:\nexecutor:\n  env:\n", &[], "kafka.brokers"), "localhost:9092");
    assert_eq!(value("sinks:\n  kafka:\n", &[], "sinks.kafka"), json!({}));
}

#[test]
fn keys_with_dots_at_the_top_are_no_paths() {
    one_problem("kafka.brokers: x", &[], &["kafka.brokers: unknown key"]);
    one_problem("'sinks[0]': x", &[], &["unknown key"]);
}

#[test]
fn variables_win_over_the_file() {
    let text = "kafka: {brokers: file:9092, source_topic: in}\nexecutor: {env: {A: a, b: b}}";
    let check = |name, text_of, path, expect: Value| {
        assert_eq!(value(text, &[(name, text_of)], path), expect, "{name}={text_of}");
    };
    check("DRAKKAR_KAFKA__BROKERS", "env:9092", "kafka.brokers", json!("env:9092"));
    check("DRAKKAR_kafka__Brokers", "env:9092", "kafka.brokers", json!("env:9092"));
    check("DRAKKAR_KAFKA__BROKERS", "env:9092", "kafka.source_topic", json!("in"));
    check("DRAKKAR_METRICS__ENABLED", "Off", "metrics.enabled", json!(false));
    check("DRAKKAR_METRICS__PORT", " 9091 ", "metrics.port", json!(9091));
    check("DRAKKAR_CACHE__FLUSH_INTERVAL_SECONDS", "2", "cache.flush_interval_seconds", json!(2.0));
    check("DRAKKAR_EXECUTOR__BINARY_PATH", "null", "executor.binary_path", Value::Null);
    check("DRAKKAR_CACHE__MAX_MEMORY_ENTRIES", "null", "cache.max_memory_entries", Value::Null);
    check("DRAKKAR_KAFKA__SOURCE_TOPIC", "null", "kafka.source_topic", json!("null"));
    check("DRAKKAR_CLUSTER_NAME", "", "cluster_name", json!(""));
    check("DRAKKAR_EXECUTOR__ENV__a", "x", "executor.env", json!({"A": "x", "b": "b"}));
    check("DRAKKAR_EXECUTOR__ENV__New__X", "y", "executor.env.New__X", json!("y"));
    check("OTHER_KAFKA__BROKERS", "x", "kafka.brokers", json!("file:9092"));
}

/// Lists the path, variable and default of every setting outside of named tables.
fn settings(table: &schema::Table, path: &str, found: &mut Vec<(String, String)>) {
    for setting in &table.settings {
        let path = format!("{path}{}", setting.name);
        match (&setting.shape, setting.default) {
            (schema::Shape::Table(inner), _) => settings(inner, &format!("{path}."), found),
            (schema::Shape::Scalar(_) | schema::Shape::List(_), Some(default)) => {
                found.push((path, default.trim_matches('"').to_owned()));
            }
            _ => {}
        }
    }
}

#[test]
fn every_setting_has_the_variable_that_the_reference_names() {
    let mut found = Vec::new();
    settings(tables::schema(), "", &mut found);
    assert!(found.len() > 80, "{}", found.len());
    let page = reference_markdown();
    let defaults = Config::default();
    for (path, default) in found {
        let variable = format!("DRAKKAR_{}", path.to_uppercase().replace('.', "__"));
        assert!(page.contains(&format!("| `{variable}` |")), "{variable}");
        let set = value("", &[(&variable, &default)], &path);
        assert_eq!(defaults.get(&path), Some(&set), "{variable}={default}");
    }
}

#[test]
fn lists_and_maps_are_json() {
    let text = "executor: {env: {A: a, C: c}}\ndebug: {expose_env_vars: [X]}";
    let env = [("DRAKKAR_EXECUTOR__ENV", r#"{"A":"b","B":"x"}"#)];
    assert_eq!(value(text, &env, "executor.env"), json!({"A": "b", "B": "x", "C": "c"}));
    let list = [("DRAKKAR_DEBUG__EXPOSE_ENV_VARS", r#"["A", "B"]"#)];
    assert_eq!(value(text, &list, "debug.expose_env_vars"), json!(["A", "B"]));
    let section = [("DRAKKAR_METRICS", r#"{"port": 1}"#)];
    assert_eq!(value("metrics: {enabled: no}", &section, "metrics")["port"], 1);
    assert_eq!(value("metrics: {enabled: no}", &section, "metrics")["enabled"], false);
    one_problem(
        text,
        &[("DRAKKAR_DEBUG__EXPOSE_ENV_VARS", "A,B")],
        &["must be a JSON list", "set by"],
    );
    one_problem(text, &[("DRAKKAR_EXECUTOR__ENV", "{hunter2")], &["must be a JSON object"]);
    one_problem(
        text,
        &[("DRAKKAR_METRICS", r#"{"prot": 1}"#)],
        &["metrics.prot", "\"port\"", "DRAKKAR_METRICS"],
    );
}

#[cfg(feature = "sink-file")]
#[test]
fn names_of_sinks_are_matched_generously() {
    let file = "sinks: {filesystem: {main-db: {base_path: /a}}}";
    let check = |file, variable, name: &str| {
        let config = load(file, &[(variable, "/b")]).unwrap_or_else(|error| panic!("{error}"));
        let path = config.sink("filesystem", name).map(|sink| sink["base_path"].clone());
        assert_eq!(path, Some(json!("/b")), "{variable}");
        config.sinks().count()
    };
    assert_eq!(check(file, "DRAKKAR_SINKS__FILESYSTEM__MAIN_DB__BASE_PATH", "main-db"), 1);
    assert_eq!(check(file, "DRAKKAR_SINKS__FILESYSTEM__main-db__BASE_PATH", "main-db"), 1);
    assert_eq!(check(file, "DRAKKAR_SINKS__FILESYSTEM__NEW__BASE_PATH", "new"), 2);
    let both = "sinks: {filesystem: {main-db: {base_path: /a}, main_db: {base_path: /a}}}";
    assert_eq!(check(both, "DRAKKAR_SINKS__FILESYSTEM__MAIN_DB__BASE_PATH", "main_db"), 2);
    let cased = "sinks: {filesystem: {Main-Db: {base_path: /a}, main.db: {base_path: /a}}}";
    one_problem(
        cased,
        &[("DRAKKAR_SINKS__FILESYSTEM__MAIN_DB__BASE_PATH", "/b")],
        &["matches several names: Main-Db, main.db"],
    );
    assert_eq!(check(cased, "DRAKKAR_SINKS__FILESYSTEM__MAIN-DB__BASE_PATH", "Main-Db"), 2);
}

#[test]
fn variables_that_are_no_settings_are_named() {
    one_problem("", &[("DRAKKAR_CLUSTER", "x")], &["DRAKKAR_CLUSTER: is no setting"]);
    one_problem("", &[("DRAKKAR_METRICS_PORT", "1")], &["did you mean DRAKKAR_METRICS__PORT?"]);
    one_problem("", &[("DRAKKAR_KAFKA__BROKERZ", "1")], &["did you mean DRAKKAR_KAFKA__BROKERS?"]);
    one_problem("", &[("DRAKKAR_KAFKA__BROKERS__X", "1")], &["is no setting"]);
    one_problem("", &[("DRAKKAR_", "1")], &["is no setting"]);
    one_problem("", &[("DRAKKAR_PORT", "9090")], &["is no setting"]);
}

#[test]
fn some_variables_mean_something_else() {
    let none = |text, environment: &[(&str, &str)]| {
        assert_eq!(problems(text, environment), Vec::<String>::new());
    };
    none("", &[("DRAKKAR_CONFIG", "x"), ("DRAKKAR_LOG", "debug")]);
    none("cluster_name_env: DRAKKAR_CLUSTER", &[("DRAKKAR_CLUSTER", "blue")]);
    none("", &[("DRAKKAR_WORKER_NAME_ENV", "DRAKKAR_ME"), ("DRAKKAR_ME", "w1")]);
    none(
        "",
        &[
            ("DRAKKAR_SERVICE_HOST", "10.0.0.1"),
            ("DRAKKAR_SERVICE_PORT", "9090"),
            ("DRAKKAR_SERVICE_PORT_METRICS", "9090"),
            ("DRAKKAR_PORT", "tcp://10.0.0.1:9090"),
            ("DRAKKAR_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
            ("DRAKKAR_PORT_9090_TCP_PROTO", "tcp"),
            ("DRAKKAR_WORKER_PORT_9090_TCP_ADDR", "10.0.0.1"),
        ],
    );
}

#[test]
fn variables_that_contradict_each_other_are_named() {
    one_problem(
        "",
        &[("DRAKKAR_METRICS", "{}"), ("DRAKKAR_METRICS__PORT", "1")],
        &[
            "metrics: set by DRAKKAR_METRICS, while DRAKKAR_METRICS__PORT sets a part of it; keep one",
        ],
    );
    let twice = [("DRAKKAR_METRICS__PORT", "1"), ("DRAKKAR_metrics__port", "2")];
    one_problem("", &twice, &["sets the same setting"]);
}

#[test]
fn contradictions_are_errors() {
    one_problem("executor: {drain_timeout_seconds: 300}", &[], &["found 300 s and 300000 ms"]);
    one_problem(
        "kafka: {session_timeout_ms: 400000}",
        &[],
        &["kafka.session_timeout_ms: must not exceed kafka.max_poll_interval_ms"],
    );
    one_problem("dlq: {topic: input-events}", &[], &["must not be the source topic"]);
    one_problem(
        "cache: {peer_sync: {cycle_deadline_seconds: 30}}",
        &[],
        &["must be lower than interval_seconds, found 30 and 30"],
    );
    one_problem("metrics: {host: everywhere}", &[], &["metrics.host"]);
    let found = problems("sinks: {postgres: {a: {dsn: x, pool_min: 11}}}", &[]);
    assert!(found.iter().any(|problem| problem.contains("found 11 and 10")), "{found:?}");
    let found = problems("sinks: {http: {a: {url: 'http://169.254.169.254/'}}}", &[]);
    assert!(found.iter().any(|problem| problem.contains("metadata")), "{found:?}");
    // A bad value of its own does not cause a second problem.
    one_problem("kafka: {heartbeat_interval_ms: 0, session_timeout_ms: 1}", &[], &["found 0"]);
}

#[test]
fn required_settings_are_named_with_an_example() {
    let found = problems("sinks: {postgres: {a: {}, b: }}", &[]);
    for path in [
        "sinks.postgres.a.dsn: is required; write for example dsn: \"text\"",
        "sinks.postgres.b.dsn",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(path)), "{found:?}");
    }
}

#[test]
fn sinks_are_needed_only_to_run() {
    let error = Config::default().require_sinks().expect_err("there is none");
    assert!(error.to_string().contains("no sinks configured"), "{error}");
}

#[test]
fn parts_that_are_not_compiled_in_are_warned_of() {
    let warnings = |text| load(text, &[]).expect("valid").warnings();
    assert_eq!(warnings("debug: {enabled: false}\ncache: {}"), Vec::<String>::new());
    assert_eq!(warnings("debug: {port: 8081}").len(), 1);
    assert_eq!(warnings("cache: {enabled: true}").len(), 1);
}

#[test]
fn a_circuit_breaker_without_effect_is_warned_of() {
    let warnings = |text, variables: &[_]| load(text, variables).expect("valid").warnings();
    assert_eq!(warnings("sinks:\n  circuit_breaker:\n", &[]), Vec::<String>::new());
    let written = warnings("sinks: {circuit_breaker: {failure_threshold: 5}}", &[]);
    assert_eq!(written.len(), 1);
    assert!(written[0].starts_with("sinks.circuit_breaker: "), "{written:?}");
    let variable = ("DRAKKAR_SINKS__CIRCUIT_BREAKER__COOLDOWN_SECONDS", "5");
    assert_eq!(warnings("", &[variable]), written);
}

#[cfg(not(feature = "sink-kafka"))]
#[test]
fn kafka_sinks_need_their_feature() {
    one_problem("sinks: {kafka: {a: {topic: t}}}", &[], &["enable the feature \"sink-kafka\""]);
}

#[cfg(not(feature = "sink-file"))]
#[test]
fn file_sinks_need_their_feature() {
    one_problem("sinks: {filesystem: {a: {base_path: /x}}}", &[], &["\"sink-file\""]);
}

const SECRETS: &str = "\
kafka:
  security: {protocol: sasl_ssl, username: visible, password: hunter2}
  client_config: {sasl.password: hunter2}
executor: {env: {API_KEY: hunter2}}
debug: {auth_token: hunter2}
";

#[test]
fn secrets_are_never_shown() {
    let config = load(SECRETS, &[("DRAKKAR_EXECUTOR__ENV__MORE", "hunter2")]).expect("valid");
    let shown = format!("{}{config:?}{:?}", config.redacted_yaml(), config.dlq());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("visible") && shown.contains("sasl.password") && shown.contains("API_KEY"),
        "{shown}"
    );
    let reread = load(&config.redacted_yaml(), &[]).expect("it is valid itself");
    assert_eq!(reread.get("executor.env.API_KEY"), Some(&json!("***")));
    for (text, environment) in [
        ("debug: {auth_token: [hunter2]}", vec![]),
        ("debug: {auth_token: {a: hunter2}}", vec![]),
        ("executor: {env: [hunter2]}", vec![]),
        ("executor: {env: hunter2}", vec![("DRAKKAR_EXECUTOR__ENV", "hunter2")]),
        ("sinks: {http: {a: {url: 'ftp://a:hunter2@h', headers: {A: [hunter2]}}}}", vec![]),
        ("sinks: {redis: {a: {url: {x: hunter2}}}}", vec![]),
        ("sinks: {postgres: {a: 'host=h password=hunter2'}}", vec![]),
        (
            "kafka: {client_config: {sasl.password: {x: hunter2}}}",
            vec![("DRAKKAR_METRICS__PORT", "hunter2")],
        ),
    ] {
        let error = load(text, &environment).expect_err("invalid");
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_number_as_a_secret_is_not_shown_either() {
    let error = load("debug: {auth_token: 271828}\nexecutor: {env: {PIN: 271828}}", &[]);
    let error = error.expect_err("numbers are no text");
    assert!(!error.to_string().contains("271828"), "{error}");
}

#[cfg(feature = "sink-kafka")]
#[test]
fn credentials_are_inherited_within_one_cluster_only() {
    let text = format!(
        "{SECRETS}sinks:\n  kafka:\n    same: {{topic: a}}\n    far: {{topic: b, brokers: 'far:9092'}}\n"
    );
    let config = load(&text, &[]).expect("valid");
    let same = config.kafka_client("sinks.kafka.same");
    assert_eq!(same["brokers"], "localhost:9092");
    assert_eq!(same["security"]["password"], "hunter2");
    assert_eq!(config.kafka_client("dlq"), same);
    let far = config.kafka_client("sinks.kafka.far");
    assert_eq!(far, json!({"brokers": "far:9092"}));
    let section: drakkar_kafka::ClientSection =
        serde_json::from_value(same).expect("it is what the client's crate reads");
    assert_eq!(section.brokers, "localhost:9092");
}

#[test]
fn dead_letters_go_beside_the_source() {
    let config = load("kafka: {source_topic: in, brokers: 'b:1'}", &[]).expect("valid");
    let dlq = config.dlq();
    assert_eq!((dlq.topic.as_str(), dlq.on_send_failure), ("in_dlq", SendFailurePolicy::Hold));
    assert_eq!(config.kafka_client("dlq")["brokers"], "b:1");
    let dlq = load("dlq: {topic: t, on_send_failure: drop}", &[]).expect("valid").dlq();
    assert_eq!((dlq.topic.as_str(), dlq.on_send_failure), ("t", SendFailurePolicy::Drop));
}

#[test]
fn a_membership_that_is_to_last_needs_a_name_that_does() {
    let found = |text: &str, environment: &[(&str, &str)]| {
        let config = load(text, environment).expect("valid");
        let mut problems = drakkar_api::Problems::new();
        if config.given_worker_name().is_none() {
            config.check_nameless(&mut problems);
        }
        problems.iter().map(ToString::to_string).collect::<String>()
    };
    let text = "worker_name_env: ME\nkafka: {group_instance_id: 'w-{worker_id}'}";
    let nameless = found(text, &[]);
    assert!(nameless.starts_with("kafka.group_instance_id: "), "{nameless}");
    assert!(nameless.ends_with("by the environment variable ME"), "{nameless}");
    assert_eq!(found(text, &[("ME", "w1")]), "");
    assert_eq!(found("kafka: {group_instance_id: fixed}", &[]), "");
}

#[test]
fn names_come_from_the_environment_first() {
    let config = load("", &[("WORKER_ID", "w1")]).expect("valid");
    assert_eq!((config.worker_name(), config.cluster_name()), ("w1", ""));
    let config =
        load("worker_name_env: ME\ncluster_name: c", &[("WORKER_ID", "w1")]).expect("valid");
    let name = config.worker_name();
    let digits = name.strip_prefix("drakkar-").expect("made up");
    assert!(digits.len() == 8 && digits.chars().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    assert_eq!(config.clone().worker_name(), name, "it stays the same");
    assert_eq!(config.cluster_name(), "c");
    let text = "cluster_name: c\ncluster_name_env: CLUSTER";
    assert_eq!(load(text, &[("CLUSTER", "d")]).expect("valid").cluster_name(), "d");
    assert_eq!(load(text, &[("CLUSTER", "")]).expect("valid").cluster_name(), "c");
}

#[test]
fn a_program_may_change_settings() {
    let mut config = Config::default();
    let set = |config: &mut Config, path: &str, value: Value| {
        config.set(path, value).map_err(|error| error.to_string())
    };
    assert_eq!(set(&mut config, "executor.max_executors", json!(8)), Ok(()));
    assert_eq!(set(&mut config, "kafka.client_config.fetch.max.bytes", json!("1")), Ok(()));
    assert_eq!(config.get("kafka.client_config"), Some(&json!({"fetch.max.bytes": "1"})));
    for (path, value, piece) in [
        ("executor.max_executors", json!(0), "found 0"),
        ("executor.max_executor", json!(1), "is no setting"),
        ("executor.binary_path", json!(5), "must be text"),
    ] {
        let error = set(&mut config, path, value).expect_err("refused");
        assert!(error.contains(piece), "{error}");
    }
    assert_eq!(config.get("executor.max_executors"), Some(&json!(8)));
    // What is only wrong together is found at the end.
    assert_eq!(set(&mut config, "executor.backpressure_low_multiplier", json!(40)), Ok(()));
    assert!(config.validate().is_err());
    assert_eq!(set(&mut config, "executor.backpressure_high_multiplier", json!(80)), Ok(()));
    assert!(config.validate().is_ok());
}

#[cfg(feature = "sink-kafka")]
#[test]
fn names_may_hold_dots() {
    let config = load("sinks: {kafka: {a.b: {topic: t}}}", &[]).expect("valid");
    assert_eq!(config.get("sinks.kafka.a.b.topic"), Some(&json!("t")));
    assert_eq!(config.kafka_client("sinks.kafka.a.b")["brokers"], "localhost:9092");
}

#[test]
fn parts_are_deserialised_by_their_owners() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Part {
        max_retries: u32,
        handler_retries: u32,
    }
    let fields: Vec<_> = drakkar_core::RETRY_SECTION
        .fields
        .iter()
        .filter(|field| field.name.ends_with("_retries"))
        .copied()
        .collect();
    let part: Part = Config::default().part("sinks.retry", &fields).expect("they agree");
    assert_eq!((part.max_retries, part.handler_retries), (3, 2));
}

#[test]
fn the_log_is_set_up_from_words() {
    let logging =
        |text, environment: &[(&str, &str)]| load(text, environment).expect("valid").logging();
    assert_eq!(logging("logging: {level: warning}", &[]).level, LogLevel::Warn);
    assert_eq!(logging("logging: {format: console}", &[]).format, LogFormat::Console);
    assert_eq!(logging("logging: {format: ecs}", &[]).format, LogFormat::Ecs);
    let filters = [("DRAKKAR_LOG", "debug"), ("RUST_LOG", "info")];
    assert_eq!(logging("", &filters).filter.as_deref(), Some("debug"));
    assert_eq!(logging("", &filters[1..]).filter.as_deref(), Some("info"));
    assert_eq!(logging("", &[]).filter, None);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("drakkar.yaml");
    let check = |kind, pieces: &[&str]| {
        // Not the environment of this process, which is the tester's own.
        let draft = load_from(Some(&path), Environment::default());
        let error = draft.and_then(Draft::accept).expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        for piece in pieces.iter().chain([&"drakkar.yaml"]) {
            assert!(error.to_string().contains(piece), "{error}");
        }
    };
    check(ConfigErrorKind::NotFound, &["does not exist"]);
    std::fs::write(&path, "kafka:\n  brokers: [a\n").expect("written");
    check(ConfigErrorKind::Syntax, &["line 3 column 1"]);
    std::fs::write(&path, b"kafka:\n  brokers: \xff\n").expect("written");
    check(ConfigErrorKind::Syntax, &["line 2 is not UTF-8"]);
    std::fs::write(&path, "kafka: {max_poll_records: 0}").expect("written");
    check(ConfigErrorKind::Invalid, &["1 problem in the configuration", "found 0"]);
    std::fs::write(&path, "kafka: {source_topic: of-the-file}").expect("written");
    let variables = [
        ("DRAKKAR_CONFIG", path.to_str().expect("Unicode")),
        ("DRAKKAR_KAFKA__CONSUMER_GROUP", "of-the-environment"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = load_from(None, variables.into_iter().collect()).expect("read");
    let config = config.accept().expect("valid");
    assert_eq!(config.file(), Some(path.as_path()));
    assert_eq!(config.get("kafka.source_topic"), Some(&json!("of-the-file")));
    assert_eq!(config.get("kafka.consumer_group"), Some(&json!("of-the-environment")));
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("made");
    check(ConfigErrorKind::Io, &["failed to read"]);
}

#[test]
fn a_task_is_slow_as_the_configuration_says() {
    let slow = |text| load(text, &[]).expect("valid").slow_task_duration();
    assert_eq!(slow(""), Duration::from_millis(500));
    assert_eq!(slow("debug: {enabled: false, log_min_duration_ms: 20}"), Duration::from_millis(20));
}
