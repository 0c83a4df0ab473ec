//! The sink.

use crate::config::KafkaSinkConfig;
use crate::error::{refused, sink_error};
use crate::report::{Listener, Reports, Ticket};
use crate::topic::{IfMissing, look_up};
use bytes::Bytes;
use drakkar_api::{
    Batch, BatchLimits, KafkaRecord, Sink, SinkError, SinkErrorKind, SinkId, SinkKind, Verdict,
};
use drakkar_kafka::{ClientSettings, ProducerOptions};
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a full client queue is given before it is tried again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(5);

/// The most records that the client may hold beyond what the engine has on its way.
const CLIENT_QUEUE_BYTES: &str = "65536";

/// How long closing waits for the last reports.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// librdkafka's own limit of one record, where the topic's is not larger.
const CLIENT_RECORD_BYTES: usize = 1_000_000;

type Client = ThreadedProducer<Listener>;

/// Produces records to one topic. See the crate's documentation.
pub struct KafkaSink {
    id: SinkId,
    config: KafkaSinkConfig,
    if_missing: IfMissing,
    client: ClientConfig,
    producer: Mutex<Option<Arc<Client>>>,
    record_bytes_max: AtomicUsize,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink")
            .field("id", &self.id)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Makes a sink that is not connected. `worker` is this worker's name, for the broker's logs.
    pub fn new(name: &str, config: KafkaSinkConfig, client: &ClientSettings, worker: &str) -> Self {
        let id = SinkId::new(SinkKind::Kafka, name);
        Self::with_id(id, config, client, worker, IfMissing::Fail)
    }

    /// Makes the writer of dead letters: the same sink, whose topic is created if it is missing.
    pub fn dead_letters(config: KafkaSinkConfig, client: &ClientSettings, worker: &str) -> Self {
        let id = SinkId::new(SinkKind::Custom("dead_letters".into()), config.topic.as_str());
        Self::with_id(id, config, client, worker, IfMissing::Create)
    }

    fn with_id(
        id: SinkId,
        config: KafkaSinkConfig,
        client: &ClientSettings,
        worker: &str,
        if_missing: IfMissing,
    ) -> Self {
        let options = ProducerOptions {
            linger: config.linger,
            ..ProducerOptions::new(config.delivery_timeout())
        };
        let base = client.producer_config(worker, options);
        let mut client = base.clone();
        // Our own choices, which raw options may override.
        let own = [
            ("compression.type", config.compression.as_str().to_owned()),
            ("queue.buffering.max.kbytes", CLIENT_QUEUE_BYTES.to_owned()),
            ("retry.backoff.ms", "100".to_owned()),
        ];
        for (name, value) in own {
            if base.get(name).is_none() {
                client.set(name, value);
            }
        }
        Self {
            id,
            config,
            if_missing,
            client,
            producer: Mutex::new(None),
            record_bytes_max: AtomicUsize::new(CLIENT_RECORD_BYTES),
        }
    }

    fn create_producer(&self) -> Result<Arc<Client>, SinkError> {
        let mut config = self.client.clone();
        if config.get("message.max.bytes").is_none() {
            let limit = self.record_bytes_max.load(Ordering::Relaxed).max(CLIENT_RECORD_BYTES);
            config.set("message.max.bytes", limit.to_string());
        }
        let producer: Client =
            config.create_with_context(Listener).map_err(|error| sink_error(&error))?;
        Ok(Arc::new(producer))
    }

    fn producer(&self) -> Option<Arc<Client>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces a producer that failed for good, so that the next attempt finds one that works.
    fn replace_if_broken(&self, used: &Arc<Client>) {
        let Some((code, reason)) = used.client().fatal_error() else { return };
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.as_ref().is_some_and(|current| Arc::ptr_eq(current, used)) {
            return;
        }
        tracing::warn!(category = "sink", sink = %self.id, %code, reason, "sink_producer_replaced");
        match self.create_producer() {
            Ok(fresh) => *current = Some(fresh),
            Err(error) => {
                tracing::error!(category = "sink", sink = %self.id, %error, "sink_producer_failed");
            }
        }
    }

    /// Hands one record to the client; a full queue is waited for.
    async fn send(&self, producer: &Client, record: &KafkaRecord, ticket: Box<Ticket>) {
        let (reports, index) = (Arc::clone(&ticket.reports), ticket.index);
        let mut wanted: BaseRecord<'_, [u8], [u8], _> =
            BaseRecord::with_opaque_to(&self.config.topic, ticket);
        if let Some(key) = &record.key {
            wanted = wanted.key(key.as_ref());
        }
        if let Some(value) = &record.value {
            wanted = wanted.payload(value.as_ref());
        }
        if !record.headers.is_empty() {
            wanted = wanted.headers(headers(record));
        }
        loop {
            match producer.send(wanted) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), given_back)) => {
                    wanted = given_back;
                    tokio::time::sleep(QUEUE_FULL_WAIT).await;
                }
                Err((error, _)) => return reports.settle(index, refused(&error)),
            }
        }
    }
}

fn headers(record: &KafkaRecord) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(empty, |headers, (key, value)| {
        headers.insert(Header { key, value: value.map(Bytes::as_ref) })
    })
}

impl Sink for KafkaSink {
    type Payload = KafkaRecord;

    fn id(&self) -> SinkId {
        self.id.clone()
    }

    async fn connect(&self) -> Result<(), SinkError> {
        let limit = look_up(&self.client, &self.config.topic, self.if_missing).await?;
        self.record_bytes_max.store(limit, Ordering::Relaxed);
        let producer = self.create_producer()?;
        *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = Some(producer);
        Ok(())
    }

    async fn deliver(&self, batch: Batch<'_, KafkaRecord>) -> Vec<Verdict> {
        let Some(producer) = self.producer() else {
            let error = SinkError::permanent(SinkErrorKind::Internal, "the sink is not connected");
            return batch.all(Verdict::NotApplied(error));
        };
        let (reports, on_done) = Reports::new(batch.len());
        for (index, item) in batch.items().iter().enumerate() {
            let ticket = Box::new(Ticket { reports: Arc::clone(&reports), index });
            self.send(&producer, item.payload, ticket).await;
        }
        let verdicts = on_done.await.unwrap_or_else(|_| {
            // Every ticket reports, so this is a broken client.
            let error = SinkError::permanent(SinkErrorKind::Internal, "a report is missing");
            batch.all(Verdict::Unknown(error))
        });
        if verdicts.iter().any(|verdict| *verdict != Verdict::Confirmed) {
            self.replace_if_broken(&producer);
        }
        verdicts
    }

    async fn close(&self) {
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(producer) = producer else { return };
        // Flushing and dropping a client block.
        let closed = tokio::task::spawn_blocking(move || {
            let flushed = producer.flush(FLUSH_TIMEOUT);
            drop(producer);
            flushed
        });
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(category = "sink", sink = %self.id, %error, "sink_close_incomplete");
        }
    }

    fn repeat_is_harmless(&self, _payload: &KafkaRecord) -> bool {
        false
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits {
            items_max: self.config.items_max,
            bytes_max: self.config.bytes_max,
            concurrency: self.config.concurrency,
            item_bytes_max: Some(self.record_bytes_max.load(Ordering::Relaxed)),
            attempt_timeout: self.config.attempt_timeout,
        }
    }
}
