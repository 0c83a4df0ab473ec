//! One file of lines: locked, made whole, appended to, rolled back.
//!
//! Invariants, for everybody who appends under the lock:
//!
//! - the file ends with a line end whenever the lock is free;
//! - a failed append leaves the file as it was, or says that it is not known.
//!
//! A process that is killed inside a write can leave a torn line at the end. Its message was not
//! confirmed and will be delivered again, but consumers of lines would stumble over it, and the next
//! line would be glued to it. So whoever appends next, under the lock, first moves such a tail to the
//! file `<name>.torn` beside it: the file then holds whole lines only, and nothing that anybody wrote
//! is destroyed.

use crate::error::{reason, system, without_effect};
use crate::folder::{Folder, Identity, Opened};
use drakkar_api::{SinkError, SinkErrorKind, Verdict};
use rustix::fd::OwnedFd;
use rustix::fs::{self, FlockOperation};
use rustix::io::{self, Errno, retry_on_intr};

/// The longest tail that is taken for a torn line. A file without a line end in its last 64 MiB is
/// not one of ours and is left alone.
const TORN_BYTES_MAX: u64 = 64 * 1024 * 1024;

const BLOCK_BYTES: usize = 64 * 1024;

/// An open file of lines.
#[derive(Debug)]
pub(crate) struct LineFile {
    handle: OwnedFd,
    identity: Identity,
    /// Whether its name has been made durable: another process may have created it just now.
    name_synced: bool,
}

