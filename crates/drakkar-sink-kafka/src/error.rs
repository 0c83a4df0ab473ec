//! How librdkafka's errors become verdicts.

use crate::report::{Persistence, Report};
use drakkar_api::{SinkError, SinkErrorKind, Verdict};
use drakkar_kafka::{ErrorClass, classify, refusal};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Classifies a record by its report. `one_by_one` says that each request carries one record.
pub(crate) fn verdict(topic: &str, report: Report, one_by_one: bool) -> Verdict {
    let (code, persistence, is_own_fault) = match report {
        Report::Delivered => return Verdict::Confirmed,
        Report::Refused(code) => (code, Persistence::NotPersisted, true),
        Report::Failed { code, persistence } => (code, persistence, one_by_one),
    };
    let class = classify(code);
    let text = format!("failed to produce to topic \"{topic}\": {}", text(code));
    match (persistence, class) {
        (Persistence::PossiblyPersisted, _) => Verdict::Unknown(error(class, text)),
        (_, ErrorClass::TooLarge) if is_own_fault => Verdict::Rejected(error(class, text)),
        // The request was too large, not necessarily this record of it.
        (_, ErrorClass::TooLarge) => {
            Verdict::NotApplied(SinkError::temporary(SinkErrorKind::TooLarge, text))
        }
        (_, ErrorClass::Invalid) => Verdict::Rejected(error(class, text)),
        _ => Verdict::NotApplied(error(class, text)),
    }
}

/// Makes the error of a class.
pub(crate) fn error(class: ErrorClass, message: String) -> SinkError {
    match class {
        ErrorClass::Connection => SinkError::temporary(SinkErrorKind::Connection, message),
        ErrorClass::Timeout => SinkError::temporary(SinkErrorKind::Timeout, message),
        ErrorClass::Exhausted => SinkError::temporary(SinkErrorKind::Exhausted, message),
        // Somebody may create it again, and a new topic takes a moment to be known everywhere.
        ErrorClass::UnknownTopic => SinkError::temporary(SinkErrorKind::NoTarget, message),
        ErrorClass::Authentication | ErrorClass::Authorization => {
            SinkError::permanent(SinkErrorKind::Authentication, message)
        }
        ErrorClass::TooLarge => SinkError::permanent(SinkErrorKind::TooLarge, message),
        ErrorClass::Invalid => SinkError::permanent(SinkErrorKind::Invalid, message),
        // The producer is made anew for the next attempt.
        _ => SinkError::temporary(SinkErrorKind::Other, message),
    }
}

/// Makes the error of a failure of the whole client.
pub(crate) fn client_error(action: &str, failure: &KafkaError) -> SinkError {
    if let Some(reason) = refusal(failure) {
        return SinkError::permanent(
            SinkErrorKind::Invalid,
            format!("failed to {action}: {reason}"),
        );
    }
    let code = failure.rdkafka_error_code().unwrap_or(Code::Fail);
    error(classify(code), format!("failed to {action}: {}", text(code)))
}

/// The client's words for a code, as they fit into a sentence.
pub(crate) fn text(code: Code) -> String {
    let text = code.to_string();
    let words =
        text.rsplit_once('(').map_or(text.as_str(), |(_, inner)| inner).trim_end_matches(')');
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::ErrorStatus;

    use ErrorStatus::{Permanent, Temporary};
    use Persistence::{NotPersisted, PossiblyPersisted};

    fn check(report: Report, one_by_one: bool, expect: (&str, SinkErrorKind, ErrorStatus)) {
        let verdict = verdict("t", report, one_by_one);
        let name = match &verdict {
            Verdict::NotApplied(_) => "not applied",
            Verdict::Unknown(_) => "unknown",
            Verdict::Rejected(_) => "rejected",
            _ => "confirmed",
        };
        let error = verdict.error().expect("not confirmed");
        assert_eq!((name, error.kind(), error.status()), expect, "{report:?}");
    }

    // Promise: DL-3
    #[test]
    fn verdicts_follow_the_clients_evidence() {
        let timeout = Code::MessageTimedOut;
        let failed = |code, persistence| Report::Failed { code, persistence };
        let not = |code| failed(code, NotPersisted);
        check(not(timeout), false, ("not applied", SinkErrorKind::Timeout, Temporary));
        let possibly = failed(timeout, PossiblyPersisted);
        check(possibly, false, ("unknown", SinkErrorKind::Timeout, Temporary));
        check(not(Code::InvalidRecord), false, ("rejected", SinkErrorKind::Invalid, Permanent));
        // Another record of the same request was not valid; this one only travelled with it.
        let different = not(Code::InvalidDifferentRecord);
        check(different, false, ("not applied", SinkErrorKind::Other, Temporary));
        let unknown_topic = not(Code::UnknownTopic);
        check(unknown_topic, false, ("not applied", SinkErrorKind::NoTarget, Temporary));
        let forbidden = not(Code::TopicAuthorizationFailed);
        check(forbidden, false, ("not applied", SinkErrorKind::Authentication, Permanent));
        let fatal = failed(Code::Fatal, PossiblyPersisted);
        check(fatal, false, ("unknown", SinkErrorKind::Other, Temporary));
        check(not(Code::PurgeQueue), false, ("not applied", SinkErrorKind::Other, Temporary));
    }

    #[test]
    fn only_a_record_that_is_too_large_itself_is_rejected() {
        let code = Code::MessageSizeTooLarge;
        let failed = Report::Failed { code, persistence: NotPersisted };
        let kind = SinkErrorKind::TooLarge;
        check(Report::Refused(code), false, ("rejected", kind, Permanent));
        check(failed, true, ("rejected", kind, Permanent));
        check(failed, false, ("not applied", kind, Temporary));
    }

    #[test]
    fn the_text_is_one_sentence() {
        let verdict = verdict("t", Report::Refused(Code::QueueFull), false);
        let error = verdict.error().expect("not confirmed");
        assert_eq!(error.message(), "failed to produce to topic \"t\": local: Queue full");
    }

    #[test]
    fn settings_that_no_client_can_be_made_of_are_named() {
        let reason = "`max.in.flight` must be set <= 5".to_owned();
        let error = client_error("create a producer", &KafkaError::ClientCreation(reason));
        assert_eq!((error.kind(), error.status()), (SinkErrorKind::Invalid, Permanent));
        assert!(error.message().contains("`max.in.flight` must be"), "{}", error.message());
    }
}
