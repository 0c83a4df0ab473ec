//! Nothing is left behind: no process, no descriptor, no thread. A process of its own, because it
//! counts what the whole process has.
#![expect(
    clippy::disallowed_methods,
    reason = "the operating system is asked again until it agrees"
)]

#[path = "counting/own.rs"]
mod counting;

use counting::{check_counting, children, descriptors};
use drakkar_api::{Executor, Task};
use drakkar_exec::{PoolSection, ProcessPool};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

const TASKS: usize = 3000;

fn threads_of_pools() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("drakkar-")).count()
}

fn eventually_zero(what: &str, mut count: impl FnMut() -> usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while count() > 0 {
        assert!(Instant::now() < deadline, "{what} are left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn thousands_of_tasks_leave_nothing_behind() {
    check_counting();

    // Found, and executable, but what is to run it is not there: the kernel refuses to load it.
    let folder = tempfile::tempdir().expect("a folder");
    let refused = folder.path().join("refused");
    fs::write(&refused, "#!/no/such/interpreter\n").expect("written");
    fs::set_permissions(&refused, fs::Permissions::from_mode(0o755)).expect("it is ours");

    let descriptors_before = descriptors();
    let section = PoolSection { max_executors: 4, ..PoolSection::default() };
    let pool = ProcessPool::start(section.validate().expect("valid")).expect("it starts");
    // A thread names itself as its first act.
    eventually_zero("unnamed threads", || 5 - threads_of_pools());
    let descriptors_open = descriptors();
    let tasks = |index: usize| match index % 10 {
        0 => Task::default().binary("/bin/cat").stdin("x"),
        1 => Task::default().binary("/no/such/program"),
        2 => Task::default().binary("/bin/sh").args(["-c", "sleep 1000 & echo $!"]),
        3 => Task::default().binary("sleep").arg("1000").timeout(Duration::ZERO),
        5 => Task::default().binary(&refused),
        _ => Task::default().binary("/bin/true"),
    };
    // Those that have to wait for a drain are few, so that the test is quick.
    let kind = |index: usize| {
        if index % 300 == 2 {
            2
        } else if index % 10 == 2 {
            4
        } else {
            index
        }
    };
    let running: Vec<_> = (0..TASKS).map(|index| pool.run(tasks(kind(index)))).collect();
    let ended = running.into_iter().map(drakkar_exec::Running::wait).count();
    assert_eq!(ended, TASKS);
    // No grace was needed anywhere: all children are reaped by the time their end is told.
    assert_eq!(children(), Vec::<String>::new());
    assert_eq!(descriptors(), descriptors_open);
    assert_eq!(pool.slots().waiting, 0);

    drop(pool);
    // The reaper's thread is not joined, so it and what it holds may take a moment.
    eventually_zero("threads", threads_of_pools);
    eventually_zero("descriptors", || descriptors().saturating_sub(descriptors_before));
}
