//! What is learnt of the topic when a sink connects: that it exists, and how large a record may be.

use crate::error::sink_error;
use drakkar_api::{SinkError, SinkErrorKind};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use std::time::Duration;

/// How long a broker may take to answer when a sink connects.
const METADATA_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the topic's own settings are waited for. They are only good to know.
const CONFIG_TIMEOUT: Duration = Duration::from_millis(1500);

/// What a topic takes if nobody says otherwise: Kafka's default.
const RECORD_BYTES_DEFAULT: usize = 1_000_000;

/// What is done about a topic that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Fail,
    Create,
}

/// Makes sure that the topic exists and returns the most bytes that it takes for one record.
pub(crate) async fn look_up(
    client: &ClientConfig,
    topic: &str,
    if_missing: IfMissing,
) -> Result<usize, SinkError> {
    let admin: AdminClient<DefaultClientContext> =
        client.create().map_err(|error| sink_error(&error))?;
    let topic = topic.to_owned();
    let asked = topic.clone();
    // The client blocks while it waits for an answer.
    let (admin, found) = tokio::task::spawn_blocking(move || {
        let found = find(&admin, &asked);
        (admin, found)
    })
    .await
    .map_err(|error| SinkError::permanent(SinkErrorKind::Internal, error.to_string()))?;
    match (found?, if_missing) {
        (true, _) => {}
        (false, IfMissing::Create) => create(&admin, &topic).await?,
        (false, IfMissing::Fail) => {
            let message = format!("topic \"{topic}\" does not exist");
            return Err(SinkError::permanent(SinkErrorKind::NoTarget, message));
        }
    }
    let limit = record_limit(&admin, &topic).await.unwrap_or(RECORD_BYTES_DEFAULT);
    // Dropping a client waits for its threads.
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    Ok(limit)
}

fn find(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<bool, SinkError> {
    let metadata = admin
        .inner()
        .fetch_metadata(Some(topic), METADATA_TIMEOUT)
        .map_err(|error| sink_error(&error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let code = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
    match code {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::LeaderNotAvailable,
        ) => Ok(false),
        Some(code) => Err(sink_error(&rdkafka::error::KafkaError::MetadataFetch(code))),
        None => Ok(found.is_some_and(|found| !found.partitions().is_empty())),
    }
}

/// Creates the topic with the broker's own defaults for partitions and replicas.
async fn create(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<(), SinkError> {
    let new = NewTopic::new(topic, -1, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(METADATA_TIMEOUT));
    let results =
        admin.create_topics([&new], &options).await.map_err(|error| sink_error(&error))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            let message = format!("topic \"{topic}\" does not exist and cannot be created: {code}");
            Err(SinkError::permanent(SinkErrorKind::NoTarget, message))
        }
        _ => {
            tracing::info!(category = "sink", topic, "sink_topic_created");
            Ok(())
        }
    }
}

/// Asks for the topic's `max.message.bytes`; `None` where that is not permitted or not known.
async fn record_limit(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Option<usize> {
    let options = AdminOptions::new().request_timeout(Some(CONFIG_TIMEOUT));
    let resources = [ResourceSpecifier::Topic(topic)];
    let answer = admin.describe_configs(&resources, &options);
    let answer = tokio::time::timeout(CONFIG_TIMEOUT, answer).await.ok()?.ok()?;
    let topic = answer.into_iter().next()?.ok()?;
    topic.get("max.message.bytes")?.value.as_ref()?.parse().ok()
}
