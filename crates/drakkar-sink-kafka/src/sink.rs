//! The sink itself.

use crate::config::KafkaSinkConfig;
use crate::connection::{Connection, Connector};
use crate::encode::{Encoded, encode};
use crate::error::verdict;
use crate::producer::Health;
use crate::report::{Persistence, Report, Reports, Ticket};
use drakkar_api::{
    Batch, BatchLimits, KafkaRecord, Sink, SinkError, SinkErrorKind, SinkId, Verdict,
};
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long connecting may take, unless something else is said.
const CONNECT: Duration = Duration::from_secs(30);
/// How long after its deadline a connect may come back.
const CLIENT_STUCK: Duration = Duration::from_secs(2);
/// How long to wait before a full queue is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// Produces records to one topic. See the crate's documentation for what it promises.
///
/// The same sink writes dead letters.
pub struct KafkaSink {
    id: SinkId,
    connector: Connector,
    connect_timeout: Duration,
    state: Mutex<State>,
    /// Held while connecting, so that one call at a time makes a new producer.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// Whether the topic's limit turned out to be smaller than was known.
    limit_passed: bool,
}

impl KafkaSink {
    /// Makes a sink that is not connected.
    ///
    /// `base` is the client's configuration: brokers, security and raw options. What it sets is kept,
    /// as far as the sink's promises permit.
    pub fn new(id: SinkId, config: KafkaSinkConfig, base: ClientConfig) -> Self {
        let connector = Connector { sink: id.to_string(), config, base };
        Self {
            id,
            connector,
            connect_timeout: CONNECT,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Sets how long [`connect`](Sink::connect) waits for a broker to answer; 30 s unless set.
    #[must_use]
    pub fn with_connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Returns the topic.
    pub fn topic(&self) -> &str {
        self.config().topic()
    }

    /// Returns the link for the UI, if there is one.
    pub fn ui_url(&self) -> Option<&str> {
        Some(self.config().ui_url()).filter(|url| !url.is_empty())
    }

    fn config(&self) -> &KafkaSinkConfig {
        &self.connector.config
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> Option<Arc<Connection>> {
        self.state().connection.clone()
    }

    async fn replace_connection(&self, deadline: Instant) -> Result<(), SinkError> {
        let limit_passed = self.state().limit_passed;
        let connect = self.connector.connect(deadline, limit_passed);
        let text = || {
            let text = format!("connecting to topic \"{}\" took too long", self.topic());
            SinkError::temporary(SinkErrorKind::Timeout, text)
        };
        // What the brokers do not answer in time is found out inside; this is for a client that
        // does not come back.
        let latest = deadline + CLIENT_STUCK;
        let connection = timeout_at(latest, connect).await.map_err(|_| text())??;
        let mut state = self.state();
        if connection.limit_known {
            state.limit_passed = false;
        }
        state.connection = Some(Arc::new(connection));
        Ok(())
    }

    /// Returns a connection whose producer can go on, a new one if need be.
    async fn usable_connection(&self, deadline: Instant) -> Result<Arc<Connection>, SinkError> {
        let not_connected =
            || SinkError::permanent(SinkErrorKind::Internal, "the sink is not connected");
        let present = self.connection().ok_or_else(not_connected)?;
        if present.health() == Health::Good {
            return Ok(present);
        }
        let busy = |_| {
            let text = "a new producer is still being made";
            SinkError::temporary(SinkErrorKind::Connection, text)
        };
        let _turn = timeout_at(deadline, self.connecting.lock()).await.map_err(busy)?;
        let present = self.connection().ok_or_else(not_connected)?;
        match present.health() {
            Health::Good => return Ok(present),
            Health::Stale => self.state().limit_passed = true,
            Health::Broken => present.producer.give_up(),
        }
        tracing::warn!(
            sink = %self.id,
            health = ?present.health(),
            "making a new producer"
        );
        self.replace_connection(deadline).await?;
        self.connection().ok_or_else(not_connected)
    }

    /// Puts the records into the client's queue, in order, as far as there is time.
    async fn enqueue(
        &self,
        connection: &Connection,
        batch: &Batch<'_, KafkaRecord>,
        reports: &Arc<Reports>,
        deadline: Instant,
    ) {
        for (slot, item) in batch.items().iter().enumerate() {
            let ticket = Box::new(reports.ticket(slot));
            let record = encode(self.topic(), item.payload, ticket);
            let Err((code, ticket)) = enqueue_one(connection, record, deadline).await else {
                continue;
            };
            ticket.settle(Report::Refused(code));
            if code == Code::QueueFull {
                // What comes after it must not overtake it.
                for slot in slot + 1..batch.len() {
                    reports.ticket(slot).settle(Report::Refused(code));
                }
                return;
            }
        }
    }
}

/// Tries until there is room in the queue. Gives the ticket back if there is none in time.
async fn enqueue_one(
    connection: &Connection,
    mut record: Encoded<'_>,
    deadline: Instant,
) -> Result<(), (Code, Box<Ticket>)> {
    loop {
        match connection.producer.enqueue(record) {
            Ok(()) => return Ok(()),
            Err((Code::QueueFull, back)) if Instant::now() < deadline => record = back,
            Err((code, back)) => return Err((code, back.delivery_opaque)),
        }
        sleep(QUEUE_FULL_PAUSE).await;
    }
}

impl Sink for KafkaSink {
    type Payload = KafkaRecord;

    fn id(&self) -> SinkId {
        self.id.clone()
    }

    async fn connect(&self) -> Result<(), SinkError> {
        let _turn = self.connecting.lock().await;
        self.replace_connection(Instant::now() + self.connect_timeout).await
    }

    async fn deliver(&self, batch: Batch<'_, KafkaRecord>) -> Vec<Verdict> {
        let began = Instant::now();
        let enqueue_until = began + self.config().enqueue_within();
        let connection = match self.usable_connection(enqueue_until).await {
            Ok(connection) => connection,
            Err(error) => return batch.all(Verdict::NotApplied(error)),
        };
        if Instant::now() >= enqueue_until {
            // A new producer took its time; the next attempt finds it ready.
            let text = format!("connecting to topic \"{}\" took too long", self.topic());
            let late = SinkError::temporary(SinkErrorKind::Timeout, text);
            return batch.all(Verdict::NotApplied(late));
        }
        let reports = Reports::new(batch.len());
        self.enqueue(&connection, &batch, &reports, enqueue_until).await;
        let completed = reports.completed();
        let waiting = async {
            tokio::pin!(completed);
            // What is complete counts, also when the producer broke meanwhile.
            tokio::select! {
                biased;
                () = &mut completed => return,
                () = connection.producer.breaks() => connection.producer.give_up(),
            }
            completed.await;
        };
        // Without an answer in time, the reports that are there decide.
        let _in_time = timeout_at(began + self.config().answer_after(), waiting).await.is_ok();
        // What is with the client and was not answered for may still be written.
        let silence = Report::Failed {
            code: Code::MessageTimedOut,
            persistence: Persistence::PossiblyPersisted,
        };
        let reports = (0..batch.len()).map(|slot| reports.of(slot).unwrap_or(silence));
        reports.map(|report| verdict(self.topic(), report, connection.one_by_one)).collect()
    }

    async fn close(&self) {
        let Some(connection) = self.state().connection.take() else { return };
        let within = self.config().delivery_timeout();
        let flush = tokio::task::spawn_blocking(move || {
            let is_flushed = connection.producer.flush(within);
            drop(connection);
            is_flushed
        });
        let flushed = tokio::time::timeout(self.config().answer_after(), flush).await;
        if !matches!(flushed, Ok(Ok(true))) {
            tracing::warn!(sink = %self.id, "closed the producer with records under way");
        }
    }

    fn repeat_is_harmless(&self, _payload: &KafkaRecord) -> bool {
        false
    }

    fn target(&self) -> Vec<(&'static str, String)> {
        vec![("topic", self.topic().to_owned())]
    }

    /// As configured; after `connect` also the largest record that client and topic take.
    fn limits(&self) -> BatchLimits {
        let item_bytes_max = self.connection().map(|connection| connection.item_bytes_max);
        BatchLimits { item_bytes_max, ..self.config().limits() }
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the base configuration: it holds passwords.
        f.debug_struct("KafkaSink")
            .field("id", &self.id)
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}
