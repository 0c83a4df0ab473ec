//! One list of checks for every sink, over fakes and over real services.
//!
//! To check a sink of your own, describe its destination to the suite with a [`SinkFixture`] and run
//! [`sink_suite`] in a test. Every check gets a fixture of its own, so that no check sees what
//! another has left:
//!
//! ```
//! use bytes::Bytes;
//! use drakkar_api::{CustomPayload, SinkError, SinkErrorKind, SinkId, SinkKind};
//! use drakkar_testkit::FakeSink;
//! use drakkar_testkit::conformance::{SinkFixture, sink_suite};
//!
//! /// The destination of your sink; here the fake keeps what it is given.
//! struct Fixture(FakeSink<CustomPayload>);
//!
//! impl SinkFixture for Fixture {
//!     type Sink = FakeSink<CustomPayload>;
//!
//!     fn sink(&self) -> Self::Sink {
//!         self.0.clone()
//!     }
//!
//!     fn unusable_sink(&self) -> Self::Sink {
//!         let sink = FakeSink::new(SinkId::new(SinkKind::Custom("mine".into()), "off"));
//!         for _ in 0..9 {
//!             sink.fail_connect(SinkError::temporary(SinkErrorKind::Connection, "nobody there"));
//!         }
//!         sink
//!     }
//!
//!     fn item(&self, target: u32, _number: u32, content: &[u8]) -> CustomPayload {
//!         let value = Bytes::copy_from_slice(content);
//!         let mut attributes = serde_json::Map::new();
//!         attributes.insert("target".to_owned(), target.into());
//!         CustomPayload { kind: "mine".into(), sink: None, value, attributes }
//!     }
//!
//!     async fn read(&self, target: u32, _expected: usize) -> Vec<Bytes> {
//!         let applied = self.0.applied().into_iter().map(|applied| applied.payload);
//!         let here = applied.filter(|payload| payload.attributes["target"] == target);
//!         here.map(|payload| payload.value).collect()
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let kind = SinkKind::Custom("mine".into());
//! sink_suite(|| async { Fixture(FakeSink::new(SinkId::new(kind.clone(), "main")).tolerant()) }).await;
//! # });
//! ```
//!
//! Each check is also a function of its own, to be run alone while a sink is being written. They
//! fail by panicking.

use bytes::Bytes;
use drakkar_api::{
    Batch, BatchItem, DeliveryId, Offset, PartitionId, Sink, SinkErrorKind, Verdict,
};
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Counts the messages that items are said to come from.
static MESSAGES: AtomicI64 = AtomicI64::new(0);

/// A destination to check a sink against, and how to look into it.
///
/// # Contract
///
/// - All sinks of one fixture have the same destination, which is empty at first.
/// - A target is where order counts: a file, a key of a topic, a table. Different numbers are
///   different targets.
pub trait SinkFixture: Send + Sync {
    /// The sink to check.
    type Sink: Sink;

    /// Makes a sink that is not connected, on the fixture's destination.
    fn sink(&self) -> Self::Sink;

    /// Makes a sink whose destination cannot be used: nobody listens, or it does not exist.
    fn unusable_sink(&self) -> Self::Sink;

    /// Makes an item with this content for one of the targets. `number` is different for items
    /// that must not replace each other.
    fn item(&self, target: u32, number: u32, content: &[u8]) -> Payload<Self>;

    /// Reads the contents that arrived at a target, in order. Waits a reasonable time for
    /// `expected` of them; answers all that are there, also if these are more or fewer.
    fn read(&self, target: u32, expected: usize) -> impl Future<Output = Vec<Bytes>> + Send;

    /// Makes an item that the destination can never take; `None` if there is no such thing.
    fn rejected_item(&self) -> Option<Payload<Self>> {
        None
    }

    /// Makes an item that is larger than the destination takes; `None` if it has no limit. Called
    /// when a sink is connected.
    fn oversized_item(&self, _sink: &Self::Sink) -> Option<Payload<Self>> {
        None
    }

    /// Returns whether an item can have this content; the checks leave out what cannot be.
    fn can_carry(&self, _content: &[u8]) -> bool {
        true
    }

