//! The settings that the facade owns, those of parts whose crates are still to come, and the
//! composition of all.

use super::compiled::is_sink_compiled;
use super::schema::{Setting, Shape, Table};
use drakkar_api::{Field, Kind, Section};
use std::sync::LazyLock;

/// The whole configuration.
pub(super) fn schema() -> &'static Table {
    static SCHEMA: LazyLock<Table> = LazyLock::new(compose);
    &SCHEMA
}

/// The sink types in the order of the original.
pub(super) const SINK_TYPES: [&str; 6] =
    ["kafka", "postgres", "mongo", "http", "redis", "filesystem"];

fn compose() -> Table {
    Table::new("Who the worker is.")
        .fields(ROOT_FIELDS)
        .table(
            "kafka",
            Table::new("The broker and the topic that is consumed.")
                .fields(drakkar_kafka::FIELDS)
                .fields(drakkar_source_kafka::FIELDS)
                .fields(drakkar_core::KAFKA_FIELDS)
                .fields(KAFKA_FIELDS),
        )
        .table(
            "executor",
            Table::new("The processes, and how much work is taken on at once.")
                .fields(drakkar_exec::FIELDS)
                .fields(drakkar_core::EXECUTOR_FIELDS),
        )
        .table("sinks", sinks())
        .table(
            "dlq",
            Table::new("The topic for what could not be handled or delivered.")
                .fields(DLQ_FIELDS)
                .kafka_client(),
        )
        .table("metrics", Table::from(&METRICS))
        .table("logging", Table::from(&LOGGING))
        .table("debug", Table::from(&DEBUG))
        .table("cache", Table::from(&CACHE))
}

fn sinks() -> Table {
    let mut sinks = Table::new("Where results go: for each type, a map from names to settings.");
    for name in SINK_TYPES {
        sinks = match is_sink_compiled(name) || sink_fields(name).is_some() {
            true => {
                let fields = sink_fields(name).unwrap_or_default();
                let own = fields.iter().filter(|field| !is_client(field));
                let table = own.fold(Table::new(sink_about(name)), |table, field| {
                    table.fields(std::slice::from_ref(field))
                });
                // Some crates declare the address of their page themselves.
                let has_page = fields.iter().any(|field| field.name == UI_URL.name);
                let table = if has_page { table } else { table.fields(&[UI_URL]) };
                let table = if name == "kafka" { table.kafka_client() } else { table };
                sinks.instances(name, table)
            }
            // Its crate is not linked, so nobody knows its settings; see `compiled`.
            false => sinks.opaque(name),
        };
    }
    sinks
        .table("retry", Table::from(&drakkar_core::RETRY_SECTION))
        .table("circuit_breaker", Table::from(&CIRCUIT_BREAKER))
}

/// Returns whether a setting is one of a Kafka client's, which [`Table::kafka_client`] adds.
fn is_client(field: &Field) -> bool {
    drakkar_kafka::FIELDS.iter().any(|client| client.name == field.name)
}

fn sink_about(name: &str) -> &'static str {
    match name {
        "kafka" => "Each name is a topic that records are produced to.",
        "postgres" => "Each name is a PostgreSQL database that rows are inserted into.",
        "mongo" => "Each name is a MongoDB database that documents are inserted into.",
        "http" => "Each name is an address that requests are sent to.",
        "redis" => "Each name is a Redis server that values are set in.",
        _ => "Each name is a folder whose files lines are appended to.",
    }
}

fn sink_fields(name: &str) -> Option<&'static [Field]> {
    match name {
        #[cfg(feature = "sink-kafka")]
        "kafka" => Some(drakkar_sink_kafka::FIELDS),
        #[cfg(feature = "sink-file")]
        "filesystem" => Some(drakkar_sink_file::FIELDS),
        "postgres" => Some(POSTGRES_FIELDS),
        "mongo" => Some(MONGO_FIELDS),
        "http" => Some(HTTP_FIELDS),
        "redis" => Some(REDIS_FIELDS),
        _ => None,
    }
}

impl Table {
    /// Adds what a destination in Kafka takes over from the section `kafka` unless it says otherwise;
    /// see [`Config::kafka_client`](super::Config::kafka_client).
    fn kafka_client(mut self) -> Self {
        self = self.fields(&[BROKERS]);
        let others = drakkar_kafka::FIELDS.iter().filter(|field| field.name != BROKERS.name);
        for field in others {
            let mut inherited = Self::new("").fields(std::slice::from_ref(field)).settings;
            inherited.iter_mut().for_each(Setting::make_optional);
            self.settings.append(&mut inherited);
        }
        self
    }