/// Another process holds the file's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl LineFile {
    pub(crate) fn new(opened: Opened) -> Self {
        let Opened { handle, identity } = opened;
        Self { handle, identity, name_synced: false }
    }

    /// Returns whether `path` still leads to this file: it was not rotated away or removed.
    pub(crate) fn is_current(&self, folder: &Folder, path: &str) -> bool {
        folder.leads_to(path, self.identity)
    }

    /// Takes the file's lock. Closing the file gives it back, too.
    pub(crate) fn lock(&self) -> Result<Result<(), Busy>, Errno> {
        match retry_on_intr(|| fs::flock(&self.handle, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Ok(())),
            Err(Errno::WOULDBLOCK) => Ok(Err(Busy)),
            Err(errno) => Err(errno),
        }
    }

    /// Gives the lock back.
    pub(crate) fn unlock(&self) -> Result<(), Errno> {
        fs::flock(&self.handle, FlockOperation::Unlock)
    }

    /// Appends whole lines in one write. The caller holds the lock.
    pub(crate) fn append(&self, folder: &Folder, path: &str, lines: &[u8]) -> Result<(), Verdict> {
        let failed = |errno| without_effect(errno, "append to", path);
        let length = self.repaired_length(folder, path)?;
        let Err((errno, written)) = self.write(lines) else { return Ok(()) };
        if written == 0 {
            return Err(failed(errno));
        }
        match self.roll_back(length, written) {
            Ok(()) => Err(failed(errno)),
            Err(why) => Err(Verdict::Unknown(SinkError::temporary(
                SinkErrorKind::Other,
                format!(
                    "failed to append to {path:?}: {}, and to take back {written} bytes: {why}",
                    reason(errno)
                ),
            ))),
        }
    }

    /// Makes what was appended durable, and the file's name with it.
    pub(crate) fn sync(&mut self, folder: &Folder, path: &str) -> Result<(), Errno> {
        fs::fdatasync(&self.handle)?;
        if !self.name_synced {
            folder.sync_folder_of(path)?;
            self.name_synced = true;
        }
        Ok(())
    }

    /// Writes everything; on failure tells how much is in the file.
    ///
    /// One call does it, unless the disk is nearly full or a limit is near: then what is left is
    /// tried once more, to learn why.
    fn write(&self, lines: &[u8]) -> Result<(), (Errno, usize)> {
        let mut written = 0;
        while written < lines.len() {
            match retry_on_intr(|| io::write(&self.handle, &lines[written..])) {
                Ok(0) => return Err((Errno::NOSPC, written)),
                Ok(count) => written += count,
                Err(errno) => return Err((errno, written)),
            }
        }
        Ok(())
    }

    /// Takes a partial write back, unless somebody without the lock has written behind it.
    fn roll_back(&self, length: u64, written: usize) -> Result<(), String> {
        let now = self.length().map_err(reason)?;
        if now != length + written as u64 {
            return Err("another process has written to the file without its lock".to_owned());
        }
        fs::ftruncate(&self.handle, length).map_err(reason)
    }

    fn length(&self) -> Result<u64, Errno> {
        let size = fs::fstat(&self.handle)?.st_size;
        u64::try_from(size).map_err(|_| Errno::INVAL)
    }

    /// Moves a torn tail away, if there is one; answers the length without it.
    fn repaired_length(&self, folder: &Folder, path: &str) -> Result<u64, Verdict> {
        let failed = |errno| without_effect(errno, "read the end of", path);
        let length = self.length().map_err(failed)?;
        let whole = match self.length_of_whole_lines(length).map_err(failed)? {
            Some(whole) if whole == length => return Ok(length),
            Some(whole) => whole,
            None => {
                return Err(Verdict::Rejected(SinkError::permanent(
                    SinkErrorKind::Invalid,
                    format!("{path:?} is not a file of lines: its last 64 MiB hold no line end"),
                )));
            }
        };
        self.move_tail(folder, path, whole, length)?;
        tracing::warn!(
            file = path,
            bytes = length - whole,
            "moved a torn line from the end of the file to the file of the same name with .torn"
        );
        Ok(whole)
    }

    /// Finds where the last whole line ends; `None` if that is too far back.
    fn length_of_whole_lines(&self, length: u64) -> Result<Option<u64>, Errno> {
        if length == 0 {
            return Ok(Some(0));
        }
        let mut last = [0; 1];
        self.read_exactly(&mut last, length - 1)?;
        if last == *b"\n" {
            return Ok(Some(length));
        }
        let mut end = length;
        let mut block = vec![0; BLOCK_BYTES];
        while end > 0 {
            if length - end >= TORN_BYTES_MAX {
                return Ok(None);
            }
            let start = end.saturating_sub(BLOCK_BYTES as u64);
            let block = &mut block[..(end - start) as usize];
            self.read_exactly(block, start)?;
            if let Some(place) = block.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(start + place as u64 + 1));
            }
            end = start;
        }
        Ok(Some(0))
    }

    fn move_tail(&self, folder: &Folder, path: &str, from: u64, to: u64) -> Result<(), Verdict> {
        let torn_path = format!("{path}.torn");
        // Whatever is wrong with that file, it is not the fault of the line to be written.
        let failed = |errno| {
            let text = format!("failed to move a torn line to {torn_path:?}: {}", reason(errno));
            Verdict::NotApplied(system(errno, &text))
        };
        let torn = LineFile::new(folder.open_file(&torn_path).map_err(failed)?);
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = from;
        while at < to {
            let count = (to - at).min(BLOCK_BYTES as u64) as usize;
            self.read_exactly(&mut block[..count], at).map_err(failed)?;
            torn.write(&block[..count]).map_err(|(errno, _)| failed(errno))?;
            at += count as u64;
        }
        torn.write(b"\n").map_err(|(errno, _)| failed(errno))?;
        // Only now: a failure above leaves the tail where it was, to be moved again.
        fs::ftruncate(&self.handle, from).map_err(failed)
    }

    fn read_exactly(&self, buffer: &mut [u8], mut at: u64) -> Result<(), Errno> {
        let mut left = buffer;
        while !left.is_empty() {
            match retry_on_intr(|| io::pread(&self.handle, &mut *left, at))? {
                // Somebody has cut the file short in this moment.
                0 => return Err(Errno::AGAIN),
                count => {
                    left = &mut left[count..];
                    at += count as u64;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(base: &Path, path: &str) -> (Folder, LineFile) {
        let folder = Folder::open(base).expect("the folder exists");
        let file = LineFile::new(folder.open_file(path).expect("a file"));
        (folder, file)
    }

    fn read(path: impl AsRef<Path>) -> String {
        std::fs::read_to_string(path).expect("readable text")
    }

    /// Appends `new` to a file that holds `before`; checks what the file and its torn lines are.
    fn check_append(before: &str, expect: &str, expect_torn: Option<&str>) {
        let base = tempfile::tempdir().expect("a temporary folder");
        let path = base.path().join("f");
        std::fs::write(&path, before).expect("writable");
        let (folder, file) = open(base.path(), "f");
        file.append(&folder, "f", b"new\n").expect("nothing is wrong");
        assert_eq!(read(&path), expect);
        let torn = base.path().join("f.torn");
        assert_eq!(torn.exists().then(|| read(torn)).as_deref(), expect_torn);
    }

    #[test]
    fn a_torn_tail_is_moved_away() {
        check_append("", "new\n", None);
        check_append("a\n", "a\nnew\n", None);
        check_append("a\n{\"torn", "a\nnew\n", Some("{\"torn\n"));
        check_append("torn", "new\n", Some("torn\n"));
        let long = "x".repeat(3 * BLOCK_BYTES + 7);
        check_append(&format!("a\n{long}"), "a\nnew\n", Some(&format!("{long}\n")));
        check_append(&format!("{long}\nt"), &format!("{long}\nnew\n"), Some("t\n"));
    }

    #[test]
    fn a_file_that_is_no_file_of_lines_is_left_alone() {
        let base = tempfile::tempdir().expect("a temporary folder");
        let path = base.path().join("f");
        let file = std::fs::File::create(&path).expect("writable");
        // A hole: no disk space is used.
        file.set_len(TORN_BYTES_MAX + 10).expect("a sparse file");
        let (folder, file) = open(base.path(), "f");
        let verdict = file.append(&folder, "f", b"new\n").expect_err("no line end far and wide");
        assert!(matches!(verdict, Verdict::Rejected(_)), "{verdict:?}");
        assert_eq!(std::fs::metadata(&path).expect("it exists").len(), TORN_BYTES_MAX + 10);
        assert!(!base.path().join("f.torn").exists());
    }

    #[test]
    fn a_partial_write_is_taken_back_unless_somebody_wrote_behind_it() {
        let base = tempfile::tempdir().expect("a temporary folder");
        let path = base.path().join("f");
        std::fs::write(&path, "a\npart").expect("writable");
        let (_folder, file) = open(base.path(), "f");
        file.roll_back(2, 4).expect("only our bytes follow");
        assert_eq!(read(&path), "a\n");
        std::fs::write(&path, "a\npartother").expect("writable");
        assert!(file.roll_back(2, 4).is_err());
        assert_eq!(read(&path), "a\npartother");
    }

    #[test]
    fn the_lock_excludes_other_openings_of_the_file() {
        let base = tempfile::tempdir().expect("a temporary folder");
        let (_folder, one) = open(base.path(), "f");
        let (_folder, two) = open(base.path(), "f");
        assert_eq!(one.lock(), Ok(Ok(())));
        assert_eq!(two.lock(), Ok(Err(Busy)));
        one.unlock().expect("it is held");
        assert_eq!(two.lock(), Ok(Ok(())));
        drop(two);
        assert_eq!(one.lock(), Ok(Ok(())), "closing gives the lock back");
    }
}
