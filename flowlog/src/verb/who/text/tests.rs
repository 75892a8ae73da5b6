//! Lines of made-up answers.

use super::super::answer::Verdict;
use super::super::asked::{Answers, Covered, Loss, Room};
use super::super::tests::{Made, at, begun, ended, flow, natted, question};
use super::*;
use crate::flow::proto;

/// The minute of 14:05 in UTC.
fn minute(wanted: &str) -> Question {
    question(wanted, at(50_700), at(50_760) - 1)
}

pub(in super::super) fn made_up(question: &Question, made: &[Made], known: &[Span]) -> Answer {
    let room = Room::new(100);
    let mut answers = Answers::new(&room);
    for record in made.iter().filter_map(Made::record) {
        answers.record(record).unwrap();
    }
    for span in known {
        answers.covered(covered("/a", *span, true));
    }
    Answer::new(question, answers, Vec::new())
}

pub(in super::super) fn covered(place: &str, span: Span, beginnings: bool) -> Covered {
    Covered { archive: place.to_owned(), place: place.into(), span: Some(span), beginnings }
}

fn text(question: &Question, answer: &Answer) -> String {
    super::answer(question, answer, &TimeZone::UTC)
}

const DAY: Span = Span { first: at(0), last: at(86_400) - 1 };

#[test]
fn a_connection_is_a_line() {
    let question = minute("203.0.113.7:40001");
    let mut translated = natted(40001);
    translated.counters =
        Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 416 }]);
    translated.l4_state = Some(8);
    let made =
        [ended(translated, at(50_600) + 123_456_789, at(50_710)), begun(natted(40001), at(50_720))];
    assert_eq!(
        text(&question, &made_up(&question, &made, &[DAY])),
        "203.0.113.7:40001, 2026-11-20 14:05:00.000 to 2026-11-20 14:05:59.999 +00:00:\n\
         2026-11-20 14:03:20.123 to 2026-11-20 14:05:10.000 +00:00 tcp  10.0.0.5:40001 → \
         198.51.100.9:443 CLOSE snat=203.0.113.7:40001 packets=6/4 bytes=420/416 \
         duration=109.876s cause=expired_gc netns=4026531840 matched=snat\n\
         2026-11-20 14:05:20.000 +00:00 to ?                       tcp  10.0.0.5:40001 → \
         198.51.100.9:443 REPLIED snat=203.0.113.7:40001 netns=4026531840 matched=snat\n\
         2 connections.\n"
    );
}

#[test]
fn the_matching_end_is_named_as_in_the_line() {
    let plain = ["10.0.0.5:1", "10.0.0.6:2", "10.0.0.5:1", "10.0.0.6:2"];
    let both = ["10.0.0.5:1", "10.0.0.6:2", "10.0.0.7:3", "10.0.0.8:4"];
    let hairpin = ["10.0.0.5:1", "10.0.0.6:2", "10.0.0.6:2", "10.0.0.5:1"];
    for (wanted, ends, expected) in [
        ("10.0.0.5", plain, &["src"][..]),
        ("10.0.0.6:2", plain, &["dst"]),
        ("10.0.0.5:1", both, &["src"]),
        ("10.0.0.6", both, &["dst"]),
        ("10.0.0.7", both, &["snat"]),
        ("10.0.0.8:4", both, &["dnat"]),
        ("10.0.0.5", hairpin, &["src", "dnat"]),
        ("10.0.0.6", hairpin, &["snat", "dst"]),
    ] {
        let flow = flow(proto::TCP, ends);
        let mut words = matched(&flow, minute(wanted).ends(&flow));
        let mut expected = expected.to_vec();
        words.sort();
        expected.sort();
        assert_eq!(words, expected, "{wanted}");
    }
}

