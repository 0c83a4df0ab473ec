//! Every promise of `docs/guarantees.md` is kept by a test that says so.
//!
//! A promise is declared by its bold id, `**DL-1**`. A test cites it in a comment directly above
//! its attribute, `// Promise: DL-1, WM-1`. A promise whose text says "(not built yet)" needs no
//! test.

use std::collections::BTreeMap;

use anyhow::Result;

use super::finding::Finding;
use super::tree::Tree;

const GUARANTEES: &str = "docs/guarantees.md";
const CITATION: &str = "// Promise:";
const NOT_BUILT: &str = "(not built yet)";

/// Declared and cited promises are the same.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let Some(guarantees) = tree.text(GUARANTEES) else {
        return Ok(vec![Finding::in_file(GUARANTEES, "the promises are missing")]);
    };
    let (promises, mut findings) = declared(guarantees);
    let mut citations = Vec::new();
    for (path, text) in tree.ending_in(".rs") {
        let (cited, misplaced) = cited_in(path, text);
        citations.extend(cited);
        findings.extend(misplaced);
    }
    for citation in citations.iter().filter(|citation| !promises.contains_key(&citation.id)) {
        let message = format!("{GUARANTEES} has no promise \"{}\"", citation.id);
        findings.push(Finding::at(&citation.path, citation.line, message));
    }
    for (id, promise) in promises.iter().filter(|(_, promise)| promise.is_built) {
        if !citations.iter().any(|citation| citation.id == *id) {
            let message = format!("no test cites \"{id}\"; the line would be: {CITATION} {id}");
            findings.push(Finding::at(GUARANTEES, promise.line, message));
        }
    }
    Ok(findings)
}

#[derive(Debug, PartialEq, Eq)]
struct Promise {
    line: usize,
    is_built: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Citation {
    id: String,
    path: String,
    line: usize,
}

/// The text of a promise goes on to the next bold id or the next heading.
fn declared(guarantees: &str) -> (BTreeMap<String, Promise>, Vec<Finding>) {
    let mut promises = BTreeMap::new();
    let mut findings = Vec::new();
    let ids = bold_ids(guarantees);
    for (index, &(start, id)) in ids.iter().enumerate() {
        let end = ids.get(index + 1).map_or(guarantees.len(), |&(next, _)| next);
        let text = &guarantees[start..end];
        let text = text.split("\n#").next().unwrap_or(text);
        let line = guarantees[..start].matches('\n').count() + 1;
        // The words may be broken over two lines.
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let promise = Promise { line, is_built: !words.contains(NOT_BUILT) };
        if promises.insert(id.to_owned(), promise).is_some() {
            findings.push(Finding::at(GUARANTEES, line, format!("\"{id}\" is declared twice")));
        }
    }
    (promises, findings)
}

fn bold_ids(text: &str) -> Vec<(usize, &str)> {
    let bold = |(start, _)| {
        let id = text[start + 2..].split("**").next()?;
        is_id(id).then_some((start, id))
    };
    text.match_indices("**").filter_map(bold).collect()
}

/// Two capital letters, a dash, a number.
fn is_id(text: &str) -> bool {
    let Some((letters, number)) = text.split_once('-') else { return false };
    letters.len() == 2
        && letters.bytes().all(|byte| byte.is_ascii_uppercase())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn cited_in(path: &str, text: &str) -> (Vec<Citation>, Vec<Finding>) {
    let mut citations = Vec::new();
    let mut findings = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (index, line) in lines.iter().enumerate() {
        let Some(ids) = line.strip_prefix(CITATION) else { continue };
        if !is_above_test(&lines[index + 1..]) {
            findings.push(Finding::at(path, index + 1, "no #[test] follows this promise"));
        }
        for id in ids.split(',').map(str::trim) {
            let citation = Citation { id: id.to_owned(), path: path.to_owned(), line: index + 1 };
            citations.push(citation);
        }
    }
    (citations, findings)
}

/// Only further comments and attributes may stand between a citation and the attribute of its test.
fn is_above_test(following: &[&str]) -> bool {
    let mut between =
        following.iter().take_while(|line| line.starts_with("//") || line.starts_with("#["));
    between.any(|line| {
        let attribute = line.trim_start_matches("#[");
        let name = attribute.split(['(', ']']).next().unwrap_or_default();
        line.starts_with("#[") && (name == "test" || name.ends_with("::test"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(guarantees: &str, test: &str) -> Vec<String> {
        let tree = Tree::of(&[(GUARANTEES, guarantees), ("crates/a/src/b.rs", test)]);
        let findings = check(&tree).expect("the rule itself works");
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_cited_promise_is_fine() {
        let test = "// Promise: DL-1, WM-2\n#[tokio::test(start_paused = true)]\nasync fn f() {}\n";
        assert!(findings("- **DL-1** Never. **WM-2** At most\n  one.\n", test).is_empty());
    }

    #[test]
    fn a_promise_without_a_test_is_found() {
        let found = findings("# Promises\n\n- **DL-1** Never.\n", "#[test]\nfn f() {}\n");
        assert_eq!(
            found,
            ["docs/guarantees.md:3: no test cites \"DL-1\"; the line would be: // Promise: DL-1"]
        );
    }

    #[test]
    fn what_is_not_built_needs_no_test() {
        assert!(findings("**PR-1** No trace (not built\nyet).\n", "").is_empty());
        let next_says_so = "**DL-1** Never.\n**PR-1** No trace (not built yet).\n";
        assert_eq!(findings(next_says_so, "").len(), 1);
        let later_chapter = "**DL-1** Never.\n\n## Rest\n\nThe cache (not built yet).\n";
        assert_eq!(findings(later_chapter, "").len(), 1);
    }

    #[test]
    fn a_citation_of_no_promise_is_found() {
        let found = findings("", "// Promise: DL-1\n#[test]\nfn f() {}\n");
        assert_eq!(found, ["crates/a/src/b.rs:1: docs/guarantees.md has no promise \"DL-1\""]);
    }

    #[test]
    fn a_citation_stands_above_a_test() {
        let check =
            |test, expect| assert_eq!(findings("**DL-1** Never.", test).len(), expect, "{test}");
        check("// Promise: DL-1\n// Because.\n#[cfg(unix)]\n#[test]\nfn f() {}\n", 0);
        check("// Promise: DL-1\nfn f() {}\n", 1);
        check("// Promise: DL-1\n\n#[test]\nfn f() {}\n", 1);
        check("// Promise: DL-1\n#[cfg(test)]\nmod tests {}\n", 1);
    }

    #[test]
    fn a_second_declaration_is_found() {
        let found =
            findings("**DL-1** Never (not built yet).\n**DL-1** Ever (not built yet).\n", "");
        assert_eq!(found, ["docs/guarantees.md:2: \"DL-1\" is declared twice"]);
    }

    #[test]
    fn missing_guarantees_are_found() {
        assert_eq!(check(&Tree::default()).expect("the rule itself works").len(), 1);
    }
}
