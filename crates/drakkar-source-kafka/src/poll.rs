//! The source's thread: it owns the client, from the connection to the end.
//!
//! Each turn serves the main queue (partitions that come and go, errors, logs), then every
//! partition that has messages and may hand them over, then sleeps.

use crate::commit;
use crate::config::{SourceSettings, WORKER_ID};
use crate::convert::{Converted, convert};
use crate::error;
use crate::membership::is_member;
use crate::rebalance::{Consumer, Partition, SourceContext};
use crate::source::Shared;
use crate::watch;
use drakkar_api::{
    Reply, ReplyReceiver, SourceError, SourceErrorKind, SourceEvents, SourceMessage, WorkerId,
};
use drakkar_kafka::ClientSettings;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The longest sleep. Everything wakes the thread; this is for a wake-up that librdkafka forgets.
const FALLBACK_INTERVAL: Duration = Duration::from_millis(100);
/// The most entries of the main queue that are served before partitions have their turn.
const EVENTS_PER_TURN: usize = 1000;
/// How long the end waits for librdkafka to say that nothing is assigned, beside the revoke itself,
/// and then that it has left the group.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end waits for the client to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the start pauses before it asks for the topic again.
const TOPIC_RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// What the thread needs to begin.
pub(crate) struct PollThread {
    pub(crate) client: ClientSettings,
    pub(crate) settings: SourceSettings,
    pub(crate) worker: WorkerId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: Arc<dyn SourceEvents>,
}

/// A client that is connected and has joined the group.
struct Session {
    consumer: Arc<Consumer>,
    context: Arc<SourceContext>,
    shared: Arc<Shared>,
    events: Arc<dyn SourceEvents>,
    settings: SourceSettings,
    threads: Threads,
}

/// The answers that come when the other threads have ended.
struct Threads {
    commit: ReplyReceiver<()>,
    watch: ReplyReceiver<()>,
}

impl PollThread {
    /// Runs until the source is closed or cannot go on.
    pub(crate) fn run(self, started: Reply<Result<(), SourceError>>) {
        let session = match self.open() {
            Ok(session) => session,
            Err(error) => return started.send(Err(error)),
        };
        started.send(Ok(()));
        // A bug in the engine's callbacks must not leave a source that looks alive.
        let served = catch_unwind(AssertUnwindSafe(|| session.serve()));
        let result = served.unwrap_or_else(|_| {
            Err(SourceError::new(SourceErrorKind::Other, "the source's thread panicked"))
        });
        session.close(result.is_err());
        self.events.ended(result);
    }

    fn open(&self) -> Result<Session, SourceError> {
        let config = self.settings.client_config(&self.client, self.worker.as_str());
        let context = SourceContext::new(
            Arc::clone(&self.shared),
            Arc::clone(&self.events),
            Arc::clone(self.settings.topic()),
            self.settings.instance_id(self.worker.as_str()),
            self.settings.revoke_timeout(),
        );
        let mut consumer: Consumer =
            config.create_with_context(context).map_err(|error| refused_settings(&error))?;
        consumer.set_nonempty_callback({
            let shared = Arc::clone(&self.shared);
            move || shared.wake()
        });
        let consumer = Arc::new(consumer);
        let context = Arc::clone(consumer.context());
        context.set_consumer(&consumer);
        match self.join(&consumer, &context) {
            Ok(threads) => Ok(Session {
                consumer,
                context,
                shared: Arc::clone(&self.shared),
                events: Arc::clone(&self.events),
                settings: self.settings.clone(),
                threads,
            }),
            Err(error) => {
                // Nobody has committed yet; this ends the other threads if they were started.
                drop(self.shared.commits().close());
                self.shared.watch().close();
                drop_client(consumer);
                Err(error)
            }
        }
    }

    fn join(
        &self,
        consumer: &Arc<Consumer>,
        context: &SourceContext,
    ) -> Result<Threads, SourceError> {
        self.wait_for_topic(consumer, context)?;
        self.shared.watch().set_connected(true);
        let threads = Threads {
            commit: self.spawn_commit_thread(consumer)?,
            watch: self.spawn_watch_thread(consumer)?,
        };
        consumer
            .subscribe(&[self.settings.topic()])
            .map_err(|error| SourceError::new(SourceErrorKind::Other, error.to_string()))?;
        context.set_started();
        Ok(threads)
    }

