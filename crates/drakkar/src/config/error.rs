//! Why a configuration was refused.

use drakkar_api::{Problem, Problems};
use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
///
/// Its text names every problem, so that one start is enough to see them all.
#[derive(Debug)]
pub struct ConfigError {
    inner: Inner,
}

/// The class of a [`ConfigError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// There is no such file.
    NotFound,
    /// The file could not be read.
    Io,
    /// The file is not well-formed YAML.
    Syntax,
    /// Settings are unknown, missing, of the wrong type, out of bounds or contradict each other.
    Invalid,
}

#[derive(Debug)]
enum Inner {
    NotFound(PathBuf),
    Io { path: PathBuf, source: std::io::Error },
    Syntax { path: Option<PathBuf>, reason: String },
    Invalid { path: Option<PathBuf>, problems: Problems },
}

impl ConfigError {
    pub(super) fn from_io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        let inner = match source.kind() {
            std::io::ErrorKind::NotFound => Inner::NotFound(path),
            _ => Inner::Io { path, source },
        };
        Self { inner }
    }

    pub(super) fn from_syntax(path: Option<&Path>, reason: String) -> Self {
        Self { inner: Inner::Syntax { path: path.map(Path::to_owned), reason } }
    }

    pub(crate) fn from_problems(path: Option<&Path>, problems: Problems) -> Self {
        Self { inner: Inner::Invalid { path: path.map(Path::to_owned), problems } }
    }

    /// Returns the class of the error.
    pub fn kind(&self) -> ConfigErrorKind {
        match &self.inner {
            Inner::NotFound(_) => ConfigErrorKind::NotFound,
            Inner::Io { .. } => ConfigErrorKind::Io,
            Inner::Syntax { .. } => ConfigErrorKind::Syntax,
            Inner::Invalid { .. } => ConfigErrorKind::Invalid,
        }
    }

    /// Returns the single problems; none unless the kind is [`ConfigErrorKind::Invalid`].
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        match &self.inner {
            Inner::Invalid { problems, .. } => Some(problems.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::NotFound(path) => {
                write!(f, "configuration file \"{}\" does not exist", path.display())
            }
            Inner::Io { path, .. } => {
                write!(f, "failed to read the configuration file \"{}\"", path.display())
            }
            Inner::Syntax { path: Some(path), reason } => {
                write!(f, "configuration file \"{}\" is not valid YAML: {reason}", path.display())
            }
            Inner::Syntax { path: None, reason } => {
                write!(f, "the configuration is not valid YAML: {reason}")
            }
            Inner::Invalid { path: Some(path), problems } => {
                write!(f, "\"{}\": {problems}", path.display())
            }
            Inner::Invalid { path: None, problems } => problems.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.inner {
            Inner::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
