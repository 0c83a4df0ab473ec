//! The one thing that the wrapper of librdkafka does not tell: whether a record that failed can be
//! in the topic all the same.
//!
//! Without it every record that waited out an outage would be "unknown", and an unknown record is
//! never sent again by itself.

use crate::report::Persistence;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED;

/// Asks the client about a record of a delivery report.
pub(crate) fn persistence(record: &BorrowedMessage<'_>) -> Persistence {
    // SAFETY: the pointer is the record's own and valid for as long as the record is borrowed; the
    // function only reads a field of it.
    let status = unsafe { rdkafka_sys::rd_kafka_message_status(record.ptr()) };
    if status == RD_KAFKA_MSG_STATUS_NOT_PERSISTED {
        Persistence::NotPersisted
    } else {
        Persistence::PossiblyPersisted
    }
}
