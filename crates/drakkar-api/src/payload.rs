//! What hooks hand to sinks: plain data, serialised once, when it is built.
//!
//! The bytes made here are the bytes that reach the sink, the dead letter, the recorder and the
//! probe. Variants are the same in every build, whatever drivers are linked.

use crate::task::object_size;
use crate::{Headers, SinkKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// One output for one sink.
///
/// `sink` fields name the instance; `None` means the only one of that type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Payload {
    /// For a `kafka` sink.
    Kafka(KafkaRecord),
    /// For a `postgres` sink.
    Postgres(PostgresRow),
    /// For a `mongo` sink.
    Mongo(MongoDocument),
    /// For a `redis` sink.
    Redis(RedisValue),
    /// For an `http` sink.
    Http(HttpRequest),
    /// For a `filesystem` sink.
    File(FileLine),
    /// For a sink of the user's own.
    Custom(CustomPayload),
}

impl Payload {
    /// Returns the type of sink that takes this payload.
    pub fn kind(&self) -> SinkKind {
        match self {
            Self::Kafka(_) => SinkKind::Kafka,
            Self::Postgres(_) => SinkKind::Postgres,
            Self::Mongo(_) => SinkKind::Mongo,
            Self::Redis(_) => SinkKind::Redis,
            Self::Http(_) => SinkKind::Http,
            Self::File(_) => SinkKind::Filesystem,
            Self::Custom(payload) => SinkKind::Custom(Arc::clone(&payload.kind)),
        }
    }

    /// Returns the instance that the handler named.
    pub fn sink(&self) -> Option<&str> {
        match self {
            Self::Kafka(payload) => payload.sink.as_deref(),
            Self::Postgres(payload) => payload.sink.as_deref(),
            Self::Mongo(payload) => payload.sink.as_deref(),
            Self::Redis(payload) => payload.sink.as_deref(),
            Self::Http(payload) => payload.sink.as_deref(),
            Self::File(payload) => payload.sink.as_deref(),
            Self::Custom(payload) => payload.sink.as_deref(),
        }
    }

    /// Returns the size that bounds of memory and of batches count, in bytes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Kafka(payload) => {
                payload.value.as_ref().map_or(0, Bytes::len)
                    + payload.key.as_ref().map_or(0, Bytes::len)
                    + payload.headers.size_bytes()
            }
            Self::Postgres(payload) => payload.table.len() + json_size(&payload.columns),
            Self::Mongo(payload) => payload.collection.len() + json_size(&payload.document),
            Self::Redis(payload) => payload.key.len() + payload.value.len(),
            Self::Http(payload) => payload.body.len(),
            Self::File(payload) => payload.path.len() + payload.line.len() + 1,
            Self::Custom(payload) => payload.value.len() + object_size(&payload.attributes),
        }
    }

    /// Returns the payload's exact bytes, as a dead letter carries them: the value, body or line
    /// itself where the payload has one, else its columns or document as JSON. `None` for a
    /// tombstone, which is not the same as an empty value.
    pub fn to_bytes(&self) -> Option<Bytes> {
        Some(match self {
            Self::Kafka(payload) => return payload.value.clone(),
            Self::Postgres(payload) => json_bytes(&payload.columns),
            Self::Mongo(payload) => json_bytes(&payload.document),
            Self::Redis(payload) => payload.value.clone(),
            Self::Http(payload) => payload.body.clone(),
            Self::File(payload) => payload.line.clone(),
            Self::Custom(payload) => payload.value.clone(),
        })
    }

    /// Returns where inside the sink it goes (table, key, path …) and what else it says beside its
    /// bytes, as a JSON object. Bytes that may not be
    /// text stand in it as `{"$base64": ".."}`.
    ///
    /// ```
    /// use drakkar_api::{KafkaRecord, Payload};
    ///
    /// let record = Payload::from(KafkaRecord::bytes("v").key(vec![0xff]).header("h", "1"));
    /// assert_eq!(
    ///     record.target().to_string(),
    ///     r#"{"headers":[["h",{"$base64":"MQ=="}]],"key":{"$base64":"/w=="}}"#,
    /// );
    /// ```
    pub fn target(&self) -> Value {
        match self {
            Self::Kafka(payload) => kafka_target(payload),
            Self::Postgres(payload) => serde_json::json!({ "table": payload.table }),
            Self::Mongo(payload) => serde_json::json!({ "collection": payload.collection }),
            Self::Redis(payload) => match payload.ttl_seconds {
                Some(ttl) => serde_json::json!({ "key": payload.key, "ttl_seconds": ttl }),
                None => serde_json::json!({ "key": payload.key }),
            },
            Self::File(payload) => serde_json::json!({ "path": payload.path }),
            Self::Custom(payload) if !payload.attributes.is_empty() => {
                serde_json::json!({ "attributes": payload.attributes })
            }
            Self::Http(_) | Self::Custom(_) => serde_json::json!({}),
        }
    }
}

