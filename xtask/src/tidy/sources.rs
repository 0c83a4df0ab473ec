//! Rules about the words of Rust files.

use anyhow::Result;

use super::code::Code;
use super::finding::Finding;
use super::tree::Tree;

/// Each reason completes "… is banned: ".
const BANNED_EVERYWHERE: [(&str, &str); 5] = [
    ("#[ignore", "a test is fixed or deleted"),
    ("#[allow(", "use #[expect(.., reason = \"..\")], which tells when it is not needed any more"),
    (
        "#![allow(",
        "use #![expect(.., reason = \"..\")], which tells when it is not needed any more",
    ),
    ("todo!(", "what is not built is not merged"),
    ("unimplemented!(", "what is not built is not merged"),
];

const BANNED_IN_LIBRARIES: [(&str, &str); 2] = [
    ("unbounded_channel", "every channel has a documented bound"),
    ("thread::sleep", "wait for an event, with a deadline"),
];

/// The only files with unsafe code, each for calls that no safe one replaces. Their crates deny it to
/// all others.
const MAY_BE_UNSAFE: [&str; 5] = [
    "crates/drakkar-exec/src/vfork.rs",
    "crates/drakkar-exec/src/wait4.rs",
    "crates/drakkar-mock-kafka/src/native.rs",
    "crates/drakkar-sink-kafka/src/persistence.rs",
    "crates/drakkar-source-kafka/src/membership.rs",
];

/// Every file of a crate says first what it is.
pub(crate) fn module_docs(tree: &Tree) -> Result<Vec<Finding>> {
    let has_docs = |text: &str| {
        text.starts_with("//!") || text.starts_with("#![doc = include_str!(\"../README.md\")]")
    };
    let lacks_docs = |(_, text): &(&str, &str)| !has_docs(text);
    let finding = |(path, _)| Finding::at(path, 1, "a file starts with a //! module doc");
    Ok(libraries(tree).filter(lacks_docs).map(finding).collect())
}

/// `lib.rs` and `mod.rs` only say what there is.
pub(crate) fn no_logic_in_roots(tree: &Tree) -> Result<Vec<Finding>> {
    let is_root = |path: &str| path.ends_with("/lib.rs") || path.ends_with("/mod.rs");
    let roots = tree.ending_in(".rs").filter(|(path, _)| is_root(path));
    let findings = |(path, text)| {
        let code = Code::new(path, text);
        let functions = code.lines().filter(|line| !line.is_test && declares_function(line.code));
        let message = "no logic here: move the function to a file that is named after its concept";
        functions.map(|line| Finding::at(path, line.number, message)).collect::<Vec<_>>()
    };
    Ok(roots.flat_map(findings).collect())
}

fn declares_function(code: &str) -> bool {
    let mut words = code.split(|at: char| !at.is_alphanumeric() && at != '_' && at != '(');
    // In `type Hook = fn(u8)` the word is `fn(u8`.
    words.any(|word| word == "fn")
}

/// Every library forbids unsafe code; one that has a file with some denies it to the others.
pub(crate) fn unsafe_is_forbidden(tree: &Tree) -> Result<Vec<Finding>> {
    let roots = libraries(tree).filter_map(|(path, text)| {
        let folder = path.strip_suffix("lib.rs").filter(|folder| folder.ends_with("/src/"))?;
        let is_bound = !MAY_BE_UNSAFE.iter().any(|file| file.starts_with(folder));
        let wanted = if is_bound { "#![forbid(unsafe_code)]" } else { "#![deny(unsafe_code)]" };
        let is_there = Code::new(path, text).lines().any(|line| line.code == wanted);
        (!is_there).then(|| Finding::in_file(path, format!("{wanted} is missing")))
    });
    Ok(roots.collect())
}

/// Unsafe code stands in the files that are listed for it.
pub(crate) fn unsafe_is_where_it_may_be(tree: &Tree) -> Result<Vec<Finding>> {
    let is_bound = |path: &str| path.contains("/src/") && !MAY_BE_UNSAFE.contains(&path);
    let bound = libraries(tree).filter(|(path, _)| is_bound(path));
    let findings = |(path, text)| {
        let code = Code::new(path, text);
        let found = code.lines().filter(|line| words(line.code).any(|word| word == "unsafe"));
        let message = "no unsafe code here: what may have some is listed in tidy";
        found.map(|line| Finding::at(path, line.number, message)).collect::<Vec<_>>()
    };
    Ok(bound.flat_map(findings).collect())
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|at: char| !at.is_alphanumeric() && at != '_')
}

