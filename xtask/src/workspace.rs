//! Where things are: the workspace root, cargo's target folder, the cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::cargo;

/// The root of the workspace that this xtask was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
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
