//! Checks merged values against the tables: every problem is reported, none hides another.

use super::nearest::nearest;
use super::schema::{Setting, Shape, Table};
use super::yaml::{Entries, parse_scalar, to_json};
use config::{Value, ValueKind};
use drakkar_api::{Kind, Problems};
use serde_json::{Map, Value as Json};

/// Checks a whole configuration and fills in the defaults.
///
/// Settings with a problem are missing from the answer.
pub(super) fn check_root(schema: &Table, root: &Entries) -> (Map<String, Json>, Problems) {
    let mut walker = Walker { problems: Problems::new() };
    let checked = walker.entries(schema, root, &Place::root());
    (checked, walker.problems)
}

/// Checks one value against one shape.
pub(super) fn check_value(shape: &Shape, value: &Value, path: &str) -> Problems {
    let mut walker = Walker { problems: Problems::new() };
    walker.value(shape, value, &Place { path: path.to_owned(), shown: !shape.is_secret() });
    walker.problems
}

struct Walker {
    problems: Problems,
}

/// Where the walker is.
struct Place {
    path: String,
    /// Whether values found here may be shown; never inside maps with free names, where secrets
    /// such as variables and headers live.
    shown: bool,
}

impl Place {
    fn root() -> Self {
        Self { path: String::new(), shown: true }
    }

    fn child(&self, name: &str) -> Self {
        let path = match self.path.as_str() {
            "" => name.to_owned(),
            parent => format!("{parent}.{name}"),
        };
        Self { path, shown: self.shown }
    }

    fn hidden(self) -> Self {
        Self { shown: false, ..self }
    }

    /// Returns the last key.
    fn key(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}

impl Walker {
    fn report(&mut self, place: &Place, value: &Value, message: String) {
        match value.origin() {
            Some(origin) => {
                self.problems.push(&place.path, format!("{message} (set by {origin})"));
            }
            None => self.problems.push(&place.path, message),
        }
    }

    fn entries(&mut self, table: &Table, entries: &Entries, place: &Place) -> Map<String, Json> {
        let mut unknown: Vec<_> =
            entries.iter().filter(|(key, _)| table.get(key).is_none()).collect();
        unknown.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in unknown {
            let message = match nearest(key, table.names()) {
                Some(near) => format!("unknown key; did you mean \"{near}\"?"),
                None => {
                    let known: Vec<_> = table.names().collect();
                    format!("unknown key; known here are {}", known.join(", "))
                }
            };
            self.report(&place.child(key), value, message);
        }
        let mut checked = Map::new();
        for setting in &table.settings {
            let child = place.child(setting.name);
            let value = match entries.get(setting.name) {
                Some(value) => self.value(&setting.shape, value, &child),
                None => self.default(setting, &child),
            };
            if let Some(value) = value {
                checked.insert(setting.name.to_owned(), value);
            }
        }
        checked
    }

    fn default(&mut self, setting: &Setting, place: &Place) -> Option<Json> {
        let Some(text) = setting.default else {
            let example = example(&setting.shape, place.key());
            self.problems.push(&place.path, format!("is required; write for example {example}"));
            return None;
        };
        match (&setting.shape, parse_scalar(text)) {
            (Shape::Table(table), _) => Some(self.entries(table, &Entries::new(), place).into()),
            (shape, Some(value)) => self.value(shape, &value, place),
            (_, None) => {
                self.problems.push(&place.path, "the default in the settings table is not YAML");
                None
            }
        }
    }

    fn value(&mut self, shape: &Shape, value: &Value, place: &Place) -> Option<Json> {
        match (shape, &value.kind) {
            (Shape::Scalar(kind), _) => self.scalar(kind, value, place),
            (Shape::Optional(_), ValueKind::Nil) => Some(Json::Null),
            (Shape::Optional(inner), _) => self.value(inner, value, place),
            (Shape::List(inner), ValueKind::Array(items)) => {
                self.items(inner, items, place).map(Json::Array)
            }
            // A key with nothing under it means the same as leaving it out.
            (Shape::Map(_), ValueKind::Nil) => Some(Json::Object(Map::new())),
            (Shape::Map(inner), ValueKind::Table(entries)) => {
                Some(self.free_entries(inner, entries, place).into())
            }
            (Shape::Table(table), ValueKind::Nil) => {
                Some(self.entries(table, &Entries::new(), place).into())
            }
            (Shape::Table(table), ValueKind::Table(entries)) => {
                Some(self.entries(table, entries, place).into())
            }
            (Shape::List(_) | Shape::Map(_) | Shape::Table(_), _) => {
                let expected = expected(shape);
                // A text in the place of a table may be a connection string.
                let found = found(value, false);
                let example = example(shape, place.key());
                let message =
                    format!("must be {expected}, found {found}; write for example {example}");
                self.report(place, value, message);
                None
            }
        }
    }

