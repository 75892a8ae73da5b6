//! Archives that are made, and answers of all readers together.

use std::fs;

use rusqlite::Connection;

use super::answer::Connection as Found;
use super::question::Ends;
use super::record::{Record, address};
use super::*;
use crate::archive::small::{self, Size};
use crate::event::{Cause, Comm, End, Kinds, Lost, Process, Witness};
use crate::flow::{Counters, Flow, HelperName, Netns, Status, Tuple, proto};
use crate::plugin::record_id::{Identifier, RecordId};
use crate::plugin::sqlite3::{Settings, Sqlite3};
use crate::plugin::{Body, Item, Scratch};
use crate::stats::SinkStats;

/// Seconds after midnight of a day in 2026, as nanoseconds since the epoch.
pub(super) const fn at(second: u64) -> u64 {
    (1_795_132_800 + second) * 1_000_000_000
}

/// What an archive is made of.
#[derive(Clone, Debug)]
pub(super) enum Made {
    Flow {
        tag: Kinds,
        at: u64,
        flow: Box<Flow>,
        start: Option<u64>,
        end: Option<u64>,
        how: Option<End>,
    },
    Lost(Lost),
}

impl Made {
    pub(super) fn item(&self) -> Item<'_> {
        match self {
            Self::Flow { tag, at, flow, start, end, how } => Item {
                tag: *tag,
                at: *at,
                body: Body::Flow {
                    flow,
                    start: *start,
                    end: *end,
                    how: how.as_ref(),
                    counted: true,
                    witness: Witness::Single,
                },
            },
            Self::Lost(lost) => Item { tag: Kinds::empty(), at: lost.at, body: Body::Lost(*lost) },
        }
    }

    fn at(&self) -> u64 {
        self.item().at
    }

    /// As it is read.
    pub(super) fn record(&self) -> Option<Record> {
        match self {
            Self::Flow { tag, at, flow, start, end, how } => {
                let id = RecordId { time: *at, hash: 0 };
                let flow = Flow { start: *start, ..(**flow).clone() };
                let witness = Witness::Single;
                let mut record = Record { id, kinds: *tag, flow, end: *end, how: *how, witness };
                record.id = record.identified_by(&Identifier::of_this_host());
                Some(record)
            }
            Self::Lost(_) => None,
        }
    }
}

/// `10.0.0.1:1001`
fn end(text: &str) -> ([u8; 16], u16) {
    let wanted: Wanted = text.parse().unwrap();
    let (_, bytes) = address(&wanted.address.to_string()).unwrap();
    (bytes, wanted.port.unwrap_or_default())
}

/// From and to, before and after NAT.
pub(super) fn flow(protocol: u8, [src, dst, snat, dnat]: [&str; 4]) -> Flow {
    let family = address(&src.parse::<Wanted>().unwrap().address.to_string()).unwrap().0;
    let tuple =
        |(src, src_l4), (dst, dst_l4)| Tuple { family, proto: protocol, src, dst, src_l4, dst_l4 };
    Flow {
        orig: tuple(end(src), end(dst)),
        reply: tuple(end(dnat), end(snat)),
        status: Status::SEEN_REPLY | Status::CONFIRMED,
        netns: Some(Netns { cookie: Some(9), inum: 4_026_531_840 }),
        ..Flow::default()
    }
}

/// A client behind 203.0.113.7, its port kept.
pub(super) fn natted(port: u16) -> Flow {
    let [client, public] = ["10.0.0.5", "203.0.113.7"].map(|ip| format!("{ip}:{port}"));
    flow(proto::TCP, [&client, "198.51.100.9:443", &public, "198.51.100.9:443"])
}

/// The record of its end, which is all there is of a flow by default.
pub(super) fn ended(flow: Flow, start: u64, end: u64) -> Made {
    let how = Some(End { cause: Cause::ExpiredGc, portid: None, process: None });
    let (start, end) = (Some(start), Some(end));
    Made::Flow {
        tag: Kinds::DESTROY,
        at: end.unwrap_or_default(),
        flow: flow.into(),
        start,
        end,
        how,
    }
}

