//! Finds programs. Every program is started by its absolute path.
//!
//! A bare name would make the standard library search `PATH` in the *child's* environment, for which
//! it has to leave its fast way of starting a process (`posix_spawn`) for a fork of the whole worker,
//! many times dearer. So names are looked up here, in the worker's own `PATH` as it was at start.

use drakkar_api::SpawnErrorKind;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many names are remembered. Beyond that, a name is searched for each time it is used.
const CACHE_MAX: usize = 256;

/// Turns the programs of tasks into absolute paths.
#[derive(Debug)]
pub(crate) struct Resolver {
    search: Vec<PathBuf>,
    here: PathBuf,
    found: Mutex<HashMap<PathBuf, Arc<Path>>>,
}

/// Why a program cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpawnFault {
    pub(crate) kind: SpawnErrorKind,
    pub(crate) reason: String,
}

impl SpawnFault {
    pub(crate) fn new(kind: SpawnErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

impl Resolver {
    /// Searches in `path`, the value of the worker's `PATH`; relative programs start from `here`.
    ///
    /// Empty and relative entries of `path` are left out: a worker must not run what happens to
    /// lie in its working directory.
    pub(crate) fn new(path: Option<&OsStr>, here: PathBuf) -> Self {
        let entries = path.map(std::env::split_paths).into_iter().flatten();
        let search = entries.filter(|entry| entry.is_absolute()).collect();
        Self { search, here, found: Mutex::default() }
    }

    /// Returns the absolute path of `program`: itself, or relative to the working directory when it
    /// has a slash, or else the first executable file of that name in the search path.
    ///
    /// Whether a path leads to a program shows when it is started. Only names are looked up, and
    /// only successes are remembered, so that a program that is installed later is found.
    pub(crate) fn resolve(&self, program: &Path) -> Result<Arc<Path>, SpawnFault> {
        if let Some(found) = self.lock().get(program) {
            return Ok(Arc::clone(found));
        }
        let absolute: Arc<Path> = match is_bare_name(program) {
            true => self.search(program)?.into(),
            false => self.here.join(program).into(),
        };
        let mut found = self.lock();
        if found.len() < CACHE_MAX {
            found.insert(program.to_owned(), Arc::clone(&absolute));
        }
        Ok(absolute)
    }

    /// Forgets where `program` was, say because it is not there any more.
    pub(crate) fn forget(&self, program: &Path) {
        self.lock().remove(program);
    }

    /// Resolves `program` and checks that it can be executed now.
    pub(crate) fn resolve_executable(&self, program: &Path) -> Result<Arc<Path>, SpawnFault> {
        let absolute = self.resolve(program)?;
        check_executable(&absolute)?;
        Ok(absolute)
    }

    fn search(&self, name: &Path) -> Result<PathBuf, SpawnFault> {
        let mut refused = None;
        for directory in &self.search {
            let candidate = directory.join(name);
            match look_at(&candidate) {
                Candidate::Executable => return Ok(candidate),
                Candidate::NotExecutable => refused = refused.or(Some(candidate)),
                Candidate::Missing => {}
            }
        }
        Err(match refused {
            Some(candidate) => not_executable(&candidate),
            None => {
                let reason = format!("no program \"{}\" in the worker's PATH", name.display());
                SpawnFault::new(SpawnErrorKind::NotFound, reason)
            }
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<Path>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that the file at `path` can be executed now.
pub(crate) fn check_executable(path: &Path) -> Result<(), SpawnFault> {
    match look_at(path) {
        Candidate::Executable => Ok(()),
        Candidate::Missing => Err(not_found(path)),
        Candidate::NotExecutable => Err(not_executable(path)),
    }
}

fn is_bare_name(program: &Path) -> bool {
    !program.as_os_str().as_bytes().contains(&b'/')
}

enum Candidate {
    Executable,
    NotExecutable,
    Missing,
}

fn look_at(path: &Path) -> Candidate {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Candidate::NotExecutable
        }
        Err(_) => Candidate::Missing,
        Ok(metadata) if !metadata.is_file() => Candidate::NotExecutable,
        Ok(_) => match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Candidate::Executable,
            Err(_) => Candidate::NotExecutable,
        },
    }
}

fn not_found(path: &Path) -> SpawnFault {
    SpawnFault::new(SpawnErrorKind::NotFound, format!("no file \"{}\"", path.display()))
}

fn not_executable(path: &Path) -> SpawnFault {
    let reason = format!("\"{}\" is not executable for this user", path.display());
    SpawnFault::new(SpawnErrorKind::PermissionDenied, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with `bin/tool` (executable), `other/tool` (not) and `other/data` (not).
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder can be made");
        for (name, mode) in [("bin/tool", 0o755), ("other/tool", 0o644), ("other/data", 0o644)] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("it has a parent")).expect("can be made");
            fs::write(&path, "").expect("can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("can be set");
        }
        root
    }

    fn resolver(root: &Path, search: &[&str]) -> Resolver {
        let path = std::env::join_paths(search.iter().map(|entry| match *entry {
            "" | "." => PathBuf::from(entry),
            entry => root.join(entry),
        }))
        .expect("no entry holds a colon");
        Resolver::new(Some(&path), root.to_owned())
    }

    #[test]
    fn names_are_searched_and_paths_are_not() {
        let root = tree();
        let subject = resolver(root.path(), &["other", "bin"]);
        let check = |program: &str, expect: &Path| {
            assert_eq!(subject.resolve(Path::new(program)).expect("resolves").as_ref(), expect);
        };
        check("tool", &root.path().join("bin/tool"));
        check("bin/tool", &root.path().join("bin/tool"));
        check("./tool", &root.path().join("./tool"));
        check("/no/such/file", Path::new("/no/such/file"));
    }

    #[test]
    fn a_failed_search_says_why() {
        let root = tree();
        let subject = resolver(root.path(), &["bin", "other"]);
        let kind = |program: &str| subject.resolve(Path::new(program)).map_err(|fault| fault.kind);
        assert_eq!(kind("nothing"), Err(SpawnErrorKind::NotFound));
        assert_eq!(kind("data"), Err(SpawnErrorKind::PermissionDenied));
        assert_eq!(kind(""), Err(SpawnErrorKind::PermissionDenied));
    }

    #[test]
    fn the_working_directory_is_no_search_path() {
        let root = tree();
        let subject = resolver(&root.path().join("bin"), &["", "."]);
        assert!(subject.search.is_empty(), "{:?}", subject.search);
    }

    #[test]
    fn executables_are_checked_on_demand() {
        let root = tree();
        let subject = resolver(root.path(), &["bin"]);
        let kind =
            |path: &str| subject.resolve_executable(Path::new(path)).map_err(|fault| fault.kind);
        assert!(kind("bin/tool").is_ok());
        assert_eq!(kind("other/tool"), Err(SpawnErrorKind::PermissionDenied));
        assert_eq!(kind("./other"), Err(SpawnErrorKind::PermissionDenied));
        assert_eq!(kind("other/nothing"), Err(SpawnErrorKind::NotFound));
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_on_demand() {
        let root = tree();
        let subject = resolver(root.path(), &["bin", "other"]);
        for index in 0..2 * CACHE_MAX {
            subject.resolve(Path::new(&format!("./{index}"))).expect("paths always resolve");
        }
        assert_eq!(subject.lock().len(), CACHE_MAX);
        subject.forget(Path::new("./0"));
        subject.resolve(Path::new("tool")).expect("it is in bin");
        assert_eq!(subject.lock().len(), CACHE_MAX);
        fs::remove_file(root.path().join("bin/tool")).expect("it exists");
        assert!(subject.resolve(Path::new("tool")).is_ok(), "remembered");
        subject.forget(Path::new("tool"));
        assert!(subject.resolve(Path::new("tool")).is_err(), "searched again");
    }
}
