//! What stands in the way of a database: said with its remedy, and what waits
//! is not lost.

use super::*;

#[test]
fn what_cannot_be_used_is_refused_with_a_remedy() {
    let place = Place::new();
    fs::write(&place.settings.db, "no database, but a text that is long enough".repeat(9)).unwrap();
    let found = place.refusal();
    assert!(found.contains("is not a database; it is another file: move it away"), "{found}");
    assert!(look(&place.settings.db, "").is_err());

    let mut place = Place::new();
    place.settings.db = place.path("missing/flow.db");
    let found = place.refusal();
    assert!(found.contains("unable to open") && found.contains("make its directory"), "{found}");

    place.settings.db = place.directory.path().to_owned();
    let found = place.refusal();
    assert!(found.contains("it is a directory; name a file in it"), "{found}");

    let place = Place::with_table("CREATE TABLE ulog_ct (orig_ip_saddr integer, ct_label text)");
    let found = place.refusal();
    assert!(found.contains("the column ct_label of its table ulog_ct is no key"), "{found}");
    assert_eq!(look(&place.settings.db, "ulog_ct").unwrap_err().parts().0, {
        "the column ct_label of its table ulog_ct is no key that a flow has"
    });

    let place = Place::with_table("CREATE TABLE t (a); CREATE VIEW ulog_ct AS SELECT a FROM t");
    assert!(place.refusal().contains("is a view; name a table"), "{}", place.refusal());

    let place = Place::new();
    place.other().execute_batch("CREATE TABLE flow (a, b)").unwrap();
    let found = place.refusal();
    assert!(found.contains("the tables are not flowlog's: name another file"), "{found}");
    assert!(look(&place.settings.db, "").is_err(), "a check tells it too");
}

#[test]
fn a_locked_database_is_waited_for() {
    let place = Place::new();
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    until(&mut sink, "it fails", |sink| sink.output.is_failing());
    let why = database(&sink).failure().unwrap();
    assert!(why.contains("locked") && why.contains("another process writes it"), "{why}");
    assert!(sink.output.fill().0 > 0);
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    let stalled = database(&sink).stalled_for().unwrap();
    assert!(stalled > Duration::from_millis(100), "the lock is waited for");
    other.execute_batch("ROLLBACK").unwrap();
    settle(&mut sink);
    assert!(!sink.output.is_failing());
    assert_eq!(database(&sink).stalled_for(), None);
    assert_eq!(place.ask("SELECT orig_sport FROM flow ORDER BY 1"), ["1", "2"]);
    assert!(place.count(Measure::Errors) > 0);
    assert_eq!(place.count(Measure::Lost), 0);
}

/// Whatever the thread waits for, the engine's thread does not. On a busy machine it may wait for a
/// processor: the shortest of some rounds counts, each of them with a try of the writer.
#[test]
fn the_engine_waits_for_no_lock() {
    const ROUND: Duration = Duration::from_millis(1200);
    let place = Place::new();
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    sink.output.begin();
    let mut longest = Vec::new();
    while longest.len() < 8 && longest.iter().all(|time| *time > Duration::from_millis(50)) {
        let errors = place.count(Measure::Errors);
        let (begin, mut turns) = (Instant::now(), Duration::ZERO);
        while begin.elapsed() < ROUND || place.count(Measure::Errors) == errors {
            let turn = Instant::now();
            push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
            sink.output.flush();
            sink.output.reopen();
            turns = turns.max(turn.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        longest.push(turns);
    }
    assert!(longest.iter().any(|time| *time <= Duration::from_millis(50)), "{longest:?}");
    other.execute_batch("ROLLBACK").unwrap();
}

/// What is written, what waits and what is lost add up.
#[test]
fn a_full_buffer_counts_its_losses() {
    let mut place = Place::new();
    place.settings.buffer_max = 4096;
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    sink.output.begin();
    for port in 1..=100 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    let lost = place.count(Measure::Lost);
    assert!(lost > 50 && sink.output.fill().0 <= 4096, "{lost} lost");
    other.execute_batch("ROLLBACK").unwrap();
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), [(100 - lost).to_string()]);
    assert_eq!(
        place.ask("SELECT since, until, records, detail FROM coverage WHERE kind = 'lost'"),
        [format!("{AT} {AT} {lost} buffer_max_bytes")]
    );
}

/// At the exit what cannot be written is counted, in time.
#[test]
fn an_exit_counts_what_it_loses() {
    let place = Place::new();
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    let begin = Instant::now();
    sink.output.end(begin + Duration::from_millis(400));
    assert!(begin.elapsed() < Duration::from_millis(100), "other sinks are kept waiting");
    sink.output.close();
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(390) && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(place.count(Measure::Lost), 1);
    assert_eq!(place.count(Measure::Records), 0);
}

