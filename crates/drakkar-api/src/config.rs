//! The shape of settings, so that every crate can declare its own section and one validator can
//! check them all.
//!
//! A crate declares a [`Section`] of [`Field`]s beside its serde struct. The facade merges the YAML
//! file and the environment, walks the merged tree along the sections, and reports every
//! [`Problem`] at once with its path. The same tables make the reference page.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A table of settings: one level of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What these settings are about, in one sentence.
    pub about: &'static str,
    /// The settings, in the order of the reference page.
    pub fields: &'static [Field],
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its default as YAML text, such as `100` or `""`; `None` when it must be given.
    pub default: Option<&'static str>,
    /// What it means, with its unit and what happens when a limit is reached.
    pub about: &'static str,
}

/// What values a setting takes. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// A number.
    Float {
        /// The least value; [`f64::MIN_POSITIVE`] stands for "above 0".
        min: f64,
        /// The greatest value.
        max: f64,
    },
    /// Text.
    Text {
        /// The least length in characters.
        min_length: usize,
    },
    /// Text that is never shown.
    Secret,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A value of the inner kind, or null.
    Optional(&'static Kind),
    /// A list of values of the inner kind.
    List(&'static Kind),
    /// A map from free names to values of the inner kind.
    Map(&'static Kind),
    /// A nested table.
    Section(&'static Section),
    /// Any value; the owner checks it.
    Any,
}

/// Something wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: keys joined by dots, such as `sinks.kafka.results.topic`.
    pub path: String,
    /// What is wrong and what to do, in lower case and without a full stop. Never a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// All that is wrong with a configuration. An error only if it is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a problem.
    pub fn push(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    /// Takes over the problems of another list.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the problems in the order in which they were found.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }

    /// Answers `value` if nothing is wrong.
    ///
    /// # Errors
    ///
    /// The list itself, if it is not empty.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in the configuration")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// A value that is never shown: its `Debug`, `Display` and serialised forms are `***`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Shows the value to code that needs it, such as a driver.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> Serialize for Secret<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_shown_with_their_paths() {
        let mut problems = Problems::new();
        problems.push("executor.max_executors", "must be at least 1, found 0");
        problems.push("kafka", "unknown key \"brokerz\"; did you mean \"brokers\"?");
        let text = problems.to_string();
        assert!(text.starts_with("2 problems in the configuration\n"), "{text}");
        assert!(text.contains("\n  executor.max_executors: must be at least 1, found 0"), "{text}");
        assert_eq!(problems.clone().into_result(1), Err(problems));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2".to_owned());
        let shown = format!("{secret:?} {secret} {}", serde_json::json!({ "password": secret }));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
    }
}
