//! What a database covers where the clock is set.

use super::*;
use crate::archive::clock::Moment;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;

/// A clock that goes as the real one, apart from it by a number of hours.
fn moment(hours: i64) -> Moment {
    let now = Moment::now();
    Moment { wall: now.wall.saturating_add_signed(hours * HOUR as i64), ..now }
}

/// All that has happened a second ago by that clock was pushed.
fn caught_up(sink: &mut Sqlite3, hours: i64) {
    let Output::Database(output) = &mut sink.output else { panic!() };
    let now = moment(hours);
    output.caught_up_at(now.wall - SECOND, now);
}

const RUNS: &str =
    "SELECT records, until IS NOT NULL FROM coverage WHERE kind = 'run' ORDER BY rowid";

fn runs(place: &Place) -> Vec<(u64, Option<u64>)> {
    let rows = place.ask("SELECT since, until FROM coverage WHERE kind = 'run' ORDER BY rowid");
    let run = |row: &String| {
        let (since, until) = row.split_once(' ').unwrap();
        (since.parse().unwrap(), until.parse().ok())
    };
    rows.iter().map(run).collect()
}

/// Back, as a wrong clock is corrected: what the wrong one has shown in advance is not covered,
/// and what follows is a run of its own. Then forward: no time between is covered.
#[test]
fn a_clock_that_was_set_begins_another_run() {
    let place = Place::new();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    let begin = Moment::now().wall;
    caught_up(&mut sink, -5);
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    push(&mut sink, &item(Kinds::NEW, &tcp(3), None));
    // Long enough for the time that it lags behind.
    std::thread::sleep(Duration::from_millis(1100));
    caught_up(&mut sink, -5);
    caught_up(&mut sink, -3);
    push(&mut sink, &item(Kinds::NEW, &tcp(4), None));
    std::thread::sleep(Duration::from_millis(1100));
    caught_up(&mut sink, -3);
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["4"]);
    assert_eq!(place.ask(RUNS), ["1 0", "2 1", "1 1"]);
    let runs = runs(&place);
    let [first, second, third] = &runs[..] else { panic!("{runs:?}") };
    assert!(first.0 <= begin, "{runs:?}");
    let near = |time: u64, hours: u64| time.abs_diff(begin - hours * HOUR) < HOUR / 2;
    assert!(near(second.0, 5) && near(second.1.unwrap(), 5), "{runs:?}");
    assert!(near(third.0, 3) && near(third.1.unwrap(), 3), "{runs:?}");
    assert!(third.1.unwrap() <= Moment::now().wall);
}

/// The old run ends with what was known by its clock.
#[test]
fn a_run_ends_with_the_last_time_of_its_clock() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.output.begin();
    caught_up(&mut sink, -9);
    std::thread::sleep(Duration::from_millis(1100));
    caught_up(&mut sink, -9);
    let known = moment(-9).wall;
    // Lost after that, and noticed by the new clock.
    caught_up(&mut sink, -2);
    let at = moment(-2).wall;
    let lost = Body::Lost(Lost { since: at, ..Lost::noticed("ebpf", 9, at) });
    push(&mut sink, &Item { tag: Kinds::empty(), at, body: lost });
    sink.output.close();
    let runs = runs(&place);
    let ends: Vec<_> = runs.iter().filter_map(|(_, until)| *until).collect();
    assert!(ends.first().is_some_and(|end| *end <= known && *end > known - 2 * SECOND), "{runs:?}");
    // The gap is of the new clock, and not as wide as the step.
    let gap = place.ask("SELECT until - since < 5000000000 FROM coverage WHERE kind = 'lost'");
    assert_eq!(gap, ["1"]);
}

/// Forward twice and back: no run stays in the future, also not one that had ended.
#[test]
fn no_run_stays_in_the_future() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.output.begin();
    for hours in [-9, -8, -7, -20] {
        caught_up(&mut sink, hours);
        std::thread::sleep(Duration::from_millis(1100));
        caught_up(&mut sink, hours);
        settle(&mut sink);
        until(&mut sink, "it is written", |_| {
            runs(&place).last().is_some_and(|(since, until)| {
                since.abs_diff(moment(hours).wall) < HOUR / 2 && (until.is_some() || hours == -20)
            })
        });
    }
    sink.output.close();
    let runs = runs(&place);
    assert!(runs.len() >= 4, "{runs:?}");
    let now = moment(-20).wall;
    assert!(runs.iter().all(|(_, until)| until.is_none_or(|until| until <= now)), "{runs:?}");
}

/// Set back by mistake, and corrected: the time of before is covered again.
#[test]
fn a_clock_that_was_set_back_by_mistake_takes_nothing_away() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.output.begin();
    let is_covered = |place: &Place, hours: i64, covered: usize| {
        let near = |time: u64| time.abs_diff(moment(hours).wall) < HOUR / 2;
        let runs = runs(place);
        let known = runs.iter().filter(|(since, until)| near(*since) && until.is_some_and(near));
        runs.iter().any(|(since, _)| near(*since)) && known.count() == covered
    };
    for (hours, before) in [(-9, None), (-20, Some(0)), (-9, Some(2))] {
        caught_up(&mut sink, hours);
        std::thread::sleep(Duration::from_millis(1100));
        caught_up(&mut sink, hours);
        let covered = before.unwrap_or(1);
        until(&mut sink, "it is written", |_| is_covered(&place, -9, covered));
    }
    sink.output.close();
}

/// A clock that goes on as it should begins nothing.
#[test]
fn a_clock_that_is_slewed_is_no_other() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.output.begin();
    for _ in 0..5 {
        sink.output.caught_up(Moment::now().wall);
    }
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM coverage"), ["1"]);
}
