//! A spool that cannot be opened at start, and can be later.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use super::super::opening::Opening;
use super::*;

/// What keeps SQLite from opening the file, and passes.
struct Obstacle(PathBuf);

impl Obstacle {
    fn of(directory: &TempDir) -> Self {
        let path = directory.path().join("spool/spool.db-wal");
        fs::create_dir_all(&path).unwrap();
        assert!(Spool::open(&settings(directory)).is_err(), "it is not in the way");
        Self(path)
    }

    fn pass(self) {
        fs::remove_dir(self.0).unwrap();
    }
}

fn await_spool(directory: &TempDir, far: &Far, buffer_max: usize) -> Daemon {
    Daemon::on(Spool::open_or_await(&settings(directory), OnDamage::Fail).unwrap(), far, buffer_max)
}

#[test]
fn a_spool_that_is_away_at_start_is_awaited() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    // Something waits in it since another run.
    far.with(|state| state.away = true);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.push(0..10);
    daemon.shipment.close();
    drop(daemon);
    drop(open(&settings(&directory)));
    far.with(|state| state.away = false);
    let obstacle = Obstacle::of(&directory);
    let mut daemon = await_spool(&directory, &far, 64 << 20);
    daemon.shipment.begin();
    daemon.push(10..110);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 2);
    let trouble = daemon.shipment.stats().trouble().unwrap();
    assert!(trouble.contains("spool.db: "), "{trouble}");
    assert!(daemon.shipment.fill().0 > 1000, "what waits is not counted");
    assert_eq!(daemon.shipment.dead_thread(), None);
    assert_eq!(far.with(|state| state.connections), 0, "there is nothing to deliver yet");
    obstacle.pass();
    assert_eq!(numbers(&far.wait(110)), (0..110).collect::<Vec<_>>());
    daemon.wait_until_empty();
    assert_eq!(daemon.shipment.stats().trouble(), None);
    assert_eq!(daemon.shipment.stats().waiting().records, 0);
    daemon.shipment.close();
    assert_eq!((daemon.get(Measure::Spooled), daemon.get(Measure::Lost)), (100, 0));
}

#[test]
fn what_waits_for_a_spool_is_bounded_and_counted_at_the_end() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let _obstacle = Obstacle::of(&directory);
    let mut daemon = await_spool(&directory, &far, 100_000);
    daemon.shipment.begin();
    daemon.push(0..10_000);
    let (waiting, limit) = daemon.shipment.fill();
    assert!(waiting <= limit, "{waiting} of {limit}");
    let lost = daemon.get(Measure::Lost);
    assert!(lost > 5000 && lost < 10_000, "{lost}");
    let begin = Instant::now();
    daemon.shipment.close();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert_eq!(daemon.get(Measure::Lost), 10_000);
}

/// It becomes possible in the moment before the end.
#[test]
fn the_end_opens_the_spool_if_it_can() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let obstacle = Obstacle::of(&directory);
    let mut daemon = await_spool(&directory, &far, 64 << 20);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.wait_for(Measure::Errors, 3);
    obstacle.pass();
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 0);
    assert_eq!(daemon.shipment.stats().kept().records, 0);
    assert_eq!(numbers(&far.wait(100)), (0..100).collect::<Vec<_>>());
}

/// The directory is made and its lock is not, as if there were no descriptors: it is handed over to
/// the user that the daemon becomes, who could not make the lock otherwise.
#[test]
fn a_directory_that_was_made_is_known_where_it_could_not_be_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let mut parent = directory.path().to_owned();
    while parent.as_os_str().len() < 3850 {
        parent.push("d".repeat(200));
    }
    fs::create_dir_all(&parent).unwrap();
    // Its own name is short enough, and that of a file in it is not (PATH_MAX).
    let path = parent.join("d".repeat(4090 - parent.as_os_str().len() - 1));
    let mut opening = Opening::of(&path);
    for _ in 0..2 {
        assert!(opening.attempt(&mut HashMap::new(), OnDamage::Fail).is_err());
        assert!(path.is_dir() && opening.made_directory());
    }
}
