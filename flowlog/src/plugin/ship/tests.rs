use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::plugin::record_id::RecordId;
use crate::stats::{Instance, Measure, Part, SinkPlugin, Stats};

mod beneath;
mod coverage;
mod faults;
mod opening;
mod stalls;
mod taken;
mod vanished;

/// What the far side of a test does, and what it got.
#[derive(Clone, Default)]
struct Far(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What it says instead of taking a batch, one after the other.
    troubles: Vec<Trouble>,
    /// Nobody listens.
    away: bool,
    /// It takes batches, and loses the connection before it answers.
    breaks: u32,
    /// It holds what it gets until it is told to end.
    holds: bool,
    taken: Vec<(RecordId, Vec<u8>)>,
    settled: usize,
    connections: u32,
    encodings: Vec<String>,
}

impl Far {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Waits until that many records were taken, and returns all.
    fn wait(&self, records: usize) -> Vec<(RecordId, Vec<u8>)> {
        let begin = Instant::now();
        while self.with(|state| state.taken.len()) < records {
            assert!(begin.elapsed() < Duration::from_secs(20), "the far side gets nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.with(|state| state.taken.clone())
    }
}

struct Puppet(Far);

impl Client for Puppet {
    type Settings = Far;

    async fn connect(far: &Far) -> Result<Self, Trouble> {
        if far.with(|state| state.away) {
            return Err(Trouble::passing("nobody listens; start it"));
        }
        far.with(|state| state.connections += 1);
        Ok(Self(far.clone()))
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        self.0.with(|state| {
            if let Some(trouble) = state.troubles.pop() {
                return Err(trouble);
            }
            state.encodings.push(batch.encoding().to_owned());
            state.taken.extend(batch.records().map(|r| (r.id, r.body.to_vec())));
            if state.breaks > 0 {
                state.breaks -= 1;
                return Err(Trouble::passing("the connection broke"));
            }
            Ok(Delivered { records: batch.len(), held: state.holds, ..Delivered::default() })
        })
    }

    async fn close(&mut self) -> Result<Settled, Trouble> {
        Ok(self.0.with(|state| {
            state.settled = state.taken.len();
            if state.holds { Settled::All } else { Settled::No }
        }))
    }
}

/// A daemon with one sink.
struct Daemon {
    shipment: Shipment,
    stats: Stats,
    spool: Spool,
}

fn instance(sink: &str, plugin: SinkPlugin) -> Instance {
    Instance { source: "ct1".to_owned(), stack: 1, sink: sink.to_owned(), plugin }
}

fn settings(directory: &TempDir) -> Settings {
    Settings {
        directory: directory.path().join("spool"),
        max_bytes: 1 << 30,
        full: Full::DropOldest,
    }
}

/// Opens a spool. On a slow disk the thread of the daemon before may still be closing it.
fn open(settings: &Settings) -> Spool {
    let begin = Instant::now();
    loop {
        match Spool::open(settings) {
            Err(Failure::InUse(_)) if begin.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

impl Daemon {
    fn start(directory: &TempDir, far: &Far) -> Self {
        Self::with(&settings(directory), far, 64 << 20)
    }

    fn with(settings: &Settings, far: &Far, buffer_max: usize) -> Self {
        Self::on(open(settings), far, buffer_max)
    }

    fn on(spool: Spool, far: &Far, buffer_max: usize) -> Self {
        let stats = Stats::default();
        let start = Start {
            instance: instance("far1", SinkPlugin::Nats),
            encoding: "text 1",
            buffer_max,
            spool: &spool,
            stats: &stats,
        };
        let shipment = Shipment::open::<Puppet>(&start, far.clone());
        Self { shipment, stats, spool }
    }

    fn push(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.shipment.push(&Record { id: id(number), flow: number, body: &body(number) });
        }
    }

    /// As the engine does while nothing comes.
    fn flush(&mut self) {
        std::thread::sleep(self.shipment.due_in().unwrap_or_default());
        self.shipment.flush();
    }

    fn get(&mut self, measure: Measure) -> u64 {
        self.stats.sum(SinkPlugin::Nats, measure)
    }

    fn wait_for(&mut self, measure: Measure, value: u64) {
        let begin = Instant::now();
        while self.get(measure) < value {
            assert!(begin.elapsed() < Duration::from_secs(20), "{measure:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_until_empty(&mut self) {
        let begin = Instant::now();
        while self.shipment.stats().kept().records > 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "the spool is not emptied");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn id(number: u64) -> RecordId {
    RecordId { time: number, hash: !number }
}

fn body(number: u64) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

fn numbers(taken: &[(RecordId, Vec<u8>)]) -> Vec<u64> {
    taken
        .iter()
        .map(|(id, bytes)| {
            assert_eq!((id.hash, bytes), (!id.time, &body(id.time)));
            id.time
        })
        .collect()
}

#[test]
fn records_arrive_in_order_and_leave_the_spool() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::start(&directory, &far);
    daemon.push(0..10);
    daemon.shipment.begin();
    daemon.push(10..50_000);
    daemon.flush();
    assert_eq!(numbers(&far.wait(50_000)), (0..50_000).collect::<Vec<_>>());
    daemon.wait_until_empty();
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Spooled), 50_000);
    assert_eq!(daemon.get(Measure::Records), 50_000);
    for measure in [Measure::Lost, Measure::Repeated, Measure::Errors, Measure::Dropped] {
        assert_eq!(daemon.get(measure), 0, "{measure:?}");
    }
    assert!(far.with(|state| state.encodings.iter().all(|encoding| encoding == "text 1")));
    assert_eq!(daemon.shipment.stats().trouble(), None);
}

#[test]
fn what_was_not_acknowledged_comes_again() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.breaks = 1);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.flush();
    let taken = numbers(&far.wait(200));
    assert_eq!(taken, (0..100).chain(0..100).collect::<Vec<_>>());
    daemon.wait_for(Measure::Records, 100);
    assert_eq!(daemon.get(Measure::Repeated), 100);
    assert_eq!(daemon.get(Measure::Reconnects), 1);
    assert_eq!(daemon.get(Measure::Errors), 1);
    daemon.wait_until_empty();
}

/// What has come meanwhile is in one batch with what comes again.
#[test]
fn what_comes_for_the_first_time_is_not_counted_as_repeated() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.breaks = 1);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.flush();
    far.wait(100);
    far.with(|state| state.away = true);
    daemon.push(100..150);
    daemon.flush();
    daemon.wait_for(Measure::Spooled, 150);
    far.with(|state| state.away = false);
    daemon.shipment.reopen();
    daemon.wait_for(Measure::Records, 150);
    assert_eq!(daemon.get(Measure::Repeated), 100);
    daemon.shipment.close();
}