#[test]
fn nothing_found_and_nothing_known_are_told_apart() {
    let question = minute("203.0.113.7:40001");
    let heading = "203.0.113.7:40001, 2026-11-20 14:05:00.000 to 2026-11-20 14:05:59.999 +00:00:\n";
    let nothing = made_up(&question, &[], &[DAY]);
    assert_eq!(text(&question, &nothing), format!("{heading}Nothing found.\n"));
    let earlier = Span { first: at(0), last: at(100) };
    let no_data = made_up(&question, &[], &[earlier]);
    assert_eq!(
        text(&question, &no_data),
        format!(
            "{heading}No data for that time.\n\
             No archive knows what happened 2026-11-20 14:05:00.000 to 2026-11-20 14:05:59.999 \
             +00:00.\n\
             Archives are of 2026-11-20 00:00:00.000 to 2026-11-20 00:01:40.000 +00:00.\n"
        )
    );
    let part = Span { first: at(0), last: at(50_730) - 1 };
    let partly = text(&question, &made_up(&question, &[], &[part]));
    assert!(
        partly
            .contains("Nothing found.\nNo archive knows what happened 2026-11-20 14:05:30.000 to")
    );
    let none = text(&question, &made_up(&question, &[], &[]));
    assert!(none.ends_with("No archive says of which time it is.\n"), "{none}");
    let ever = Question { span: Span::ALL, protocol: Some(17), ..question };
    let text = text(&ever, &made_up(&ever, &[], &[DAY]));
    assert_eq!(
        text,
        "203.0.113.7:40001, udp, at any time:\nNothing found.\n\
         Archives are of 2026-11-20 00:00:00.000 to 2026-11-20 23:59:59.999 +00:00.\n"
    );
}

#[test]
fn losses_stand_beside_the_answer() {
    let question = minute("203.0.113.7:40001");
    let mut answer = made_up(&question, &[], &[DAY]);
    let loss = |second: u64| Loss { at: at(50_700 + second), source: "ebpf".to_owned(), events: 5 };
    answer.losses = vec![loss(1)];
    let told = text(&question, &answer);
    assert!(told.ends_with(
        "Nothing found.\n\
         Lost in that time: 5 events by ebpf; what they told is not in the answer.\n  \
         2026-11-20 14:05:01.000 +00:00 5 events lost by ebpf\n"
    ));
    answer.losses = (0..12).map(loss).collect();
    let told = text(&question, &answer);
    assert!(told.contains(": 60 events by ebpf") && told.ends_with("  and 2 others\n"), "{told}");
    assert_eq!(told.matches("events lost by").count(), 10);
}

#[test]
fn where_clocks_are_set_each_time_has_its_offset() {
    // 2026-10-25 has 25 hours in Berlin, 2026-03-08 has 23 in New York; midnights in UTC.
    let hour = 3600 * 1_000_000_000;
    for (name, posix, midnight, hours, from, to) in [
        (
            "Berlin",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            1_792_879_200,
            25,
            "2026-10-25 00:00:00.000 +02:00",
            "2026-10-25 23:59:59.999 +01:00",
        ),
        (
            "New York",
            "EST5EDT,M3.2.0,M11.1.0",
            1_772_946_000,
            23,
            "2026-03-08 00:00:00.000 -05:00",
            "2026-03-08 23:59:59.999 -04:00",
        ),
    ] {
        let zone = TimeZone::posix(posix).unwrap();
        let first = midnight * 1_000_000_000;
        let day = Span { first, last: first + hours * hour - 1 };
        let question = Question { span: day, ..minute("203.0.113.7:40001") };
        let (before, after) = (first + hour, first + hours * hour - 2 * hour);
        let made = [
            ended(natted(40001), before, after),
            ended(natted(40001), after + 1, after + hour),
            begun(natted(40001), after + hour + 1),
        ];
        let earlier = Span { first: 0, last: first - 1 };
        let mut answer = made_up(&question, &made, &[earlier]);
        answer.losses = vec![Loss { at: before, source: "ebpf".to_owned(), events: 5 }];
        let text = super::answer(&question, &answer, &zone);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("203.0.113.7:40001, {from} to {to}:"), "{name}");
        let (old, new) = (&from[24..], &to[24..]);
        let day = &from[..10];
        assert!(
            lines[1]
                .starts_with(&format!("{day} 01:00:00.000 {old} to {day} 22:00:00.000 {new} tcp")),
            "{text}"
        );
        assert!(
            lines[2].starts_with(&format!("{day} 22:00:00.000 to {day} 23:00:00.000 {new} tcp")),
            "{text}"
        );
        assert!(lines[3].starts_with(&format!("{day} 23:00:00.000 {new} to ? ")), "{text}");
        assert!(text.contains(&format!("\n  {day} 01:00:00.000 {old} 5 events")), "{text}");
        assert!(
            text.contains(&format!("No archive knows what happened {from} to {to}.")),
            "{text}"
        );
    }
}

