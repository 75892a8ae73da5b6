//! Objects of made-up answers.

use super::super::asked::{Answers, Room};
use super::super::tests::{at, ended, natted, question};
use super::super::text::tests::{covered, made_up};
use super::*;

const DAY: Span = Span { first: at(0), last: at(86_400) - 1 };

#[test]
fn a_connection_has_the_members_of_a_flow() {
    let mut asked = question("203.0.113.7:40001", at(50_700), at(50_760) - 1);
    asked.protocol = Some(6);
    let made = [ended(natted(40001), at(50_600), at(50_710))];
    let mut answer = made_up(&asked, &made, &[DAY]);
    assert_eq!(object(&asked, &answer)["verdict"], "found");
    answer.losses = vec![Loss { at: at(50_701), source: "ebpf".to_owned(), events: 5 }];
    assert_eq!(
        object(&asked, &answer),
        json!({
            "question": {
                "address": "203.0.113.7", "port": 40001, "protocol": 6,
                "from": "2026-11-20T14:05:00.000000000Z", "to": "2026-11-20T14:05:59.999999999Z",
            },
            "verdict": "incomplete",
            "connections": [{
                "family": "ipv4",
                "protocol": { "name": "tcp", "number": 6 },
                "orig": { "src": "10.0.0.5", "dst": "198.51.100.9", "sport": 40001, "dport": 443 },
                "reply": { "src": "198.51.100.9", "dst": "203.0.113.7", "sport": 443, "dport": 40001 },
                "status": ["seen_reply", "confirmed"],
                "mark": 0,
                "zone": 0,
                "start": "2026-11-20T14:03:20.000000000Z",
                "netns": { "cookie": 9, "inum": 4026531840_u32 },
                "end": "2026-11-20T14:05:10.000000000Z",
                "cause": "expired_gc",
                "matched": ["reply_dst"],
                "records": 1,
            }],
            "lost": [{ "time": "2026-11-20T14:05:01.000000000Z", "source": "ebpf", "events": 5 }],
            "missing": [],
            "missing_later": [],
            "unknown": [],
            "unknown_later": [],
            "known": [{ "from": "2026-11-20T00:00:00.000000000Z", "to": "2026-11-20T23:59:59.999999999Z" }],
            "archives": [{
                "archive": "/a",
                "from": "2026-11-20T00:00:00.000000000Z",
                "to": "2026-11-20T23:59:59.999999999Z",
            }],
            "problems": [],
            "more": false,
            "unverified": [],
            "unchecked": [],
        })
    );
}

#[test]
fn verdicts_are_words() {
    let asked = question("203.0.113.7", at(50_700), at(50_760) - 1);
    let verdict = |answer: &Answer| object(&asked, answer)["verdict"].clone();
    let part = Span { first: at(0), last: at(50_710) };
    assert_eq!(verdict(&made_up(&asked, &[], &[DAY])), "nothing");
    assert_eq!(verdict(&made_up(&asked, &[], &[])), "no_data");
    assert_eq!(verdict(&made_up(&asked, &[], &[part])), "incomplete");
    let mut damaged = made_up(&asked, &[], &[DAY]);
    damaged.problems.push("a.parquet: it is damaged".to_owned());
    assert_eq!(verdict(&damaged), "incomplete");
    let mut unchecked = made_up(&asked, &[], &[DAY]);
    unchecked.unchecked.push("a.db".into());
    assert_eq!(verdict(&unchecked), "incomplete");
    let room = Room::new(1);
    let mut answers = Answers::new(&room);
    answers.covered(covered("/a", Span { last: at(50_759), ..DAY }, false));
    let ends = object(&asked, &Answer::new(&asked, answers, Vec::new()));
    assert_eq!(
        (&ends["unknown"], &ends["unknown_later"]),
        (
            &json!([{
                "from": "2026-11-20T14:05:59.000000001Z", "to": "2026-11-20T14:05:59.999999999Z",
                "archive": "/a",
            }]),
            &json!([{ "from": "2026-11-20T14:06:00.000000000Z", "archive": "/a" }]),
        )
    );
    let ever = Question { span: Span::ALL, ..asked };
    let object = object(&ever, &made_up(&ever, &[], &[DAY]));
    assert_eq!(object["question"], json!({ "address": "203.0.113.7" }));
    assert_eq!(object["verdict"], "nothing");
}
