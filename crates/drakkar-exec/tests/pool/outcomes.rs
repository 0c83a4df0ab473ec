//! How tasks end, and what is known of them then.

use crate::support::{PATIENCE, assert_outcome, eventually, is_alive, pids, pool, run_sh, sh};
use drakkar_api::{Execution, SpawnErrorKind, Task, TaskOutcome};
use drakkar_exec::{OverLimitPolicy, PoolConfig, PoolErrorKind, PoolSection, ProcessPool};
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn a_success_has_its_output() {
    let execution = run_sh("echo out; echo err >&2");
    assert_outcome(&execution, &TaskOutcome::Success);
    assert_eq!(
        (execution.stdout.text(), execution.stderr.text()),
        ("out\n".into(), "err\n".into())
    );
    assert!(!execution.leftovers_killed && !execution.precomputed);
    assert!(execution.pid.is_some() && execution.spawn > Duration::ZERO);
    assert!(execution.duration >= execution.spawn);
}

#[test]
fn an_exit_code_is_told() {
    let execution = run_sh("echo why >&2; exit 7");
    assert_outcome(&execution, &TaskOutcome::ExitCode(7));
    assert_eq!(execution.stderr.text(), "why\n");
}

#[test]
fn a_death_by_signal_is_told() {
    assert_outcome(&run_sh("kill -9 $$"), &TaskOutcome::Signal(9));
    assert_outcome(&run_sh("kill -15 $$"), &TaskOutcome::Signal(15));
}

#[test]
fn output_beyond_the_limit_is_counted_and_dropped() {
    let pool = pool(|section| {
        section.stdout_bytes_max = 1_000_000;
        section.stderr_bytes_max = 100;
    });
    for _ in 0..2 {
        let flood = "head -c 3000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait";
        let execution = pool.run(sh(flood)).wait();
        assert_outcome(&execution, &TaskOutcome::Success);
        let sizes = |captured: &drakkar_api::Captured| (captured.bytes.len(), captured.total_bytes);
        assert_eq!(sizes(&execution.stdout), (1_000_000, 3_000_000));
        assert_eq!(sizes(&execution.stderr), (100, 2_000_000));
        assert!(execution.stdout.is_truncated() && execution.stderr.is_truncated());
    }
    let execution = pool.run(sh("echo short")).wait();
    assert_eq!(execution.stdout.text(), "short\n");
    assert!(!execution.stdout.is_truncated());
}

#[test]
fn output_beyond_the_limit_fails_the_task_if_so_set() {
    let pool = pool(|section| {
        section.output_over_limit = OverLimitPolicy::Fail;
        section.stdout_bytes_max = 1000;
        section.stderr_bytes_max = 10;
    });
    let check = |script: &str, limit_bytes: u64| {
        let execution = pool.run(sh(script)).wait();
        assert_outcome(&execution, &TaskOutcome::OutputOverLimit { limit_bytes });
        assert!(execution.duration < PATIENCE && execution.usage.is_some(), "{execution:?}");
        assert!(execution.stdout.bytes.len() <= 1000 && execution.stderr.bytes.len() <= 10);
        execution
    };
    // Whether the program still runs when that is seen, or has ended, with whatever code.
    let flood = check("yes", 1000);
    assert!(flood.stdout.is_truncated() && flood.stdout.bytes.len() == 1000, "{flood:?}");
    check("yes | head -c 1001", 1000);
    check("yes | head -c 1001; exit 3", 1000);
    check("echo more than ten bytes >&2", 10);
    // Nobody waits for more, and nobody survives.
    for script in ["sleep 1000 & echo $!; yes | head -c 1001", "sleep 1000 & echo $!; yes"] {
        let held = check(script, 1000);
        let pid = held.stdout.text().lines().next().and_then(|line| line.parse().ok());
        let pid = pid.expect("a process id");
        eventually("the whole group is gone", || !is_alive(pid));
    }

    for (script, length) in [("yes | head -c 1000", 1000), ("printf 1234567890 >&2", 0)] {
        let execution = pool.run(sh(script)).wait();
        assert_outcome(&execution, &TaskOutcome::Success);
        assert_eq!(execution.stdout.bytes.len(), length);
    }
}

