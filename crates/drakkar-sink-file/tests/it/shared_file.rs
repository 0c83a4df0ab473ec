//! Several processes, each with several sinks, append to one file, and one of them is killed.

use crate::common::{connected, deliver, read};
use drakkar_api::{FileLine, Verdict};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const CHILD: &str = "DRAKKAR_TEST_SHARED_BASE";
const NAME: &str = "DRAKKAR_TEST_WRITER";
const BATCHES: usize = 60;
const LINES: usize = 20;

#[test]
fn lines_of_several_workers_never_interleave() {
    if let Ok(base) = std::env::var(CHILD) {
        return write(base.as_ref(), &std::env::var(NAME).unwrap());
    }
    let base = tempfile::tempdir().unwrap();
    let writers: Vec<_> = ["a", "b"].map(|name| start(base.path(), name)).into();
    let mut victim = start(base.path(), "victim");
    wait_until(|| read_if_any(&base.path().join("f")).contains("victim"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = read(base.path().join("f"));
    assert!(text.ends_with('\n'));
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in text.lines() {
        let (writer, number) = check(line);
        seen.entry(writer).or_default().push(number);
    }
    for writer in ["a.0", "a.1", "b.0", "b.1"] {
        let expect: Vec<_> = (0..BATCHES * LINES).collect();
        assert_eq!(seen[writer], expect, "{writer}: every line once and in order");
    }
}

/// Panics unless the line is whole; answers who wrote it and its number.
fn check(line: &str) -> (String, usize) {
    let mut parts = line.split(' ');
    let (writer, number) = (parts.next().unwrap(), parts.next().unwrap());
    let filling = parts.next().unwrap();
    let number = number.parse().unwrap();
    assert_eq!(line, text(writer, number), "a torn or mixed line");
    assert!(!filling.is_empty() && parts.next().is_none());
    (writer.to_owned(), number)
}

/// A line of one to several pages.
fn text(writer: &str, number: usize) -> String {
    format!("{writer} {number} {}", "x".repeat(1 + number * 397 % 9001))
}

fn start(base: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "shared_file::lines_of_several_workers_never_interleave"])
        .env(CHILD, base)
        .env(NAME, name)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// The life of a child: two sinks write at the same time.
#[tokio::main]
async fn write(base: &Path, name: &str) {
    // The victim would go on for long, but not for ever: nobody may be left to kill it.
    let rounds = if name == "victim" { 20 * BATCHES } else { BATCHES };
    let one = write_batches(base, format!("{name}.0"), rounds);
    let two = write_batches(base, format!("{name}.1"), rounds);
    tokio::join!(one, two);
}

async fn write_batches(base: &Path, writer: String, rounds: usize) {
    let sink = connected(base).await;
    for batch in 0..rounds {
        let numbers = batch * LINES..(batch + 1) * LINES;
        let lines: Vec<_> =
            numbers.map(|number| FileLine::bytes("f", text(&writer, number))).collect();
        let verdicts = deliver(&sink, &lines).await;
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Confirmed), "{verdicts:?}");
    }
}

fn read_if_any(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn wait_until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited too long");
        std::thread::yield_now();
    }
}
