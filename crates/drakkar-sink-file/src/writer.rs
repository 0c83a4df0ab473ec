//! The blocking half of the sink: everything here runs on a thread that may wait for a disk.

use crate::config::Fsync;
use crate::encode::Group;
use crate::error::without_effect;
use crate::folder::Folder;
use crate::handles::Handles;
use crate::lines::{Busy, LineFile};
use drakkar_api::{SinkError, SinkErrorKind, Verdict};
use std::path::PathBuf;

/// How often a file is opened anew because it was replaced in the moment of its opening.
const REOPENS_MAX: usize = 8;

/// Writes groups of lines into files below one folder.
#[derive(Debug)]
pub(crate) struct Writer {
    base_path: PathBuf,
    fsync: Fsync,
    folder: Folder,
    handles: Handles,
}

impl Writer {
    /// Opens the base folder and proves that it can be written.
    pub(crate) fn connect(base_path: PathBuf, fsync: Fsync) -> Result<Self, SinkError> {
        let folder = Folder::open(&base_path)?;
        folder.probe()?;
        Ok(Self { base_path, fsync, folder, handles: Handles::default() })
    }

    /// Opens the base folder again if it was replaced, say by a mount.
    pub(crate) fn refresh(&mut self) -> Result<(), SinkError> {
        if self.folder.is_current() {
            return Ok(());
        }
        self.handles.clear();
        let missing = |error: SinkError| {
            SinkError::temporary(SinkErrorKind::Connection, error.message().to_owned())
        };
        self.folder = Folder::open(&self.base_path).map_err(missing)?;
        tracing::info!(folder = ?self.base_path, "opened the base folder again: it was replaced");
        Ok(())
    }

    /// Appends a group to its file.
    ///
    /// One verdict counts for all lines of the group: they go in by one write or not at all.
    pub(crate) fn write(&mut self, group: &Group) -> Result<Verdict, Busy> {
        match self.append(group) {
            Ok(()) => Ok(Verdict::Confirmed),
            Err(Stop::Verdict(verdict)) => Ok(verdict),
            Err(Stop::Busy) => Err(Busy),
        }
    }

    fn append(&mut self, group: &Group) -> Result<(), Stop> {
        let path = group.path.as_str();
        let mut file = self.locked(path)?;
        // A file whose use fails is dropped: it is closed, its lock is free, and the next attempt
        // begins with a fresh handle.
        file.append(&self.folder, path, &group.bytes)?;
        file.unlock().map_err(|errno| unknown(errno, "unlock", path))?;
        if self.fsync == Fsync::Batch {
            file.sync(&self.folder, path).map_err(|errno| unknown(errno, "flush", path))?;
        }
        self.handles.put(path, file);
        Ok(())
    }

    /// Opens and locks the file that `path` leads to, and makes sure that it still does.
    fn locked(&mut self, path: &str) -> Result<LineFile, Stop> {
        for _ in 0..REOPENS_MAX {
            let file = match self.handles.take(path) {
                Some(file) => file,
                None => LineFile::new(
                    self.folder
                        .open_file(path)
                        .map_err(|errno| without_effect(errno, "open", path))?,
                ),
            };
            if file.lock().map_err(|errno| without_effect(errno, "lock", path))?.is_err() {
                self.handles.put(path, file);
                return Err(Stop::Busy);
            }
            if file.is_current(&self.folder, path) {
                return Ok(file);
            }
        }
        Err(Stop::Verdict(Verdict::NotApplied(SinkError::temporary(
            SinkErrorKind::Other,
            format!("failed to open {path:?}: it is replaced again and again"),
        ))))
    }
}

/// Why a group was not written.
enum Stop {
    Busy,
    Verdict(Verdict),
}

impl From<Verdict> for Stop {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// The lines are in the file, but something after that went wrong.
fn unknown(errno: rustix::io::Errno, action: &str, path: &str) -> Verdict {
    let why = crate::error::reason(errno);
    let text = format!("failed to {action} {path:?} after writing: {why}");
    Verdict::Unknown(SinkError::temporary(SinkErrorKind::Other, text))
}
