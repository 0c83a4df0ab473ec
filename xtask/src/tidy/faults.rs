//! Every fault of `docs/faults.md` names tests that exist, and so does `docs/memory.md`.
//!
//! A fault begins with its bold id, `- **F-1**`. A test is named as `` `file::function` ``. In a test target that
//! runs itself (`harness = false`) it is a function that the program names where it runs its checks.

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
            if !has_test(tree, file, function) && !is_check(tree, file, function) {
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

/// Returns whether a function is declared in a file of a test target without the harness, and named once
/// more by that program: where it is called or listed.
fn is_check(tree: &Tree, file: &str, function: &str) -> bool {
    let Some((package, within)) = file.split_once("/tests/") else { return false };
    let target = within.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let manifest = tree.text(&format!("{package}/Cargo.toml")).unwrap_or_default();
    if !runs_itself(manifest, target) {
        return false;
    }
    let declares = |line: &str| line.trim_start().starts_with(&format!("fn {function}("));
    let names = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // What stands in quotes is a name for people.
        let outside = code.split('"').step_by(2);
        outside.flat_map(|piece| piece.split(|c| !is_part(c))).any(|word| word == function)
    };
    let is_declared = tree.text(file).is_some_and(|text| text.lines().any(declares));
    let (root, folder) =
        (format!("{package}/tests/{target}.rs"), format!("{package}/tests/{target}/"));
    let sources = tree.files().filter(|(path, _)| *path == root || path.starts_with(&folder));
    let mut lines = sources.flat_map(|(_, text)| text.lines());
    is_declared && lines.any(|line| names(line) && !declares(line))
}

/// Returns whether a manifest declares a test target of this name that has no harness.
fn runs_itself(manifest: &str, target: &str) -> bool {
    let sections = manifest.split("\n[").filter_map(|section| section.strip_prefix("[test]]"));
    let has = |section: &str, line: &str| section.lines().any(|other| other.trim() == line);
    let name = format!("name = \"{target}\"");
    let mut of_it = sections.filter(|section| has(section, &name));
    of_it.any(|section| has(section, "harness = false"))
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
    fn checks_of_a_target_that_runs_itself_are_tests() {
        let manifest = "[package]\n\n[[test]]\nname = \"self\"\nharness = false\n\n[[test]]\nname = \"other\"\n";
        let main = "mod more;\nfn main() {\n    called();\n    // forgotten();\n}\nfn called() {}\nfn forgotten() {}\n";
        let more = "const ALL: &[Check] = &[(\"listed\", listed), (\"unlisted\", listed)];\nfn listed() {}\nfn unlisted() {}\n";
        let files = [
            ("crates/a/Cargo.toml", manifest),
            ("crates/a/tests/self.rs", main),
            ("crates/a/tests/self/more.rs", more),
            ("crates/a/tests/other.rs", main),
        ];
        let finds = |cited: &str| {
            let faults = format!("- **F-1** Bad. `crates/a/tests/{cited}`\n");
            let mut files = Vec::from(files);
            files.push((FAULTS, &faults));
            check(&Tree::of(&files)).is_empty()
        };
        assert!(finds("self.rs::called") && finds("self/more.rs::listed"));
        for cited in
            ["self.rs::forgotten", "self/more.rs::unlisted", "self.rs::listed", "other.rs::called"]
        {
            assert!(!finds(cited), "{cited}");
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
