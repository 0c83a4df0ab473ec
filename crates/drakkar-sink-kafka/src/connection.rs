//! Connecting: a real exchange with the brokers, and what it teaches.

use crate::config::KafkaSinkConfig;
use crate::error::{client_error, error, text};
use crate::producer::{Health, Producer};
use crate::settings::{ProducerSettings, TopicLimit, asking, producing};
use drakkar_api::{SinkError, SinkErrorKind};
use drakkar_kafka::{ErrorClass, classify};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataBroker;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one question may take before the client's own errors are looked at.
const QUESTION: Duration = Duration::from_millis(500);
/// How long to wait before a question is repeated.
const QUESTION_PAUSE: Duration = Duration::from_millis(50);
/// How long a request for the topic's settings, or to create it, may take.
const ADMIN: Duration = Duration::from_secs(5);

/// A producer that is known to reach its topic.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) producer: Producer,
    /// The largest record, as the engine counts bytes.
    pub(crate) item_bytes_max: usize,
    /// Whether the topic's limit could be read.
    pub(crate) limit_known: bool,
    /// Whether each request carries one record only.
    pub(crate) one_by_one: bool,
}

impl Connection {
    /// Returns the producer's health, as far as a new producer would be any better: one that sends
    /// records one by one does so because the topic's limit cannot be known.
    pub(crate) fn health(&self) -> Health {
        match self.producer.health() {
            Health::Stale if self.one_by_one => Health::Good,
            health => health,
        }
    }
}

/// Who connects, to what.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) sink: String,
    pub(crate) config: KafkaSinkConfig,
    pub(crate) base: ClientConfig,
}

/// What a broker says about the topic.
#[derive(Debug)]
struct Answer {
    topic: Topic,
    /// A broker that administrative requests can be sent to.
    broker: i32,
}

/// The state of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topic {
    Exists,
    Missing,
    /// It is being created, or its leader elected.
    NotReady,
}

impl Connector {
    /// Proves that the topic is there, learns its limit and makes the producer.
    ///
    /// `limit_passed` says that a request was refused as too large before.
    pub(crate) async fn connect(
        &self,
        deadline: Instant,
        limit_passed: bool,
    ) -> Result<Connection, SinkError> {
        let broker = self.prove_topic(deadline).await?;
        let limit = match (self.max_message_bytes(broker, deadline).await, limit_passed) {
            (Ok(bytes), _) => TopicLimit::Bytes(bytes),
            (Err(why), _) => {
                tracing::debug!(sink = %self.sink, %why, "cannot read the topic's limit");
                if limit_passed { TopicLimit::UnknownAndPassed } else { TopicLimit::Unknown }
            }
        };
        let settings = producing(&self.base, &self.config, limit);
        let ProducerSettings { client, item_bytes_max, one_by_one } = settings;
        let producer = Producer::create(&self.sink, &client)
            .map_err(|failure| client_error("create a producer", &failure))?;
        let limit_known = matches!(limit, TopicLimit::Bytes(_));
        Ok(Connection { producer, item_bytes_max, limit_known, one_by_one })
    }

    /// Makes sure that the topic is there; answers a broker to ask more.
    async fn prove_topic(&self, deadline: Instant) -> Result<i32, SinkError> {
        let answer = self.wait_until_known(self.asker(false)?, deadline).await?;
        match answer.topic {
            Topic::Exists | Topic::NotReady => return Ok(answer.broker),
            Topic::Missing if self.config.create_topic() => {}
            Topic::Missing => return Err(self.missing()),
        }
        let topic = self.config.topic();
        match self.request_topic(answer.broker, deadline).await {
            Ok(()) => tracing::info!(sink = %self.sink, topic, "created the topic"),
            Err(why) => {
                tracing::info!(sink = %self.sink, topic, %why, "leaving the topic's creation to the brokers");
            }
        }
        // Asking as a producer does creates the topic where the brokers do that by themselves.
        let answer = self.wait_until_known(self.asker(true)?, deadline).await?;
        match answer.topic {
            Topic::Exists | Topic::NotReady => Ok(answer.broker),
            Topic::Missing => Err(self.missing()),
        }
    }

    fn missing(&self) -> SinkError {
        let topic = self.config.topic();
        let text = match self.config.create_topic() {
            true => format!("topic \"{topic}\" does not exist and could not be created"),
            false => format!(
                "topic \"{topic}\" does not exist; create it, or set create_topic to have it \
                 created"
            ),
        };
        SinkError::permanent(SinkErrorKind::NoTarget, text)
    }

    fn asker(&self, creating: bool) -> Result<Arc<Producer>, SinkError> {
        Producer::create(&self.sink, &asking(&self.base, creating))
            .map(Arc::new)
            .map_err(|failure| client_error("create a client", &failure))
    }

    /// Asks until the topic is ready or known to be missing.
    async fn wait_until_known(
        &self,
        asker: Arc<Producer>,
        deadline: Instant,
    ) -> Result<Answer, SinkError> {
        loop {
            let failure = match self.ask(&asker).await {
                Ok(Answer { topic: Topic::NotReady, .. }) => {
                    let text = format!("topic \"{}\" has no leader", self.config.topic());
                    SinkError::temporary(SinkErrorKind::NoTarget, text)
                }
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.kind() == SinkErrorKind::Connection => failure,
                Err(failure) => return Err(failure),
            };
            if Instant::now() >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(QUESTION_PAUSE).await;
        }
    }

