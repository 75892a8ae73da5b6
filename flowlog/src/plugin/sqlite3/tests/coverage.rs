//! What a database says of itself: which time it covers, and whether its rows are what was
//! written.

use super::*;
use crate::archive::origin::Origin;

fn now() -> u64 {
    jiff::Timestamp::now().as_nanosecond() as u64
}

#[test]
fn a_run_is_covered_from_its_beginning_to_its_end() {
    let place = Place::new();
    let before = now();
    for turn in 1..=2 {
        let mut sink = place.sink();
        for port in 1..=turn {
            push(&mut sink, &item(Kinds::NEW, &tcp(turn * 100 + port), None));
        }
        settle(&mut sink);
        sink.output.caught_up(now());
        sink.output.close();
    }
    let after = now();
    let covered = format!(
        "SELECT records, since >= {before}, until >= since, until <= {after}, detail FROM \
         coverage WHERE kind = 'run' ORDER BY since"
    );
    assert_eq!(place.ask(&covered), ["1 1 1 1 -", "2 1 1 1 -"]);
    // The second began after the first had ended.
    let apart = "SELECT count(*) FROM coverage a JOIN coverage b ON a.until < b.since";
    assert_eq!(place.ask(apart), ["1"]);
}

/// While rows wait the time that is covered does not go on.
#[test]
fn what_is_not_committed_is_not_covered() {
    let place = Place::new();
    let mut sink = place.sink();
    until(&mut sink, "its beginning is noted", |_| place.ask("SELECT * FROM coverage").len() == 1);
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    until(&mut sink, "it fails", |sink| sink.output.is_failing());
    assert_eq!(rows(&other, "SELECT until, records FROM coverage"), ["- 0"]);
    sink.output.end(Instant::now());
    sink.output.close();
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(place.ask("SELECT until, records FROM coverage"), ["- 0"]);
    assert_eq!(place.count(Measure::Lost), 1);
}

#[test]
fn losses_are_in_the_coverage() {
    let place = Place::with_table("CREATE TABLE other (a)");
    let mut sink = place.sink();
    let known = now();
    sink.output.caught_up(known);
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    let at = known + 7;
    for events in [9, 4] {
        let lost = Body::Lost(Lost { since: known, ..Lost::noticed("ebpf", events, at) });
        push(&mut sink, &Item { tag: Kinds::empty(), at, body: lost });
    }
    sink.output.close();
    let gaps = "SELECT kind, since, until, records, detail FROM coverage WHERE kind <> 'run'";
    assert_eq!(place.ask(gaps), [format!("lost {known} {at} 13 ebpf")]);
    assert_eq!(place.ask("SELECT sum(events) FROM lost"), ["13"]);
}

/// What a reader judges by that there is no record.
#[test]
fn a_run_states_where_its_records_come_from() {
    let place = Place::new();
    let origin = Origin { sink: "gate netns=self ct1/db1".to_owned(), beginnings: true };
    let mut sink = place.sink().stating(&origin);
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    sink.output.close();
    let detail = place.ask("SELECT detail FROM coverage WHERE kind = 'run'");
    assert_eq!(Origin::parse(&detail[0]), Some(origin));
}

/// A row that the table does not take.
#[test]
fn refused_rows_are_in_the_coverage() {
    let place = Place::new();
    let mut sink = place.sink();
    place
        .other()
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON flow WHEN NEW.orig_sport = 2 \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    for port in 1..=3 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    sink.output.close();
    assert_eq!(place.count(Measure::Refused), 1);
    let gaps = "SELECT kind, since, until, records, detail FROM coverage WHERE kind <> 'run'";
    assert_eq!(place.ask(gaps), [format!("refused {AT} {AT} 1 table")]);
    assert_eq!(place.ask("SELECT records FROM coverage WHERE kind = 'run'"), ["2"]);
}

/// The checksum of each row is that of its values, and of no others.
#[test]
fn rows_have_checksums() {
    let place = Place::new();
    let mut sink = place.sink();
    for port in 1..=20 {
        push(&mut sink, &item(Kinds::DESTROY, &tcp(port), Some(&END)));
    }
    let lost = Body::Lost(Lost::noticed("ebpf", 9, AT));
    push(&mut sink, &Item { tag: Kinds::empty(), at: AT, body: lost });
    sink.output.close();
    let other = place.other();
    let sound = |table: &str, columns: &[&str]| {
        let sql = format!("SELECT checksum, {} FROM {table}", columns.join(", "));
        let mut statement = other.prepare(&sql).unwrap();
        let sound = statement.query_map([], |row| {
            let values = (1..=columns.len()).map(|place| row.get_ref(place).unwrap());
            Ok(row.get::<_, i64>(0)? == checksum(values))
        });
        sound.unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let coverage = ("coverage", vec!["kind", "since", "until", "records", "detail"]);
    for (table, columns) in own_names().chain([coverage]) {
        let rows = match table {
            "flow" => 20,
            "lost" => 1,
            // The run, and what was lost.
            "coverage" => 2,
            _ => 0,
        };
        assert_eq!(sound(table, &columns), vec![true; rows], "{table}");
    }
    other.execute_batch("UPDATE flow SET orig_dst = '10.77.2.3' WHERE orig_sport = 7").unwrap();
    let (table, columns) = own_names().next().unwrap();
    assert_eq!(sound(table, &columns).iter().filter(|sound| !**sound).count(), 1);
}

/// A database of a version without coverage and checksums is used on.
#[test]
fn an_older_database_gets_what_it_lacks() {
    is_used_on("DROP TABLE coverage", &["1 1"]);
    is_used_on("ALTER TABLE coverage DROP COLUMN checksum", &["1 0", "1 1"]);
}

fn is_used_on(coverage: &str, runs: &[&str]) {
    let place = Place::new();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    sink.output.close();
    for (table, _) in own_names() {
        let sql = format!("ALTER TABLE {table} DROP COLUMN checksum");
        place.other().execute_batch(&sql).unwrap();
    }
    place.other().execute_batch(coverage).unwrap();
    assert_eq!(look(&place.settings.db, "").unwrap(), Schema::Own, "flowlog check takes it");
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*), count(checksum) FROM flow"), ["2 1"]);
    let checked = "SELECT records, checksum IS NOT NULL FROM coverage ORDER BY rowid";
    assert_eq!(place.ask(checked), runs);
}

/// A table of ulogd2 stays as it is.
#[test]
fn tables_of_ulogd_have_no_coverage() {
    let place = Place::with_table(ULOG_CT);
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    sink.output.close();
    assert_eq!(place.ask("SELECT name FROM sqlite_schema"), ["ulog_ct"]);
    assert_eq!(place.ask("SELECT count(*) FROM ulog_ct"), ["1"]);
}
