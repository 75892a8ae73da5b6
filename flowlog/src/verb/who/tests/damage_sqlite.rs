//! Databases of which a value or a byte is another than was written.

use std::ops::Range;

use rusqlite::types::Value;

use super::*;
use crate::plugin::sqlite3::checksum;

/// What the database of these tests is made of: each connection is of another kind to be found by.
fn made() -> Vec<Made> {
    let mut ping = flow(proto::ICMP, ["10.0.0.5:77", "192.0.2.1", "203.0.113.7:77", "192.0.2.1"]);
    (ping.orig.dst_l4, ping.reply.src_l4, ping.reply.dst_l4) = (0x0800, 78, 0);
    vec![
        begun(natted(1), at(10)),
        ended(natted(1), at(10), at(20)),
        ended(natted(2), at(30), at(40)),
        ended(ping, at(31), at(41)),
        begun(natted(4), at(45)),
        Made::Lost(Lost::noticed("ebpf", 3, at(70))),
    ]
}

/// A database that states which time it covers, each row with its checksum, in one file.
fn database(place: &Place, name: &str) -> PathBuf {
    let db = place.sqlite(name, &made());
    let connection = Connection::open(&db).unwrap();
    let table = "CREATE TABLE coverage (kind TEXT NOT NULL, since INTEGER NOT NULL, \
                 until INTEGER, records INTEGER NOT NULL, detail TEXT, checksum INTEGER) STRICT";
    connection.execute_batch(table).unwrap();
    let run = Origin { sink: "db1".to_owned(), beginnings: true }.to_string();
    for (kind, since, until, records, detail) in
        [("run", 0, 100, 0, run.as_str()), ("refused", 80, 81, 1, "table")]
    {
        let number = |second| Value::Integer(at(second) as i64);
        let text = |text: &str| Value::Text(text.to_owned());
        let values =
            [text(kind), number(since), number(until), Value::Integer(records), text(detail)];
        let sum = Value::Integer(checksum(values.iter().map(Into::into)));
        let insert = "INSERT INTO coverage VALUES (?, ?, ?, ?, ?, ?)";
        let all = rusqlite::params_from_iter(values.iter().chain([&sum]));
        connection.execute(insert, all).unwrap();
    }
    connection.execute_batch("PRAGMA journal_mode = DELETE; VACUUM").unwrap();
    db
}

/// By their numbers: with a beginning and an end, with an end only, a ping after NAT, one that
/// lives, absent ones, in the time of a loss, in that of a gap, and without a time.
fn questions() -> [Question; 9] {
    let tcp = |question| Question { protocol: Some(proto::TCP), ..question };
    [
        tcp(question("203.0.113.7:1", at(12), at(15))),
        tcp(question("10.0.0.5:2", at(35), at(35))),
        question("203.0.113.7:78", at(35), at(35)),
        question("10.0.0.5:4", at(50), at(60)),
        question("203.0.113.7:9", at(35), at(35)),
        question("203.0.113.7:2", at(25), at(29)),
        question("203.0.113.7:4", at(69), at(71)),
        question("10.0.0.5:2", at(80), at(80)),
        Question { span: Span::ALL, ..question("203.0.113.7", 0, 0) },
    ]
}

/// The rows by their checksums, with the most bytes that they have before its end, and the
/// questions whose answers depend on them.
const ROWS: [(&str, usize, &[usize]); 7] = [
    ("flow WHERE kind = 'new' AND orig_sport = 1", 250, &[0]),
    ("flow WHERE kind = 'new' AND orig_sport = 4", 250, &[3]),
    ("flow WHERE kind <> 'new' AND orig_sport = 2", 250, &[1, 5]),
    ("flow WHERE protocol = 1", 250, &[2]),
    ("lost", 60, &[1, 6]),
    ("coverage WHERE kind = 'run'", 90, &[1, 4]),
    ("coverage WHERE kind = 'refused'", 60, &[7]),
];

