//! The client settings that must be the same on both sides.

use std::time::Duration;

/// What the Kafka sink of a worker sets on its producer, and hence the bare loops on theirs. Change
/// it with the sink's defaults, and never without them: a longer linger or a missing
/// acknowledgement here would flatter or slander the worker.
pub(crate) const PRODUCER: [(&str, &str); 4] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "5"),
    ("compression.type", "none"),
];

/// How often the bare loops commit; a worker's commits are due as often.
pub(crate) const COMMIT_EVERY: Duration = Duration::from_millis(500);
