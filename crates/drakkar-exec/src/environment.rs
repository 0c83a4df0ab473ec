//! The environment of the children: what the worker hands down, less what looks like a secret, plus
//! what the configuration and the task add.
//!
//! The part that all tasks share is computed once at start. Later changes of the worker's own
//! environment reach no child, so that nothing can slip past the deny list.

use drakkar_api::Secret;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Patterns of names that look like secrets, the default of `executor.env_inherit_deny`.
///
/// The patterns are meant to hit names that carry a credential, and to spare those that children
/// need: `*AUTH*` would take away `XAUTHORITY` and `GIT_AUTHOR_NAME`, `*CERT*` the trust store in
/// `SSL_CERT_FILE`. They do hit `SSH_AUTH_SOCK`: a child that talks to an SSH agent must be given it
/// through `executor.env`.
pub(crate) const DENY_DEFAULT: &[&str] = &[
    "DRAKKAR_*",
    "*PASSWORD*",
    "*SECRET*",
    "*TOKEN*",
    "*_KEY",
    "*_DSN",
    "*CREDENTIAL*",
    "*PASSWD*",
    "*PASSPHRASE*",
    "*_PASS",
    "*_PWD",
    "*_SALT",
    "*_AUTH",
    "*_AUTH_*",
    "*APIKEY*",
    "*PRIVATE_KEY*",
    "*_CERT",
    "*_PEM",
    "*DATABASE_URL",
];

/// The variables that every child gets, before those of its task. No `Debug`: they may be secret.
pub(crate) struct Environment {
    shared: Vec<Variable>,
}

struct Variable {
    name: OsString,
    /// `NAME=value`, as a program gets it.
    entry: CString,
}

impl Environment {
    /// Puts together what `parent` may hand down and what the configuration adds; the latter wins.
    pub(crate) fn new(
        parent: impl IntoIterator<Item = (OsString, OsString)>,
        deny: &[NamePattern],
        added: &BTreeMap<String, Secret<String>>,
    ) -> Self {
        let denied = |name: &OsStr| deny.iter().any(|pattern| pattern.matches(name.as_bytes()));
        let mut shared: BTreeMap<_, _> =
            parent.into_iter().filter(|(name, _)| !denied(name)).collect();
        shared.extend(added.iter().map(|(name, value)| (name.into(), value.expose().into())));
        let variable = |(name, value): (OsString, OsString)| {
            // A name or value with a NUL byte cannot be inherited, and is refused in settings.
            let entry = entry(name.as_bytes(), value.as_bytes()).ok()?;
            Some(Variable { name, entry })
        };
        Self { shared: shared.into_iter().filter_map(variable).collect() }
    }

    /// Returns all entries for a task: `own` are those of the task's variables, and `is_own` tells
    /// their names.
    pub(crate) fn entries<'a>(
        &'a self,
        own: &'a [CString],
        is_own: impl Fn(&str) -> bool,
    ) -> Vec<&'a CStr> {
        let hidden = |name: &OsStr| !own.is_empty() && name.to_str().is_some_and(&is_own);
        let shared = self.shared.iter().filter(|variable| !hidden(&variable.name));
        shared.map(|variable| &variable.entry).chain(own).map(CString::as_c_str).collect()
    }
}

/// Makes an entry of an environment.
pub(crate) fn entry(name: &[u8], value: &[u8]) -> Result<CString, NulError> {
    CString::new([name, b"=", value].concat())
}

/// Says what is wrong with a variable, if something is: such a name would change another variable,
/// and a NUL byte would cut it off. The value is never shown.
pub(crate) fn fault_of(name: &str, value: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the name of an environment variable is empty".to_owned());
    }
    if name.contains('=') || name.contains('\0') {
        return Some(format!(
            "the name of environment variable {name:?} holds \"=\" or a NUL byte"
        ));
    }
    value.contains('\0').then(|| format!("environment variable {name:?} holds a NUL byte"))
}

/// A shell-style pattern for the whole name of a variable, whatever its case: `*` is any text, `?`
/// any one byte, `[abc]`, `[a-z]` and `[!a-z]` one byte of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamePattern(Vec<u8>);

impl NamePattern {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.to_ascii_uppercase().into_bytes())
    }

    /// Returns whether all of `name` fits.
    ///
    /// Only the last `*` is ever tried again, so this takes at most `pattern * name` steps.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let (mut pattern, mut rest) = (self.0.as_slice(), name);
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            if let Some(after) = pattern.strip_prefix(b"*") {
                pattern = after;
                retry = Some((after, rest));
                continue;
            }
            let step = match (rest.split_first(), pattern.is_empty()) {
                (None, true) => return true,
                (Some((byte, tail)), false) => {
                    match_one(pattern, byte.to_ascii_uppercase()).map(|after| (after, tail))
                }
                _ => None,
            };
            if let Some(step) = step {
                (pattern, rest) = step;
                continue;
            }
            // The last star takes one byte more.
            let Some((after, [_, tail @ ..])) = retry else { return false };
            retry = Some((after, tail));
            (pattern, rest) = (after, tail);
        }
    }
}

/// Matches the first element of a non-empty pattern and returns what follows it.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, after) = pattern.split_first()?;
    match first {
        b'?' => Some(after),
        b'[' => match split_set(after) {
            Some((set, after)) => set_holds(set, byte).then_some(after),
            // Without its closing bracket it is an ordinary character.
            None => (byte == b'[').then_some(after),
        },
        literal => (byte == *literal).then_some(after),
    }
}

