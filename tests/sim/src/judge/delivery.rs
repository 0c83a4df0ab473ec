//! Payloads and dead letters on their way (promises DL-3, DL-4, FT-2).

use super::assignment::{Doom, Letter, Owner, Payload};
use super::{Judge, SLACK};
use crate::journal::WorkerNumber;
use crate::promise::Promise;
use crate::seen::{Answered, Heard, Item, Letter as Written, Number, Place, Subject};
use drakkar_api::{Epoch, Hook, Offset};
use drakkar_core::SendFailurePolicy;
use std::time::Duration;

/// A call of `deliver` that is open.
#[derive(Debug)]
pub(super) struct Call {
    began: Duration,
    items: Vec<Item>,
}

impl Payload {
    pub(super) fn new(epoch: Epoch, owner: Owner) -> Self {
        Self {
            epoch,
            owner,
            sink: None,
            offers: 0,
            offers_before: 0,
            handler_retries: 0,
            granted: false,
            in_flight: false,
            last: None,
            skipped: false,
            asked: false,
            lettering: false,
            letter: Letter::default(),
            applied: 0,
        }
    }
}

impl Judge {
    pub(super) fn on_offered(
        &mut self,
        worker: WorkerNumber,
        sink: Place,
        call: usize,
        items: &[Item],
    ) {
        self.calls.insert((worker, sink, call), Call { began: self.now, items: items.to_vec() });
        for item in items {
            match item {
                Item::Payload(number) => self.on_payload_offered(sink, *number),
                Item::Letter(letter) => self.on_letter_offered(letter),
            }
        }
    }

    fn on_payload_offered(&mut self, sink: Place, number: Number) {
        let Some(payload) = self.payloads.get(&number) else {
            let what = format!("{sink:?} was given a payload that no hook has put out");
            return self.blame(Promise::Dl1, what);
        };
        let epoch = payload.epoch;
        self.check_not_over(epoch, &format!("payload {number} was sent"));
        let payload = &self.payloads[&number];
        if payload.in_flight {
            self.blame(Promise::Dl3, format!("payload {number} was sent twice at the same time"));
        } else if payload.skipped || payload.lettering {
            self.blame(Promise::Dl3, format!("payload {number} was sent after it was let go"));
        } else if payload.last.is_some() && !payload.granted && !self.may_be_repeated(payload, sink)
        {
            let what = format!("payload {number} was sent again after {:?}", payload.last);
            self.blame(Promise::Dl3, what);
        }
        if self.payloads[&number].last.is_some() {
            self.count(match self.payloads[&number].granted {
                true => "payloads sent again for the handler",
                false => "payloads sent again by themselves",
            });
        }
        let payload = self.payloads.get_mut(&number).expect("looked up above");
        let is_first = payload.sink.replace(sink).is_none();
        payload.granted = false;
        payload.in_flight = true;
        payload.offers += 1;
        let owner = payload.owner;
        let has_sibling = |other: &Payload| {
            other.epoch == epoch && other.owner == owner && other.sink.is_some_and(|it| it != sink)
        };
        if is_first && self.payloads.values().any(has_sibling) {
            self.count("payloads with a sibling for another sink");
        }
        for offset in self.offsets_of(number) {
            self.note_started(epoch, offset);
        }
    }

    /// Returns whether a lane may send it again by itself.
    fn may_be_repeated(&self, payload: &Payload, sink: Place) -> bool {
        let attempts = payload.offers - payload.offers_before;
        let harmless = sink == Place::Records && self.repeats_are_harmless;
        let safe = match payload.last {
            None | Some(Heard::NotApplied) => true,
            Some(Heard::Unknown) => harmless,
            Some(Heard::Confirmed | Heard::Rejected) => false,
        };
        safe && attempts <= self.config.delivery_retries_max
    }

    fn on_letter_offered(&mut self, letter: &Written) {
        if let Some(fault) = &letter.fault {
            self.blame(Promise::Dl4, format!("a dead letter is wrong: {fault}"));
        }
        match letter.about {
            Subject::Message { epoch, offset } => self.on_message_letter(epoch, offset),
            Subject::Payload(number) => self.on_payload_letter(number, letter),
            Subject::Nothing => {}
        }
    }

