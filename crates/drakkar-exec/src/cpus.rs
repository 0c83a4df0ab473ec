//! The CPUs that this process may use, which are often fewer than the machine has.
//!
//! Two things take CPUs away: the affinity mask, and the CPU quota of the control groups that the
//! process is in, which is how containers are limited. The quota of every group up to the top
//! counts, because each bounds all that is in it.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

/// The CPUs that this process may use.
///
/// For sizing a pool by the machine it runs on:
///
/// ```
/// use drakkar_exec::{Cpus, PoolSection};
///
/// let cpus = Cpus::available();
/// let section = PoolSection { max_executors: cpus.count(), ..PoolSection::default() };
/// assert!(section.max_executors >= 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cpus {
    /// The CPUs of the affinity mask.
    pub affinity: usize,
    /// How many CPUs' worth of time the control groups allow, such as 1.5; `None` if they set no
    /// quota.
    pub quota: Option<f64>,
}

impl Cpus {
    /// Asks the kernel. What it does not tell limits nothing.
    pub fn available() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let table = |name: &str| read(&Path::new("/proc/self").join(name)).unwrap_or_default();
        let groups = groups(&table("mountinfo"), &table("cgroup"));
        let quotas = groups.iter().filter_map(|group| group.quota(read));
        Self { affinity: affinity(), quota: quotas.reduce(f64::min) }
    }

    /// Returns how many tasks can compute at once: whole CPUs, of which a part counts as one.
    pub fn count(&self) -> usize {
        // A float becomes the nearest whole number that there is.
        let quota = self.quota.map_or(usize::MAX, |quota| quota.ceil() as usize);
        self.affinity.min(quota).max(1)
    }
}

fn affinity() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(mask) => mask.count() as usize,
        // The mask has no room for more than 1,024 CPUs. The standard library's has, and takes the
        // quota into account as well, which does no harm.
        Err(_) => thread::available_parallelism().map_or(1, NonZeroUsize::get),
    }
}

/// The control groups that this process is in, in one hierarchy: where their files are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Groups {
    version: Version,
    /// Where the hierarchy is mounted.
    top: PathBuf,
    /// Our own group's folder, at or below the top.
    own: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// One hierarchy for each controller or few: quota and period have a file each.
    One,
    /// One hierarchy for all: quota and period are in `cpu.max`.
    Two,
}

impl Groups {
    /// Returns the least quota of our group and those above it, in CPUs.
    fn quota(&self, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
        let above = self.own.ancestors().take_while(|folder| folder.starts_with(&self.top));
        let quotas = above.filter_map(|folder| {
            let file = |name: &str| read(&folder.join(name));
            match self.version {
                Version::One => ratio(&file("cpu.cfs_quota_us")?, &file("cpu.cfs_period_us")?),
                Version::Two => {
                    let max = file("cpu.max")?;
                    let (quota, period) = max.trim().split_once(' ')?;
                    ratio(quota, period)
                }
            }
        });
        quotas.reduce(f64::min)
    }
}

/// Divides a quota by its period. No quota is written as `max` or -1.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number > 0);
    Some(f64::from(number(quota)?) / f64::from(number(period)?))
}

/// Finds our control groups that can have a CPU quota, from `/proc/self/mountinfo` and
/// `/proc/self/cgroup`.
fn groups(mountinfo: &str, cgroup: &str) -> Vec<Groups> {
    let mounts = mountinfo.lines().filter_map(Mount::parse);
    mounts.filter_map(|mount| mount.groups(cgroup)).collect()
}

/// A hierarchy of control groups that is mounted.
struct Mount {
    version: Version,
    /// The group that is mounted; above the top, for a container, is nothing to be seen.
    root: PathBuf,
    top: PathBuf,
}

impl Mount {
    /// Reads a line such as `32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu`.
    /// `None` for what has no CPU quotas.
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3).map(unescaped);
        let (root, top) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let version = match (kind.next()?, kind.nth(1)?) {
            ("cgroup2", _) => Version::Two,
            ("cgroup", options) if options.split(',').any(|option| option == "cpu") => Version::One,
            _ => return None,
        };
        Some(Self { version, root, top })
    }

    /// Finds our group in this hierarchy. One that lies outside of what is mounted is out of sight,
    /// so the top is taken for it: its quota binds us in any case.
    fn groups(self, cgroup: &str) -> Option<Groups> {
        let path = cgroup.lines().find_map(|line| path_in(line, self.version))?;
        let below = path.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let is_inside = below.components().all(|part| part != std::path::Component::ParentDir);
        let own = if is_inside { self.top.join(below) } else { self.top.clone() };
        Some(Groups { version: self.version, top: self.top, own })
    }
}

