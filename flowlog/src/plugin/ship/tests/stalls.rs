//! Records that stand still, and records that are missing: since when, and how many.

use super::*;
use crate::plugin::gaps::{Gap, GapKind};

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

/// What waits in memory and what is lost there has its times.
#[test]
fn records_in_memory_have_their_times() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::with(&settings(&directory), &far, 600_000);
    daemon.spool.limit_pages(Some(1));
    daemon.shipment.begin();
    daemon.push(5..20_005);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 1);
    assert_eq!(daemon.shipment.waiting_since(), Some(5));
    assert!(daemon.shipment.stalled_for().is_some());
    let lost = daemon.get(Measure::Lost);
    let gaps = daemon.shipment.take_gaps();
    let [gap] = &gaps.iter().copied().collect::<Vec<_>>()[..] else { panic!("{gaps:?}") };
    let (kind, detail) = (GapKind::Lost, "buffer_max_bytes");
    let since = 20_005 - lost;
    assert_eq!(*gap, Gap { kind, detail, since, until: 20_004, records: lost });
    daemon.shipment.end(Instant::now() + Duration::from_millis(100));
    daemon.shipment.close();
}

/// What a full spool drops has its times.
#[test]
fn dropped_records_have_their_times() {
    for full in [Full::DropOldest, Full::DropNewest] {
        let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
        far.with(|state| state.away = true);
        let settings = Settings { max_bytes: 1 << 20, full, ..settings(&directory) };
        let mut daemon = Daemon::with(&settings, &far, 64 << 20);
        daemon.shipment.begin();
        daemon.push(0..100_000);
        daemon.shipment.close();
        let dropped = daemon.get(Measure::Dropped);
        let gaps = daemon.shipment.take_gaps();
        let [gap] = &gaps.iter().copied().collect::<Vec<_>>()[..] else { panic!("{gaps:?}") };
        assert_eq!(
            (gap.kind, gap.detail, gap.records),
            (GapKind::Dropped, "spool_max_bytes", dropped)
        );
        match full {
            Full::DropOldest => assert_eq!((gap.since, gap.until), (0, dropped - 1)),
            // The last chunk is smaller, and may have found room.
            Full::DropNewest => assert!(gap.since > 0 && gap.until >= 90_000, "{gap:?}"),
        }
        assert_eq!(daemon.shipment.waiting_since(), None);
    }
}
