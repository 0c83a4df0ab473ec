//! The operating system's account of a process: CPU time and memory, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

/// CPU time in seconds, as far as it was used up to the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cpu {
    /// Of the process itself.
    pub(crate) own: f64,
    /// Of its children, their children and so on, both those that ended and those that run.
    pub(crate) children: f64,
}

impl Cpu {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self { own: self.own - earlier.own, children: self.children - earlier.children }
    }

    pub(crate) fn whole(&self) -> f64 {
        self.own + self.children
    }
}

/// Reads the CPU time of a process and of everything under it.
///
/// Children that ended and were waited for are in the process's own line; those that still run are
/// added, so that work which is handed to a long-lived helper process is in the account too. A child
/// that ends while this reads may be missed or counted twice: a fraction of one task.
pub(crate) fn cpu(pid: u32) -> Result<Cpu> {
    let stats = all_stats()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let cpu = cpu_of_tree(pid, &stats).with_context(|| format!("process {pid} is gone"))?;
    Ok(Cpu { own: cpu.own / ticks_per_second, children: cpu.children / ticks_per_second })
}

/// Reads the most memory that a process ever had resident, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmHWM")
}

/// Reads the memory that a process has resident, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmRSS")
}

fn memory_mib(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    Ok(memory_kib(&status, field)? as f64 / 1024.0)
}

fn memory_kib(status: &str, field: &str) -> Result<u64> {
    let mut values = status.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let value = values.next().with_context(|| format!("no {field} in the status of a process"))?;
    let number = value.trim().strip_suffix(" kB").and_then(|number| number.trim().parse().ok());
    number.with_context(|| format!("{field} is \"{}\", expected kB", value.trim()))
}

/// One line of `/proc/<pid>/stat`, in clock ticks.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    /// Of the children that were waited for, and of theirs.
    reaped_ticks: u64,
}

/// Every process there is. One that ends meanwhile is left out.
fn all_stats() -> Result<BTreeMap<u32, Stat>> {
    let mut stats = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("failed to list /proc")? {
        let entry = entry.context("failed to list /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("stat")) else { continue };
        stats.insert(pid, parse_stat(&String::from_utf8_lossy(&line))?);
    }
    Ok(stats)
}

/// The second field is the program's name in parentheses and may hold anything, spaces and
/// parentheses too; only the last closing one ends it.
fn parse_stat(line: &str) -> Result<Stat> {
    let Some((_, after_name)) = line.rsplit_once(')') else { bail!("no name in \"{line}\"") };
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // The first field after the name has the number 3 in proc(5).
    let field = |number: usize| -> Result<u64> {
        let field = fields.get(number - 3).and_then(|field| field.parse().ok());
        field.with_context(|| format!("no number in field {number} of \"{line}\""))
    };
    Ok(Stat {
        parent: u32::try_from(field(4)?).context("a parent with a large id")?,
        own_ticks: field(14)? + field(15)?,
        reaped_ticks: field(16)? + field(17)?,
    })
}

fn cpu_of_tree(root: u32, stats: &BTreeMap<u32, Stat>) -> Option<Cpu> {
    let root_stat = stats.get(&root)?;
    let is_under_root = |(_, stat): &(&u32, &Stat)| is_under(root, stat.parent, stats);
    let running: u64 = stats
        .iter()
        .filter(is_under_root)
        .map(|(_, stat)| stat.own_ticks + stat.reaped_ticks)
        .sum();
    let children = root_stat.reaped_ticks + running;
    Some(Cpu { own: root_stat.own_ticks as f64, children: children as f64 })
}

fn is_under(root: u32, parent: u32, stats: &BTreeMap<u32, Stat>) -> bool {
    let mut ancestor = parent;
    // No tree of processes is deeper than it has processes; ids that were reused while this read
    // could otherwise make a ring.
    for _ in 0..stats.len() {
        if ancestor == root {
            return true;
        }
        match stats.get(&ancestor) {
            Some(stat) => ancestor = stat.parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: u32, name: &str, parent: u32, times: [u64; 4]) -> String {
        let [utime, stime, cutime, cstime] = times;
        format!(
            "{pid} ({name}) S {parent} 1 1 0 -1 4194560 5 6 7 8 {utime} {stime} {cutime} {cstime} \
             20 0 1 0 100 1000 10 18446744073709551615 0 0 0"
        )
    }

    #[test]
    fn a_name_may_hold_anything() {
        for name in ["sh", "my worker", "a) S 1 (b", "", "\u{fffd}"] {
            let stat = parse_stat(&line(7, name, 3, [1, 2, 30, 40])).expect("is a line");
            assert_eq!(stat, Stat { parent: 3, own_ticks: 3, reaped_ticks: 70 }, "{name}");
        }
    }

    #[test]
    fn a_broken_line_is_an_error() {
        for line in ["", "7 sh S 1", "7 (sh) S 1 2 3", "7 (sh) S x 1 1 0 -1 0 5 6 7 8 1 2 3 4"] {
            assert!(parse_stat(line).is_err(), "{line}");
        }
    }

    #[test]
    fn descendants_are_counted_and_strangers_are_not() {
        let stat = |parent, own_ticks, reaped_ticks| Stat { parent, own_ticks, reaped_ticks };
        let stats = BTreeMap::from([
            (1, stat(0, 1000, 1000)),
            (10, stat(1, 5, 7)),
            (11, stat(10, 20, 0)),
            (12, stat(11, 300, 400)),
            (13, stat(1, 9000, 0)),
        ]);
        let cpu = cpu_of_tree(10, &stats).expect("is there");
        assert_eq!(cpu, Cpu { own: 5.0, children: 727.0 });
        assert_eq!(cpu_of_tree(99, &stats), None);
    }

    #[test]
    fn a_ring_of_parents_ends() {
        let stat = |parent| Stat { parent, own_ticks: 1, reaped_ticks: 0 };
        let stats = BTreeMap::from([(1, stat(0)), (2, stat(3)), (3, stat(2))]);
        assert_eq!(cpu_of_tree(1, &stats), Some(Cpu { own: 1.0, children: 0.0 }));
    }

    #[test]
    fn memory_is_in_kib() {
        let status = "Name:\tVmHWM: 9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t   512 kB\n";
        assert_eq!(memory_kib(status, "VmHWM").expect("is there"), 2048);
        assert_eq!(memory_kib(status, "VmRSS").expect("is there"), 512);
        assert!(memory_kib(status, "VmSwap").is_err());
        assert!(memory_kib("VmRSS:\t5 MB\n", "VmRSS").is_err());
    }

    #[test]
    fn this_process_is_in_the_account() {
        let pid = std::process::id();
        assert!(cpu(pid).expect("runs").whole() >= 0.0);
        assert!(peak_mib(pid).expect("runs") >= resident_mib(pid).expect("runs") * 0.5);
    }
}