    /// Returns whether the items of one target arrive in the order of their batch.
    fn keeps_order(&self) -> bool {
        true
    }
}

/// The payload type of a fixture's sink.
pub type Payload<F> = <<F as SinkFixture>::Sink as Sink>::Payload;

/// Runs all checks, each against a fixture of its own.
///
/// # Panics
///
/// If a check fails; the message says which and what was seen.
pub async fn sink_suite<F, Made>(make: impl Fn() -> Made + Send + Sync)
where
    F: SinkFixture,
    Made: Future<Output = F> + Send,
{
    settings_make_sense(&make().await).await;
    connect_failures_are_loud(&make().await).await;
    nothing_is_confirmed_before_connect(&make().await).await;
    every_item_gets_a_verdict_and_arrives_once(&make().await).await;
    order_is_kept_within_a_target(&make().await).await;
    contents_arrive_unchanged(&make().await).await;
    a_rejected_item_leaves_its_neighbours_alone(&make().await).await;
    an_oversized_item_leaves_its_neighbours_alone(&make().await).await;
    deliveries_may_overlap(&make().await).await;
    a_dropped_delivery_leaves_the_sink_usable(&make().await).await;
    a_harmless_repeat_changes_nothing(&make().await).await;
    another_sink_goes_on_where_one_was_closed(&make().await).await;
    closing_twice_is_harmless(&make().await).await;
}

/// Checks that the sink's identity is stable and that its limits can be kept.
pub async fn settings_make_sense<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    assert_eq!(sink.id(), fixture.sink().id(), "two sinks of one fixture have one identity");
    connect(&sink).await;
    let limits = sink.limits();
    assert!(limits.items_max >= 1 && limits.bytes_max >= 1, "{limits:?}: no batch is possible");
    assert!(limits.concurrency >= 1, "{limits:?}: no delivery is possible");
    assert!(!limits.attempt_timeout.is_zero(), "{limits:?}: every attempt is too late");
    sink.close().await;
}

/// Checks that `connect` fails when the destination cannot be used, and may be tried again.
pub async fn connect_failures_are_loud<F: SinkFixture>(fixture: &F) {
    let sink = fixture.unusable_sink();
    for attempt in 1..=2 {
        let limit = Duration::from_secs(60);
        let answer = tokio::time::timeout(limit, sink.connect()).await;
        let answer = answer.unwrap_or_else(|_| panic!("connect took longer than {limit:?}"));
        let error = answer.expect_err("connect to an unusable destination succeeded");
        assert_ne!(error.kind(), SinkErrorKind::Internal, "attempt {attempt}: {error}");
        assert!(!error.message().is_empty(), "attempt {attempt}: an error without words");
    }
    sink.close().await;
}

/// Checks that a sink without a connection says so, item by item, and has no effect.
pub async fn nothing_is_confirmed_before_connect<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    let items = numbered(fixture, 0, 0..2);
    let verdicts = deliver(&sink, &items).await;
    let not_applied = |verdict: &Verdict| matches!(verdict, Verdict::NotApplied(_));
    assert!(verdicts.iter().all(not_applied), "before connect: {verdicts:?}");
    connect(&sink).await;
    confirm(&sink, &items[..1]).await;
    assert_eq!(fixture.read(0, 1).await.len(), 1, "a delivery before connect had an effect");
    sink.close().await;
}

/// Checks batches of many sizes over several targets.
pub async fn every_item_gets_a_verdict_and_arrives_once<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    let mut expected = vec![Vec::new(); 3];
    let mut number = 0;
    for size in [1, 2, 7, 100] {
        let size = size.min(sink.limits().items_max);
        let items: Vec<_> = (0..size)
            .map(|_| {
                let target = number % 3;
                let content = number.to_string();
                expected[target as usize].push(content.clone());
                number += 1;
                fixture.item(target, number, content.as_bytes())
            })
            .collect();
        confirm(&sink, &items).await;
    }
    for (target, mut expected) in (0..).zip(expected) {
        let mut arrived = texts(fixture.read(target, expected.len()).await);
        arrived.sort();
        expected.sort();
        assert_eq!(arrived, expected, "target {target}: not every item arrived exactly once");
    }
    sink.close().await;
}