/// Where each row is in the file, and the questions of it.
fn rows(db: &Path, file: &[u8]) -> Vec<(Range<usize>, &'static [usize])> {
    let connection = Connection::open(db).unwrap();
    let place = |(table, most, questions): (&str, usize, &'static [usize])| {
        let sql = format!("SELECT checksum FROM {table}");
        let sum: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        // The last value of a row; SQLite leaves out bytes that say nothing.
        let sum = &sum.to_be_bytes()[2..];
        let end = file.windows(sum.len()).position(|part| part == sum).unwrap() + sum.len();
        (end.saturating_sub(most)..end, questions)
    };
    ROWS.into_iter().map(place).collect()
}

/// Each byte of rows, and a part of those of all else, where it is another: the answer is right,
/// or the database is named.
#[test]
fn a_changed_byte_of_a_database_is_named_or_changes_nothing() {
    let place = Place::new();
    let db = database(&place, "a.db");
    let questions = questions();
    let truth = questions.map(|question| ask_at(std::slice::from_ref(&db), question));
    let found = truth.each_ref().map(|answer| (answer.connections.len(), answer.verdict()));
    use Verdict::{Found, Incomplete, Nothing};
    let expected = [(1, Found), (1, Found), (1, Found), (1, Found), (0, Nothing), (0, Nothing)];
    assert_eq!(found[..6], expected);
    assert_eq!(found[6..], [(1, Incomplete), (0, Incomplete), (4, Incomplete)]);
    assert!(truth.iter().all(|answer| answer.problems.is_empty() && answer.unverified.is_empty()));
    let good = fs::read(&db).unwrap();
    let mut changes = Vec::new();
    for (bytes, questions) in rows(&db, &good) {
        let ask = |byte: usize| questions.iter().map(move |question| (byte, *question));
        for (byte, question) in bytes.flat_map(ask) {
            changes.extend([0xff, 1 << (byte % 8)].map(|mask| (byte, mask, question)));
        }
    }
    let step = (good.len() / 800).max(1);
    let places = (0..good.len()).filter(|byte| *byte < 100 || byte % step == 0);
    for (number, byte) in places.enumerate() {
        let mask = if number % 2 == 0 { 0xff } else { 1 << (number / 2 % 8) };
        changes.push((byte, mask, number % questions.len()));
    }
    let bad_db = place.path("b.db");
    let (mut named, mut same) = (0, 0);
    for (byte, mask, number) in changes {
        let mut bad = good.clone();
        bad[byte] ^= mask;
        fs::write(&bad_db, bad).unwrap();
        let answer = ask_at(std::slice::from_ref(&bad_db), questions[number]);
        let what = format!("byte {byte} ^ {mask:#x}, question {number}: {answer:?}");
        if let Some(problem) = answer.problems.first() {
            named += 1;
            assert_eq!(answer.verdict(), Incomplete, "{what}");
            assert!(problem.starts_with(&format!("{}: ", bad_db.display())), "{what}");
            continue;
        }
        same += 1;
        let truth = &truth[number];
        assert_eq!(answer.connections, truth.connections, "{what}");
        assert_eq!(answer.losses, truth.losses, "{what}");
        let gaps = |of: &Answer| of.missing.iter().map(|one| one.gap.clone()).collect::<Vec<_>>();
        assert_eq!(gaps(&answer), gaps(truth), "{what}");
        assert_eq!((answer.verdict(), &answer.known), (truth.verdict(), &truth.known), "{what}");
    }
    assert!(named > 1000 && same > 100, "{named} were named, {same} did not matter");
}

