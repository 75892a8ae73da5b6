use std::fs;
use std::time::{Duration, Instant};

use super::*;
use crate::event::{Cause, Comm, End, ExpectAction, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::{Counters, Family, Flow, HelperName, Netns, Status, Tuple, proto};
use crate::plugin::Body;
use crate::stats::{Measure, SinkStats};

mod awaited;
mod clock;
mod coverage;
mod faults;
mod replaced;
mod rotation;

const AT: u64 = 1_795_301_298_647_593_001;
/// ulogd2's doc/sqlite3.table, and what else NFCT and IP2STR provide.
const ULOG_CT: &str = "CREATE TABLE ulog_ct (flow_start_sec integer, flow_start_usec integer, \
    flow_end_sec integer, flow_end_usec integer, orig_ip_saddr integer, orig_ip_daddr integer, \
    orig_l4_sport integer, orig_l4_dport integer, orig_ip_protocol integer, icmp_type integer, \
    icmp_code integer, orig_raw_pktlen integer, orig_raw_pktcount integer, \
    reply_raw_pktlen integer, reply_raw_pktcount integer, ct_mark integer, ct_id integer, \
    ct_event integer, reply_ip_daddr_str text, oob_family integer)";

/// A directory with a database, and what is said of it.
struct Place {
    directory: tempfile::TempDir,
    settings: Settings,
    stats: SinkStats,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("flow.db");
        let settings = Settings { db, table: String::new(), sync: true, buffer_max: 1 << 20 };
        Self { directory, settings, stats: SinkStats::default() }
    }

    /// With a table of ulogd2, which is to be written.
    fn with_table(create: &str) -> Self {
        let mut place = Self::new();
        place.other().execute_batch(create).unwrap();
        place.settings.table = "ulog_ct".to_owned();
        place
    }

    fn sink(&self) -> Sqlite3 {
        Sqlite3::open(&self.settings, self.stats.clone()).unwrap()
    }

    fn refusal(&self) -> String {
        Sqlite3::open(&self.settings, self.stats.clone()).map(|_| ()).unwrap_err().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Another process's connection.
    fn other(&self) -> Connection {
        Connection::open(&self.settings.db).unwrap()
    }

    /// The rows that a query finds, their columns joined by blanks.
    fn ask(&self, query: &str) -> Vec<String> {
        rows(&self.other(), query)
    }

    fn count(&self, counter: Measure) -> u64 {
        self.stats.get(counter)
    }
}

fn rows(connection: &Connection, query: &str) -> Vec<String> {
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let text = |row: &rusqlite::Row<'_>| {
        let cells = (0..columns).map(|column| match row.get_ref(column).unwrap() {
            rusqlite::types::ValueRef::Null => "-".to_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        });
        Ok(cells.collect::<Vec<_>>().join(" "))
    };
    statement.query_map([], text).unwrap().map(Result::unwrap).collect()
}

fn address(bytes: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&bytes);
    address
}

/// A connection from 10.77.1.2 that leaves as 10.77.2.1.
fn tcp(port: u16) -> Flow {
    let orig = Tuple {
        family: Family::V4,
        proto: proto::TCP,
        src: address([10, 77, 1, 2]),
        dst: address([10, 77, 2, 2]),
        src_l4: port,
        dst_l4: 9000,
    };
    let reply = Tuple { dst: address([10, 77, 2, 1]), dst_l4: 1024, ..orig.inverse() };
    Flow {
        orig,
        reply,
        status: Status::CONFIRMED | Status::SRC_NAT,
        counters: Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 416 }]),
        zone: 7,
        mark: 0x8000_0001,
        id: Some(0xffff_fffe),
        l4_state: Some(7),
        helper: Some(HelperName::new(b"ftp")),
        netns: Some(Netns { cookie: Some(4097), inum: 4_026_531_840 }),
        ..Flow::default()
    }
}

const END: End = End { cause: Cause::Deleted, portid: Some(1712), process: None };

fn item<'a>(tag: Kinds, flow: &'a Flow, how: Option<&'a End>) -> Item<'a> {
    let over = tag.contains(Kinds::DESTROY);
    Item {
        tag,
        at: AT,
        body: Body::Flow {
            flow,
            start: Some(1_795_301_295_614_937_999),
            end: over.then_some(AT),
            how,
            counted: over,
            witness: Witness::Both,
        },
    }
}

fn push(sink: &mut Sqlite3, item: &Item<'_>) {
    sink.push(item, &Scratch::default());
}

