//! What happens to the spool's files beneath the daemon: they are damaged, removed, replaced.

use std::fs;
use std::path::PathBuf;

use super::*;

pub(super) fn spool(directory: &TempDir) -> PathBuf {
    directory.path().join("spool")
}

fn set_aside(directory: &TempDir, word: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(spool(directory)).unwrap();
    let aside = |path: &PathBuf| {
        let name = path.to_str().unwrap();
        // Without its log.
        name.contains(&format!("spool.db.{word}-")) && name.ends_with('Z')
    };
    entries.map(|entry| entry.unwrap().path()).filter(aside).collect()
}

/// Waits as the metrics do, and no longer than a fault may go unnoticed.
pub(super) fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(2), "not within 2 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A daemon that has records in its spool, and nobody who takes them.
pub(super) fn with_records(directory: &TempDir, far: &Far, records: u64) -> Daemon {
    far.with(|state| state.away = true);
    let mut daemon = Daemon::start(directory, far);
    daemon.shipment.begin();
    daemon.push(0..records);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, records);
    daemon
}

fn come_back(daemon: &mut Daemon, far: &Far) {
    far.with(|state| state.away = false);
    daemon.shipment.reopen();
}

/// Nothing of it can be read: it is kept as it is, and the daemon starts.
#[test]
fn a_spool_that_cannot_be_read_is_set_aside() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    drop(with_records(&directory, &far, 100));
    // Nobody else has it open then.
    drop(open(&settings(&directory)));
    let path = spool(&directory).join("spool.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..200].fill(0xee);
    fs::write(&path, &bytes).unwrap();
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(100..110);
    daemon.flush();
    // Before the end, which waits for a slow disk no longer than some seconds.
    assert_eq!(numbers(&far.wait(10)), (100..110).collect::<Vec<_>>());
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::SetAside), 1);
    assert_eq!(daemon.get(Measure::Lost), 100, "what it held is not counted");
    let [aside] = &set_aside(&directory, "damaged")[..] else { panic!() };
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

fn damage(directory: &TempDir) -> Vec<u8> {
    let path = spool(directory).join("spool.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..200].fill(0xee);
    fs::write(&path, &bytes).unwrap();
    bytes
}

/// No new file can be made, as on a full disk: the damaged one keeps its name, and what it held is
/// counted by the start that replaces it.
#[test]
fn a_damaged_spool_that_cannot_be_replaced_stays_and_is_counted_later() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    drop(with_records(&directory, &far, 100));
    drop(open(&settings(&directory)));
    let bytes = damage(&directory);
    let in_the_way = spool(&directory).join("spool.db.flowlog-new");
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        Spool::open(&settings(&directory)).map(|_| ()).unwrap_err();
        assert_eq!(fs::read(spool(&directory).join("spool.db")).unwrap(), bytes);
        assert!(set_aside(&directory, "damaged").is_empty());
    }
    fs::remove_dir(&in_the_way).unwrap();
    let mut daemon = Daemon::start(&directory, &far);
    assert_eq!((daemon.get(Measure::SetAside), daemon.get(Measure::Lost)), (1, 100));
    daemon.shipment.close();
    let [aside] = &set_aside(&directory, "damaged")[..] else { panic!() };
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

/// A start that ends before the daemon runs has not reported what was given up.
#[test]
fn what_was_given_up_is_counted_by_the_start_that_runs_and_once() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    drop(with_records(&directory, &far, 100));
    drop(open(&settings(&directory)));
    damage(&directory);
    for _ in 0..2 {
        drop(open(&settings(&directory)));
        assert_eq!(set_aside(&directory, "damaged").len(), 1);
    }
    for lost in [100, 0] {
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.close();
        assert_eq!(daemon.get(Measure::Lost), lost);
        drop(daemon);
        drop(open(&settings(&directory)));
    }
}