pub(super) fn begun(flow: Flow, start: u64) -> Made {
    let (start, end) = (Some(start), None);
    Made::Flow {
        tag: Kinds::NEW,
        at: start.unwrap_or_default(),
        flow: flow.into(),
        start,
        end,
        how: None,
    }
}

/// All that can be known.
fn everything() -> Made {
    let mut flow = natted(41000);
    flow.counters =
        Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: u64::MAX >> 1 }]);
    flow.status |= Status::SRC_NAT | Status::ASSURED;
    (flow.zone, flow.mark, flow.id, flow.l4_state) = (7, 0x8000_0001, Some(u32::MAX), Some(7));
    flow.helper = Some(HelperName::new(b"ftp"));
    flow.labels = Some(*b"0123456789abcdef");
    flow.master = Some(flow.orig.inverse());
    let process = Some(Process { pid: 12, comm: Comm::new(b"conntrack") });
    let how = Some(End { cause: Cause::Deleted, portid: Some(1712), process });
    let (start, end) = (Some(at(100)), Some(at(200)));
    Made::Flow { tag: Kinds::DESTROY | Kinds::GC, at: at(201), flow: flow.into(), start, end, how }
}

/// A directory for archives.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Of the whole day.
    pub(super) fn parquet(&self, name: &str, made: &[Made], size: Size) -> PathBuf {
        self.parquet_of(name, made, size, (at(0), at(86_400)))
    }

    pub(super) fn parquet_of(
        &self,
        name: &str,
        made: &[Made],
        size: Size,
        times: (u64, u64),
    ) -> PathBuf {
        let hash = Identifier::of_this_host().host();
        small::write(&self.path(name), made.iter().map(Made::item), hash, times, size);
        self.path(name)
    }

    pub(super) fn sqlite(&self, name: &str, made: &[Made]) -> PathBuf {
        let db = self.path(name);
        let settings =
            Settings { db: db.clone(), table: String::new(), sync: true, buffer_max: 1 << 24 };
        let mut sink = Sqlite3::open(&settings, SinkStats::default()).unwrap();
        for made in made {
            sink.push(&made.item(), &Scratch::default());
        }
        sink.output_mut().close();
        // The records are of another time than the run that wrote them, so what it says of the
        // time that it covers is of no use here: a database of before that table.
        let connection = Connection::open(&db).unwrap();
        connection.execute_batch("DROP TABLE coverage").unwrap();
        db
    }
}

pub(super) const SMALL: Size = Size { group: 4, page: 2 };

pub(super) fn question(wanted: &str, first: u64, last: u64) -> Question {
    Question { wanted: wanted.parse().unwrap(), protocol: None, span: Span { first, last } }
}

pub(super) fn ask_at(places: &[PathBuf], question: Question) -> Answer {
    let (archives, config) = (Vec::new(), PathBuf::new());
    ask(places, &Options { question, archives, config, json: false, limit: 1000 }, false)
}

