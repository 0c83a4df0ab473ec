//! The one thing that the wrapper of librdkafka does not tell: whether the client is a member of its
//! group.
//!
//! An unsubscribe in the middle of a join is put off, and nothing else shows when it has come about.

use crate::rebalance::Consumer;
use rdkafka::consumer::Consumer as _;

/// Returns whether the broker has given the client a name, and the client has not left the group
/// since. Waits for librdkafka's own thread.
pub(crate) fn is_member(consumer: &Consumer) -> bool {
    let client = consumer.client().native_ptr();
    // SAFETY: the pointer is the client's own and valid for as long as the client is borrowed.
    let name = unsafe { rdkafka_sys::rd_kafka_memberid(client) };
    if name.is_null() {
        return false;
    }
    // SAFETY: librdkafka answers a string of its own that ends with a NUL; it is ours until it is
    // given back, which is done once, to the function that the documentation names for it.
    unsafe {
        let is_named = *name != 0;
        rdkafka_sys::rd_kafka_mem_free(client, name.cast());
        is_named
    }
}
