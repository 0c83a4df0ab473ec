//! The base folder, and opening files that are really below it.
//!
//! Paths are resolved by the kernel relative to an open handle of the folder (`openat2` with
//! `RESOLVE_BENEATH`), so there is no moment between a check and its use. Symbolic links that stay
//! below the folder are followed; absolute ones and those that lead out are refused. Where `openat2`
//! is missing (Linux before 5.6, some sandboxes), the path is walked component by component and no
//! link at all is followed.

use crate::error::{reason, system};
use drakkar_api::{SinkError, SinkErrorKind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use std::path::{Path, PathBuf};

/// How often a resolution is repeated that the kernel gave up because something was renamed.
const RESOLVE_ATTEMPTS: usize = 8;

const PROBE_ATTEMPTS: usize = 100;

/// What files are opened with. `NONBLOCK` keeps a FIFO from blocking the thread; regular files,
/// the only ones that are written, ignore it.
const FILE_FLAGS: OFlags =
    OFlags::RDWR.union(OFlags::APPEND).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

const RESOLVE_FLAGS: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// The base folder, open.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    handle: OwnedFd,
    identity: Identity,
    resolution: Resolution,
}

/// What makes a file the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// Who walks a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Kernel,
    ByHand,
}

/// A file that was opened for appending.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) handle: OwnedFd,
    pub(crate) identity: Identity,
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl Folder {
    /// Opens the folder.
    pub(crate) fn open(path: &Path) -> Result<Self, SinkError> {
        let failed = |errno| {
            let text = format!("failed to open the folder {path:?}: {}", reason(errno));
            match errno {
                Errno::NOENT | Errno::NOTDIR => SinkError::permanent(SinkErrorKind::NoTarget, text),
                _ => system(errno, &text),
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = retry_on_intr(|| fs::open(path, flags, Mode::empty())).map_err(failed)?;
        let identity = Identity::of(&fs::fstat(&handle).map_err(failed)?);
        let resolution =
            if kernel_resolves(handle.as_fd()) { Resolution::Kernel } else { Resolution::ByHand };
        Ok(Self { path: path.to_owned(), handle, identity, resolution })
    }

    /// Proves that files can be made, locked and written here.
    pub(crate) fn probe(&self) -> Result<(), SinkError> {
        let failed = |action: &str, errno: Errno| {
            let text = format!("failed to {action} in {:?}: {}", self.path, reason(errno));
            system(errno, &text)
        };
        let (name, file) = self.create_probe().map_err(|errno| failed("create a file", errno))?;
        fs::unlinkat(&self.handle, name, AtFlags::empty())
            .map_err(|errno| failed("remove a file", errno))?;
        fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed("lock a file", errno))?;
        retry_on_intr(|| rustix::io::write(&file, b"\n"))
            .map_err(|errno| failed("write a file", errno))?;
        Ok(())
    }

    /// Creates a file that nobody else has: workers of other containers may share the folder and
    /// the process id, and a killed one may have left its file behind.
    fn create_probe(&self) -> Result<(String, OwnedFd), Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        for number in 0..PROBE_ATTEMPTS {
            let name = format!(".drakkar-probe-{}-{number}", std::process::id());
            match fs::openat(&self.handle, &name, flags, mode) {
                Ok(file) => return Ok((name, file)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// Returns whether the folder's path still leads to this folder.
    pub(crate) fn is_current(&self) -> bool {
        fs::stat(&self.path).is_ok_and(|stat| Identity::of(&stat) == self.identity)
    }

    /// Returns whether `path` leads to the file of this identity now.
    ///
    /// Links are followed wherever they lead; that is only a comparison, nothing is opened.
    pub(crate) fn leads_to(&self, path: &str, identity: Identity) -> bool {
        fs::statat(&self.handle, path, AtFlags::empty())
            .is_ok_and(|stat| Identity::of(&stat) == identity)
    }

    /// Opens a file for appending and creates it if it is missing.
    pub(crate) fn open_file(&self, path: &str) -> Result<Opened, Errno> {
        let mode = Mode::from_raw_mode(0o666);
        let handle = self.resolve(path, FILE_FLAGS | OFlags::CREATE, mode)?;
        let stat = fs::fstat(&handle)?;
        if !fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::INVAL);
        }
        Ok(Opened { handle, identity: Identity::of(&stat) })
    }

    /// Makes the name of a file durable.
    pub(crate) fn sync_folder_of(&self, path: &str) -> Result<(), Errno> {
        let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        fs::fsync(self.resolve(parent, flags, Mode::empty())?)
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        if self.resolution == Resolution::ByHand {
            return self.walk(path, flags, mode);
        }
        let mut last = Errno::AGAIN;
        for _ in 0..RESOLVE_ATTEMPTS {
            match fs::openat2(&self.handle, path, flags, mode, RESOLVE_FLAGS) {
                Err(errno @ (Errno::AGAIN | Errno::INTR)) => last = errno,
                result => return result,
            }
        }
        Err(last)
    }

    /// Opens one component after the other and follows no link.
    fn walk(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let Some((parent, name)) = path.rsplit_once('/') else {
            return fs::openat(&self.handle, path, flags | OFlags::NOFOLLOW, mode);
        };
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        for component in parent.split('/') {
            let from = at.as_ref().unwrap_or(&self.handle);
            at = Some(fs::openat(from, component, folder, Mode::empty())?);
        }
        let from = at.as_ref().unwrap_or(&self.handle);
        fs::openat(from, name, flags | OFlags::NOFOLLOW, mode)
    }

    #[cfg(test)]
    pub(crate) fn without_openat2(mut self) -> Self {
        self.resolution = Resolution::ByHand;
        self
    }
}

/// Asks for `openat2` itself: sandboxes refuse it with more than one error.
fn kernel_resolves(folder: BorrowedFd<'_>) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat2(folder, ".", flags, Mode::empty(), RESOLVE_FLAGS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A base folder with a sibling that must never be reached.
    fn world() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let base = root.path().join("base");
        std::fs::create_dir_all(base.join("sub")).expect("a fresh folder");
        std::fs::create_dir(root.path().join("outside")).expect("a fresh folder");
        std::fs::write(root.path().join("outside/secret"), "secret\n").expect("writable");
        (root, base)
    }

    #[test]
    fn links_that_lead_out_are_refused() {
        let (root, base) = world();
        symlink(root.path().join("outside/secret"), base.join("absolute")).expect("a link");
        symlink("../outside/secret", base.join("relative")).expect("a link");
        symlink("../outside", base.join("folder")).expect("a link");
        symlink("../outside/new", base.join("dangling")).expect("a link");
        symlink("loop", base.join("loop")).expect("a link");
        for by_hand in [false, true] {
            let folder = Folder::open(&base).expect("the folder exists");
            let folder = if by_hand { folder.without_openat2() } else { folder };
            for path in ["absolute", "relative", "folder/secret", "folder/new", "dangling", "loop"]
            {
                let errno = folder.open_file(path).expect_err(path);
                let refused = [Errno::XDEV, Errno::LOOP, Errno::NOTDIR];
                assert!(refused.contains(&errno), "{path}, by hand {by_hand}: {errno:?}");
            }
        }
        assert!(!root.path().join("outside/new").exists());
    }

    #[test]
    fn links_that_stay_inside_are_followed_by_the_kernel_only() {
        let (_root, base) = world();
        symlink("sub/real", base.join("inside")).expect("a link");
        std::fs::write(base.join("sub/real"), "").expect("writable");
        let folder = Folder::open(&base).expect("the folder exists");
        let opened = folder.open_file("inside").expect("it stays inside");
        assert!(folder.leads_to("sub/real", opened.identity));
        let errno = folder.without_openat2().open_file("inside").expect_err("no link is followed");
        assert_eq!(errno, Errno::LOOP);
    }

    #[test]
    fn folders_are_never_created() {
        let (_root, base) = world();
        for by_hand in [false, true] {
            let folder = Folder::open(&base).expect("the folder exists");
            let folder = if by_hand { folder.without_openat2() } else { folder };
            assert_eq!(folder.open_file("none/x").expect_err("no folder"), Errno::NOENT);
            folder.open_file("sub/new").expect("a new file in an old folder");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (_root, base) = world();
        let fifo = base.join("fifo");
        fs::mknodat(fs::CWD, &fifo, fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("a FIFO needs no privilege");
        let folder = Folder::open(&base).expect("the folder exists");
        assert_eq!(folder.open_file("fifo").expect_err("a FIFO"), Errno::INVAL);
        assert_eq!(folder.open_file("sub").expect_err("a folder"), Errno::ISDIR);
    }

    #[test]
    fn a_missing_folder_and_one_of_another_type_fail_loudly() {
        let (root, base) = world();
        std::fs::write(root.path().join("file"), "").expect("writable");
        for path in [root.path().join("none"), root.path().join("file")] {
            let error = Folder::open(&path).expect_err("not a folder");
            assert_eq!(error.kind(), SinkErrorKind::NoTarget, "{error}");
        }
        let folder = Folder::open(&base).expect("the folder exists");
        folder.probe().expect("a writable folder");
        assert_eq!(std::fs::read_dir(&base).expect("readable").count(), 1, "only \"sub\"");
    }

    #[test]
    fn a_replaced_folder_is_noticed() {
        let (root, base) = world();
        let folder = Folder::open(&base).expect("the folder exists");
        assert!(folder.is_current());
        std::fs::rename(&base, root.path().join("moved")).expect("a rename");
        assert!(!folder.is_current());
        std::fs::create_dir(&base).expect("a fresh folder");
        assert!(!folder.is_current());
    }
}
