//! Where things are: the workspace root, cargo's target folder, the cache.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::cargo;

/// The root of the workspace that this xtask works on.
///
/// Looked for when it is asked for: a binary outlives the checkout that it was built in where
/// checkouts share a target folder. Cargo says in `CARGO_MANIFEST_DIR` which package it runs, of
/// xtask or of the test that started this xtask; without cargo the current folder counts.
pub(crate) fn root() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").filter(|folder| !folder.is_empty());
    let start = match package {
        Some(folder) => PathBuf::from(folder),
        None => env::current_dir().context("failed to find the current folder")?,
    };
    root_above(&start)
}

/// Finds the nearest folder, from `start` upwards, whose manifest has a workspace.
fn root_above(start: &Path) -> Result<PathBuf> {
    for folder in start.ancestors() {
        let manifest = folder.join("Cargo.toml");
        let text = match fs::read_to_string(&manifest) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("failed to read {}", manifest.display()));
            }
        };
        if has_workspace(&text) {
            return Ok(folder.to_owned());
        }
    }
    bail!(
        "neither {} nor a folder above it has a Cargo.toml with [workspace]; run xtask inside a \
         checkout",
        start.display()
    )
}

/// Whether a manifest has the table `workspace`, or one of its tables.
fn has_workspace(manifest: &str) -> bool {
    let is_of_workspace =
        |line: &str| ["[workspace]", "[workspace."].iter().any(|it| line.starts_with(it));
    manifest.lines().any(|line| is_of_workspace(line.trim_start()))
}

/// Cargo's target folder, which `CARGO_TARGET_DIR` or a cargo configuration may have moved.
pub(crate) fn target() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let metadata: Metadata = cargo::metadata()?;
    Ok(metadata.target_directory)
}

/// The folder for downloads that are worth keeping: `XTASK_CACHE_DIR`, else `drakkar` in the
/// user's cache folder.
pub(crate) fn cache() -> Result<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XTASK_CACHE_DIR")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("drakkar")))
        .or_else(|| Some(folder("HOME")?.join(".cache").join("drakkar")))
        .context("none of XTASK_CACHE_DIR, XDG_CACHE_HOME and HOME is set")?;
    ensure!(cache.is_absolute(), "the cache folder \"{}\" is not absolute", cache.display());
    Ok(cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a workspace, a member in it, and a folder in that.
    fn checkout() -> tempfile::TempDir {
        let checkout = tempfile::tempdir().expect("a temporary folder");
        let member = checkout.path().join("crates/member");
        fs::create_dir_all(member.join("src")).expect("created");
        fs::write(checkout.path().join("Cargo.toml"), "# Ours.\n[workspace]\nmembers = []\n")
            .expect("written");
        let manifest = "[package]\nname = \"member\"\n[lints]\nworkspace = true\n";
        fs::write(member.join("Cargo.toml"), manifest).expect("written");
        checkout
    }

    #[test]
    fn the_root_is_found_from_every_folder_of_a_checkout() {
        let checkout = checkout();
        // None of these is where this test was built.
        for start in ["", "crates", "crates/member", "crates/member/src", "crates/gone/src"] {
            let root = root_above(&checkout.path().join(start)).expect("there is one");
            assert_eq!(root, checkout.path(), "from {start}");
        }
    }

    #[test]
    fn without_a_workspace_the_error_names_where_it_looked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("Cargo.toml"), "[package]\nname = \"alone\"\n")
            .expect("written");
        let error = root_above(folder.path()).expect_err("there is none").to_string();
        assert!(error.contains(folder.path().to_str().expect("text")), "{error}");
        assert!(error.contains("[workspace]"), "{error}");
    }

    #[test]
    fn a_manifest_that_cannot_be_read_is_not_passed_over() {
        let checkout = checkout();
        let start = checkout.path().join("crates/member");
        fs::remove_file(start.join("Cargo.toml")).expect("removed");
        fs::create_dir(start.join("Cargo.toml")).expect("created");
        let error = root_above(&start).expect_err("a folder is no manifest");
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
    }

    #[test]
    fn a_workspace_is_told_from_what_looks_like_one() {
        for manifest in ["[workspace]", "  [workspace] # all", "[a]\n[workspace.package]\nb = 1"] {
            assert!(has_workspace(manifest), "{manifest}");
        }
        for manifest in ["", "# [workspace]", "[lints]\nworkspace = true", "[workspaces]"] {
            assert!(!has_workspace(manifest), "{manifest}");
        }
    }

    #[test]
    fn the_root_of_this_test_is_that_of_its_sources() {
        let root = root().expect("cargo runs this in a workspace");
        assert!(root.join("xtask/src/workspace.rs").is_file(), "{}", root.display());
    }
}
