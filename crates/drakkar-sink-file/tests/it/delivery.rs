//! What the sink does with files that others touch, too.

use crate::common::{connected, deliver, read, section, sink};
use drakkar_api::{ErrorStatus, FileLine, Sink, SinkErrorKind, Verdict};
use drakkar_sink_file::{FileSinkSection, Fsync};
use std::fs::{self, File, OpenOptions};
use std::time::{Duration, Instant};

fn line(path: &str, text: &str) -> FileLine {
    FileLine::bytes(path, text.to_owned())
}

fn kind(verdict: &Verdict) -> SinkErrorKind {
    verdict.error().expect("not confirmed").kind()
}

// Promise: DL-3
#[tokio::test]
async fn bad_items_are_rejected_alone_and_good_ones_written() {
    let base = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), base.path().join("out")).unwrap();
    fs::create_dir(base.path().join("folder")).unwrap();
    let sink = connected(base.path()).await;
    let verdicts = deliver(
        &sink,
        &[
            line("a", "1"),
            line("../escape", "x"),
            line("out/escape", "x"),
            line("none/x", "x"),
            line("folder", "x"),
            line("a", "two\nlines"),
            line("a", "2"),
            line(&"n".repeat(300), "x"),
        ],
    )
    .await;
    assert_eq!((&verdicts[0], &verdicts[6]), (&Verdict::Confirmed, &Verdict::Confirmed));
    let kinds: Vec<_> = [1, 2, 3, 4, 5, 7].map(|item| kind(&verdicts[item])).to_vec();
    let invalid = SinkErrorKind::Invalid;
    assert_eq!(kinds, [invalid, invalid, SinkErrorKind::NoTarget, invalid, invalid, invalid]);
    assert!(verdicts.iter().filter(|v| matches!(v, Verdict::Rejected(_))).count() == 6);
    assert_eq!(read(base.path().join("a")), "1\n2\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_torn_line_of_a_crashed_worker_is_moved_away() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("a");
    fs::write(&file, "{\"n\":1}\n{\"n\":2").unwrap();
    let sink = connected(base.path()).await;
    assert_eq!(deliver(&sink, &[line("a", "{\"n\":2}")]).await, [Verdict::Confirmed]);
    assert_eq!(read(&file), "{\"n\":1}\n{\"n\":2}\n");
    assert_eq!(read(base.path().join("a.torn")), "{\"n\":2\n");
    // Not only at the first opening: another worker may crash later.
    fs::write(&file, "{\"n\":1}\n{\"to").unwrap();
    assert_eq!(deliver(&sink, &[line("a", "{\"n\":3}")]).await, [Verdict::Confirmed]);
    assert_eq!(read(&file), "{\"n\":1}\n{\"n\":3}\n");
}

#[tokio::test]
async fn a_rotated_or_removed_file_is_begun_anew() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("a");
    let sink = connected(base.path()).await;
    deliver(&sink, &[line("a", "1")]).await;
    fs::rename(&file, base.path().join("a.1")).unwrap();
    deliver(&sink, &[line("a", "2")]).await;
    fs::remove_file(&file).unwrap();
    assert_eq!(deliver(&sink, &[line("a", "3")]).await, [Verdict::Confirmed]);
    assert_eq!((read(base.path().join("a.1")), read(&file)), ("1\n".into(), "3\n".into()));
}

#[tokio::test]
async fn a_base_folder_that_goes_away_is_no_fault_of_the_items() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("base");
    fs::create_dir(&base).unwrap();
    let sink = connected(&base).await;
    deliver(&sink, &[line("a", "1")]).await;
    fs::remove_dir_all(&base).unwrap();
    let verdicts = deliver(&sink, &[line("a", "2")]).await;
    let Verdict::NotApplied(error) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!((error.kind(), error.status()), (SinkErrorKind::Connection, ErrorStatus::Temporary));
    fs::create_dir(&base).unwrap();
    assert_eq!(deliver(&sink, &[line("a", "2")]).await, [Verdict::Confirmed]);
    assert_eq!(read(base.join("a")), "2\n");
}

