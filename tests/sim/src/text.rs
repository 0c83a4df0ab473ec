//! The texts of the world: each message and each payload says what it is and how long it is, so that
//! whoever finds one knows whether it is whole.

use crate::recipe::{Cookbook, Recipe};
use crate::seen::{Number, Shape};
use bytes::Bytes;
use drakkar_api::{Offset, Payload};

/// How the value of a message begins that does not parse.
const UNPARSABLE: u8 = b'!';

/// Returns the value of a message.
pub(crate) fn message_value(recipe: &Recipe, partition: i32, offset: Offset) -> Option<Bytes> {
    let filling = "x".repeat(recipe.filling);
    match recipe.shape {
        Shape::Plain => Some(Bytes::from(format!("{partition}:{offset}|{filling}"))),
        Shape::Unparsable => Some(Bytes::from(format!("!{partition}:{offset}|{filling}"))),
        Shape::Tombstone => None,
    }
}

/// Returns whether a value is one that does not parse.
pub(crate) fn is_unparsable(value: &[u8]) -> bool {
    value.first() == Some(&UNPARSABLE)
}

/// Returns whether these are the bytes of the message at this place.
pub(crate) fn is_whole_message(
    cookbook: &Cookbook,
    partition: i32,
    offset: Offset,
    value: Option<&Bytes>,
) -> bool {
    message_value(&cookbook.of(partition, offset), partition, offset).as_ref() == value
}

/// Returns the bytes of a payload.
pub(crate) fn payload_bytes(number: Number, filling: usize) -> Bytes {
    Bytes::from(format!("{number}|{filling}|{}", "y".repeat(filling)))
}

/// Returns the number of a payload, if its bytes are whole.
pub(crate) fn payload_number(bytes: &[u8]) -> Option<Number> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.splitn(3, '|');
    let (number, filling, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = rest.len() == filling.parse::<usize>().ok()? && rest.bytes().all(|b| b == b'y');
    whole.then_some(())?;
    number.parse().ok()
}

/// The same for any payload of the simulation; 0 for one that is not of it or not whole.
pub(crate) fn number_of_payload(payload: &Payload) -> Number {
    payload.to_bytes().and_then(|bytes| payload_number(&bytes)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_was_cut_is_not_whole() {
        let bytes = payload_bytes(17, 5);
        assert_eq!(payload_number(&bytes), Some(17));
        assert_eq!(payload_number(&bytes[..bytes.len() - 1]), None);
        assert_eq!(payload_number(b"17"), None);
    }
}