/// Reads a line such as `1:cpu,cpuacct:/jobs` or `0::/jobs`, if it is of that version.
fn path_in(line: &str, version: Version) -> Option<&Path> {
    let (hierarchy, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let is_it = match version {
        Version::One => controllers.split(',').any(|controller| controller == "cpu"),
        Version::Two => hierarchy == "0" && controllers.is_empty(),
    };
    is_it.then_some(Path::new(path))
}

/// Puts back the characters that would break a line of the table into more fields.
fn unescaped(field: &str) -> PathBuf {
    let characters = [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", r"\")];
    let plain = characters
        .iter()
        .fold(field.to_owned(), |text, (code, character)| text.replace(code, character));
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_TWO: &str = "24 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";

    /// The quota that a process finds: `files` are the control files that there are.
    fn quota(mountinfo: &str, cgroup: &str, files: &[(&str, &str)]) -> Option<f64> {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        let groups = groups(mountinfo, cgroup);
        groups.iter().filter_map(|group| group.quota(read)).reduce(f64::min)
    }

    #[test]
    fn the_least_quota_up_to_the_top_counts() {
        let check = |files: &[(&str, &str)], expect| {
            assert_eq!(quota(VERSION_TWO, "0::/a/b\n", files), expect, "{files:?}");
        };
        check(&[], None);
        check(&[("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n")], None);
        check(&[("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n")], Some(1.5));
        check(&[("/sys/fs/cgroup/a/cpu.max", "50000 100000\n")], Some(0.5));
        check(&[("/sys/fs/cgroup/cpu.max", "400000 100000\n")], Some(4.0));
        check(
            &[
                ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
                ("/sys/fs/cgroup/a/cpu.max", "200000 100000\n"),
                ("/sys/fs/cgroup/cpu.max", "300000 100000\n"),
            ],
            Some(2.0),
        );
        // Above the top and beside our own are others' files.
        check(&[("/sys/fs/cpu.max", "1 100000"), ("/sys/fs/cgroup/a/c/cpu.max", "1 100000")], None);
    }

    #[test]
    fn version_one_has_a_hierarchy_for_the_controller() {
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                         33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n\
                         32 31 0:29 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n";
        let cgroup = "2:cpuacct:/other\n1:cpu:/jobs/one\n0::/unified\n";
        let check = |quota_us: &str, expect| {
            let files = [
                ("/sys/fs/cgroup/cpu/jobs/one/cpu.cfs_quota_us", quota_us),
                ("/sys/fs/cgroup/cpu/jobs/one/cpu.cfs_period_us", "100000\n"),
                ("/sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "800000\n"),
                ("/sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "200000\n"),
            ];
            assert_eq!(quota(mountinfo, cgroup, &files), expect);
        };
        check("250000\n", Some(2.5));
        check("-1\n", Some(4.0));
        check("0\n", Some(4.0));
        check("nonsense", Some(4.0));
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_top() {
        let max = [("/sys/fs/cgroup/cpu.max", "100000 100000")];
        // Its own name space, and the host's.
        assert_eq!(quota(VERSION_TWO, "0::/\n", &max), Some(1.0));
        let bound = "24 1 0:22 /docker/4f /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        assert_eq!(quota(bound, "0::/docker/4f\n", &max), Some(1.0));
        // A group that is not mounted here.
        assert_eq!(quota(bound, "0::/elsewhere\n", &max), Some(1.0));
        assert_eq!(quota(VERSION_TWO, "0::/../sibling\n", &max), Some(1.0));
    }

    #[test]
    fn odd_names_and_lines_do_no_harm() {
        let mountinfo = "nonsense\n\n24 1 0:22 / /odd\\040\\134name rw - cgroup2 cgroup2 rw\n";
        let files = [("/odd \\name/a/cpu.max", "100000 100000")];
        assert_eq!(quota(mountinfo, "nonsense\n\n0::/a\n", &files), Some(1.0));
        assert_eq!(quota("", "", &files), None);
        assert_eq!(quota(mountinfo, "0::/a", &[("/odd \\name/a/cpu.max", "1")]), None);
        assert_eq!(quota(mountinfo, "0::/a", &[("/odd \\name/a/cpu.max", "5 0")]), None);
    }

    #[test]
    fn the_count_is_whole_and_at_least_one() {
        let check = |affinity, quota, expect| {
            assert_eq!(Cpus { affinity, quota }.count(), expect);
        };
        check(8, None, 8);
        check(8, Some(1.5), 2);
        check(8, Some(0.1), 1);
        check(2, Some(16.0), 2);
        check(0, None, 1);
        check(2, Some(f64::INFINITY), 2);
    }

    #[test]
    fn the_affinity_is_that_of_the_mask() {
        let status = fs::read_to_string("/proc/thread-self/status").expect("Linux");
        let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"));
        let mask = mask.expect("the kernel tells").trim().replace(',', "");
        let bits: u32 =
            mask.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum();
        assert_eq!(Cpus::available().affinity, bits as usize);
        assert!(Cpus::available().count() >= 1);
    }
}
