//! Every fault of `docs/faults.md` names tests that exist, and so does `docs/memory.md`.
//!
//! A fault begins with its bold id, `- **F-1**`. A test is named as `` `file::function` ``.

use super::finding::Finding;
use super::tree::Tree;

const FAULTS: &str = "docs/faults.md";
const MEMORY: &str = "docs/memory.md";

/// Each fault names at least one test, and each test is there.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(FAULTS) else {
        return vec![Finding::in_file(FAULTS, "the list of faults is missing")];
    };
    let mut findings = Vec::new();
    for (index, fault) in faults(text).into_iter().enumerate() {
        if fault.number != (index + 1).to_string() {
            let message = format!("fault F-{} stands at place {}", fault.number, index + 1);
            findings.push(Finding::at(FAULTS, fault.line, message));
        }
        let tests = citations(fault.text);
        if tests.is_empty() {
            let message = format!("no test shows F-{}; name one as `file::function`", fault.number);
            findings.push(Finding::at(FAULTS, fault.line, message));
        }
        for (file, function) in tests {
            if !has_test(tree, file, function) {
                let message =
                    format!("F-{} names `{file}::{function}`, which is no test", fault.number);
                findings.push(Finding::at(FAULTS, fault.line, message));
            }
        }
    }
    let memory = tree.text(MEMORY).unwrap_or_default();
    for (number, line) in memory.lines().enumerate() {
        for (file, function) in citations(line) {
            if !has_test(tree, file, function) {
                let message = format!("`{file}::{function}` is no test");
                findings.push(Finding::at(MEMORY, number + 1, message));
            }
        }
    }
    findings
}

struct Fault<'a> {
    number: &'a str,
    line: usize,
    text: &'a str,
}

fn faults(text: &str) -> Vec<Fault<'_>> {
    let starts: Vec<usize> = text.match_indices("- **F-").map(|(start, _)| start).collect();
    let fault = |(index, &start): (usize, &usize)| {
        let end = starts.get(index + 1).copied().unwrap_or(text.len());
        let text_of_it = &text[start..end];
        let number = text_of_it.trim_start_matches("- **F-").split("**").next().unwrap_or_default();
        Fault { number, line: text[..start].matches('\n').count() + 1, text: text_of_it }
    };
    starts.iter().enumerate().map(fault).collect()
}

/// Returns the tests that a text names, as file and function.
fn citations(text: &str) -> Vec<(&str, &str)> {
    // Every second piece stands between back quotes.
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|quoted| quoted.split_once(".rs::").map(|_| quoted.rsplit_once("::")))
        .flatten()
        .collect()
}

/// Returns whether a file has a test of this name: a function below an attribute that says so.
fn has_test(tree: &Tree, file: &str, function: &str) -> bool {
    let Some(text) = tree.text(file) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declares = |line: &str| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(function))
            .is_some_and(|rest| rest.starts_with('('))
    };
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev();
        declares(line)
            && above
                .take_while(|line| line.starts_with('#') || line.starts_with("//"))
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TESTS: &str = "#[test]\nfn good() {}\n\n#[tokio::test(start_paused = true)]\n// Promise: X\nasync fn slow() {}\n\nfn helper() {}\n";

    fn messages(faults: &str) -> Vec<String> {
        let tree = Tree::of(&[(FAULTS, faults), ("crates/a/src/b.rs", TESTS)]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn faults_with_tests_are_fine() {
        let text = "# Faults\n- **F-1** Bad. `crates/a/src/b.rs::good`,\n  `crates/a/src/b.rs::slow`\n- **F-2** \
                    `on_error`. `crates/a/src/b.rs::good`\n";
        assert_eq!(messages(text), Vec::<String>::new());
    }

    #[test]
    fn a_fault_without_a_test_is_found() {
        let found = messages("- **F-1** `on_error` was bad.\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("no test shows F-1"), "{found:?}");
    }

    #[test]
    fn a_test_that_is_not_there_is_found() {
        for cited in
            ["crates/a/src/b.rs::goo", "crates/a/src/b.rs::helper", "crates/a/src/c.rs::good"]
        {
            let found = messages(&format!("- **F-1** Bad. `{cited}`\n"));
            assert_eq!(found.len(), 1, "{cited}");
            assert!(found[0].contains("which is no test"), "{found:?}");
        }
    }

    #[test]
    fn a_bound_that_names_a_test_that_is_not_there_is_found() {
        let faults = (FAULTS, "- **F-1** Bad. `crates/a/src/b.rs::good`\n");
        let code = ("crates/a/src/b.rs", TESTS);
        let check_memory = |memory| check(&Tree::of(&[faults, code, (MEMORY, memory)])).len();
        assert_eq!(check_memory("| x | `crates/a/src/b.rs::slow` |\n"), 0);
        assert_eq!(check_memory("| x | `crates/a/src/b.rs::fast` |\n"), 1);
    }

    #[test]
    fn numbers_follow_each_other() {
        let found = messages("- **F-2** Bad. `crates/a/src/b.rs::good`\n");
        assert!(found[0].contains("F-2 stands at place 1"), "{found:?}");
    }

    #[test]
    fn a_missing_list_is_found() {
        assert_eq!(check(&Tree::of(&[])).len(), 1);
    }
}