/// Does what the engine does until it is so.
fn until(sink: &mut Sqlite3, what: &str, mut is_so: impl FnMut(&Sqlite3) -> bool) {
    let begin = Instant::now();
    sink.output.begin();
    sink.output.flush();
    while !is_so(sink) {
        assert!(begin.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
        sink.output.flush();
    }
}

/// Until nothing waits.
fn settle(sink: &mut Sqlite3) {
    until(sink, "all is written", |sink| sink.output.fill().0 == 0);
}

fn database(sink: &Sqlite3) -> &DatabaseOutput {
    let Output::Database(database) = &sink.output else { panic!() };
    database
}

#[test]
fn a_flow_is_kept_with_all_that_is_known() {
    let place = Place::new();
    let mut sink = place.sink();
    let flow = tcp(40001);
    let process = Some(Process { pid: 12, comm: Comm::new(b"connt\xffck") });
    let end = End { process, ..END };
    push(&mut sink, &item(Kinds::NEW, &flow, None));
    push(&mut sink, &item(Kinds::DESTROY | Kinds::GC, &flow, Some(&end)));
    settle(&mut sink);
    assert_eq!(
        place.ask(
            "SELECT time, kind, start, stop, protocol, orig_src, orig_sport, orig_dst, \
             orig_dport, reply_src, reply_sport, reply_dst, reply_dport, nat FROM flow ORDER BY \
             length(kind)"
        ),
        [
            "1795301298647593001 new 1795301295614937999 - 6 10.77.1.2 40001 10.77.2.2 9000 \
             10.77.2.2 9000 10.77.2.1 1024 1",
            "1795301298647593001 destroy,gc 1795301295614937999 1795301298647593001 6 10.77.1.2 \
             40001 10.77.2.2 9000 10.77.2.2 9000 10.77.2.1 1024 1",
        ]
    );
    assert_eq!(
        place.ask(
            "SELECT icmp_type, orig_packets, orig_bytes, reply_packets, reply_bytes, zone, mark, \
             ct_id, netns_cookie, netns_inode, status, state, helper, labels, master_src, cause, \
             portid, pid, comm, witness FROM flow WHERE kind <> 'new'"
        ),
        [
            "- 6 420 4 416 7 2147483649 4294967294 4097 4026531840 24 TIME_WAIT ftp - - deleted 1712 \
          12 connt\u{fffd}ck both"
        ]
    );
    let id = Identifier::of_this_host().id(&item(Kinds::NEW, &flow, None)).to_string();
    assert_eq!(place.ask("SELECT record_id FROM flow WHERE kind = 'new'"), [id]);
    assert_eq!(place.count(Measure::Records), 2);
}

#[test]
fn expectations_losses_and_icmp_are_kept() {
    let place = Place::new();
    let mut sink = place.sink();
    let mut flow = tcp(0);
    flow.orig = Tuple { proto: proto::ICMP, src_l4: 77, dst_l4: 0x0800, ..flow.orig };
    flow.reply = Tuple { dst: flow.orig.src, dst_l4: 0, ..flow.orig.inverse() };
    flow.reply.src_l4 = 77;
    push(&mut sink, &item(Kinds::NEW, &flow, None));
    let expectation = Expectation {
        action: ExpectAction::New,
        tuple: Tuple { src_l4: 0, dst_l4: 5000, ..tcp(0).orig },
        master: tcp(40001).orig,
        zone: 0,
        helper: Some(HelperName::new(b"ftp")),
        netns: None,
    };
    let body = Body::Expectation(&expectation);
    push(&mut sink, &Item { tag: Kinds::EXPECT, at: AT, body });
    let lost = Body::Lost(Lost::noticed("ebpf", 9, AT));
    push(&mut sink, &Item { tag: Kinds::empty(), at: AT, body: lost });
    settle(&mut sink);
    assert_eq!(
        place.ask("SELECT orig_sport, orig_dport, icmp_type, icmp_code, nat FROM flow"),
        ["77 - 8 0 0"]
    );
    assert_eq!(
        place.ask("SELECT action, src, dst, dport, master_sport, helper FROM expectation"),
        ["new 10.77.1.2 10.77.2.2 5000 40001 ftp"]
    );
    assert_eq!(place.ask("SELECT time, source, events FROM lost"), [format!("{AT} ebpf 9")]);
}

/// Who had this address and port, on either side of NAT: no table is read whole.
#[test]
fn look_ups_use_indexes() {
    let place = Place::new();
    drop(place.sink());
    for (what, search) in [
        ("orig_src = '10.77.1.2' AND orig_sport = 4", "(orig_src=? AND orig_sport=? AND time>?)"),
        ("orig_dst = '10.77.2.2' AND orig_dport = 4", "(orig_dst=? AND orig_dport=? AND time>?)"),
        ("nat <> 0 AND reply_dst = '10.77.2.1'", "flow_reply_dst (reply_dst=?)"),
        ("nat <> 0 AND reply_src = '10.77.2.1'", "flow_reply_src (reply_src=?)"),
        ("1", "PRIMARY KEY (time>?)"),
    ] {
        let plan = format!("EXPLAIN QUERY PLAN SELECT * FROM flow WHERE {what} AND time >= 5");
        let plan = place.ask(&plan).join("\n");
        assert!(plan.contains(search) && !plan.contains("SCAN"), "{what}: {plan}");
    }
}

/// Without `sync` what comes within a moment is one transaction.
#[test]
fn rows_gather_for_a_moment() {
    let mut place = Place::new();
    place.settings.sync = false;
    let mut sink = place.sink();
    until(&mut sink, "its beginning is noted", |_| place.ask("SELECT * FROM coverage").len() == 1);
    assert!(sink.output.retry_in().unwrap() > Duration::from_secs(1), "nothing waits");
    for port in 1..=3 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
        sink.output.flush();
    }
    let soon = sink.output.retry_in().unwrap();
    assert!(soon > Duration::ZERO, "it is written at once");
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["0"]);
    std::thread::sleep(soon);
    settle(&mut sink);
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["3"]);
    assert!(sink.output.retry_in().unwrap() > Duration::from_secs(1));
}

