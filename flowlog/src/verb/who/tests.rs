//! Archives that are made, and answers of all readers together.

use std::fs;

use rusqlite::Connection;

use super::answer::Connection as Found;
use super::question::Ends;
use super::record::{Record, address};
use super::*;
use crate::archive::origin::Origin;
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
        self.parquet_from(&Origin::default(), name, made, size, times)
    }

    /// That states where it is from.
    pub(super) fn parquet_from(
        &self,
        origin: &Origin,
        name: &str,
        made: &[Made],
        size: Size,
        times: (u64, u64),
    ) -> PathBuf {
        let hash = Identifier::of_this_host().host();
        small::write(&self.path(name), made.iter().map(Made::item), hash, origin, times, size);
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

    /// That states where it is from, and which times it covers.
    pub(super) fn sqlite_from(
        &self,
        runs: &[(Origin, Span)],
        name: &str,
        made: &[Made],
    ) -> PathBuf {
        let db = self.sqlite(name, made);
        let connection = Connection::open(&db).unwrap();
        let table = "CREATE TABLE coverage (kind TEXT NOT NULL, since INTEGER NOT NULL, \
                     until INTEGER, records INTEGER NOT NULL, detail TEXT) STRICT";
        connection.execute_batch(table).unwrap();
        for (origin, Span { first, last }) in runs {
            let run = "INSERT INTO coverage VALUES ('run', ?, ?, 0, ?)";
            let values = (*first as i64, *last as i64, origin.to_string());
            connection.execute(run, values).unwrap();
        }
        db
    }
}

pub(super) const SMALL: Size = Size { group: 4, page: 2 };

pub(super) fn question(wanted: &str, first: u64, last: u64) -> Question {
    Question { wanted: wanted.parse().unwrap(), protocol: None, span: Span { first, last } }
}

pub(super) fn ask_at(places: &[PathBuf], question: Question) -> Answer {
    let (archives, config) = (Vec::new(), PathBuf::new());
    ask(
        places,
        &Options { question, archives, config, json: false, limit: 1000, verify: false },
        false,
    )
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
    let lost = |second, events| Made::Lost(Lost::noticed("ebpf", events, at(second)));
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
    let origin = |sink: &str| Origin { sink: sink.to_owned(), beginnings: true };
    let [of_parquet, of_sqlite] = ["arc1", "db1"].map(origin);
    let parquet_of =
        |name, made: &[Made], times| place.parquet_from(&of_parquet, name, made, SMALL, times);
    let parquet = parquet_of("a.parquet", &made, (at(100), at(200)));
    let run = Span { first: at(100), last: at(199) };
    let sqlite = place.sqlite_from(&[(of_sqlite.clone(), run)], "a.db", &made);
    let verdict = |archive: &PathBuf, wanted: &str, first, last| {
        let span = question(wanted, at(first), at(last) - 1);
        let answer = ask_at(std::slice::from_ref(archive), span);
        let unknown = answer.unknown.iter().map(|one| (one.span.first, one.span.last + 1));
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
    let later = parquet_of("b.parquet", &[], (at(300), at(400)));
    let answer = ask_at(&[parquet.clone(), later], question("203.0.113.7:3", at(150), at(350)));
    let unknown: Vec<_> = answer.unknown.iter().map(|one| one.span).collect();
    assert_eq!(unknown, [Span { first: at(200), last: at(300) - 1 }]);
    let empty = place.sqlite("empty.db", &[]);
    let answer = ask_at(&[empty], Question { span: Span::ALL, ..question("::1", 0, 0) });
    assert_eq!((answer.verdict(), answer.known.len()), (Incomplete, 0));
    // What another archive has is no excuse.
    let short = Span { first: at(150), last: at(170) };
    let short = place.sqlite_from(&[(of_sqlite, short)], "short.db", &[]);
    let both = [parquet, short.clone()];
    let asked = |first, last| ask_at(&both, question("203.0.113.7:3", at(first), at(last)));
    assert_eq!(asked(155, 160).verdict(), Nothing);
    let answer = asked(155, 175);
    let [one] = &answer.unknown[..] else { panic!("{:?}", answer.unknown) };
    assert_eq!((answer.verdict(), &one.archive), (Incomplete, &short));
    assert_eq!(one.span, Span { first: at(170) + 1, last: at(175) });
}

/// A connection that was alive is recorded at its end, which is later.
#[test]
fn nothing_found_among_ends_says_nothing_of_those_that_ended_later() {
    let place = Place::new();
    let ever = Span { first: at(100), last: Span::ALL.last };
    let hole = [Span { last: at(200) - 1, ..ever }, Span { first: at(300), ..ever }];
    let asked = question("203.0.113.7:3", at(150), at(160));
    for beginnings in [false, true] {
        let origin = Origin { sink: "x".to_owned(), beginnings };
        let (whole, parted) = if beginnings {
            (Verdict::Nothing, Verdict::Nothing)
        } else {
            (Verdict::Nothing, Verdict::Incomplete)
        };
        for (number, (spans, verdict)) in
            [(&[ever][..], whole), (&hole, parted), (&hole[..1], parted)].into_iter().enumerate()
        {
            // Rows of both kinds at either end do not tell which of them are missing.
            let made = [begun(natted(1), at(100)), ended(natted(2), at(100), at(300))];
            let name = format!("{beginnings}-{number}");
            let runs: Vec<_> = spans.iter().map(|span| (origin.clone(), *span)).collect();
            let db = place.sqlite_from(&runs, &format!("{name}.db"), &made);
            let parts = spans.iter().enumerate().map(|(part, span)| {
                let file = format!("{name}-{part}.parquet");
                let times = (span.first, span.last + 1);
                place.parquet_from(&origin, &file, &made, SMALL, times)
            });
            let parquet: Vec<_> = parts.collect();
            for places in [&[db][..], &parquet[..]] {
                let answer = ask_at(places, asked);
                assert_eq!(answer.verdict(), verdict, "{beginnings} {spans:?} {places:?}");
                assert_eq!(answer.unknown, []);
            }
        }
    }
    // Where nothing is stated it is not known.
    let made = [begun(natted(1), at(100)), ended(natted(2), at(100), at(300))];
    for archive in [place.parquet("a.parquet", &made, SMALL), place.sqlite("a.db", &made)] {
        let answer = ask_at(&[archive], asked);
        assert_eq!((answer.verdict(), answer.unknown.len()), (Verdict::Incomplete, 0));
        assert_eq!(answer.unknown_later.len(), 1);
    }
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
        (ulogd, "has not flowlog's own tables: no such table: "),
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
            verify: false,
        };
        let archive = std::slice::from_ref(&archive);
        let answer = ask(archive, &options(3), false);
        assert_eq!((answer.connections.len(), answer.more), (3, true));
        assert_eq!(answer.verdict(), Verdict::Incomplete);
        assert!(!ask(archive, &options(9), false).more);
    }
}

mod coverage;
mod damage;
mod damage_sqlite;
mod property;
