//! The workers of a run: each slot has one process at a time, with a name of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::Arguments;
use crate::worker::{Worker, WorkerCommand};
use crate::{Pipeline, wait_until};

/// How long the group waits for a worker's sign of life; the broker's own for the newer protocol is
/// as long.
pub(crate) const SESSION: Duration = Duration::from_secs(6);

/// From the start of a process to its being ready, a broker that is away included.
const READY: Duration = Duration::from_secs(90);

/// From SIGTERM to the end: the drain, and what closing may take beside it.
const TERMINATE: Duration = Duration::from_secs(60);

const DRAIN_SECONDS: u64 = 15;

/// The documented exit code of a worker that could not reach what it needs.
const EXIT_UNAVAILABLE: i32 = 3;

/// What all workers of a run are given.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    brokers: SocketAddr,
    protocol: String,
    sabotage: String,
    marks: PathBuf,
}

/// The workers, in slots.
pub(crate) struct Crew<'a> {
    pipeline: &'a Pipeline,
    orders: Orders,
    slots: Vec<Slot>,
}

/// The place of one worker after the other.
struct Slot {
    name: String,
    generation: u32,
    state: State,
}

/// How a process has ended, of which none is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it was asked to.
    Asked,
    /// It was never ready, since it could not reach the broker.
    Unreachable,
}

enum State {
    /// Not started yet, or ended and not started again.
    Away,
    Starting(Worker, Instant),
    Ready(Worker),
    /// It does not answer, and must not be asked.
    Stopped(Worker),
    Ending(Worker, Instant),
}

impl Orders {
    pub(crate) fn new(pipeline: &Pipeline, brokers: SocketAddr, run: &Arguments) -> Result<Self> {
        let marks = pipeline.logs.path().join("marks");
        fs::create_dir(&marks)?;
        let (protocol, sabotage) = (run.protocol.clone(), run.sabotage.clone());
        Ok(Self { brokers, protocol, sabotage, marks })
    }

    /// How many children have failed or hung so far.
    pub(crate) fn marks(&self) -> Result<u64> {
        Ok(u64::try_from(fs::read_dir(&self.marks)?.count())?)
    }

    fn config(&self, pipeline: &Pipeline, metrics_port: u16) -> Value {
        let mut config = json!({
            "kafka": {
                "brokers": self.brokers.to_string(),
                "source_topic": pipeline.source,
                "consumer_group": pipeline.group,
                "group_protocol": self.protocol,
                "startup_align_enabled": false,
            },
            "executor": {
                "max_executors": 4,
                "window_size": 20,
                "task_timeout_seconds": 10,
                "kill_grace_seconds": 0.5,
                "drain_timeout_seconds": DRAIN_SECONDS,
                "max_retries": 5,
            },
            "sinks": { "kafka": { "results": { "topic": pipeline.sink } } },
            "dlq": { "topic": pipeline.dead_letters },
            "metrics": { "port": metrics_port },
        });
        if self.protocol == "classic" {
            config["kafka"]["session_timeout_ms"] = json!(SESSION.as_millis() as u64);
            config["kafka"]["heartbeat_interval_ms"] = json!(SESSION.as_millis() as u64 / 3);
        }
        config
    }
}

impl<'a> Crew<'a> {
    pub(crate) fn new(pipeline: &'a Pipeline, orders: Orders, workers: usize) -> Self {
        let slots =
            (0..workers).map(|slot| Slot { name: name(slot), generation: 0, state: State::Away });
        Self { pipeline, orders, slots: slots.collect() }
    }

    /// The name of the process that is in the slot, or was there last.
    pub(crate) fn process(&self, slot: usize) -> String {
        let slot = &self.slots[slot];
        format!("{}-{}", slot.name, slot.generation)
    }

    /// Starts a process in a slot that has none.
    pub(crate) fn start(&mut self, slot: usize) -> Result<()> {
        ensure!(matches!(self.slots[slot].state, State::Away), "{} runs", self.process(slot));
        self.slots[slot].generation += 1;
        let id = self.process(slot);
        let program = &self.pipeline.environment.worker;
        let command = WorkerCommand::new(program, &id, self.pipeline.logs.path())?;
        let config = self.orders.config(self.pipeline, command.metrics_port());
        let command = command
            .with("CHAOS_CONFIG", config)
            .with("CHAOS_WORKER_ID", &id)
            .with("CHAOS_MARKS", self.orders.marks.display())
            .with("CHAOS_SABOTAGE", &self.orders.sabotage);
        let worker = command.spawn()?.without_log_tail();
        self.slots[slot].state = State::Starting(worker, Instant::now());
        Ok(())
    }

    /// Kills the process of a slot.
    pub(crate) fn kill(&mut self, slot: usize) -> Result<()> {
        self.take(slot)?.kill()
    }

