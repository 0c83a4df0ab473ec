//! Dead letters: what they carry, and that no size stops them.

use crate::world::{MILLISECOND, SECOND, Setup, World, partition};
use drakkar_api::{
    BatchLimits, KafkaRecord, Outputs, Payload, SinkError, SinkErrorKind, SinkId, SinkKind, Verdict,
};
use drakkar_core::{AnySink, SendFailurePolicy};
use drakkar_testkit::{Answer, FakeRun, FakeSink, Offer, Reaction, TestHandler};

/// Dead letters for a topic that takes this many bytes, and says so as a temporary error when
/// `is_shy`: it does not tell which record of a request was too large.
fn narrow(
    bytes_max: usize,
    is_shy: bool,
) -> impl FnMut(&[Offer<KafkaRecord>]) -> Reaction + Send + 'static {
    move |offers| {
        let answer = |offer: &Offer<KafkaRecord>| {
            let size = Payload::from(offer.payload.clone()).size_bytes();
            match (size <= bytes_max, is_shy) {
                (true, _) => Answer::Confirm,
                (false, true) => {
                    let error = SinkError::temporary(SinkErrorKind::TooLarge, "too large");
                    Answer::NotApplied(error)
                }
                (false, false) => {
                    Answer::Reject(SinkError::permanent(SinkErrorKind::TooLarge, "too large"))
                }
            }
        };
        Reaction::answers(offers.iter().map(answer))
    }
}

