//! Nothing in the repository names a place on the machine of whoever wrote it.

use anyhow::Result;

use super::finding::Finding;
use super::tree::Tree;

/// First folders of such paths. They are put between slashes here, so that this file names no such
/// path itself.
const FOLDERS: [&str; 3] = ["work", "root", "Users"];

/// No tracked file holds such a path.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in tree.files() {
        for (index, line) in text.lines().enumerate() {
            if let Some(folder) = FOLDERS.iter().find(|folder| names_path_under(folder, line)) {
                let message = format!("the absolute path \"/{folder}/…\" is of one machine only");
                findings.push(Finding::at(path, index + 1, message));
            }
        }
    }
    Ok(findings)
}

/// Looks for the path where one can begin: in `docs/work/x` and `host/work/x` the folder is not the
/// first.
fn names_path_under(folder: &str, line: &str) -> bool {
    let prefix = format!("/{folder}/");
    line.match_indices(&prefix).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "._-~}/*".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(line: &str) -> bool {
        let line = line.replace('|', "/");
        !check(&Tree::of(&[("a.md", &line)])).expect("the rule itself works").is_empty()
    }

    #[test]
    fn absolute_paths_are_found() {
        for line in
            ["|work|x", "cd |root|.cargo", "path = \"|Users|me\"", "(|work|a.md)", "file:|root|a"]
        {
            assert!(finds(line), "{line}");
        }
    }

    #[test]
    fn other_paths_are_not() {
        for line in [
            "docs|work|x",
            "https:||host|work|x",
            "..|work|x",
            "|tmp|x",
            "$HOME|work|",
            "|workspace|",
        ] {
            assert!(!finds(line), "{line}");
        }
    }
}
