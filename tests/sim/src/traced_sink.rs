//! Sinks whose faults come from the weather, and whose receipts are entered.

use crate::journal::{Journal, WorkerNumber};
use crate::recipe::Cookbook;
use crate::scenario::{DeliveryRates, Rates, Scenario};
use crate::seen::{Heard, Item, Letter, Place, Seen, Subject};
use crate::text::{is_whole_message, number_of_payload, payload_number};
use crate::traced_source::epoch_in;
use crate::weather::Weather;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use drakkar_api::{
    BatchLimits, ErrorStatus, FileLine, Headers, KafkaRecord, Offset, Payload, SinkId, SinkKind,
    SinkPayload, Verdict,
};
use drakkar_testkit::{Answer, FakeSink, Random, Reaction, Sighting};

/// What the sinks of a worker share.
#[derive(Clone)]
pub(crate) struct SinkWorld {
    pub(crate) journal: Journal,
    pub(crate) worker: WorkerNumber,
    pub(crate) weather: Weather,
    pub(crate) seed: u64,
    pub(crate) cookbook: Cookbook,
}

/// Makes the sink of records.
pub(crate) fn records(world: &SinkWorld, scenario: &Scenario) -> FakeSink<KafkaRecord> {
    let sink = FakeSink::new(SinkId::new(SinkKind::Kafka, "records"));
    let item = |_: &SinkWorld, record: &KafkaRecord| payload_item(record.clone());
    equip(sink, world, Place::Records, scenario.limits, |rates| rates.delivery, item)
        .with_harmless(if scenario.repeats_are_harmless { |_| true } else { |_| false })
}

/// Makes the sink of lines, of which no repeat is harmless.
pub(crate) fn lines(world: &SinkWorld, scenario: &Scenario) -> FakeSink<FileLine> {
    let sink = FakeSink::new(SinkId::new(SinkKind::Filesystem, "lines"));
    let item = |_: &SinkWorld, line: &FileLine| payload_item(line.clone());
    equip(sink, world, Place::Lines, scenario.limits, |rates| rates.delivery, item)
}

/// Makes the sink of dead letters.
pub(crate) fn letters(world: &SinkWorld, scenario: &Scenario) -> FakeSink<KafkaRecord> {
    let sink = FakeSink::new(SinkId::new(SinkKind::Kafka, "letters"));
    let item = |world: &SinkWorld, record: &KafkaRecord| {
        Item::Letter(read_letter(&world.cookbook, record))
    };
    equip(sink, world, Place::Letters, scenario.letter_limits, |rates| rates.letters, item)
}

fn payload_item(payload: impl Into<Payload>) -> Item {
    Item::Payload(number_of_payload(&payload.into()))
}

fn equip<P: SinkPayload + Clone + Into<Payload>>(
    sink: FakeSink<P>,
    world: &SinkWorld,
    place: Place,
    limits: BatchLimits,
    pick: fn(Rates) -> DeliveryRates,
    item: fn(&SinkWorld, &P) -> Item,
) -> FakeSink<P> {
    let mut random = Random::fork(world.seed, &format!("sink {place:?} {}", world.worker));
    let weather = world.weather.clone();
    let watching = world.clone();
    sink.with_limits(limits)
        .react_with(move |offers| react(pick(weather.rates()), &mut random, offers.len()))
        .with_watcher(move |sighting| {
            let world = &watching;
            let seen = match sighting {
                Sighting::Offered { call, offers } => {
                    let items = offers.iter().map(|offer| item(world, &offer.payload)).collect();
                    Seen::Offered { sink: place, call, items }
                }
                Sighting::Applied { call, items } => {
                    let items = items.iter().map(|it| item(world, &it.payload)).collect();
                    Seen::Applied { sink: place, call, items }
                }
                Sighting::Ended { call, verdicts } => {
                    let verdicts = verdicts.map(|all| all.iter().map(hear).collect());
                    Seen::DeliveryEnded { sink: place, call, verdicts }
                }
            };
            world.journal.see(world.worker, seen);
        })
}

