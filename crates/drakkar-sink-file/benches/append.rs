//! The sink against a bare loop that appends the same bytes, in lines per second and CPU per line.
//!
//! `cargo bench -p drakkar-sink-file`; the folder is `TMPDIR`, so point that at the disk in question.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use drakkar_api::{
    Batch, BatchItem, DeliveryId, FileLine, Offset, PartitionId, Sink, SinkId, SinkKind, Verdict,
};
use drakkar_sink_file::{FileSink, FileSinkSection};
use rustix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const LINES: usize = 400_000;
const LINE_BYTES: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for batch in [1, 20, 500] {
        let lines = if batch == 1 { LINES / 10 } else { LINES };
        for _ in 0..3 {
            let base = tempfile::tempdir().unwrap();
            measure(&format!("bare loop, {batch} lines per write"), lines, || {
                bare(base.path(), lines, batch);
            });
            measure(&format!("sink, {batch} lines per batch"), lines, || {
                runtime.block_on(sink(base.path(), lines, batch));
            });
        }
    }
}

fn measure(what: &str, lines: usize, work: impl FnOnce()) {
    let clock = |id| Duration::try_from(clock_gettime(id)).unwrap();
    let before = (clock(ClockId::Monotonic), clock(ClockId::ProcessCPUTime));
    work();
    let wall = clock(ClockId::Monotonic) - before.0;
    let cpu = clock(ClockId::ProcessCPUTime) - before.1;
    let per_second = lines as f64 / wall.as_secs_f64() / 1000.0;
    let micros = cpu.as_secs_f64() * 1e6 / lines as f64;
    println!("{what:32} {per_second:8.0} k lines/s {micros:8.3} us CPU/line");
}

/// What a program without any of the sink's promises does.
fn bare(base: &Path, lines: usize, batch: usize) {
    let mut file = OpenOptions::new().append(true).create(true).open(base.join("bare")).unwrap();
    let line = [b"x".repeat(LINE_BYTES), b"\n".to_vec()].concat();
    let mut buffer = Vec::new();
    for _ in 0..lines / batch {
        buffer.clear();
        (0..batch).for_each(|_| buffer.extend_from_slice(&line));
        file.write_all(&buffer).unwrap();
    }
}

async fn sink(base: &Path, lines: usize, batch: usize) {
    let section = FileSinkSection::new(base.to_str().unwrap());
    let config = section.validate("sinks.filesystem.bench").unwrap();
    let sink = FileSink::new(SinkId::new(SinkKind::Filesystem, "bench"), config);
    sink.connect().await.unwrap();
    let id = DeliveryId::new(PartitionId::new("in", 0), Offset::new(0), 0, 0);
    let payload = FileLine::bytes("sink", vec![b'x'; LINE_BYTES]);
    for _ in 0..lines / batch {
        let items = (0..batch).map(|_| BatchItem { payload: &payload, id: &id }).collect();
        let verdicts = sink.deliver(Batch::new(items)).await;
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed));
    }
    sink.close().await;
}