fn kafka_target(record: &KafkaRecord) -> Value {
    let mut target = Map::new();
    if let Some(key) = &record.key {
        let key = match std::str::from_utf8(key) {
            Ok(key) => Value::from(key),
            Err(_) => base64_json(key),
        };
        target.insert("key".to_owned(), key);
    }
    if !record.headers.is_empty() {
        let pairs = record.headers.iter().map(|(name, value)| {
            let value = value.map_or(Value::Null, |value| base64_json(value));
            Value::from(vec![Value::from(name), value])
        });
        target.insert("headers".to_owned(), pairs.collect());
    }
    Value::Object(target)
}

/// Writes bytes as JSON: `{"$base64": ".."}`, in the standard alphabet with padding.
fn base64_json(bytes: &[u8]) -> Value {
    serde_json::json!({ "$base64": BASE64.encode(bytes) })
}

fn json_size(value: &impl Serialize) -> usize {
    json_bytes(value).len()
}

fn json_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// Serialises `value` as compact JSON.
fn to_json(value: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(value).map(Bytes::from)
}

/// A record for a Kafka topic. The topic is the sink's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaRecord {
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The key; decides the partition.
    pub key: Option<Bytes>,
    /// The value; `None` writes a tombstone.
    pub value: Option<Bytes>,
    /// The record's headers.
    pub headers: Headers,
}

impl KafkaRecord {
    /// Makes a record of these bytes.
    pub fn bytes(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// Makes a record whose value is `value` as compact JSON.
    ///
    /// # Errors
    ///
    /// When `value` cannot be written as JSON, such as a map whose keys are not text.
    pub fn json(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        to_json(value).map(Self::bytes)
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(name, Some(value.into()));
        self
    }

    /// Adds headers in their order, such as those of the message that the record comes from.
    ///
    /// ```
    /// # use drakkar_api::{KafkaRecord, MessageGroup};
    /// # fn forward<T>(group: &MessageGroup<T>) -> KafkaRecord {
    /// KafkaRecord::bytes("done").headers(group.message.headers())
    /// # }
    /// ```
    #[must_use]
    pub fn headers(mut self, headers: &Headers) -> Self {
        for (name, value) in headers.iter() {
            self.headers.push(name, value.cloned());
        }
        self
    }

    /// Names the sink instance.
    #[must_use]
    pub fn to(mut self, sink: impl Into<Arc<str>>) -> Self {
        self.sink = Some(sink.into());
        self
    }
}

/// A row for a PostgreSQL table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PostgresRow {
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The table, optionally qualified by a schema.
    pub table: String,
    /// Column names and values.
    pub columns: Map<String, Value>,
}

/// A document for a MongoDB collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MongoDocument {
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The collection.
    pub collection: String,
    /// The document, in extended JSON.
    pub document: Map<String, Value>,
}

/// A value for a Redis key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisValue {
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The key, without the sink's prefix.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Seconds until the key expires; `None` keeps it.
    pub ttl_seconds: Option<u64>,
}

/// The body of an HTTP request. Address, method and headers are the sink's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The body.
    pub body: Bytes,
}

/// A line for a file below the sink's base folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileLine {
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The file, relative to the sink's base folder.
    pub path: String,
    /// The line, without its end.
    pub line: Bytes,
}

impl FileLine {
    /// Makes a line of these bytes for the file `path`.
    pub fn bytes(path: impl Into<String>, line: impl Into<Bytes>) -> Self {
        Self { sink: None, path: path.into(), line: line.into() }
    }

    /// Makes a line that is `value` as compact JSON.
    ///
    /// # Errors
    ///
    /// When `value` cannot be written as JSON, such as a map whose keys are not text.
    pub fn json(
        path: impl Into<String>,
        value: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self::bytes(path, to_json(value)?))
    }

    /// Names the sink instance.
    #[must_use]
    pub fn to(mut self, sink: impl Into<Arc<str>>) -> Self {
        self.sink = Some(sink.into());
        self
    }
}

/// A payload for a sink of the user's own.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomPayload {
    /// The type of sink, the same word as its [`SinkKind::Custom`].
    pub kind: Arc<str>,
    /// The sink instance; `None` for the only one.
    pub sink: Option<Arc<str>>,
    /// The bytes.
    pub value: Bytes,
    /// Whatever else the sink needs.
    pub attributes: Map<String, Value>,
}

