//! The pool against a bare loop of `Command` on as many threads: tasks per second, and the CPU time
//! of this process and of its children per task.
//!
//! `cargo bench -p drakkar-exec [-- ROUNDS]`. The two take turns inside one run, because on a busy
//! machine only figures of the same moment compare. A ratio above 1 means that the pool is better.
#![expect(clippy::disallowed_methods, reason = "the bare loop that the pool is compared with")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use drakkar_api::{Epoch, Execution, Executor, Priority, Run, RunId, RunListener, Task};
use drakkar_exec::{PoolSection, ProcessPool};
use rustix::time::{ClockId, clock_gettime};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SLOTS: usize = 4;
const TASKS: u64 = 1000;

fn main() {
    let rounds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(7);
    let section = PoolSection { max_executors: SLOTS, ..PoolSection::default() };
    let pool = ProcessPool::start(section.validate().expect("valid")).expect("it starts");
    println!("{SLOTS} slots, {TASKS} tasks a round, {rounds} rounds, medians");
    let input = vec![b'x'; 200];
    for (name, program, stdin) in [("true", "/bin/true", None), ("cat", "/bin/cat", Some(&input))] {
        let task = Task::default().binary(program);
        let task = Arc::new(match stdin {
            Some(bytes) => task.stdin(bytes.clone()),
            None => task,
        });
        let mut bare = Vec::new();
        let mut pooled = Vec::new();
        for round in 0..=rounds {
            let figures = [
                measure(|| run_bare(program, stdin.map(Vec::as_slice))),
                measure(|| run_pooled(&pool, &task)),
            ];
            // The first round warms up.
            if round > 0 {
                bare.push(figures[0]);
                pooled.push(figures[1]);
            }
        }
        report(name, &bare, &pooled);
    }
}

/// One round.
#[derive(Clone, Copy)]
struct Figures {
    wall: Duration,
    own: Duration,
    children: Duration,
}

fn measure(work: impl FnOnce()) -> Figures {
    let (own, children, start) = (own_cpu(), children_cpu(), Instant::now());
    work();
    let wall = start.elapsed();
    Figures { wall, own: own_cpu() - own, children: children_cpu() - children }
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("it is positive")
}

/// The CPU time of all reaped children, in ticks of 10 ms.
fn children_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
    let ticks: u64 =
        fields.skip(13).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(10 * ticks)
}

fn run_bare(program: &str, stdin: Option<&[u8]>) {
    let left = AtomicU64::new(TASKS);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    std::thread::scope(|scope| {
        for _ in 0..SLOTS {
            scope.spawn(|| {
                while take().is_ok() {
                    run_one(program, stdin);
                }
            });
        }
    });
}

fn run_one(program: &str, stdin: Option<&[u8]>) {
    let input = if stdin.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(program)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin) {
        pipe.write_all(bytes).expect("it reads");
    }
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout.len() == stdin.map_or(0, <[u8]>::len));
}

fn run_pooled(pool: &ProcessPool, task: &Arc<Task>) {
    let countdown = Arc::new(Countdown { left: Mutex::new(TASKS), zero: Condvar::new() });
    for id in 0..TASKS {
        pool.submit(Run {
            owner: Epoch::new(id % 16),
            id: RunId::new(id),
            task: Arc::clone(task),
            priority: Priority::default(),
            listener: Arc::<Countdown>::clone(&countdown),
        });
    }
    let left = countdown.left.lock().expect("no panic");
    drop(countdown.zero.wait_while(left, |left| *left > 0).expect("no panic"));
}

struct Countdown {
    left: Mutex<u64>,
    zero: Condvar,
}

impl RunListener for Countdown {
    fn started(&self, _id: RunId, _slot: usize, _queue_wait: Duration) {}

    fn finished(&self, _id: RunId, execution: Execution) {
        assert!(execution.outcome.is_success(), "{execution:?}");
        let mut left = self.left.lock().expect("no panic");
        *left -= 1;
        if *left == 0 {
            self.zero.notify_one();
        }
    }
}

fn report(name: &str, bare: &[Figures], pooled: &[Figures]) {
    let show = |who: &str, figures: &[Figures]| {
        let micros = |pick: fn(&Figures) -> Duration| per_task(median(figures, pick)) * 1e6;
        println!(
            "{name:5} {who:5} {:7.0} tasks/s {:7.1} us own CPU {:7.1} us children's CPU a task",
            1.0 / per_task(median(figures, |f| f.wall)),
            micros(|f| f.own),
            micros(|f| f.children),
        );
    };
    show("bare", bare);
    show("pool", pooled);
    let ratio = |pick: fn(&Figures) -> Duration| {
        median(bare, pick).as_secs_f64() / median(pooled, pick).as_secs_f64()
    };
    println!(
        "{name:5} ratio {:7.3} wall    {:7.3} own CPU    {:7.3} CPU in all",
        ratio(|f| f.wall),
        ratio(|f| f.own),
        ratio(|f| f.own + f.children),
    );
}

fn median(figures: &[Figures], pick: fn(&Figures) -> Duration) -> Duration {
    let mut values: Vec<_> = figures.iter().map(pick).collect();
    values.sort();
    values[values.len() / 2]
}

fn per_task(time: Duration) -> f64 {
    time.as_secs_f64() / TASKS as f64
}
