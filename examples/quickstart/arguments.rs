//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const USAGE: &str = "usage: quickstart [--messages N] [--out DIR]

  --messages N  how many sample messages to produce, 1 to 200000 (default 2000)
  --out DIR     where the JSON lines go; made if missing, and must hold none yet (default: a folder
                beside the temporary files, named in the summary)";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// How many messages to produce.
    pub(crate) messages: u64,
    /// Where the files go.
    pub(crate) out: PathBuf,
}

impl Arguments {
    /// Reads the command line and makes the folder.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut messages = 2000;
        let mut out = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--messages" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    let valid = number.filter(|number| (1..=200_000).contains(number));
                    messages = valid.ok_or(USAGE)?;
                }
                "--out" => out = Some(PathBuf::from(words.next().ok_or(USAGE)?)),
                _ => return Err(USAGE.to_owned()),
            }
        }
        let out = match out {
            Some(out) => {
                std::fs::create_dir_all(&out)
                    .map_err(|error| format!("failed to make {}: {error}", out.display()))?;
                refuse_used(&out)?;
                out
            }
            None => tempfile::Builder::new()
                .prefix("drakkar-quickstart-")
                .tempdir()
                .map_err(|error| format!("failed to make a temporary folder: {error}"))?
                .keep(),
        };
        let full = std::path::absolute(&out).map_err(|error| error.to_string())?;
        Ok(Self { messages, out: full })
    }
}

/// Whether this is one of the files that a run writes, or may be taken for one.
pub(crate) fn is_result(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// Files are appended to, so the lines of an earlier run would be counted with those of this one.
fn refuse_used(folder: &Path) -> Result<(), String> {
    match first_result(folder) {
        Ok(None) => Ok(()),
        Ok(Some(name)) => Err(format!(
            "--out {}: it holds {} of an earlier run, whose lines would be counted too; name another \
             folder, or remove its .jsonl files",
            folder.display(),
            name.display()
        )),
        Err(error) => Err(format!("failed to read the folder {}: {error}", folder.display())),
    }
}

fn first_result(folder: &Path) -> std::io::Result<Option<OsString>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_result(&entry.path()) {
            return Ok(Some(entry.file_name()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(out: &Path) -> Result<Arguments, String> {
        let out = out.to_str().expect("Unicode").to_owned();
        Arguments::parse(["--out".to_owned(), out].into_iter())
    }

    #[test]
    fn a_folder_with_results_of_an_earlier_run_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        assert_eq!(parse(&out).expect("it is made").out, out);
        std::fs::write(out.join("notes.txt"), "").expect("written");
        assert!(parse(&out).is_ok(), "other files are no concern");
        std::fs::write(out.join("counts-3.jsonl"), "{}\n").expect("written");
        let error = parse(&out).expect_err("refused");
        for piece in [out.to_str().expect("Unicode"), "counts-3.jsonl", "name another folder"] {
            assert!(error.contains(piece), "{error}");
        }
    }
}