macro_rules! into_payload {
    ($($variant:ident($type:ty)),*) => {$(
        impl From<$type> for Payload {
            fn from(payload: $type) -> Self {
                Self::$variant(payload)
            }
        }
    )*};
}

into_payload!(
    Kafka(KafkaRecord),
    Postgres(PostgresRow),
    Mongo(MongoDocument),
    Redis(RedisValue),
    Http(HttpRequest),
    File(FileLine),
    Custom(CustomPayload)
);

/// What a hook answers: payloads in order. Those of one message keep their order per sink.
///
/// ```
/// use drakkar_api::{FileLine, KafkaRecord, Outputs};
///
/// let outputs = Outputs::new()
///     .with(KafkaRecord::bytes("value").key("key"))
///     .with(FileLine::bytes("log.jsonl", "{}"));
/// assert_eq!(outputs.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    payloads: Vec<Payload>,
    hook_missing: bool,
}

impl Outputs {
    /// Makes an answer without payloads.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the hook is the default one. Only the default bodies of
    /// [`Handler`](crate::Handler) can make this, so a hook that is written is always called.
    pub(crate) fn hook_missing() -> Self {
        Self { payloads: Vec::new(), hook_missing: true }
    }

    /// Returns whether this is the answer of a default hook. The engine then stops calling the hook
    /// and keeps nothing for it.
    pub fn is_hook_missing(&self) -> bool {
        self.hook_missing
    }

    /// Adds a payload.
    #[must_use]
    pub fn with(mut self, payload: impl Into<Payload>) -> Self {
        self.push(payload);
        self
    }

    /// Adds a payload.
    pub fn push(&mut self, payload: impl Into<Payload>) {
        self.payloads.push(payload.into());
    }

    /// Returns how many payloads there are.
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Returns whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Returns the payloads in order.
    pub fn payloads(&self) -> &[Payload] {
        &self.payloads
    }

    /// Takes the payloads out.
    pub fn into_payloads(self) -> Vec<Payload> {
        self.payloads
    }
}

impl<P: Into<Payload>> FromIterator<P> for Outputs {
    fn from_iter<I: IntoIterator<Item = P>>(payloads: I) -> Self {
        Self { payloads: payloads.into_iter().map(Into::into).collect(), hook_missing: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_bytes_of_a_payload_are_made_once_and_kept() {
        let record = KafkaRecord::json(&serde_json::json!({"a": 1})).expect("plain JSON");
        let payload = Payload::from(record.key(vec![0xff]));
        assert_eq!(payload.to_bytes().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(payload.size_bytes(), 8);
    }

    #[test]
    fn a_target_says_all_that_the_bytes_do_not() {
        let check = |payload: Payload, expect: Value| assert_eq!(payload.target(), expect);
        let mut record = KafkaRecord::bytes("v").key("k").header("h", vec![0xff]);
        record.headers.push("none", None);
        check(
            record.into(),
            json!({"key": "k", "headers": [["h", {"$base64": "/w=="}], ["none", null]]}),
        );
        check(KafkaRecord::bytes("v").into(), json!({}));
        let key = KafkaRecord::bytes("v").key(vec![0xff]);
        check(key.into(), json!({"key": {"$base64": "/w=="}}));
        let custom = |attributes| CustomPayload {
            kind: "own".into(),
            sink: None,
            value: Bytes::new(),
            attributes,
        };
        check(custom(Map::new()).into(), json!({}));
        let attributes = Map::from_iter([("a".to_owned(), json!(1))]);
        check(custom(attributes).into(), json!({"attributes": {"a": 1}}));
    }

    #[test]
    fn a_tombstone_has_no_bytes() {
        assert_eq!(Payload::from(KafkaRecord::default().key("k")).to_bytes(), None);
        let empty = Payload::from(KafkaRecord::bytes(""));
        assert_eq!(empty.to_bytes(), Some(Bytes::new()));
    }

    #[test]
    fn each_payload_knows_its_sink() {
        let line = Payload::from(FileLine::bytes("x.jsonl", "1").to("logs"));
        assert_eq!((line.kind(), line.sink()), (SinkKind::Filesystem, Some("logs")));
        assert_eq!(line.target(), serde_json::json!({"path": "x.jsonl"}));
    }

    #[test]
    fn user_outputs_never_say_that_the_hook_is_missing() {
        assert!(!Outputs::new().is_hook_missing());
        assert!(!Vec::<Payload>::new().into_iter().collect::<Outputs>().is_hook_missing());
    }
}