/// What a task writes while it is ended for another reason is not that reason.
#[test]
fn a_deadline_comes_before_output_beyond_the_limit() {
    let pool = pool(|section| {
        section.output_over_limit = OverLimitPolicy::Fail;
        section.stdout_bytes_max = 5;
        section.kill_grace_seconds = PATIENCE.as_secs_f64();
    });
    let limit = Duration::from_secs(2);
    let script = "trap 'echo much more; exit 0' TERM; while :; do sleep 0.01; done";
    let execution = pool.run(sh(script).timeout(limit)).wait();
    assert_outcome(&execution, &TaskOutcome::Timeout { limit });
    assert!(execution.stdout.is_truncated(), "{execution:?}");
}

#[test]
fn standard_input_arrives_whole_while_output_is_read() {
    let input: Vec<u8> = (0..8_000_000_u32).map(|index| (index % 251) as u8).collect();
    let execution = pool(|_| {}).run(sh("cat").stdin(input.clone())).wait();
    assert_outcome(&execution, &TaskOutcome::Success);
    assert!(execution.stdout.bytes == input, "{} bytes", execution.stdout.total_bytes);
}

#[test]
fn not_to_read_standard_input_is_no_error() {
    let pool = pool(|_| {});
    let large = vec![b'x'; 8_000_000];
    for script in ["exec <&-; echo fine", "echo fine", "head -c 3 >/dev/null; echo fine"] {
        for input in [&b""[..], b"short", &large] {
            let execution = pool.run(sh(script).stdin(input.to_vec())).wait();
            assert_outcome(&execution, &TaskOutcome::Success);
            assert_eq!(execution.stdout.text(), "fine\n", "{script}");
        }
    }
}

#[test]
fn an_input_that_is_closed_early_is_told() {
    let pool = pool(|_| {});
    let check = |script: &str, input: Vec<u8>, expect: bool| {
        let execution = pool.run(sh(script).stdin(input)).wait();
        assert_eq!(execution.stdin_closed_early, expect, "{script}: {execution:?}");
    };
    let large = || vec![b'x'; 8_000_000];
    check("exec <&-; sleep 0.1", large(), true);
    check("head -c 3 >/dev/null", large(), true);
    check("exit 3", large(), true);
    check("cat >/dev/null", large(), false);
    check("cat >/dev/null", b"short".to_vec(), false);
    check("true", Vec::new(), false);
    assert!(!pool.run(sh("true")).wait().stdin_closed_early);
}

/// Who is killed while it reads slowly has closed nothing.
#[test]
fn an_input_that_the_deadline_cuts_off_is_not_closed_early() {
    for grace in [0.0, 1.0] {
        let pool = pool(|section| section.kill_grace_seconds = grace);
        let limit = Duration::from_millis(200);
        let execution = pool.run(sh("sleep 100").stdin(vec![b'x'; 1 << 20]).timeout(limit)).wait();
        assert_outcome(&execution, &TaskOutcome::Timeout { limit });
        assert!(!execution.stdin_closed_early, "{execution:?}");
    }
}

#[test]
fn an_empty_standard_input_is_a_closed_pipe() {
    let execution =
        pool(|_| {}).run(sh("cat; [ -p /proc/self/fd/0 ] && echo pipe").stdin("")).wait();
    assert_eq!(execution.stdout.text(), "pipe\n");
}

#[test]
fn no_standard_input_is_dev_null() {
    let execution = run_sh("cat; [ /proc/self/fd/0 -ef /dev/null ] && echo null");
    assert_eq!(execution.stdout.text(), "null\n");
}

