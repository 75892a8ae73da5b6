//! Archives of which a byte is another than was written.

use super::*;
use crate::archive::clock::Moment;

/// Takes the checksums away, as an earlier version has written it.
pub(super) fn without_checksums(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let key = b"flowlog.checksums";
    let place = bytes.windows(key.len()).position(|part| part == key).unwrap();
    let tail = bytes.len() - 8;
    let footer = u32::from_le_bytes(bytes[tail..tail + 4].try_into().unwrap()) as usize;
    let mut old = bytes.clone();
    old[place..place + key.len()].copy_from_slice(b"flowlog.some_more");
    // The magic of the trailer stands right before the footer.
    old[tail - footer - 8..tail - footer].fill(0);
    fs::write(path, old).unwrap();
}

#[test]
fn a_file_without_checksums_is_read_and_named() {
    let place = Place::new();
    let made = [ended(natted(1), at(100), at(110))];
    let [new, old] = ["new.parquet", "old.parquet"].map(|name| place.parquet(name, &made, SMALL));
    without_checksums(&old);
    let answer = ask_at(&[new, old.clone()], question("203.0.113.7:1", at(100), at(105)));
    assert_eq!((answer.connections.len(), answer.verdict()), (1, Verdict::Found));
    assert_eq!(answer.unverified, [old]);
}

/// Each of them, where a byte more or less of a page, a bloom filter, an index or
/// the footer is another: the answer is right, or the file is named.
#[test]
fn a_changed_byte_is_named_or_changes_nothing() {
    let place = Place::new();
    let lost = Made::Lost(Lost::noticed("ebpf", 3, at(112)));
    let mut made: Vec<Made> =
        (0..9).map(|n| ended(natted(n), at(1), at(100 + u64::from(n)))).collect();
    made.push(lost);
    // One row group of some pages: the footer is most of the file, the shorter the better.
    let file = place.parquet("a.parquet", &made, Size { group: 16, page: 4 });
    let questions = [
        question("10.0.0.5:3", at(50), at(60)),
        question("10.0.0.5:77", at(50), at(60)),
        question("203.0.113.7", at(104), at(120)),
    ];
    let truth = questions.map(|question| ask_at(std::slice::from_ref(&file), question));
    let good = fs::read(&file).unwrap();
    let tail = good.len() - 8;
    let footer = u32::from_le_bytes(good[tail..tail + 4].try_into().unwrap()) as usize;
    // Each byte of the ends of both, and a part of the others.
    let trailer = tail - footer;
    let ends = [trailer - 40..trailer + 40, tail - 40..good.len()];
    let step = (good.len() / 1500).max(1);
    let places = (0..good.len())
        .filter(|place| place % step == 0 || ends.iter().any(|end| end.contains(place)));
    let (mut named, mut same) = (0, 0);
    for (number, place) in places.enumerate() {
        let mut bad = good.clone();
        bad[place] ^= if number % 2 == 0 { 0xff } else { 1 << (number % 8) };
        fs::write(&file, bad).unwrap();
        let (question, truth) = (questions[number % 3], &truth[number % 3]);
        let answer = ask_at(std::slice::from_ref(&file), question);
        if answer.problems.is_empty() {
            same += 1;
            assert_eq!(answer.connections, truth.connections, "byte {place} of {}", good.len());
            assert_eq!(answer.losses, truth.losses, "byte {place} of {}", good.len());
            assert_eq!(answer.verdict(), truth.verdict(), "byte {place} of {}", good.len());
            assert_eq!(answer.unverified, truth.unverified, "byte {place} of {}", good.len());
        } else {
            named += 1;
            assert_eq!(answer.verdict(), Verdict::Incomplete);
            assert!(answer.problems[0].starts_with(&format!("{}: ", file.display())));
        }
    }
    assert!(named > 300 && same > 10, "{named} were named, {same} did not matter");
}