    /// Adds a map from free names to anything.
    fn opaque(mut self, name: &'static str) -> Self {
        let shape = Shape::Map(Box::new(Shape::Scalar(Kind::Any)));
        self.settings.push(Setting { name, about: "", default: Some("{}"), shape });
        self
    }
}

impl Setting {
    fn make_optional(&mut self) {
        let shape = std::mem::replace(&mut self.shape, Shape::Scalar(Kind::Any));
        self.shape = match shape {
            optional @ Shape::Optional(_) => optional,
            shape => Shape::Optional(Box::new(shape)),
        };
        self.default = Some("null");
        self.about = "As in the section `kafka`; null takes over what stands there, unless `brokers` \
                      names another cluster.";
    }
}

const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Field {
    Field { name, kind, default: Some(default), about }
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, default: None, about }
}

const TEXT: Kind = Kind::Text { min_length: 0 };
const NAME: Kind = Kind::Text { min_length: 1 };
const PORT: Kind = Kind::Int { min: 1, max: 65_535 };
const YEAR: f64 = 31_536_000.0;

const fn at_least(min: i64) -> Kind {
    Kind::Int { min, max: i64::MAX }
}

/// A time in seconds that is not zero.
const POSITIVE_SECONDS: Kind = Kind::Float { min: f64::MIN_POSITIVE, max: YEAR };

const ROOT_FIELDS: &[Field] = &[
    field(
        "worker_name_env",
        NAME,
        "WORKER_ID",
        "The environment variable that holds the worker's name. Without a value the worker is \
         called `drakkar-` and 8 hex digits, which differ at each start.",
    ),
    field("cluster_name", TEXT, "\"\"", "A name for the workers that belong together."),
    field(
        "cluster_name_env",
        TEXT,
        "\"\"",
        "The environment variable that, when set and not empty, wins over `cluster_name`.",
    ),
];

/// What the facade itself reads in the section `kafka`.
const KAFKA_FIELDS: &[Field] = &[
    field(
        "startup_align_enabled",
        Kind::Bool,
        "true",
        "Whether the start waits so that workers started together join the group together, which \
         saves rebalances. Switch it off for development.",
    ),
    field(
        "startup_min_wait_seconds",
        Kind::Float { min: 0.0, max: 3600.0 },
        "4.0",
        "How long such a start waits at least, in seconds.",
    ),
    field(
        "startup_align_interval_seconds",
        Kind::Int { min: 1, max: 3600 },
        "10",
        "After that it waits for the next moment that is a multiple of this many seconds.",
    ),
    field(
        "ui_url",
        TEXT,
        "\"\"",
        "The address of a Kafka UI; links to it appear when `ui_cluster_name` is given too.",
    ),
    field("ui_cluster_name", TEXT, "\"\"", "The cluster's name in that Kafka UI."),
];

/// What every sink has.
const UI_URL: Field =
    field("ui_url", TEXT, "\"\"", "The address of a page about the destination, for the UI.");

const POSTGRES_FIELDS: &[Field] = &[
    required("dsn", Kind::Secret, "The connection string."),
    field("pool_min", at_least(1), "2", "Connections that are kept open."),
    field("pool_max", at_least(1), "10", "The most connections; at least `pool_min`."),
];

const MONGO_FIELDS: &[Field] = &[
    required("uri", Kind::Secret, "The connection string."),
    required("database", NAME, "The database."),
];

const HTTP_FIELDS: &[Field] = &[
    required(
        "url",
        NAME,
        "The address, `http` or `https`. Addresses of cloud metadata services are refused.",
    ),
    field("method", NAME, "POST", "The request's method."),
    field("timeout_seconds", Kind::Int { min: 1, max: 86_400 }, "30", "The request's deadline."),
    field("headers", Kind::Map(&Kind::Secret), "{}", "Headers added to every request."),
    field("max_retries", Kind::Int { min: 0, max: 1000 }, "3", "How often a request is repeated."),
];