/// A row may be passed over for a value only after its checksum was verified: the index does not
/// have these, so SQLite's own check finds no such change.
#[test]
fn a_changed_value_hides_no_row() {
    let place = Place::new();
    let db = database(&place, "a.db");
    let questions = questions();
    for (change, number, part) in [
        (
            "flow SET start = start + 9000000000000 WHERE stop IS NOT NULL",
            1,
            "rows are not as they were",
        ),
        ("flow SET start = 0", 1, "rows are not as they were"),
        ("flow SET start = NULL", 1, "rows are not as they were"),
        ("flow SET stop = start", 1, "rows are not as they were"),
        ("flow SET protocol = 17", 1, "rows are not as they were"),
        ("flow SET protocol = 17", 2, "rows are not as they were"),
        ("flow SET icmp_type = 3", 2, "rows are not as they were"),
        ("flow SET reply_sport = 79 WHERE protocol = 1", 2, "rows are not as they were"),
        // It lives, by a record of before that time.
        ("flow SET kind = 'destroy'", 3, "rows are not as they were"),
        ("flow SET kind = 'gc'", 3, "rows are not as they were"),
        ("lost SET time = time + 9000000000000", 6, "1 rows of its table lost are not"),
        ("lost SET events = 0", 1, "1 rows of its table lost are not"),
        ("lost SET source = 'netlink'", 8, "1 rows of its table lost are not"),
    ] {
        let changed = place.path("b.db");
        fs::copy(&db, &changed).unwrap();
        let connection = Connection::open(&changed).unwrap();
        connection.execute_batch(&format!("UPDATE {change}")).unwrap();
        connection.close().unwrap();
        let answer = ask_at(std::slice::from_ref(&changed), questions[number]);
        let [problem] = &answer.problems[..] else { panic!("{change}: {:?}", answer.problems) };
        assert!(problem.contains(part), "{change}: {problem}");
        assert_eq!(answer.verdict(), Verdict::Incomplete, "{change}");
    }
}

/// A database of before the table coverage covers the time of its records: those of them that no
/// index has are verified too.
#[test]
fn a_changed_time_does_not_extend_what_is_covered() {
    let place = Place::new();
    let db = place.sqlite("a.db", &made());
    let change = "UPDATE lost SET time = time + 9000000000000";
    Connection::open(&db).unwrap().execute_batch(change).unwrap();
    let answer = ask_at(std::slice::from_ref(&db), question("10.0.0.5:2", at(75), at(80)));
    let [problem] = &answer.problems[..] else { panic!("{:?}", answer.problems) };
    assert!(problem.contains("1 rows of its table lost are not as they were"), "{problem}");
    let last = Span { first: at(10), last: at(45) };
    assert_eq!((answer.known, answer.missing.len()), (vec![last], 0));
}

/// Checksums are of values: a column of another name would be one without values.
#[test]
fn a_changed_name_of_a_column_or_a_table_is_named() {
    let place = Place::new();
    for (change, why) in [
        ("replace(sql, 'helper TEXT', 'hemper TEXT')", "its table flow has no column helper"),
        ("replace(sql, 'start INTEGER', 'Start INTEGER')", "its table flow has no column start"),
        ("replace(sql, 'events INTEGER', 'event_ INTEGER')", "its table lost has no column events"),
    ] {
        let db = database(&place, "a.db");
        let connection = Connection::open(&db).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = {change}"
            ))
            .unwrap();
        connection.close().unwrap();
        let answer = ask_at(std::slice::from_ref(&db), questions()[1]);
        let [problem] = &answer.problems[..] else { panic!("{change}: {:?}", answer.problems) };
        assert!(problem.contains(why), "{problem}");
        fs::remove_file(&db).unwrap();
    }
    // SQLite's names have no case, so such a change hides nothing.
    let db = database(&place, "a.db");
    let connection = Connection::open(&db).unwrap();
    let change = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = 'Coverage' \
                  WHERE name = 'coverage'";
    connection.execute_batch(change).unwrap();
    connection.close().unwrap();
    let answer = ask_at(std::slice::from_ref(&db), questions()[7]);
    assert_eq!((answer.problems.len(), answer.missing.len()), (0, 1), "{:?}", answer.problems);
}