    fn items(&mut self, inner: &Shape, items: &[Value], place: &Place) -> Option<Vec<Json>> {
        let checked = items.iter().enumerate().map(|(index, item)| {
            let child = Place { path: format!("{}[{index}]", place.path), shown: place.shown };
            self.value(inner, item, &child)
        });
        // All items are checked, also behind a bad one.
        let checked: Vec<_> = checked.collect();
        checked.into_iter().collect()
    }

    fn free_entries(
        &mut self,
        inner: &Shape,
        entries: &Entries,
        place: &Place,
    ) -> Map<String, Json> {
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_by_key(|(key, _)| key.as_str());
        let mut checked = Map::new();
        for (key, value) in sorted {
            let child = match inner {
                Shape::Table(_) => place.child(key),
                _ => place.child(key).hidden(),
            };
            if key.is_empty() {
                self.report(&child, value, "a name must not be empty".to_owned());
            } else if let Some(value) = self.value(inner, value, &child) {
                checked.insert(key.clone(), value);
            }
        }
        checked
    }

    fn scalar(&mut self, kind: &Kind, value: &Value, place: &Place) -> Option<Json> {
        let outcome = match kind {
            Kind::Bool => boolean(value),
            Kind::Int { min, max } => integer(value, *min, *max),
            Kind::Float { min, max } => float(value, *min, *max),
            Kind::Text { min_length } => text(value, *min_length),
            Kind::Secret => text(value, 0),
            Kind::Word(words) => word(value, words),
            _ => Ok(to_json(value)),
        };
        match outcome {
            Ok(checked) => Some(checked),
            Err(expected) => {
                let shown = place.shown && !matches!(kind, Kind::Secret);
                let message = scalar_message(kind, value, &expected, place.key(), shown);
                self.report(place, value, message);
                None
            }
        }
    }
}

/// A checked value, or what it should have been.
type Checked = Result<Json, String>;

fn boolean(value: &Value) -> Checked {
    match &value.kind {
        ValueKind::Boolean(value) => Ok((*value).into()),
        // YAML 1.1, which the original reads, has more words for these than YAML 1.2.
        ValueKind::String(word)
            if matches!(word.as_str(), "yes" | "Yes" | "YES" | "on" | "On" | "ON") =>
        {
            Ok(true.into())
        }
        ValueKind::String(word)
            if matches!(word.as_str(), "no" | "No" | "NO" | "off" | "Off" | "OFF") =>
        {
            Ok(false.into())
        }
        _ => Err("true or false".to_owned()),
    }
}

fn integer(value: &Value, min: i64, max: i64) -> Checked {
    match value.kind {
        ValueKind::I64(number) if (min..=max).contains(&number) => Ok(number.into()),
        ValueKind::I64(_) | ValueKind::U64(_) | ValueKind::I128(_) | ValueKind::U128(_) => {
            Err(bound_of_integer(min, max))
        }
        _ => Err("a whole number".to_owned()),
    }
}

fn float(value: &Value, min: f64, max: f64) -> Checked {
    let number = match value.kind {
        ValueKind::Float(number) => number,
        #[expect(clippy::cast_precision_loss, reason = "settings are far below 2^53")]
        ValueKind::I64(number) => number as f64,
        _ => return Err("a number".to_owned()),
    };
    if number.is_finite() && (min..=max).contains(&number) {
        Ok(number.into())
    } else {
        Err(bound_of_float(min, max))
    }
}

fn text(value: &Value, min_length: usize) -> Checked {
    match &value.kind {
        ValueKind::String(text) if text.chars().count() >= min_length => Ok(text.as_str().into()),
        ValueKind::String(_) if min_length == 1 => Err("text that is not empty".to_owned()),
        ValueKind::String(_) => Err(format!("text of at least {min_length} characters")),
        _ => Err("text".to_owned()),
    }
}

fn word(value: &Value, words: &[&'static str]) -> Checked {
    match &value.kind {
        ValueKind::String(text) if words.contains(&text.as_str()) => Ok(text.as_str().into()),
        _ => Err(format!("one of {}", words.join(", "))),
    }
}

/// Says which whole numbers are in bounds.
pub(super) fn bound_of_integer(min: i64, max: i64) -> String {
    match (min, max) {
        (i64::MIN, i64::MAX) => "a whole number".to_owned(),
        (min, i64::MAX) => format!("at least {min}"),
        (i64::MIN, max) => format!("at most {max}"),
        (min, max) => format!("from {min} to {max}"),
    }
}

/// Says which numbers are in bounds. The smallest positive number as `min` means "above 0".
pub(super) fn bound_of_float(min: f64, max: f64) -> String {
    let low = match min {
        f64::MIN_POSITIVE => Some("above 0".to_owned()),
        f64::MIN | f64::NEG_INFINITY => None,
        min => Some(format!("at least {min}")),
    };
    let high = (max < f64::MAX).then(|| format!("at most {max}"));
    match (low, high) {
        (Some(low), Some(high)) => format!("{low} and {high}"),
        (Some(bound), None) | (None, Some(bound)) => bound,
        (None, None) => "a number".to_owned(),
    }
}

fn scalar_message(kind: &Kind, value: &Value, expected: &str, key: &str, shown: bool) -> String {
    let found = found(value, shown);
    let hint = match (kind, &value.kind) {
        (Kind::Text { .. } | Kind::Secret, ValueKind::Nil) => {
            "; leave the key out for its default, or write \"\" for empty text".to_owned()
        }
        (Kind::Text { .. }, ValueKind::I64(_) | ValueKind::Float(_) | ValueKind::Boolean(_))
            if shown =>
        {
            format!("; write {key}: \"{}\"", plain(value))
        }
        (
            Kind::Text { .. } | Kind::Secret,
            ValueKind::I64(_) | ValueKind::Float(_) | ValueKind::Boolean(_),
        ) => "; write it in quotes".to_owned(),
        (Kind::Int { .. } | Kind::Float { .. } | Kind::Bool, ValueKind::String(text))
            if shown && reads_as(kind, text) =>
        {
            format!("; write it without quotes, {key}: {text}")
        }
        (Kind::Word(words), ValueKind::String(text)) => {
            match nearest(text, words.iter().copied()) {
                Some(near) => format!("; did you mean \"{near}\"?"),
                None => String::new(),
            }
        }
        _ => format!("; write for example {}", example(&Shape::Scalar(*kind), key)),
    };
    format!("must be {expected}, found {found}{hint}")
}

fn reads_as(kind: &Kind, text: &str) -> bool {
    match kind {
        Kind::Int { .. } => text.parse::<i64>().is_ok(),
        Kind::Float { .. } => text.parse::<f64>().is_ok(),
        Kind::Bool => matches!(text, "true" | "false"),
        _ => false,
    }
}

/// Says what was found, without contents where those may be secret.
fn found(value: &Value, shown: bool) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::Table(_) => "a map".to_owned(),
        ValueKind::String(text) if text.is_empty() => "empty text".to_owned(),
        ValueKind::String(text) if shown => format!("\"{}\"", super::mask::mask_url(text)),
        ValueKind::String(_) => "text".to_owned(),
        _ if shown => plain(value),
        ValueKind::Boolean(_) => "a truth value".to_owned(),
        _ => "a number".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    match &value.kind {
        ValueKind::Boolean(value) => value.to_string(),
        ValueKind::I64(value) => value.to_string(),
        ValueKind::U64(value) => value.to_string(),
        ValueKind::I128(value) => value.to_string(),
        ValueKind::U128(value) => value.to_string(),
        ValueKind::Float(value) => value.to_string(),
        _ => String::new(),
    }
}

/// Names the type that a shape wants.
fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::List(_) => "a list",
        Shape::Map(_) => "a map from names to values",
        Shape::Table(_) => "a table of settings",
        Shape::Optional(inner) => expected(inner),
        Shape::Scalar(_) => "a single value",
    }
}

/// Shows how a valid value looks.
fn example(shape: &Shape, key: &str) -> String {
    match shape {
        Shape::Optional(inner) => example(inner, key),
        Shape::List(_) => format!("{key}: [\"a\", \"b\"]"),
        Shape::Map(_) => format!("{key}: {{name: value}}"),
        Shape::Table(table) => match table.settings.first() {
            Some(first) => format!("{key}: {{{}: ...}}", first.name),
            None => format!("{key}: {{}}"),
        },
        Shape::Scalar(kind) => match kind {
            Kind::Bool => format!("{key}: true"),
            Kind::Int { min, max } => format!("{key}: {}", 10.clamp(*min, *max)),
            Kind::Float { min, max } => format!("{key}: {:?}", 10_f64.clamp(*min, *max)),
            Kind::Word(words) => format!("{key}: {}", words.first().unwrap_or(&"")),
            _ => format!("{key}: \"text\""),
        },
    }
}
