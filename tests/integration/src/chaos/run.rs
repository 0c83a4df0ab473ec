//! One run: start everything, do what the schedule says, mend everything, read back, judge.

use std::collections::VecDeque;
use std::env;
use std::io::{Write as _, stderr, stdout};
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use super::Arguments;
use super::copies;
use super::crew::{self, Crew, End, Orders};
use super::fault::{Fault, Kind};
use super::judge::{Record, judge};
use super::losses;
use super::plan::{self, FANOUT};
use super::proxy::{Proxy, Way};
use super::schedule::{Planned, counts, schedule};
use crate::producer::Producer;
use crate::{Broker, Feed, Pipeline, commit_log};

/// How many messages are produced each second: a load that the workers can bear with one of them
/// away.
const MESSAGES_PER_SECOND: u64 = 50;

/// From the end of the faults to everything being committed.
const DRAIN: Duration = Duration::from_secs(180);

/// How long after an outage a worker may still give up that was started in it.
const AFTER_OUTAGE_MS: i64 = 15_000;

const TICK: Duration = Duration::from_millis(20);

/// Makes a run and prints its verdict; says whether it was good.
///
/// # Errors
///
/// There is no verdict: something is missing, or what was recorded cannot be read.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let mut out = stdout();
    writeln!(
        out,
        "chaos: seed {}, {} minutes, {} workers, group protocol {}, sabotage {}",
        arguments.seed,
        arguments.minutes,
        arguments.workers,
        arguments.protocol,
        arguments.sabotage
    )?;
    let mut pipeline = Pipeline::new(FANOUT)?;
    let names: Vec<_> = (0..arguments.workers).map(crew::name).collect();
    let listen = address("DRAKKAR_CHAOS_PROXY")?;
    let proxy = Proxy::start(listen, address("DRAKKAR_CHAOS_BROKER")?, names)?;
    let orders = Orders::new(&pipeline, proxy.address(), arguments)?;
    let mut record = disturb(arguments, &pipeline, &proxy, &orders)?;
    record.failed_children = orders.marks()?;
    losses::note(&mut record.faults, pipeline.logs.path())?;
    read_back(&mut pipeline, &mut record)?;
    let verdict = judge(&record);
    writeln!(out, "{verdict}")?;
    if !verdict.is_good() {
        let logs = pipeline.keep_logs();
        writeln!(out, "seed {}; the logs of the workers are in {}", record.seed, logs.display())?;
    }
    Ok(verdict.is_good())
}

/// Everything up to the end of the last worker.
fn disturb(
    arguments: &Arguments,
    pipeline: &Pipeline,
    proxy: &Proxy,
    orders: &Orders,
) -> Result<Record> {
    let seed = arguments.seed;
    let mut crew = Crew::new(pipeline, orders.clone(), arguments.workers);
    for slot in 0..arguments.workers {
        crew.start(slot)?;
    }
    crew.wait_until_ready()?;
    let values = Box::new(move |n| plan::value(seed, n));
    let producer = Producer::with_values(pipeline.broker(), &pipeline.source, values)?;
    let feed = Feed::steady(producer, FANOUT, MESSAGES_PER_SECOND)?;
    let planned = schedule(seed, arguments.length(), arguments.workers);
    let mut record = Record { seed, planned: counts(&planned), ..Record::default() };
    let mut scene = Scene {
        begun: Instant::now(),
        broker: pipeline.broker().clone(),
        proxy,
        crew: &mut crew,
        under_way: Vec::new(),
        broker_fault: None,
        faults: Vec::new(),
        refused_starts: 0,
    };
    let played = scene.play(planned, arguments.length());
    record.faults = std::mem::take(&mut scene.faults);
    record.refused_starts = scene.refused_starts;
    // Whatever happened, what was recorded up to then is judged.
    note(&mut record, "the faults", played);
    let load = feed.stop()?;
    record.messages = load.messages;
    let settled = mend(proxy, &mut crew, arguments.workers)
        .and_then(|()| pipeline.wait_until_committed(load, DRAIN))
        .and_then(|()| crew.terminate_all());
    note(&mut record, "the end", settled);
    for slot in 0..arguments.workers {
        if proxy.bytes(&crew::name(slot))? == 0 {
            record.troubles.push(format!("{} never used the proxy", crew::name(slot)));
        }
    }
    Ok(record)
}

