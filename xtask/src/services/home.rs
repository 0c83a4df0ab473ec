//! The folder of one service: its state file, its log, its configuration and usually its data.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Service;
use super::state::State;
use crate::workspace;

/// How much of a log an error shows.
const LOG_TAIL_BYTES_MAX: u64 = 4096;

/// `<target>/services`, or `XTASK_SERVICES_DIR`: for two checkouts that share a target folder.
pub(crate) fn services_dir() -> Result<PathBuf> {
    match env::var_os("XTASK_SERVICES_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(workspace::target()?.join("services")),
    }
}

/// Keeps other runs of xtask from changing the services at the same time, until it is dropped.
#[derive(Debug)]
pub(crate) struct ServicesLock {
    _file: File,
}

impl ServicesLock {
    /// Waits until no other run of xtask holds the lock.
    pub(crate) fn acquire(services_dir: &Path) -> Result<Self> {
        fs::create_dir_all(services_dir)
            .with_context(|| format!("failed to create {}", services_dir.display()))?;
        let path = services_dir.join("lock");
        let file = File::create(&path);
        let file = file.with_context(|| format!("failed to open {}", path.display()))?;
        file.lock().with_context(|| format!("failed to lock {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

/// The folder of one service.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    pub(crate) fn of(service: Service, services_dir: &Path) -> Self {
        Self { folder: services_dir.join(service.name()) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn state_file(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// Reads the state; `None` if the service was never brought up or was taken down.
    pub(crate) fn state(&self) -> Result<Option<State>> {
        let path = self.state_file();
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let state = serde_json::from_slice(&json);
        state.map(Some).with_context(|| format!("failed to understand {}", path.display()))
    }

    /// Writes the state so that a reader sees the old one or the new one, never half of it.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let path = self.state_file();
        let draft = path.with_extension("json.new");
        let written = fs::create_dir_all(&self.folder)
            .and_then(|()| fs::write(&draft, serde_json::to_vec_pretty(state)?))
            .and_then(|()| fs::rename(&draft, &path));
        written.with_context(|| format!("failed to write {}", path.display()))
    }

    /// Forgets the service: its state first, then its data. The log stays for whoever wonders what
    /// happened.
    pub(crate) fn clear(&self) -> Result<()> {
        let state = self.state()?;
        remove(&self.state_file(), |path| fs::remove_file(path))?;
        if let Some(native) = state.and_then(|state| state.native) {
            remove(&native.data, |path| fs::remove_dir_all(path))?;
        }
        Ok(())
    }

    /// How long the log is now; what a later start writes comes after it.
    pub(crate) fn log_len(&self) -> u64 {
        fs::metadata(self.log()).map_or(0, |file| file.len())
    }

    /// What was written to the log after `from`.
    pub(crate) fn log_since(&self, from: u64) -> Result<String> {
        let path = self.log();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut bytes)
        });
        read.with_context(|| format!("failed to read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The end of what was written to the log after `from`, for an error.
    pub(crate) fn log_tail(&self, from: u64) -> String {
        let start = from.max(self.log_len().saturating_sub(LOG_TAIL_BYTES_MAX));
        match self.log_since(start) {
            Ok(tail) => format!("end of {}:\n{}", self.log().display(), tail.trim_end()),
            Err(error) => format!("{error:#}"),
        }
    }
}

/// Removes something that may be gone already.
fn remove(path: &Path, remove: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Provider;
    use super::super::state::NativeState;
    use super::*;
    use crate::process::ProcessIdentity;

    fn state(data: PathBuf) -> State {
        let process = ProcessIdentity::of(std::process::id()).expect("this process runs");
        let native = Some(NativeState { process, ports: vec![9092, 9093], data });
        let address = "127.0.0.1:9092".parse().expect("an address");
        State { provider: Provider::Native, address, native }
    }

    #[test]
    fn the_state_is_read_back_until_it_is_cleared() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::of(Service::Kafka, folder.path());
        assert_eq!(home.state().expect("nothing there is fine"), None);

        let data = home.folder().join("data");
        fs::create_dir_all(data.join("topic-0")).expect("created");
        home.save(&state(data.clone())).expect("saved");
        assert_eq!(home.state().expect("readable"), Some(state(data.clone())));

        home.clear().expect("cleared");
        assert_eq!(home.state().expect("nothing there is fine"), None);
        assert!(!data.exists());
        home.clear().expect("clearing twice is fine");
    }

    #[test]
    fn only_the_new_part_of_the_log_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::of(Service::Kafka, folder.path());
        assert_eq!(home.log_len(), 0);
        fs::create_dir_all(home.folder()).expect("created");
        fs::write(home.log(), "started\n").expect("written");
        let before = home.log_len();
        fs::write(home.log(), "started\nfailed\n").expect("written");
        assert_eq!(home.log_since(before).expect("readable"), "failed\n");
        assert!(home.log_tail(before).ends_with("log:\nfailed"));
    }
}
