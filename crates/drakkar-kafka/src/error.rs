//! librdkafka's error codes, sorted by what can be done about them.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What an error code means for whoever tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// No broker, or not the right one, can be reached now. Temporary.
    Connection,
    /// Something took too long. Temporary, and the outcome may be unknown.
    Timeout,
    /// The credentials are refused, or encryption fails.
    Authentication,
    /// The credentials are good but do not permit this.
    Authorization,
    /// The record is larger than the client or the broker takes.
    TooLarge,
    /// The topic or partition does not exist.
    UnknownTopic,
    /// The client's queue is full, or the broker is short of something. Temporary.
    Exhausted,
    /// The group moves partitions. Temporary.
    Rebalance,
    /// The group, or another client with the same identity, has shut this client out.
    Fenced,
    /// The request or the record is not valid.
    Invalid,
    /// The client is beyond repair and must be made anew.
    Fatal,
    /// Anything else.
    Other,
}

/// Sorts an error code.
pub fn classify(code: Code) -> ErrorClass {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::UnknownBroker
        | Code::NodeUpdate
        | Code::WaitingForCoordinator
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::RebootstrapRequired => ErrorClass::Connection,
        Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut => ErrorClass::Timeout,
        Code::Authentication
        | Code::SSL
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::UnacceptableCredential
        | Code::DelegationTokenExpired
        | Code::DelegationTokenNotFound => ErrorClass::Authentication,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::DelegationTokenAuthorizationFailed => ErrorClass::Authorization,
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::OffsetMetadataTooLarge => ErrorClass::TooLarge,
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic => ErrorClass::UnknownTopic,
        Code::QueueFull
        | Code::ISRInsufficient
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ThrottlingQuotaExceeded
        | Code::KafkaStorageError
        | Code::CriticalSystemResource => ErrorClass::Exhausted,
        Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::MemberIdRequired
        | Code::InProgress => ErrorClass::Rebalance,
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::UnreleasedInstanceId
        | Code::AssignmentLost
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch => ErrorClass::Fenced,
        Code::BadMessage
        | Code::BadCompression
        | Code::InvalidArgument
        | Code::InvalidMessage
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidRequest
        | Code::InvalidConfig
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InvalidCommitOffsetSize
        | Code::InconsistentGroupProtocol
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat => ErrorClass::Invalid,
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerIdMapping => ErrorClass::Fatal,
        _ => ErrorClass::Other,
    }
}

impl ErrorClass {
    /// Returns whether trying the same again later can succeed.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Connection | Self::Timeout | Self::Exhausted | Self::Rebalance)
    }
}

/// Says why no client can be made of its settings; nothing if that is not what failed.
///
/// The text names options and holds none of their values, since any may be a secret.
pub fn refusal(failure: &KafkaError) -> Option<String> {
    match failure {
        KafkaError::ClientConfig(_, _, name, _) => {
            Some(format!("librdkafka refuses the option \"{name}\""))
        }
        // The reason is about options that do not fit together, or a file that cannot be read.
        KafkaError::ClientCreation(reason) => {
            Some(format!("librdkafka refuses the settings: {reason}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_can_be_done() {
        let check = |code, class, temporary| {
            assert_eq!(classify(code), class, "{code:?}");
            assert_eq!(classify(code).is_temporary(), temporary, "{code:?}");
        };
        check(Code::AllBrokersDown, ErrorClass::Connection, true);
        check(Code::MessageTimedOut, ErrorClass::Timeout, true);
        check(Code::QueueFull, ErrorClass::Exhausted, true);
        check(Code::RebalanceInProgress, ErrorClass::Rebalance, true);
        check(Code::SaslAuthenticationFailed, ErrorClass::Authentication, false);
        check(Code::TopicAuthorizationFailed, ErrorClass::Authorization, false);
        check(Code::MessageSizeTooLarge, ErrorClass::TooLarge, false);
        check(Code::UnknownTopicOrPartition, ErrorClass::UnknownTopic, false);
        check(Code::UnknownMemberId, ErrorClass::Fenced, false);
        check(Code::Fatal, ErrorClass::Fatal, false);
        check(Code::Unknown, ErrorClass::Other, false);
    }
}