fn note(record: &mut Record, what: &str, result: Result<()>) {
    if let Err(error) = result {
        record.troubles.push(format!("{what}: {error:#}"));
    }
}

fn mend(proxy: &Proxy, crew: &mut Crew<'_>, workers: usize) -> Result<()> {
    for slot in 0..workers {
        proxy.set(&crew::name(slot), Way::Open)?;
    }
    crew.wait_until_ready()
}

/// Reads everything from its beginning.
fn read_back(pipeline: &mut Pipeline, record: &mut Record) -> Result<()> {
    let broker = pipeline.broker().clone();
    record.arrivals = copies::of_sink(&broker, &pipeline.sink)?;
    record.arrivals.extend(copies::of_dead_letters(&broker, &pipeline.dead_letters)?);
    record.commits = commit_log::history(&broker, &pipeline.group, &pipeline.source)?;
    record.ends = broker.end_offsets(&pipeline.source)?;
    let committed = pipeline.committed()?;
    note(record, "the look at the commits", pipeline.finish_watch(&committed));
    Ok(())
}

fn address(variable: &str) -> Result<SocketAddr> {
    let value = env::var(variable);
    let value = value.with_context(|| format!("{variable} is not set; run cargo xtask chaos"))?;
    value.parse().with_context(|| format!("{variable}={value}"))
}

/// The run while faults are made.
struct Scene<'a, 'b> {
    begun: Instant,
    broker: Broker,
    proxy: &'a Proxy,
    crew: &'a mut Crew<'b>,
    under_way: Vec<UnderWay>,
    broker_fault: Option<BrokerFault>,
    faults: Vec<Fault>,
    refused_starts: u64,
}

/// A fault of a worker that is not over.
#[derive(Clone, Debug)]
struct UnderWay {
    kind: Kind,
    slot: usize,
    worker: String,
    from: i64,
    /// When it ends, or when a worker is started again.
    ends: Instant,
    /// For a worker that was asked to end: whether it has.
    is_waited_for: bool,
}

struct BrokerFault {
    kind: Kind,
    from: i64,
    thread: JoinHandle<Result<()>>,
}

impl Scene<'_, '_> {
    /// Makes all faults and waits until they are over.
    fn play(&mut self, planned: Vec<Planned>, length: Duration) -> Result<()> {
        let mut planned = VecDeque::from(planned);
        loop {
            self.end_what_is_over()?;
            self.look_after_workers()?;
            self.look_after_broker()?;
            let next = planned.front().copied();
            if let Some(next) = next.filter(|next| self.may_begin(next)) {
                planned.pop_front();
                self.begin(next)?;
            }
            let is_over = planned.is_empty()
                && self.under_way.is_empty()
                && self.broker_fault.is_none()
                && self.crew.are_all_ready()
                && self.begun.elapsed() >= length;
            if is_over {
                return Ok(());
            }
            thread::sleep(TICK);
        }
    }

    /// A fault begins when its time has come and what it is to meet is there: a worker that works, a
    /// broker that is up.
    fn may_begin(&self, next: &Planned) -> bool {
        let is_there = match next.kind.is_of_broker() {
            true => self.broker_fault.is_none(),
            false => {
                let is_under_way = self.under_way.iter().any(|it| it.slot == next.slot);
                self.crew.is_ready(next.slot) && !is_under_way
            }
        };
        is_there && self.begun.elapsed() >= next.at
    }