/// Two starts have replaced a damaged spool, and ended before the daemon ran. The second has failed
/// before, which forgets nothing either.
#[test]
fn a_second_damage_does_not_erase_the_count_of_the_first() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    drop(with_records(&directory, &far, 100));
    drop(open(&settings(&directory)));
    damage(&directory);
    drop(open(&settings(&directory)));
    damage(&directory);
    let in_the_way = spool(&directory).join("spool.db.flowlog-new");
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        Spool::open(&settings(&directory)).map(|_| ()).unwrap_err();
    }
    fs::remove_dir(&in_the_way).unwrap();
    drop(open(&settings(&directory)));
    for (files, lost) in [(2, 100), (0, 0)] {
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.close();
        assert_eq!((daemon.get(Measure::SetAside), daemon.get(Measure::Lost)), (files, lost));
        drop(daemon);
        drop(open(&settings(&directory)));
    }
}

/// What can be read of it is copied by the thread that writes: the start does not wait for that.
#[test]
fn a_damaged_spool_is_replaced_behind_the_start() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    drop(with_records(&directory, &far, 100));
    drop(open(&settings(&directory)));
    let bytes = damage(&directory);
    let in_the_way = spool(&directory).join("spool.db.flowlog-new");
    fs::create_dir(&in_the_way).unwrap();
    far.with(|state| state.away = false);
    let awaited = Spool::open_or_await(&settings(&directory), OnDamage::Fail).unwrap();
    assert_eq!(fs::read(spool(&directory).join("spool.db")).unwrap(), bytes);
    assert!(set_aside(&directory, "damaged").is_empty());
    let mut daemon = Daemon::on(awaited, &far, 64 << 20);
    daemon.shipment.begin();
    daemon.push(100..110);
    daemon.flush();
    soon("it is named", || {
        let trouble = daemon.shipment.stats().trouble();
        trouble.is_some_and(|why| why.contains("spool.db is damaged, and cannot be replaced: "))
    });
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(numbers(&far.wait(10)), (100..110).collect::<Vec<_>>());
    daemon.shipment.close();
    assert_eq!((daemon.get(Measure::SetAside), daemon.get(Measure::Lost)), (1, 100));
    let [aside] = &set_aside(&directory, "damaged")[..] else { panic!() };
    assert_eq!(fs::read(aside).unwrap(), bytes);
}

/// `/healthz` says so until it is replaced, though records can still be written.
#[test]
fn a_damaged_spool_that_cannot_be_replaced_while_it_is_open_is_named() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    let in_the_way = spool(&directory).join("spool.db.flowlog-new");
    fs::create_dir(&in_the_way).unwrap();
    daemon.spool.health().found_damage(0);
    let is_named = |daemon: &Daemon| {
        let trouble = daemon.shipment.stats().trouble();
        trouble.is_some_and(|trouble| trouble.contains("spool.db is damaged: "))
    };
    soon("it is named", || is_named(&daemon));
    daemon.push(100..110);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 110);
    assert!(is_named(&daemon));
    fs::remove_dir(&in_the_way).unwrap();
    daemon.wait_for(Measure::SetAside, 1);
    soon("it is sound", || !is_named(&daemon));
    come_back(&mut daemon, &far);
    assert_eq!(numbers(&far.wait(110)), (0..110).collect::<Vec<_>>());
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 0);
}

/// A page of it is damaged: what stands on others is delivered, the rest is counted.
#[test]
fn what_can_be_read_of_a_damaged_spool_is_delivered() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    for turn in 0..200 {
        let mut daemon = Daemon::start(&directory, &far);
        let body = vec![b'x'; 6000];
        daemon.shipment.push(&Record { id: id(turn), flow: turn, body: &body });
        daemon.shipment.end(Instant::now());
        daemon.spool.settle(Instant::now() + Duration::from_secs(5));
    }
    let path = spool(&directory).join("spool.db");
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 40 * 16384, "{} bytes", bytes.len());
    // A leaf in the midst of them.
    bytes[20 * 16384..21 * 16384].fill(0xee);
    fs::write(&path, &bytes).unwrap();
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    let begin = Instant::now();
    let all = |daemon: &mut Daemon| {
        far.with(|state| state.taken.len() as u64) + daemon.get(Measure::Lost)
    };
    while all(&mut daemon) < 200 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} of 200", all(&mut daemon));
        std::thread::sleep(Duration::from_millis(1));
    }
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::SetAside), 1);
    assert!(daemon.get(Measure::Lost) > 0, "nothing was damaged");
    assert!(far.with(|state| state.taken.len()) > 10, "nothing could be read");
    assert_eq!(daemon.shipment.stats().kept().records, 0);
}

