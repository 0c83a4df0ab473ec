//! From librdkafka's errors to verdicts.

use drakkar_api::{SinkError, SinkErrorKind, Verdict};
use drakkar_kafka::{ErrorClass, Persistence, classify};
use rdkafka::error::KafkaError;

/// Sorts an error and says whether trying again can help.
pub(crate) fn sink_error(error: &KafkaError) -> SinkError {
    let class = error.rdkafka_error_code().map_or(ErrorClass::Other, classify);
    let kind = match class {
        ErrorClass::Connection => SinkErrorKind::Connection,
        ErrorClass::Timeout => SinkErrorKind::Timeout,
        ErrorClass::Authentication | ErrorClass::Authorization => SinkErrorKind::Authentication,
        ErrorClass::TooLarge => SinkErrorKind::TooLarge,
        ErrorClass::UnknownTopic => SinkErrorKind::NoTarget,
        ErrorClass::Exhausted => SinkErrorKind::Exhausted,
        ErrorClass::Invalid => SinkErrorKind::Invalid,
        ErrorClass::Fatal => SinkErrorKind::Internal,
        _ => SinkErrorKind::Other,
    };
    let message = match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    };
    // A new producer replaces one that failed for good, so that is worth another attempt.
    if class.is_temporary() || class == ErrorClass::Fatal {
        SinkError::temporary(kind, message)
    } else {
        SinkError::permanent(kind, message)
    }
}

/// Judges a record by its delivery report.
pub(crate) fn verdict(error: &KafkaError, persistence: Persistence) -> Verdict {
    let failure = sink_error(error);
    match (persistence, failure.kind()) {
        (Persistence::Persisted, _) => Verdict::Confirmed,
        (_, SinkErrorKind::TooLarge | SinkErrorKind::Invalid) => Verdict::Rejected(failure),
        (Persistence::NotPersisted, _) => Verdict::NotApplied(failure),
        (Persistence::Unknown, _) => Verdict::Unknown(failure),
    }
}

/// Judges a record that could not be handed to the client.
pub(crate) fn refused(error: &KafkaError) -> Verdict {
    verdict(error, Persistence::NotPersisted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::ErrorStatus;
    use rdkafka::types::RDKafkaErrorCode as Code;

    // Promise: DL-3
    #[test]
    fn a_record_that_never_left_is_not_applied_and_one_without_an_answer_is_unknown() {
        let timed_out = KafkaError::MessageProduction(Code::MessageTimedOut);
        let Verdict::NotApplied(error) = verdict(&timed_out, Persistence::NotPersisted) else {
            panic!("it never left")
        };
        assert_eq!(
            (error.kind(), error.status()),
            (SinkErrorKind::Timeout, ErrorStatus::Temporary)
        );
        assert!(matches!(verdict(&timed_out, Persistence::Unknown), Verdict::Unknown(_)));
        assert_eq!(verdict(&timed_out, Persistence::Persisted), Verdict::Confirmed);
    }

    #[test]
    fn a_record_that_is_too_large_is_rejected() {
        let error = KafkaError::MessageProduction(Code::MessageSizeTooLarge);
        assert!(matches!(refused(&error), Verdict::Rejected(_)));
    }
}
