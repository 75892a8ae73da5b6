//! Records that stand still, and records that are missing: since when, and how many.

use super::*;

/// Answers to a connection, and to nothing else.
struct Mute;

impl Client for Mute {
    type Settings = ();

    async fn connect((): &()) -> Result<Self, Trouble> {
        Ok(Self)
    }

    async fn deliver(&mut self, _: &Batch) -> Result<Delivered, Trouble> {
        std::future::pending().await
    }
}

fn mute(directory: &TempDir) -> (Spool, Shipment) {
    let spool = Spool::open(&settings(directory)).unwrap();
    let instance = instance("far1", SinkPlugin::Nats);
    let stats = Stats::default();
    let (encoding, buffer_max) = ("text 1", 1 << 20);
    let start = Start { instance, encoding, buffer_max, spool: &spool, stats: &stats };
    let shipment = Shipment::open::<Mute>(&start, ());
    (spool, shipment)
}

/// A destination that hangs is reported long before it is given up.
#[test]
fn a_destination_that_hangs_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, mut shipment) = mute(&directory);
    shipment.begin();
    assert_eq!(shipment.stalled_for(), None);
    shipment.push(&Record { id: id(1), flow: 1, body: &body(1) });
    std::thread::sleep(shipment.due_in().unwrap());
    shipment.flush();
    let begin = Instant::now();
    while shipment.stats().trouble().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(12), "nothing is reported");
        std::thread::sleep(Duration::from_millis(10));
    }
    let trouble = shipment.stats().trouble().unwrap();
    assert_eq!(trouble, "the destination has not answered to records for 10 s");
    assert!(shipment.stalled_for().unwrap() >= Duration::from_secs(10));
    shipment.end(Instant::now());
    shipment.close();
}

#[test]
fn what_is_delivered_does_not_stand_still() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    for holds in [false, true] {
        far.with(|state| (state.holds, state.away) = (holds, true));
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.begin();
        daemon.push(0..100);
        daemon.flush();
        daemon.wait_for(Measure::Spooled, 100);
        std::thread::sleep(Duration::from_millis(20));
        assert!(daemon.shipment.stalled_for().unwrap() >= Duration::from_millis(10));
        far.with(|state| state.away = false);
        daemon.shipment.reopen();
        let begin = Instant::now();
        while daemon.shipment.stalled_for().is_some() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(daemon.get(Measure::Records), 100);
        daemon.shipment.close();
    }
}

/// Delivers by a library that has a fault.
struct Faulty;

impl Client for Faulty {
    type Settings = ();

    async fn connect((): &()) -> Result<Self, Trouble> {
        Ok(Self)
    }

    async fn deliver(&mut self, _: &Batch) -> Result<Delivered, Trouble> {
        panic!("a fault of a library: the test wants that")
    }
}

#[test]
fn a_thread_that_has_ended_is_noticed_while_the_daemon_runs() {
    let directory = tempfile::tempdir().unwrap();
    let spool = open(&settings(&directory));
    let stats = Stats::default();
    let instance = instance("far1", SinkPlugin::Nats);
    let (encoding, buffer_max) = ("text 1", 1 << 20);
    let start = Start { instance, encoding, buffer_max, spool: &spool, stats: &stats };
    let mut shipment = Shipment::open::<Faulty>(&start, ());
    assert_eq!(shipment.dead_thread(), None, "it has not begun");
    shipment.begin();
    assert_eq!(shipment.dead_thread(), None);
    shipment.push(&Record { id: id(1), flow: 1, body: &body(1) });
    std::thread::sleep(shipment.due_in().unwrap());
    shipment.flush();
    let begin = Instant::now();
    while shipment.dead_thread().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it is not noticed");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (part, what) = shipment.dead_thread().unwrap();
    assert!(part == Part::Destination && what.contains("restart flowlog"), "{what}");
    assert!(shipment.stalled_for().is_some());
    shipment.end(Instant::now());
    assert_eq!(shipment.dead_thread(), None, "it is to end");
    shipment.close();
    assert_eq!(shipment.stats().kept().records, 1);
}

/// Records that wait in memory stand still, and the bound of memory loses what is more.
#[test]
fn records_in_memory_stand_still() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::with(&settings(&directory), &far, 600_000);
    daemon.spool.limit_pages(Some(1));
    daemon.shipment.begin();
    daemon.push(5..20_005);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 1);
    assert!(daemon.shipment.stalled_for().is_some());
    assert!(daemon.get(Measure::Lost) > 0);
    daemon.shipment.end(Instant::now() + Duration::from_millis(100));
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 20_000);
}