/// What SQLite's own check finds: an index that has not what the table has.
#[test]
fn an_index_that_is_not_of_its_table_is_named() {
    let place = Place::new();
    let made: Vec<Made> =
        (0..200).map(|n| ended(natted(n), at(1), at(100 + u64::from(n)))).collect();
    let db = place.sqlite("a.db", &made);
    let question = question("10.0.0.5:33", at(50), at(60));
    let answer = ask_at(std::slice::from_ref(&db), question);
    assert_eq!((answer.connections.len(), answer.problems.len()), (1, 0));
    // Whether rows have checksums is another question.
    assert!(answer.unverified.len() <= 1);
    // The index of sources points to that of destinations.
    let connection = Connection::open(&db).unwrap();
    let swap = "PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET rootpage =
            (SELECT rootpage FROM sqlite_schema WHERE name = 'flow_orig_dst')
        WHERE name = 'flow_orig_src';";
    connection.execute_batch(swap).unwrap();
    connection.close().unwrap();
    let answer = ask_at(std::slice::from_ref(&db), question);
    let [problem] = &answer.problems[..] else { panic!("{:?}", answer.problems) };
    assert!(problem.starts_with(&format!("{}: it is damaged: ", db.display())), "{problem}");
    assert_eq!(answer.verdict(), Verdict::Incomplete);
}

/// A changed row of the table that says what is covered.
#[test]
fn a_changed_row_of_the_coverage_is_named() {
    let place = Place::new();
    let db = place.path("a.db");
    let settings =
        Settings { db: db.clone(), table: String::new(), sync: true, buffer_max: 1 << 24 };
    let mut sink = Sqlite3::open(&settings, SinkStats::default()).unwrap();
    sink.output_mut().begin();
    let now = Moment::now().wall;
    let (start, end) = (now + 50_000_000, now + 51_000_000);
    for made in [begun(natted(1), start), ended(natted(1), start, end)] {
        sink.push(&made.item(), &Scratch::default());
    }
    while Moment::now().wall < end {
        thread::yield_now();
    }
    sink.output_mut().caught_up(end);
    let lost = Made::Lost(Lost::noticed("ebpf", 3, end + 10_000_000_000));
    sink.push(&lost.item(), &Scratch::default());
    sink.output_mut().close();
    let question = question("203.0.113.7:1", start, start);
    let answer = ask_at(std::slice::from_ref(&db), question);
    assert_eq!((answer.problems.len(), answer.unverified.len()), (0, 0), "{:?}", answer.problems);
    assert_eq!((answer.connections.len(), answer.verdict()), (1, Verdict::Found));
    for change in [
        "UPDATE coverage SET until = until + 1000000000000 WHERE kind = 'run'",
        "UPDATE coverage SET since = since - 1000000000000 WHERE kind = 'run'",
        "UPDATE coverage SET records = 0 WHERE kind = 'lost'",
        "UPDATE coverage SET kind = 'run' WHERE kind = 'lost'",
        "UPDATE coverage SET detail = 'netlink' WHERE kind = 'lost'",
    ] {
        let changed = place.path("b.db");
        fs::copy(&db, &changed).unwrap();
        Connection::open(&changed).unwrap().execute_batch(change).unwrap();
        let answer = ask_at(std::slice::from_ref(&changed), question);
        let [problem] = &answer.problems[..] else { panic!("{change}: {:?}", answer.problems) };
        assert!(problem.contains("1 rows of its table coverage are not as they were"), "{problem}");
        assert_eq!(answer.verdict(), Verdict::Incomplete, "{change}");
    }
    // An earlier version has written no checksum: that is said.
    let sql = "ALTER TABLE coverage DROP COLUMN checksum";
    Connection::open(&db).unwrap().execute_batch(sql).unwrap();
    let answer = ask_at(std::slice::from_ref(&db), question);
    assert_eq!((answer.problems.len(), answer.unverified), (0, vec![db]));
}