#[test]
fn arguments_arrive_as_they_are() {
    let task = sh(r#"printf '<%s>' "$@""#).args(["zero", "a b", "$HOME", "", "*", "é"]);
    assert_eq!(pool(|_| {}).run(task).wait().stdout.text(), "<a b><$HOME><><*><é>");
}

#[test]
fn cpu_time_is_accounted_with_that_of_waited_for_children() {
    let burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let execution = run_sh(&format!("sh -c '{burn}'; echo done"));
    let usage = execution.usage.expect("a process ran");
    assert!(usage.user + usage.system > Duration::from_millis(5), "{usage:?}");
    assert!(usage.user + usage.system < execution.duration * 2, "{usage:?}");
}

#[test]
fn peak_memory_is_the_childs_or_none() {
    let pool = pool(|section| section.measure_peak_memory = true);
    // This process's own peak is above the small child's, and below the large one's.
    let ballast = vec![1_u8; 32 << 20];
    let small = pool.run(Task::default().binary("/bin/true")).wait();
    let peak = small.usage.expect("a process ran").peak_memory_bytes;
    assert!(peak.is_none_or(|peak| peak < 16 << 20), "{peak:?}");
    let large = ["if=/dev/zero", "of=/dev/null", "bs=600M", "count=1"];
    let large = pool.run(Task::default().binary("dd").args(large)).wait();
    assert_outcome(&large, &TaskOutcome::Success);
    let peak = large.usage.expect("a process ran").peak_memory_bytes;
    assert!(peak.is_some_and(|peak| (600 << 20..700 << 20).contains(&peak)), "{peak:?}");
    drop(ballast);
}

fn spawn_failure(execution: &Execution) -> (SpawnErrorKind, &str) {
    assert_eq!((execution.pid, execution.usage), (None, None));
    match &execution.outcome {
        TaskOutcome::SpawnFailure { kind, reason } => (*kind, reason),
        other => panic!("not a spawn failure: {other:?}"),
    }
}

#[test]
fn what_cannot_be_started_says_why() {
    let pool = pool(|_| {});
    let check = |task: Task, kind, part: &str| {
        let execution = pool.run(task).wait();
        let (found, reason) = spawn_failure(&execution);
        assert_eq!(found, kind, "{reason}");
        assert!(reason.contains(part), "{reason:?} does not hold {part:?}");
        assert!(!reason.contains("hunter2"), "{reason}");
    };
    let binary = |path: &str| Task::default().binary(path);
    check(Task::default(), SpawnErrorKind::NoBinary, "executor.binary_path");
    check(binary("/no/such/program"), SpawnErrorKind::NotFound, "/no/such/program");
    check(binary("no-such-program"), SpawnErrorKind::NotFound, "no-such-program");
    check(binary("/etc/passwd/x"), SpawnErrorKind::NotFound, "/etc/passwd/x");
    check(binary("/etc/passwd"), SpawnErrorKind::PermissionDenied, "/etc/passwd");
    check(binary("/etc"), SpawnErrorKind::PermissionDenied, "/etc");
    check(sh("true").args(["a", "b\0c"]), SpawnErrorKind::InvalidArgument, "argument 4");
    check(binary("/bin/tr\0ue"), SpawnErrorKind::InvalidArgument, "");
    check(sh("").env("A", "hunter2\0"), SpawnErrorKind::InvalidArgument, "\"A\"");
    check(sh("").env("A=B", "hunter2"), SpawnErrorKind::InvalidArgument, "A=B");
    check(sh("").env("", "hunter2"), SpawnErrorKind::InvalidArgument, "empty");
    let long = "x".repeat(200_000);
    check(sh("").arg(long), SpawnErrorKind::InvalidArgument, "too long");
}

#[test]
fn a_program_that_moved_is_searched_again() {
    let home = tempfile::tempdir().expect("a folder can be made");
    let program = home.path().join("tool");
    std::os::unix::fs::symlink("/bin/true", &program).expect("a link can be made");
    let pool = pool(|_| {});
    let run = || pool.run(Task::default().binary(&program)).wait();
    assert_outcome(&run(), &TaskOutcome::Success);
    std::fs::remove_file(&program).expect("it exists");
    assert_eq!(spawn_failure(&run()).0, SpawnErrorKind::NotFound);
    std::os::unix::fs::symlink("/bin/true", &program).expect("a link can be made");
    assert_outcome(&run(), &TaskOutcome::Success);
}

#[test]
fn the_default_program_is_checked_at_start() {
    let start = |binary: &str| {
        let section = PoolSection { binary_path: Some(binary.into()), ..PoolSection::default() };
        ProcessPool::start(section.validate().expect("a path is valid"))
    };
    let check = |binary: &str, kind| {
        let error = start(binary).expect_err("it cannot start");
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(binary), "{error}");
    };
    check("/no/such/program", PoolErrorKind::BinaryNotFound);
    check("no-such-program", PoolErrorKind::BinaryNotFound);
    check("/etc/passwd", PoolErrorKind::BinaryNotExecutable);
    for binary in ["true", "/bin/true"] {
        let pool = start(binary).expect("it is there");
        assert_outcome(&pool.run(Task::default()).wait(), &TaskOutcome::Success);
    }
}

