//! Sequence numbers, templates told anew, bounds of messages.

use super::*;
use crate::event::Kinds;
use crate::flow::{Flow, Netns};
use crate::plugin::ipfix::record::{FlowRecord, Losses};
use crate::plugin::ipfix::template::Shape;
use crate::plugin::ipfix::tests::{Collector, ended, spooled, tcp};

fn body(flow: &Flow) -> Vec<u8> {
    let mut body = Vec::new();
    ended(flow, None).write(&mut body);
    body
}

fn begun(flow: &Flow) -> Vec<u8> {
    let mut body = Vec::new();
    FlowRecord { tag: Kinds::NEW, end: None, ..ended(flow, None) }.write(&mut body);
    body
}

/// All of it in messages, the last as well.
fn send(messages: &mut Messages, bodies: &[Vec<u8>], mut to: impl FnMut(&[u8])) {
    for body in bodies {
        match messages.add(&spooled(body)) {
            Added::Yes => {}
            Added::Full => {
                to(messages.finish());
                messages.next();
                assert_eq!(
                    messages.add(&spooled(body)),
                    Added::Yes,
                    "there is room in a new message"
                );
            }
            Added::Alien => panic!("{body:?}"),
        }
    }
    to(messages.finish());
    messages.next();
}

#[test]
fn messages_are_full_and_number_their_records() {
    let bodies: Vec<_> = (1..=1000).map(|port| body(&tcp(port))).collect();
    let mut messages = Messages::new(5, 1400, None);
    let mut collector = Collector::default();
    let mut lengths = Vec::new();
    send(&mut messages, &bodies, |message| {
        collector.take(message);
        lengths.push(message.len());
    });
    // Without its template's number, with its flowId.
    let record = bodies[0].len() - 2 + 8;
    let last = lengths.pop().unwrap();
    assert!(lengths.iter().all(|length| (1400 - record..=1400).contains(length)), "{lengths:?}");
    assert!(last <= 1400);
    let ports: Vec<_> = collector
        .records
        .iter()
        .map(|fields| fields["IANA(SourceTransportPort)"].clone())
        .collect();
    assert_eq!(ports, (1..=1000).map(|port: u16| port.to_string()).collect::<Vec<_>>());
    let mut sum = 0;
    for (sequence, records) in collector.sequence {
        assert_eq!(sequence, sum);
        sum += records;
    }
    assert_eq!(collector.templates.len(), 1, "without refresh it is told once");
    assert!(collector.domains.iter().all(|domain| *domain == 5));
}

#[test]
fn a_session_that_begins_anew_counts_from_nought_and_tells_templates() {
    let bodies = [body(&tcp(1)), begun(&tcp(2))];
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut messages = Messages::new(5, 1400, None);
        let mut collector = Collector::default();
        send(&mut messages, &bodies, |message| collector.take(message));
        send(&mut messages, &bodies, |message| collector.take(message));
        assert_eq!(collector.sequence, [(0, 2), (2, 2)]);
        told.push(collector.templates);
    }
    assert_eq!(told[0].len(), 2);
    assert_eq!(told[0], told[1]);
}

#[test]
fn options_count_as_records_do() {
    let mut losses = Losses::default();
    losses.add(3, 1);
    let mut loss = Vec::new();
    losses.write(1, &mut loss);
    let mut messages = Messages::new(5, 1400, None);
    let mut collector = Collector::default();
    send(&mut messages, &[body(&tcp(1)), loss, body(&tcp(2))], |message| collector.take(message));
    send(&mut messages, &[body(&tcp(3))], |message| collector.take(message));
    assert_eq!(collector.sequence, [(0, 3), (3, 1)]);
    assert_eq!((collector.records.len(), collector.options.len()), (3, 1));
}

#[test]
fn the_sequence_goes_on_behind_its_last_number() {
    let mut messages = Messages::new(5, 1400, None);
    messages.sequence = u32::MAX;
    let mut collector = Collector::default();
    for port in 1..=2 {
        send(&mut messages, &[body(&tcp(port)), body(&tcp(port))], |m| collector.take(m));
    }
    assert_eq!(collector.sequence, [(u32::MAX, 2), (1, 2)]);
}

#[test]
fn templates_are_told_again_after_so_many_messages() {
    let refresh = Refresh { every: Duration::from_secs(3600), messages: 3 };
    let mut messages = Messages::new(5, 1400, Some(refresh));
    let mut collector = Collector::default();
    let mut told = Vec::new();
    for port in 1..=8 {
        let mut bodies = vec![body(&tcp(port))];
        if port == 1 {
            bodies.push(begun(&tcp(1)));
        }
        let before = collector.templates.len();
        send(&mut messages, &bodies, |message| collector.take(message));
        told.push(collector.templates.len() - before);
    }
    assert_eq!(told, [2, 0, 0, 2, 0, 0, 2, 0]);
}

#[test]
fn templates_are_told_again_after_a_while() {
    let refresh = Refresh { every: Duration::from_millis(50), messages: u32::MAX };
    let mut messages = Messages::new(5, 1400, Some(refresh));
    let mut collector = Collector::default();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(220) {
        send(&mut messages, &[body(&tcp(1))], |message| collector.take(message));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!((2..=5).contains(&collector.templates.len()), "{:?}", collector.templates);
}

/// Also if each message tells all templates, and there are more than it can hold.
#[test]
fn every_record_finds_room_in_the_shortest_message() {
    let shapes = Shape::all().bits();
    let mut bodies = Vec::new();
    for bits in 0..=shapes {
        let id = Shape::from_bits_retain(bits).template();
        let template = Template::of(id).unwrap();
        let room = template.set.len() + SET_HEADER + template.whole();
        assert!(room <= LARGEST, "{room} bytes for the template {id} and a record");
        assert!(HEADER + room <= SHORTEST);
        bodies.push([&id.to_be_bytes()[..], &vec![0; template.length]].concat());
    }
    let refresh = Refresh { every: Duration::ZERO, messages: 1 };
    let mut messages = Messages::new(5, SHORTEST, Some(refresh));
    let mut lengths = Vec::new();
    send(&mut messages, &bodies, |message| lengths.push(message.len()));
    assert!(lengths.iter().all(|length| *length <= SHORTEST), "{lengths:?}");
    assert_eq!(messages.sequence, u32::from(shapes) + 1);
}

#[test]
fn what_is_no_record_of_this_version_is_refused() {
    let mut messages = Messages::new(5, 1400, None);
    let mut short = body(&tcp(1));
    short.pop();
    for alien in [&[][..], &[1], &[0, 2, 1], &[0xff, 0xff, 0], &short] {
        assert_eq!(messages.add(&spooled(alien)), Added::Alien, "{alien:?}");
    }
    assert_eq!(messages.records(), 0);
    let netns = Some(Netns { cookie: None, inum: 4 });
    assert_eq!(messages.add(&spooled(&body(&Flow { netns, ..tcp(1) }))), Added::Yes);
    let mut collector = Collector::default();
    collector.take(messages.finish());
    assert_eq!(collector.records.len(), 1);
}