#[test]
fn what_is_missing_is_said_with_numbers_and_spans() {
    let question = minute("203.0.113.7:40001");
    let missing = |reason, records, [first, last]: [u64; 2], source: &str| Missing {
        gap: Gap::new(reason, (at(first), at(last)), records).at(source),
        archive: "/a.parquet".into(),
        of: "/a".to_owned(),
    };
    let mut answer = made_up(&question, &[], &[DAY]);
    answer.missing = vec![
        missing(Reason::Dropped, 22_065, [50_000, 50_710], ""),
        missing(Reason::Unsure, 3, [50_705, 50_706], ""),
        // Its row stands with the losses.
        missing(Reason::Lost, 7, [50_000, 50_720], "ebpf"),
        missing(Reason::Lost, 8, [50_000, 51_720], "ebpf"),
    ];
    answer.losses = vec![Loss { at: at(50_720), source: "ebpf".to_owned(), events: 7 }];
    answer.missing_later = vec![
        missing(Reason::Lost, 4, [60_000, 60_001], ""),
        missing(Reason::Dropped, 5, [61_000, 61_001], ""),
    ];
    assert_eq!(answer.verdict(), Verdict::Incomplete);
    assert_eq!(
        text(&question, &answer).split_once(":\n").unwrap().1,
        "Nothing found.\n\
         Lost in that time: 7 events by ebpf; what they told is not in the answer.\n  \
         2026-11-20 14:05:20.000 +00:00 7 events lost by ebpf\n\
         Incomplete: 22065 records of 2026-11-20 13:53:20.000 to 2026-11-20 14:05:10.000 +00:00 \
         found no room in the spool, and are not in /a.parquet.\n\
         Incomplete: 3 records of 2026-11-20 14:05:05.000 to 2026-11-20 14:05:06.000 +00:00 may be \
         missing in /a.parquet.\n\
         Incomplete: 8 records of 2026-11-20 13:53:20.000 to 2026-11-20 14:22:00.000 +00:00 were \
         lost before they came to /a.parquet.\n\
         Later 9 records were lost, of 2026-11-20 16:40:00.000 to 2026-11-20 16:56:41.000 +00:00: a \
         connection that ended then is not in the answer.\n"
    );
    answer.missing.clear();
    answer.losses.clear();
    assert_eq!(answer.verdict(), Verdict::Incomplete);
    answer.missing_later.clear();
    assert_eq!(answer.verdict(), Verdict::Nothing);
}