/// Checks that batches, one after the other, arrive in order at each target.
pub async fn order_is_kept_within_a_target<F: SinkFixture>(fixture: &F) {
    if !fixture.keeps_order() {
        return;
    }
    let sink = fixture.sink();
    connect(&sink).await;
    for batch in 0..4 {
        let mut items = Vec::new();
        for number in batch * 20..(batch + 1) * 20 {
            let content = number.to_string();
            items.push(fixture.item(number % 2, number, content.as_bytes()));
        }
        for part in items.chunks(sink.limits().items_max) {
            confirm(&sink, part).await;
        }
    }
    for target in 0..2 {
        let expected: Vec<_> = (target..80).step_by(2).map(|number| number.to_string()).collect();
        let arrived = texts(fixture.read(target, expected.len()).await);
        assert_eq!(arrived, expected, "target {target}: not in the batch's order");
    }
    sink.close().await;
}

/// Checks text of many scripts, all bytes, nothing at all, and something long.
pub async fn contents_arrive_unchanged<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let contents: [&[u8]; 7] = [
        "{\"text\":\"Grüße, Füße, 日本語, \u{1f980}, e\u{301}\"}".as_bytes(),
        b"",
        b" leading and trailing ",
        b"\\ \" ' ` ; -- % $ {}",
        b"\r\t\0\x1b[0m",
        &all_bytes,
        &[b'x'; 100_000],
    ];
    for (target, content) in (0..).zip(contents) {
        if !fixture.can_carry(content) {
            continue;
        }
        confirm(&sink, &[fixture.item(target, 0, content)]).await;
        let arrived = fixture.read(target, 1).await;
        assert_eq!(arrived, [content], "content {target} was changed");
    }
    sink.close().await;
}

/// Checks that an item that can never be taken is rejected alone.
pub async fn a_rejected_item_leaves_its_neighbours_alone<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    if let Some(rejected) = fixture.rejected_item() {
        only_the_middle_is_rejected(fixture, &sink, rejected).await;
    }
    sink.close().await;
}

/// Checks that an item that is too large is rejected alone, and as such.
pub async fn an_oversized_item_leaves_its_neighbours_alone<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    if let Some(oversized) = fixture.oversized_item(&sink) {
        let error = only_the_middle_is_rejected(fixture, &sink, oversized).await;
        assert_eq!(error, SinkErrorKind::TooLarge);
    }
    sink.close().await;
}

async fn only_the_middle_is_rejected<F: SinkFixture>(
    fixture: &F,
    sink: &F::Sink,
    middle: Payload<F>,
) -> SinkErrorKind {
    let items = [fixture.item(0, 0, b"before"), middle, fixture.item(0, 1, b"after")];
    let verdicts = deliver(sink, &items).await;
    let [Verdict::Confirmed, Verdict::Rejected(error), Verdict::Confirmed] = &verdicts[..] else {
        panic!("expected only the middle item to be rejected: {verdicts:?}")
    };
    let arrived = sorted(texts(fixture.read(0, 2).await));
    assert_eq!(arrived, ["after", "before"], "the good items arrived, the rejected one did not");
    error.kind()
}

