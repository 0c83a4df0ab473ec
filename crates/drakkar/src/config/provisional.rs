//! Stand-ins for the tables that other crates declare. They go as those crates declare theirs.

use drakkar_api::{Field, Kind};

const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Field {
    Field { name, kind, default: Some(default), about }
}

const NAME: Kind = Kind::Text { min_length: 1 };
const MILLISECONDS: Kind = Kind::Int { min: 1, max: 86_400_000 };

/// `drakkar_source_kafka`
pub(crate) mod source_kafka {
    use super::{Field, Kind, MILLISECONDS, NAME, field};

    pub(crate) const FIELDS: &[Field] = &[
        field(
            "connect_timeout_seconds",
            Kind::Int { min: 1, max: 3600 },
            "30",
            "How long the start waits for a broker to answer, in seconds.",
        ),
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