    fn on_message_letter(&mut self, epoch: Epoch, offset: Offset) {
        self.check_not_over(epoch, "the dead letter of a message was sent");
        self.note_started(epoch, offset);
        let Some(message) = self.message(epoch, offset) else { return };
        if message.letter.offers == 0 {
            self.count("letters of messages");
        }
        if self.message(epoch, offset).is_some_and(|message| message.doom.is_none()) {
            self.doom_unarranged(epoch, offset);
        }
        let Some(message) = self.message(epoch, offset) else { return };
        let again = message.letter.in_flight || message.letter.is_confirmed();
        message.letter.offers += 1;
        message.letter.in_flight = true;
        if again {
            let what = format!("the dead letter of {offset} in epoch {epoch} was sent needlessly");
            self.blame(Promise::Dl3, what);
        }
    }

    fn on_payload_letter(&mut self, number: Number, letter: &Written) {
        let Some(payload) = self.payloads.get(&number) else {
            let what = format!("a dead letter of payload {number}, which no hook has put out");
            return self.blame(Promise::Dl4, what);
        };
        let epoch = payload.epoch;
        self.check_not_over(epoch, "the dead letter of a payload was sent");
        let payload = self.payloads.get_mut(&number).expect("looked up above");
        let is_first = payload.letter.offers == 0;
        let again = payload.letter.in_flight || payload.letter.is_confirmed();
        let offers = payload.offers;
        let wanted = payload.lettering;
        payload.letter.offers += 1;
        payload.letter.in_flight = true;
        if is_first {
            self.count("letters of payloads");
        }
        if again {
            let what = format!("the dead letter of payload {number} was sent needlessly");
            self.blame(Promise::Dl3, what);
        }
        if !wanted {
            let what = format!("payload {number} went to the dead letters, but nobody wanted that");
            self.blame(Promise::Dl4, what);
        }
        if letter.attempts != offers {
            let what = format!(
                "the dead letter of payload {number} says {} attempts; there were {offers}",
                letter.attempts
            );
            self.blame(Promise::Dl4, what);
        }
    }

    pub(super) fn on_applied(&mut self, items: &[Item]) {
        for item in items {
            let Item::Payload(number) = item else { continue };
            let Some(payload) = self.payloads.get_mut(number) else { continue };
            payload.applied += 1;
            if payload.applied == 2 {
                self.count("payloads applied twice");
            }
        }
    }

    pub(super) fn on_delivery_ended(
        &mut self,
        worker: WorkerNumber,
        sink: Place,
        call: usize,
        verdicts: Option<&[Heard]>,
    ) {
        let Some(call) = self.calls.remove(&(worker, sink, call)) else { return };
        if verdicts.is_none() {
            self.count("deliveries cut off by their deadline");
        }
        for (index, item) in call.items.iter().enumerate() {
            let heard = verdicts.and_then(|all| all.get(index)).copied().unwrap_or(Heard::Unknown);
            match item {
                Item::Payload(number) => self.on_payload_verdict(*number, heard),
                Item::Letter(letter) => self.on_letter_verdict(worker, letter.about, heard),
            }
        }
    }

    fn on_payload_verdict(&mut self, number: Number, heard: Heard) {
        match heard {
            Heard::Confirmed => {}
            Heard::NotApplied => self.count("payloads not applied"),
            Heard::Unknown => self.count("payloads of unknown fate"),
            Heard::Rejected => self.count("payloads rejected"),
        }
        let Some(payload) = self.payloads.get_mut(&number) else { return };
        payload.in_flight = false;
        payload.last = Some(heard);
        let epoch = payload.epoch;
        if self.is_over(epoch) {
            // What happens at this instant to another assignment may be its doing.
            self.stale = Some(self.now);
        }
    }

