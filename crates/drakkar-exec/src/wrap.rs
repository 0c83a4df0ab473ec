//! What stands before every task's program: `executor.wrap`, or what `executor.limits` makes.
//!
//! A wrap is a program that prepares something and then becomes the task's program, whose path and
//! arguments follow its own. It is found once, at start. For the pool nothing changes: the process
//! that it starts is the one that it watches, and starting it is as cheap as starting any other.

use crate::config::PoolConfig;
use crate::error::{PoolError, PoolErrorKind};
use crate::limits;
use crate::resolve::{Resolver, SpawnFault};
use drakkar_api::SpawnErrorKind;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Programs that start one another, the last of which starts the task's.
#[derive(Debug)]
pub(crate) struct Wrap {
    program: Arc<Path>,
    args: Vec<CString>,
    /// The last tool of `executor.limits`, if the wrap comes from there.
    tool: Option<Arc<Path>>,
}

impl Wrap {
    /// Finds the programs of the wrap, if there is to be one.
    ///
    /// # Errors
    ///
    /// When one of them is missing or not executable.
    pub(crate) fn new(config: &PoolConfig, resolver: &Resolver) -> Result<Option<Self>, PoolError> {
        let of_limits = config.limits.commands();
        let (commands, is_of_limits) = match of_limits.is_empty() {
            true => (vec![config.wrap.clone()], false),
            false => (of_limits, true),
        };
        let mut programs = Vec::new();
        let mut args = Vec::new();
        for command in commands {
            let Some((name, options)) = command.split_first() else { return Ok(None) };
            let program = resolver
                .resolve_executable(Path::new(name))
                .map_err(|fault| unusable(name, fault, is_of_limits))?;
            args.push(text(program.as_os_str().as_bytes()));
            args.extend(options.iter().map(|option| text(option.as_bytes())));
            programs.push(program);
        }
        let tool = programs.last().filter(|_| is_of_limits).map(Arc::clone);
        let first = programs.into_iter().next();
        Ok(first.map(|program| Self { program, args, tool }))
    }

    /// Returns what is started in place of the task's program: an absolute path.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the arguments that come before the path of the task's program: the wrap's own path
    /// first.
    pub(crate) fn args(&self) -> &[CString] {
        &self.args
    }

    /// Returns a program to try the limits with, one that is certainly there: the last of the tools
    /// that set them. `None` for a wrap of the user's, of which nobody knows what it does.
    pub(crate) fn tool(&self) -> Option<&Arc<Path>> {
        self.tool.as_ref()
    }

    /// Returns whether programs are found under the same paths inside the wrap, so that the pool can
    /// look whether one is there. Inside a wrap of the user's, say a container, others may be.
    pub(crate) fn shares_paths(&self) -> bool {
        self.tool.is_some()
    }
}

fn text(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("settings with NUL bytes are refused, and paths hold none")
}

fn unusable(name: &str, fault: SpawnFault, is_of_limits: bool) -> PoolError {
    let kind = match fault.kind {
        SpawnErrorKind::PermissionDenied => PoolErrorKind::WrapNotExecutable,
        _ => PoolErrorKind::WrapNotFound,
    };
    let reason = fault.reason;
    PoolError::new(
        kind,
        match is_of_limits {
            true => {
                format!("{} needs \"{name}\", which comes with util-linux: {reason}", limits::PATH)
            }
            false => format!("executor.wrap \"{name}\": {reason}"),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PoolSection;
    use crate::limits::{DeathSignal, LimitsSection};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with programs of these names and modes.
    fn folder(programs: &[(&str, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder can be made");
        for (name, mode) in programs {
            let path = folder.path().join(name);
            fs::write(&path, "").expect("it can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("it can be set");
        }
        folder
    }

    fn wrap(folder: &Path, section: PoolSection) -> Result<Option<Wrap>, PoolError> {
        let resolver = Resolver::new(Some(folder.as_os_str()), folder.to_owned());
        Wrap::new(&section.validate().expect("valid"), &resolver)
    }

    fn of_limits(limits: LimitsSection) -> PoolSection {
        PoolSection { limits, ..PoolSection::default() }
    }

    fn all_limits() -> LimitsSection {
        LimitsSection {
            open_files: Some(64),
            parent_death_signal: Some(DeathSignal::Kill),
            ..LimitsSection::default()
        }
    }

    #[test]
    fn without_settings_there_is_none() {
        let folder = folder(&[]);
        assert!(wrap(folder.path(), PoolSection::default()).expect("nothing is needed").is_none());
    }

    #[test]
    fn its_own_program_is_resolved_and_comes_first() {
        let folder = folder(&[("tool", 0o755)]);
        let section = PoolSection {
            wrap: vec!["tool".to_owned(), "-n".to_owned(), "tool".to_owned()],
            ..PoolSection::default()
        };
        let wrap = wrap(folder.path(), section).expect("it is there").expect("there is one");
        let path = folder.path().join("tool");
        assert_eq!(wrap.program(), path);
        let args: Vec<_> = wrap.args().iter().map(|arg| arg.to_str().expect("text")).collect();
        assert_eq!(args, [path.to_str().expect("text"), "-n", "tool"]);
        assert!(!wrap.shares_paths() && wrap.tool().is_none());
    }

    #[test]
    fn the_tools_of_limits_start_one_another() {
        let folder = folder(&[("prlimit", 0o755), ("setpriv", 0o755)]);
        let wrap = wrap(folder.path(), of_limits(all_limits())).expect("both are there");
        let wrap = wrap.expect("there is one");
        let path = |name: &str| folder.path().join(name);
        assert_eq!(wrap.program(), path("setpriv"));
        assert_eq!(wrap.tool().map(AsRef::as_ref), Some(path("prlimit").as_path()));
        let args: Vec<_> = wrap.args().iter().map(|arg| arg.to_str().expect("text")).collect();
        let (setpriv, prlimit) = (path("setpriv"), path("prlimit"));
        let (setpriv, prlimit) = (setpriv.to_str(), prlimit.to_str());
        let expect = [setpriv, Some("--pdeathsig"), Some("KILL"), prlimit, Some("--nofile=64")];
        assert!(args.iter().map(|arg| Some(*arg)).eq(expect), "{args:?}");
    }

    #[test]
    fn a_tool_that_is_not_installed_is_named() {
        let check = |programs: &[(&str, u32)], kind, name: &str| {
            let folder = folder(programs);
            let error = wrap(folder.path(), of_limits(all_limits())).expect_err("one is missing");
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            let expect = format!("executor.limits needs \"{name}\", which comes with util-linux: ");
            assert!(text.starts_with(&expect), "{text}");
        };
        check(&[], PoolErrorKind::WrapNotFound, "setpriv");
        check(&[("setpriv", 0o755)], PoolErrorKind::WrapNotFound, "prlimit");
        let programs = [("setpriv", 0o755), ("prlimit", 0o644)];
        check(&programs, PoolErrorKind::WrapNotExecutable, "prlimit");
    }
}
