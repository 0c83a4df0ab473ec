//! What the process uses, as Linux tells it, under the names that all clients of Prometheus use.
//!
//! Read when the page is made, in some tens of microseconds. A figure that cannot be read is left out.

use super::families as names;
use std::fs;
use std::sync::OnceLock;

/// Returns each figure that can be read now, with the metric's name.
pub(super) fn figures() -> Vec<(&'static str, f64)> {
    let usage = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Usage::parse(&text));
    let memory = fs::read_to_string("/proc/self/statm").ok().and_then(|text| Memory::parse(&text));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    [
        (names::PROCESS_CPU_SECONDS, usage.as_ref().map(|usage| seconds(usage.cpu_ticks))),
        (names::PROCESS_START_TIME, usage.as_ref().and_then(start_time)),
        (names::PROCESS_RESIDENT_BYTES, memory.as_ref().map(|memory| bytes(memory.resident_pages))),
        (names::PROCESS_VIRTUAL_BYTES, memory.as_ref().map(|memory| bytes(memory.virtual_pages))),
        (names::PROCESS_OPEN_FDS, open_descriptors().map(number)),
        (names::PROCESS_MAX_FDS, limit.map(number)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// What `/proc/self/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    /// Of all threads, in user code and in the kernel; not of children.
    cpu_ticks: u64,
    /// Since the machine started.
    start_ticks: u64,
}

impl Usage {
    /// The program's name stands in brackets and may hold anything, brackets and blanks too.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // The manual counts from 1, and the two fields before are cut off.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)? })
    }
}

/// What `/proc/self/statm` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    virtual_pages: u64,
    resident_pages: u64,
}

impl Memory {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ').map(|field| field.parse().ok());
        Some(Self { virtual_pages: fields.next()??, resident_pages: fields.next()?? })
    }
}

/// Returns when the process started, in seconds since 1970. It never changes.
fn start_time(usage: &Usage) -> Option<f64> {
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    let read = || fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
    let boot = *BOOT.get_or_init(read);
    Some(number(boot?) + seconds(usage.start_ticks))
}

/// Reads when the machine started, in seconds since 1970, from `/proc/stat`.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_descriptors() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is of the listing itself.
    Some(listed.saturating_sub(1))
}

fn seconds(ticks: u64) -> f64 {
    number(ticks) / number(rustix::param::clock_ticks_per_second())
}

fn bytes(pages: u64) -> f64 {
    number(pages) * number(rustix::param::page_size() as u64)
}

#[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str) -> f64 {
        let found = figures().into_iter().find(|(other, _)| *other == name);
        found.unwrap_or_else(|| panic!("{name} cannot be read")).1
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_confuse() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 70 30 13 14 15 16 17 18 5000 20 21";
        let expect = Usage { cpu_ticks: 100, start_ticks: 5000 };
        for name in ["worker", "a) S 1 (b", ") "] {
            assert_eq!(Usage::parse(&format!("42 ({name}) {rest}")), Some(expect), "{name}");
        }
        for text in ["", "42 (worker", "42 (worker) S 1 2", "42 (worker) S x"] {
            assert_eq!(Usage::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_left_out() {
        let expect = Memory { virtual_pages: 300, resident_pages: 20 };
        assert_eq!(Memory::parse("300 20 7 1 0 9 0\n"), Some(expect));
        assert_eq!(Memory::parse("300"), None);
        assert_eq!(Memory::parse("300 x"), None);
        assert_eq!(boot_time("cpu  1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000));
        assert_eq!(boot_time("cpu  1 2\n"), None);
    }

    #[test]
    fn work_memory_and_files_show() {
        let before = figure(names::PROCESS_CPU_SECONDS);
        let mut sum = 0_u64;
        while figure(names::PROCESS_CPU_SECONDS) < before + 0.05 {
            sum = (0..100_000).fold(sum, |sum, next| std::hint::black_box(sum ^ next));
        }
        assert!(figure(names::PROCESS_RESIDENT_BYTES) > 1e6);
        assert!(
            figure(names::PROCESS_VIRTUAL_BYTES) >= figure(names::PROCESS_RESIDENT_BYTES),
            "what is resident is mapped"
        );
        // Other tests open and close some; so many they do not close.
        let before = figure(names::PROCESS_OPEN_FDS);
        let files: Vec<_> =
            (0..100).map(|_| fs::File::open("/proc/self/stat").expect("it is there")).collect();
        assert!(figure(names::PROCESS_OPEN_FDS) > before + 50.0);
        drop(files);
        assert!(figure(names::PROCESS_MAX_FDS) > figure(names::PROCESS_OPEN_FDS));
    }

    #[test]
    fn the_start_is_in_the_past_and_stays() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("after 1970").as_secs_f64();
        let start = figure(names::PROCESS_START_TIME);
        // The kernel tells the start of the machine in whole seconds.
        assert!(start < now + 2.0 && start > now - 24.0 * 3600.0, "{start} at {now}");
        assert_eq!(figure(names::PROCESS_START_TIME), start);
    }
}
