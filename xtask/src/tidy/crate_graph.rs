//! Which of our crates may depend on which. An arrow that is not in the table needs a decision
//! record first.

use anyhow::Result;
use serde::Deserialize;

use super::finding::Finding;
use super::tree::Tree;
use crate::cargo;

const API: &str = "drakkar-api";
const FACADE: &str = "drakkar";
const KAFKA: &str = "drakkar-kafka";
const MOCK_KAFKA: &str = "drakkar-mock-kafka";
const RECORDER: &str = "drakkar-recorder";
const TESTKIT: &str = "drakkar-testkit";

/// The arrows of normal and build dependencies. Crates that are still to come stand here already.
const ARROWS: &[(&str, &[&str])] = &[
    (API, &[]),
    (KAFKA, &[API]),
    ("drakkar-cache", &[API]),
    ("drakkar-core", &[API]),
    ("drakkar-debug", &[API, RECORDER]),
    ("drakkar-exec", &[API]),
    (RECORDER, &[API]),
    ("drakkar-sink-file", &[API]),
    ("drakkar-sink-http", &[API]),
    ("drakkar-sink-kafka", &[API, KAFKA]),
    ("drakkar-sink-mongo", &[API]),
    ("drakkar-sink-postgres", &[API]),
    ("drakkar-sink-redis", &[API]),
    ("drakkar-source-kafka", &[API, KAFKA]),
    (TESTKIT, &[API]),
    (MOCK_KAFKA, &[]),
    ("drakkar-cli", &[FACADE]),
    ("drakkar-examples", &[FACADE]),
    ("drakkar-bench", &[API, "drakkar-core"]),
    ("drakkar-bench-worker", &[FACADE]),
    ("drakkar-chaos-worker", &[FACADE]),
    ("drakkar-integration", &[]),
    ("drakkar-sim", &[API, "drakkar-core", TESTKIT]),
    ("xtask", &[]),
];

/// What the facade must not carry: these two are for tests. It may depend on every other library.
const NOT_IN_FACADE: [&str; 2] = [TESTKIT, MOCK_KAFKA];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None` is a normal dependency; else `dev` or `build`.
    kind: Option<String>,
    /// Only ours have one.
    path: Option<String>,
}

/// Every dependency between our crates is an arrow of the table.
pub(crate) fn check(_tree: &Tree) -> Result<Vec<Finding>> {
    let metadata: Metadata = cargo::metadata()?;
    Ok(metadata.packages.iter().flat_map(check_package).collect())
}

fn check_package(package: &Package) -> Vec<Finding> {
    let name = package.name.as_str();
    if name != FACADE && !ARROWS.iter().any(|(from, _)| *from == name) {
        let message =
            format!("\"{name}\" is not in the table of crate_graph.rs: what may it know?");
        return vec![Finding::in_file("Cargo.toml", message)];
    }
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    let counted = ours.filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    let forbidden = counted.filter(|dependency| !is_allowed(name, &dependency.name));
    let finding = |dependency: &Dependency| {
        let message = format!("\"{name}\" must not depend on \"{}\"", dependency.name);
        Finding::in_file("Cargo.toml", message)
    };
    forbidden.map(finding).collect()
}

fn is_allowed(from: &str, to: &str) -> bool {
    if from == FACADE {
        return to.starts_with("drakkar-") && !NOT_IN_FACADE.contains(&to);
    }
    ARROWS.iter().any(|(known, allowed)| *known == from && allowed.contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
            path: name.starts_with("drakkar").then(|| format!("crates/{name}")),
        };
        let dependencies = dependencies.iter().map(dependency).collect();
        Package { name: name.to_owned(), dependencies }
    }

    fn finds(name: &str, dependencies: &[(&str, Option<&str>)]) -> usize {
        check_package(&package(name, dependencies)).len()
    }

    #[test]
    fn an_arrow_of_the_table_is_fine() {
        assert_eq!(finds("drakkar-core", &[(API, None), ("tokio", None)]), 0);
        assert_eq!(finds("drakkar-sink-kafka", &[(API, None), (KAFKA, None)]), 0);
        assert_eq!(finds(FACADE, &[("drakkar-core", None), ("drakkar-sink-redis", None)]), 0);
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_found() {
        assert_eq!(finds(API, &[("drakkar-core", None)]), 1);
        assert_eq!(finds("drakkar-core", &[(KAFKA, None), ("drakkar-exec", Some("build"))]), 2);
        assert_eq!(finds(FACADE, &[(TESTKIT, None), (MOCK_KAFKA, None)]), 2);
        assert_eq!(finds("xtask", &[(API, None)]), 1);
    }

    #[test]
    fn tests_may_use_what_they_like() {
        assert_eq!(finds("drakkar-core", &[(TESTKIT, Some("dev"))]), 0);
    }

    #[test]
    fn a_crate_that_nobody_thought_of_is_found() {
        assert_eq!(finds("drakkar-sink-pulsar", &[]), 1);
    }
}