    fn begin(&mut self, next: Planned) -> Result<()> {
        let Planned { kind, slot, lasts, .. } = next;
        let from = now()?;
        if kind.is_of_broker() {
            let broker = self.broker.clone();
            let fault = move || match kind {
                Kind::BrokerKill => broker.kill().and_then(|()| broker.start()),
                _ => broker.restart(),
            };
            let thread = thread::Builder::new().name("broker-fault".to_owned()).spawn(fault)?;
            self.broker_fault = Some(BrokerFault { kind, from, thread });
            return self.tell(kind, "the broker");
        }
        let (worker, name) = (self.crew.process(slot), crew::name(slot));
        match kind {
            Kind::Kill => {
                self.crew.kill(slot)?;
                self.note(kind, Some(worker.clone()), from)?;
            }
            Kind::Terminate => self.crew.terminate(slot)?,
            Kind::Pause | Kind::Freeze => self.crew.stop(slot)?,
            Kind::Reset => self.proxy.reset(&name)?,
            Kind::Refuse => self.proxy.set(&name, Way::Refused)?,
            Kind::Stall => self.proxy.set(&name, Way::Stalled)?,
            Kind::BrokerRestart | Kind::BrokerKill => {}
        }
        self.tell(kind, &worker)?;
        let (ends, is_waited_for) = (Instant::now() + lasts, kind == Kind::Terminate);
        self.under_way.push(UnderWay { kind, slot, worker, from, ends, is_waited_for });
        Ok(())
    }

    fn end_what_is_over(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_over = |it: &mut UnderWay| it.ends <= now && !it.is_waited_for;
        let over: Vec<_> = self.under_way.extract_if(.., is_over).collect();
        for UnderWay { kind, slot, worker, from, .. } in over {
            match kind {
                // Noted already.
                Kind::Kill | Kind::Terminate => {
                    self.crew.start(slot)?;
                    continue;
                }
                Kind::Pause | Kind::Freeze => self.crew.go_on(slot)?,
                _ => self.proxy.set(&crew::name(slot), Way::Open)?,
            }
            self.note(kind, Some(worker), from)?;
        }
        Ok(())
    }

    fn look_after_workers(&mut self) -> Result<()> {
        for (slot, end) in self.crew.look()? {
            if end == End::Unreachable {
                self.start_again(slot)?;
                continue;
            }
            let found = self.under_way.iter_mut().find(|it| it.slot == slot);
            let ending = found.context("a worker ended that nobody asked to")?;
            ending.is_waited_for = false;
            // What was to follow its signal follows its end.
            ending.ends = ending.ends.max(Instant::now());
            let (worker, from) = (ending.worker.clone(), ending.from);
            self.note(Kind::Terminate, Some(worker), from)?;
        }
        Ok(())
    }

    /// Starts a worker once more that gave up, as whoever runs it would; without an outage it had no
    /// reason to.
    fn start_again(&mut self, slot: usize) -> Result<()> {
        let now = now()?;
        let last = self.faults.iter().rfind(|fault| fault.kind.is_of_broker());
        let was_away = self.broker_fault.is_some()
            || last.is_some_and(|fault| fault.until + AFTER_OUTAGE_MS >= now);
        ensure!(was_away, "{} gave up with the broker there", self.crew.process(slot));
        self.refused_starts += 1;
        self.crew.start(slot)
    }

    fn look_after_broker(&mut self) -> Result<()> {
        let is_over = self.broker_fault.as_ref().is_some_and(|it| it.thread.is_finished());
        let Some(fault) = self.broker_fault.take_if(|_| is_over) else { return Ok(()) };
        let BrokerFault { kind, from, thread } = fault;
        thread.join().map_err(|_| anyhow!("the thread of a broker's fault panicked"))??;
        self.note(kind, None, from)
    }

    fn note(&mut self, kind: Kind, worker: Option<String>, from: i64) -> Result<()> {
        self.faults.push(Fault { kind, worker, from, until: now()?, lost_at: None });
        Ok(())
    }

    fn tell(&self, kind: Kind, whom: &str) -> Result<()> {
        writeln!(stderr(), "{:7.1} s  {kind}: {whom}", self.begun.elapsed().as_secs_f64())?;
        Ok(())
    }
}

fn now() -> Result<i64> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_millis())?)
}