// Promise: FT-2
#[tokio::test]
async fn a_file_that_stays_locked_holds_up_its_own_lines_only_and_until_the_deadline() {
    let base = tempfile::tempdir().unwrap();
    let sink = sink(FileSinkSection { attempt_timeout_seconds: 0.2, ..section(base.path()) });
    sink.connect().await.unwrap();
    let other = OpenOptions::new().append(true).create(true).open(base.path().join("a")).unwrap();
    other.lock().unwrap();
    let began = Instant::now();
    let verdicts = deliver(&sink, &[line("b", "1"), line("a", "2"), line("c", "3")]).await;
    assert!(began.elapsed() >= Duration::from_millis(180), "it waited for the lock");
    // The files before and behind the locked one are written; its own line had no effect.
    assert_eq!([&verdicts[0], &verdicts[2]], [&Verdict::Confirmed; 2]);
    let Verdict::NotApplied(error) = &verdicts[1] else { panic!("{verdicts:?}") };
    assert_eq!(error.kind(), SinkErrorKind::Timeout);
    other.unlock().unwrap();
    assert_eq!(deliver(&sink, &[line("a", "2")]).await, [Verdict::Confirmed]);
    let texts = ["a", "b", "c"].map(|file| read(base.path().join(file)));
    assert_eq!(texts, ["2\n", "1\n", "3\n"]);
}

#[tokio::test]
async fn a_delivery_goes_on_when_the_lock_comes_free() {
    let base = tempfile::tempdir().unwrap();
    let sink = connected(base.path()).await;
    let other = File::create(base.path().join("a")).unwrap();
    other.lock().unwrap();
    let lines = [line("a", "1")];
    let (verdicts, ()) = tokio::join!(deliver(&sink, &lines), async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        other.unlock().unwrap();
    });
    assert_eq!(verdicts, [Verdict::Confirmed]);
}

// Promise: DL-3
#[tokio::test]
async fn a_dropped_delivery_begins_nothing_later() {
    let base = tempfile::tempdir().unwrap();
    let sink = connected(base.path()).await;
    let other = File::create(base.path().join("a")).unwrap();
    other.lock().unwrap();
    let lines = [line("a", "dropped")];
    let dropped = tokio::time::timeout(Duration::from_millis(50), deliver(&sink, &lines)).await;
    assert!(dropped.is_err());
    other.unlock().unwrap();
    assert_eq!(deliver(&sink, &[line("a", "kept")]).await, [Verdict::Confirmed]);
    sink.close().await;
    assert_eq!(read(base.path().join("a")), "kept\n");
}

#[tokio::test]
async fn flushing_to_the_device_confirms_too() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("sub")).unwrap();
    let sink = sink(FileSinkSection { fsync: Fsync::Batch, ..section(base.path()) });
    sink.connect().await.unwrap();
    for _ in 0..2 {
        let verdicts = deliver(&sink, &[line("a", "1"), line("sub/b", "2")]).await;
        assert_eq!(verdicts, [Verdict::Confirmed, Verdict::Confirmed]);
    }
    assert_eq!(read(base.path().join("sub/b")), "2\n2\n");
}

#[tokio::test]
async fn more_files_than_stay_open_are_written() {
    let base = tempfile::tempdir().unwrap();
    let sink = connected(base.path()).await;
    let lines: Vec<_> = (0..200).map(|file| line(&file.to_string(), "x")).collect();
    for _ in 0..2 {
        let verdicts = deliver(&sink, &lines).await;
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
    }
    for file in 0..200 {
        assert_eq!(read(base.path().join(file.to_string())), "x\nx\n");
    }
}

#[tokio::test]
async fn connecting_to_no_folder_fails_and_may_be_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join("base");
    let sink = sink(section(&base));
    let error = sink.connect().await.unwrap_err();
    assert_eq!(error.kind(), SinkErrorKind::NoTarget);
    let verdicts = deliver(&sink, &[line("a", "1")]).await;
    assert_eq!(kind(&verdicts[0]), SinkErrorKind::Internal);
    fs::create_dir(&base).unwrap();
    sink.connect().await.unwrap();
    assert_eq!(deliver(&sink, &[line("a", "1")]).await, [Verdict::Confirmed]);
}

#[test]
fn the_link_for_the_ui_is_optional() {
    let with = |ui_url: &str| {
        let section = FileSinkSection { ui_url: ui_url.to_owned(), ..FileSinkSection::new("x") };
        sink(section).ui_url().map(str::to_owned)
    };
    assert_eq!(with(""), None);
    assert_eq!(with("http://files"), Some("http://files".to_owned()));
}