/// Checks as many deliveries at once as the sink permits.
pub async fn deliveries_may_overlap<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    let concurrency = u32::try_from(sink.limits().concurrency).unwrap_or(u32::MAX).min(16);
    let batches: Vec<_> =
        (0..concurrency).map(|lane| numbered(fixture, lane, lane * 10..lane * 10 + 10)).collect();
    let mut running: Vec<_> =
        batches.iter().map(|items| Some(Box::pin(confirm(&sink, items)))).collect();
    std::future::poll_fn(|cx| {
        for slot in &mut running {
            if slot.as_mut().is_some_and(|delivery| delivery.as_mut().poll(cx).is_ready()) {
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    drop(running);
    for lane in 0..concurrency {
        let expected: Vec<_> = (lane * 10..lane * 10 + 10).map(|n| n.to_string()).collect();
        let arrived = sorted(texts(fixture.read(lane, 10).await));
        assert_eq!(arrived, sorted(expected), "target {lane}");
    }
    sink.close().await;
}

/// Checks that the sink works on after a delivery was given up.
pub async fn a_dropped_delivery_leaves_the_sink_usable<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    {
        let items = numbered(fixture, 0, 0..5);
        let mut delivery = Box::pin(deliver(&sink, &items));
        // Begun, but given up as soon as it has to wait.
        std::future::poll_fn(|cx| Poll::Ready(delivery.as_mut().poll(cx))).await.is_ready();
    }
    confirm(&sink, &numbered(fixture, 1, 5..10)).await;
    assert_eq!(fixture.read(1, 5).await.len(), 5, "the delivery after it arrived once");
    sink.close().await;
}

/// Checks that a repeat changes nothing where the sink says so.
pub async fn a_harmless_repeat_changes_nothing<F: SinkFixture>(fixture: &F) {
    let sink = fixture.sink();
    connect(&sink).await;
    let items = [fixture.item(0, 0, b"once")];
    if sink.repeat_is_harmless(&items[0]) {
        confirm(&sink, &items).await;
        let after_one = fixture.read(0, 1).await;
        confirm(&sink, &items).await;
        assert_eq!(fixture.read(0, 1).await, after_one, "a harmless repeat changed something");
    }
    sink.close().await;
}

/// Checks that what a closed sink confirmed is there, and that another sink adds to it.
pub async fn another_sink_goes_on_where_one_was_closed<F: SinkFixture>(fixture: &F) {
    for number in 0..2 {
        let sink = fixture.sink();
        connect(&sink).await;
        confirm(&sink, &numbered(fixture, 0, number..number + 1)).await;
        sink.close().await;
    }
    let arrived = sorted(texts(fixture.read(0, 2).await));
    assert_eq!(arrived, ["0", "1"]);
}

/// Checks that closing needs no connection, may be repeated, and ends deliveries.
pub async fn closing_twice_is_harmless<F: SinkFixture>(fixture: &F) {
    fixture.sink().close().await;
    let sink = fixture.sink();
    connect(&sink).await;
    confirm(&sink, &numbered(fixture, 0, 0..1)).await;
    sink.close().await;
    sink.close().await;
    let verdicts = deliver(&sink, &numbered(fixture, 0, 1..2)).await;
    assert!(matches!(verdicts[..], [Verdict::NotApplied(_)]), "after close: {verdicts:?}");
}

async fn connect<S: Sink>(sink: &S) {
    let id = sink.id();
    sink.connect().await.unwrap_or_else(|error| panic!("{id} cannot connect: {error}"));
}

/// Delivers one batch; checks the number of verdicts and the deadline.
async fn deliver<S: Sink>(sink: &S, items: &[S::Payload]) -> Vec<Verdict> {
    // Every item is of a message of its own, since deliveries may overlap.
    let ids: Vec<_> = items
        .iter()
        .map(|_| Offset::new(MESSAGES.fetch_add(1, Ordering::Relaxed)))
        .map(|offset| DeliveryId::new(PartitionId::new("suite", 0), offset, 0, 0))
        .collect();
    let batch = items.iter().zip(&ids).map(|(payload, id)| BatchItem { payload, id }).collect();
    let limit = sink.limits().attempt_timeout;
    let answer = tokio::time::timeout(limit, sink.deliver(Batch::new(batch))).await;
    let verdicts =
        answer.unwrap_or_else(|_| panic!("no answer within the attempt's deadline of {limit:?}"));
    assert_eq!(verdicts.len(), items.len(), "not one verdict per item: {verdicts:?}");
    verdicts
}

/// Delivers one batch, all of which must be confirmed.
async fn confirm<S: Sink>(sink: &S, items: &[S::Payload]) {
    let verdicts = deliver(sink, items).await;
    let failed = verdicts.iter().find(|verdict| **verdict != Verdict::Confirmed);
    assert!(failed.is_none(), "an item of {} was not confirmed: {failed:?}", items.len());
}

/// Items whose content is their number.
fn numbered<F: SinkFixture>(
    fixture: &F,
    target: u32,
    numbers: std::ops::Range<u32>,
) -> Vec<Payload<F>> {
    numbers.map(|number| fixture.item(target, number, number.to_string().as_bytes())).collect()
}

fn texts(contents: Vec<Bytes>) -> Vec<String> {
    contents.iter().map(|content| String::from_utf8_lossy(content).into_owned()).collect()
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, FakeSink, Reaction};
    use drakkar_api::{BatchLimits, CustomPayload, SinkError, SinkId, SinkKind};

    fn fake(name: &str) -> FakeSink<CustomPayload> {
        FakeSink::new(SinkId::new(SinkKind::Custom("fake".into()), name)).tolerant()
    }

    /// The destination of a fake.
    struct Fixture(FakeSink<CustomPayload>);

    impl SinkFixture for Fixture {
        type Sink = FakeSink<CustomPayload>;

        fn sink(&self) -> Self::Sink {
            self.0.clone()
        }

        fn unusable_sink(&self) -> Self::Sink {
            let sink = fake("unusable");
            for _ in 0..2 {
                sink.fail_connect(SinkError::temporary(SinkErrorKind::Connection, "refused"));
            }
            sink
        }

        fn item(&self, target: u32, _number: u32, content: &[u8]) -> CustomPayload {
            let mut attributes = serde_json::Map::new();
            attributes.insert("target".to_owned(), target.into());
            let value = Bytes::copy_from_slice(content);
            CustomPayload { kind: "fake".into(), sink: None, value, attributes }
        }

        fn rejected_item(&self) -> Option<CustomPayload> {
            Some(self.item(0, 0, b"reject me"))
        }

        async fn read(&self, target: u32, _expected: usize) -> Vec<Bytes> {
            let applied = self.0.applied().into_iter().map(|applied| applied.payload);
            let here = applied.filter(|payload| payload.attributes["target"] == target);
            here.map(|payload| payload.value).collect()
        }
    }

    fn answer(payload: &CustomPayload) -> Answer {
        if payload.value == "reject me" { Answer::rejected() } else { Answer::Confirm }
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_sink_passes() {
        sink_suite(|| async {
            Fixture(fake("good").react_with(|offers| {
                Reaction::answers(offers.iter().map(|offer| answer(&offer.payload)))
            }))
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "not every item arrived exactly once")]
    async fn a_sink_that_confirms_what_it_lost_is_caught() {
        let sink = fake("lossy")
            .react_with(|offers| Reaction::answers(offers.iter().map(|_| Answer::ConfirmButLose)));
        every_item_gets_a_verdict_and_arrives_once(&Fixture(sink)).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "expected only the middle item to be rejected")]
    async fn a_sink_that_blames_the_whole_batch_is_caught() {
        let sink = fake("blaming")
            .react_with(|offers| Reaction::answers(offers.iter().map(|_| Answer::rejected())));
        a_rejected_item_leaves_its_neighbours_alone(&Fixture(sink)).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "no answer within the attempt's deadline")]
    async fn a_sink_that_does_not_answer_is_caught() {
        let sink = fake("deaf").react_with(|_| Reaction::hang());
        order_is_kept_within_a_target(&Fixture(sink)).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "connect to an unusable destination succeeded")]
    async fn a_sink_that_connects_to_nothing_is_caught() {
        struct Optimist(Fixture);
        impl SinkFixture for Optimist {
            type Sink = FakeSink<CustomPayload>;
            fn sink(&self) -> Self::Sink {
                self.0.sink()
            }
            fn unusable_sink(&self) -> Self::Sink {
                self.0.sink()
            }
            fn item(&self, target: u32, number: u32, content: &[u8]) -> CustomPayload {
                self.0.item(target, number, content)
            }
            async fn read(&self, target: u32, expected: usize) -> Vec<Bytes> {
                self.0.read(target, expected).await
            }
        }
        connect_failures_are_loud(&Optimist(Fixture(fake("optimist")))).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "a harmless repeat changed something")]
    async fn a_sink_whose_repeats_are_not_harmless_is_caught() {
        let sink = fake("appending").with_harmless(|_| true);
        a_harmless_repeat_changes_nothing(&Fixture(sink)).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "no delivery is possible")]
    async fn limits_that_cannot_be_kept_are_caught() {
        let limits = BatchLimits { concurrency: 0, ..BatchLimits::default() };
        settings_make_sense(&Fixture(fake("stuck").with_limits(limits))).await;
    }
}