/// Damaged while it is open: the others go on, and all is delivered or counted.
#[test]
fn a_spool_that_is_damaged_while_it_is_open_is_set_aside() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 20_000);
    for name in ["spool.db", "spool.db-wal"] {
        let path = spool(&directory).join(name);
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let garbage = vec![0xee; length.saturating_sub(32) as usize];
        std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 32).unwrap();
    }
    come_back(&mut daemon, &far);
    daemon.push(20_000..20_010);
    daemon.flush();
    daemon.wait_for(Measure::SetAside, 1);
    daemon.push(20_010..20_020);
    daemon.flush();
    daemon.wait_until_empty();
    daemon.shipment.close();
    let mut taken = numbers(&far.with(|state| state.taken.clone()));
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len() as u64 + daemon.get(Measure::Lost), 20_020);
    assert!(taken.contains(&20_019));
    assert_eq!(daemon.shipment.stats().trouble(), None);
    assert_eq!(set_aside(&directory, "damaged").len(), 1);
}

/// The directory is removed: its records are still held open, and go into a new one.
#[test]
fn a_spool_that_is_removed_is_made_anew_with_its_records() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    fs::remove_dir_all(spool(&directory)).unwrap();
    soon("it is made anew", || {
        spool(&directory).join("spool.db").exists() && daemon.get(Measure::Replaced) == 1
    });
    daemon.push(100..200);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 200);
    assert_eq!(daemon.shipment.stats().kept().records, 200);
    let why = Spool::open(&settings(&directory)).unwrap_err().to_string();
    assert!(why.contains("in use by another flowlog"), "the lock was not made anew: {why}");
    come_back(&mut daemon, &far);
    assert_eq!(numbers(&far.wait(200)), (0..200).collect::<Vec<_>>());
    daemon.wait_until_empty();
    assert_eq!(daemon.get(Measure::Lost), 0);
    daemon.shipment.close();
}

/// The file alone is removed, and not its log, which was begun anew since records of it were
/// brought into the file: SQLite would take that log for one of the new file.
#[test]
fn a_spool_whose_file_alone_is_removed_is_made_anew_without_its_log() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    let body = vec![b'x'; 6000];
    // 6 MB at once; the log is brought into the file where it has 16.
    for turn in 1..=5 {
        for number in (turn - 1) * 1000..turn * 1000 {
            daemon.shipment.push(&Record { id: id(number), flow: number, body: &body });
        }
        daemon.flush();
        daemon.wait_for(Measure::Spooled, turn * 1000);
    }
    let (path, log) = (spool(&directory).join("spool.db"), spool(&directory).join("spool.db-wal"));
    let lengths = [&path, &log].map(|path| fs::metadata(path).unwrap().len());
    assert!(lengths[0] > 8 << 20 && lengths[1] < 26 << 20, "it was not begun anew: {lengths:?}");
    fs::remove_file(&path).unwrap();
    daemon.wait_for(Measure::Replaced, 1);
    assert_eq!(daemon.shipment.stats().kept().records, 5000);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sound: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    drop(connection);
    come_back(&mut daemon, &far);
    let taken: Vec<u64> = far.wait(5000).iter().map(|(id, _)| id.time).collect();
    assert_eq!(taken, (0..5000).collect::<Vec<_>>());
    daemon.wait_until_empty();
    daemon.shipment.close();
    assert_eq!((daemon.get(Measure::Lost), daemon.get(Measure::SetAside)), (0, 0));
}