    /// Asks for the topic until it is there or the deadline has passed.
    fn wait_for_topic(
        &self,
        consumer: &Consumer,
        context: &SourceContext,
    ) -> Result<(), SourceError> {
        let timeout = self.settings.connect_timeout();
        let deadline = Instant::now() + timeout;
        // Each attempt is more patient than the one before: short at first, so that a close or a
        // refusal is seen soon; long in the end, for a broker that is slow.
        let mut patience = Duration::from_millis(500);
        // A broker's word counts for more than a later attempt that found no time for an answer.
        let mut is_known_to_miss = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = ask_for_topic(consumer, self.settings.topic(), patience.min(left));
            serve_main_queue(consumer, context, |_| {})?;
            let state = match answer {
                Ok(()) => return Ok(()),
                Err(state) => state,
            };
            let is_over = Instant::now() >= deadline;
            match state {
                _ if self.shared.is_closing() => {
                    return Err(SourceError::new(SourceErrorKind::Other, "the source is closed"));
                }
                TopicState::Refused(error) => return Err(error),
                TopicState::Missing => is_known_to_miss = true,
                TopicState::Unknown(error) => {
                    if let Some(refusal) = self.refusal(context) {
                        return Err(refusal);
                    }
                    if is_over && !is_known_to_miss {
                        return Err(self.unreachable(context, &error));
                    }
                }
            }
            if is_over {
                return Err(self.missing_topic(timeout));
            }
            patience = doubled(patience, timeout);
            self.shared.sleep(TOPIC_RETRY_INTERVAL.min(left));
        }
    }

    fn missing_topic(&self, timeout: Duration) -> SourceError {
        let text = format!(
            "the topic \"{}\" does not exist on \"{}\" and did not appear within {} s",
            self.settings.topic(),
            self.client.brokers(),
            timeout.as_secs()
        );
        SourceError::new(SourceErrorKind::Topic, text)
    }

    /// Explains that no broker answered, with the last reason that librdkafka gave.
    fn unreachable(&self, context: &SourceContext, error: &KafkaError) -> SourceError {
        let reason = context.last_error().map_or_else(|| error.to_string(), |it| it.to_string());
        let text = format!(
            "no broker of \"{}\" answered within {} s: {reason}",
            self.client.brokers(),
            self.settings.connect_timeout().as_secs()
        );
        SourceError::new(SourceErrorKind::Unreachable, text)
    }

    /// Returns how a broker refused the credentials, if it did: waiting does not mend that.
    fn refusal(&self, context: &SourceContext) -> Option<SourceError> {
        let kind = SourceErrorKind::Authentication;
        let reason = context.last_error().filter(|error| error.kind() == kind)?;
        let brokers = self.client.brokers();
        let proof = match self.client.mechanism() {
            Some(mechanism) => format!(" by SASL/{mechanism}"),
            None => String::new(),
        };
        let text = format!("a broker of \"{brokers}\" refused this client{proof}: {reason}");
        Some(SourceError::new(kind, text))
    }

    fn spawn_commit_thread(
        &self,
        consumer: &Arc<Consumer>,
    ) -> Result<ReplyReceiver<()>, SourceError> {
        let consumer = Arc::downgrade(consumer);
        let shared = Arc::clone(&self.shared);
        let events = Arc::clone(&self.events);
        self.spawn_thread("commit", move || {
            commit::run(shared.commits(), shared.watch(), &consumer, &events);
        })
    }

    fn spawn_watch_thread(
        &self,
        consumer: &Arc<Consumer>,
    ) -> Result<ReplyReceiver<()>, SourceError> {
        let consumer = Arc::downgrade(consumer);
        let shared = Arc::clone(&self.shared);
        let settings = self.settings.clone();
        self.spawn_thread("watch", move || {
            watch::run(shared.watch(), &consumer, settings.topic(), settings.offset_reset());
        })
    }

    /// Starts a thread whose panic ends the source. The answer comes when it has ended.
    fn spawn_thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<ReplyReceiver<()>, SourceError> {
        let (ended, answer) = Reply::channel();
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name(format!("drakkar-{name}"))
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(work)).is_err() {
                    let text = format!("the {name} thread panicked");
                    shared.fail(SourceError::new(SourceErrorKind::Other, text));
                }
                ended.send(());
            })
            .map_err(|error| {
                let text = format!("the {name} thread could not be started: {error}");
                SourceError::new(SourceErrorKind::Other, text)
            })?;
        Ok(answer)
    }
}

