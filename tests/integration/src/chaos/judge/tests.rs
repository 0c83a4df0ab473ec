//! A good record passes; each thing that is planted in it is found.

use super::*;

const SEED: u64 = 3;
const MESSAGES: u64 = 200;

/// What is written to the sink and to the dead letters is committed this much later.
const COMMIT_AFTER: i64 = 500;

fn written_at(n: u64) -> i64 {
    1_000_000 + 10 * i64::try_from(n).expect("small")
}

fn arrival(n: u64, j: u64, writer: &str, at: i64) -> Arrival {
    let fails = Plan::of(SEED, n) == Plan::Dead && j + 1 == FANOUT;
    let place = if fails { Place::MessageLetter } else { Place::Sink };
    let run = format!("t-{at}");
    Arrival { task: TaskKey { n, j }, place, writer: writer.to_owned(), run, at }
}

fn fault(kind: Kind, worker: Option<&str>, from: i64, until: i64) -> Fault {
    Fault { kind, worker: worker.map(str::to_owned), from, until, lost_at: None }
}

/// A run without repeats, in which a worker was asked to end before anything was written.
fn good() -> Record {
    let mut record = Record {
        seed: SEED,
        messages: MESSAGES,
        faults: vec![fault(Kind::Terminate, Some("w2-1"), 5, 6)],
        planned: BTreeMap::from([(Kind::Terminate, 1)]),
        ..Record::default()
    };
    for n in 0..MESSAGES {
        record.arrivals.extend((0..FANOUT).map(|j| arrival(n, j, "w1-1", written_at(n))));
        let (partition, offset) = load::place(n).expect("it has one");
        let at = written_at(n) + COMMIT_AFTER;
        record.commits.push(Commit { partition, offset: offset + 1, at });
        *record.ends.entry(partition).or_default() += 1;
        record.failed_children += u64::from(Plan::of(SEED, n).leaves_mark());
    }
    record
}

#[track_caller]
fn check(change: impl FnOnce(&mut Record), expect: Option<&str>) {
    let mut record = good();
    change(&mut record);
    let verdict = judge(&record);
    match expect {
        None => assert!(verdict.is_good(), "{verdict}"),
        Some(objection) => {
            assert_eq!(verdict.objections.len(), 1, "{verdict}");
            assert!(verdict.objections[0].contains(objection), "{verdict}");
            assert!(verdict.to_string().ends_with("REJECTED"), "{verdict}");
        }
    }
}

/// Plants a second copy of task 0 of message 50, by `writer`, and the fault.
fn repeat(writer: &str, after: i64, fault: Fault) -> impl FnOnce(&mut Record) {
    let copy = arrival(50, 0, writer, written_at(50) + after);
    move |record| {
        record.planned.insert(fault.kind, 1);
        record.faults.push(fault);
        record.arrivals.push(copy);
    }
}

