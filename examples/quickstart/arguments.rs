//! The command line.

use std::path::PathBuf;

const USAGE: &str = "usage: quickstart [--messages N] [--out DIR]

  --messages N  how many sample messages to produce, 1 to 200000 (default 2000)
  --out DIR     where the JSON lines go; made if missing (default: a folder beside the temporary
                files, named in the summary)";

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