#[test]
fn a_far_side_that_is_away_is_told_and_tried_again() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 2);
    daemon.wait_for(Measure::Spooled, 100);
    assert_eq!(daemon.shipment.stats().kept().records, 100);
    assert_eq!(daemon.shipment.stats().trouble().unwrap(), "nobody listens; start it");
    far.with(|state| state.away = false);
    daemon.shipment.reopen();
    far.wait(100);
    daemon.wait_until_empty();
    assert_eq!(daemon.shipment.stats().trouble(), None);
}

/// The next start delivers what the last one could not, whatever became of it.
#[test]
fn what_is_left_is_delivered_after_the_next_start() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    for turn in 0..3 {
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.begin();
        daemon.push(turn * 10..turn * 10 + 10);
        daemon.shipment.close();
        assert_eq!(daemon.get(Measure::Lost), 0);
        assert_eq!(daemon.shipment.stats().kept().records, (turn + 1) * 10);
    }
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(30..40);
    daemon.shipment.close();
    assert_eq!(numbers(&far.wait(40)), (0..40).collect::<Vec<_>>());
    assert_eq!(daemon.shipment.stats().kept().records, 0);
}

/// Also what comes to the spool while the worker looks for it.
#[test]
fn what_is_made_before_the_end_is_delivered_in_it() {
    for _ in 0..60 {
        let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.begin();
        daemon.push(0..10);
        let begin = Instant::now();
        daemon.shipment.close();
        // A slow disk is not waited for.
        if begin.elapsed() < Duration::from_secs(4) {
            assert_eq!(far.with(|state| state.taken.len()), 10);
            assert_eq!(daemon.shipment.stats().kept().records, 0);
        }
    }
}

#[test]
fn what_is_held_stays_until_it_is_settled() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.holds = true);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(0..100);
    daemon.flush();
    far.wait(100);
    daemon.push(100..200);
    daemon.flush();
    far.wait(200);
    assert_eq!(daemon.shipment.stats().kept().records, 200);
    daemon.shipment.close();
    assert_eq!(daemon.shipment.stats().kept().records, 0);
    assert_eq!(far.with(|state| state.settled), 200);
}

#[test]
fn sinks_share_the_spool_and_have_their_own_records() {
    let (directory, far, other) = (tempfile::tempdir().unwrap(), Far::default(), Far::default());
    other.with(|state| state.away = true);
    let mut daemon = Daemon::start(&directory, &far);
    let start = Start {
        instance: instance("far2", SinkPlugin::Kafka),
        encoding: "text 2",
        buffer_max: 1 << 20,
        spool: &daemon.spool,
        stats: &daemon.stats,
    };
    let mut second = Shipment::open::<Puppet>(&start, other.clone());
    daemon.shipment.begin();
    second.begin();
    daemon.push(0..100);
    second.push(&Record { id: id(7), flow: 7, body: &body(7) });
    daemon.flush();
    second.flush();
    far.wait(100);
    daemon.wait_until_empty();
    daemon.shipment.close();
    second.close();
    assert_eq!(second.stats().kept().records, 1);
    assert_eq!(daemon.stats.sum(SinkPlugin::Kafka, Measure::Spooled), 1);
    assert!(numbers(&far.with(|state| state.taken.clone())).len() == 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever breaks, and whenever the daemon begins anew: each record arrives,
    /// in order when the repeated ones are left out, and none is left.
    #[test]
    fn each_record_arrives(
        turns in prop::collection::vec((1..400_u64, 0..3_u32, any::<bool>()), 1..6)
    ) {
        let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
        let mut made = 0;
        for (records, breaks, away) in turns {
            far.with(|state| {
                state.breaks = breaks;
                state.away = away;
            });
            let mut daemon = Daemon::start(&directory, &far);
            daemon.shipment.begin();
            daemon.push(made..made + records);
            made += records;
            daemon.shipment.close();
            prop_assert_eq!(daemon.get(Measure::Lost), 0);
        }
        far.with(|state| (state.breaks, state.away) = (0, false));
        let mut daemon = Daemon::start(&directory, &far);
        daemon.shipment.close();
        prop_assert_eq!(daemon.shipment.stats().kept().records, 0);
        let mut seen = std::collections::HashSet::new();
        let taken = numbers(&far.with(|state| state.taken.clone()));
        let first: Vec<u64> = taken.into_iter().filter(|n| seen.insert(*n)).collect();
        prop_assert_eq!(first, (0..made).collect::<Vec<_>>());
    }
}