#[test]
fn both_kinds_of_archives_tell_the_same_and_all() {
    let place = Place::new();
    let ping = {
        let mut flow =
            flow(proto::ICMP, ["10.0.0.5:77", "192.0.2.1", "203.0.113.7:77", "192.0.2.1"]);
        (flow.orig.dst_l4, flow.reply.src_l4, flow.reply.dst_l4) = (0x0800, 78, 0);
        flow
    };
    let v6 = ["[2001:db8::5]:5000", "[2001:db8::1]:53"];
    let plain = flow(proto::UDP, [v6[0], v6[1], v6[0], v6[1]]);
    let esp = flow(proto::ESP, ["10.0.0.5", "192.0.2.1", "10.0.0.5", "192.0.2.1"]);
    let made = [
        everything(),
        ended(ping, at(10), at(20)),
        ended(plain, at(11), at(21)),
        ended(esp, at(12), at(22)),
    ];
    let mut sorted = made.to_vec();
    sorted.sort_by_key(Made::at);
    let archives = [place.parquet("a.parquet", &sorted, SMALL), place.sqlite("a.db", &sorted)];
    for (wanted, made, ends) in [
        ("203.0.113.7:41000", &made[0], Ends::REPLY_DST),
        ("10.0.0.5:41000", &made[0], Ends::ORIG_SRC),
        ("203.0.113.7:78", &made[1], Ends::REPLY_DST),
        ("10.0.0.5:77", &made[1], Ends::ORIG_SRC),
        ("[2001:db8::1]:53", &made[2], Ends::ORIG_DST | Ends::REPLY_SRC),
        ("[2001:db8::5]:5000", &made[2], Ends::ORIG_SRC | Ends::REPLY_DST),
    ] {
        let found = Found { record: made.record().unwrap(), ends, records: 1 };
        for places in [&archives[..1], &archives[1..], &archives[..]] {
            let answer = ask_at(places, question(wanted, at(15), at(150)));
            let expected = std::slice::from_ref(&found);
            assert_eq!(answer.connections, expected, "{wanted} in {places:?}");
            assert_eq!(answer.problems, [""; 0]);
        }
    }
    for archive in &archives {
        let answer = ask_at(std::slice::from_ref(archive), question("192.0.2.1", at(0), at(30)));
        assert_eq!(answer.connections.len(), 2);
        let mut tcp = question("192.0.2.1", at(0), at(30));
        tcp.protocol = Some(proto::ESP);
        assert_eq!(ask_at(std::slice::from_ref(archive), tcp).connections.len(), 1);
        tcp.protocol = Some(proto::TCP);
        assert_eq!(ask_at(std::slice::from_ref(archive), tcp).connections.len(), 0);
    }
}

#[test]
fn a_loss_of_that_time_is_told_once() {
    let place = Place::new();
    let lost = |second, events| Made::Lost(Lost { source: "ebpf", events, at: at(second) });
    let made = [lost(5, 1), ended(natted(1), at(1), at(10)), lost(20, 2), lost(30, 4)];
    let archives = [place.parquet("a.parquet", &made, SMALL), place.sqlite("a.db", &made)];
    for places in [&archives[..1], &archives[1..], &archives[..]] {
        let answer = ask_at(places, question("203.0.113.7:1", at(6), at(20)));
        assert_eq!(answer::lost(&answer.losses), [("ebpf", 2)]);
        assert_eq!(answer.connections.len(), 1);
    }
    let all = ask_at(&archives, question("203.0.113.7:9", at(0), at(30)));
    assert_eq!(
        (answer::lost(&all.losses), all.verdict()),
        (vec![("ebpf", 7)], Verdict::Incomplete)
    );
}

#[test]
fn nothing_found_is_not_nothing_known() {
    let place = Place::new();
    let made = [ended(natted(1), at(100), at(110)), ended(natted(2), at(190), at(199))];
    let parquet = place.parquet_of("a.parquet", &made, SMALL, (at(100), at(200)));
    let sqlite = place.sqlite("a.db", &made);
    let verdict = |archive: &PathBuf, wanted: &str, first, last| {
        let span = question(wanted, at(first), at(last) - 1);
        let answer = ask_at(std::slice::from_ref(archive), span);
        let unknown = answer.unknown.iter().map(|gap| (gap.first, gap.last + 1));
        (answer.verdict(), unknown.collect::<Vec<_>>())
    };
    use Verdict::{Found, Incomplete, Nothing};
    for archive in [&parquet, &sqlite] {
        assert_eq!(verdict(archive, "203.0.113.7:1", 110, 180), (Found, vec![]));
        assert_eq!(verdict(archive, "203.0.113.7:3", 110, 180), (Nothing, vec![]));
        let before = (Incomplete, vec![(at(10), at(20))]);
        assert_eq!(verdict(archive, "203.0.113.7:1", 10, 20), before);
    }
    // It is known that nothing was logged between the last record and the end.
    assert_eq!(verdict(&parquet, "203.0.113.7:3", 199, 200), (Nothing, vec![]));
    let after = (Incomplete, vec![(at(200), at(210))]);
    assert_eq!(verdict(&parquet, "203.0.113.7:1", 105, 210), after);
    let after = (Incomplete, vec![(at(199) + 1, at(210))]);
    assert_eq!(verdict(&sqlite, "203.0.113.7:1", 115, 210), after);
    // A pause between two files.
    let later = place.parquet_of("b.parquet", &[], SMALL, (at(300), at(400)));
    let answer = ask_at(&[parquet, later], question("203.0.113.7:3", at(150), at(350)));
    assert_eq!(answer.unknown, [Span { first: at(200), last: at(300) - 1 }]);
    let empty = place.sqlite("empty.db", &[]);
    let answer = ask_at(&[empty], Question { span: Span::ALL, ..question("::1", 0, 0) });
    assert_eq!((answer.verdict(), answer.known.len()), (Incomplete, 0));
}