    /// Asks once.
    async fn ask(&self, asker: &Arc<Producer>) -> Result<Answer, SinkError> {
        let topic = self.config.topic().to_owned();
        let asking = Arc::clone(asker);
        let answer = tokio::task::spawn_blocking(move || {
            asking.client().fetch_metadata(Some(&topic), QUESTION)
        });
        let metadata = match answer.await {
            Ok(Ok(metadata)) => metadata,
            Ok(Err(failure)) => return Err(self.unreachable(asker, failure.rdkafka_error_code())),
            Err(_) => return Err(self.unreachable(asker, None)),
        };
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.config.topic());
        let broker = metadata.brokers().first().map_or(0, MetadataBroker::id);
        let answer = |topic| Ok(Answer { topic, broker });
        let Some(topic) = topic else { return answer(Topic::Missing) };
        let Some(code) = topic.error().map(Code::from) else {
            let has_leader = topic.partitions().iter().any(|partition| partition.leader() >= 0);
            return answer(if has_leader { Topic::Exists } else { Topic::NotReady });
        };
        match classify(code) {
            ErrorClass::UnknownTopic => answer(Topic::Missing),
            class if class.is_temporary() => answer(Topic::NotReady),
            class => {
                let (topic, why) = (self.config.topic(), text(code));
                Err(error(class, format!("failed to look up topic \"{topic}\": {why}")))
            }
        }
    }

    /// Makes the error of a question without an answer: what the client as a whole last said, if
    /// that cannot pass by itself.
    fn unreachable(&self, asker: &Producer, code: Option<Code>) -> SinkError {
        let brokers = self.base.get("bootstrap.servers").unwrap_or_default();
        let refused = asker.last_error().filter(|code| {
            matches!(classify(*code), ErrorClass::Authentication | ErrorClass::Authorization)
        });
        if let Some(code) = refused {
            let proof = match self.base.get("sasl.mechanisms") {
                Some(mechanism) => format!(" by SASL/{mechanism}"),
                None => String::new(),
            };
            let text = format!("failed to connect to \"{brokers}\"{proof}: {}", text(code));
            return error(classify(code), text);
        }
        let why = asker.last_error().or(code).map_or_else(|| "no answer".to_owned(), text);
        let text = format!("failed to reach a broker of \"{brokers}\": {why}");
        SinkError::temporary(SinkErrorKind::Connection, text)
    }

    /// Asks the brokers to create the topic with their defaults.
    async fn request_topic(&self, broker: i32, deadline: Instant) -> Result<(), Code> {
        // A broker that knows no administration never answers a request for the controller.
        if self.describe(broker, deadline).await == Err(Code::UnsupportedFeature) {
            return Err(Code::UnsupportedFeature);
        }
        let admin = self.admin()?;
        let topic = NewTopic::new(self.config.topic(), -1, TopicReplication::Fixed(-1));
        let within = Some(within(deadline));
        let options = AdminOptions::new().request_timeout(within).operation_timeout(within);
        let answers = admin.get().create_topics([&topic], &options).await.map_err(code)?;
        match answers.into_iter().next() {
            Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(code),
            None => Err(Code::NoEnt),
        }
    }

    /// Reads the topic's `max.message.bytes`. Many users may not, and then nobody is worried.
    async fn max_message_bytes(&self, broker: i32, deadline: Instant) -> Result<usize, Code> {
        let value = self.describe(broker, deadline).await?;
        value.and_then(|bytes| bytes.parse().ok()).ok_or(Code::NoEnt)
    }

    /// Asks one broker for the topic's setting `max.message.bytes`.
    async fn describe(&self, broker: i32, deadline: Instant) -> Result<Option<String>, Code> {
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(within(deadline))).broker_id(broker);
        let topic = ResourceSpecifier::Topic(self.config.topic());
        let answers = admin.get().describe_configs([&topic], &options).await.map_err(code)?;
        let settings = answers.into_iter().next().ok_or(Code::NoEnt)??;
        Ok(settings.get("max.message.bytes").and_then(|entry| entry.value.clone()))
    }

    fn admin(&self) -> Result<Admin, Code> {
        asking(&self.base, false).create().map(|client| Admin(Some(client))).map_err(code)
    }
}

/// How long an administrative request may take.
fn within(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).clamp(QUESTION, ADMIN)
}

fn code(failure: KafkaError) -> Code {
    match failure {
        // The wrapper's own accessor leaves these out.
        KafkaError::AdminOp(code) => code,
        other => other.rdkafka_error_code().unwrap_or(Code::Fail),
    }
}

/// An administration client. Dropping it joins a thread, so that is left to another thread.
struct Admin(Option<AdminClient<DefaultClientContext>>);

impl Admin {
    fn get(&self) -> &AdminClient<DefaultClientContext> {
        self.0.as_ref().expect("it is taken out by drop only")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let client = self.0.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(client))),
            Err(_) => drop(client),
        }
    }
}