    fn on_letter_verdict(&mut self, worker: WorkerNumber, about: Subject, heard: Heard) {
        let hold = self.config.on_send_failure == SendFailurePolicy::Hold;
        let retries_max = self.config.delivery_retries_max;
        let letter = match about {
            Subject::Message { epoch, offset } => {
                self.message(epoch, offset).map(|message| &mut message.letter)
            }
            Subject::Payload(number) => {
                self.payloads.get_mut(&number).map(|payload| &mut payload.letter)
            }
            Subject::Nothing => None,
        };
        let Some(letter) = letter else { return };
        letter.in_flight = false;
        letter.last = Some(heard);
        let given_up = !hold && letter.is_given_up(retries_max);
        if heard == Heard::Confirmed {
            self.account(worker).letters += 1;
        } else if hold {
            self.count("letters refused under hold");
        } else if given_up {
            self.account(worker).letters_given_up += 1;
            self.count("letters dropped");
        }
    }

    pub(super) fn on_delivery_hook_called(&mut self, payloads: &[Number], attempts: u32) {
        let retries_max = self.config.delivery_retries_max;
        let mut most = 0;
        for number in payloads {
            let Some(payload) = self.payloads.get_mut(number) else {
                let what = "on_delivery_error was given a payload that no hook has put out";
                return self.blame(Promise::Dl1, what);
            };
            payload.asked = true;
            most = most.max(payload.offers);
            let (epoch, last) = (payload.epoch, payload.last);
            let tried = payload.offers - payload.offers_before;
            let failed = !payload.in_flight && last.is_some_and(|last| last != Heard::Confirmed);
            let too_soon = last == Some(Heard::NotApplied) && tried <= retries_max;
            self.check_not_over(epoch, "on_delivery_error was called");
            if !failed {
                let what =
                    format!("on_delivery_error was called for payload {number} after {last:?}");
                self.blame(Promise::Dl3, what);
            }
            if too_soon {
                let what = format!(
                    "payload {number} was given up after {tried} attempts, though it could be tried \
                     {} times",
                    retries_max + 1
                );
                self.blame(Promise::Dl3, what);
            }
        }
        if most != attempts {
            let what = format!("on_delivery_error was told {attempts} attempts; there were {most}");
            self.blame(Promise::Account, what);
        }
    }

    pub(super) fn on_delivery_hook(&mut self, payloads: &[Number], answer: &Answered) {
        let retries_max = self.config.handler_delivery_retries_max;
        for number in payloads {
            let Some(payload) = self.payloads.get_mut(number) else { continue };
            let epoch = payload.epoch;
            match answer {
                Answered::Skip => {
                    payload.skipped = true;
                    self.count("payloads skipped");
                }
                Answered::Retry(_) if payload.handler_retries < retries_max => {
                    payload.handler_retries += 1;
                    payload.offers_before = payload.offers;
                    payload.granted = true;
                    payload.asked = false;
                }
                Answered::Failed => {
                    payload.lettering = true;
                    for offset in self.offsets_of(*number) {
                        self.doom(epoch, offset, Doom::Hook(Hook::OnDeliveryError));
                    }
                }
                _ => payload.lettering = true,
            }
        }
    }

    /// The messages that wait for a payload.
    pub(super) fn offsets_of(&self, number: Number) -> Vec<Offset> {
        let Some(payload) = self.payloads.get(&number) else { return Vec::new() };
        let Some(assignment) = self.assignments.get(&payload.epoch) else { return Vec::new() };
        match payload.owner {
            Owner::Task(task) => {
                assignment.tasks.get(&task).map_or_else(Vec::new, |task| task.offsets.clone())
            }
            Owner::Message(offset) => vec![offset],
            Owner::Window(id) => {
                let window = assignment.windows.get(&id);
                window.map_or_else(Vec::new, |window| window.messages.iter().copied().collect())
            }
        }
    }

    /// A call of a sink must not outlast the deadline of an attempt.
    pub(super) fn check_calls(&mut self, at: Duration) {
        let overdue = self
            .calls
            .iter()
            .find(|((_, sink, _), call)| call.began + self.attempt_timeouts[sink] + SLACK < at);
        if let Some(((worker, sink, _), call)) = overdue {
            let what = format!(
                "a call of {sink:?} in worker {worker} goes on since {:?}, with a deadline of {:?}",
                call.began, self.attempt_timeouts[sink]
            );
            self.blame(Promise::Ft2, what);
        }
    }
}