async fn world(
    policy: SendFailurePolicy,
    letters: impl FnOnce(FakeSink<KafkaRecord>) -> FakeSink<KafkaRecord>,
) -> World {
    let setup = Setup::new(TestHandler::new())
        .config(|config| {
            config.on_send_failure = policy;
            config.delivery_retries_max = 1;
        })
        .tasks(1, |_, _| FakeRun::exit(1))
        .letters(letters);
    setup.start(&[]).await
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_refused_for_its_size_is_cut_until_it_is_taken() {
    let assumed = [None, Some(1_000_000)];
    for policy in [SendFailurePolicy::Hold, SendFailurePolicy::Drop] {
        for (is_shy, item_bytes_max) in [false, true].into_iter().zip(assumed) {
            let limits = BatchLimits { item_bytes_max, ..BatchLimits::default() };
            let sink =
                |sink: FakeSink<_>| sink.with_limits(limits).react_with(narrow(100_000, is_shy));
            let world = world(policy, sink).await;
            world.produce(0, &[&"v".repeat(900_000)]);
            world.until_done().await;
            let letter = world.letter(0);
            assert!(letter.header("truncated").contains(r#""bytes":900000"#), "{letter:?}");
            let kept = letter.value.as_ref().map_or(0, Vec::len);
            assert!((40_000..100_000).contains(&kept), "{kept}");
            assert_eq!(world.ends(), [(0, "DeadLettered")]);
            world.finish().await;
        }
    }
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn a_dead_letter_beside_one_that_is_too_large_stays_whole() {
    // The first request is refused as a whole; then each record stands for itself.
    let mut requests = 0;
    let mut alone = narrow(5000, false);
    let sink = |sink: FakeSink<_>| {
        sink.react_with(move |offers| {
            requests += 1;
            if requests > 1 {
                return alone(offers);
            }
            let error = SinkError::temporary(SinkErrorKind::TooLarge, "too large");
            Reaction::answers(vec![Answer::NotApplied(error); offers.len()])
        })
    };
    let world = world(SendFailurePolicy::Hold, sink).await;
    world.produce(0, &["small", &"v".repeat(9000)]);
    world.until_done().await;
    assert_eq!(world.letter(0).value.as_deref(), Some(&b"small"[..]));
    assert_eq!(world.letter(0).header("truncated"), "");
    assert!(world.letter(1).header("truncated").contains(r#""bytes":9000"#));
    world.finish().await;
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_cut_any_more_is_held_or_dropped() {
    let world = world(SendFailurePolicy::Drop, |sink| sink.react_with(narrow(10, false))).await;
    world.produce(0, &[&"v".repeat(9000)]);
    world.until_done().await;
    assert_eq!(world.ends(), [(0, "Dropped")]);
    assert!((5..20).contains(&world.letters.calls().len()), "{:?}", world.letters.calls().len());
    world.finish().await;

    let sink = |sink: FakeSink<_>| sink.react_with(narrow(10, false));
    let world = self::world(SendFailurePolicy::Hold, sink).await;
    world.produce(0, &[&"v".repeat(9000)]);
    world.until("it was tried often", |w| w.letters.calls().len() > 14).await;
    assert_eq!(world.committed(0), None);
    assert!(world.seen.named("DeadLetterFailed")[0].text.contains("dropped: false"));
}

/// A sink that takes nothing and says where it does not put it.
struct Refusing;

impl drakkar_api::Sink for Refusing {
    type Payload = KafkaRecord;

    fn id(&self) -> SinkId {
        SinkId::new(SinkKind::Kafka, "refusing")
    }

    async fn connect(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(&self, batch: drakkar_api::Batch<'_, KafkaRecord>) -> Vec<Verdict> {
        batch.all(Verdict::Rejected(SinkError::permanent(SinkErrorKind::Invalid, "no")))
    }

    async fn close(&self) {}

    fn repeat_is_harmless(&self, _payload: &KafkaRecord) -> bool {
        false
    }

    fn target(&self) -> Vec<(&'static str, String)> {
        vec![("topic", "elsewhere".to_owned())]
    }
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn the_dead_letter_of_a_record_has_all_that_a_replay_needs() {
    let handler = TestHandler::new().with_task_complete(|_, _| {
        let tombstone = KafkaRecord { value: None, ..KafkaRecord::default() };
        let tombstone = tombstone.key(vec![0xff]).header("trace", vec![0xfe]).to("refusing");
        Ok(Outputs::new().with(tombstone))
    });
    let mut setup = Setup::new(handler);
    setup.more_sinks.push(AnySink::new(Refusing));
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    let letters = world.letters.applied();
    assert_eq!((letters.len(), &letters[0].payload.value), (1, &None));
    let letter = world.letter(0);
    assert_eq!(letter.header("tombstone"), "true");
    let target: serde_json::Value = serde_json::from_str(letter.header("target")).expect("JSON");
    let headers = serde_json::json!([["trace", {"$base64": "/g=="}]]);
    assert_eq!(
        target,
        serde_json::json!({
            "topic": "elsewhere", "key": {"$base64": "/w=="}, "headers": headers,
        })
    );
    world.finish().await;
}

// Promise: RB-2
#[tokio::test(start_paused = true)]
async fn a_held_dead_letter_of_an_assignment_that_is_over_is_not_told_of() {
    // In one of these the call fails at the very instant when the assignment ends.
    for early in 0..4 {
        let setup = Setup::new(TestHandler::new())
            .config(|config| config.drain_timeout = SECOND * 4 - MILLISECOND * early)
            .tasks(1, |_, _| FakeRun::exit(1))
            .letters(|letters| {
                letters.react_with(|_| Reaction::answers([Answer::refused()]).taking(SECOND * 4))
            });
        let world = setup.start(&["a"]).await;
        world.until("the letter is under way", |w| w.letters.calls().len() == 1).await;
        assert!(world.source.revoke(&[partition(0)]).await);
        tokio::time::sleep(SECOND).await;
        assert!(world.letters.calls().iter().all(|call| call.ended.is_some()), "it has failed");
        let names = world.seen.names();
        let (_, after) =
            names.split_at(names.iter().position(|name| name == "Revoked").expect("it left"));
        assert!(!after.contains(&"DeadLetterFailed".to_owned()), "{early} ms: {world:?}");
        world.finish().await;
    }
}