#[test]
fn a_relative_program_starts_from_the_working_directory() {
    let here = std::env::current_dir().expect("there is one");
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let task = Task::default().binary(up.join("bin/true"));
    assert_outcome(&pool(|_| {}).run(task).wait(), &TaskOutcome::Success);
}

#[test]
fn the_environment_is_inherited_filtered_and_overlaid() {
    // Cargo gives every test these variables.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some() && std::env::var_os("PATH").is_some());
    let pair =
        |name: &str, value: &str| (name.to_owned(), drakkar_api::Secret::new(value.to_owned()));
    let pool = pool(|section| {
        section.env_inherit_deny = vec!["cargo_pkg_*".to_owned()];
        section.env.extend([pair("CARGO_MANIFEST_DIR", "config"), pair("BOTH", "config")]);
        section.env.extend([pair("CARGO_PKG_ADDED", "config")]);
    });
    let task = Task::default().binary("env").env("BOTH", "task").env("TASK", "a=b");
    let output = pool.run(task).wait();
    let text = output.stdout.text();
    let has = |line: &str| text.lines().any(|candidate| candidate == line);
    assert!(text.lines().any(|line| line.starts_with("PATH=")), "{text}");
    assert!(!text.contains("CARGO_PKG_NAME"), "{text}");
    for line in ["CARGO_MANIFEST_DIR=config", "BOTH=task", "TASK=a=b", "CARGO_PKG_ADDED=config"] {
        assert!(has(line), "{line} is missing in {text}");
    }
}

#[test]
fn without_inheritance_there_is_only_what_was_given() {
    let pool = pool(|section| section.env_inherit_parent = false);
    let output = pool.run(Task::default().binary("env").env("ONLY", "this")).wait();
    assert_eq!(output.stdout.text(), "ONLY=this\n");
}

/// Rust ignores SIGPIPE for itself. A child that inherited this would not end when its reader does.
#[test]
fn children_have_default_signals_and_no_descriptor_of_ours() {
    let status = run_sh("grep -E '^Sig(Ign|Blk)' /proc/self/status");
    for line in status.stdout.text().lines() {
        let set = u64::from_str_radix(line.rsplit('\t').next().expect("a set"), 16);
        let sigpipe = 1 << 12;
        assert_eq!(set.expect("hexadecimal") & sigpipe, 0, "{line}");
    }
    assert_outcome(&run_sh("yes | head -n 1"), &TaskOutcome::Success);
    let descriptors = run_sh("for fd in /proc/$$/fd/*; do readlink $fd; done");
    assert!(!descriptors.stdout.text().contains("anon_inode"), "{descriptors:?}");
}

#[test]
fn a_precomputed_result_needs_no_program() {
    let result = drakkar_api::Precomputed { exit_code: 3, ..drakkar_api::Precomputed::stdout("x") };
    let execution = pool(|_| {}).run(Task::default().precomputed(result)).wait();
    assert_outcome(&execution, &TaskOutcome::ExitCode(3));
    assert!(execution.precomputed && execution.pid.is_none());
}

#[test]
fn a_child_leads_its_own_group() {
    let execution = run_sh("ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat");
    assert_eq!(execution.stdout.text().trim().parse().ok(), execution.pid);
}

#[test]
fn an_idle_pool_ends_when_dropped() {
    drop(ProcessPool::start(PoolConfig::default()).expect("it starts"));
}

#[test]
fn a_dropped_pool_leaves_no_child() {
    let pool = pool(|_| {});
    let running = pool.run(sh("sleep 1000 & echo $!; sleep 1000"));
    drop(pool);
    let execution = running.wait();
    assert_outcome(&execution, &TaskOutcome::Cancelled);
    for pid in pids(&execution).into_iter().chain(execution.pid) {
        eventually("the process is gone", || !is_alive(pid));
    }
}
