//! Which optional parts this build has.

use drakkar_api::Problems;
use serde_json::{Map, Value};

/// Each sink type, the feature that brings it in, and whether this build has it.
const SINKS: [(&str, &str, bool); 6] = [
    ("kafka", "sink-kafka", cfg!(feature = "sink-kafka")),
    ("postgres", "sink-postgres", false),
    ("mongo", "sink-mongo", false),
    ("http", "sink-http", false),
    ("redis", "sink-redis", false),
    ("filesystem", "sink-file", cfg!(feature = "sink-file")),
];

/// Returns whether sinks of this type can be made.
pub(super) fn is_sink_compiled(sink: &str) -> bool {
    SINKS.iter().any(|(kind, _, compiled)| *kind == sink && *compiled)
}

/// Returns whether this build has the debug server.
pub(super) const fn is_debug_compiled() -> bool {
    false
}

/// Returns whether this build has the cache.
pub(super) const fn is_cache_compiled() -> bool {
    false
}

/// Reports sinks that this build cannot make; `sinks` is the checked section.
pub(super) fn check_sinks(sinks: &Map<String, Value>, problems: &mut Problems) {
    for (kind, feature, compiled) in SINKS {
        let instances = sinks.get(kind).and_then(Value::as_object);
        for name in instances.filter(|_| !compiled).into_iter().flat_map(Map::keys) {
            let message = format!(
                "this build has no {kind} sinks; enable the feature \"{feature}\" of the crate \
                 drakkar"
            );
            problems.push(format!("sinks.{kind}.{name}"), message);
        }
    }
}