#[test]
fn what_archives_do_not_cover_is_said_with_their_names() {
    let question = minute("203.0.113.7:40001");
    let room = Room::new(100);
    let mut answers = Answers::new(&room);
    let half = Span { first: at(0), last: at(50_730) - 1 };
    answers.covered(covered("/a", DAY, true));
    answers.covered(covered("/b", half, true));
    answers.unchecked("/b".as_ref());
    let answer = Answer::new(&question, answers, Vec::new());
    assert_eq!(
        text(&question, &answer).split_once(":\n").unwrap().1,
        "Nothing found.\n\
         /b does not cover 2026-11-20 14:05:30.000 to 2026-11-20 14:05:59.999 +00:00.\n\
         Archives are of 2026-11-20 00:00:00.000 to 2026-11-20 23:59:59.999 +00:00.\n\
         Incomplete: /b was not checked, as that takes longer than 2 s; a damaged index would \
         hide a connection. Ask again with --verify.\n"
    );
    let mut answers = Answers::new(&room);
    answers.covered(covered("/a", Span { first: at(0), last: at(50_800) - 1 }, false));
    answers.covered(covered("/a", Span { first: at(50_900), last: at(60_000) - 1 }, false));
    let answer = Answer::new(&question, answers, Vec::new());
    assert_eq!(
        text(&question, &answer).split_once(":\n").unwrap().1,
        "Nothing found.\n\
         Incomplete: /a has the ends of connections alone, and does not cover 2026-11-20 \
         14:06:40.000 to 2026-11-20 14:08:19.999 +00:00: a connection that ended then is not in \
         the answer.\n\
         Incomplete: /a has the ends of connections alone, and covers no time from 2026-11-20 \
         16:40:00.000 +00:00 on: a connection that ended later, or lives, is not in the answer.\n"
    );
}

/// The answer without a time where nothing was found, of archives with these parts.
fn at_any_time(parts: Vec<Covered>) -> (Verdict, String) {
    let question = Question { span: Span::ALL, ..minute("203.0.113.7:40001") };
    let room = Room::new(100);
    let mut answers = Answers::new(&room);
    parts.into_iter().for_each(|part| answers.covered(part));
    let answer = Answer::new(&question, answers, Vec::new());
    let lines = text(&question, &answer);
    (answer.verdict(), lines.split_once("at any time:\nNothing found.\n").unwrap().1.to_owned())
}

/// Without a time: holes, of what time each archive is, and what those of ends alone do not know.
#[test]
fn at_any_time_is_the_time_of_archives() {
    let [morning, evening] = [(0, 30_000), (40_000, 86_400)]
        .map(|(from, to)| Span { first: at(from), last: at(to) - 1 });
    for (parts, verdict, lines) in [
        (
            vec![covered("/a", morning, true), covered("/a", evening, true)],
            Verdict::Incomplete,
            "No archive knows what happened 2026-11-20 08:20:00.000 to 2026-11-20 11:06:39.999 \
             +00:00.\n\
             Archives are of 2026-11-20 00:00:00.000 to 2026-11-20 23:59:59.999 +00:00.\n",
        ),
        (
            vec![covered("/a", morning, true), covered("/b", evening, true)],
            Verdict::Nothing,
            "/a is of 2026-11-20 00:00:00.000 to 2026-11-20 08:19:59.999 +00:00.\n\
             /b is of 2026-11-20 11:06:40.000 to 2026-11-20 23:59:59.999 +00:00.\n",
        ),
        (
            vec![covered("/a", morning, false)],
            Verdict::Incomplete,
            "Archives are of 2026-11-20 00:00:00.000 to 2026-11-20 08:19:59.999 +00:00.\n\
             Incomplete: /a has the ends of connections alone, and covers no time from 2026-11-20 \
             08:20:00.000 +00:00 on: a connection that ended later, or lives, is not in the \
             answer.\n",
        ),
        // One of which it is not known counts also where another says of which time it is.
        (
            vec![covered("/a", DAY, true), Covered { span: None, ..covered("/b", DAY, true) }],
            Verdict::Incomplete,
            "/b covers no time.\n\
             Archives are of 2026-11-20 00:00:00.000 to 2026-11-20 23:59:59.999 +00:00.\n",
        ),
    ] {
        assert_eq!(at_any_time(parts), (verdict, lines.to_owned()));
    }
}

#[test]
fn of_many_holes_some_are_lines() {
    let hole = |n: u64| covered("/a", Span { first: at(100 * n), last: at(100 * n + 50) }, true);
    let (verdict, lines) = at_any_time((0..13).map(hole).collect());
    assert_eq!((verdict, lines.matches("No archive knows").count()), (Verdict::Incomplete, 10));
    assert!(lines.contains("\n  and 2 others\n"), "{lines}");
}
