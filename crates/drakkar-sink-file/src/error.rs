//! How failures of the file system become verdicts.

use drakkar_api::{SinkError, SinkErrorKind, Verdict};
use rustix::io::Errno;

/// Classifies a failure that left the file as it was.
///
/// What is wrong with the item's own path is a rejection; everything else may pass, or needs a
/// human, and holds nothing against the item.
pub(crate) fn without_effect(errno: Errno, action: &str, path: &str) -> Verdict {
    let text = |why: &str| format!("failed to {action} \"{path}\": {why}");
    match errno {
        Errno::NOENT | Errno::NOTDIR => Verdict::Rejected(SinkError::permanent(
            SinkErrorKind::NoTarget,
            text("its folder does not exist below the base folder"),
        )),
        Errno::XDEV | Errno::LOOP => Verdict::Rejected(SinkError::permanent(
            SinkErrorKind::Invalid,
            text("it leads through a link that is not followed"),
        )),
        Errno::ISDIR | Errno::NXIO | Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => {
            Verdict::Rejected(SinkError::permanent(SinkErrorKind::Invalid, text(&reason(errno))))
        }
        _ => Verdict::NotApplied(system(errno, &text(&reason(errno)))),
    }
}

/// Classifies a failure that has nothing to do with an item.
pub(crate) fn system(errno: Errno, text: &str) -> SinkError {
    match errno {
        Errno::ACCESS | Errno::PERM => SinkError::permanent(SinkErrorKind::Authentication, text),
        Errno::NOSPC
        | Errno::DQUOT
        | Errno::FBIG
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM
        | Errno::NOLCK => SinkError::temporary(SinkErrorKind::Exhausted, text),
        Errno::NOENT | Errno::NOTDIR | Errno::STALE => {
            SinkError::temporary(SinkErrorKind::Connection, text)
        }
        _ => SinkError::temporary(SinkErrorKind::Other, text),
    }
}

/// The system's words for an error, as they fit into a sentence.
pub(crate) fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::ErrorStatus;

    #[test]
    fn a_full_disk_may_pass_and_a_bad_path_may_not() {
        let full = without_effect(Errno::NOSPC, "append to", "a.jsonl");
        let Verdict::NotApplied(error) = full else { panic!("{full:?}") };
        assert_eq!(error.kind(), SinkErrorKind::Exhausted);
        assert_eq!(error.status(), ErrorStatus::Temporary);
        assert_eq!(error.message(), "failed to append to \"a.jsonl\": no space left on device");
        let missing = without_effect(Errno::NOENT, "open", "no/a.jsonl");
        let Verdict::Rejected(error) = missing else { panic!("{missing:?}") };
        assert_eq!(error.kind(), SinkErrorKind::NoTarget);
    }
}
