//! What the tests of the sink share.

use drakkar_api::{
    Batch, BatchItem, DeliveryId, FileLine, Offset, PartitionId, Sink, SinkId, SinkKind, Verdict,
};
use drakkar_sink_file::{FileSink, FileSinkSection};
use std::path::Path;

/// A section for the folder.
pub(crate) fn section(base: &Path) -> FileSinkSection {
    FileSinkSection::new(base.to_str().unwrap())
}

/// A sink that is not connected.
pub(crate) fn sink(section: FileSinkSection) -> FileSink {
    let config = section.validate("sinks.filesystem.test").unwrap();
    FileSink::new(SinkId::new(SinkKind::Filesystem, "test"), config)
}

/// A sink on the folder, connected.
pub(crate) async fn connected(base: &Path) -> FileSink {
    let sink = sink(section(base));
    sink.connect().await.unwrap();
    sink
}

/// Delivers the lines as one batch.
pub(crate) async fn deliver(sink: &FileSink, lines: &[FileLine]) -> Vec<Verdict> {
    let ids: Vec<_> = (0..lines.len() as i64)
        .map(|offset| DeliveryId::new(PartitionId::new("in", 0), Offset::new(offset), 0, 0))
        .collect();
    let items = lines.iter().zip(&ids).map(|(payload, id)| BatchItem { payload, id }).collect();
    sink.deliver(Batch::new(items)).await
}

/// Reads a file as text.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}