/// Removed in the moment before the end: what waits does so in a file that has a name.
#[test]
fn a_spool_that_is_removed_before_the_end_is_made_anew() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    fs::remove_dir_all(spool(&directory)).unwrap();
    daemon.push(100..110);
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 0);
    assert_eq!(daemon.shipment.stats().kept().records, 110);
    drop(daemon);
    far.with(|state| state.away = false);
    Daemon::start(&directory, &far).shipment.close();
    assert_eq!(numbers(&far.with(|s| s.taken.clone())), (0..110).collect::<Vec<_>>());
}

/// It cannot be made anew: said at once, and what is not delivered is lost at the end, not
/// "for the next start".
#[test]
fn what_ends_with_a_removed_spool_is_counted() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let above = directory.path().join("above");
    fs::create_dir(&above).unwrap();
    far.with(|state| state.away = true);
    let settings = Settings { directory: above.join("spool"), ..settings(&directory) };
    let mut daemon = Daemon::with(&settings, &far, 64 << 20);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 100);
    fs::remove_dir_all(&above).unwrap();
    soon("it is said", || {
        let trouble = daemon.shipment.stats().trouble();
        trouble.is_some_and(|trouble| trouble.contains("spool.db was removed: "))
    });
    // It works on meanwhile.
    daemon.push(100..110);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 110);
    assert!(daemon.shipment.stats().trouble().unwrap().contains("was removed"));
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 110);
    assert_eq!(daemon.shipment.stats().kept().records, 0);
}

/// Its directory goes and comes back as it was: it is in its place again.
#[test]
fn a_spool_that_comes_back_is_attached_again() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let (above, away) = (directory.path().join("above"), directory.path().join("away"));
    fs::create_dir(&above).unwrap();
    far.with(|state| state.away = true);
    let settings = Settings { directory: above.join("spool"), ..settings(&directory) };
    let mut daemon = Daemon::with(&settings, &far, 64 << 20);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 100);
    fs::rename(&above, &away).unwrap();
    soon("it is said", || daemon.spool.health().is_detached());
    daemon.push(100..110);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 110);
    fs::rename(&away, &above).unwrap();
    soon("it is attached", || !daemon.spool.health().is_detached());
    soon("health", || {
        daemon.shipment.stats().trouble().is_none_or(|trouble| !trouble.contains("was removed"))
    });
    daemon.shipment.close();
    assert_eq!((daemon.get(Measure::Lost), daemon.get(Measure::Replaced)), (0, 0));
    drop(daemon);
    far.with(|state| state.away = false);
    Daemon::with(&settings, &far, 64 << 20).shipment.close();
    assert_eq!(numbers(&far.with(|s| s.taken.clone())), (0..110).collect::<Vec<_>>());
}

/// Another file takes its place: that one is set aside.
#[test]
fn a_spool_of_others_is_not_delivered() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    fs::write(spool(&directory).join("new"), "of others").unwrap();
    fs::rename(spool(&directory).join("new"), spool(&directory).join("spool.db")).unwrap();
    soon("it is noticed", || daemon.get(Measure::SetAside) == 1);
    come_back(&mut daemon, &far);
    assert_eq!(numbers(&far.wait(100)), (0..100).collect::<Vec<_>>());
    let [found] = &set_aside(&directory, "found")[..] else { panic!() };
    assert_eq!(fs::read(found).unwrap(), b"of others");
    daemon.shipment.close();
}

/// Others run meanwhile, but nobody could replace it once the user has changed.
#[test]
fn a_damaged_spool_is_replaced_by_the_start_that_is_to_do_it() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    drop(with_records(&directory, &far, 100));
    drop(open(&settings(&directory)));
    damage(&directory);
    drop(Spool::open_or_await(&settings(&directory), OnDamage::Fail).unwrap());
    assert_eq!(set_aside(&directory, "damaged").len(), 0);
    drop(Spool::open_or_await(&settings(&directory), OnDamage::Replace).unwrap());
    assert_eq!(set_aside(&directory, "damaged").len(), 1);
}
