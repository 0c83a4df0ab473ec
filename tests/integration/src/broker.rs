//! The broker: its topics, its offsets, and its own life.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use crate::block_on::block_on;
use crate::load::PARTITIONS;
use crate::{Committed, Environment, wait_until};

/// For one question to a broker that is up.
const ASK: Duration = Duration::from_secs(10);

/// From creating a topic to all its partitions having a leader.
const CREATE_DEADLINE: Duration = Duration::from_secs(30);

/// A real broker that is up when a test begins.
#[derive(Clone, Debug)]
pub struct Broker {
    environment: Environment,
}

impl Broker {
    /// The broker of this run.
    pub fn new(environment: Environment) -> Self {
        Self { environment }
    }

    /// Creates a topic and waits until it can be used. Its records bear the time at which the broker
    /// wrote them down.
    ///
    /// # Errors
    ///
    /// It exists, or the broker does not answer.
    pub fn create_topic(&self, topic: &str) -> Result<()> {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        let new = new.set("message.timestamp.type", "LogAppendTime");
        let created = block_on(self.admin()?.create_topics([&new], &admin_options()))?;
        for result in created {
            result.map_err(|(topic, code)| anyhow::anyhow!("creating \"{topic}\": {code}"))?;
        }
        let reader = self.reader()?;
        let usable = || {
            let metadata = reader.fetch_metadata(Some(topic), ASK)?;
            let partitions = metadata.topics().first().map_or(&[][..], |it| it.partitions());
            let led = partitions.iter().filter(|it| it.leader() >= 0).count();
            Ok((led == usize::try_from(PARTITIONS)?).then_some(()))
        };
        wait_until("the leaders of a new topic", CREATE_DEADLINE, usable)
    }

    /// Deletes topics; those that do not exist are left alone.
    ///
    /// # Errors
    ///
    /// The broker does not answer.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<()> {
        block_on(self.admin()?.delete_topics(topics, &admin_options()))?;
        Ok(())
    }

    /// By partition, the offset that the next record of the topic will get.
    ///
    /// # Errors
    ///
    /// There is no such topic, or the broker does not answer.
    pub fn end_offsets(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        self.ends(topic)?.read()
    }

    /// For asking again and again for the end of one topic.
    pub(crate) fn ends(&self, topic: &str) -> Result<Ends> {
        let reader = self.reader()?;
        let metadata = reader.fetch_metadata(Some(topic), ASK)?;
        let topic_metadata = metadata.topics().first().context("no answer about the topic")?;
        ensure!(topic_metadata.error().is_none(), "there is no topic \"{topic}\"");
        let mut partitions = TopicPartitionList::new();
        for partition in topic_metadata.partitions() {
            // As a time, the end means "the latest": one request for all partitions.
            partitions.add_partition_offset(topic, partition.id(), Offset::End)?;
        }
        ensure!(partitions.count() > 0, "\"{topic}\" has no partitions");
        Ok(Ends { reader, partitions })
    }

    /// For asking again and again for the offsets that a group has committed.
    pub(crate) fn group_offsets(&self, group: &str, topic: &str) -> Result<GroupOffsets> {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(topic, 0, PARTITIONS - 1);
        // It never subscribes, so it never becomes a member of the group.
        Ok(GroupOffsets { consumer: self.consumer(group)?, partitions })
    }

    /// A consumer that belongs to no group.
    pub(crate) fn reader(&self) -> Result<BaseConsumer> {
        self.consumer("drakkar-integration-reader")
    }

    /// Settings that every client here has.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        // The broker is away now and then; the default waits up to ten seconds for the next try.
        config.set("reconnect.backoff.max.ms", "500");
        config
    }

    /// Where clients connect, `host:port`.
    pub fn address(&self) -> &str {
        &self.environment.kafka
    }

    /// Ends the broker cleanly and starts it again with its data.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub fn restart(&self) -> Result<()> {
        self.services("restart")
    }

    /// Ends the broker with SIGKILL.
    ///
    /// # Errors
    ///
    /// It was not up.
    pub fn kill(&self) -> Result<()> {
        self.services("kill")
    }

    /// Starts a broker that was killed, with its data.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub fn start(&self) -> Result<()> {
        self.services("up")
    }

    fn services(&self, verb: &str) -> Result<()> {
        let mut command = Command::new(&self.environment.xtask);
        let output = command.args(["services", verb, "kafka"]).output()?;
        ensure!(
            output.status.success(),
            "services {verb} kafka: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(AdminClient::from_config(&self.client())?)
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer> {
        let mut config = self.client();
        config.set("group.id", group).set("enable.auto.commit", "false");
        // A record that has gone must be an error, not a reason to begin elsewhere.
        config.set("auto.offset.reset", "error");
        Ok(config.create()?)
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK))
}

/// The end of a topic, for asking more than once.
pub(crate) struct Ends {
    reader: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Ends {
    /// By partition, the offset that the next record will get.
    pub(crate) fn read(&self) -> Result<BTreeMap<i32, i64>> {
        let answer = self.reader.offsets_for_times(self.partitions.clone(), ASK)?;
        let end = |it: &TopicPartitionListElem<'_>| Ok((it.partition(), known_offset(it)?));
        let ends: Result<BTreeMap<_, _>> = answer.elements().iter().map(end).collect();
        let ends = ends.context("reading the end of a topic")?;
        ensure!(ends.len() == self.partitions.count(), "the end of some partitions is unknown");
        Ok(ends)
    }

    /// How many records the topic has had.
    pub(crate) fn count(&self) -> Result<u64> {
        Ok(u64::try_from(self.read()?.values().sum::<i64>())?)
    }
}

/// What a group has committed, for asking more than once.
pub(crate) struct GroupOffsets {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl GroupOffsets {
    pub(crate) fn read(&self) -> Result<Committed> {
        let answer = self.consumer.committed_offsets(self.partitions.clone(), ASK)?;
        ensure!(answer.count() == self.partitions.count(), "some partitions were left out");
        let mut committed = Vec::new();
        for element in answer.elements() {
            element.error()?;
            // Without a commit the offset is invalid.
            if element.offset() != Offset::Invalid {
                committed.push((element.partition(), known_offset(&element)?));
            }
        }
        Ok(committed.into_iter().collect())
    }
}

fn known_offset(element: &TopicPartitionListElem<'_>) -> Result<i64> {
    element.error()?;
    match element.offset() {
        Offset::Offset(offset) => Ok(offset),
        other => anyhow::bail!("partition {} has the offset {other:?}", element.partition()),
    }
}
