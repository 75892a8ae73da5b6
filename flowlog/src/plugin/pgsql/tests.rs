use tokio_postgres::config::Host;

use super::own::TABLES;
use super::record::{self, Encoder};
use super::*;
use crate::event::{ExpectAction, Expectation, Kinds, Lost, Witness};
use crate::flow::{Counters, Family, Flow, Tuple, proto};
use crate::plugin::compact::Record;
use crate::plugin::record_id::RecordId;
use crate::plugin::ship::Encode as _;
use crate::plugin::{Body, Item, Scratch};

const ID: RecordId = RecordId { time: 1_795_301_295_614_937_123, hash: 7 };

fn tuple(proto: u8, ports: (u16, u16)) -> Tuple {
    let mut tuple = Tuple { family: Family::V4, proto, ..Tuple::default() };
    tuple.src[..4].copy_from_slice(&[10, 77, 1, 2]);
    tuple.dst[..4].copy_from_slice(&[10, 77, 2, 2]);
    (tuple.src_l4, tuple.dst_l4) = ports;
    tuple
}

fn flow(orig: Tuple) -> Flow {
    let counters = Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 416 }]);
    Flow { reply: orig.inverse(), orig, counters, ..Flow::default() }
}

fn encoded(body: Body<'_>, tag: Kinds) -> Vec<u8> {
    let mut bytes = Vec::new();
    let item = Item { tag, at: ID.time, body };
    assert!(Encoder::default().encode(&item, ID, &Scratch::default(), &mut bytes));
    bytes
}

fn event(flow: &Flow, counted: bool) -> (Record, bool) {
    let body = Body::Flow {
        flow,
        start: Some(ID.time),
        end: None,
        how: None,
        counted,
        witness: Witness::Single,
    };
    let mut record = Record::default();
    let counted = record::read(&encoded(body, Kinds::NEW), &mut record).unwrap();
    (record, counted)
}

#[test]
fn what_was_spooled_is_read() {
    let flow = flow(tuple(proto::TCP, (40001, 9000)));
    for counted in [true, false] {
        let (record, told) = event(&flow, counted);
        assert_eq!((told, record.orig_sport, record.start), (counted, Some(40001), Some(ID.time)));
    }
    let mut record = Record::default();
    assert!(record::read(b"", &mut record).is_err());
    assert!(record::read(b"\0\xff\xff", &mut record).is_err());
}

/// Each row has as many values as its table has columns: the server would refuse it.
#[test]
fn rows_are_as_long_as_their_tables_are_wide() {
    let flow = flow(tuple(proto::TCP, (40001, 9000)));
    let expectation = Expectation {
        action: ExpectAction::New,
        tuple: flow.orig,
        master: flow.orig,
        zone: 0,
        helper: None,
        netns: None,
    };
    let lost = Lost::noticed("ebpf", 9, ID.time);
    let body = Body::Flow {
        flow: &flow,
        start: None,
        end: None,
        how: None,
        counted: false,
        witness: Witness::Single,
    };
    let mut rows = Box::<[copy::Rows; TABLES.len()]>::default();
    for (body, tag) in [
        (body, Kinds::NEW),
        (Body::Expectation(&expectation), Kinds::EXPECT),
        (Body::Lost(lost), Kinds::empty()),
    ] {
        let mut record = Record::default();
        record::read(&encoded(body, tag), &mut record).unwrap();
        own::fill(&record, ID, &mut rows);
    }
    for (table, rows) in TABLES.iter().zip(rows.iter_mut()) {
        let copied = rows.take();
        assert_eq!(copied.len(), 1, "{}", table.name);
        let [_, row, _] = copied.parts(0..1);
        let (count, mut rest) = row.split_at(2);
        let mut found = 0;
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            rest = &behind[length..];
            found += 1;
        }
        assert_eq!(found, table.columns().count(), "{}", table.name);
        assert_eq!(count, (found as u16).to_be_bytes(), "{}", table.name);
    }
}

/// Whoever knows one database knows the other.
#[test]
fn columns_have_the_names_of_sqlite3() {
    for (name, columns) in crate::plugin::sqlite3::own_names() {
        let table = TABLES.iter().find(|table| table.name == name).unwrap();
        let ours: Vec<_> = table.columns().map(|(name, _)| name).collect();
        for column in columns.iter().filter(|column| **column != "hash") {
            assert!(ours.contains(column), "{name} has no column {column}");
        }
    }
}

#[test]
fn docs_pgsql_explains_each_column() {
    let page = include_str!("../../../../docs/pgsql.md");
    for table in &TABLES {
        for (column, _) in table.columns() {
            assert!(
                page.contains(&format!("`{column}`")),
                "docs/pgsql.md: {}.{column}",
                table.name
            );
        }
    }
}

#[test]
fn procedures_are_those_of_ulogd() {
    assert_eq!(Procedure::read("insert"), Ok(Procedure::Insert));
    assert_eq!(Procedure::read(""), Ok(Procedure::Insert));
    let statement = "INSERT INTO other";
    assert_eq!(Procedure::read(statement), Ok(Procedure::Statement(statement.to_owned())));
    assert_eq!(Procedure::read("INSERT_CT"), Ok(Procedure::Function("INSERT_CT".to_owned())));
    assert!(Procedure::read("CALL insert_ct").is_err());
    assert_eq!(Procedure::read("aöö"), Ok(Procedure::Function("aöö".to_owned())));
}

#[test]
fn servers_are_named_for_people() {
    let target = |server: &str| Target {
        server: server.parse().unwrap(),
        tls: None,
        schema: "public".to_owned(),
        table: String::new(),
        procedure: Procedure::Insert,
    };
    let two = target("host=db1,fd00::1 port=1,2 dbname=log");
    assert_eq!(two.place(), "the database log at db1:1, [fd00::1]:2");
    let here = target("host=/run/pg dbname=log");
    assert_eq!(here.socket().unwrap().to_str(), Some("/run/pg/.s.PGSQL.5432"));
    assert!(matches!(here.server.get_hosts(), [Host::Unix(_)]));
}
