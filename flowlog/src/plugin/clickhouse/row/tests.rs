use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::*;
use crate::event::{End, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::{Counters, Family, Flow, Name, Netns, Status, Tuple, proto};
use crate::plugin::compact::Encoder;
use crate::plugin::{Body, Item};

/// A value, as one who knows the column's type reads it.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(u64),
    Text(String),
    Sixteen([u8; 16]),
}

/// Reads a row as ClickHouse does; nothing may be left.
fn read(mut bytes: &[u8]) -> HashMap<&'static str, Value> {
    let mut row = HashMap::new();
    for (name, kind) in COLUMNS {
        let (value, rest) = match kind {
            "String" => {
                let (length, rest) = (usize::from(bytes[0]), &bytes[1..]);
                assert!(length < 0x80, "{name}");
                (Value::Text(str::from_utf8(&rest[..length]).unwrap().to_owned()), &rest[length..])
            }
            "FixedString(16)" => (Value::Sixteen(bytes[..16].try_into().unwrap()), &bytes[16..]),
            _ => {
                let digits = kind.trim_start_matches(|c: char| !c.is_ascii_digit());
                let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap();
                let length = digits.parse::<usize>().unwrap() / 8;
                let mut number = [0; 8];
                number[..length].copy_from_slice(&bytes[..length]);
                (Value::Number(u64::from_le_bytes(number)), &bytes[length..])
            }
        };
        row.insert(name, value);
        bytes = rest;
    }
    assert_eq!(bytes, b"");
    row
}

fn row(item: &Item<'_>) -> HashMap<&'static str, Value> {
    let mut body = Vec::new();
    Encoder::new().encode(item, None, &mut body);
    let mut record = Record::default();
    record.read(&body).unwrap();
    let mut bytes = Vec::new();
    write(&record, RecordId { time: item.at, hash: u64::MAX - 1 }, "gate", &mut bytes);
    read(&bytes)
}

fn flow_item<'a>(flow: &'a Flow, how: Option<&'a End>, witness: Witness) -> Item<'a> {
    let (start, end) = (Some(5), Some(9));
    let body = Body::Flow { flow, start, end, how, counted: true, witness };
    Item { tag: Kinds::DESTROY | Kinds::GC, at: 1_795_309_635_000_000_007, body }
}

fn tuple(source: &str, sport: u16, destination: &str, dport: u16, proto: u8) -> Tuple {
    let bytes = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(v4) => {
            let mut all = [0; 16];
            all[..4].copy_from_slice(&v4.octets());
            (Family::V4, all)
        }
        IpAddr::V6(v6) => (Family::V6, v6.octets()),
    };
    let ((family, src), (_, dst)) = (bytes(source), bytes(destination));
    Tuple { family, proto, src, dst, src_l4: sport, dst_l4: dport }
}

fn number(value: u64) -> Value {
    Value::Number(value)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn address(value: &str) -> Value {
    Value::Sixteen(value.parse::<Ipv6Addr>().unwrap().octets())
}

fn assert_has(row: &HashMap<&str, Value>, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(&row[name], value, "{name}");
    }
}

#[test]
fn a_translated_flow_has_both_tuples() {
    let flow = Flow {
        orig: tuple("10.0.0.1", 40_000, "192.0.2.1", 443, proto::TCP),
        reply: tuple("192.0.2.1", 443, "203.0.113.7", 1024, proto::TCP),
        status: Status::ASSURED | Status::SRC_NAT,
        counters: Some([
            Counters { packets: 1, bytes: 1 << 40 },
            Counters { packets: 3, bytes: 4 },
        ]),
        zone: 7,
        mark: 0xdead_beef,
        id: Some(11),
        timeout: Some(12),
        l4_state: Some(3),
        helper: Some(Name::new(b"ftp")),
        labels: Some([9; 16]),
        master: Some(tuple("2001:db8::1", 1, "2001:db8::2", 2, proto::UDP)),
        netns: Some(Netns { cookie: Some(1 << 50), inum: 4_026_532_210 }),
        ..Flow::default()
    };
    let process = Some(Process { pid: 77, comm: Name::new(b"conntrack") });
    let how = End { cause: Cause::Deleted, portid: Some(88), process };
    let row = row(&flow_item(&flow, Some(&how), Witness::Both));
    assert_has(
        &row,
        &[
            ("time", number(1_795_309_635_000_000_007)),
            ("hash", number(u64::MAX - 1)),
            ("host", text("gate")),
            ("type", number(1)),
            ("kinds", number(0x84)),
            ("action", text("")),
            ("protocol", number(6)),
            ("orig_src", address("::ffff:10.0.0.1")),
            ("orig_sport", number(40_000)),
            ("orig_dst", address("::ffff:192.0.2.1")),
            ("orig_dport", number(443)),
            ("reply_src", address("::ffff:192.0.2.1")),
            ("reply_sport", number(443)),
            ("reply_dst", address("::ffff:203.0.113.7")),
            ("reply_dport", number(1024)),
            ("nat", number(1)),
            ("counted", number(1)),
            ("orig_packets", number(1)),
            ("orig_bytes", number(1 << 40)),
            ("reply_packets", number(3)),
            ("reply_bytes", number(4)),
            ("start", number(5)),
            ("stop", number(9)),
            ("timeout", number(12)),
            ("zone", number(7)),
            ("mark", number(0xdead_beef)),
            ("ct_id", number(11)),
            ("netns_cookie", number(1 << 50)),
            ("netns_inode", number(4_026_532_210)),
            ("status", number(0x14)),
            ("state", text("ESTABLISHED")),
            ("helper", text("ftp")),
            ("labels", Value::Sixteen([9; 16])),
            ("master_protocol", number(17)),
            ("master_src", address("2001:db8::1")),
            ("master_sport", number(1)),
            ("master_dst", address("2001:db8::2")),
            ("master_dport", number(2)),
            ("cause", text("deleted")),
            ("portid", number(88)),
            ("pid", number(77)),
            ("comm", text("conntrack")),
            ("witness", text("both")),
            ("source", text("")),
            ("events", number(0)),
        ],
    );
}