#[test]
fn what_is_damaged_is_named_and_others_are_asked() {
    let place = Place::new();
    let made: Vec<Made> = (0..9).map(|n| ended(natted(n), at(1), at(100 + u64::from(n)))).collect();
    let good = place.parquet("good.parquet", &made, SMALL);
    let whole = fs::read(&good).unwrap();
    let other = |name: &str, bytes: &[u8]| {
        fs::write(place.path(name), bytes).unwrap();
        place.path(name)
    };
    let db = fs::read(place.sqlite("good.db", &made)).unwrap();
    let ulogd = place.path("ulogd.db");
    Connection::open(&ulogd).unwrap().execute_batch("CREATE TABLE ulog_ct (id)").unwrap();
    let of_newer = place.parquet("of_newer.parquet", &made, SMALL);
    damage::without_checksums(&of_newer);
    let mut newer = fs::read(of_newer).unwrap();
    let key = b"flowlog.schema";
    let begin = newer.windows(key.len()).position(|bytes| bytes == key).unwrap();
    let version = newer[begin..].iter().position(|byte| *byte == b'1').unwrap();
    newer[begin + version] = b'2';
    for (bad, why) in [
        (other("half.parquet", &whole[..whole.len() / 2]), "was not written to its end"),
        (other("empty.parquet", b""), "was not written to its end"),
        (other("zeros.parquet", &[0; 5000]), "was not written to its end"),
        (other("newer.parquet", &newer), "of version 2, and this flowlog reads version 1"),
        (other("half.db", &db[..4096]), "it is damaged"),
        (other("text.db", b"some text that is no database"), "no database of SQLite"),
        (ulogd, "has not flowlog's own tables: no such table: flow"),
        (place.path("gone.parquet"), "cannot be read: No such file"),
    ] {
        let answer = ask_at(&[bad.clone(), good.clone()], question("10.0.0.5:3", at(50), at(60)));
        let [problem] = &answer.problems[..] else { panic!("{bad:?}: {:?}", answer.problems) };
        assert!(problem.starts_with(&format!("{}: ", bad.display())), "{problem}");
        assert!(problem.contains(why), "{problem}");
        assert_eq!((answer.connections.len(), answer.verdict()), (1, Verdict::Incomplete));
    }
}

#[test]
fn more_than_are_wanted_are_not_gathered() {
    let place = Place::new();
    let made: Vec<Made> = (0..9).map(|n| ended(natted(n), at(1), at(100 + u64::from(n)))).collect();
    let archives = [place.parquet("a.parquet", &made, SMALL), place.sqlite("b.db", &made)];
    for archive in archives {
        let question = question("10.0.0.5", at(50), at(60));
        let options = |limit| Options {
            question,
            archives: Vec::new(),
            config: PathBuf::new(),
            json: false,
            limit,
        };
        let archive = std::slice::from_ref(&archive);
        let answer = ask(archive, &options(3), false);
        assert_eq!((answer.connections.len(), answer.more), (3, true));
        assert_eq!(answer.verdict(), Verdict::Incomplete);
        assert!(!ask(archive, &options(9), false).more);
    }
}

mod damage;
mod property;
