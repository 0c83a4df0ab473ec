//! The client's configuration: what the base leaves open, and what the sink insists on.

use crate::config::KafkaSinkConfig;
use rdkafka::ClientConfig;

/// Room for the framing of a request around one record.
const FRAMING_BYTES: usize = 128;
/// Room for the framing of a record and of its headers, which the engine's count of bytes leaves
/// out.
const RECORD_FRAMING_BYTES: usize = 512;
/// librdkafka's own default of `message.max.bytes`.
const CLIENT_BYTES_DEFAULT: usize = 1_000_000;
/// librdkafka's own default of `batch.size`.
const BATCH_BYTES_DEFAULT: usize = 1_000_000;
/// The least memory for queued records.
const QUEUE_BYTES_MIN: usize = 32 * 1024 * 1024;

/// What is known about the sizes that the topic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicLimit {
    /// The topic's `max.message.bytes`.
    Bytes(usize),
    /// It could not be read.
    Unknown,
    /// It could not be read, and a request of several records was refused as too large: only
    /// requests of one record tell which record is.
    UnknownAndPassed,
}

/// The configuration of a producer, and the largest record that it takes.
#[derive(Debug)]
pub(crate) struct ProducerSettings {
    pub(crate) client: ClientConfig,
    /// In bytes of key, value and headers, as the engine counts them.
    pub(crate) item_bytes_max: usize,
    /// Whether each request carries one record only.
    pub(crate) one_by_one: bool,
}

/// Makes the configuration of the client that asks about the topic.
pub(crate) fn asking(base: &ClientConfig, creating: bool) -> ClientConfig {
    let mut client = base.clone();
    // A metadata request creates the topic where the brokers permit it. Not by accident.
    client.set("allow.auto.create.topics", if creating { "true" } else { "false" });
    // It produces nothing, so it needs no identity of a producer.
    client.set("enable.idempotence", "false");
    client
}

/// Makes the configuration of the producer.
pub(crate) fn producing(
    base: &ClientConfig,
    config: &KafkaSinkConfig,
    limit: TopicLimit,
) -> ProducerSettings {
    let mut client = base.clone();
    client.set("allow.auto.create.topics", "false");
    let mut open = |name: &str, value: String| {
        if client.get(name).is_none() {
            client.set(name, value);
        }
    };
    open("acks", "all".to_owned());
    open("enable.idempotence", "true".to_owned());
    open("linger.ms", config.linger().as_millis().to_string());
    open("compression.type", config.compression().as_str().to_owned());

    let topic_bytes = match limit {
        TopicLimit::Bytes(bytes) => Some(bytes.saturating_sub(FRAMING_BYTES).max(1000)),
        TopicLimit::Unknown | TopicLimit::UnknownAndPassed => None,
    };
    let given = client.get("message.max.bytes").and_then(|bytes| bytes.parse::<usize>().ok());
    let record_bytes = match (given, topic_bytes) {
        (Some(given), Some(topic)) => given.min(topic),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => CLIENT_BYTES_DEFAULT,
    };
    client.set("message.max.bytes", record_bytes.to_string());

    // The brokers' limit is for a request's whole batch: a larger batch of small records would be
    // refused with all of them.
    let one_by_one = limit == TopicLimit::UnknownAndPassed;
    let given = client.get("batch.size").and_then(|bytes| bytes.parse::<usize>().ok());
    let batch_bytes = given.unwrap_or(BATCH_BYTES_DEFAULT).min(record_bytes);
    client.set("batch.size", if one_by_one { 1 } else { batch_bytes }.to_string());

    let limits = config.limits();
    let batches = limits.concurrency * 2;
    let queue_bytes = (batches * limits.bytes_max).max(2 * record_bytes).max(QUEUE_BYTES_MIN);
    let queue_records = (batches * limits.items_max).max(10_000);
    let mut open = |name: &str, value: String| {
        if client.get(name).is_none() {
            client.set(name, value);
        }
    };
    open("queue.buffering.max.kbytes", queue_bytes.div_ceil(1024).to_string());
    open("queue.buffering.max.messages", queue_records.to_string());
    // Without idempotence a repeated request would overtake the ones after it.
    let is_idempotent = client.get("enable.idempotence") != Some("false");
    let in_flight = if is_idempotent { "5" } else { "1" };
    if client.get("max.in.flight.requests.per.connection").is_none()
        && client.get("max.in.flight").is_none()
    {
        client.set("max.in.flight.requests.per.connection", in_flight);
    }

    // The sink answers by the client's reports: all of them, and before the deadline.
    client.set("delivery.report.only.error", "false");
    let own = config.delivery_timeout().as_millis();
    let given = client.get("message.timeout.ms").and_then(|ms| ms.parse::<u128>().ok());
    let timeout = given.filter(|given| (1..own).contains(given)).unwrap_or(own);
    client.set("message.timeout.ms", timeout.to_string());

    let item_bytes_max = record_bytes.saturating_sub(RECORD_FRAMING_BYTES).max(1);
    ProducerSettings { client, item_bytes_max, one_by_one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KafkaSinkSection;
    use rdkafka::producer::BaseProducer;

    fn settings(base: &[(&str, &str)], limit: TopicLimit) -> ProducerSettings {
        let config = KafkaSinkSection::new("t").validate("p").expect("the defaults are valid");
        let base: Vec<_> = base.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = producing(&base.into_iter().collect(), &config, limit);
        settings.client.create::<BaseProducer>().expect("librdkafka accepts all of it");
        settings
    }

    fn check(settings: &ProducerSettings, name: &str, expect: &str) {
        assert_eq!(settings.client.get(name), Some(expect), "{name}");
    }

    #[test]
    fn what_the_base_leaves_open_is_set() {
        let settings = settings(&[], TopicLimit::Unknown);
        check(&settings, "acks", "all");
        check(&settings, "enable.idempotence", "true");
        check(&settings, "linger.ms", "5");
        check(&settings, "compression.type", "none");
        check(&settings, "message.max.bytes", "1000000");
        check(&settings, "batch.size", "1000000");
        check(&settings, "max.in.flight.requests.per.connection", "5");
        check(&settings, "queue.buffering.max.kbytes", "32768");
        assert_eq!(settings.item_bytes_max, 999_488);
    }

    #[test]
    fn the_base_wins_but_reports_precede_the_deadline() {
        let settings = settings(
            &[
                ("linger.ms", "20"),
                ("compression.type", "lz4"),
                ("enable.idempotence", "false"),
                ("message.timeout.ms", "300000"),
                ("batch.size", "5000"),
            ],
            TopicLimit::Unknown,
        );
        check(&settings, "linger.ms", "20");
        check(&settings, "compression.type", "lz4");
        check(&settings, "batch.size", "5000");
        check(&settings, "max.in.flight.requests.per.connection", "1");
        check(&settings, "message.timeout.ms", "25200");
    }

    #[test]
    fn neither_a_record_nor_a_request_passes_the_topics_limit() {
        let small = settings(&[], TopicLimit::Bytes(10_000));
        check(&small, "message.max.bytes", "9872");
        check(&small, "batch.size", "9872");
        let large = settings(&[], TopicLimit::Bytes(10_000_000));
        check(&large, "message.max.bytes", "9999872");
        check(&large, "batch.size", "1000000");
        let capped = settings(&[("message.max.bytes", "2000")], TopicLimit::Bytes(10_000_000));
        check(&capped, "message.max.bytes", "2000");
        let careful = settings(&[], TopicLimit::UnknownAndPassed);
        check(&careful, "batch.size", "1");
        assert!(careful.one_by_one);
    }
}
