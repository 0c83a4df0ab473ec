//! Running the rules.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::finding::Finding;
use super::tree::Tree;
use super::{crate_graph, dependencies, faults, links, machine_paths, promises, sources};
use crate::arguments::Arguments;
use crate::workspace;

pub(crate) const HELP: &str = "\
Checks the project's own rules: the crate graph, module docs, banned words, one table of
dependencies, a test for every promise and every excluded fault, links that lead somewhere, no paths of one machine.

Usage: cargo xtask tidy
";

type Rule = fn(&Tree) -> Result<Vec<Finding>>;

const RULES: [(&str, Rule); 11] = [
    ("crate graph", crate_graph::check),
    ("dependencies", dependencies::check),
    ("module docs", sources::module_docs),
    ("no logic in lib.rs and mod.rs", sources::no_logic_in_roots),
    ("unsafe code is forbidden", sources::unsafe_is_forbidden),
    ("unsafe code is where it may be", sources::unsafe_is_where_it_may_be),
    ("banned words", sources::banned_words),
    ("promises", promises::check),
    ("faults", |tree| Ok(faults::check(tree))),
    ("machine paths", machine_paths::check),
    ("links", links::check),
];

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    arguments.finish()?;
    let tree = Tree::read(&workspace::root()?)?;
    let mut findings = Vec::new();
    for (name, rule) in RULES {
        let found = rule(&tree).with_context(|| format!("failed to check \"{name}\""))?;
        findings.extend(found);
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: {} rules, {} files, no findings", RULES.len(), tree.files().count());
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} findings", findings.len());
    Ok(ExitCode::FAILURE)
}
