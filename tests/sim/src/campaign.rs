//! Many seeds on all cores, each thread with a runtime of its own.

use crate::arguments::Arguments;
use drakkar_sim::{Census, Keep, Outcome, run};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From so many seeds on, every situation must have come about.
pub(crate) const COMPLETE_FROM: u64 = 2000;

/// How often progress is told, in seeds.
const TELL_EVERY: u64 = 1000;

/// How long one seed may take, in real time. It takes milliseconds; one that does not end keeps
/// something busy without letting time pass.
const SEED_MAX: Duration = Duration::from_secs(120);

/// A run of seeds `from..from + seeds`.
pub(crate) struct Campaign {
    from: u64,
    seeds: u64,
    threads: usize,
    next: AtomicU64,
    failed: AtomicBool,
    /// The seeds that run, and since when.
    running: Mutex<BTreeMap<u64, Instant>>,
    /// Told when the last seed has ended.
    ended: Condvar,
    result: Mutex<(Census, u64, Option<Outcome>)>,
}

/// What came of it.
pub(crate) struct CampaignResult {
    pub(crate) census: Census,
    pub(crate) seeds: u64,
    pub(crate) elapsed: Duration,
    /// The failed seed with the smallest number.
    pub(crate) failure: Option<Outcome>,
}

impl Campaign {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        Self {
            from: arguments.from,
            seeds: arguments.seeds,
            threads: arguments.threads,
            next: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            running: Mutex::default(),
            ended: Condvar::new(),
            result: Mutex::default(),
        }
    }

    /// Runs the seeds in order, and stops at the first that fails: every smaller one is run to its
    /// end, so the answer is the same on any number of threads.
    pub(crate) fn run(self) -> CampaignResult {
        let began = Instant::now();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(|| self.work())).collect();
            let watch = scope.spawn(|| self.watch(&done));
            for worker in workers {
                worker.join().expect("a seed that panics is a failed one");
            }
            done.store(true, Ordering::SeqCst);
            self.ended.notify_all();
            watch.join().expect("watching does not panic");
        });
        let (census, seeds, failure) =
            self.result.into_inner().unwrap_or_else(PoisonError::into_inner);
        CampaignResult { census, seeds, elapsed: began.elapsed(), failure }
    }

    fn work(&self) {
        while !self.failed.load(Ordering::SeqCst) {
            let index = self.next.fetch_add(1, Ordering::SeqCst);
            if index >= self.seeds {
                return;
            }
            let seed = self.from + index;
            self.running().insert(seed, Instant::now());
            let outcome = run(seed, Keep::Tail);
            self.running().remove(&seed);
            self.note(outcome);
        }
    }

    /// Ends the program when a seed does not end: nothing else can stop its thread.
    fn watch(&self, done: &AtomicBool) {
        let mut running = self.running();
        while !done.load(Ordering::SeqCst) {
            let stuck = running.iter().find(|(_, since)| since.elapsed() > SEED_MAX);
            if let Some((seed, _)) = stuck {
                println!("seed {seed} does not end: the engine is busy and time stands still");
                std::process::exit(1);
            }
            let waited = self.ended.wait_timeout(running, Duration::from_secs(1));
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, outcome: Outcome) {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let (census, seeds, failure) = &mut *result;
        census.add(&outcome.census);
        *seeds += 1;
        if seeds.is_multiple_of(TELL_EVERY) {
            eprintln!("{seeds} of {} seeds", self.seeds);
        }
        let is_first = failure.as_ref().is_none_or(|known| outcome.seed < known.seed);
        if outcome.breach.is_some() {
            self.failed.store(true, Ordering::SeqCst);
            if is_first {
                *failure = Some(outcome);
            }
        }
    }
}
