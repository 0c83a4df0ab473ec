//! The fields of Kafka's own records.

use anyhow::{Context, Result, bail};

/// What is left of a record.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk().context("a record is cut short")?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8]> {
        self.optional_text()?.context("a record has no text where there must be one")
    }

    /// A length of -1 means that there is none.
    pub(crate) fn optional_text(&mut self) -> Result<Option<&'a [u8]>> {
        match self.i16()? {
            -1 => Ok(None),
            len => Ok(Some(self.part(len.try_into()?)?)),
        }
    }

    /// The newer form: a length that is one more than it is, 0 if there is none.
    pub(crate) fn compact_text(&mut self) -> Result<Option<&'a [u8]>> {
        match self.varint()?.checked_sub(1) {
            None => Ok(None),
            Some(len) => Ok(Some(self.part(len)?)),
        }
    }

    /// Like text, with a longer length; none is empty.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        match self.i32()? {
            -1 => Ok(&[]),
            len => self.part(len.try_into()?),
        }
    }

    fn varint(&mut self) -> Result<usize> {
        let mut number = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        bail!("a length of more than five bytes")
    }

    fn part(&mut self, len: usize) -> Result<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(len).context("a record is cut short")?;
        self.0 = rest;
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_text_is_read_and_the_next_field_follows_it() {
        let mut fields = Fields(b"\0\x02ab\xff\xff\x03cd\0\0\0\0\x01e\xff\xff\xff\xffrest");
        assert_eq!(fields.text().expect("there"), b"ab");
        assert_eq!(fields.optional_text().expect("none"), None);
        assert_eq!(fields.compact_text().expect("there"), Some(b"cd".as_slice()));
        assert_eq!(fields.compact_text().expect("none"), None);
        assert_eq!(fields.bytes().expect("there"), b"e");
        assert_eq!(fields.bytes().expect("none"), b"");
        assert_eq!(fields.0, b"rest");
    }

    #[test]
    fn a_long_length_takes_more_bytes() {
        let long = [b"\xad\x02".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(Fields(&long).compact_text().expect("there"), Some([b'x'; 300].as_slice()));
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        for cut in [b"".as_slice(), b"\0", b"\0\x02a", b"\xff\xff"] {
            assert!(Fields(cut).text().is_err(), "{cut:?}");
        }
        for cut in [b"".as_slice(), b"\x80", b"\x03a", b"\xff\xff\xff\xff\xff\x0f"] {
            assert!(Fields(cut).compact_text().is_err(), "{cut:?}");
        }
        assert!(Fields(b"\0\0\0\x02a").bytes().is_err());
    }
}
