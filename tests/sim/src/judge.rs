//! Looks at everything that is seen and says which promise it breaks, if any.
//!
//! The judge keeps a naive account of its own: for each assignment its messages, for each message its
//! tasks, hooks, payloads and letters, moved only by what the fakes have seen. Whatever the engine
//! does is compared with that account at the moment when it is done (safety); what it does not do is
//! found by deadlines, and by asking what is left when everything should be done (liveness).
//!
//! Where an observation leaves it open what the engine knew at that instant, the judge gives it the
//! benefit of the doubt: it forbids effects only strictly later than their reason.

mod account;
mod arranging;
mod assignment;
mod bounds;
mod delivery;
mod ending;
mod hooks;
mod ledger;
mod liveness;
mod policy;
mod rebalance;
mod runs;

use crate::census::Census;
use crate::handler::ROOMY;
use crate::journal::WorkerNumber;
use crate::promise::{Breach, Promise};
use crate::scenario::{Hooks, Scenario};
use crate::seen::{Number, Place, Seen};
use account::Account;
use assignment::{Assignment, Payload};
use delivery::Call;
use drakkar_api::{CommitOffset, Epoch, Offset};
use drakkar_core::EngineConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How much later than its deadline a thing may happen: the grain of timers, generously.
const SLACK: Duration = Duration::from_millis(20);

/// How late the engine may hear that a run has started.
const LOOK: Duration = Duration::from_millis(150);

/// The account of one world.
pub(crate) struct Judge {
    config: EngineConfig,
    hooks: Hooks,
    repeats_are_harmless: bool,
    output_bytes: usize,
    attempt_timeouts: BTreeMap<Place, Duration>,
    now: Duration,
    /// Workers that have died; nothing of them is heard any more.
    dead: BTreeSet<WorkerNumber>,
    assignments: BTreeMap<Epoch, Assignment>,
    payloads: BTreeMap<Number, Payload>,
    /// Calls of `deliver` that are open.
    calls: BTreeMap<(WorkerNumber, Place, usize), Call>,
    /// The committed position of each partition, as far as an answer said so.
    committed: BTreeMap<i32, CommitOffset>,
    /// Who had each partition last.
    last_owner: BTreeMap<i32, WorkerNumber>,
    /// What was handed over of each partition before.
    handed_over: BTreeSet<(i32, Offset)>,
    accounts: BTreeMap<WorkerNumber, Account>,
    /// Workers that a failure stops.
    stopping: BTreeSet<WorkerNumber>,
    arrange_calls: u64,
    /// When a verdict or an answer to a commit of an older assignment came in last.
    stale: Option<Duration>,
    /// When the engine last heard of the end of a run, or lost one.
    eased_at: Option<Duration>,
    /// When a message was last settled.
    settled_at: Option<Duration>,
    /// Whether bytes, payloads or tasks are bounded so that they may hold windows back.
    has_narrow_bounds: bool,
    /// When it was last looked for messages that are held for nothing.
    checked_at: Duration,
    /// What looked so then.
    suspects: BTreeSet<(Epoch, Offset)>,
    breach: Option<Breach>,
    census: Census,
}

