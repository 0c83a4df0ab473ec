//! The environment as a layer above the file.
//!
//! `DRAKKAR_KAFKA__BROKERS` overrides `kafka.brokers`: the prefix, then the path with `__` between
//! keys, in any case. Keys with free names (sinks, variables, headers) are matched against those of
//! the file without regard to case, with `-`, `_` and `.` alike; an exact match wins. The value is
//! text that is converted to the type of the setting; lists, maps and whole tables are JSON, and
//! `null` empties an optional setting.
//!
//! The `config` crate's own environment source lower-cases every key and guesses types, so it is not
//! used; see `docs/decisions/002-configuration-layers.md`.

use super::nearest::{fold, nearest};
use super::schema::{Setting, Shape, Table};
use super::yaml::{Entries, from_json, put};
use config::{Value, ValueKind};
use drakkar_api::{Kind, Problems};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;

/// What the names of settings begin with.
pub(super) const PREFIX: &str = "DRAKKAR_";

/// Variables with the prefix that mean something else.
pub(super) const RESERVED: [&str; 3] =
    ["DRAKKAR_CONFIG", "DRAKKAR_LOG", "DRAKKAR_UPDATE_REFERENCE"];

/// The variables of the process, or of a test. Its `Debug` shows names only.
#[derive(Clone, Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
    /// Names with the prefix whose values are not Unicode.
    garbled: Vec<String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self { variables: variables.into_iter().collect(), garbled: Vec::new() }
    }
}

impl Environment {
    /// Reads the variables of this process.
    pub(super) fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => {
                    environment.variables.insert(name, value);
                }
                Err(_) if name.starts_with(PREFIX) => environment.garbled.push(name),
                Err(_) => {}
            }
        }
        environment
    }

    /// Returns the value of a variable, unless it is missing or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Turns the variables into a tree that can be laid over `file`.
pub(super) fn overrides(
    environment: &Environment,
    schema: &Table,
    file: &Entries,
) -> (Entries, Problems) {
    let mut problems = Problems::new();
    for name in &environment.garbled {
        problems.push(name, "its value is not valid Unicode");
    }
    let mut found: Vec<Override> = Vec::new();
    for (name, text) in &environment.variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if RESERVED.contains(&name.as_str()) {
            continue;
        }
        let segments: Vec<&str> = rest.split("__").collect();
        match locate(schema, file, &segments) {
            Ok((path, shape)) => {
                found.push(Override { name, text, path, shape });
            }
            Err(_)
                if is_named_elsewhere(environment, file, name) || is_service_link(rest, text) => {}
            Err(Unknown::Ambiguous(names)) => {
                problems.push(name, format!("matches several names: {}", names.join(", ")));
            }
            Err(Unknown::Key) => problems.push(name, unknown(schema, file, name)),
        }
    }
    report_overlaps(&found, &mut problems);
    let mut tree = Entries::new();
    for Override { name, text, path, shape } in found {
        match convert(shape, text, name) {
            Ok(value) => put(&mut tree, &path, value),
            Err(message) => problems.push(path.join("."), format!("{message} (set by {name})")),
        }
    }
    (tree, problems)
}

struct Override<'a> {
    name: &'a String,
    text: &'a str,
    path: Vec<String>,
    shape: &'a Shape,
}

enum Unknown {
    /// No setting has this path.
    Key,
    /// Several names of the file match equally well.
    Ambiguous(Vec<String>),
}

type Located<'a> = Result<(Vec<String>, &'a Shape), Unknown>;

/// Finds the setting that a variable means.
fn locate<'a>(table: &'a Table, existing: &Entries, segments: &[&str]) -> Located<'a> {
    let (first, rest) = segments.split_first().ok_or(Unknown::Key)?;
    let setting = table
        .settings
        .iter()
        .find(|setting| setting.name.eq_ignore_ascii_case(first))
        .ok_or(Unknown::Key)?;
    let child = existing.get(setting.name);
    let (mut path, shape) = locate_inside(&setting.shape, child, rest)?;
    path.insert(0, setting.name.to_owned());
    Ok((path, shape))
}

fn locate_inside<'a>(shape: &'a Shape, value: Option<&Value>, segments: &[&str]) -> Located<'a> {
    if segments.is_empty() {
        return Ok((Vec::new(), shape));
    }
    let none = Entries::new();
    let existing = match value.map(|value| &value.kind) {
        Some(ValueKind::Table(entries)) => entries,
        _ => &none,
    };
    match shape {
        Shape::Optional(inner) => locate_inside(inner, value, segments),
        Shape::Table(table) => locate(table, existing, segments),
        Shape::Map(inner) => {
            let is_instance = inner.as_table().is_some();
            let (name, rest) = match is_instance {
                true => (segments[0].to_owned(), &segments[1..]),
                // A free name may itself hold two underscores.
                false => (segments.join("__"), &[][..]),
            };
            let key = match matching_key(existing, &name)? {
                Some(key) => key,
                // New sinks are named in lower case, as in the original; new variables and headers
                // as they are written.
                None if is_instance => name.to_lowercase(),
                None => name,
            };
            let (mut path, shape) = locate_inside(inner, existing.get(&key), rest)?;
            path.insert(0, key);
            Ok((path, shape))
        }
        Shape::List(_) | Shape::Scalar(_) => Err(Unknown::Key),
    }
}

/// Finds the free name that is meant: the same, else the same but for case, else the same but for
/// case and separators.
fn matching_key(existing: &Entries, name: &str) -> Result<Option<String>, Unknown> {
    if existing.contains_key(name) {
        return Ok(Some(name.to_owned()));
    }
    let folded = fold(name);
    let matchers: [&dyn Fn(&str) -> bool; 2] =
        [&|key| key.eq_ignore_ascii_case(name), &|key| fold(key) == folded];
    for matches in matchers {
        let mut keys: Vec<_> = existing.keys().filter(|key| matches(key)).cloned().collect();
        keys.sort();
        match keys.len() {
            0 => {}
            1 => return Ok(keys.pop()),
            _ => return Err(Unknown::Ambiguous(keys)),
        }
    }
    Ok(None)
}

