//! The reference page of all settings, made from the tables that check them.

use super::environment::PREFIX;
use super::schema::{Setting, Shape, Table};
use super::tables::schema;
use super::walk::{bound_of_float, bound_of_integer};
use drakkar_api::Kind;
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Configuration

<!-- Made by `config::reference_markdown`; a test compares. To renew it, run the tests of the crate
drakkar with DRAKKAR_UPDATE_REFERENCE=1. -->

A worker reads one YAML file: the path given to the application, else the one in the environment
variable `DRAKKAR_CONFIG`, else none. Environment variables override it. Everything that is wrong is
reported at once, with its path; nothing is guessed and no unknown key is passed over.

- **Variables.** `DRAKKAR_KAFKA__BROKERS` overrides `kafka.brokers`: the prefix, then the keys joined
  by two underscores, in any case. The value is converted to the setting's type; truth values are
  `true`, `false`, `1`, `0`, `yes`, `no`, `on` and `off`. An empty value is the empty text. `null`
  empties a setting that may be null.
- **Lists, maps and sections** are given as JSON: `DRAKKAR_EXECUTOR__ENV='{\"A\": \"b\"}'`. Maps and
  sections are merged with those of the file, lists replace them. Setting a section and a key inside
  it by two variables is an error.
- **Free names** (sinks, variables, headers) are matched against the names in the file whatever their
  case, with `-`, `_` and `.` alike: `DRAKKAR_SINKS__POSTGRES__MAIN_DB__DSN` overrides
  `sinks.postgres.main-db.dsn`. An exact match wins. A name that is not in the file is new: a sink in
  lower case, anything else as it is written.
- **Other variables** that begin with `DRAKKAR_` are an error, except those that `worker_name_env` and
  `cluster_name_env` name, `DRAKKAR_CONFIG`, `DRAKKAR_LOG`, and those that Kubernetes makes for a
  service called `drakkar` (such as `DRAKKAR_SERVICE_HOST`).
- **YAML** is version 1.2; `yes`, `no`, `on` and `off` are truth values where one is wanted, and merge
  keys (`<<`) work, as in files of the original. Values are not converted: `binary_path: 5` is an error,
  `binary_path: \"5\"` is not. A section or map with nothing under it is the same as one left out.
- **Secrets** never appear in messages, logs or the UI.
";

/// Returns the reference page of all settings as Markdown.
pub fn reference_markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    write_table(&mut page, "", PREFIX, schema());
    page
}

fn write_table(page: &mut String, path: &str, variable: &str, table: &Table) {
    let heading = if path.is_empty() { "Top level" } else { path };
    let about = table.about;
    let heading = if path.is_empty() { heading.to_owned() } else { format!("`{heading}`") };
    put(page, format_args!("\n## {heading}\n\n{about}\n"));
    let plain = || table.settings.iter().filter(|setting| !is_section(setting));
    if plain().next().is_some() {
        page.push_str("\n| key | type | default | meaning | variable |\n|---|---|---|---|---|\n");
    }
    for setting in plain() {
        let Setting { name, about, .. } = setting;
        let variable = format!("{variable}{}", name.to_uppercase());
        let (kind, default) = (type_name(&setting.shape), default_text(setting));
        put(page, format_args!("| `{name}` | {kind} | {default} | {about} | `{variable}` |\n"));
    }
    for setting in table.settings.iter().filter(|setting| is_section(setting)) {
        let inner_variable = format!("{variable}{}__", setting.name.to_uppercase());
        let inner_path = match path {
            "" => setting.name.to_owned(),
            path => format!("{path}.{}", setting.name),
        };
        match &setting.shape {
            Shape::Map(inner) => {
                let table = inner.as_table().expect("a section");
                let inner_variable = format!("{inner_variable}<NAME>__");
                write_table(page, &format!("{inner_path}.<name>"), &inner_variable, table);
            }
            shape => {
                let table = shape.as_table().expect("a section");
                write_table(page, &inner_path, &inner_variable, table);
            }
        }
    }
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes all");
}

/// Whether a setting has a heading of its own. An optional table has not: it repeats another one.
fn is_section(setting: &Setting) -> bool {
    match &setting.shape {
        Shape::Table(_) => true,
        Shape::Map(inner) => inner.as_table().is_some(),
        _ => false,
    }
}

fn type_name(shape: &Shape) -> String {
    match shape {
        Shape::Optional(inner) => format!("{}, or null", type_name(inner)),
        Shape::List(inner) => format!("list of {}", type_name(inner)),
        Shape::Map(inner) => format!("map from names to {}", type_name(inner)),
        Shape::Table(_) => "section".to_owned(),
        Shape::Scalar(kind) => match kind {
            Kind::Bool => "truth value".to_owned(),
            Kind::Int { min, max } => match bound_of_integer(*min, *max) {
                bound if bound == "a whole number" => bound,
                bound => format!("whole number, {bound}"),
            },
            Kind::Float { min, max } => match bound_of_float(*min, *max) {
                bound if bound == "a number" => bound,
                bound => format!("number, {bound}"),
            },
            Kind::Text { min_length: 0 } => "text".to_owned(),
            Kind::Text { min_length: 1 } => "text, not empty".to_owned(),
            Kind::Text { min_length } => format!("text, at least {min_length} characters"),
            Kind::Secret => "secret text".to_owned(),
            Kind::Word(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(" or ")
            }
            _ => "any".to_owned(),
        },
    }
}

fn default_text(setting: &Setting) -> String {
    match setting.default {
        None => "required".to_owned(),
        Some("\"\"") => "empty".to_owned(),
        Some(default) => format!("`{}`", default.trim_matches('"').replace('|', "\\|")),
    }
}

#[cfg(all(test, feature = "sink-kafka", feature = "sink-file"))]
mod tests {
    #[test]
    fn the_committed_page_is_up_to_date() {
        crate::pages::check_page("configuration.md", &super::reference_markdown());
    }
}
