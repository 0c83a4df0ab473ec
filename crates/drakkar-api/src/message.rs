//! Messages: the bytes that a source delivers, and the same with a typed payload.
//!
//! Invariant: what the source gave is never changed; the payload stands beside it.

use crate::{DecodeError, Headers, Offset, PartitionId, Timestamp, TimestampKind};
use bytes::Bytes;
use std::sync::Arc;

/// A message as the source delivered it.
#[derive(Clone, Debug)]
pub struct SourceMessage {
    /// Where it was read.
    pub partition: PartitionId,
    /// Its position there.
    pub offset: Offset,
    /// The key; `None` when the message has none. It may share its memory with the value: whoever
    /// keeps a key for long should copy it.
    pub key: Option<Bytes>,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// When it was produced or appended, and which of the two.
    pub timestamp: Option<(Timestamp, TimestampKind)>,
    /// The headers in order.
    pub headers: Headers,
}

impl SourceMessage {
    /// Returns the bytes that this message holds in memory: key, value and headers.
    pub fn size_bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        let value = self.value.as_ref().map_or(0, Bytes::len);
        key + value + self.headers.size_bytes()
    }
}

/// What became of a message's value when it was decoded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ParsedPayload<T> {
    /// The value was decoded.
    Decoded(T),
    /// The value is absent: a tombstone. Never an error.
    Tombstone,
    /// The value could not be decoded, and `kafka.on_parse_error` is `pass`.
    Invalid(DecodeError),
}

/// A message with its typed payload, as hooks see it.
#[derive(Clone, Debug)]
pub struct Message<T> {
    source: Arc<SourceMessage>,
    payload: ParsedPayload<T>,
    label: String,
}

impl<T> Message<T> {
    /// Puts the parts together; the engine calls this once per message.
    pub fn new(source: impl Into<Arc<SourceMessage>>, payload: ParsedPayload<T>) -> Self {
        Self { source: source.into(), payload, label: String::new() }
    }

    /// Gives the message the label that logs and the UI show.
    pub fn set_label(&mut self, label: String) {
        self.label = label;
    }

    /// Returns the message as the source delivered it.
    pub fn source(&self) -> &SourceMessage {
        &self.source
    }

    /// Returns the topic and partition.
    pub fn partition(&self) -> &PartitionId {
        &self.source.partition
    }

    /// Returns the offset.
    pub fn offset(&self) -> Offset {
        self.source.offset
    }

    /// Returns the key's bytes.
    pub fn key(&self) -> Option<&Bytes> {
        self.source.key.as_ref()
    }

    /// Returns the value's bytes; `None` for a tombstone.
    pub fn value(&self) -> Option<&Bytes> {
        self.source.value.as_ref()
    }

    /// Returns the headers.
    pub fn headers(&self) -> &Headers {
        &self.source.headers
    }

    /// Returns when the message was produced or appended, and which of the two, where the source
    /// knows.
    pub fn timestamp(&self) -> Option<(Timestamp, TimestampKind)> {
        self.source.timestamp
    }

    /// Returns the decoded payload; `None` for a tombstone and for a value that does not parse.
    pub fn payload(&self) -> Option<&T> {
        match &self.payload {
            ParsedPayload::Decoded(payload) => Some(payload),
            ParsedPayload::Tombstone | ParsedPayload::Invalid(_) => None,
        }
    }

    /// Returns the decoded payload beside the offset that its tasks refer to; made for
    /// `filter_map(Message::payload_with_offset)`.
    pub fn payload_with_offset(&self) -> Option<(&T, Offset)> {
        self.payload().map(|payload| (payload, self.offset()))
    }

    /// Returns why the value could not be decoded, if so.
    pub fn parse_error(&self) -> Option<&DecodeError> {
        match &self.payload {
            ParsedPayload::Invalid(error) => Some(error),
            ParsedPayload::Decoded(_) | ParsedPayload::Tombstone => None,
        }
    }

    /// Returns whether the value is absent, as a compacted topic marks a deletion.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.payload, ParsedPayload::Tombstone)
    }

    /// Returns the label: `partition:offset` unless the handler's `message_label` says otherwise.
    pub fn label(&self) -> &str {
        &self.label
    }
}