/// What a broker said about the topic.
enum TopicState {
    /// It does not exist, now.
    Missing,
    /// It will not be told.
    Refused(SourceError),
    /// Nobody answered.
    Unknown(KafkaError),
}

/// The patience of the next attempt. A start may wait for hours, so it must not grow for ever.
fn doubled(patience: Duration, limit: Duration) -> Duration {
    patience.saturating_mul(2).min(limit)
}

fn ask_for_topic(consumer: &Consumer, topic: &str, patience: Duration) -> Result<(), TopicState> {
    let metadata = consumer.fetch_metadata(Some(topic), patience).map_err(TopicState::Unknown)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(TopicState::Missing);
    };
    match found.error().map(Code::from) {
        Some(code @ (Code::TopicAuthorizationFailed | Code::InvalidTopic)) => {
            let text = format!("the topic \"{topic}\" cannot be read: {code}");
            Err(TopicState::Refused(SourceError::new(SourceErrorKind::Topic, text)))
        }
        // A topic whose leaders are being chosen exists, and its partitions will be assigned.
        None | Some(Code::LeaderNotAvailable) if !found.partitions().is_empty() => Ok(()),
        _ => Err(TopicState::Missing),
    }
}

impl Session {
    /// Works until the source is closed.
    fn serve(&self) -> Result<(), SourceError> {
        let mut first_partition = 0;
        let mut last_sweep: Option<Instant> = None;
        while !self.shared.is_closing() {
            serve_main_queue(&self.consumer, &self.context, |message| self.keep_stray(message))?;
            if let Some(failure) = self.shared.failure() {
                return Err(failure);
            }
            // Now and then partitions that did not say that they have messages are looked at too.
            let is_sweep = last_sweep.is_none_or(|last| last.elapsed() >= FALLBACK_INTERVAL);
            if is_sweep {
                last_sweep = Some(Instant::now());
                self.events.polled();
            }
            let is_busy = self.serve_partitions(first_partition, is_sweep);
            first_partition = first_partition.wrapping_add(1);
            if !is_busy {
                self.shared.sleep(FALLBACK_INTERVAL);
            }
        }
        Ok(())
    }

    /// Gives every partition a turn, beginning with another one each time. Returns whether any had
    /// something to hand over.
    fn serve_partitions(&self, first: usize, is_sweep: bool) -> bool {
        let mut partitions = self.context.partitions();
        let count = partitions.len();
        let mut is_busy = false;
        for turn in 0..count {
            let partition = &mut partitions[first.wrapping_add(turn) % count];
            if is_sweep || partition.is_ready.load(Ordering::SeqCst) {
                is_busy |= self.serve_partition(partition);
            }
        }
        is_busy
    }

    /// Hands over what one partition has, as far as its credit goes.
    fn serve_partition(&self, partition: &mut Partition) -> bool {
        let epoch = partition.epoch;
        let messages_max = self.settings.messages_per_turn();
        let Some(allowance) = self.shared.flow().allowance(epoch, messages_max) else {
            return false;
        };
        // Lowered before the queue is looked at: a message that arrives from now on raises it.
        partition.is_ready.store(false, Ordering::SeqCst);
        let mut messages = Vec::new();
        let mut bytes = 0_usize;
        let mut is_drained = false;
        let mut restart = None;
        while messages.len() < allowance.messages && bytes < allowance.bytes {
            let Some(next) = self.next_message(partition) else {
                is_drained = true;
                break;
            };
            if !partition.goes_on_with(next.offset) {
                restart = Some(next.offset);
                partition.strays.push_front(next);
                break;
            }
            if partition.newest.is_none() {
                self.shared.watch().began(epoch, next.offset);
            }
            partition.newest = Some(next.offset);
            bytes = bytes.saturating_add(next.size_bytes());
            messages.push(next);
        }
        if !is_drained {
            partition.is_ready.store(true, Ordering::SeqCst);
        }
        let is_busy = !messages.is_empty();
        if is_busy {
            self.shared.flow().spend(epoch, messages.len(), bytes);
            self.events.messages(epoch, messages);
        }
        // The message that does not go on waits for the credit of the new assignment.
        if let Some(offset) = restart {
            self.context.restart(partition, offset);
        }
        is_busy
    }

