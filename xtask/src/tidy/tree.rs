//! The files that the rules are about: those that git tracks, and new ones that it does not ignore.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Texts by path, relative to the root and with `/`. A file that is not UTF-8 is there with an
/// empty text.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the working copy of a git repository.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("failed to run git")?;
        ensure!(output.status.success(), "git ls-files: {}", output.status);
        let paths = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        let mut files = BTreeMap::new();
        // A file that was deleted but not yet staged is listed and does not exist.
        for path in paths.split_terminator('\0').filter(|path| root.join(path).is_file()) {
            let bytes = fs::read(root.join(path));
            let bytes = bytes.with_context(|| format!("failed to read {path}"))?;
            files.insert(path.to_owned(), String::from_utf8(bytes).unwrap_or_default());
        }
        Ok(Self { files })
    }

    /// A tree out of thin air, for tests of rules.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { files: files.iter().map(owned).collect() }
    }

    /// Every file with its text, ordered by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every file whose name ends in `suffix`.
    pub(crate) fn ending_in(&self, suffix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(move |(path, _)| path.ends_with(suffix))
    }

    /// Says whether there is such a file, or a folder with files in it; `""` is the root.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.files.keys().any(|file| file.starts_with(&folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_found() {
        let tree = Tree::of(&[("docs/a.md", ""), ("b.rs", "")]);
        assert!(["docs/a.md", "docs", "b.rs", ""].into_iter().all(|path| tree.has(path)));
        assert!(!["doc", "docs/b.md", "b"].into_iter().any(|path| tree.has(path)));
    }
}
