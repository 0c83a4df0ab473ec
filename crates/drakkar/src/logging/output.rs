//! Where log lines go.

use super::LineIdentity;
use super::setup::LogError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, by the template of its path.
    File(Vec<Part>),
}

/// A piece of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text as it is.
    Text(String),
    /// `{worker_id}`
    WorkerId,
    /// `{cluster_name}`
    ClusterName,
}

impl Output {
    /// Reads `stderr`, `stdout` or the template of a path.
    ///
    /// # Errors
    ///
    /// When a brace is neither `{worker_id}` nor `{cluster_name}`.
    pub(crate) fn parse(template: &str) -> Result<Self, String> {
        match template {
            "stderr" => return Ok(Self::Stderr),
            "stdout" => return Ok(Self::Stdout),
            _ => {}
        }
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, brace) = rest.split_at(open);
            parts.push(Part::Text(text.to_owned()));
            let (part, after) = if let Some(after) = brace.strip_prefix("{worker_id}") {
                (Part::WorkerId, after)
            } else if let Some(after) = brace.strip_prefix("{cluster_name}") {
                (Part::ClusterName, after)
            } else {
                return Err(format!(
                    "the braces of \"{template}\" must be {{worker_id}} or {{cluster_name}}, such as \
                     /var/log/drakkar/{{worker_id}}.log"
                ));
            };
            parts.push(part);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self::File(parts))
    }
}

/// Where the writer's thread puts the lines.
pub(super) trait LineOutput: Write + Send {
    /// Opens what has a name anew, because somebody has moved it away; else does nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be opened. What is open stays so then.
    fn reopen(&mut self) -> Result<(), LogError>;
}

pub(super) type LineSink = Box<dyn LineOutput>;

impl LineOutput for io::Stderr {
    fn reopen(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

impl LineOutput for io::Stdout {
    fn reopen(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

/// A file that is appended to.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: PathBuf) -> Result<Self, LogError> {
        match open_to_append(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(LogError::Open { path, source }),
        }
    }
}

/// Opens a file, and makes it and the folders above it if they are missing.
fn open_to_append(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl LineOutput for LogFile {
    fn reopen(&mut self) -> Result<(), LogError> {
        *self = Self::open(self.path.clone())?;
        Ok(())
    }
}

impl Output {
    /// Opens the output; a file is appended to, and missing folders are made.
    pub(super) fn open(&self, identity: &LineIdentity) -> Result<LineSink, LogError> {
        let parts = match self {
            Self::Stderr => return Ok(Box::new(io::stderr())),
            Self::Stdout => return Ok(Box::new(io::stdout())),
            Self::File(parts) => parts,
        };
        let path: String = parts.iter().map(|part| part.filled(identity)).collect();
        Ok(Box::new(LogFile::open(path.into())?))
    }
}

impl Part {
    /// Returns the text for the path. A name cannot lead into another folder.
    fn filled(&self, identity: &LineIdentity) -> String {
        let one_component = |name: &str| match name {
            "." | ".." => "_".to_owned(),
            name => name.replace(['/', '\0'], "_"),
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::WorkerId => one_component(&identity.worker_id),
            Self::ClusterName => one_component(&identity.cluster_name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_know_two_names() {
        assert_eq!(Output::parse("stderr"), Ok(Output::Stderr));
        assert_eq!(Output::parse("stdout"), Ok(Output::Stdout));
        let parts = [
            Part::Text("/var/".into()),
            Part::ClusterName,
            Part::Text("/w-".into()),
            Part::WorkerId,
            Part::Text(".log".into()),
        ];
        let template = "/var/{cluster_name}/w-{worker_id}.log";
        assert_eq!(Output::parse(template), Ok(Output::File(parts.into())));
        for wrong in ["/var/{worker}.log", "/var/{", "/var/}", "/var/{{worker_id}}"] {
            assert!(Output::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_are_appended_to_and_folders_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let template = format!("{}/{{cluster_name}}/{{worker_id}}.log", folder.path().display());
        let identity = LineIdentity {
            worker_id: "../w/1".into(),
            cluster_name: "blue".into(),
            ..LineIdentity::default()
        };
        for _ in 0..2 {
            let output = Output::parse(&template).expect("valid");
            let mut sink = output.open(&identity).expect("it can be made");
            sink.write_all(b"line\n").expect("written");
        }
        let path = folder.path().join("blue/.._w_1.log");
        assert_eq!(std::fs::read_to_string(path).expect("there"), "line\nline\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("a/log"), folder.path().join("moved"));
        let output = Output::parse(&path.display().to_string()).expect("valid");
        let mut sink = output.open(&LineIdentity::default()).expect("it can be made");
        let write = |sink: &mut LineSink, text: &str| {
            sink.write_all(text.as_bytes()).expect("written");
        };
        let read = |path: &Path| std::fs::read_to_string(path).expect("there");
        write(&mut sink, "one\n");
        std::fs::rename(path.parent().expect("a folder"), &moved).expect("moved");
        write(&mut sink, "two\n");
        sink.reopen().expect("it can be made");
        write(&mut sink, "three\n");
        assert_eq!(read(&moved.join("log")), "one\ntwo\n");
        assert_eq!(read(&path), "three\n");
        // A folder in its place: what is open stays so.
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        let error = sink.reopen().expect_err("it is a folder");
        assert!(error.to_string().contains("failed to open the log file"), "{error}");
        write(&mut sink, "four\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = Output::parse(&folder.path().display().to_string()).expect("valid");
        let error = output.open(&LineIdentity::default()).err().expect("it is a folder");
        assert!(error.to_string().contains("failed to open the log file"), "{error}");
    }
}
