//! What the engine is told when librdkafka reports an error.

use drakkar_api::{SourceError, SourceErrorKind};
use drakkar_kafka::{ErrorClass, classify};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Whether librdkafka itself regards the whole assignment as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Kept,
    Lost,
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
/// `Fenced` only where the loss of the assignment is certain and will be reported, since the engine
/// then gives the assignment up: during a rebalance a commit may carry the generation of just
/// before, and the partition stays.
pub(crate) fn commit(error: &KafkaError, membership: Membership) -> SourceError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    let kind = match code {
        Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::AssignmentLost
        | Code::Fatal => SourceErrorKind::Fenced,
        _ if membership == Membership::Lost => SourceErrorKind::Fenced,
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
        let check = |code, membership, kind| {
            let error = commit(&KafkaError::ConsumerCommit(code), membership);
            assert_eq!(error.kind(), kind, "{code:?}");
        };
        check(Code::UnknownMemberId, Membership::Kept, SourceErrorKind::Fenced);
        check(Code::FencedInstanceId, Membership::Kept, SourceErrorKind::Fenced);
        check(Code::IllegalGeneration, Membership::Lost, SourceErrorKind::Fenced);
        check(Code::IllegalGeneration, Membership::Kept, SourceErrorKind::Commit);
        check(Code::RebalanceInProgress, Membership::Kept, SourceErrorKind::Commit);
        check(Code::StaleMemberEpoch, Membership::Kept, SourceErrorKind::Commit);
        check(Code::CoordinatorNotAvailable, Membership::Kept, SourceErrorKind::Commit);
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