    /// Asks the process of a slot to end; [`look`](Self::look) says when it has.
    pub(crate) fn terminate(&mut self, slot: usize) -> Result<()> {
        let mut worker = self.take(slot)?;
        worker.signal(Signal::TERM)?;
        self.slots[slot].state = State::Ending(worker, Instant::now());
        Ok(())
    }

    /// Stops the process of a slot where it stands.
    pub(crate) fn stop(&mut self, slot: usize) -> Result<()> {
        let mut worker = self.take(slot)?;
        worker.signal(Signal::STOP)?;
        self.slots[slot].state = State::Stopped(worker);
        Ok(())
    }

    /// Lets a stopped process go on.
    pub(crate) fn go_on(&mut self, slot: usize) -> Result<()> {
        let mut worker = self.take(slot)?;
        worker.signal(Signal::CONT)?;
        self.slots[slot].state = State::Starting(worker, Instant::now());
        Ok(())
    }

    /// Looks after every process; gives the slots whose process has ended.
    ///
    /// # Errors
    ///
    /// One has ended by itself, did not become ready or did not end in time, or ended otherwise than
    /// it should.
    pub(crate) fn look(&mut self) -> Result<Vec<(usize, End)>> {
        let mut ended = Vec::new();
        for slot in 0..self.slots.len() {
            let id = self.process(slot);
            let end = self.look_at(slot).with_context(|| format!("worker {id}"))?;
            ended.extend(end.map(|end| (slot, end)));
        }
        Ok(ended)
    }

    fn look_at(&mut self, slot: usize) -> Result<Option<End>> {
        let state = std::mem::replace(&mut self.slots[slot].state, State::Away);
        let (state, end) = next(state)?;
        self.slots[slot].state = state;
        Ok(end)
    }

    pub(crate) fn is_ready(&self, slot: usize) -> bool {
        matches!(self.slots[slot].state, State::Ready(_))
    }

    pub(crate) fn are_all_ready(&self) -> bool {
        (0..self.slots.len()).all(|slot| self.is_ready(slot))
    }

    /// Waits until every slot has a process that is ready. None may end.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        wait_until("all workers to be ready", READY, || {
            let ended = self.look()?;
            ensure!(ended.is_empty(), "workers have ended: {ended:?}");
            Ok(self.are_all_ready().then_some(()))
        })
    }

    /// Asks all processes to end and waits until they have.
    pub(crate) fn terminate_all(&mut self) -> Result<()> {
        for slot in 0..self.slots.len() {
            self.terminate(slot)?;
        }
        let is_away = |slot: &Slot| matches!(slot.state, State::Away);
        wait_until("all workers to end", 2 * TERMINATE, || {
            self.look()?;
            Ok(self.slots.iter().all(is_away).then_some(()))
        })
    }

    fn take(&mut self, slot: usize) -> Result<Worker> {
        match std::mem::replace(&mut self.slots[slot].state, State::Away) {
            State::Starting(worker, _) | State::Ready(worker) | State::Stopped(worker) => {
                Ok(worker)
            }
            _ => bail!("{} is not running", self.process(slot)),
        }
    }
}

/// The name of the worker of a slot, without the number of its process.
pub(crate) fn name(slot: usize) -> String {
    format!("w{slot}")
}

/// What has become of a process, and whether it has ended.
fn next(state: State) -> Result<(State, Option<End>)> {
    Ok(match state {
        State::Starting(mut worker, since) => {
            if worker.exit_status()?.and_then(|status| status.code()) == Some(EXIT_UNAVAILABLE) {
                return Ok((State::Away, Some(End::Unreachable)));
            }
            worker.ensure_running().with_context(|| worker.log_tail())?;
            let is_ready = worker.get("/readyz").is_ok_and(|answer| answer.status == 200);
            let is_late = since.elapsed() > READY;
            ensure!(is_ready || !is_late, "it was not ready in {READY:?}\n{}", worker.log_tail());
            (if is_ready { State::Ready(worker) } else { State::Starting(worker, since) }, None)
        }
        State::Ready(mut worker) => {
            worker.ensure_running().with_context(|| worker.log_tail())?;
            (State::Ready(worker), None)
        }
        State::Ending(mut worker, since) => match worker.exit_status()? {
            Some(status) => {
                check_end(status).with_context(|| worker.log_tail())?;
                (State::Away, Some(End::Asked))
            }
            None => {
                let is_late = since.elapsed() > TERMINATE;
                ensure!(!is_late, "it did not end in {TERMINATE:?}\n{}", worker.log_tail());
                (State::Ending(worker, since), None)
            }
        },
        State::Away | State::Stopped(_) => (state, None),
    })
}

fn check_end(status: ExitStatus) -> Result<()> {
    ensure!(status.code() == Some(0), "it was asked to end and ended with {status}");
    Ok(())
}
