//! What a delivery report says about the broker's side: the one thing that librdkafka knows and the
//! safe wrapper does not tell.
//!
//! It decides whether a record that timed out may be sent again: one that never left the client
//! certainly had no effect.

use rdkafka::bindings::rd_kafka_message_status;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaMessage;

/// Whether a record may be in the log of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// It was never sent, or the broker refused it.
    NotPersisted,
    /// It was sent, and no answer came.
    Unknown,
    /// The broker has it.
    Persisted,
}

/// Reads the status of the message of a delivery report.
pub fn persistence(message: &BorrowedMessage<'_>) -> Persistence {
    let status = status(message.ptr());
    // The constants are those of `rd_kafka_msg_status_t` in librdkafka's public header.
    match status {
        0 => Persistence::NotPersisted,
        2 => Persistence::Persisted,
        _ => Persistence::Unknown,
    }
}

#[expect(unsafe_code, reason = "the wrapper has no accessor for a message's status")]
fn status(message: *const RDKafkaMessage) -> u32 {
    // SAFETY: the pointer comes from a `BorrowedMessage`, which keeps the message alive for the
    // length of the caller's borrow, and the function only reads a field of it.
    let status = unsafe { rd_kafka_message_status(message) };
    status as u32
}
