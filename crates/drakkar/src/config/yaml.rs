//! The tree that the layers are merged in: reading YAML and JSON into it, and writing it as YAML.

use config::{File, FileFormat, Source, Value, ValueKind};
use serde_json::Value as Json;
use std::fmt::Write;

/// A table of the tree.
pub(super) type Entries = config::Map<String, Value>;

/// Reads one YAML document, whose root is a table or empty.
///
/// Merge keys (`<<`) are resolved, because the original's reader knew them.
///
/// # Errors
///
/// What is wrong, with line and column.
pub(super) fn parse(text: &str) -> Result<Entries, String> {
    // The reader insists on a table at the root, so an empty document gets a harmless one.
    let wrapped = File::from_str(text.trim_start_matches('\u{feff}'), FileFormat::Yaml).collect();
    let mut entries = match wrapped {
        Ok(entries) => entries,
        Err(_) if is_blank(text) => Entries::new(),
        Err(error) => return Err(error.to_string()),
    };
    resolve_merges(&mut entries);
    Ok(entries)
}

/// Reads one YAML value, such as a default in a table of settings.
pub(super) fn parse_scalar(text: &str) -> Option<Value> {
    parse(&format!("value: {text}")).ok()?.remove("value")
}

fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| {
        line.is_empty() || line.starts_with('#') || matches!(line, "---" | "..." | "~" | "null")
    })
}

fn resolve_merges(entries: &mut Entries) {
    let merged = match entries.get("<<").map(|value| &value.kind) {
        Some(ValueKind::Table(_)) => entries.remove("<<").into_iter().collect(),
        Some(ValueKind::Array(_)) => match entries.remove("<<").map(|value| value.kind) {
            Some(ValueKind::Array(items)) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    for value in merged {
        if let ValueKind::Table(table) = value.kind {
            for (key, value) in table {
                entries.entry(key).or_insert(value);
            }
        }
    }
    entries.values_mut().for_each(resolve_merges_inside);
}

fn resolve_merges_inside(value: &mut Value) {
    match &mut value.kind {
        ValueKind::Table(entries) => resolve_merges(entries),
        ValueKind::Array(items) => items.iter_mut().for_each(resolve_merges_inside),
        _ => {}
    }
}

/// Takes over a JSON value; `origin` says where it comes from.
pub(super) fn from_json(json: Json, origin: Option<&String>) -> Value {
    let kind = match json {
        Json::Null => ValueKind::Nil,
        Json::Bool(value) => ValueKind::Boolean(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => ValueKind::I64(value),
            (None, Some(value)) => ValueKind::U64(value),
            (None, None) => ValueKind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => ValueKind::String(text),
        Json::Array(items) => {
            ValueKind::Array(items.into_iter().map(|item| from_json(item, origin)).collect())
        }
        Json::Object(entries) => {
            let pairs = entries.into_iter().map(|(key, value)| (key, from_json(value, origin)));
            ValueKind::Table(pairs.collect())
        }
    };
    Value::new(origin, kind)
}

/// Turns a value of unknown shape into JSON.
pub(super) fn to_json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(value) => (*value).into(),
        ValueKind::I64(value) => (*value).into(),
        ValueKind::U64(value) => (*value).into(),
        ValueKind::I128(value) => value.to_string().into(),
        ValueKind::U128(value) => value.to_string().into(),
        ValueKind::Float(value) => (*value).into(),
        ValueKind::String(text) => text.as_str().into(),
        ValueKind::Array(items) => items.iter().map(to_json).collect(),
        ValueKind::Table(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (key.clone(), to_json(value))).collect())
        }
    }
}

/// Puts a value at a path, making tables on the way; what is there is replaced.
pub(super) fn put(entries: &mut Entries, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        entries.insert(first.clone(), value);
        return;
    }
    let child = entries.entry(first.clone()).or_insert_with(|| Entries::new().into());
    if !matches!(child.kind, ValueKind::Table(_)) {
        child.kind = ValueKind::Table(Entries::new());
    }
    if let ValueKind::Table(inner) = &mut child.kind {
        put(inner, rest, value);
    }
}

/// Writes a JSON value as YAML in block style. Texts that YAML could misread are quoted.
pub(super) fn emit(json: &Json) -> String {
    let mut text = String::new();
    emit_value(&mut text, json, 0);
    text
}

fn emit_value(text: &mut String, json: &Json, depth: usize) {
    match json {
        Json::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                indent(text, depth);
                text.push_str(&plain_or_quoted(key));
                text.push(':');
                emit_child(text, value, depth);
            }
        }
        Json::Array(items) if !items.is_empty() => {
            for item in items {
                indent(text, depth);
                text.push('-');
                emit_child(text, item, depth);
            }
        }
        Json::String(value) => text.push_str(&plain_or_quoted(value)),
        other => text.push_str(&other.to_string()),
    }
}

fn emit_child(text: &mut String, value: &Json, depth: usize) {
    let nested = match value {
        Json::Object(entries) => !entries.is_empty(),
        Json::Array(items) => !items.is_empty(),
        _ => false,
    };
    text.push(if nested { '\n' } else { ' ' });
    emit_value(text, value, depth + 1);
    if !nested {
        text.push('\n');
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

/// Leaves a word as it is if no reader of YAML can take it for anything but text.
fn plain_or_quoted(word: &str) -> String {
    let starts_well =
        word.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/');
    let safe = |letter: char| letter.is_ascii_alphanumeric() || "_-./".contains(letter);
    let lower = word.to_ascii_lowercase();
    let reserved = matches!(
        lower.as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if starts_well && word.chars().all(safe) && !reserved {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(letter);
            }
            '\n' => quoted.push_str("\\n"),
            letter if letter.is_control() => {
                write!(quoted, "\\U{:08x}", u32::from(letter)).expect("a string takes all");
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Json {
        to_json(&Value::from(parse(text).expect("valid YAML")))
    }

    #[test]
    fn empty_documents_are_empty_tables() {
        for text in ["", "\n", "# nothing\n", "---\n", "~", "\u{feff}"] {
            assert_eq!(read(text), json!({}), "{text:?}");
        }
    }

    #[test]
    fn the_case_of_keys_is_kept() {
        assert_eq!(
            read("a:\n  Foo.Bar: 1\n  foo.bar: 2"),
            json!({"a": {"Foo.Bar": 1, "foo.bar": 2}})
        );
    }

    #[test]
    fn merge_keys_are_resolved() {
        let text = "x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz:\n  <<: [{c: 1}, {c: 2, d: 3}]";
        let expect = json!({"a": 1, "b": 3});
        assert_eq!(read(text)["y"], expect);
        assert_eq!(read(text)["z"], json!({"c": 1, "d": 3}));
    }

    #[test]
    fn syntax_errors_name_line_and_column() {
        let check = |text: &str, line: &str| {
            let error = parse(text).expect_err("not valid");
            assert!(error.contains(line), "{error}");
        };
        check("kafka:\n  brokers: [a\n", "line 3 column 1");
        check("kafka: a: b\n", "line 1 column 9");
        check("a: 1\na: 2\n", "duplicated key");
        check("- a\n- b\n", "");
        check("just text", "");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let value = json!({
            "a": {"b": [], "c": {}, "d": [1, 2.5, null], "e": "null", "f": "5", "no": true},
            "list": [{"name": "x: y", "url": "http://h"}, ["nested"]],
            "odd \u{7f}key": "two\nlines \"quoted\" \\ \u{1}\u{85} ü",
            "empty": "",
        });
        let text = emit(&value);
        assert_eq!(read(&text), value, "{text}");
    }
}
