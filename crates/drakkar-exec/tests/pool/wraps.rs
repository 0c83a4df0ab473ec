//! What starts every task's program: a wrap of the user's, or the tools that set limits.

use crate::support::{assert_outcome, is_alive, pool, sh};
use drakkar_api::{Execution, SpawnErrorKind, Task, TaskOutcome};
use drakkar_exec::{
    DeathSignal, LimitsSection, PoolError, PoolErrorKind, PoolSection, ProcessPool,
};
use std::time::Duration;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Starts a pool whose limits are these.
fn limited(change: impl FnOnce(&mut LimitsSection)) -> ProcessPool {
    pool(|section| change(&mut section.limits))
}

fn start(section: PoolSection) -> Result<ProcessPool, PoolError> {
    ProcessPool::start(section.validate().expect("the settings are valid"))
}

/// The row of a limit in the table of a process's limits.
fn row<'a>(table: &'a str, name: &str) -> &'a str {
    let row = table.lines().find_map(|line| line.strip_prefix(name));
    row.unwrap_or_else(|| panic!("no {name:?} in {table}")).trim()
}

#[test]
fn a_wrap_starts_the_program_with_its_own_arguments_first() {
    let pool = pool(|section| section.wrap = words(&["env", "WRAPPED=a b"]));
    let task = sh(r#"printf '<%s>' "$WRAPPED" "$@"; cat; exit 7"#).args(["zero", "one two"]);
    let execution = pool.run(task.stdin("in")).wait();
    assert_outcome(&execution, &TaskOutcome::ExitCode(7));
    assert_eq!(execution.stdout.text(), "<a b><one two>in");
}

#[test]
fn the_process_that_a_wrap_becomes_is_the_one_that_is_watched() {
    let pool = pool(|section| {
        section.wrap = words(&["nice", "-n", "3"]);
        section.kill_grace_seconds = 0.0;
    });
    let limit = Duration::from_millis(500);
    let execution = pool.run(sh("echo $$; nice; exec sleep 1000").timeout(limit)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit });
    let pid = execution.pid.expect("a process ran");
    assert_eq!(execution.stdout.text(), format!("{pid}\n3\n"));
    assert!(execution.usage.is_some() && !is_alive(pid), "{execution:?}");
}

#[test]
fn a_wrap_is_checked_at_start() {
    let check = |program: &str, kind| {
        let section = PoolSection { wrap: words(&[program, "-n"]), ..PoolSection::default() };
        let error = start(section).expect_err("it cannot start");
        assert_eq!(error.kind(), kind);
        let text = error.to_string();
        assert!(text.starts_with(&format!("executor.wrap \"{program}\": ")), "{text}");
    };
    check("/no/such/program", PoolErrorKind::WrapNotFound);
    check("no-such-program", PoolErrorKind::WrapNotFound);
    check("/etc/passwd", PoolErrorKind::WrapNotExecutable);
}

#[test]
fn every_limit_reaches_the_program() {
    let pool = limited(|limits| {
        *limits = LimitsSection {
            address_space_bytes: Some(1 << 31),
            data_bytes: Some(1 << 30),
            cpu_seconds: Some(77),
            open_files: Some(78),
            file_size_bytes: Some(79),
            processes: Some(8000),
            core_size_bytes: Some(81),
            parent_death_signal: Some(DeathSignal::Kill),
        };
    });
    let task = Task::default().binary("cat").arg("/proc/self/limits");
    let execution = pool.run(task).wait();
    assert_outcome(&execution, &TaskOutcome::Success);
    let table = execution.stdout.text();
    for (name, values) in [
        ("Max address space", ["2147483648", "2147483648"]),
        ("Max data size", ["1073741824", "1073741824"]),
        ("Max cpu time", ["77", "78"]),
        ("Max open files", ["78", "78"]),
        ("Max file size", ["79", "79"]),
        ("Max processes", ["8000", "8000"]),
        ("Max core file size", ["81", "81"]),
    ] {
        let found: Vec<_> = row(&table, name).split_whitespace().take(2).collect();
        assert_eq!(found, values, "{name}");
    }
    // The program is asked, because the kernel shows a death signal to nobody else.
    let dump = Task::default().binary("setpriv").arg("--dump");
    let dump = pool.run(dump).wait();
    assert!(row(&dump.stdout.text(), "Parent death signal:").contains("KILL"), "{dump:?}");
}

