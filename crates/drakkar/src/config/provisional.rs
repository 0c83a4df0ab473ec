//! Stand-ins for the tables that other crates declare. They go as those crates declare theirs.

use drakkar_api::{Field, Kind, Section};

const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Field {
    Field { name, kind, default: Some(default), about }
}

const TEXT: Kind = Kind::Text { min_length: 0 };
const NAME: Kind = Kind::Text { min_length: 1 };
const SECONDS: Kind = Kind::Int { min: 1, max: 86_400 };
const MILLISECONDS: Kind = Kind::Int { min: 1, max: 86_400_000 };

/// `drakkar_core`
pub(crate) mod core {
    use super::{Field, Kind, Section};

    /// The engine's settings in the section `executor`.
    pub(crate) const EXECUTOR_FIELDS: &[Field] = &[
        Field {
            name: "window_size",
            kind: Kind::Int { min: 1, max: 1_000_000 },
            default: Some("100"),
            about: "The most messages given to one `arrange`.",
        },
        Field {
            name: "max_retries",
            kind: Kind::Int { min: 0, max: 1_000_000 },
            default: Some("3"),
            about: "How many `Retry` answers of `on_error` are honoured for each task; then the failure \
                    policy decides.",
        },
        Field {
            name: "drain_timeout_seconds",
            kind: Kind::Int { min: 1, max: 86_400 },
            default: Some("30"),
            about: "How long a revoke or a shutdown waits for started work, in seconds; what is left is \
                    killed. Must be shorter than `kafka.max_poll_interval_ms`.",
        },
        Field {
            name: "backpressure_high_multiplier",
            kind: Kind::Int { min: 1, max: 1_000_000 },
            default: Some("32"),
            about: "No message is polled once `max_executors` times this many messages and tasks are in \
                    the worker.",
        },
        Field {
            name: "backpressure_low_multiplier",
            kind: Kind::Int { min: 1, max: 1_000_000 },
            default: Some("4"),
            about: "Polling resumes at `max_executors` times this many. Must be lower than \
                    `backpressure_high_multiplier`.",
        },
        Field {
            name: "max_tasks_per_window",
            kind: Kind::Int { min: 1, max: 100_000_000 },
            default: Some("10000"),
            about: "The most tasks that one `arrange` may return; more is an error of the hook.",
        },
        Field {
            name: "max_replacements",
            kind: Kind::Int { min: 0, max: 1_000_000 },
            default: Some("100"),
            about: "The longest chain of tasks that replace each other; a longer one is an error of \
                    `on_error`.",
        },
        Field {
            name: "max_buffered_bytes",
            kind: Kind::Int { min: 1_048_576, max: i64::MAX },
            default: Some("268435456"),
            about: "No message is polled once messages, captured outputs and undelivered payloads take \
                    this many bytes; polling resumes at half of it.",
        },
        Field {
            name: "max_open_windows",
            kind: Kind::Int { min: 1, max: 1_000_000 },
            default: Some("1000"),
            about: "The most windows of one partition that are arranged and not finished; then the \
                    partition's messages wait.",
        },
    ];

    /// The engine's settings in the section `kafka`.
    pub(crate) const KAFKA_FIELDS: &[Field] = &[
        Field {
            name: "on_parse_error",
            kind: Kind::Word(&["pass", "dead_letter", "skip"]),
            default: Some("pass"),
            about: "What follows when a message's value does not parse: `pass` gives it to the handler \
                    without a payload, `dead_letter` writes it to the dead letters, `skip` drops it. \
                    Always counted and logged.",
        },
        Field {
            name: "max_ahead_offsets",
            kind: Kind::Int { min: 1, max: 100_000_000 },
            default: Some("100000"),
            about: "How many offsets of a partition may be read beyond the oldest unfinished one; then \
                    the partition is not polled and is reported as stalled.",
        },
        Field {
            name: "buffer_messages",
            kind: Kind::Optional(&Kind::Int { min: 1, max: 10_000_000 }),
            default: Some("null"),
            about: "How many messages of each partition may wait in the worker for a window; null means \
                    the larger of `max_poll_records` and twice `executor.window_size`.",
        },
        Field {
            name: "buffer_bytes",
            kind: Kind::Int { min: 1024, max: i64::MAX },
            default: Some("16777216"),
            about: "How many bytes of each partition may wait in the worker for a window; one message \
                    may exceed it.",
        },
    ];

    /// The section `sinks.retry`.
    pub(crate) const RETRY_SECTION: Section = Section {
        about: "How often a payload is sent again by itself, before `on_delivery_error` is asked.",
        fields: &[
            Field {
                name: "max_retries",
                kind: Kind::Int { min: 0, max: 1000 },
                default: Some("3"),
                about: "How often a payload is sent again when that is safe and may help.",
            },
            Field {
                name: "initial_backoff_ms",
                kind: Kind::Int { min: 1, max: 3_600_000 },
                default: Some("100"),
                about: "The wait before the first retry, in milliseconds; it doubles each time, and \
                        jitter takes away up to half.",
            },
            Field {
                name: "max_backoff_ms",
                kind: Kind::Int { min: 1, max: 3_600_000 },
                default: Some("10000"),
                about: "The longest wait between two attempts, in milliseconds.",
            },
            Field {
                name: "handler_retries",
                kind: Kind::Int { min: 0, max: 1000 },
                default: Some("2"),
                about: "How many `Retry` answers of `on_delivery_error` are honoured; then the payloads \
                        go to the dead letters.",
            },
        ],
    };
}

/// `drakkar_exec`
pub(crate) mod exec {
    use super::{Field, Kind, NAME, SECONDS, TEXT, field};