/// A lock that is released before, at and after the deadline: each row is written or counted,
/// never both, also when the exit is long over.
#[test]
fn a_row_is_written_or_lost_whenever_a_lock_is_released() {
    const DEADLINE: Duration = Duration::from_millis(100);
    for late in (0..=500).step_by(50) {
        let place = Place::new();
        let mut sink = place.sink();
        let other = place.other();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
        sink.output.end(Instant::now() + DEADLINE);
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(late));
            other.execute_batch("ROLLBACK").unwrap();
        });
        sink.output.close();
        release.join().unwrap();
        let counts = [Measure::Records, Measure::Lost, Measure::Unsure];
        let [written, lost, unsure] = counts.map(|measure| place.count(measure));
        assert_eq!(written + lost + unsure, 1, "released after {late} ms");
        let rows: u64 = place.ask("SELECT count(*) FROM flow").concat().parse().unwrap();
        assert!((written..=written + unsure).contains(&rows), "{rows} rows after {late} ms");
    }
}

/// A lock that is released in time costs nothing.
#[test]
fn an_exit_waits_for_a_lock() {
    let place = Place::new();
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    until(&mut sink, "it fails", |sink| sink.output.is_failing());
    sink.output.end(Instant::now() + Duration::from_secs(5));
    other.execute_batch("ROLLBACK").unwrap();
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["1"]);
    assert_eq!(place.count(Measure::Lost), 0);
}

/// No page more is as a full disk: rows wait, and none is written by halves.
#[test]
fn a_full_database_is_waited_for() {
    let place = Place::new();
    let mut sink = place.sink();
    database(&sink).writer().database().unwrap().limit_pages(Some(20));
    for port in 1..=1000 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    until(&mut sink, "it fails", |sink| sink.output.is_failing());
    let why = database(&sink).failure().unwrap();
    assert!(why.contains("full; make room"), "{why}");
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["0"]);
    // A new connection has no such limit.
    sink.output.reopen();
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["1000"]);
    assert_eq!(place.count(Measure::Lost), 0);
}

/// A database of 500 rows whose pages behind the first are damaged.
fn damaged(place: &Place) {
    let mut sink = place.sink();
    for port in 1..=500 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    sink.output.close();
    let mut bytes = fs::read(&place.settings.db).unwrap();
    bytes[4096..].fill(0xee);
    fs::write(&place.settings.db, bytes).unwrap();
}

fn set_aside(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.directory.path()).unwrap();
    let aside = |path: &PathBuf| {
        let name = path.to_str().unwrap();
        // Without its log.
        name.contains("flow.db.damaged-") && name.ends_with('Z')
    };
    entries.map(|entry| entry.unwrap().path()).filter(aside).collect()
}

/// Damaged while it is open: it is set aside, and a new file takes the rows.
#[test]
fn a_damaged_database_is_set_aside() {
    let place = Place::new();
    damaged(&place);
    let mut sink = place.sink();
    assert_eq!(set_aside(&place).len(), 0, "the schema is in the first page");
    push(&mut sink, &item(Kinds::NEW, &tcp(9), None));
    settle(&mut sink);
    assert_eq!(place.count(Measure::SetAside), 1);
    assert!(!sink.output.is_failing());
    sink.output.close();
    assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["9"]);
    assert_eq!(place.ask("PRAGMA integrity_check"), ["ok"]);
    let [aside] = &set_aside(&place)[..] else { panic!("{:?}", set_aside(&place)) };
    assert_eq!(fs::read(aside).unwrap()[5000], 0xee);
    assert_eq!(place.count(Measure::Lost), 0);
}

/// The first page is damaged, or lost: found at start.
#[test]
fn a_database_that_is_damaged_at_start_is_set_aside() {
    for (range, value) in [(100..4096, 0xee), (0..4096, 0), (16..100, 0xee)] {
        let place = Place::new();
        damaged(&place);
        let mut bytes = fs::read(&place.settings.db).unwrap();
        bytes[range.clone()].fill(value);
        fs::write(&place.settings.db, bytes).unwrap();
        let mut sink = place.sink();
        push(&mut sink, &item(Kinds::NEW, &tcp(9), None));
        sink.output.close();
        assert_eq!(place.count(Measure::SetAside), 1, "{range:?}");
        assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["9"]);
        assert_eq!(set_aside(&place).len(), 1);
    }
}