    fn next_message(&self, partition: &mut Partition) -> Option<SourceMessage> {
        if let Some(stray) = partition.strays.pop_front() {
            return Some(stray);
        }
        loop {
            match partition.queue.poll(Duration::ZERO)? {
                Ok(message) => return Some(self.take_over(convert(&message, &partition.id))),
                // Errors of the client came through the context already; these are of a message.
                Err(error) => self.context.report(error::trouble(&error, "")),
            }
        }
    }

    fn take_over(&self, converted: Converted) -> SourceMessage {
        let Converted { message, headers_left_out } = converted;
        if headers_left_out > 0 {
            let text = format!(
                "{headers_left_out} headers of the message {}:{} were left out, since their names \
                 are not UTF-8",
                message.partition, message.offset
            );
            self.context.report(SourceError::new(SourceErrorKind::Other, text));
        }
        message
    }

    /// Keeps a message that reached the main queue for its partition's next turn.
    ///
    /// Partitions have queues of their own before they are fetched, so there is none; but dropping
    /// one would be a loss.
    fn keep_stray(&self, message: &BorrowedMessage<'_>) {
        let mut partitions = self.context.partitions();
        let found = partitions.iter_mut().find(|partition| {
            partition.id.partition() == message.partition()
                && partition.id.topic() == message.topic()
        });
        // Without an assignment it is of one that has ended, and will be read again by its owner.
        if let Some(partition) = found {
            let converted = convert(message, &partition.id);
            partition.strays.push_back(self.take_over(converted));
            partition.is_ready.store(true, Ordering::SeqCst);
        }
    }

    /// Leaves the group and lets the client go. Every wait has a deadline.
    fn close(self, has_failed: bool) {
        self.shared.close();
        self.shared.watch().close();
        if has_failed {
            // Nothing can be drained or committed any more.
            self.context.lose_all();
        }
        self.leave_group();
        // Also breaks the circle of the client, its context and the partitions' queues.
        self.context.lose_all();
        for refused in self.shared.commits().close() {
            self.events.committed(refused, Err(error::ended_assignment()));
        }
        if self.threads.commit.wait_timeout(commit::END_PATIENCE).is_err() {
            tracing::warn!("a commit is still on its way at the end of the source");
        }
        if self.threads.watch.wait_timeout(watch::END_PATIENCE).is_err() {
            tracing::warn!("a broker is still being asked at the end of the source");
        }
        drop_client(self.consumer);
    }

    /// Gives the partitions back, and with them the membership, unless it is to outlive this process.
    fn leave_group(&self) {
        // An unsubscribe says goodbye to the group also for a static member; only a close does not.
        // It revokes in the same way. A client that has failed for good refuses it.
        let ends_silently = self.settings.ends_silently() && self.consumer.close_queue().is_ok();
        if !ends_silently {
            self.consumer.unsubscribe();
        }
        self.poll_while(self.settings.revoke_timeout() + LEAVE_PATIENCE, || self.has_partitions());
        if self.settings.leaves_by_name() && !ends_silently {
            // Librdkafka puts the goodbye off while it joins. Closed before, it says none, and may
            // end the process when the broker's answer comes.
            self.poll_while(LEAVE_PATIENCE, || self.has_partitions() || is_member(&self.consumer));
        }
    }

    /// Serves the client for as long as something is so, but not beyond the patience.
    fn poll_while(&self, patience: Duration, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && is_so() {
            // What comes is of no interest: messages that are not handed over are read again.
            drop(self.consumer.poll(FALLBACK_INTERVAL));
        }
    }