/// Splits `abc]rest` into set and rest. A bracket right at the start of a set belongs to it.
fn split_set(pattern: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = usize::from(pattern.first() == Some(&b'!'));
    let end = pattern.iter().skip(start + 1).position(|byte| *byte == b']')? + start + 1;
    Some((&pattern[..end], &pattern[end + 1..]))
}

fn set_holds(set: &[u8], byte: u8) -> bool {
    let (negated, mut members) = match set {
        [b'!', members @ ..] => (true, members),
        members => (false, members),
    };
    let mut found = false;
    while let [first, rest @ ..] = members {
        if let [b'-', last, rest @ ..] = rest {
            found |= (*first..=*last).contains(&byte);
            members = rest;
        } else {
            found |= *first == byte;
            members = rest;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::new(pattern).matches(name.as_bytes())
    }

    #[test]
    fn patterns_match_the_whole_name_in_any_case() {
        let check = |pattern, name, expect| {
            assert_eq!(matches(pattern, name), expect, "{pattern:?} and {name:?}");
        };
        check("", "", true);
        check("", "A", false);
        check("*", "", true);
        check("PATH", "path", true);
        check("path", "PATHS", false);
        check("*_KEY", "API_KEY", true);
        check("*_KEY", "API_KEY_ID", false);
        check("*PASSWORD*", "PGPASSWORDFILE", true);
        check("A*B*C", "AxBxBxC", true);
        check("A*B*C", "AxBxBx", false);
        check("A?C", "ABC", true);
        check("A?C", "AC", false);
        check("V[0-9]", "v7", true);
        check("V[0-9]", "Vx", false);
        check("V[!0-9]", "Vx", true);
        check("V[]x]", "V]", true);
        check("V[ab", "V[ab", true);
        check("V[a-]", "V-", true);
    }

    #[test]
    fn the_default_list_hits_secrets_and_spares_what_children_need() {
        let denied = |name: &str| DENY_DEFAULT.iter().any(|pattern| matches(pattern, name));
        for name in [
            "DRAKKAR_KAFKA__BROKERS",
            "PGPASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "STRIPE_API_KEY",
            "SENTRY_DSN",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "MYSQL_PASSWD",
            "MYSQL_PWD",
            "DB_PASS",
            "PASSWORD_SALT",
            "REDISCLI_AUTH",
            "DOCKER_AUTH_CONFIG",
            "SSH_PRIVATE_KEY_B64",
            "TLS_CLIENT_CERT",
            "SIGNING_PEM",
            "DATABASE_URL",
            "OPENAI_APIKEY",
            "GPG_PASSPHRASE",
            "SSH_AUTH_SOCK",
        ] {
            assert!(denied(name), "{name} must not be inherited");
        }
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "TZ",
            "PWD",
            "OLDPWD",
            "USER",
            "SHELL",
            "TMPDIR",
            "XAUTHORITY",
            "GIT_AUTHOR_NAME",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "COMPASS",
            "AWS_ACCESS_KEY_ID",
            "KEYBOARD",
            "PYTHONPATH",
            "LD_LIBRARY_PATH",
            "HTTPS_PROXY",
        ] {
            assert!(!denied(name), "{name} must be inherited");
        }
    }

    #[test]
    fn later_sources_win_and_only_inherited_names_are_denied() {
        let parent = [("A", "parent"), ("B", "parent"), ("C", "parent"), ("X_TOKEN", "secret")];
        let parent = parent.map(|(name, value)| (name.into(), value.into()));
        let deny = [NamePattern::new("*TOKEN*")];
        let pair = |name: &str, value: &str| (name.to_owned(), Secret::new(value.to_owned()));
        let added = BTreeMap::from([pair("B", "config"), pair("Y_TOKEN", "given on purpose")]);
        let environment = Environment::new(parent, &deny, &added);
        let check = |own: &[(&str, &str)], expect: &[&str]| {
            let entries = own.iter().map(|(name, value)| entry(name.as_bytes(), value.as_bytes()));
            let entries: Vec<_> = entries.map(|entry| entry.expect("no NUL byte")).collect();
            let is_own = |name: &str| own.iter().any(|(own, _)| *own == name);
            let all = environment.entries(&entries, is_own);
            let all: Vec<_> = all.iter().map(|entry| entry.to_str().expect("text")).collect();
            assert_eq!(all, expect);
        };
        check(&[], &["A=parent", "B=config", "C=parent", "Y_TOKEN=given on purpose"]);
        check(
            &[("B", "task"), ("D", "x=y")],
            &["A=parent", "C=parent", "Y_TOKEN=given on purpose", "B=task", "D=x=y"],
        );
    }

    #[test]
    fn names_that_would_change_another_variable_are_refused() {
        assert_eq!(fault_of("A", "b=c"), None);
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")] {
            assert!(fault_of(name, value).is_some(), "{name:?}={value:?}");
        }
        let fault = fault_of("A", "hunter2\0").expect("it holds a NUL byte");
        assert!(!fault.contains("hunter2"), "{fault}");
    }

    /// The definition of `*` and `?`, without any cleverness.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', after)), None) => naive(after, name),
            (Some((b'*', after)), Some((_, tail))) => naive(after, name) || naive(pattern, tail),
            (Some((one, after)), Some((byte, tail))) => {
                (*one == b'?' || one == byte) && naive(after, tail)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[AB*?]{0,8}", name in "[AB]{0,8}") {
            prop_assert_eq!(matches(&pattern, &name), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
