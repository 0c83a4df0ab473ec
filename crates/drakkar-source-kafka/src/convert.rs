//! From librdkafka's messages to drakkar's. Every byte is copied once, since librdkafka's buffers
//! must be given back soon; key and value share one piece of memory.

use bytes::{Bytes, BytesMut};
use drakkar_api::{Headers, Offset, PartitionId, SourceMessage, Timestamp, TimestampKind};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A converted message.
pub(crate) struct Converted {
    pub(crate) message: SourceMessage,
    /// How many headers were left out because their names are not UTF-8.
    pub(crate) headers_left_out: usize,
}

/// Copies a message that was read from `partition`.
pub(crate) fn convert(message: &BorrowedMessage<'_>, partition: &PartitionId) -> Converted {
    let (headers, headers_left_out) = message.headers().map_or_else(Default::default, copy_headers);
    let (key, value) = copy(message.key(), message.payload());
    let message = SourceMessage {
        partition: partition.clone(),
        offset: Offset::new(message.offset()),
        key,
        value,
        timestamp: convert_timestamp(message.timestamp()),
        headers,
    };
    Converted { message, headers_left_out }
}

fn copy(key: Option<&[u8]>, value: Option<&[u8]>) -> (Option<Bytes>, Option<Bytes>) {
    let (Some(key), Some(value)) = (key, value) else {
        return (key.map(Bytes::copy_from_slice), value.map(Bytes::copy_from_slice));
    };
    let mut both = BytesMut::with_capacity(key.len() + value.len());
    both.extend_from_slice(key);
    both.extend_from_slice(value);
    (Some(both.split_to(key.len()).freeze()), Some(both.freeze()))
}

fn copy_headers(headers: &BorrowedHeaders) -> (Headers, usize) {
    let mut copied = Headers::new();
    let mut left_out = 0;
    for index in 0..headers.count() {
        // The client library panics on a name that is not UTF-8. Brokers do not check names, so
        // that one foreign message would end the source's thread.
        match catch_unwind(AssertUnwindSafe(|| headers.get(index))) {
            Ok(header) => copied.push(header.key, header.value.map(Bytes::copy_from_slice)),
            Err(_) => left_out += 1,
        }
    }
    (copied, left_out)
}

fn convert_timestamp(timestamp: rdkafka::Timestamp) -> Option<(Timestamp, TimestampKind)> {
    let millis = timestamp.to_millis()?;
    let kind = match timestamp {
        rdkafka::Timestamp::LogAppendTime(_) => TimestampKind::LogAppend,
        rdkafka::Timestamp::CreateTime(_) | rdkafka::Timestamp::NotAvailable => {
            TimestampKind::Create
        }
    };
    Some((Timestamp::from_millis(millis), kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::Timestamp as Raw;

    #[test]
    fn key_and_value_keep_their_bytes_and_their_absence() {
        for key in [None, Some(&b""[..]), Some(b"key")] {
            for value in [None, Some(&b""[..]), Some(b"value")] {
                let (copied_key, copied_value) = copy(key, value);
                assert_eq!((copied_key.as_deref(), copied_value.as_deref()), (key, value));
            }
        }
    }

    #[test]
    fn timestamps_keep_their_kind() {
        let check = |raw, expect| assert_eq!(convert_timestamp(raw), expect);
        let at = Timestamp::from_millis(5);
        check(Raw::CreateTime(5), Some((at, TimestampKind::Create)));
        check(Raw::LogAppendTime(5), Some((at, TimestampKind::LogAppend)));
        check(Raw::CreateTime(-1), None);
        check(Raw::NotAvailable, None);
    }
}
