//! A disk that is full in the middle of a write, without privileges: a child process of this test
//! may not let files grow beyond a limit, which the kernel treats alike: a short write, then an
//! error. (Its signal must be ignored, which a shell can arrange.)

use crate::common::{connected, deliver, read};
use drakkar_api::{ErrorStatus, FileLine, SinkErrorKind, Verdict};
use std::process::Command;

const CHILD: &str = "DRAKKAR_TEST_LIMITED_BASE";
/// The limit in the units of `ulimit -f` and in bytes.
const LIMIT: (u64, u64) = (8, 8 * 512);

// Promise: DL-3
#[test]
fn what_does_not_fit_is_taken_back() {
    if let Ok(base) = std::env::var(CHILD) {
        return limited(base.as_ref());
    }
    let base = tempfile::tempdir().unwrap();
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", LIMIT.0);
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::what_does_not_fit_is_taken_back"])
        .env(CHILD, base.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(base.path().join("small").exists(), "the child has run");
}

#[tokio::main(flavor = "current_thread")]
async fn limited(base: &std::path::Path) {
    let sink = connected(base).await;
    let line = |path: &str, length| FileLine::bytes(path, vec![b'x'; length]);
    let before = [line("big", 1000), line("big", 1000)];
    assert_eq!(deliver(&sink, &before).await, [Verdict::Confirmed, Verdict::Confirmed]);
    let length = std::fs::metadata(base.join("big")).unwrap().len();

    // The second of these lines crosses the limit; a line for another file is not concerned.
    let lines = [line("big", 1000), line("big", 3000), line("small", 10)];
    let verdicts = deliver(&sink, &lines).await;
    for verdict in &verdicts[..2] {
        let Verdict::NotApplied(error) = verdict else { panic!("{verdicts:?}") };
        assert_eq!(error.kind(), SinkErrorKind::Exhausted);
        assert_eq!(error.status(), ErrorStatus::Temporary);
    }
    assert_eq!(verdicts[2], Verdict::Confirmed);
    assert_eq!(std::fs::metadata(base.join("big")).unwrap().len(), length, "nothing is torn");
    assert!(length + 4000 > LIMIT.1, "the limit was crossed");

    // What fits still goes in, behind whole lines only.
    assert_eq!(deliver(&sink, &[line("big", 500)]).await, [Verdict::Confirmed]);
    let lengths: Vec<_> = read(base.join("big")).lines().map(str::len).collect();
    assert_eq!(lengths, [1000, 1000, 500]);
}