const REDIS_FIELDS: &[Field] = &[
    field("url", NAME, "redis://localhost:6379/0", "The server and the database."),
    field("key_prefix", TEXT, "\"\"", "Put before every key."),
];

const CIRCUIT_BREAKER: Section = Section {
    about: "When a sink that keeps failing is left alone for a while; one rule for all sinks. **Has no \
            effect in this version**: the section is accepted for files of the original, and a worker \
            that finds it written warns.",
    fields: &[
        field(
            "failure_threshold",
            Kind::Int { min: 1, max: 1_000_000 },
            "5",
            "After this many failures in a row nothing is sent.",
        ),
        field(
            "cooldown_seconds",
            Kind::Float { min: 0.0, max: YEAR },
            "30.0",
            "After this time, in seconds, one delivery is tried.",
        ),
    ],
};

const DLQ_FIELDS: &[Field] = &[
    field("topic", TEXT, "\"\"", "The topic; empty means `<kafka.source_topic>_dlq`."),
    field(
        "on_send_failure",
        Kind::Word(&["hold", "drop"]),
        "hold",
        "What follows when a dead letter cannot be written: `hold` keeps the offset uncommitted and \
         tries again for ever, `drop` gives the letter up after the retries of `sinks.retry`, \
         counted.",
    ),
];

/// The brokers of a destination in Kafka.
const BROKERS: Field =
    field("brokers", TEXT, "\"\"", "The brokers to ask first; empty means `kafka.brokers`.");

const METRICS: Section = Section {
    about: "The server of `/metrics`, `/healthz` and `/readyz`.",
    fields: &[
        field("enabled", Kind::Bool, "true", "Whether the server runs."),
        field("host", NAME, "0.0.0.0", "The address that it listens on; by default all."),
        field("port", PORT, "9090", "Its port."),
    ],
};

const LOGGING: Section = Section {
    about: "Log lines. `DRAKKAR_LOG` or `RUST_LOG`, when set, is a filter beside `level`, such as \
            `hyper=debug`; a bare level in it wins.",
    fields: &[
        field(
            "level",
            TEXT,
            "INFO",
            "The least level that is written: `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR` or `OFF`, in \
             any case; `WARNING` and `CRITICAL` are understood.",
        ),
        field(
            "format",
            Kind::Word(&["json", "ecs", "console"]),
            "json",
            "`json`: one object for each line, under the names of the original and those of the Elastic \
             Common Schema; `ecs`: under the latter alone, for an index that has its mapping; \
             `console`: for people.",
        ),
        field(
            "output",
            NAME,
            "stderr",
            "`stderr`, `stdout`, or a file that is appended to; `{worker_id}` and `{cluster_name}` \
             are filled in, missing folders are made, and at SIGHUP it is opened anew.",
        ),
    ],
};

const DEBUG: Section = Section {
    about: "The recorder and the debug server.",
    fields: &[
        field("enabled", Kind::Bool, "true", "Whether they run."),
        field("host", NAME, "127.0.0.1", "The address that the server listens on."),
        field("port", PORT, "8080", "The server's port."),
        field("auth_token", Kind::Secret, "\"\"", "The token that requests must carry, if any."),
        field(
            "allowed_ws_origins",
            Kind::List(&TEXT),
            "[]",
            "Further origins that may open the event stream.",
        ),
        field("debug_url", TEXT, "\"\"", "The server's address as browsers see it."),
        field("db_dir", TEXT, "/tmp", "The folder of the databases; empty means no disk."),
        field("store_events", Kind::Bool, "true", "Whether events are stored."),
        field("store_config", Kind::Bool, "true", "Whether the worker's settings are stored."),
        field("store_state", Kind::Bool, "true", "Whether snapshots of the state are stored."),
        field("state_sync_interval_seconds", at_least(1), "10", "The time between snapshots."),
        field("expose_env_vars", Kind::List(&TEXT), "[]", "Environment variables that are shown."),
        field("rotation_interval_minutes", at_least(1), "60", "The age at which a file is closed."),
        field("retention_hours", at_least(1), "24", "The age at which a file is deleted."),
        field("retention_max_events", at_least(100), "100000", "The most events that are kept."),
        field("store_output", Kind::Bool, "true", "Whether outputs of tasks are stored."),
        field("flush_interval_seconds", at_least(1), "5", "The time between writes."),
        field("max_buffer", at_least(1000), "50000", "The most events that wait for a write."),
        field("max_flush_retries", at_least(1), "3", "How often a failed write is repeated."),
        field("max_ui_rows", at_least(100), "5000", "The most rows on a page."),
        field(
            "log_min_duration_ms",
            at_least(0),
            "500",
            "A task that takes as long or longer is logged as slow, also without a debug server.",
        ),
        field(
            "ws_min_duration_ms",
            at_least(0),
            "500",
            "The duration from which a task is in the event stream.",
        ),
        field("event_min_duration_ms", at_least(0), "0", "The same for stored events."),
        field("output_min_duration_ms", at_least(0), "500", "The same for stored outputs."),
        field("prometheus_url", TEXT, "\"\"", "The address of Prometheus, for links."),
        field("prometheus_rate_interval", TEXT, "5m", "The interval of rates in those links."),
        field("prometheus_worker_label", TEXT, "\"\"", "The label that names the worker there."),
        field("prometheus_cluster_label", TEXT, "\"\"", "The label that names the cluster there."),
        field(
            "custom_links",
            Kind::List(&Kind::Map(&TEXT)),
            "[]",
            "Further links, each with `name` and `url`.",
        ),
    ],
};

