//! Dependencies are declared once, in the workspace's table; members only refer to it.

use anyhow::Result;

use super::finding::Finding;
use super::tree::Tree;

/// No member's manifest gives a dependency a version or a place of its own.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let members = tree.ending_in("/Cargo.toml");
    Ok(members.flat_map(|(path, text)| check_manifest(path, text)).collect())
}

fn check_manifest(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = Section::Other;
    for (number, entry) in entries(text) {
        if entry.starts_with('[') {
            section = Section::of(&entry);
        } else if !section.allows(&entry) {
            let name = entry.split(['=', '.']).next().unwrap_or_default().trim();
            let message = format!("\"{name}\" is not taken from [workspace.dependencies]");
            findings.push(Finding::at(path, number, message));
        }
    }
    findings
}

#[derive(Clone, Copy, Debug)]
enum Section {
    /// `[dependencies]`, `[dev-dependencies]`, `[target.….build-dependencies]`: an entry is a
    /// dependency.
    Dependencies,
    /// `[dependencies.name]`: an entry is a property of a dependency.
    OneDependency,
    Other,
}

impl Section {
    fn of(header: &str) -> Self {
        let path = header.trim_start_matches('[').trim_end_matches(']');
        let parts: Vec<&str> = path.split('.').collect();
        let is_list = |part: &&str| part.ends_with("dependencies");
        match parts.as_slice() {
            [.., last] if is_list(last) => Self::Dependencies,
            [.., before_last, _] if is_list(before_last) => Self::OneDependency,
            _ => Self::Other,
        }
    }

    fn allows(self, entry: &str) -> bool {
        let dense: String = entry.split_whitespace().collect();
        match self {
            Self::Dependencies => dense.contains("workspace=true"),
            Self::OneDependency => {
                !["version=", "path=", "git="].iter().any(|key| dense.starts_with(key))
            }
            Self::Other => true,
        }
    }
}

/// Headers and entries with the number of their first line; an entry ends where its brackets are
/// closed.
fn entries(text: &str) -> Vec<(usize, String)> {
    let mut entries: Vec<(usize, String)> = Vec::new();
    let mut depth = 0;
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match entries.last_mut() {
            Some((_, entry)) if depth > 0 => entry.push_str(line),
            _ if line.is_empty() => {}
            _ => entries.push((index + 1, line.to_owned())),
        }
        let count = |brackets| line.matches(brackets).count();
        depth = (depth + count(['[', '{'])).saturating_sub(count([']', '}']));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[&str]) {
        let findings = check_manifest("crates/a/Cargo.toml", text);
        let shown: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(shown.len(), expect.len(), "{shown:?}");
        for (shown, expect) in shown.iter().zip(expect) {
            assert!(shown.contains(expect), "{shown}");
        }
    }

    #[test]
    fn references_to_the_workspace_are_fine() {
        check("[package]\nversion = \"1\"\n[dependencies]\nbytes.workspace = true\n", &[]);
        check("[dependencies]\na = { workspace = true, features = [\n  \"x\",\n] }\n", &[]);
        check("[dependencies.a]\nworkspace = true\noptional = true\n", &[]);
    }

    #[test]
    fn own_versions_and_places_are_found() {
        check("[dependencies]\nbytes = \"1\" # mine\n", &[":2: \"bytes\""]);
        check(
            "[dev-dependencies]\na = {\n  version = \"1\" }\nb.path = \"../b\"\n",
            &[":2:", ":4:"],
        );
        check("[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n", &["libc"]);
        check("[build-dependencies.cc]\nversion = \"1\"\n", &[":2:"]);
    }

    #[test]
    fn the_workspace_manifest_is_left_alone() {
        let tree = Tree::of(&[("Cargo.toml", "[workspace.dependencies]\nbytes = \"1\"\n")]);
        assert!(super::check(&tree).expect("checked").is_empty());
    }
}
