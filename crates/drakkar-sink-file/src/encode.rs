//! From payloads to what is written: one run of bytes per file, in the batch's order.

use drakkar_api::{BatchItem, FileLine, SinkError, SinkErrorKind, Verdict};
use std::collections::BTreeMap;

/// The lines of one batch that go to one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The file, relative to the base folder; checked.
    pub(crate) path: String,
    /// The lines, each with its end.
    pub(crate) bytes: Vec<u8>,
    /// The places of the lines in the batch.
    pub(crate) items: Vec<usize>,
}

/// A batch, sorted out before anything is written.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// The groups, in the order in which their files first occur.
    pub(crate) groups: Vec<Group>,
    /// The places of the items that can never be written, and why.
    pub(crate) rejected: Vec<(usize, Verdict)>,
}

/// Checks every item and gathers the good ones by file.
pub(crate) fn encode(items: &[BatchItem<'_, FileLine>]) -> Encoded {
    let mut encoded = Encoded::default();
    // A path as it is written is checked once; two spellings may mean one file.
    let mut checked: BTreeMap<&str, Result<usize, String>> = BTreeMap::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (item, line) in items.iter().map(|item| item.payload).enumerate() {
        let place = checked.entry(&line.path).or_insert_with(|| {
            let path = plain_path(&line.path)?;
            Ok(*places.entry(path).or_insert_with_key(|path| encoded.add_group(path)))
        });
        let why = match place {
            Ok(place) if !line.line.contains(&b'\n') => {
                encoded.groups[*place].add(item, &line.line);
                continue;
            }
            Ok(_) => "the line holds a line end; a file line is written as one line".to_owned(),
            Err(why) => why.clone(),
        };
        let error = SinkError::permanent(SinkErrorKind::Invalid, why);
        encoded.rejected.push((item, Verdict::Rejected(error)));
    }
    // A file whose lines are all rejected has nothing to write.
    encoded.groups.retain(|group| !group.items.is_empty());
    encoded
}

impl Encoded {
    fn add_group(&mut self, path: &str) -> usize {
        self.groups.push(Group { path: path.to_owned(), bytes: Vec::new(), items: Vec::new() });
        self.groups.len() - 1
    }
}

impl Group {
    fn add(&mut self, item: usize, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
        self.items.push(item);
    }
}

/// Takes `.` components out of a path and refuses everything that is not plainly below the base
/// folder.
///
/// What remains can still lead out through a symbolic link; that is refused when it is opened.
fn plain_path(path: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("the path {path:?} {why}"));
    if path.is_empty() {
        return refuse("is empty");
    }
    if path.contains('\0') {
        return refuse("holds a NUL character");
    }
    if path.starts_with('/') {
        return refuse("is absolute; it must be relative to the base folder");
    }
    let components: Vec<&str> = path.split('/').filter(|component| *component != ".").collect();
    if components.contains(&"..") {
        return refuse("holds \"..\"; path traversal is refused");
    }
    if components.is_empty() || components.contains(&"") {
        return refuse("has an empty component; it must name a file such as \"2026/out.jsonl\"");
    }
    Ok(components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drakkar_api::{DeliveryId, Offset, PartitionId};

    fn encode_lines(lines: &[FileLine]) -> Encoded {
        let id = DeliveryId::new(PartitionId::new("in", 0), Offset::new(0), 0, 0);
        let items: Vec<_> = lines.iter().map(|payload| BatchItem { payload, id: &id }).collect();
        encode(&items)
    }

    #[test]
    fn lines_are_gathered_by_file_in_order() {
        let encoded = encode_lines(&[
            FileLine::bytes("b", "1"),
            FileLine::bytes("a", "2"),
            FileLine::bytes("./b", ""),
            FileLine::bytes("b", "4"),
        ]);
        let group = |path: &str, bytes: &str, items: &[usize]| Group {
            path: path.to_owned(),
            bytes: bytes.as_bytes().to_vec(),
            items: items.to_vec(),
        };
        assert_eq!(encoded.groups, [group("b", "1\n\n4\n", &[0, 2, 3]), group("a", "2\n", &[1])]);
        assert!(encoded.rejected.is_empty());
    }

    #[test]
    fn only_paths_plainly_below_the_base_are_taken() {
        let check = |path: &str, expect: Result<&str, &str>| match (plain_path(path), expect) {
            (Ok(plain), Ok(expect)) => assert_eq!(plain, expect),
            (Err(why), Err(part)) => assert!(why.contains(part), "{path:?}: {why}"),
            (result, expect) => panic!("{path:?}: {result:?}, expected {expect:?}"),
        };
        check("a", Ok("a"));
        check("a/b..c/...", Ok("a/b..c/..."));
        check("./a/./b", Ok("a/b"));
        check("ü/日本.jsonl", Ok("ü/日本.jsonl"));
        check("", Err("is empty"));
        check(".", Err("empty component"));
        check("a/", Err("empty component"));
        check("a//b", Err("empty component"));
        check("/etc/passwd", Err("absolute"));
        check("..", Err("path traversal"));
        check("a/../../b", Err("path traversal"));
        check("a\0b", Err("NUL"));
    }

    #[test]
    fn a_line_of_several_lines_is_rejected_alone() {
        let encoded = encode_lines(&[
            FileLine::bytes("a", "1"),
            FileLine::bytes("a", "2\n3"),
            FileLine::bytes("a", "4"),
            FileLine::bytes("b", "\n"),
        ]);
        assert_eq!(
            (encoded.groups.len(), encoded.groups[0].items.as_slice()),
            (1, [0, 2].as_slice())
        );
        let (item, verdict) = &encoded.rejected[0];
        assert_eq!(*item, 1);
        assert!(verdict.error().expect("a rejection").message().contains("line end"));
    }
}