/// Reports variables that set the same thing, or a part of what another one sets.
fn report_overlaps(found: &[Override<'_>], problems: &mut Problems) {
    for (index, outer) in found.iter().enumerate() {
        for inner in found.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, o)| o) {
            let same = outer.path == inner.path && outer.name < inner.name;
            let part = inner.path.len() > outer.path.len() && inner.path.starts_with(&outer.path);
            if same || part {
                let path = outer.path.join(".");
                let (outer, inner) = (outer.name, inner.name);
                let what = if same { "the same setting" } else { "a part of it" };
                problems.push(path, format!("set by {outer}, while {inner} sets {what}; keep one"));
            }
        }
    }
}

/// Whether the variable is one that `worker_name_env` or `cluster_name_env` names.
fn is_named_elsewhere(environment: &Environment, file: &Entries, name: &str) -> bool {
    ["worker_name_env", "cluster_name_env"].into_iter().any(|setting| {
        let variable = format!("{PREFIX}{}", setting.to_uppercase());
        match (environment.get(&variable), file.get(setting).map(|value| &value.kind)) {
            (Some(named), _) => named == name,
            (None, Some(ValueKind::String(named))) => named == name,
            _ => false,
        }
    })
}

/// Whether Kubernetes made this variable for a service called `drakkar` or `drakkar-…`: it does so
/// in every pod of the namespace, and nobody can be asked to rename a service for that.
fn is_service_link(rest: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let words: Vec<&str> = rest.split('_').collect();
    let numbered_port = words.windows(3).any(|three| {
        let [port, number, protocol] = three else { return false };
        *port == "PORT"
            && number.parse::<u16>().is_ok()
            && matches!(*protocol, "TCP" | "UDP" | "SCTP")
    });
    let service = words.windows(2).any(|two| matches!(two, ["SERVICE", "HOST" | "PORT"]));
    !rest.contains("__")
        && (numbered_port || service || (is_address && words.last() == Some(&"PORT")))
}

fn unknown(schema: &Table, file: &Entries, name: &str) -> String {
    let mut known = Vec::new();
    variables_of(schema, Some(file), "", &mut known);
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    match nearest(rest, known.iter().map(String::as_str)) {
        Some(near) => format!("is no setting; did you mean {PREFIX}{near}?"),
        None => format!(
            "is no setting; names that begin with {PREFIX} are reserved for settings, so rename or \
             unset it"
        ),
    }
}

/// Lists the variables of all settings of a table, those of named tables as far as they exist.
fn variables_of(table: &Table, existing: Option<&Entries>, prefix: &str, into: &mut Vec<String>) {
    for Setting { name, shape, .. } in &table.settings {
        let variable = format!("{prefix}{}", name.to_uppercase());
        let inside = match existing.and_then(|entries| entries.get(*name)).map(|value| &value.kind)
        {
            Some(ValueKind::Table(entries)) => Some(entries),
            _ => None,
        };
        if let Some(table) = shape.as_table() {
            variables_of(table, inside, &format!("{variable}__"), into);
        } else if let (Shape::Map(inner), Some(entries)) = (shape, inside)
            && let Some(table) = inner.as_table()
        {
            for key in entries.keys() {
                let key = key.to_uppercase().replace(['-', '.'], "_");
                variables_of(table, None, &format!("{variable}__{key}__"), into);
            }
        } else {
            into.push(variable);
        }
    }
}

/// Converts the text of a variable to the type of its setting. Never shows the text.
fn convert(shape: &Shape, text: &str, origin: &String) -> Result<Value, String> {
    let kind = match shape {
        Shape::Optional(_) if text == "null" => ValueKind::Nil,
        Shape::Optional(inner) => return convert(inner, text, origin),
        Shape::Scalar(kind) => return convert_scalar(kind, text, origin),
        Shape::List(_) => match serde_json::from_str(text) {
            Ok(json @ Json::Array(_)) => return Ok(from_json(json, Some(origin))),
            _ => return Err("must be a JSON list such as [\"A\", \"B\"]".to_owned()),
        },
        Shape::Map(_) | Shape::Table(_) => match serde_json::from_str(text) {
            Ok(json @ Json::Object(_)) => return Ok(from_json(json, Some(origin))),
            _ => return Err("must be a JSON object such as {\"A\": \"b\"}".to_owned()),
        },
    };
    Ok(Value::new(Some(origin), kind))
}

fn convert_scalar(kind: &Kind, text: &str, origin: &String) -> Result<Value, String> {
    let trimmed = text.trim();
    let converted = match kind {
        Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => ValueKind::Boolean(true),
            "false" | "f" | "no" | "n" | "off" | "0" => ValueKind::Boolean(false),
            _ => return Err("must be true or false".to_owned()),
        },
        Kind::Int { .. } => match trimmed.parse() {
            Ok(number) => ValueKind::I64(number),
            Err(_) => return Err("must be a whole number such as 10".to_owned()),
        },
        Kind::Float { .. } => match trimmed.parse() {
            Ok(number) => ValueKind::Float(number),
            Err(_) => return Err("must be a number such as 2.5".to_owned()),
        },
        Kind::Any => match serde_json::from_str(text) {
            Ok(json) => return Ok(from_json(json, Some(origin))),
            Err(_) => ValueKind::String(text.to_owned()),
        },
        _ => ValueKind::String(text.to_owned()),
    };
    Ok(Value::new(Some(origin), converted))
}
