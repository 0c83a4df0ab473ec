//! The calls into librdkafka's mock interface, each with the reason why it is sound.
//!
//! Invariants: `cluster` is valid from construction to drop, and it is destroyed before `host`,
//! the client that it lives in; librdkafka aborts the process otherwise.

use crate::{ApiKey, BrokerError, MockError, RecordedRequest};
use rdkafka::ClientConfig;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaMockCluster, RDKafkaType};
use rdkafka_sys as sys;
use std::ffi::{CStr, CString, c_int};
use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

/// A running mock cluster together with the client that it needs as a host.
pub(crate) struct NativeCluster {
    cluster: NonNull<RDKafkaMockCluster>,
    /// Never used after the start, but it must outlive the cluster: fields drop after `drop`.
    _host: Client<DefaultClientContext>,
}

// SAFETY: librdkafka's client is thread safe, and so is every mock function that is called here:
// each either takes the cluster's lock or sends an operation to the cluster's own thread and waits
// for it; `bootstraps` is written before the constructor returns and never again.
unsafe impl Send for NativeCluster {}
// SAFETY: as above.
unsafe impl Sync for NativeCluster {}

impl NativeCluster {
    pub(crate) fn start(brokers: i32) -> Result<Self, MockError> {
        let config = ClientConfig::new();
        let native_config = config.create_native_config().map_err(MockError::Host)?;
        let producer = RDKafkaType::RD_KAFKA_PRODUCER;
        let host = Client::new(&config, native_config, producer, DefaultClientContext)
            .map_err(MockError::Host)?;
        if brokers < 1 {
            return Err(MockError::Start { brokers });
        }
        // SAFETY: the client is valid, and it is kept beside the cluster as long as that lives.
        let cluster = unsafe { sys::rd_kafka_mock_cluster_new(host.native_ptr(), brokers) };
        let cluster = NonNull::new(cluster).ok_or(MockError::Start { brokers })?;
        Ok(Self { cluster, _host: host })
    }

    pub(crate) fn bootstrap_servers(&self) -> String {
        // SAFETY: the cluster is valid and owns a NUL-terminated string that never changes.
        let servers =
            unsafe { CStr::from_ptr(sys::rd_kafka_mock_cluster_bootstraps(self.cluster.as_ptr())) };
        servers.to_string_lossy().into_owned()
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Result<(), MockError> {
        const REPLICAS: i32 = 1;
        let name = c_string(name)?;
        // SAFETY: the cluster is valid; the name is copied before the call returns.
        let answer = unsafe {
            sys::rd_kafka_mock_topic_create(
                self.cluster.as_ptr(),
                name.as_ptr(),
                partitions,
                REPLICAS,
            )
        };
        check("create a topic", answer)
    }

    pub(crate) fn set_topic_error(&self, name: &str, error: BrokerError) -> Result<(), MockError> {
        let name = c_string(name)?;
        // SAFETY: the cluster is valid; the name is copied before the call returns.
        unsafe {
            sys::rd_kafka_mock_topic_set_error(self.cluster.as_ptr(), name.as_ptr(), error);
        }
        Ok(())
    }

    pub(crate) fn set_group_initial_delay(&self, delay: Duration) {
        // SAFETY: the cluster is valid; the value is set under its lock.
        unsafe {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(
                self.cluster.as_ptr(),
                milliseconds(delay),
            );
        }
    }

    pub(crate) fn broker_down(&self, broker: i32) -> Result<(), MockError> {
        // SAFETY: the cluster is valid; its own thread does the work.
        let answer = unsafe { sys::rd_kafka_mock_broker_set_down(self.cluster.as_ptr(), broker) };
        check("take a broker down", answer)
    }

    pub(crate) fn broker_up(&self, broker: i32) -> Result<(), MockError> {
        // SAFETY: the cluster is valid; its own thread does the work.
        let answer = unsafe { sys::rd_kafka_mock_broker_set_up(self.cluster.as_ptr(), broker) };
        check("bring a broker up", answer)
    }

    pub(crate) fn set_round_trip_time(&self, broker: i32, rtt: Duration) -> Result<(), MockError> {
        // SAFETY: the cluster is valid; its own thread does the work.
        let answer = unsafe {
            sys::rd_kafka_mock_broker_set_rtt(self.cluster.as_ptr(), broker, milliseconds(rtt))
        };
        check("set a round-trip time", answer)
    }

    pub(crate) fn push_request_errors(&self, request: ApiKey, errors: &[BrokerError]) {
        // SAFETY: the cluster is valid; the array is copied under its lock, with the length given.
        unsafe {
            sys::rd_kafka_mock_push_request_errors_array(
                self.cluster.as_ptr(),
                request.into(),
                errors.len(),
                errors.as_ptr(),
            );
        }
    }

    pub(crate) fn clear_request_errors(&self, request: ApiKey) {
        // SAFETY: the cluster is valid; the work is done under its lock.
        unsafe { sys::rd_kafka_mock_clear_request_errors(self.cluster.as_ptr(), request.into()) }
    }

    pub(crate) fn record_requests(&self) {
        // SAFETY: the cluster is valid; both calls work under its lock.
        unsafe {
            sys::rd_kafka_mock_start_request_tracking(self.cluster.as_ptr());
            sys::rd_kafka_mock_clear_requests(self.cluster.as_ptr());
        }
    }

    pub(crate) fn recorded_requests(&self) -> Vec<RecordedRequest> {
        let mut count = 0;
        // SAFETY: the cluster is valid; the answer is an array of `count` copies, or null with 0.
        let array =
            unsafe { sys::rd_kafka_mock_get_requests(self.cluster.as_ptr(), &raw mut count) };
        if array.is_null() {
            return Vec::new();
        }
        // SAFETY: as above; the array is not touched before it is destroyed below.
        let requests = unsafe { std::slice::from_raw_parts(array, count) };
        let recorded = requests.iter().map(|&request| {
            // SAFETY: each element is a valid request until the array is destroyed.
            unsafe {
                RecordedRequest {
                    broker: sys::rd_kafka_mock_request_id(request),
                    api_key: sys::rd_kafka_mock_request_api_key(request),
                }
            }
        });
        let recorded = recorded.collect();
        // SAFETY: the array came from the call above and is not used again.
        unsafe { sys::rd_kafka_mock_request_destroy_array(array, count) };
        recorded
    }
}

impl Drop for NativeCluster {
    fn drop(&mut self) {
        // SAFETY: the cluster is valid and nobody can use it after this; the host, a field, is
        // dropped after this function, so the cluster goes first.
        unsafe { sys::rd_kafka_mock_cluster_destroy(self.cluster.as_ptr()) }
    }
}

impl fmt::Debug for NativeCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeCluster")
            .field("bootstrap_servers", &self.bootstrap_servers())
            .finish_non_exhaustive()
    }
}

fn check(action: &'static str, answer: BrokerError) -> Result<(), MockError> {
    match answer {
        BrokerError::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        refused => Err(MockError::Refused { action, code: RDKafkaErrorCode::from(refused) }),
    }
}

fn c_string(name: &str) -> Result<CString, MockError> {
    CString::new(name).map_err(|_| MockError::Name { name: name.to_owned() })
}

fn milliseconds(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}
