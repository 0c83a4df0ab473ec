//! The one thing that the wrapper of librdkafka does not tell: whether the client is a member of its
//! group.
//!
//! An unsubscribe in the middle of a join is put off, and nothing else shows when it has come about.
//!
//! The question has no deadline of its own: librdkafka puts it in the queue of its main thread and
//! waits for the answer without a limit, as it does for an unsubscribe and for the list of what is
//! assigned. That thread answers from its memory and asks no broker. Should it hang, the source's
//! thread hangs with it; what bounds the end of the worker all the same is the engine's limit for
//! the end of a source, which leaves that thread behind.

use crate::rebalance::Consumer;
use rdkafka::consumer::Consumer as _;

/// Returns whether the broker has given the client a name, and the client has not left the group
/// since. Waits for librdkafka's own thread, without a deadline.
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
