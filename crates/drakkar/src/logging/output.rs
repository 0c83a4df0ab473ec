//! Where log lines go.

use super::LineIdentity;
use super::setup::LogError;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

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
pub(super) type LineSink = Box<dyn Write + Send>;

impl Output {
    /// Opens the output; a file is appended to, and missing folders are made.
    pub(super) fn open(&self, identity: &LineIdentity) -> Result<LineSink, LogError> {
        let parts = match self {
            Self::Stderr => return Ok(Box::new(std::io::stderr())),
            Self::Stdout => return Ok(Box::new(std::io::stdout())),
            Self::File(parts) => parts,
        };
        let path: String = parts.iter().map(|part| part.filled(identity)).collect();
        let open = || {
            if let Some(parent) = Path::new(&path).parent() {
                std::fs::create_dir_all(parent)?;
            }
            OpenOptions::new().append(true).create(true).open(&path)
        };
        match open() {
            Ok(file) => Ok(Box::new(file)),
            Err(source) => Err(LogError::Open { path, source }),
        }
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
    fn a_file_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = Output::parse(&folder.path().display().to_string()).expect("valid");
        let error = output.open(&LineIdentity::default()).err().expect("it is a folder");
        assert!(error.to_string().contains("failed to open the log file"), "{error}");
    }
}