#[test]
fn docs_sqlite_explains_each_column() {
    let page = include_str!("../../../../docs/sqlite.md");
    for (table, columns) in own::names() {
        for column in columns {
            assert!(page.contains(&format!("`{column}`")), "docs/sqlite.md: {table}.{column}");
        }
    }
    for word in ["checksum", "coverage", "run", "lost", "refused", "unsure", "XXH64"] {
        assert!(page.contains(word), "docs/sqlite.md: {word}");
    }
}

#[test]
fn a_record_that_comes_twice_is_recognised() {
    let place = Place::new();
    let flows: Vec<Flow> = (1..=300).map(tcp).collect();
    for _ in 0..2 {
        let mut sink = place.sink();
        for flow in &flows {
            push(&mut sink, &item(Kinds::DESTROY, flow, Some(&END)));
        }
        sink.output.close();
    }
    assert_eq!(place.ask("SELECT count(*), count(DISTINCT record_id) FROM flow"), ["300 300"]);
    assert_eq!(place.count(Measure::Records), 300);
    assert_eq!(place.count(Measure::Repeated), 300);
}

/// The numbers are those of ulogd2 2.0.8 of such a flow.
#[test]
fn the_columns_of_a_table_of_ulogd_decide() {
    let place = Place::with_table(ULOG_CT);
    let mut sink = place.sink();
    let flow = tcp(40001);
    push(&mut sink, &item(Kinds::NEW, &flow, None));
    push(&mut sink, &item(Kinds::DESTROY, &flow, Some(&END)));
    let mut v6 = tcp(40002);
    v6.orig.family = Family::V6;
    v6.reply.family = Family::V6;
    push(&mut sink, &item(Kinds::NEW, &v6, None));
    // Rows of flows alone.
    let lost = Body::Lost(Lost::noticed("ebpf", 9, AT));
    push(&mut sink, &Item { tag: Kinds::empty(), at: AT, body: lost });
    sink.output.close();
    assert_eq!(
        place.ask("SELECT * FROM ulog_ct"),
        [
            "1795301295 614937 - - 33639690 33705226 40001 9000 6 - - 0 0 0 0 -2147483647 -2 1 \
             10.77.2.1 2",
            "1795301295 614937 1795301298 647593 33639690 33705226 40001 9000 6 - - 420 6 416 4 \
             -2147483647 -2 4 10.77.2.1 2",
            "1795301295 614937 - - - - 40002 9000 6 - - 0 0 0 0 -2147483647 -2 1 a4d:201:: 10",
        ]
    );
    assert!(place.ask("SELECT name FROM sqlite_schema WHERE name = 'flow'").is_empty());
}

#[test]
fn a_table_that_is_not_there_leaves_flowlogs_own() {
    let mut place = Place::new();
    place.settings.table = "ulog_ct".to_owned();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["1"]);
    assert_eq!(look(&place.settings.db, "ulog_ct").unwrap(), Schema::Own);
}

/// What the table does not take is lost and counted; the other rows are written.
#[test]
fn a_row_that_is_refused_is_counted() {
    let place = Place::with_table(
        "CREATE TABLE ulog_ct (orig_l4_sport integer CHECK (orig_l4_sport <> 2))",
    );
    let mut sink = place.sink();
    for port in 1..=3 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    sink.output.close();
    assert_eq!(place.ask("SELECT * FROM ulog_ct"), ["1", "3"]);
    assert_eq!(place.count(Measure::Refused), 1);
}
