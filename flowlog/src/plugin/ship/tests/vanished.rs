//! A spool that is removed while its records wait: what a kill or the end leaves of them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;

use super::super::held;
use super::beneath::{soon, spool, with_records};
use super::*;

/// Whether the copy ends before the daemon is not known: nothing waits "for the next start".
#[test]
fn what_is_being_copied_at_the_end_is_unsure() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    let directory_of = spool(&directory);
    soon("it is noted", || {
        held::read(&directory_of).is_some_and(|held| held.values().any(|it| it.records == 100))
    });
    // Who notes what is held waits until somebody reads that.
    let fifo = directory_of.join("spool.held");
    fs::remove_file(&fifo).unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::remove_file(directory_of.join("spool.db")).unwrap();
    soon("it is said before it is copied", || {
        let trouble = daemon.shipment.stats().trouble();
        trouble.is_some_and(|why| why.ends_with("was removed: what it held is copied to a new one"))
    });
    assert!(daemon.spool.health().is_replacing());
    daemon.shipment.end(Instant::now() + Duration::from_millis(100));
    daemon.shipment.close();
    assert_eq!((daemon.get(Measure::Unsure), daemon.get(Measure::Lost)), (100, 0));
    assert_eq!(daemon.shipment.stats().kept().records, 0);
    // The copy goes on until the process ends.
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let reader = options.open(&fifo).unwrap();
    soon("it is copied", || !daemon.spool.health().is_replacing());
    drop(daemon);
    drop((reader, fs::remove_file(&fifo).unwrap()));
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.close();
    assert_eq!(numbers(&far.with(|state| state.taken.clone())), (0..100).collect::<Vec<_>>());
    assert_eq!(daemon.get(Measure::Lost), 0);
}

/// The end has counted what it held: the next start finds no file, and counts nothing.
#[test]
fn what_ends_with_a_removed_spool_is_not_counted_by_the_next_start() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    let in_the_way = spool(&directory).join("spool.db.flowlog-new");
    fs::create_dir(&in_the_way).unwrap();
    fs::remove_file(spool(&directory).join("spool.db")).unwrap();
    soon("it is noticed", || daemon.spool.health().is_detached());
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 100);
    drop(daemon);
    fs::remove_dir(&in_the_way).unwrap();
    let mut daemon = Daemon::start(&directory, &far);
    assert_eq!((daemon.get(Measure::Lost), daemon.get(Measure::Replaced)), (0, 0));
    daemon.shipment.close();
}

/// It is removed while no flowlog runs, or was when one was killed: its records are lost.
#[test]
fn a_spool_that_has_vanished_is_counted_once() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = with_records(&directory, &far, 100);
    assert_eq!((daemon.get(Measure::Lost), daemon.get(Measure::Replaced)), (0, 0));
    daemon.shipment.close();
    drop(daemon);
    drop(open(&settings(&directory)));
    fs::remove_file(spool(&directory).join("spool.db")).unwrap();
    fs::write(spool(&directory).join("spool.db.flowlog-new"), "a part").unwrap();
    for counted in [100, 0] {
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.close();
        let counts = [Measure::Lost, Measure::Replaced, Measure::SetAside];
        let counts = counts.map(|measure| daemon.get(measure));
        assert_eq!(counts, [counted, counted.min(1), 0]);
        drop(daemon);
        drop(open(&settings(&directory)));
    }
}
