//! The open files: a bounded cache, the least recently used one goes first.

use crate::lines::LineFile;
use std::collections::BTreeMap;

/// How many files stay open; each takes one descriptor.
pub(crate) const HANDLES_MAX: usize = 64;

/// Open files by path. A file is taken out to be used and put back after it, so that one whose use
/// failed is closed.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    files: BTreeMap<String, (u64, LineFile)>,
    uses: u64,
}

impl Handles {
    pub(crate) fn take(&mut self, path: &str) -> Option<LineFile> {
        self.files.remove(path).map(|(_, file)| file)
    }

    pub(crate) fn put(&mut self, path: &str, file: LineFile) {
        if self.files.len() >= HANDLES_MAX && !self.files.contains_key(path) {
            let oldest = self.files.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(path, _)| path.clone()) {
                self.files.remove(&oldest);
            }
        }
        self.uses += 1;
        self.files.insert(path.to_owned(), (self.uses, file));
    }

    pub(crate) fn clear(&mut self) {
        self.files.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn the_least_recently_used_file_is_closed_first() {
        let base = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(base.path()).expect("the folder exists");
        let open = |path: &str| LineFile::new(folder.open_file(path).expect("a file"));
        let mut handles = Handles::default();
        for number in 0..HANDLES_MAX {
            handles.put(&number.to_string(), open(&number.to_string()));
        }
        let first = handles.take("0").expect("it is cached");
        handles.put("0", first);
        handles.put("more", open("more"));
        assert_eq!(handles.files.len(), HANDLES_MAX);
        assert!(handles.take("1").is_none());
        assert!(handles.take("0").is_some());
    }
}
