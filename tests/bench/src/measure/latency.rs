//! How long a message takes when there is little to do: 100 messages a second, each of which runs
//! `true`.
//!
//! From the moment before this process hands the message to its Kafka client to the broker's append
//! time of the sink record. The broker cuts that time to milliseconds; half of one is added, which is
//! right on average, as sends are spread over the millisecond.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::pairs::alternate;
use super::side::{Load, Run, Side};
use crate::bench::Bench;
use crate::census::{self, Expected};
use crate::figures::{Figure, Figures, Pair};
use crate::message::PARTITIONS;
use crate::program::Program;
use crate::source::{Batches, Source};
use crate::statistics::percentile;
use crate::subject::Subject;
use crate::wall_clock::{Moment, unix_micros};
use crate::worker::Mode;

const PER_SECOND: u64 = 100;

/// From the start of a process until every partition gave a record.
const FIRST_RECORDS_TIMEOUT: Duration = Duration::from_secs(60);

/// From the last message to the last record.
const LAST_RECORD_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn measure(bench: &Bench<'_>) -> Result<Vec<Pair>> {
    let run = |side| run(bench, side);
    alternate(bench.plan.pairs, || run(Side::Reference), || run(Side::Worker), |_| Ok(()))
}

fn run(bench: &Bench<'_>, side: Side) -> Result<Figures> {
    let load = Load { mode: Mode::Run(Program::True), slots: 4, fanout: 1 };
    let source = Source::create(bench.broker, Batches::Single)?;
    let mut run = Run::start(bench, side, load, &source)?;
    let sink = &run.sink;
    // Not measured: these wait until the group has come together.
    source.fill_to(PARTITIONS as u64)?;
    let has_all = || Ok(sink.record_count()? >= source.count());
    run.subject.wait_until("record of every partition", FIRST_RECORDS_TIMEOUT, has_all)?;

    let unmeasured = source.count() + bench.plan.warm_up.as_secs() * PER_SECOND;
    let count = unmeasured + bench.plan.window.as_secs() * PER_SECOND;
    let sent = send_at_pace(&mut run.subject, &source, count)?;
    run.subject.wait_until("last record", LAST_RECORD_TIMEOUT, has_all)?;
    run.subject.end()?;

    let committed = source.topic.committed_by(&run.group)?;
    let expected = Expected { fanout: 1, stdout_len: 0, committed };
    let mut appended = vec![None; usize::try_from(count)?];
    census::take(&run.sink, expected, |arrival| {
        if let Some(slot) = usize::try_from(arrival.n).ok().and_then(|n| appended.get_mut(n)) {
            *slot = Some(arrival.append_millis);
        }
    })?;
    let unmeasured = usize::try_from(unmeasured)?;
    let latencies = latencies(&sent[unmeasured..], &appended[unmeasured..])?;
    Ok(Figures::default()
        .with(Figure::LatencyMillis(50), percentile(&latencies, 50)?)
        .with(Figure::LatencyMillis(99), percentile(&latencies, 99)?))
}

/// Sends messages until there are `count`, whether or not they are answered, and gives the moment of
/// each, in microseconds since 1970; zero for those that were there before.
fn send_at_pace(subject: &mut Subject, source: &Source<'_>, count: u64) -> Result<Vec<i64>> {
    let first = source.count();
    let mut sent = vec![0; usize::try_from(first)?];
    let began = Moment::now();
    let start = Instant::now();
    for index in 0..count - first {
        let due = start + due_after(index);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.push(unix_micros());
        source.send_next()?;
        source.poll();
        if index % PER_SECOND == 0 {
            subject.run_for(Duration::ZERO)?;
        }
    }
    let planned = due_after(count - first);
    let took = Moment::now().since(&began)?;
    let is_on_time = took <= planned + planned / 50;
    ensure!(is_on_time, "sending took {took:?} where {planned:?} was planned: too busy a machine");
    // With nothing left to send, this asks the broker whether it has them all.
    source.fill_to(count)?;
    Ok(sent)
}

/// Evenly, but for a shift within the millisecond that differs from message to message.
fn due_after(index: u64) -> Duration {
    Duration::from_micros(index * (1_000_000 / PER_SECOND) + index * 617 % 1000)
}

fn latencies(sent_micros: &[i64], appended_millis: &[Option<i64>]) -> Result<Vec<f64>> {
    let latency = |(sent, appended): (&i64, &Option<i64>)| {
        let appended = appended.context("a message left no sink record")?;
        let micros = appended * 1000 + 500 - sent;
        ensure!(micros > 0, "a record was appended {} us before its message was sent", -micros);
        Ok(micros as f64 / 1000.0)
    };
    sent_micros.iter().zip(appended_millis).map(latency).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_from_send_to_append() {
        let measured = latencies(&[1_000_100, 2_000_000], &[Some(1003), Some(2001)]);
        assert_eq!(measured.expect("all are there"), [3.4, 1.5]);
    }

    #[test]
    fn what_is_missing_or_impossible_is_an_error() {
        assert!(latencies(&[1_000_000], &[None]).is_err());
        assert!(latencies(&[1_000_000], &[Some(999)]).is_err());
    }

    #[test]
    fn the_pace_is_even() {
        assert_eq!(due_after(0), Duration::ZERO);
        assert_eq!(due_after(1000), Duration::from_secs(10));
        assert!((1..1000).all(|index| due_after(index) > due_after(index - 1)));
    }
}
