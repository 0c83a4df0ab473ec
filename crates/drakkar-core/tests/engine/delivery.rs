//! Delivery: routed as a whole, repeated only where that is safe, then the handler, then the dead
//! letters.

use crate::world::{MILLISECOND, SECOND, Setup, input, partition, record};
use bytes::Bytes;
use drakkar_api::{
    BatchLimits, DeliveryAction, FileLine, Headers, Hook, HookError, KafkaRecord, Outputs, Payload,
    RawInput, SinkError, SinkErrorKind, Task, TimestampKind,
};
use drakkar_core::SendFailurePolicy;
use drakkar_testkit::{Answer, FakeRun, FakeSink, Offer, Reaction, TestHandler};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Puts out one record per word of the task's output.
fn words() -> TestHandler {
    TestHandler::new().with_task_complete(|done, _| {
        Ok(done.stdout_text().split(' ').map(record).collect::<Outputs>())
    })
}

/// The same, remembering what `on_delivery_error` was given, and answering `action`.
fn words_and(action: DeliveryAction) -> (TestHandler, Arc<Mutex<Vec<String>>>) {
    let given = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&given);
    let handler = words().with_delivery_error(move |failure, _| {
        let values = failure.payloads.iter().filter_map(Payload::to_bytes);
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(&value).into_owned()).collect();
        let mut log = log.lock().expect("no panic");
        log.push(format!("{} x{} {}", failure.sink, failure.attempts, values.join(" ")));
        Ok(action)
    });
    (handler, given)
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn payloads_reach_their_sinks_before_the_commit() {
    let handler = TestHandler::new().with_task_complete(|done, _| {
        let text = done.stdout_text().into_owned();
        Ok(Outputs::new()
            .with(record(&text))
            .with(FileLine::bytes("a.log", text.clone()))
            .with(record(&text).to("out")))
    });
    let world = Setup::new(handler).start(&[]).await;
    world.files.push(Reaction::confirm().taking(SECOND * 20));
    world.produce(0, &["x"]);
    world.until("the record is there", |w| w.sent().len() == 2).await;
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!(world.committed(0), None, "the line is on its way");
    world.until_done().await;
    assert_eq!(world.sent(), ["x", "x"]);
    assert_eq!(world.sink.calls().len(), 1, "both names mean one sink, so one batch");
    let ids = world.sink.applied().into_iter().map(|item| item.id.to_string());
    assert_eq!(ids.collect::<Vec<_>>(), ["in/0/0/0/0", "in/0/0/0/2"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn payloads_of_many_messages_share_batches_within_the_limits() {
    let limits = BatchLimits { items_max: 3, concurrency: 2, ..BatchLimits::default() };
    let setup = Setup::new(words()).sink(|sink| {
        sink.with_limits(limits).react_with(|_| Reaction::confirm().taking(MILLISECOND * 10))
    });
    let world = setup.start(&["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    world.until_done().await;
    let mut sent = world.sent();
    sent.sort_unstable();
    assert_eq!(sent, ["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(world.sink.active_max(), 2);
    assert!(world.sink.calls().iter().any(|call| call.ids.len() == 3));
    world.finish().await;
}

// Promise: DL-3
#[tokio::test(start_paused = true)]
async fn only_what_is_not_confirmed_is_sent_again() {
    let world = Setup::new(words()).start(&[]).await;
    world.sink.push(Reaction::answers([Answer::Confirm, Answer::refused(), Answer::Confirm]));
    world.produce(0, &["a b c"]);
    world.until_done().await;
    assert_eq!(world.sent(), ["a", "c", "b"]);
    let calls = world.sink.calls();
    assert_eq!(calls.iter().map(|call| call.ids.len()).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(world.seen.count("DeliveryRetried"), 1);
    assert_eq!(world.hooks.count(Hook::OnDeliveryError), 0);
    world.finish().await;
}

// Promise: DL-3
#[tokio::test(start_paused = true)]
async fn the_unknown_is_sent_again_only_where_a_repeat_is_harmless() {
    for harmless in [false, true] {
        let setup = Setup::new(words())
            .sink(|sink| if harmless { sink.with_harmless(|_| true) } else { sink });
        let world = setup.start(&[]).await;
        world.sink.push(Reaction::answers([Answer::applied_but_cut_off()]));
        world.produce(0, &["a"]);
        world.until_done().await;
        let (sent, letters) = match harmless {
            true => (vec!["a", "a"], vec![]),
            false => (
                vec!["a"],
                vec![
                    "payload@0 connection on_task_complete x1: connection closed before the answer",
                ],
            ),
        };
        assert_eq!(
            (world.sent(), world.letters()),
            (
                sent.iter().map(|&s| s.to_owned()).collect(),
                letters.iter().map(|&s| s.to_owned()).collect()
            )
        );
        assert_eq!(world.ends(), [(0, "Completed")], "a lettered payload is an end, too");
        world.finish().await;
    }
}

// Promise: DL-3, DL-4
#[tokio::test(start_paused = true)]
async fn automatic_retries_end_in_the_dead_letters() {
    let setup = Setup::new(words())
        .config(|config| config.delivery_retries_max = 2)
        .sink(|sink| sink.react_with(|_| Reaction::answers([Answer::refused()])));
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    assert_eq!(world.letters(), ["payload@0 connection on_task_complete x3: connection refused"]);
    assert_eq!(world.sink.calls().len(), 3);
    let letter = world.letter(0);
    assert_eq!(letter.value.as_deref(), Some(&b"a"[..]));
    let of = |name| letter.header(name).to_owned();
    assert_eq!(
        ["sink-type", "sink-name", "target", "delivery-id", "worker", "version", "failed-at"]
            .map(of),
        ["kafka", "out", "{}", "in/0/0/0/0", "w1", "1", "2026-01-01T00:00:00.3Z"].map(|expect| {
            match expect.starts_with("2026") {
                // The jitter decides about the milliseconds.
                true => letter.header("failed-at").to_owned(),
                false => expect.to_owned(),
            }
        })
    );
    assert!(letter.header("failed-at").starts_with("2026-01-01T00:00:00."));
    assert!(letter.header("task-id").starts_with("t-"));
    world.finish().await;
}

// Promise: DL-3
#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_not_sent_again() {
    let permanent = SinkError::permanent(SinkErrorKind::NoTarget, "no such topic");
    for answer in [Answer::rejected(), Answer::NotApplied(permanent)] {
        let world = Setup::new(words()).start(&[]).await;
        world.sink.push(Reaction::answers([answer]));
        world.produce(0, &["a"]);
        world.until_done().await;
        assert_eq!(world.sink.calls().len(), 1);
        assert_eq!(world.letters().len(), 1);
        world.finish().await;
    }
}

// Promise: DL-3
#[tokio::test(start_paused = true)]
async fn the_handler_is_asked_once_per_answer_and_sink_about_what_failed() {
    let (handler, given) = words_and(DeliveryAction::DeadLetter);
    let handler = handler.with_message_complete(|_, _| Ok(Outputs::new().with(record("m"))));
    let setup = Setup::new(handler).sink(|sink| {
        sink.react_with(|offers| {
            let answer = |value: &bytes::Bytes| match value.as_ref() {
                b"fine" => Answer::Confirm,
                b"no" => Answer::rejected(),
                _ => Answer::refused(),
            };
            let values = offers.iter().map(|offer| offer.payload.value.as_ref().expect("a value"));
            Reaction::answers(values.map(answer))
        })
    });
    let world = setup.start(&["no fine later no"]).await;
    world.until_done().await;
    assert_eq!(*given.lock().expect("no panic"), ["kafka:out x4 no later no", "kafka:out x4 m"]);
    assert_eq!(world.sent(), ["fine"]);
    assert_eq!(
        world.letters(),
        [
            "payload@0 invalid on_task_complete x1: not valid for this sink",
            "payload@0 connection on_task_complete x4: connection refused",
            "payload@0 invalid on_task_complete x1: not valid for this sink",
            "payload@0 connection on_message_complete x4: connection refused",
        ]
    );
    world.finish().await;
}

// Promise: DL-3, DL-4
#[tokio::test(start_paused = true)]
async fn retries_of_the_handler_are_bounded_and_every_attempt_counts() {
    let (handler, given) = words_and(DeliveryAction::Retry);
    let setup = Setup::new(handler)
        .config(|config| {
            config.delivery_retries_max = 1;
            config.handler_delivery_retries_max = 2;
        })
        .sink(|sink| {
            sink.react_with(|offers| {
                let good = |offer: &Offer<_>| match offer.id.to_string().ends_with('1') {
                    true => Answer::Confirm,
                    false => Answer::refused(),
                };
                Reaction::answers(offers.iter().map(good))
            })
        });
    let world = setup.start(&["a b"]).await;
    world.until_done().await;
    assert_eq!(
        *given.lock().expect("no panic"),
        ["kafka:out x2 a", "kafka:out x4 a", "kafka:out x6 a"]
    );
    assert_eq!(world.letters(), ["payload@0 connection on_task_complete x6: connection refused"]);
    assert_eq!(world.sent(), ["b"], "what was confirmed is not sent again");
    world.finish().await;
}

// Promise: DL-1, DL-3
#[tokio::test(start_paused = true)]
async fn a_retry_of_the_handler_can_succeed() {
    let (handler, given) = words_and(DeliveryAction::Retry);
    let world = Setup::new(handler).start(&[]).await;
    world.sink.push(Reaction::answers([Answer::lost()]));
    world.produce(0, &["a"]);
    world.until_done().await;
    assert_eq!(*given.lock().expect("no panic"), ["kafka:out x1 a"]);
    assert_eq!((world.sent(), world.letters()), (vec!["a".to_owned()], vec![]));
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn what_the_handler_lets_go_is_counted_and_committed() {
    let (handler, _) = words_and(DeliveryAction::Skip);
    let world = Setup::new(handler).start(&[]).await;
    world.sink.push(Reaction::answers([Answer::rejected(), Answer::Confirm, Answer::rejected()]));
    world.produce(0, &["a b c"]);
    world.until_done().await;
    assert_eq!((world.sent(), world.letters()), (vec!["b".to_owned()], vec![]));
    let skipped = world.seen.named("DeliverySkipped");
    assert!(skipped.len() == 1 && skipped[0].text.contains("payloads: 2"), "{skipped:?}");
    world.finish().await;
}

// Promise: FT-2
#[tokio::test(start_paused = true)]
async fn a_hung_sink_meets_its_deadline_and_counts_as_unknown() {
    for (reaction, sent) in [(Reaction::hang(), 0), (Reaction::apply_and_hang(), 1)] {
        let limits = BatchLimits { attempt_timeout: SECOND * 5, ..BatchLimits::default() };
        let world = Setup::new(words()).sink(|sink| sink.with_limits(limits)).start(&[]).await;
        world.sink.push(reaction);
        world.produce(0, &["a"]);
        world.until_done().await;
        let call = &world.sink.calls()[0];
        let lasted = call.ended.expect("it was dropped") - call.began;
        assert!(lasted >= SECOND * 5 && lasted < SECOND * 5 + MILLISECOND * 5, "{lasted:?}");
        assert_eq!(world.sent().len(), sent);
        assert_eq!(
            world.letters(),
            ["payload@0 timeout on_task_complete x1: no answer within 5 s"]
        );
        world.finish().await;
    }
}

/// A sink that panics wherever it is asked something, or whose `deliver` answers too little.
struct BadSink {
    panics: bool,
}

impl drakkar_api::Sink for BadSink {
    type Payload = drakkar_api::CustomPayload;

    fn id(&self) -> drakkar_api::SinkId {
        drakkar_api::SinkId::new(drakkar_api::SinkKind::Custom("bad".into()), "main")
    }

    async fn connect(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn deliver(
        &self,
        _batch: drakkar_api::Batch<'_, Self::Payload>,
    ) -> Vec<drakkar_api::Verdict> {
        self.panic();
        Vec::new()
    }

    async fn close(&self) {}

    fn repeat_is_harmless(&self, _payload: &Self::Payload) -> bool {
        self.panic();
        false
    }

    fn target(&self) -> Vec<(&'static str, String)> {
        self.panic();
        Vec::new()
    }

    fn limits(&self) -> BatchLimits {
        self.panic();
        BatchLimits::default()
    }
}

impl BadSink {
    fn panic(&self) {
        assert!(!self.panics, "a bug of the sink");
    }
}

// Promise: FT-1
#[tokio::test(start_paused = true)]
async fn a_sink_that_breaks_its_contract_loses_nothing() {
    for panics in [false, true] {
        let handler = TestHandler::new().with_task_complete(|_, _| {
            let payload = drakkar_api::CustomPayload {
                kind: "bad".into(),
                sink: None,
                value: "v".into(),
                attributes: serde_json::Map::new(),
            };
            Ok(Outputs::new().with(payload))
        });
        let mut setup = Setup::new(handler);
        setup.more_sinks.push(drakkar_core::AnySink::new(BadSink { panics }));
        let world = setup.start(&["a"]).await;
        world.until_done().await;
        assert_eq!(world.letter(0).header("error-kind"), "internal");
        assert_eq!(world.letter(0).header("kind"), "payload");
        world.finish().await;
    }
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_written_holds_its_offset() {
    let handler = TestHandler::new();
    let world = Setup::new(handler).tasks(1, |_, _| FakeRun::exit(1)).start(&[]).await;
    for _ in 0..20 {
        world.letters.push(Reaction::answers([Answer::rejected(), Answer::refused()]));
    }
    world.produce(0, &["a", "b"]);
    world.until("it was tried often", |w| w.letters.calls().len() >= 10).await;
    assert_eq!(world.committed(0), None);
    let failed = world.seen.named("DeadLetterFailed");
    assert!(failed.len() >= 10 && failed[0].text.contains("dropped: false"), "{failed:?}");
    world.until_done().await;
    assert_eq!(world.letters().len(), 2);
    assert_eq!(world.seen.count("DeadLettered"), 2);
    world.finish().await;
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn dropping_a_dead_letter_is_opted_into_and_counted() {
    let handler = words().with_arrange(|window, _| {
        let task = |m: &drakkar_api::Message<RawInput>| {
            Task::for_message(m).stdin(m.value().cloned().unwrap_or_default())
        };
        Ok(window.messages().map(task).collect())
    });
    let setup = Setup::new(handler)
        .config(|config| config.on_send_failure = SendFailurePolicy::Drop)
        .tasks(1, |task, _| match input(task).as_str() {
            "bad" => FakeRun::exit(1),
            text => FakeRun::success(text.to_owned()),
        })
        .sink(|sink| sink.react_with(|_| Reaction::answers([Answer::rejected()])))
        .letters(|letters| {
            letters
                .react_with(|offers| Reaction::answers(offers.iter().map(|_| Answer::rejected())))
        });
    let world = setup.start(&["bad", "a"]).await;
    world.until_done().await;
    assert_eq!(world.letters(), [""; 0]);
    let dropped = world.seen.named("DeadLetterFailed");
    assert_eq!(dropped.len(), 2);
    assert!(dropped.iter().all(|event| event.text.contains("dropped: true")), "{dropped:?}");
    let mut ends = world.ends();
    ends.sort_unstable();
    assert_eq!(ends, [(0, "Dropped"), (1, "Completed")]);
    world.finish().await;
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_cut_rather_than_refused() {
    let limits = BatchLimits { item_bytes_max: Some(4000), ..BatchLimits::default() };
    let handler = TestHandler::new().with_arrange(|window, _| {
        Ok(window
            .messages()
            .map(|m| Task::for_message(m).label("large", "x".repeat(9000)))
            .collect())
    });
    let setup = Setup::new(handler).tasks(1, |_, _| FakeRun::exit(1)).letters(|letters| {
        letters.with_limits(limits).react_with(|offers| {
            let size = |offer: &Offer<drakkar_api::KafkaRecord>| {
                drakkar_api::Payload::from(offer.payload.clone()).size_bytes()
            };
            let fits = |offer| match size(offer) <= 4000 {
                true => Answer::Confirm,
                false => Answer::rejected(),
            };
            Reaction::answers(offers.iter().map(fits))
        })
    });
    let world = setup.start(&[&"v".repeat(5000)]).await;
    world.until_done().await;
    let letter = world.letter(0);
    assert_eq!(letter.header("source-offset"), "0");
    assert!(letter.header("truncated").contains(r#""bytes":5000"#), "{letter:?}");
    assert_eq!(world.letters.calls().len(), 1);
    world.finish().await;
}

// Promise: DL-3
#[tokio::test(start_paused = true)]
async fn payloads_of_one_message_keep_their_order_through_retries() {
    for seed in 0..20 {
        let setup = Setup::new(words())
            .config(|config| config.seed = seed)
            .sink(|sink| sink.with_limits(BatchLimits { items_max: 3, ..BatchLimits::default() }));
        let world = setup.start(&[]).await;
        for _ in 0..2 {
            world.sink.push(Reaction::answers(vec![Answer::refused(); 3]));
        }
        world.produce(0, &["a b c d e"]);
        world.until_done().await;
        assert_eq!(world.sent(), ["a", "b", "c", "d", "e"], "seed {seed}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_message_does_not_hold_up_the_payloads_of_others() {
    let world = Setup::new(words()).start(&[]).await;
    world.sink.push(Reaction::confirm().taking(SECOND * 20));
    world.produce(0, &["slow"]);
    world.until("the slow call lasts", |w| w.sink.calls().len() == 1).await;
    world.produce(0, &["b", "c"]);
    world.until("the others are there", |w| w.sent() == ["b", "c"]).await;
    assert_eq!(world.committed(0), None);
    world.until_done().await;
    assert_eq!(world.seen.count("Committed"), 1);
    world.finish().await;
}

// Promise: DL-1
#[tokio::test(start_paused = true)]
async fn a_shared_sink_serves_partitions_side_by_side() {
    let world = Setup::new(words()).start(&["a", "b"]).await;
    world.produce(1, &["c", "d"]);
    world.source.assign(&[partition(1)]);
    world.until_done().await;
    world.until_committed(1, 2).await;
    let mut sent = world.sent();
    sent.sort_unstable();
    assert_eq!(sent, ["a", "b", "c", "d"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn backoff_grows_between_automatic_retries() {
    let setup = Setup::new(words())
        .config(|config| config.delivery_retries_max = 5)
        .sink(|sink: FakeSink<_>| sink.react_with(|_| Reaction::answers([Answer::refused()])));
    let world = setup.start(&["a"]).await;
    world.until_done().await;
    let calls = world.sink.calls();
    let waits: Vec<Duration> = calls.windows(2).map(|pair| pair[1].began - pair[0].began).collect();
    for (number, wait) in waits.iter().enumerate() {
        let full = MILLISECOND * 100 * (1 << number);
        assert!(*wait >= full / 2 && *wait <= full + MILLISECOND, "{waits:?}");
    }
    assert_eq!(waits.len(), 5);
    world.finish().await;
}

// Promise: DL-4
#[tokio::test(start_paused = true)]
async fn headers_and_timestamps_go_from_the_source_to_hooks_records_and_letters() {
    let mut headers = Headers::new();
    headers.push("trace", Some(Bytes::from_static(b"\xff1")));
    headers.push("trace", None);
    let given = headers.clone();
    let handler = TestHandler::new()
        .with_arrange(move |window, _| {
            for message in window.messages() {
                assert_eq!(message.headers(), &given);
                let (at, kind) = message.timestamp().expect("the source knows");
                assert_eq!((at.millis(), kind), (message.offset().get(), TimestampKind::Create));
            }
            Ok::<_, HookError>(window.messages().map(Task::for_message).collect())
        })
        .with_message_complete(|group, _| {
            let value = group.message.value().cloned().unwrap_or_default();
            let record = KafkaRecord::bytes(value).header("first", "1");
            Ok(Outputs::new().with(record.headers(group.message.headers())))
        });
    let rejects_bad = |offers: &[Offer<KafkaRecord>]| {
        Reaction::answers(offers.iter().map(|offer| match offer.payload.value.as_deref() {
            Some(b"bad") => Answer::rejected(),
            _ => Answer::Confirm,
        }))
    };
    let setup = Setup::new(handler).sink(|sink| sink.react_with(rejects_bad));
    let world = setup.start(&[]).await;
    for value in ["good", "bad"] {
        world.broker.append(&partition(0), None, Some(value.into()), headers.clone());
    }
    world.until_committed(0, 2).await;

    let pairs = |headers: &Headers| -> Vec<_> {
        headers.iter().map(|(name, value)| (name.to_owned(), value.cloned())).collect()
    };
    let sent = world.sink.applied().pop().expect("the good one").payload;
    let mut expect = vec![("first".to_owned(), Some(Bytes::from_static(b"1")))];
    expect.extend(pairs(&headers));
    assert_eq!(pairs(&sent.headers), expect);
    let letter = world.letters.applied().pop().expect("the bad one").payload;
    for (name, value) in [
        ("drakkar-source-headers", r#"[["trace","/zE="],["trace",null]]"#),
        ("drakkar-source-timestamp", "1"),
        ("drakkar-source-timestamp-kind", "create"),
    ] {
        assert_eq!(letter.headers.get(name).map(|value| &value[..]), Some(value.as_bytes()));
    }
    world.finish().await;
}
