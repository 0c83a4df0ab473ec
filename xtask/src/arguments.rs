//! What follows a subcommand on the command line: flags, names, and the words after `--`.
//!
//! Flags may stand anywhere before `--`. Whatever nobody asked for is an error, so a mistyped flag
//! is never taken for a name.

use std::fmt;

/// A mistake in the command line, as opposed to a command that failed.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The words after the subcommand, taken out one by one.
#[derive(Debug)]
pub(crate) struct Arguments {
    words: Vec<String>,
    after_dashes: Vec<String>,
}

impl Arguments {
    /// Splits the words at the first `--`.
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        let mut words: Vec<String> = words.into_iter().collect();
        let mut after_dashes = Vec::new();
        if let Some(dashes) = words.iter().position(|word| word == "--") {
            after_dashes = words.split_off(dashes + 1);
            words.pop();
        }
        Self { words, after_dashes }
    }

    /// Takes the first word, such as the verb of `services up`.
    pub(crate) fn next(&mut self) -> Option<String> {
        if self.words.is_empty() { None } else { Some(self.words.remove(0)) }
    }

    /// Takes the flag out and says whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let count = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < count
    }

    /// Takes every `--name value` or `--name=value` out, in order.
    pub(crate) fn values(&mut self, name: &str) -> Result<Vec<String>, UsageError> {
        let mut values = Vec::new();
        let mut kept = Vec::new();
        let mut words = std::mem::take(&mut self.words).into_iter();
        while let Some(word) = words.next() {
            if word == name {
                let missing = || UsageError(format!("{name} needs a value"));
                values.push(words.next().ok_or_else(missing)?);
            } else if let Some(value) = word.strip_prefix(name).and_then(|it| it.strip_prefix('='))
            {
                values.push(value.to_owned());
            } else {
                kept.push(word);
            }
        }
        self.words = kept;
        Ok(values)
    }

    /// Takes everything that stood after `--`.
    pub(crate) fn after_dashes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.after_dashes)
    }

    /// Gives every word that is left, flags too: for commands that pass their arguments on.
    pub(crate) fn forwarded(self) -> Vec<String> {
        self.words.into_iter().chain(self.after_dashes).collect()
    }

    /// Gives the names that are left; a flag among them is unknown.
    pub(crate) fn names(self) -> Result<Vec<String>, UsageError> {
        if let Some(flag) = self.words.iter().find(|word| word.starts_with('-')) {
            return Err(UsageError(format!("unknown option \"{flag}\"")));
        }
        if !self.after_dashes.is_empty() {
            return Err(UsageError("this command takes nothing after \"--\"".to_owned()));
        }
        Ok(self.words)
    }

    /// Checks that nothing is left.
    pub(crate) fn finish(self) -> Result<(), UsageError> {
        match self.names()?.first() {
            Some(name) => Err(UsageError(format!("unexpected argument \"{name}\""))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Arguments {
        Arguments::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_and_values_are_taken_from_anywhere() {
        let mut given =
            arguments("up --json kafka --provider native redis --skip=test --skip deny");
        assert_eq!(given.next().as_deref(), Some("up"));
        assert!(given.flag("--json"));
        assert!(!given.flag("--json"));
        assert_eq!(given.values("--provider").expect("has a value"), ["native"]);
        assert_eq!(given.values("--skip").expect("have values"), ["test", "deny"]);
        assert_eq!(given.names().expect("only names are left"), ["kafka", "redis"]);
    }

    #[test]
    fn words_after_dashes_are_kept_apart() {
        let mut given = arguments("kafka -- --nocapture -- x");
        assert_eq!(given.after_dashes(), ["--nocapture", "--", "x"]);
        assert_eq!(given.names().expect("only names are left"), ["kafka"]);
    }

    #[test]
    fn what_nobody_asked_for_is_an_error() {
        assert!(arguments("kafka --jsno").names().is_err());
        assert!(arguments("kafka -- x").names().is_err());
        assert!(arguments("kafka").finish().is_err());
        assert!(arguments("--provider").values("--provider").is_err());
        assert!(arguments("").finish().is_ok());
    }

    #[test]
    fn forwarding_keeps_flags_and_order() {
        assert_eq!(arguments("--json a -- b").forwarded(), ["--json", "a", "b"]);
    }
}
