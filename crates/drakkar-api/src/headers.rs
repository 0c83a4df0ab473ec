//! Headers of a message or a record: ordered pairs whose names may repeat, as Kafka has them.

use bytes::Bytes;

/// An ordered list of header names and values. A name may occur more than once; a value may be
/// absent, which is not the same as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Option<Bytes>)>);

impl Headers {
    /// Makes an empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: impl Into<String>, value: Option<Bytes>) {
        self.0.push((name.into(), value));
    }

    /// Returns the value of the last header called `name`; `None` also when it has no value.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.as_ref())
    }

    /// Returns the headers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&Bytes>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the size of all names and values in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

impl FromIterator<(String, Option<Bytes>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, Option<Bytes>)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_wins() {
        let mut headers = Headers::new();
        headers.push("a", Some(Bytes::from_static(b"1")));
        headers.push("a", Some(Bytes::from_static(b"2")));
        headers.push("b", None);
        assert_eq!(headers.get("a"), Some(&Bytes::from_static(b"2")));
        assert_eq!(headers.get("b"), None);
        assert_eq!((headers.len(), headers.size_bytes()), (3, 5));
    }
}