    pub(crate) const FIELDS: &[Field] = &[
        field(
            "binary_path",
            Kind::Optional(&NAME),
            "null",
            "The program of tasks that name none; null means that every task must name its own.",
        ),
        field(
            "env",
            Kind::Map(&Kind::Secret),
            "{}",
            "Environment variables given to every child; those of a task win over them.",
        ),
        field(
            "env_inherit_parent",
            Kind::Bool,
            "true",
            "Whether children inherit the worker's environment, as far as `env_inherit_deny` lets it.",
        ),
        field(
            "env_inherit_deny",
            Kind::List(&TEXT),
            r#"["DRAKKAR_*", "*PASSWORD*", "*SECRET*", "*TOKEN*", "*_KEY", "*_DSN", "*CREDENTIAL*"]"#,
            "Name patterns (`*`, `?`; case does not matter) that children never inherit.",
        ),
        field(
            "max_executors",
            Kind::Int { min: 1, max: 100_000 },
            "4",
            "How many children run at once, over all partitions.",
        ),
        field(
            "task_timeout_seconds",
            SECONDS,
            "120",
            "The deadline of one child, in seconds; then its process group is killed.",
        ),
        field(
            "kill_grace_seconds",
            Kind::Float { min: 0.0, max: 3600.0 },
            "2.0",
            "The time between the polite signal and the kill, in seconds.",
        ),
        field(
            "pipe_drain_seconds",
            Kind::Float { min: 0.0, max: 3600.0 },
            "0.5",
            "How long output is read after the child has exited, in seconds; then what is left of \
             its process group is killed.",
        ),
        field(
            "reap_timeout_seconds",
            Kind::Float { min: 0.1, max: 3600.0 },
            "5.0",
            "How long a killed child is waited for, in seconds.",
        ),
        field(
            "stdout_bytes_max",
            Kind::Int { min: 0, max: i64::MAX },
            "16777216",
            "How many bytes of standard output are kept; the rest is read and counted.",
        ),
        field(
            "stderr_bytes_max",
            Kind::Int { min: 0, max: i64::MAX },
            "1048576",
            "How many bytes of standard error are kept; the rest is read and counted.",
        ),
    ];
}

/// `drakkar_kafka`
pub(crate) mod kafka {
    use super::{Field, Kind, NAME, Section, TEXT, field};

    pub(crate) const SECURITY: Section = Section {
        about: "Encryption and authentication.",
        fields: &[
            field(
                "protocol",
                Kind::Word(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]),
                "plaintext",
                "How brokers are spoken to.",
            ),
            field("sasl_mechanism", TEXT, "\"\"", "The SASL mechanism, such as `SCRAM-SHA-512`."),
            field("sasl_username", TEXT, "\"\"", "The user."),
            field("sasl_password", Kind::Secret, "\"\"", "The user's password."),
            field("ca_file", TEXT, "\"\"", "The file with the certificates that are trusted."),
        ],
    };

    pub(crate) const FIELDS: &[Field] = &[
        field(
            "brokers",
            NAME,
            "localhost:9092",
            "The bootstrap brokers, separated by commas; also of Kafka sinks and dead letters that \
             name none.",
        ),
        field("security", Kind::Section(&SECURITY), "{}", ""),
        field(
            "client_config",
            Kind::Map(&Kind::Secret),
            "{}",
            "Raw options of librdkafka, which win over everything that is not reserved.",
        ),
        field(
            "connect_timeout_seconds",
            Kind::Int { min: 1, max: 3600 },
            "30",
            "How long the start waits for a broker to answer, in seconds.",
        ),
    ];
}

/// `drakkar_source_kafka`
pub(crate) mod source_kafka {
    use super::{Field, Kind, MILLISECONDS, NAME, field};

    pub(crate) const FIELDS: &[Field] = &[
        field("source_topic", NAME, "input-events", "The topic that is consumed."),
        field("consumer_group", NAME, "drakkar-workers", "The consumer group."),
        field(
            "max_poll_records",
            Kind::Int { min: 1, max: 1_000_000 },
            "100",
            "How many messages are taken from a partition at a time.",
        ),
        field(
            "max_poll_interval_ms",
            MILLISECONDS,
            "300000",
            "The group's deadline for a worker that does not poll, in milliseconds.",
        ),
        field(
            "session_timeout_ms",
            MILLISECONDS,
            "45000",
            "The group's deadline for a worker that sends no heartbeat, in milliseconds.",
        ),
        field(
            "heartbeat_interval_ms",
            MILLISECONDS,
            "3000",
            "The time between heartbeats, in milliseconds; a third of the session timeout or less.",
        ),
    ];
}

/// `drakkar_sink_kafka`
#[cfg(feature = "sink-kafka")]
pub(crate) mod sink_kafka {
    use super::{Field, Kind, NAME, TEXT, field, kafka};

    pub(crate) const FIELDS: &[Field] = &[
        Field { name: "topic", kind: NAME, default: None, about: "The topic." },
        field("brokers", TEXT, "\"\"", "The bootstrap brokers; empty means `kafka.brokers`."),
        field("security", Kind::Optional(&Kind::Section(&kafka::SECURITY)), "null", ""),
        field(
            "client_config",
            Kind::Optional(&Kind::Map(&Kind::Secret)),
            "null",
            "Raw options of librdkafka; null means those of `kafka`.",
        ),
    ];
}

/// `drakkar_sink_file`
#[cfg(feature = "sink-file")]
pub(crate) mod sink_file {
    use super::{Field, NAME};

    pub(crate) const FIELDS: &[Field] = &[Field {
        name: "base_path",
        kind: NAME,
        default: None,
        about: "The existing folder below which all files lie.",
    }];
}