/// Draws what becomes of one call.
fn react(rates: DeliveryRates, random: &mut Random, items: usize) -> Reaction {
    let before = random.duration(rates.longest);
    if random.chance(rates.hangs) {
        return if random.chance(500) { Reaction::hang() } else { Reaction::apply_and_hang() };
    }
    let after = random.duration(rates.longest);
    let cut_off = random.chance(rates.disconnects);
    // What a connection that breaks leaves behind is a prefix of the batch.
    let applied = random.below(items as u64 + 1);
    let answers = (0..items as u64).map(|index| {
        if cut_off {
            if index < applied { Answer::applied_but_cut_off() } else { Answer::lost() }
        } else if random.chance(rates.rejected) {
            Answer::rejected()
        } else if random.chance(rates.not_applied) {
            Answer::refused()
        } else if random.chance(rates.unknown) {
            if random.chance(500) { Answer::applied_but_cut_off() } else { Answer::lost() }
        } else {
            Answer::Confirm
        }
    });
    let reaction = Reaction::answers(answers).taking(before);
    Reaction { after, ..reaction }
}

fn hear(verdict: &Verdict) -> Heard {
    let may_pass = verdict.error().is_none_or(|error| error.status() == ErrorStatus::Temporary);
    match verdict {
        Verdict::Confirmed => Heard::Confirmed,
        Verdict::NotApplied(_) if may_pass => Heard::NotApplied,
        Verdict::Unknown(_) if may_pass => Heard::Unknown,
        _ => Heard::Rejected,
    }
}

/// Reads a dead letter as somebody would who wants to replay it.
fn read_letter(cookbook: &Cookbook, record: &KafkaRecord) -> Letter {
    let header = |name: &str| {
        let value = record.headers.get(&format!("drakkar-{name}"))?;
        std::str::from_utf8(value).ok()
    };
    let partition = header("source-partition").and_then(|text| text.parse().ok()).unwrap_or(-1);
    let offset = header("source-offset").and_then(|text| text.parse().ok()).unwrap_or(-1);
    let offset = Offset::new(offset);
    let attempts = header("attempts").and_then(|text| text.parse().ok()).unwrap_or(0);
    let about = match header("kind") {
        Some("message") => {
            let epoch = epoch_in(&source_headers(header("source-headers").unwrap_or("[]")));
            Subject::Message { epoch, offset }
        }
        Some("payload") => record
            .value
            .as_deref()
            .and_then(payload_number)
            .map_or(Subject::Nothing, Subject::Payload),
        _ => Subject::Nothing,
    };
    let whole_message = is_whole_message(cookbook, partition, offset, record.value.as_ref());
    let fault = if about == Subject::Nothing {
        Some("it does not say what it is about, or its payload is not whole")
    } else if matches!(about, Subject::Message { .. }) && !whole_message {
        Some("it does not carry the bytes of its message")
    } else if header("source-topic") != Some(crate::worker::TOPIC) {
        Some("it does not name its topic")
    } else if header("error").is_none_or(str::is_empty) || header("error-kind").is_none() {
        Some("it does not say what the error was")
    } else if attempts == 0 {
        Some("it does not say how often it was tried")
    } else {
        None
    };
    let error_kind = header("error-kind").unwrap_or_default().to_owned();
    Letter { about, attempts, error_kind, fault: fault.map(str::to_owned) }
}

/// Reads the headers of a source message, as a dead letter carries them: JSON pairs in base64.
fn source_headers(text: &str) -> Headers {
    let pairs: Vec<(String, Option<String>)> = serde_json::from_str(text).unwrap_or_default();
    let decode = |value: String| BASE64.decode(value).ok().map(Bytes::from);
    pairs.into_iter().map(|(name, value)| (name, value.and_then(decode))).collect()
}
