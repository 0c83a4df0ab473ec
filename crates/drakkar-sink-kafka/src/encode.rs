//! From payloads to the client's records.

use crate::report::Ticket;
use drakkar_api::{Headers, KafkaRecord};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

/// A record in the client's form, with its claim on a report.
pub(crate) type Encoded<'a> = BaseRecord<'a, [u8], [u8], Box<Ticket>>;

/// Makes the client's form of a record. Key and value keep the difference between absent and empty.
pub(crate) fn encode<'a>(
    topic: &'a str,
    record: &'a KafkaRecord,
    ticket: Box<Ticket>,
) -> Encoded<'a> {
    BaseRecord {
        topic,
        partition: None,
        payload: record.value.as_deref(),
        key: record.key.as_deref(),
        timestamp: None,
        headers: headers(&record.headers),
        delivery_opaque: ticket,
    }
}

fn headers(headers: &Headers) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(empty, |headers, (key, value)| {
        headers.insert(Header { key, value: value.map(|value| &value[..]) })
    }))
}
