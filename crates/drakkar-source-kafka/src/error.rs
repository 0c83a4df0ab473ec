//! What the engine is told when librdkafka reports an error.

use drakkar_api::{SourceError, SourceErrorKind};
use drakkar_kafka::{ErrorClass, classify};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// How an assignment stands when its commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is ours, as far as librdkafka knows.
    Held,
    /// Its revoke waits for the engine: this client cannot join a newer generation before the end.
    Leaving,
    /// It has ended, or librdkafka regards it as lost.
    Over,
}

/// Explains an error that is not about a commit, with librdkafka's own reason.
pub(crate) fn trouble(error: &KafkaError, reason: &str) -> SourceError {
    let class = error.rdkafka_error_code().map_or(ErrorClass::Other, classify);
    let kind = match class {
        ErrorClass::Connection | ErrorClass::Timeout => SourceErrorKind::Unreachable,
        ErrorClass::Authentication => SourceErrorKind::Authentication,
        ErrorClass::UnknownTopic | ErrorClass::Authorization => SourceErrorKind::Topic,
        ErrorClass::Fenced => SourceErrorKind::Fenced,
        _ => SourceErrorKind::Other,
    };
    SourceError::new(kind, if reason.is_empty() { error.to_string() } else { reason.to_owned() })
}

/// Explains a commit that failed.
///
/// `Fenced` only where the assignment is over, since a drain then waits for no other commit: while
/// partitions move, a commit may carry the generation of just before though the partition stays.
pub(crate) fn commit(error: &KafkaError, standing: Standing) -> SourceError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    let kind = match (code, standing) {
        (_, Standing::Over)
        | (Code::IllegalGeneration, Standing::Leaving)
        | (
            Code::UnknownMemberId
            | Code::FencedInstanceId
            | Code::FencedMemberEpoch
            | Code::AssignmentLost
            | Code::Fatal,
            _,
        ) => SourceErrorKind::Fenced,
        _ => SourceErrorKind::Commit,
    };
    SourceError::new(kind, format!("the commit was refused: {code}"))
}

/// Explains a commit of an assignment that has ended.
pub(crate) fn ended_assignment() -> SourceError {
    SourceError::new(SourceErrorKind::Fenced, "the assignment has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_fenced_only_when_the_assignment_is_gone() {
        let check = |code, standing, kind| {
            let error = commit(&KafkaError::ConsumerCommit(code), standing);
            assert_eq!(error.kind(), kind, "{code:?}, {standing:?}");
        };
        check(Code::UnknownMemberId, Standing::Held, SourceErrorKind::Fenced);
        check(Code::FencedInstanceId, Standing::Held, SourceErrorKind::Fenced);
        check(Code::IllegalGeneration, Standing::Over, SourceErrorKind::Fenced);
        check(Code::IllegalGeneration, Standing::Leaving, SourceErrorKind::Fenced);
        check(Code::IllegalGeneration, Standing::Held, SourceErrorKind::Commit);
        check(Code::RebalanceInProgress, Standing::Leaving, SourceErrorKind::Commit);
        check(Code::StaleMemberEpoch, Standing::Leaving, SourceErrorKind::Commit);
        check(Code::CoordinatorNotAvailable, Standing::Held, SourceErrorKind::Commit);
    }

    #[test]
    fn troubles_keep_the_reason_of_the_client() {
        let check = |code, kind| {
            let error = trouble(&KafkaError::Global(code), "because");
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, "because"), "{code:?}");
        };
        check(Code::AllBrokersDown, SourceErrorKind::Unreachable);
        check(Code::Authentication, SourceErrorKind::Authentication);
        check(Code::UnknownTopicOrPartition, SourceErrorKind::Topic);
        check(Code::TopicAuthorizationFailed, SourceErrorKind::Topic);
        check(Code::PollExceeded, SourceErrorKind::Other);
        let without = trouble(&KafkaError::Global(Code::AllBrokersDown), "");
        assert!(without.to_string().contains("AllBrokersDown"), "{without}");
    }
}
