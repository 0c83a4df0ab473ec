//! `cargo xtask features`: every feature of the facade builds by itself, and nothing links what it
//! should not.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::arguments::Arguments;
use crate::cargo;

pub(crate) const HELP: &str = "\
Builds the facade without features and with each feature alone (but for those that need headers of
the system: kafka-tls-system, kafka-oidc, kafka-gssapi), and checks what the crates link.

Usage: cargo xtask features
";

const FACADE: &str = "drakkar";

const NEED_SYSTEM_HEADERS: [&str; 3] = ["kafka-tls-system", "kafka-oidc", "kafka-gssapi"];

/// What a package, built with these arguments, must not link.
#[derive(Debug)]
struct Boundary {
    package: &'static str,
    arguments: &'static [&'static str],
    never: &'static [&'static str],
}

const BOUNDARIES: [Boundary; 9] = [
    Boundary { package: "drakkar-api", arguments: &[], never: &["rdkafka", "tokio"] },
    Boundary { package: "drakkar-core", arguments: &[], never: &["rdkafka"] },
    Boundary { package: "drakkar-exec", arguments: &[], never: &["rdkafka"] },
    Boundary { package: "drakkar-sink-file", arguments: &[], never: &["rdkafka"] },
    Boundary { package: "drakkar-testkit", arguments: &[], never: &["rdkafka"] },
    Boundary { package: "drakkar-sim", arguments: &[], never: &["rdkafka"] },
    Boundary { package: "xtask", arguments: &[], never: &["rdkafka", "drakkar-api"] },
    Boundary {
        package: FACADE,
        arguments: &["--no-default-features"],
        // The Kafka sink writes the dead letters of every build: docs/decisions/003.
        never: &["drakkar-sink-file"],
    },
    Boundary {
        package: FACADE,
        arguments: &[],
        never: &[
            "drakkar-mock-kafka",
            "drakkar-testkit",
            "fred",
            "mongodb",
            "openssl-sys",
            "tokio-postgres",
        ],
    },
];

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    arguments.finish()?;
    let mut crossings = Vec::new();
    for boundary in &BOUNDARIES {
        let tree = cargo::output(&tree_arguments(boundary))?;
        crossings.extend(linked(&tree, boundary.never).map(|name| boundary.crossed_by(name)));
    }
    for crossing in &crossings {
        println!("{crossing}");
    }
    if !crossings.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    check(&[])?;
    for feature in &facade_features()? {
        check(&["--features", feature])?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Boundary {
    fn crossed_by(&self, name: &str) -> String {
        let package = [&[self.package], self.arguments].concat().join(" ");
        format!("{package} must not link {name}; see: cargo tree -p {package} -e normal -i {name}")
    }
}

fn tree_arguments(boundary: &Boundary) -> Vec<&'static str> {
    let mut arguments = vec!["tree", "--edges", "normal", "--prefix", "none", "--package"];
    arguments.push(boundary.package);
    arguments.extend(boundary.arguments);
    arguments
}

/// Which of the packages are in the tree, whose lines begin with a name and a version.
fn linked<'a>(tree: &str, never: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_linked = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    let found: Vec<&str> = never.iter().copied().filter(|name| is_linked(name)).collect();
    found.into_iter()
}

fn check(features: &[&str]) -> Result<()> {
    let mut command = cargo::command(&["clippy", "--package", FACADE, "--no-default-features"])?;
    // What only some build warns of is wrong too.
    command.args(features).args(["--", "-D", "warnings"]);
    eprintln!("checking {FACADE} with {}", features.last().unwrap_or(&"no features"));
    cargo::run(&mut command)
}

/// The features that can be built here; `default` is what every other command builds.
fn facade_features() -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        features: BTreeMap<String, Vec<String>>,
    }
    let metadata: Metadata = cargo::metadata()?;
    let facade = metadata.packages.into_iter().find(|package| package.name == FACADE);
    let features = facade.context("the workspace has no facade")?.features.into_keys();
    let is_built = |name: &String| name != "default" && !NEED_SYSTEM_HEADERS.contains(&&**name);
    Ok(features.filter(is_built).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_package_is_found_by_its_whole_name() {
        let tree = "drakkar v0.1.0 (crates/drakkar)\nrdkafka-sys v4.10.0\nbytes v1.10.1 (*)\n";
        let found: Vec<&str> = linked(tree, &["rdkafka", "bytes", "drakkar-api"]).collect();
        assert_eq!(found, ["bytes"]);
    }

    #[test]
    fn a_crossing_says_how_to_look_at_it() {
        let boundary = Boundary {
            package: "drakkar",
            arguments: &["--no-default-features"],
            never: &["rdkafka"],
        };
        let advice = "cargo tree -p drakkar --no-default-features -e normal -i rdkafka";
        assert!(boundary.crossed_by("rdkafka").ends_with(advice));
    }
}