    fn has_partitions(&self) -> bool {
        let is_assigned = self.consumer.assignment().is_ok_and(|list| list.count() > 0);
        is_assigned || !self.context.partitions().is_empty()
    }
}

/// Serves what is in the client's main queue.
///
/// A poll answers "nothing" also after it served something that is not a message, and the queue
/// wakes nobody while it is not empty; so the context's count tells when it is.
fn serve_main_queue(
    consumer: &Consumer,
    context: &SourceContext,
    mut on_message: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), SourceError> {
    for _ in 0..EVENTS_PER_TURN {
        let served_before = context.served();
        match consumer.poll(Duration::ZERO) {
            Some(Ok(message)) => on_message(&message),
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                return Err(fatal_error(consumer, code));
            }
            // The context has it already.
            Some(Err(_)) => {}
            None if context.served() == served_before => break,
            None => {}
        }
    }
    Ok(())
}

fn fatal_error(consumer: &Consumer, code: Code) -> SourceError {
    let (code, reason) =
        consumer.client().fatal_error().unwrap_or_else(|| (code, code.to_string()));
    explain_fatal(code, &reason, consumer.context().instance_id())
}

/// Explains an error that no retry mends. What is about the static membership names it.
fn explain_fatal(code: Code, reason: &str, instance_id: Option<&str>) -> SourceError {
    let id = instance_id.unwrap_or_default();
    let what = match code {
        Code::FencedInstanceId => format!(
            "another worker has joined the group under the kafka.group_instance_id \"{id}\" and \
             taken this one's place; every worker needs an id of its own, such as {WORKER_ID}"
        ),
        Code::UnreleasedInstanceId => format!(
            "the group still has a member with the kafka.group_instance_id \"{id}\"; every worker \
             needs an id of its own, such as {WORKER_ID}, and after a kill the group keeps the \
             place until the session has ended (group.consumer.session.timeout.ms of the broker)"
        ),
        _ => {
            let text = format!("the consumer cannot go on: {reason}");
            return SourceError::new(SourceErrorKind::Other, text);
        }
    };
    SourceError::new(SourceErrorKind::Fenced, format!("{what}: {reason}"))
}

fn refused_settings(error: &KafkaError) -> SourceError {
    // The whole error may hold values of settings, and with them secrets.
    let text = match error {
        KafkaError::ClientConfig(_, _, name, _) => {
            format!("librdkafka refuses the option \"{name}\"")
        }
        KafkaError::ClientCreation(reason) => format!("librdkafka refuses the settings: {reason}"),
        other => format!("the client could not be made: {other}"),
    };
    SourceError::new(SourceErrorKind::Configuration, text)
}

/// Lets the client go, on a thread of its own: librdkafka gives no deadline for it.
fn drop_client(consumer: Arc<Consumer>) {
    let (dropped, answer) = Reply::channel();
    let spawned = std::thread::Builder::new().name("drakkar-close".to_owned()).spawn(move || {
        drop(consumer);
        dropped.send(());
    });
    if spawned.is_err() || answer.wait_timeout(CLOSE_PATIENCE).is_err() {
        tracing::warn!("the client did not close in time and is left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_static_membership_names_it() {
        let check = |code, kind, name: bool| {
            let error = explain_fatal(code, "because", Some("i-1"));
            assert_eq!(error.kind(), kind, "{code:?}");
            let text = error.to_string();
            assert!(text.ends_with("because"), "{text}");
            assert_eq!(text.contains("\"i-1\""), name, "{text}");
        };
        check(Code::FencedInstanceId, SourceErrorKind::Fenced, true);
        check(Code::UnreleasedInstanceId, SourceErrorKind::Fenced, true);
        check(Code::UnsupportedAssignor, SourceErrorKind::Other, false);
    }

    #[test]
    fn patience_grows_to_the_limit_and_stays_there() {
        let limit = Duration::from_secs(30);
        let mut patience = Duration::from_millis(500);
        patience = doubled(patience, limit);
        assert_eq!(patience, Duration::from_secs(1));
        for _ in 0..1000 {
            patience = doubled(patience, limit);
        }
        assert_eq!(patience, limit);
    }
}