#[test]
fn a_good_run_passes_with_its_figures() {
    check(|_| {}, None);
    let shown = judge(&good()).to_string();
    for line in ["messages produced                  200", "tasks                              400"]
    {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(shown.ends_with("verdict: passed"), "{shown}");
}

// Promise: DL-1
#[test]
fn a_loss_is_found() {
    check(|record| drop(record.arrivals.remove(77)), Some("1 lost: [m00000038/1]"));
    let is_dead = |it: &Arrival| it.place == Place::MessageLetter;
    check(
        |record| {
            let letter = record.arrivals.iter().position(is_dead).expect("there are some");
            record.arrivals.remove(letter);
        },
        Some("1 lost: "),
    );
}

#[test]
fn a_repeat_does_not_make_up_for_a_loss() {
    let mut record = good();
    record.arrivals[77] = record.arrivals[76].clone();
    let verdict = judge(&record);
    assert_eq!(verdict.objections.len(), 2, "{verdict}");
}

#[test]
fn what_nobody_asked_for_is_found() {
    let invented = |arrival: Arrival| move |record: &mut Record| record.arrivals.push(arrival);
    check(invented(arrival(MESSAGES, 0, "w1-1", 0)), Some("1 invented: [m00000200/0"));
    check(invented(arrival(0, FANOUT, "w1-1", 0)), Some("1 invented: "));
}

#[test]
fn a_result_in_the_wrong_place_is_found() {
    let move_to = |from: Place, to: Place| {
        move |record: &mut Record| {
            let found = record.arrivals.iter_mut().find(|it| it.place == from);
            found.expect("there are some").place = to;
        }
    };
    check(move_to(Place::Sink, Place::MessageLetter), Some("1 invented: "));
    check(move_to(Place::MessageLetter, Place::Sink), Some("1 invented: "));
    check(move_to(Place::Sink, Place::PayloadLetter), None);
}

#[test]
fn a_repeat_without_a_fault_is_found() {
    check(
        |record| record.arrivals.push(arrival(50, 0, "w1-1", written_at(50) + 1)),
        Some("1 repeats without explanation: [m00000050/0 by w1-1"),
    );
}

#[test]
fn a_kill_explains_what_the_killed_one_had_not_committed() {
    let killed = |worker, from| fault(Kind::Kill, Some(worker), from, from);
    let kill_at = written_at(50) + 100;
    let found = Some("repeats without explanation");
    check(repeat("w3-1", 9_000, killed("w1-1", kill_at)), None);
    // Somebody else was killed.
    check(repeat("w3-1", 9_000, killed("w2-1", kill_at)), found);
    check(repeat("w3-1", 9_000, killed("w3-1", kill_at)), found);
    // It was committed before the kill.
    let late = written_at(50) + COMMIT_AFTER + 1;
    check(repeat("w3-1", 9_000, killed("w1-1", late)), found);
    // The repeat came before the kill.
    check(repeat("w3-1", 50, killed("w1-1", kill_at)), found);
    // The dead cannot have written it so long after.
    check(repeat("w3-1", 9_000, killed("w1-1", written_at(50) - 5_000)), found);
}

#[test]
fn a_long_stop_explains_both_sides_of_a_repeat_in_time() {
    let at = written_at(50);
    let frozen = |worker| fault(Kind::Freeze, Some(worker), at - 5_000, at + 5_000);
    let found = Some("repeats without explanation");
    // What it wrote before it heard, repeated by others at any time.
    check(repeat("w3-1", 60_000, frozen("w1-1")), None);
    // What it wrote although others had: only soon after its stop.
    check(repeat("w2-1", 6_000, frozen("w2-1")), None);
    check(repeat("w2-1", 60_000, frozen("w2-1")), found);
    check(repeat("w2-1", 6_000, frozen("w3-1")), found);
}

#[test]
fn a_loss_of_the_broker_explains_the_repeats_of_everybody_in_time() {
    let at = written_at(50);
    let found = Some("repeats without explanation");
    check(repeat("w3-1", 9_000, fault(Kind::BrokerKill, None, at - 100, at + 5_000)), None);
    check(repeat("w1-1", 9_000, fault(Kind::BrokerRestart, None, at + 100, at + 200)), None);
    check(repeat("w3-1", 9_000, fault(Kind::BrokerKill, None, at - 30_000, at - 20_000)), found);
    let committed = at + COMMIT_AFTER;
    let after = fault(Kind::BrokerKill, None, committed, committed + 5_000);
    check(repeat("w3-1", 9_000, after), found);
}

#[test]
fn nothing_explains_that_one_result_is_written_twice() {
    let at = written_at(50);
    let loss = fault(Kind::BrokerKill, None, at - 100, at + 5_000);
    let twice = |change: fn(&mut Arrival)| {
        let loss = loss.clone();
        move |record: &mut Record| {
            repeat("w1-1", 9_000, loss)(record);
            let copy = record.arrivals.last_mut().expect("planted");
            copy.run = format!("t-{}", written_at(50));
            change(copy);
        }
    };
    check(twice(|_| {}), Some("1 repeats without explanation"));
    check(twice(|copy| copy.writer = "w1-2".to_owned()), None);
    check(twice(|copy| copy.run = "t-0".to_owned()), None);
    // Whether the sink had it was unknown.
    check(twice(|copy| copy.place = Place::PayloadLetter), None);
}

#[test]
fn an_orderly_end_a_short_stop_and_a_reset_explain_nothing() {
    let at = written_at(50);
    for kind in [Kind::Terminate, Kind::Pause, Kind::Reset] {
        let change = repeat("w3-1", 9_000, fault(kind, Some("w1-1"), at - 100, at + 5_000));
        check(change, Some("repeats without explanation"));
    }
}

#[test]
fn a_reset_in_which_the_assignment_was_lost_explains_what_its_worker_had_done() {
    let at = written_at(50);
    let loss = |worker, from| Fault {
        lost_at: Some(from + 100),
        ..fault(Kind::Reset, Some(worker), from, from)
    };
    check(repeat("w1-1", 2_000, loss("w1-1", at + 100)), None);
    check(repeat("w3-1", 2_000, loss("w1-1", at + 100)), None);
    let others = repeat("w3-1", 2_000, loss("w2-1", at + 100));
    check(others, Some("repeats without explanation"));
    let committed = repeat("w1-1", 2_000, loss("w1-1", at + COMMIT_AFTER));
    check(committed, Some("repeats without explanation"));
}

#[test]
fn of_three_copies_each_step_needs_its_explanation() {
    let at = written_at(50);
    let kill = fault(Kind::Kill, Some("w1-1"), at + 100, at + 100);
    let third = arrival(50, 0, "w2-1", at + 20_000);
    check(
        |record| {
            repeat("w3-1", 9_000, kill)(record);
            record.arrivals.push(third);
        },
        Some("1 repeats without explanation: [m00000050/0 by w3-1"),
    );
}

// Promise: WM-1
#[test]
fn a_commit_that_goes_back_is_found() {
    check(|record| record.commits.swap(3, 3 + 16), Some("commits went back: [partition 3 to 1]"));
}

#[test]
fn what_is_not_committed_in_the_end_is_found() {
    let less = |record: &mut Record| record.commits.truncate(record.commits.len() - 1);
    check(less, Some("the end of the source is not committed"));
    let beyond = |record: &mut Record| {
        for commit in record.commits.iter_mut().rev().take(2) {
            // One too far, one too short: as a sum they look right.
            commit.offset += if commit.partition % 2 == 0 { 1 } else { -1 };
        }
    };
    check(beyond, Some("the end of the source is not committed"));
}

#[test]
fn a_source_that_holds_something_else_is_found() {
    let change = |record: &mut Record| {
        let end = record.ends.get_mut(&7).expect("a partition");
        *end += 1;
        let at = written_at(MESSAGES);
        record.commits.push(Commit { partition: 7, offset: *end, at });
    };
    check(change, Some("the source holds 201 messages, 200 were produced"));
}

#[test]
fn too_few_faults_are_found() {
    let more = |record: &mut Record| record.planned.extend([(Kind::Stall, 2)]);
    check(more, Some("0 faults of 2: connections stalled"));
    check(|record| record.planned.clear(), Some("no fault was planned"));
    check(|record| record.failed_children -= 1, Some("children failed or hung, not"));
}

#[test]
fn troubles_of_the_run_are_objections() {
    check(|record| record.troubles.push("w1 did not come back".to_owned()), Some("did not come"));
}

#[test]
fn an_empty_run_is_rejected_for_all_it_lacks() {
    let verdict = judge(&Record::default()).to_string();
    for lack in ["nothing was produced", "nothing arrived", "nothing was committed", "no fault"] {
        assert!(verdict.contains(lack), "{verdict}");
    }
    assert!(verdict.ends_with("verdict: REJECTED"), "{verdict}");
}
