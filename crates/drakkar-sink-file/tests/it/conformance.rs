//! The suite that every sink has to pass.

use crate::common::{section, sink};
use bytes::Bytes;
use drakkar_api::FileLine;
use drakkar_sink_file::FileSink;
use drakkar_testkit::conformance::{SinkFixture, sink_suite};

struct Fixture(tempfile::TempDir);

impl SinkFixture for Fixture {
    type Sink = FileSink;

    fn sink(&self) -> FileSink {
        sink(section(self.0.path()))
    }

    fn unusable_sink(&self) -> FileSink {
        sink(section(&self.0.path().join("missing")))
    }

    fn item(&self, target: u32, _number: u32, content: &[u8]) -> FileLine {
        FileLine::bytes(target.to_string(), content.to_vec())
    }

    fn rejected_item(&self) -> Option<FileLine> {
        Some(FileLine::bytes("../outside", "x"))
    }

    fn can_carry(&self, content: &[u8]) -> bool {
        !content.contains(&b'\n')
    }

    async fn read(&self, target: u32, _expected: usize) -> Vec<Bytes> {
        let content = std::fs::read(self.0.path().join(target.to_string())).unwrap_or_default();
        let lines = content.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| Bytes::copy_from_slice(line.strip_suffix(b"\n").unwrap())).collect()
    }
}

#[tokio::test]
async fn the_sink_conforms() {
    sink_suite(|| async { Fixture(tempfile::tempdir().unwrap()) }).await;
}