impl Judge {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let timeouts = [
            (Place::Records, scenario.limits.attempt_timeout),
            (Place::Lines, scenario.limits.attempt_timeout),
            (Place::Letters, scenario.letter_limits.attempt_timeout),
        ];
        Self {
            config: scenario.config.clone(),
            hooks: scenario.hooks,
            repeats_are_harmless: scenario.repeats_are_harmless,
            output_bytes: scenario.output_bytes,
            attempt_timeouts: timeouts.into_iter().collect(),
            now: Duration::ZERO,
            dead: BTreeSet::new(),
            assignments: BTreeMap::new(),
            payloads: BTreeMap::new(),
            calls: BTreeMap::new(),
            committed: BTreeMap::new(),
            last_owner: BTreeMap::new(),
            handed_over: BTreeSet::new(),
            accounts: BTreeMap::new(),
            stopping: BTreeSet::new(),
            arrange_calls: 0,
            stale: None,
            eased_at: None,
            settled_at: None,
            has_narrow_bounds: scenario.config.load_bytes != EngineConfig::default().load_bytes
                || scenario.config.load_payloads != EngineConfig::default().load_payloads
                || scenario.config.window_tasks_max < ROOMY,
            checked_at: Duration::ZERO,
            suspects: BTreeSet::new(),
            breach: None,
            census: Census::default(),
        }
    }

    /// Returns whether what a worker does still counts.
    pub(crate) fn hears(&self, worker: WorkerNumber) -> bool {
        !self.dead.contains(&worker)
    }

    pub(crate) fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// Notes a broken promise; the first one counts, as others may follow from it.
    pub(crate) fn accuse(&mut self, breach: Breach) {
        self.breach.get_or_insert(breach);
    }

    fn blame(&mut self, promise: Promise, what: impl Into<String>) {
        self.accuse(Breach { promise, what: what.into() });
    }

    fn count(&mut self, situation: &'static str) {
        self.census.count(situation);
    }

    /// Takes in one more entry.
    pub(crate) fn hear(&mut self, at: Duration, worker: WorkerNumber, seen: &Seen) {
        if at > self.now {
            self.check_deadlines(at);
            self.now = at;
        }
        match seen {
            Seen::Started | Seen::Ended { .. } | Seen::ToldInFull(_) | Seen::Note(_) => {}
            Seen::ShutdownAsked => self.on_shutdown(worker),
            Seen::SourceClosed => self.on_source_closed(worker),
            Seen::Crashed => self.on_crashed(worker),
            Seen::SourceFailed => self.on_source_failed(worker),
            Seen::Assigned { epoch, partition, position } => {
                self.on_assigned(worker, *epoch, *partition, *position);
            }
            Seen::RevokeHeard { epochs } => self.on_revoke(worker, epochs),
            Seen::Drained { epochs } => self.on_drained(epochs),
            Seen::DrainTimedOut => {
                self.blame(Promise::Rb1, "the source waited in vain for the answer to a revoke");
            }
            Seen::Lost { epoch } => self.on_lost(*epoch),
            Seen::Flow { open } => {
                if !open {
                    self.count("flows closed");
                }
            }
            Seen::Repeated { .. } => self.count("repeats of the source"),
            Seen::HandedOver { epoch, messages } => self.on_handed_over(worker, *epoch, messages),
            Seen::Settled { epoch, offset, how } => self.on_settled(*epoch, *offset, *how),
            Seen::CommitAsked { epoch, offset } => self.on_commit_asked(*epoch, *offset),
            Seen::CommitAnswered { epoch, result } => self.on_commit_answered(*epoch, result),
            Seen::Taken { epoch, offset } => self.on_taken(*epoch, *offset),
            Seen::Unparsed { epoch, offset } => self.on_unparsed(*epoch, *offset),
            Seen::TakingFailed { epoch, hook, .. } => {
                self.on_taking_failed(*epoch, *hook);
            }
            Seen::ArrangeCalled { epoch, window, offsets } => {
                self.on_arrange_called(*epoch, *window, offsets);
            }
            Seen::ArrangeAnswered { epoch, window, offsets, answer } => {
                self.on_arrange_answered(*epoch, *window, offsets, answer);
            }
            Seen::PriorityFailed { epoch, task } => self.on_priority_failed(*epoch, *task),
            Seen::HookCalled { epoch, about } => self.on_hook_called(*epoch, about),
            Seen::HookAnswered { epoch, about, answer } => {
                self.on_hook_answered(*epoch, about, answer);
            }
            Seen::HookMissing { epoch, hook } => self.on_hook_missing(*epoch, *hook),
            Seen::Submitted { epoch, task } => self.on_submitted(*epoch, *task),
            Seen::RunStarted { epoch, task } => self.on_run_started(*epoch, *task),
            Seen::RunEnded { epoch, task, outcome } => self.on_run_ended(*epoch, *task, outcome),
            Seen::RunReported { epoch, task, outcome } => {
                self.on_run_reported(*epoch, *task, outcome);
            }
            Seen::Killed { epoch } => self.on_killed(*epoch),
            Seen::Cancelled { epoch, waiting } => self.on_cancelled(*epoch, *waiting),
            Seen::Offered { sink, call, items } => self.on_offered(worker, *sink, *call, items),
            Seen::Applied { items, .. } => self.on_applied(items),
            Seen::DeliveryEnded { sink, call, verdicts } => {
                self.on_delivery_ended(worker, *sink, *call, verdicts.as_deref());
            }
            Seen::Told(told) => self.on_told(worker, told),
        }
    }

    /// Looks for what should have happened before `at` and has not.
    fn check_deadlines(&mut self, at: Duration) {
        self.check_calls(at);
        self.check_ended(at);
        self.check_commits_come(at);
        self.check_stalls_are_told(at);
        self.check_stalled_tasks_are_killed(at);
        self.check_stops_come(at);
        self.check_nothing_is_held(at);
        self.check_work_goes_on();
        self.note_loads();
    }

    /// Returns whether an assignment ended before this instant.
    fn is_over(&self, epoch: Epoch) -> bool {
        let end = self.assignments.get(&epoch).and_then(|assignment| assignment.end);
        end.is_some_and(|end| end.at < self.now)
    }
}
