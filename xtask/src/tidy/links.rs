//! Links between the files of the repository lead somewhere.

use anyhow::Result;

use super::finding::Finding;
use super::tree::Tree;

/// Every relative link of a Markdown file leads to a tracked file or folder, and its fragment to a
/// heading there.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending_in(".md") {
        for (number, line) in prose(text) {
            let targets = links(&line).into_iter().filter(|target| is_local(target));
            let broken = targets.filter(|target| !leads_somewhere(tree, path, target));
            findings.extend(broken.map(|target| {
                Finding::at(path, number, format!("the link \"{target}\" leads nowhere"))
            }));
        }
    }
    Ok(findings)
}

/// The lines outside code blocks, with their numbers and without code spans.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
            is_code = !is_code;
        } else if !is_code {
            let outside_spans = line.split('`').step_by(2);
            lines.push((index + 1, outside_spans.collect::<Vec<_>>().join("`")));
        }
    }
    lines
}

/// The targets of `[text](target)`, `![image](target "title")` and `[label]: target`.
fn links(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    let targets = inline.chain(definition.map(|(_, target)| target));
    let without_title = targets.filter_map(|target| target.split_whitespace().next());
    without_title.map(|target| target.trim_matches(['<', '>'])).collect()
}

/// Neither a place on the web nor a path of rustdoc, which checks its own.
fn is_local(target: &str) -> bool {
    !target.contains("::") && !target.contains("://") && !target.starts_with("mailto:")
}

fn leads_somewhere(tree: &Tree, from: &str, target: &str) -> bool {
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(from, path) else { return false };
    let is_heading = |text| headings(text).iter().any(|heading| heading == fragment);
    match tree.text(&path) {
        Some(text) if path.ends_with(".md") && !fragment.is_empty() => is_heading(text),
        _ => tree.has(&path),
    }
}

/// The path from the root; `None` if it leads out of the repository. An empty target is the file
/// itself.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.to_owned());
    }
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let base = if target.starts_with('/') { "" } else { folder };
    let mut parts = Vec::new();
    for part in base.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The headings as fragments, made the way GitHub makes them; of equal ones, only the first can be
/// linked to.
fn headings(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut headings = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if line.starts_with('#') && !is_code {
            headings.push(fragment(line.trim_start_matches('#').trim()));
        }
    }
    headings
}

fn fragment(heading: &str) -> String {
    let kept = heading.chars().filter(|at| at.is_alphanumeric() || " -_".contains(*at));
    kept.map(|at| if at == ' ' { '-' } else { at }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> usize {
        let tree = Tree::of(&[
            ("docs/a.md", text),
            ("docs/b.md", "# The `b` file, in short\n```\n# not this\n```\n"),
            ("README.md", ""),
            ("examples/quickstart/main.rs", ""),
        ]);
        check(&tree).expect("the rule itself works").len()
    }

    #[test]
    fn links_to_what_exists_are_fine() {
        for text in [
            "[b](b.md)",
            "[b](./b.md#the-b-file-in-short \"title\")",
            "[readme](../README.md), ![code](/examples/quickstart)",
            "[readme](<../README.md>)",
            "# Here\n[here](#here)",
            "[b]: b.md",
            "[web](https://example.org/x), [type](crate::Sink), [me](mailto:me@example.org)",
        ] {
            assert_eq!(broken(text), 0, "{text}");
        }
    }

    #[test]
    fn broken_links_are_found() {
        for text in [
            "[c](c.md)",
            "[b](b.md#not-this)",
            "[here](#nowhere)",
            "[outside](../../x.md)",
            "[fine](b.md) and [c](c.md)",
            "[c]: c.md",
        ] {
            assert_eq!(broken(text), 1, "{text}");
        }
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(broken("```\n[c](c.md)\n```\n`[c](c.md)` and `x`\n"), 0);
    }
}
