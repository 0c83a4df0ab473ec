//! Hides secrets in what people see.

use super::schema::{Shape, Table};
use serde_json::{Map, Value};

const MASK: &str = "***";

/// Words that mark a raw client option as secret.
const SENSITIVE: [&str; 9] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "credential",
    "jaas",
    ".pem",
    "api.key",
    "oauthbearer.config",
];

/// Copies checked settings with every secret replaced by `***`.
pub(super) fn masked_table(table: &Table, settings: &Map<String, Value>) -> Value {
    let copy = table.settings.iter().filter_map(|setting| {
        let value = settings.get(setting.name)?;
        let masked = match setting.name {
            // The children's variables are as likely to be secret as the worker's own.
            "env" => mask_all(value),
            "client_config" => mask_client_options(value),
            _ => masked(&setting.shape, value),
        };
        Some((setting.name.to_owned(), masked))
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

fn mask_client_options(value: &Value) -> Value {
    let Value::Object(options) = value else { return value.clone() };
    let copy = options.iter().map(|(name, value)| {
        let folded = name.to_ascii_lowercase().replace('_', ".");
        let secret = SENSITIVE.iter().any(|word| folded.contains(word));
        let shown = match value {
            value if secret => mask_all(value),
            Value::String(text) => mask_url(text).into(),
            value => value.clone(),
        };
        (name.clone(), shown)
    });
    Value::Object(copy.collect())
}

/// Hides the credentials and the query of a URL; other text is answered as it is.
///
/// Everything before the last `@` counts as credentials, because a password may hold an unescaped
/// `/`. Hiding too much is better than too little.
pub(crate) fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (user, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => (credentials.split_once(':').map(|(user, _)| user), host),
        None => (None, rest),
    };
    let (place, query) = match host.split_once('?') {
        Some((place, _)) => (place, "?***"),
        None => (host, ""),
    };
    match (user, rest.contains('@')) {
        (Some(user), _) => format!("{scheme}://{user}:{MASK}@{place}{query}"),
        (None, true) => format!("{scheme}://{MASK}@{place}{query}"),
        (None, false) => format!("{scheme}://{place}{query}"),
    }
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

    #[test]
    fn raw_client_options_are_hidden_by_name() {
        let shown = mask_client_options(&serde_json::json!({
            "sasl.password": "hunter2",
            "ssl.key.pem": "hunter2",
            "sasl_oauthbearer_client_secret": "hunter2",
            "ssl.key.location": "/etc/key",
            "client.id": "me",
        }));
        assert_eq!(shown["ssl.key.location"], "/etc/key");
        assert_eq!(shown["client.id"], "me");
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
    }
}