/// Words that must not stand in code.
pub(crate) fn banned_words(tree: &Tree) -> Result<Vec<Finding>> {
    let findings = |(path, text)| banned_in(path, text);
    Ok(tree.ending_in(".rs").flat_map(findings).collect())
}

fn banned_in(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for line in Code::new(path, text).lines() {
        let is_library = path.starts_with("crates/") && !line.is_test;
        let in_libraries = BANNED_IN_LIBRARIES.iter().filter(|_| is_library);
        for (word, reason) in BANNED_EVERYWHERE.iter().chain(in_libraries) {
            if line.code.contains(word) {
                let message = format!("{word} is banned: {reason}");
                findings.push(Finding::at(path, line.number, message));
            }
        }
    }
    findings
}

fn libraries(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.ending_in(".rs").filter(|(path, _)| path.starts_with("crates/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rule: fn(&Tree) -> Result<Vec<Finding>>, path: &str, text: &str) -> usize {
        rule(&Tree::of(&[(path, text)])).expect("the rule itself works").len()
    }

    #[test]
    fn a_missing_module_doc_is_found() {
        assert_eq!(count(module_docs, "crates/a/src/b.rs", "//! What it is.\n"), 0);
        assert_eq!(count(module_docs, "crates/a/src/b.rs", "// What it is.\n"), 1);
        assert_eq!(count(module_docs, "crates/a/tests/b.rs", "use a::b;\n"), 1);
    }

    #[test]
    fn logic_in_a_root_is_found() {
        let check = |path, text| count(no_logic_in_roots, path, text);
        assert_eq!(check("crates/a/src/lib.rs", "//! fn\nmod b;\npub use b::fn_c;\n"), 0);
        assert_eq!(check("crates/a/src/lib.rs", "pub fn f() {}\n"), 1);
        assert_eq!(check("crates/a/src/b/mod.rs", "impl B {\n    fn f(&self) {}\n}\n"), 1);
        assert_eq!(check("crates/a/src/lib.rs", "type Hook = fn(u8) -> u8;\n"), 0);
        assert_eq!(
            check("crates/a/src/lib.rs", "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n"),
            0
        );
        assert_eq!(check("crates/a/src/b.rs", "fn f() {}\n"), 0);
    }

    #[test]
    fn a_library_that_does_not_forbid_unsafe_code_is_found() {
        let check = |path, text| count(unsafe_is_forbidden, path, text);
        assert_eq!(check("crates/a/src/lib.rs", "//! A.\n\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(check("crates/a/src/lib.rs", "//! #![forbid(unsafe_code)]\n"), 1);
        let check_exec = |text| check("crates/drakkar-exec/src/lib.rs", text);
        assert_eq!(check_exec("//! Exec.\n\n#![deny(unsafe_code)]\n"), 0);
        assert_eq!(check_exec("//! Exec.\n"), 1);
    }

    #[test]
    fn unsafe_code_outside_its_files_is_found() {
        let check = |path, text| count(unsafe_is_where_it_may_be, path, text);
        let text = "fn f() {\n    // unsafe\n    unsafe { g() }\n}\n";
        assert_eq!(check("crates/drakkar-exec/src/vfork.rs", text), 0);
        assert_eq!(check("crates/drakkar-exec/src/pool.rs", text), 1);
        assert_eq!(check("crates/drakkar-source-kafka/src/vfork.rs", text), 1);
        assert_eq!(check("crates/a/src/b.rs", "unsafe impl Send for B {}\n"), 1);
        assert_eq!(check("crates/a/src/b.rs", "#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(check("crates/drakkar-exec/tests/pool.rs", text), 0);
    }

    #[test]
    fn banned_words_are_found_in_code_only() {
        let check = |path, text| count(banned_words, path, text);
        assert_eq!(check("crates/a/src/b.rs", "// todo!()\nlet x = \"#[allow(x)]\";\n"), 0);
        assert_eq!(check("crates/a/src/b.rs", "#[allow(dead_code)]\nfn f() { todo!() }\n"), 2);
        assert_eq!(check("crates/a/tests/b.rs", "#[test]\n#[ignore = \"flaky\"]\nfn f() {}\n"), 1);
    }

    #[test]
    fn tests_may_sleep_and_libraries_may_not() {
        let check = |path| count(banned_words, path, "fn f() { thread::sleep(second); }\n");
        assert_eq!(check("crates/a/src/b.rs"), 1);
        assert_eq!(check("crates/a/tests/b.rs"), 0);
        assert_eq!(check("tests/bench/src/main.rs"), 0);
        assert_eq!(check("xtask/src/main.rs"), 0);
    }
}