#[test]
fn the_limit_of_processes_binds_a_user_who_is_not_root() {
    let end = |processes: u64| {
        let pool = limited(|limits| limits.processes = Some(processes));
        let script = "(exit 0); echo forked";
        // The kernel does not bind root, so root's program gives its rights up first, to a user who
        // has no other process.
        let task = match rustix::process::geteuid().is_root() {
            true => Task::default()
                .binary("setpriv")
                .args(["--reuid=64321", "--regid=64321", "--clear-groups"])
                .args(["sh", "-c", script]),
            false => sh(script),
        };
        pool.run(task).wait()
    };
    let bound = end(1);
    assert_outcome(&bound, &TaskOutcome::ExitCode(2));
    assert!(bound.stderr.text().contains("fork") && bound.stdout.bytes.is_empty(), "{bound:?}");
    let free = end(20_000);
    assert_outcome(&free, &TaskOutcome::Success);
    assert_eq!(free.stdout.text(), "forked\n");
}

#[test]
fn a_limit_that_is_hit_is_told_from_other_endings() {
    let end = |change: fn(&mut LimitsSection), script: &str| -> Execution {
        limited(change).run(sh(script)).wait()
    };
    const SIGXCPU: i32 = 24;
    const SIGXFSZ: i32 = 25;
    let execution = end(|limits| limits.cpu_seconds = Some(1), "while :; do :; done");
    assert_outcome(&execution, &TaskOutcome::Signal(SIGXCPU));
    let usage = execution.usage.expect("a process ran");
    // The limit is counted in ticks, the account is not.
    assert!(usage.user + usage.system >= Duration::from_millis(500), "{usage:?}");

    let home = tempfile::tempdir().expect("a folder can be made");
    let file = home.path().join("file");
    let script = format!("exec head -c 100000 /dev/zero > {}", file.display());
    let execution = end(|limits| limits.file_size_bytes = Some(4096), &script);
    assert_outcome(&execution, &TaskOutcome::Signal(SIGXFSZ));
    assert_eq!(std::fs::metadata(file).expect("it was made").len(), 4096);

    let fails = |change: fn(&mut LimitsSection), script: &str, why: &str| {
        let execution = end(change, script);
        assert_outcome(&execution, &TaskOutcome::ExitCode(1));
        assert!(execution.stderr.text().contains(why), "{execution:?}");
    };
    let large = "exec dd if=/dev/zero of=/dev/null bs=600M count=1";
    fails(|limits| limits.address_space_bytes = Some(200 << 20), large, "memory");
    fails(|limits| limits.data_bytes = Some(200 << 20), large, "memory");
    let many = "exec paste /etc/passwd /etc/passwd /etc/passwd /etc/passwd /etc/passwd \
                /etc/passwd /etc/passwd /etc/passwd /etc/passwd /etc/passwd";
    fails(|limits| limits.open_files = Some(8), many, "open files");
    // Each is the limit's doing.
    for script in [large, many] {
        assert_outcome(&pool(|_| {}).run(sh(script)).wait(), &TaskOutcome::Success);
    }
}

/// A tool that fails to start a program has exit codes of its own, which would look like the
/// program's.
#[test]
fn what_cannot_be_started_with_limits_says_why() {
    let pool = limited(|limits| limits.core_size_bytes = Some(0));
    let check = |program: &str, expect| {
        let execution = pool.run(Task::default().binary(program)).wait();
        match &execution.outcome {
            TaskOutcome::SpawnFailure { kind, reason } => {
                assert_eq!(*kind, expect, "{reason}");
                assert!(reason.contains(program), "{reason}");
            }
            other => panic!("not a spawn failure: {other:?}"),
        }
    };
    check("/no/such/program", SpawnErrorKind::NotFound);
    check("no-such-program", SpawnErrorKind::NotFound);
    check("/etc/passwd", SpawnErrorKind::PermissionDenied);
    let nul = pool.run(sh("true").arg("a\0b")).wait();
    let kind = SpawnErrorKind::InvalidArgument;
    assert!(
        matches!(nul.outcome, TaskOutcome::SpawnFailure { kind: k, .. } if k == kind),
        "{nul:?}"
    );
}

#[test]
fn limits_that_no_program_runs_with_are_refused_at_start() {
    let check = |limits: LimitsSection, part: &str| {
        let section = PoolSection { limits, ..PoolSection::default() };
        let error = start(section).expect_err("it cannot start");
        assert_eq!(error.kind(), PoolErrorKind::LimitsUnusable, "{error}");
        assert!(error.to_string().starts_with("executor.limits: no program runs"), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    // More than the kernel allows anybody.
    let open_files = Some(i32::MAX as u64);
    check(LimitsSection { open_files, ..LimitsSection::default() }, "not permitted");
    // Not enough for any program's own code.
    let address_space_bytes = Some(1 << 20);
    check(LimitsSection { address_space_bytes, ..LimitsSection::default() }, "");
}
