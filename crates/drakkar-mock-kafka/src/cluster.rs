//! The cluster as tests see it.

use crate::native::NativeCluster;
use crate::{ApiKey, BrokerError, MockError};
use std::time::Duration;

/// A Kafka cluster inside the process; it ends when it is dropped.
///
/// Clients that are still connected then see their brokers go away.
#[derive(Debug)]
pub struct MockKafka {
    native: NativeCluster,
}

/// Which broker something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// Each of them.
    All,
    /// One, by its number from 1.
    One(i32),
}

/// A request that arrived at a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The broker's number, from 1.
    pub broker: i32,
    /// The kind of request, as in [`ApiKey`].
    pub api_key: i16,
}

impl MockKafka {
    /// Starts a cluster on free loopback ports.
    ///
    /// A new consumer group gets its partitions at once; librdkafka's mock would wait 3 seconds for
    /// more members.
    ///
    /// # Errors
    ///
    /// When librdkafka refuses, for instance because no port is free.
    pub fn start(brokers: i32) -> Result<Self, MockError> {
        let native = NativeCluster::start(brokers)?;
        let cluster = Self { native };
        cluster.set_group_initial_delay(Duration::ZERO);
        Ok(cluster)
    }

    /// Returns the brokers' addresses, as `bootstrap.servers` takes them.
    pub fn bootstrap_servers(&self) -> String {
        self.native.bootstrap_servers()
    }

    /// Creates a topic.
    ///
    /// # Errors
    ///
    /// When the name is not one or the topic exists.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), MockError> {
        self.native.create_topic(name, partitions)
    }

    /// Lets metadata requests for a topic fail until it is called again with no error.
    ///
    /// # Errors
    ///
    /// When the name holds a NUL byte.
    pub fn set_topic_error(&self, name: &str, error: BrokerError) -> Result<(), MockError> {
        self.native.set_topic_error(name, error)
    }

    /// Sets how long a new group waits for more members before the first assignment.
    pub fn set_group_initial_delay(&self, delay: Duration) {
        self.native.set_group_initial_delay(delay);
    }

    /// Closes all connections of a broker and refuses new ones.
    ///
    /// # Errors
    ///
    /// When there is no such broker.
    pub fn broker_down(&self, broker: Broker) -> Result<(), MockError> {
        self.native.broker_down(broker.number())
    }

    /// Lets a broker accept connections again.
    ///
    /// # Errors
    ///
    /// When there is no such broker.
    pub fn broker_up(&self, broker: Broker) -> Result<(), MockError> {
        self.native.broker_up(broker.number())
    }

    /// Delays every response of a broker.
    ///
    /// # Errors
    ///
    /// When there is no such broker.
    pub fn set_round_trip_time(&self, broker: Broker, rtt: Duration) -> Result<(), MockError> {
        self.native.set_round_trip_time(broker.number(), rtt)
    }

    /// Lets the next requests of a kind fail, one for each error, in this order.
    ///
    /// `RD_KAFKA_RESP_ERR__TRANSPORT` closes the connection instead of answering.
    pub fn push_request_errors(&self, request: ApiKey, errors: &[BrokerError]) {
        self.native.push_request_errors(request, errors);
    }

    /// Forgets the errors of a kind of request that have not been answered yet.
    pub fn clear_request_errors(&self, request: ApiKey) {
        self.native.clear_request_errors(request);
    }

    /// Starts to keep a record of the requests that arrive, and forgets those kept before.
    pub fn record_requests(&self) {
        self.native.record_requests();
    }

    /// Returns the requests since [`record_requests`](Self::record_requests), in order of arrival.
    pub fn recorded_requests(&self) -> Vec<RecordedRequest> {
        self.native.recorded_requests()
    }
}

impl Broker {
    /// Returns the number that librdkafka uses.
    fn number(self) -> i32 {
        match self {
            Self::All => -1,
            Self::One(number) => number,
        }
    }
}
