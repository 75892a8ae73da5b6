//! Records → connections, and times of which nothing is known.

use super::super::asked::Room;
use super::super::question::Ends;
use super::super::tests::{Made, at, begun, ended, natted, question};
use super::*;

fn answer(question: &Question, made: &[Made]) -> Answer {
    let room = Room::new(100);
    let mut answers = Answers::new(&room);
    for record in made.iter().filter_map(Made::record) {
        answers.record(record).unwrap();
    }
    Answer::new(question, answers, Vec::new())
}

/// Start and end of each, in seconds of the day, and how many records it has.
fn found(first: u64, last: u64, made: &[Made]) -> Vec<(Option<u64>, Option<u64>, usize)> {
    let answer = answer(&question("203.0.113.7", at(first), at(last)), made);
    let second = |at: Option<u64>| at.map(|at| (at - self::at(0)) / 1_000_000_000);
    let told = |found: &Connection| {
        let Connection { record, records, ends } = found;
        assert_eq!(*ends, Ends::REPLY_DST);
        (second(record.flow.start), second(record.end), *records)
    };
    answer.connections.iter().map(told).collect()
}

/// Without a start, as of an update, or of an end without timestamps.
fn of_unknown_start(made: Made) -> Made {
    match made {
        Made::Flow { tag, at, flow, end, how, .. } => {
            Made::Flow { tag, at, flow, start: None, end, how }
        }
        lost => lost,
    }
}

#[test]
fn a_flow_is_alive_from_its_start_to_its_end() {
    let made = [ended(natted(1), at(10), at(20))];
    for (first, last, is_alive) in
        [(0, 9, false), (0, 10, true), (12, 13, true), (20, 30, true), (21, 30, false)]
    {
        assert_eq!(!found(first, last, &made).is_empty(), is_alive, "{first} to {last}");
    }
    let made = [of_unknown_start(made[0].clone())];
    assert_eq!(found(0, 5, &made), [(None, Some(20), 1)]);
    assert_eq!(found(21, 22, &made), []);
}

#[test]
fn records_of_one_flow_are_one_connection() {
    let [begin, end] = [begun(natted(1), at(10)), ended(natted(1), at(10), at(20))];
    let both = [begin.clone(), end.clone()];
    assert_eq!(found(15, 15, &both), [(Some(10), Some(20), 2)]);
    assert_eq!(found(25, 25, &both), []);
    // The end knows no start: without timestamps of the kernel.
    let both = [begin.clone(), of_unknown_start(end.clone())];
    assert_eq!(found(15, 15, &both), [(Some(10), Some(20), 2)]);
    // It has not ended.
    assert_eq!(found(25, 25, std::slice::from_ref(&begin)), [(Some(10), None, 1)]);
    // The same tuple again: so the first one has ended by then.
    let again = [begin, begun(natted(1), at(30))];
    assert_eq!(found(25, 25, &again), [(Some(10), None, 1)]);
    assert_eq!(found(31, 31, &again), [(Some(30), None, 1)]);
    // Two ends are of two flows, though nobody told that the second began.
    let two = [end, ended(natted(1), at(21), at(30))];
    assert_eq!(found(0, 40, &two), [(Some(10), Some(20), 1), (Some(21), Some(30), 1)]);
}

/// As of two gateways that are on one way, or told in another order.
#[test]
fn flows_of_one_tuple_are_told_apart_by_their_start() {
    let end = |start, end| ended(natted(1), at(start), at(end));
    let made = [begun(natted(1), at(10)), begun(natted(1), at(12)), end(10, 20), end(12, 22)];
    assert_eq!(found(15, 15, &made), [(Some(10), Some(20), 2), (Some(12), Some(22), 2)]);
    assert_eq!(found(21, 21, &made), [(Some(12), Some(22), 2)]);
}

#[test]
fn what_was_delivered_twice_is_there_once() {
    let end = ended(natted(1), at(10), at(20));
    assert_eq!(found(15, 15, &[end.clone(), end.clone(), end]), [(Some(10), Some(20), 1)]);
}

#[test]
fn flows_that_differ_in_what_both_know_are_two() {
    let with_id = |made: Made, id| match made {
        Made::Flow { tag, at, mut flow, start, end, how } => {
            flow.id = Some(id);
            Made::Flow { tag, at, flow, start, end, how }
        }
        lost => lost,
    };
    let begin = with_id(begun(natted(1), at(10)), 5);
    let end = of_unknown_start(with_id(ended(natted(1), at(10), at(20)), 6));
    assert_eq!(found(15, 15, &[begin, end]), [(None, Some(20), 1), (Some(10), None, 1)]);
    let mut other = natted(1);
    other.zone = 3;
    let made = [begun(natted(1), at(10)), ended(other, at(10), at(20))];
    assert_eq!(found(15, 15, &made).len(), 2);
}

#[test]
fn the_newer_record_knows_better_and_the_older_one_more() {
    let mut first = natted(1);
    (first.mark, first.l4_state, first.id) = (1, Some(1), Some(7));
    let mut last = natted(1);
    last.mark = 2;
    let made = [begun(first, at(10)), ended(last, at(10), at(20))];
    let answer = answer(&question("10.0.0.5:1", at(15), at(15)), &made);
    let flow = &answer.connections[0].record.flow;
    assert_eq!((flow.mark, flow.l4_state, flow.id), (2, Some(1), Some(7)));
}
