//! Hides secrets in what people see.

use super::schema::{Shape, Table};
use serde_json::{Map, Value};

const MASK: &str = "***";

/// Copies checked settings with every secret replaced by `***`.
pub(super) fn masked_table(table: &Table, settings: &Map<String, Value>) -> Value {
    let copy = table.settings.iter().filter_map(|setting| {
        let value = settings.get(setting.name)?;
        Some((setting.name.to_owned(), masked(&setting.shape, value)))
    });
    Value::Object(copy.collect())
}

fn masked(shape: &Shape, value: &Value) -> Value {
    match (shape, value) {
        (Shape::Table(table), Value::Object(settings)) => masked_table(table, settings),
        (Shape::Optional(inner), value) => masked(inner, value),
        (Shape::List(inner), Value::Array(items)) => {
            items.iter().map(|item| masked(inner, item)).collect()
        }
        (Shape::Map(inner), Value::Object(entries)) => {
            let copy = entries.iter().map(|(name, value)| (name.clone(), masked(inner, value)));
            Value::Object(copy.collect())
        }
        (shape, value) if shape.is_secret() => mask_all(value),
        // Nobody knows what is inside.
        (_, value @ (Value::Array(_) | Value::Object(_))) => mask_all(value),
        (_, Value::String(text)) => mask_url(text).into(),
        (_, value) => value.clone(),
    }
}

/// Hides every value; empty ones stay visible, because "not set" is no secret.
fn mask_all(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::String(text) if text.is_empty() => value.clone(),
        Value::Array(items) => items.iter().map(mask_all).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), mask_all(value))).collect()
        }
        _ => MASK.into(),
    }
}

/// Hides the credentials and the query of a URL; other text is answered as it is.
///
/// Everything before the last `@` counts as credentials, because a password may hold an unescaped
/// `/`. Hiding too much is better than too little.
pub(crate) fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (login, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => (format!("{user}:{MASK}@"), host),
            None => (format!("{MASK}@"), host),
        },
        None => (String::new(), rest),
    };
    let (place, query) = match host.split_once('?') {
        Some((place, _)) => (place, "?***"),
        None => (host, ""),
    };
    format!("{scheme}://{login}{place}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_hidden() {
        let check = |url, expect| assert_eq!(mask_url(url), expect);
        check("redis://localhost:6379/0", "redis://localhost:6379/0");
        check("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0");
        check("http://bob:hun/ter2@host/x", "http://bob:***@host/x");
        check("http://hunter2@host/x", "http://***@host/x");
        check("https://host/x?key=hunter2", "https://host/x?***");
        check("https://a:b@host/x?key=hunter2@b", "https://a:***@b");
        check("plain text", "plain text");
    }
}