const CACHE: Section = Section {
    about: "The key/value cache for handlers.",
    fields: &[
        field("enabled", Kind::Bool, "false", "Whether handlers have a cache."),
        field("db_dir", TEXT, "\"\"", "The folder of its database; empty means `debug.db_dir`."),
        field("flush_interval_seconds", POSITIVE_SECONDS, "3.0", "The time between writes."),
        field(
            "cleanup_interval_seconds",
            POSITIVE_SECONDS,
            "60.0",
            "The time between removals of expired entries.",
        ),
        field(
            "max_memory_entries",
            Kind::Optional(&at_least(1)),
            "10000",
            "The most entries in memory; null means no limit.",
        ),
        field("peer_sync", Kind::Section(&PEER_SYNC), "{}", ""),
    ],
};

const PEER_SYNC: Section = Section {
    about: "The exchange of entries between workers.",
    fields: &[
        field("enabled", Kind::Bool, "true", "Whether entries of other workers are fetched."),
        field("interval_seconds", POSITIVE_SECONDS, "30.0", "The time between rounds."),
        field("batch_size", at_least(1), "500", "The most entries that are read at once."),
        field("timeout_seconds", POSITIVE_SECONDS, "5.0", "The deadline for one worker."),
        field(
            "cycle_deadline_seconds",
            Kind::Optional(&Kind::Float { min: 0.1, max: YEAR }),
            "null",
            "The deadline of a round, below `interval_seconds`; null means nine tenths of it.",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::super::walk::check_root;
    use super::super::yaml::Entries;
    use super::*;
    use std::collections::BTreeSet;

    fn visit(table: &Table, path: &str, seen: &mut impl FnMut(&str, &Setting)) {
        for setting in &table.settings {
            let path = format!("{path}.{}", setting.name);
            seen(&path, setting);
            let inner = match &setting.shape {
                Shape::Map(inner) => inner.as_table(),
                shape => shape.as_table(),
            };
            if let Some(table) = inner {
                visit(table, &path, seen);
            }
        }
    }

    #[test]
    fn no_key_is_declared_twice() {
        let mut paths = BTreeSet::new();
        visit(schema(), "", &mut |path, _| {
            assert!(paths.insert(path.to_owned()), "{path} is declared twice");
        });
        assert!(paths.len() > 100);
    }

    #[test]
    fn every_default_is_valid_and_every_setting_explained() {
        let (_, problems) = check_root(schema(), &Entries::new());
        assert!(problems.is_empty(), "{problems}");
        visit(schema(), "", &mut |path, setting| {
            let explained = match &setting.shape {
                Shape::Map(inner) => inner.as_table().is_some() || !setting.about.is_empty(),
                shape => shape.as_table().is_some() || !setting.about.is_empty(),
            };
            let opaque = path.starts_with(".sinks.");
            assert!(explained || opaque, "{path} is not explained");
            if let Some(default) = setting.default {
                let value = super::super::yaml::parse_scalar(default).expect("a default is YAML");
                let problems = super::super::walk::check_value(&setting.shape, &value, path);
                assert!(problems.is_empty() || default == "{}", "{problems}");
            }
        });
    }
}
