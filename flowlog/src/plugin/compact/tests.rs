//! The schema file is made of the message, another implementation reads what is
//! written, and nothing of a record is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};

use super::*;
use crate::event::{self, ExpectAction, Process, Witness as Told};
use crate::flow::{Counters, Name, Status};

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/fleet/flow.proto");
const WRITE: &str = "FLOWLOG_WRITE_PAGES";

/// `record.rs` as a schema of Protocol Buffers.
fn schema() -> String {
    let mut text =
        "// A record of flowlog, as `format=protobuf` and the archive's spool have it.\n\
                    // Made of flowlog/src/plugin/compact/record.rs; change that.\n\
                    syntax = \"proto3\";\n\npackage flowlog.v1;\n"
            .to_owned();
    let (mut kind, mut variants) = (String::new(), String::new());
    for line in include_str!("record.rs").lines() {
        let trimmed = line.trim();
        let indent = if line.starts_with(' ') { "  " } else { "" };
        if let Some(comment) = trimmed.strip_prefix("///") {
            let goes_on = text.lines().last().is_some_and(|last| last.starts_with("//"));
            text += if goes_on || !indent.is_empty() { "" } else { "\n" };
            text += &format!("{indent}//{comment}\n");
        } else if let Some(given) = trimmed.strip_prefix("#[prost(") {
            kind = given.trim_end_matches(")]").to_owned();
        } else if let Some(name) = trimmed.strip_prefix("pub struct ") {
            text += &format!("message {name}\n");
        } else if let Some(name) = trimmed.strip_prefix("pub enum ") {
            variants = name.trim_end_matches(" {").to_owned();
            text += &format!("enum {name}\n");
        } else if let Some(field) = trimmed.strip_prefix("pub ") {
            let (name, _) = field.split_once(':').unwrap();
            text += &self::field(&kind, name);
        } else if let Some((name, number)) = trimmed.trim_end_matches(',').split_once(" = ")
            && !variants.is_empty()
        {
            text += &format!("  {} = {number};\n", constant(&variants, name));
        } else if trimmed == "}" {
            text += "}\n";
        }
    }
    text
}

/// `fixed64, optional, tag = "8"` → `optional fixed64 start = 8;`
fn field(attribute: &str, name: &str) -> String {
    let parts: Vec<&str> = attribute.split(", ").collect();
    let number = parts.iter().find_map(|part| part.strip_prefix("tag = ")).unwrap();
    let optional = if parts.contains(&"optional") { "optional " } else { "" };
    let kind = match parts[0].split_once(" = ") {
        Some(("bytes", _)) => "bytes",
        Some((_, name)) => name.trim_matches('"'),
        None => parts[0],
    };
    format!("  {optional}{kind} {name} = {};\n", number.trim_matches('"'))
}

/// `Cause`, `ExpiredGc` → `CAUSE_EXPIRED_GC`
fn constant(kind: &str, variant: &str) -> String {
    let words = variant.chars().fold(String::new(), |words, letter| {
        let before = if letter.is_uppercase() { "_" } else { "" };
        words + before + &letter.to_ascii_uppercase().to_string()
    });
    format!("{}{words}", kind.to_ascii_uppercase())
}

#[test]
fn the_schema_file_is_made_of_the_message() {
    let path = PathBuf::from(PROTO);
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, schema()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == schema(),
        "conf/fleet/flow.proto is not what record.rs says; run\n  {WRITE}=1 cargo test -p flowlog \
         schema_file"
    );
}

fn tuple(family: Family, proto: u8, ports: (u16, u16)) -> Tuple {
    Tuple { family, proto, src: [1; 16], dst: [2; 16], src_l4: ports.0, dst_l4: ports.1 }
}

fn flow() -> Flow {
    let orig = tuple(Family::V4, proto::TCP, (40000, 443));
    let mut reply = orig.inverse();
    (reply.dst, reply.dst_l4) = ([3; 16], 50000);
    Flow {
        orig,
        reply,
        status: Status::SRC_NAT | Status::ASSURED,
        counters: Some([Counters { packets: 1, bytes: 2 }, Counters { packets: 0, bytes: 0 }]),
        zone: 5,
        mark: 6,
        id: Some(7),
        timeout: Some(8),
        l4_state: Some(3),
        helper: Some(Name::new(b"ftp")),
        labels: Some([9; 16]),
        master: Some(tuple(Family::V6, proto::GRE, (10, 11))),
        netns: Some(Netns { cookie: Some(12), inum: 13 }),
        ..Flow::default()
    }
}

fn end() -> End {
    let comm = Name::new(b"\xffoo");
    End { cause: event::Cause::Deleted, portid: Some(14), process: Some(Process { pid: 15, comm }) }
}

fn item<'a>(flow: &'a Flow, end: &'a End) -> Item<'a> {
    let body = Body::Flow {
        flow,
        start: Some(20),
        end: Some(21),
        how: Some(end),
        counted: true,
        witness: Told::Healed,
    };
    Item { tag: Kinds::DESTROY | Kinds::GC, at: 22, body }
}

/// Fields that are there, by an implementation that knows the schema file only.
fn read_by_others(bytes: &[u8]) -> BTreeMap<String, Value> {
    let directory = PathBuf::from(PROTO);
    let files = protox::compile(["flow.proto"], [directory.parent().unwrap()]).unwrap();
    let pool = prost_reflect::DescriptorPool::from_file_descriptor_set(files).unwrap();
    let record = pool.get_message_by_name("flowlog.v1.Record").unwrap();
    let message = DynamicMessage::decode(record, bytes).unwrap();
    assert_eq!(message.unknown_fields().count(), 0);
    assert_eq!(message.descriptor().fields().count(), 45);
    message.fields().map(|(field, value)| (field.name().to_owned(), value.clone())).collect()
}

