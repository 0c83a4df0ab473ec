//! One producer of librdkafka and its callbacks.

use crate::encode::Encoded;
use crate::persistence::persistence;
use crate::report::{Report, Ticket};
use drakkar_kafka::{ErrorClass, classify};
use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the log hears of an error that repeats itself.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(10);

/// Whether a producer can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// It can.
    Good,
    /// It can, but was made with limits that are out of date: make a new one for what comes next.
    Stale,
    /// It is beyond repair.
    Broken,
}

/// The errors of the whole client, such as refused credentials.
#[derive(Debug, Default)]
struct Trouble {
    last: Option<RDKafkaErrorCode>,
    /// When the log was told of each, by the code's number. No more of them than there are codes.
    logged_at: BTreeMap<i32, Instant>,
}

/// The callbacks. They run on the client's polling thread and never block.
pub(crate) struct Callbacks {
    sink: String,
    health: watch::Sender<Health>,
    trouble: Mutex<Trouble>,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let sink = self.sink.as_str();
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                // Whether it becomes an error is decided by the verdicts.
                tracing::warn!(sink, facility, message, "the kafka client warns");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(sink, facility, message, "the kafka client says");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(sink, facility, message, "the kafka client says");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        if self.keep(code, Instant::now()) {
            tracing::warn!(sink = %self.sink, %error, reason, "the kafka client has trouble");
        }
        self.note(code);
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let report = match result {
            Ok(_) => Report::Delivered,
            Err((error, record)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                self.note(code);
                Report::Failed { code, persistence: persistence(record) }
            }
        };
        ticket.settle(report);
    }
}

impl Callbacks {
    /// Remembers an error and answers whether the log should hear of it: a client that cannot reach
    /// its brokers repeats itself many times a second, with one code and another in turn.
    fn keep(&self, code: RDKafkaErrorCode, now: Instant) -> bool {
        let mut trouble = self.trouble();
        // That all brokers are down is said right after why the last one is: that counts for more.
        if code != RDKafkaErrorCode::AllBrokersDown || trouble.last.is_none() {
            trouble.last = Some(code);
        }
        let logged_at = trouble.logged_at.get(&(code as i32));
        let is_repeated = logged_at.is_some_and(|at| now - *at < TROUBLE_INTERVAL);
        if !is_repeated {
            trouble.logged_at.insert(code as i32, now);
        }
        !is_repeated
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes from an error what it says about the producer.
    ///
    /// A record that is too large although the client let it pass means that the limits are out of
    /// date; a new producer learns the present ones.
    fn note(&self, code: RDKafkaErrorCode) {
        let health = match classify(code) {
            ErrorClass::Fatal | ErrorClass::Fenced => Health::Broken,
            ErrorClass::TooLarge => Health::Stale,
            _ => return,
        };
        self.health.send_if_modified(|present| {
            let worse = health > *present;
            *present = health.max(*present);
            worse
        });
    }
}

/// A producer with a polling thread. Dropping it never blocks the thread that drops it.
pub(crate) struct Producer {
    inner: Option<ThreadedProducer<Callbacks>>,
    health: watch::Receiver<Health>,
}

impl Producer {
    pub(crate) fn create(sink: &str, config: &ClientConfig) -> KafkaResult<Self> {
        let (sender, health) = watch::channel(Health::Good);
        let callbacks =
            Callbacks { sink: sink.to_owned(), health: sender, trouble: Mutex::default() };
        let inner = ThreadedProducer::from_config_and_context(config, callbacks)?;
        Ok(Self { inner: Some(inner), health })
    }

    fn inner(&self) -> &ThreadedProducer<Callbacks> {
        self.inner.as_ref().expect("it is taken out by drop only")
    }

    pub(crate) fn client(&self) -> &Client<Callbacks> {
        self.inner().client()
    }

    /// Returns the last error of the whole client.
    pub(crate) fn last_error(&self) -> Option<RDKafkaErrorCode> {
        self.client().context().trouble().last
    }

    /// Puts a record into the client's queue, or says why not and gives it back.
    pub(crate) fn enqueue<'a>(
        &self,
        record: Encoded<'a>,
    ) -> Result<(), (RDKafkaErrorCode, Encoded<'a>)> {
        self.inner().send(record).map_err(|(error, record)| {
            (error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), record)
        })
    }

    pub(crate) fn health(&self) -> Health {
        match self.client().fatal_error() {
            Some(_) => Health::Broken,
            None => *self.health.borrow(),
        }
    }

    /// Returns when the producer breaks; never, if it does not.
    pub(crate) async fn breaks(&self) {
        let mut health = self.health.clone();
        if health.wait_for(|health| *health == Health::Broken).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends everything that is queued or under way: each record gets its report now.
    pub(crate) fn give_up(&self) {
        self.inner().purge(PurgeConfig::default().queue().inflight());
    }

    /// Waits until every record has its report. Blocks.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        self.inner().flush(within).is_ok()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // It joins its threads, which takes up to a second.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(inner))),
            Err(_) => drop(inner),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("health", &*self.health.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaErrorCode::{
        AllBrokersDown, Authentication, BrokerTransportFailure,
    };

    fn callbacks() -> Callbacks {
        let (health, _) = watch::channel(Health::Good);
        Callbacks { sink: "s".to_owned(), health, trouble: Mutex::default() }
    }

    #[test]
    fn the_log_hears_of_a_repeated_error_now_and_then() {
        let callbacks = callbacks();
        let start = Instant::now();
        let keep = |code, seconds| callbacks.keep(code, start + Duration::from_secs(seconds));
        assert!(keep(AllBrokersDown, 0));
        assert!(!keep(AllBrokersDown, 1));
        assert!(!keep(AllBrokersDown, 9), "a repetition counts from the line in the log");
        assert!(keep(AllBrokersDown, 10));
        assert!(keep(Authentication, 11), "another error is news");
        assert!(!keep(AllBrokersDown, 12), "what comes in between does not make it news again");
        assert!(keep(AllBrokersDown, 20));
    }

    #[test]
    fn the_last_error_is_the_last_one_also_if_the_log_does_not_hear_of_it() {
        let callbacks = callbacks();
        let now = Instant::now();
        for code in [AllBrokersDown, BrokerTransportFailure, Authentication, BrokerTransportFailure]
        {
            callbacks.keep(code, now);
            assert_eq!(callbacks.trouble().last, Some(code));
        }
    }

    #[test]
    fn a_summary_does_not_hide_the_error_that_it_sums_up() {
        let callbacks = callbacks();
        for code in [Authentication, AllBrokersDown] {
            assert!(callbacks.keep(code, Instant::now()), "the log hears of both");
        }
        assert_eq!(callbacks.trouble().last, Some(Authentication));
    }
}
