//! Routing: which sink instance takes a payload.
//!
//! | the payload names | sinks of its type | outcome |
//! |---|---|---|
//! | nothing | one | that one |
//! | nothing | none | not configured |
//! | nothing | several | ambiguous |
//! | a name | of that name | that one |
//! | a name | no such | not configured |

use drakkar_api::{Payload, SinkId, SinkKind};

/// The sink instances, by lane number.
#[derive(Debug, Default)]
pub(crate) struct Router {
    sinks: Vec<SinkId>,
}

/// A payload that routes nowhere. Nothing of the same answer is sent then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("a payload for a {kind} sink was returned, but none is configured (sinks.{kind})")]
    NoSuchType { kind: SinkKind },
    #[error("no {kind} sink is called \"{name}\"; configured are {known}")]
    NoSuchName { kind: SinkKind, name: String, known: String },
    #[error("a payload names no {kind} sink, and there are several: {known}")]
    Ambiguous { kind: SinkKind, known: String },
}

impl Router {
    pub(crate) fn new(sinks: Vec<SinkId>) -> Self {
        Self { sinks }
    }

    /// Returns the sink of a lane.
    pub(crate) fn sink(&self, lane: usize) -> &SinkId {
        &self.sinks[lane]
    }

    /// Returns the lane that takes `payload`.
    pub(crate) fn route(&self, payload: &Payload) -> Result<usize, RouteError> {
        let kind = payload.kind();
        let mut of_kind = self.sinks.iter().enumerate().filter(|(_, sink)| *sink.kind() == kind);
        if let Some(name) = payload.sink() {
            let found = of_kind.find(|(_, sink)| sink.name() == name);
            return found.map(|(lane, _)| lane).ok_or_else(|| match self.names(&kind) {
                known if known.is_empty() => RouteError::NoSuchType { kind: kind.clone() },
                known => {
                    RouteError::NoSuchName { kind: kind.clone(), name: name.to_owned(), known }
                }
            });
        }
        match (of_kind.next(), of_kind.next()) {
            (Some((lane, _)), None) => Ok(lane),
            (None, _) => Err(RouteError::NoSuchType { kind }),
            (Some(_), Some(_)) => {
                let known = self.names(&kind);
                Err(RouteError::Ambiguous { kind, known })
            }
        }
    }

    fn names(&self, kind: &SinkKind) -> String {
        let of_kind = self.sinks.iter().filter(|sink| sink.kind() == kind);
        of_kind.map(SinkId::name).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{FileLine, KafkaRecord};

    fn router() -> Router {
        let sink = |kind, name: &str| SinkId::new(kind, name);
        Router::new(vec![
            sink(SinkKind::Kafka, "results"),
            sink(SinkKind::Filesystem, "a"),
            sink(SinkKind::Filesystem, "b"),
        ])
    }

    #[test]
    fn payloads_find_their_sink_by_type_and_name() {
        let check = |payload: Payload, expect: Result<usize, &str>| {
            let routed = router().route(&payload).map_err(|error| error.to_string());
            assert_eq!(routed, expect.map_err(str::to_owned), "{payload:?}");
        };
        let record = || KafkaRecord::bytes("x");
        let line = || FileLine::bytes("f", "x");
        check(record().into(), Ok(0));
        check(record().to("results").into(), Ok(0));
        check(line().to("b").into(), Ok(2));
        check(
            record().to("nope").into(),
            Err("no kafka sink is called \"nope\"; configured are results"),
        );
        check(
            line().into(),
            Err("a payload names no filesystem sink, and there are several: a, b"),
        );
        check(
            drakkar_api::HttpRequest::default().into(),
            Err("a payload for a http sink was returned, but none is configured (sinks.http)"),
        );
    }
}