#[test]
fn others_read_a_flow_by_the_schema_file() {
    let (flow, end) = (flow(), end());
    let mut bytes = Vec::new();
    let id = RecordId { time: 22, hash: 23 };
    Encoder::of_host("h").encode(&item(&flow, &end), Some(id), &mut bytes);
    let address = |byte, length| Value::Bytes(vec![byte; length].into());
    let expected = [
        ("time", Value::U64(22)),
        ("kinds", Value::U32(0x84)),
        ("protocol", Value::U32(6)),
        ("orig_src", address(1, 4)),
        ("orig_sport", Value::U32(40000)),
        ("orig_dst", address(2, 4)),
        ("orig_dport", Value::U32(443)),
        ("start", Value::U64(20)),
        ("stop", Value::U64(21)),
        ("orig_packets", Value::U64(1)),
        ("orig_bytes", Value::U64(2)),
        ("reply_packets", Value::U64(0)),
        ("reply_bytes", Value::U64(0)),
        ("status", Value::U32(0x14)),
        ("state", Value::U32(3)),
        ("cause", Value::EnumNumber(4)),
        ("netns_inode", Value::U32(13)),
        ("netns_cookie", Value::U64(12)),
        ("zone", Value::U32(5)),
        ("mark", Value::U32(6)),
        ("ct_id", Value::U32(7)),
        ("nat_src", address(3, 4)),
        ("nat_sport", Value::U32(50000)),
        ("helper", Value::String("ftp".to_owned())),
        ("labels", address(9, 16)),
        ("master_protocol", Value::U32(47)),
        ("master_src", address(1, 16)),
        ("master_sport", Value::U32(10)),
        ("master_dst", address(2, 16)),
        ("master_dport", Value::U32(11)),
        ("portid", Value::U32(14)),
        ("pid", Value::U32(15)),
        ("comm", Value::String("\u{fffd}oo".to_owned())),
        ("witness", Value::EnumNumber(3)),
        ("timeout", Value::U32(8)),
        ("host", Value::String("h".to_owned())),
        ("hash", Value::U64(23)),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(read_by_others(&bytes), BTreeMap::from(expected));
}

#[test]
fn others_read_expectations_and_losses() {
    let expectation = Expectation {
        action: ExpectAction::Destroy,
        tuple: tuple(Family::V4, proto::TCP, (0, 20)),
        master: tuple(Family::V4, proto::TCP, (1, 21)),
        zone: 0,
        helper: None,
        netns: None,
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new();
    let body = Body::Expectation(&expectation);
    encoder.encode(&Item { tag: Kinds::EXPECT, at: 1, body }, None, &mut bytes);
    let fields = read_by_others(&bytes);
    assert_eq!(fields["action"], Value::EnumNumber(3));
    assert_eq!((&fields["orig_sport"], &fields["orig_dport"]), (&Value::U32(0), &Value::U32(20)));
    assert_eq!(fields["master_dport"], Value::U32(21));
    assert!(!fields.contains_key("hash") && !fields.contains_key("host"));
    // What the one before had is gone.
    bytes.clear();
    let body = Body::Lost(Lost { since: 1, ..Lost::noticed("ebpf", 7, 2) });
    encoder.encode(&Item { tag: Kinds::empty(), at: 2, body }, None, &mut bytes);
    let fields = read_by_others(&bytes);
    assert_eq!(fields["lost_source"], Value::String("ebpf".to_owned()));
    assert_eq!(fields["lost_since"], Value::U64(1));
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["lost_events", "lost_since", "lost_source", "time"]
    );
}

#[test]
fn a_record_is_read_as_it_was_written_and_in_place() {
    let (flow, end) = (flow(), end());
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    encoder.encode(&item(&flow, &end), None, &mut bytes);
    let mut record = Record { host: "old".to_owned(), lost_events: 9, ..Record::default() };
    record.read(&bytes).unwrap();
    assert_eq!(record, encoder.0);
    assert_eq!((record.kinds(), record.lost_events), (Kinds::DESTROY | Kinds::GC, 0));
    assert!(record.read(&bytes[..bytes.len() - 1]).is_err());
    record.read(&[]).unwrap();
    assert_eq!(record, Record::default());
}

#[test]
fn each_number_keeps_its_meaning() {
    let none = Record::default();
    assert_eq!((none.ended_by(), none.done(), none.state_name()), (None, None, None));
    for (index, cause) in event::Cause::ALL.into_iter().enumerate() {
        let number = Cause::from(cause) as i32;
        assert_eq!(number as usize, index + 1, "{}", cause.name());
        assert_eq!(Record { cause: number, ..Record::default() }.ended_by(), Some(cause));
    }
    for (index, told) in [Told::Single, Told::Both, Told::Ebpf, Told::Healed].iter().enumerate() {
        let witness = Witness::from(*told) as i32;
        assert_eq!(witness as usize, index);
        assert_eq!(Record { witness, ..Record::default() }.told_by(), *told);
    }
    for done in [ExpectAction::New, ExpectAction::Update, ExpectAction::Destroy] {
        let action = Action::from(done) as i32;
        assert_eq!(Record { action, ..Record::default() }.done(), Some(done));
    }
}

#[test]
fn zero_is_not_absent() {
    let process = Process { pid: 0, comm: Name::new(b"") };
    let end = End { cause: event::Cause::Other, portid: None, process: Some(process) };
    let mut record = Record::default();
    record.end(&end);
    assert_eq!((record.pid, record.comm.as_deref()), (Some(0), Some("")));
}