#[test]
fn what_is_not_known_is_nothing() {
    let orig = tuple("2001:db8::1", 9, "2001:db8::2", 53, proto::UDP);
    let flow = Flow { orig, reply: orig.inverse(), ..Flow::default() };
    let row = row(&flow_item(&flow, None, Witness::Single));
    let absent = ["nat", "icmp_type", "counted", "orig_packets", "timeout", "ct_id", "pid"];
    assert_has(&row, &absent.map(|name| (name, number(0))));
    assert_has(&row, &["state", "helper", "cause", "comm", "witness"].map(|n| (n, text(""))));
    assert_has(&row, &[("reply_dst", address("2001:db8::1")), ("reply_dport", number(9))]);
    assert_has(&row, &[("labels", Value::Sixteen([0; 16])), ("master_src", address("::"))]);
}

/// Its identifier is in the source of both directions, also where NAT has changed it.
#[test]
fn icmp_has_its_identifier() {
    for (proto, public) in [(proto::ICMP, 78), (proto::ICMP, 79)] {
        let flow = Flow {
            orig: tuple("10.0.0.1", 78, "192.0.2.1", 0x0803, proto),
            reply: tuple("192.0.2.1", public, "203.0.113.7", 0x0003, proto),
            ..Flow::default()
        };
        let row = row(&flow_item(&flow, None, Witness::Single));
        assert_has(
            &row,
            &[
                ("nat", number(1)),
                ("orig_sport", number(78)),
                ("orig_dport", number(0)),
                ("icmp_type", number(8)),
                ("icmp_code", number(3)),
                ("reply_src", address("::ffff:192.0.2.1")),
                ("reply_sport", number(public.into())),
                ("reply_dst", address("::ffff:203.0.113.7")),
                ("reply_dport", number(0)),
            ],
        );
    }
}

#[test]
fn expectations_and_losses_are_rows_too() {
    let expectation = Expectation {
        action: ExpectAction::Destroy,
        tuple: tuple("10.0.0.1", 0, "192.0.2.1", 2121, proto::TCP),
        master: tuple("10.0.0.1", 40_000, "192.0.2.1", 21, proto::TCP),
        zone: 3,
        helper: Some(Name::new(b"ftp")),
        netns: None,
    };
    let item = Item { tag: Kinds::EXPECT, at: 3, body: Body::Expectation(&expectation) };
    assert_has(
        &row(&item),
        &[
            ("type", number(2)),
            ("kinds", number(0x20)),
            ("action", text("destroy")),
            ("orig_dst", address("::ffff:192.0.2.1")),
            ("orig_dport", number(2121)),
            ("reply_dst", address("::")),
            ("reply_sport", number(0)),
            ("nat", number(0)),
            ("master_sport", number(40_000)),
            ("helper", text("ftp")),
        ],
    );
    let lost = Lost::noticed("ebpf", 1234, 4);
    let item = Item { tag: Kinds::empty(), at: 4, body: Body::Lost(lost) };
    assert_has(
        &row(&item),
        &[
            ("type", number(3)),
            ("kinds", number(0)),
            ("source", text("ebpf")),
            ("events", number(1234)),
            ("orig_src", address("::")),
        ],
    );
}

#[test]
fn all_words_are_those_of_other_sinks() {
    let flow = Flow::default();
    for cause in Cause::ALL {
        let how = End { cause, portid: None, process: None };
        let row = row(&flow_item(&flow, Some(&how), Witness::Single));
        assert_has(&row, &[("cause", text(cause.name()))]);
    }
    for witness in [Witness::Both, Witness::Ebpf, Witness::Healed] {
        let row = row(&flow_item(&flow, None, witness));
        assert_has(&row, &[("witness", text(witness.name().unwrap()))]);
    }
}

#[test]
fn a_long_text_has_its_length_in_two_bytes() {
    let mut bytes = Vec::new();
    Row(&mut bytes).text(&"x".repeat(300));
    assert_eq!((bytes.len(), &bytes[..3]), (302, &[0xac, 2, b'x'][..]));
}

/// The columns of the file that makes the table, in its order; others are made there.
#[test]
fn the_columns_are_those_of_the_file() {
    let file = include_str!("../../../../../conf/fleet/clickhouse.sql");
    let (_, table) = file.split_once("flowlog.flow (\n").unwrap();
    let (columns, _) = table.split_once("\n)\n").unwrap();
    let lines = columns.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let written = lines.take_while(|line| !line.is_empty()).map(|line| {
        let (name, kind) = line.trim_end_matches(',').split_once(' ').unwrap();
        (name, kind)
    });
    assert_eq!(written.collect::<Vec<_>>(), COLUMNS);
}
