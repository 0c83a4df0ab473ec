//! What this process has, counted: for tests that are a process of their own.

use std::fs;

/// The processes whose parent we are, zombies included.
pub(crate) fn children() -> Vec<String> {
    let us = std::process::id().to_string();
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    // State and parent follow the name, which may hold anything.
    stats.filter(|stat| parent_of(stat) == Some(us.as_str())).collect()
}

fn parent_of(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)
}

/// How many descriptors are open.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux").count()
}

/// Shows that the counting can fail: it sees a child, which is a zombie until it is waited for, and a
/// descriptor.
pub(crate) fn check_counting() {
    let mut counted = std::process::Command::new("/bin/true").spawn().expect("it starts");
    assert_eq!(children().len(), 1);
    counted.wait().expect("it ends");
    assert_eq!(children().len(), 0);

    let before = descriptors();
    let counted = fs::File::open("/dev/null").expect("Linux");
    assert_eq!(descriptors(), before + 1);
    drop(counted);
    assert_eq!(descriptors(), before);
}
