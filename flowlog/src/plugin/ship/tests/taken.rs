//! A client that holds what it gets, as an archive does in its open file: each record is delivered
//! or counted, and none is both.

use std::fs;

use super::*;

/// What such a client has.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// In the file that is open, which ends with the connection.
    open: Vec<u64>,
    /// In files that are closed.
    closed: Vec<u64>,
    losses: Vec<Loss>,
    /// Closes the file at the next opportunity.
    closes: bool,
    /// Has no room.
    away: bool,
}

impl Files {
    fn with<T>(&self, f: impl FnOnce(&mut Held) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Held) -> bool) {
        let begin = Instant::now();
        while !self.with(|held| is_so(held)) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// With when it wants to be called.
struct Holder(Files, Instant);

const TICK: Duration = Duration::from_millis(5);

impl Holder {
    fn close_file(&self) -> Settled {
        self.0.with(|held| {
            let open = std::mem::take(&mut held.open);
            held.closed.extend(open);
        });
        Settled::All
    }
}

impl Client for Holder {
    type Settings = Files;

    const COVERS: bool = true;

    fn appetite(_: &Files) -> Appetite {
        Appetite { bytes: 1 << 18, linger: Duration::ZERO }
    }

    async fn connect(files: &Files) -> Result<Self, Trouble> {
        files.with(|held| held.open.clear());
        if files.with(|held| held.away) {
            return Err(Trouble::passing("the disk is full; make room"));
        }
        Ok(Self(files.clone(), Instant::now() + TICK))
    }

    fn learn(&mut self, Upstream { losses, .. }: Upstream<'_>) {
        if let Some(losses) = losses {
            let losses = losses.iter().map(|(_, loss)| *loss).collect();
            self.0.with(|held| held.losses = losses);
        }
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        self.0.with(|held| held.open.extend(batch.records().map(|record| record.id.time)));
        Ok(Delivered { records: batch.len(), held: true, ..Delivered::default() })
    }

    fn due(&self) -> Option<Instant> {
        Some(self.1)
    }

    async fn tick(&mut self) -> Result<Settled, Trouble> {
        self.1 = Instant::now() + TICK;
        let closes = self.0.with(|held| std::mem::take(&mut held.closes));
        Ok(if closes { self.close_file() } else { Settled::No })
    }

    async fn close(&mut self) -> Result<Settled, Trouble> {
        Ok(self.close_file())
    }
}

struct Ship {
    shipment: Shipment,
    made: u64,
    /// Ends last: its thread writes.
    _spool: Spool,
}

impl Ship {
    fn start(settings: &Settings, files: &Files) -> Self {
        let spool = open(settings);
        let stats = Stats::default();
        let instance = instance("arc1", SinkPlugin::Parquet);
        let (encoding, buffer_max) = ("text 1", 64 << 20);
        let start = Start { instance, encoding, buffer_max, spool: &spool, stats: &stats };
        let mut shipment = Shipment::open::<Holder>(&start, files.clone());
        shipment.begin();
        Self { shipment, made: 0, _spool: spool }
    }

    fn make(&mut self, records: u64) {
        for number in self.made..self.made + records {
            self.shipment.push(&Record { id: id(number), flow: number, body: &body(number) });
        }
        self.made += records;
        std::thread::sleep(self.shipment.due_in().unwrap_or_default());
        self.shipment.flush();
    }

    fn get(&self, measure: Measure) -> u64 {
        self.shipment.stats().get(measure)
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !is_so(self) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends; each record is in a closed file, once, or counted.
    fn end(mut self, files: &Files) -> u64 {
        self.shipment.close();
        let mut closed = files.with(|held| held.closed.clone());
        let all = closed.len();
        closed.sort_unstable();
        closed.dedup();
        assert_eq!(closed.len(), all, "some are there twice");
        let counted = self.get(Measure::Dropped) + self.get(Measure::Lost);
        let kept = self.shipment.stats().kept().records;
        assert_eq!(all as u64 + counted + kept, self.made, "{counted} counted, {kept} kept");
        counted
    }
}

fn small(directory: &TempDir) -> Settings {
    Settings { max_bytes: 1 << 20, ..settings(directory) }
}

#[test]
fn a_row_that_a_client_holds_is_not_dropped() {
    let (directory, files) = (tempfile::tempdir().unwrap(), Files::default());
    let mut ship = Ship::start(&small(&directory), &files);
    ship.make(5000);
    files.wait_for("the first to be held", |held| held.open.len() == 5000);
    // It takes them as they come, until it has all that the spool has room for.
    for _ in 0..10 {
        ship.make(5000);
    }
    ship.wait_for("all to be dropped or spooled", |ship| {
        ship.get(Measure::Spooled) + ship.get(Measure::Dropped) >= ship.made
    });
    files.with(|held| held.closes = true);
    files.wait_for("a file", |held| held.closed.len() >= 5000);
    ship.make(5000);
    assert!(ship.end(&files) > 0, "there was room");
    assert_eq!(files.with(|held| held.closed[..5000].to_vec()), (0..5000).collect::<Vec<_>>());
}

/// A client that has lost its connection holds nothing: the oldest are dropped again.
#[test]
fn what_a_client_holds_no_more_is_dropped() {
    let (directory, files) = (tempfile::tempdir().unwrap(), Files::default());
    let mut ship = Ship::start(&small(&directory), &files);
    ship.make(5000);
    files.wait_for("the first to be held", |held| held.open.len() == 5000);
    files.with(|held| held.away = true);
    ship.shipment.reopen();
    // That closes the file; what comes then finds nobody.
    ship.wait_for("the end of the connection", |ship| ship.get(Measure::Errors) > 0);
    for _ in 0..20 {
        ship.make(5000);
    }
    ship.wait_for("all to be spooled", |ship| {
        ship.get(Measure::Spooled) + ship.get(Measure::Dropped) >= ship.made
            && ship.shipment.stats().waiting().records == 0
    });
    files.with(|held| held.away = false);
    ship.shipment.reopen();
    let newest = ship.made - 1;
    files.wait_for("the newest", |held| held.open.last() == Some(&newest));
    assert!(ship.end(&files) > 0, "there was room");
}

/// The spool is damaged while the client holds rows of it.
#[test]
fn what_was_lost_with_a_damaged_spool_is_not_delivered_as_well() {
    let (directory, files) = (tempfile::tempdir().unwrap(), Files::default());
    let mut ship = Ship::start(&settings(&directory), &files);
    // More than SQLite has in memory.
    ship.make(200_000);
    files.wait_for("all to be held", |held| held.open.len() == 200_000);
    for name in ["spool.db", "spool.db-wal"] {
        let path = directory.path().join("spool").join(name);
        let length = fs::metadata(&path).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let garbage = vec![0xee; length.saturating_sub(32) as usize];
        std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 32).unwrap();
    }
    ship.make(10);
    ship.wait_for("it is set aside", |ship| ship.get(Measure::SetAside) == 1);
    ship.make(10);
    let newest = ship.made - 1;
    files.wait_for("the newest", |held| held.open.last() == Some(&newest));
    assert!(ship.end(&files) > 0, "nothing was lost");
}

/// A row is damaged, is found to be, and finds no room then: it is counted once, and its time has
/// an end.
#[test]
fn a_damaged_row_that_finds_no_room_is_counted_once() {
    for found in [true, false] {
        let (directory, files) = (tempfile::tempdir().unwrap(), Files::default());
        files.with(|held| held.away = true);
        let mut ship = Ship::start(&small(&directory), &files);
        ship.make(1000);
        ship.shipment.close();
        drop(ship);
        let path = directory.path().join("spool/spool.db");
        let connection = rusqlite::Connection::open(path).unwrap();
        let damage = "UPDATE batch SET payload = substr(payload, 1, bytes - 1)";
        assert_eq!(connection.execute(damage, []).unwrap(), 1);
        drop(connection);
        files.with(|held| held.away = !found);
        let mut ship = Ship::start(&small(&directory), &files);
        if found {
            ship.wait_for("it is found", |ship| ship.get(Measure::Lost) == 1000);
            files.with(|held| held.away = true);
            ship.shipment.reopen();
            ship.wait_for("the end of the connection", |ship| ship.get(Measure::Errors) > 0);
        }
        for _ in 0..10 {
            ship.make(5000);
        }
        ship.wait_for("all to be spooled", |ship| ship.get(Measure::Spooled) >= ship.made);
        files.with(|held| held.away = false);
        ship.shipment.reopen();
        files.wait_for("losses", |held| !held.losses.is_empty());
        let losses = files.with(|held| held.losses.clone());
        let now = crate::capture::netlink::now_ns();
        assert!(losses.iter().all(|loss| loss.until <= now), "{losses:?}");
        ship.made += 1000;
        let counted = ship.end(&files);
        assert_eq!(losses.iter().map(|loss| loss.records).sum::<u64>(), counted, "{losses:?}");
    }
}

/// A row of the table of losses is damaged: it is said once, and that losses are not known.
#[test]
fn a_damaged_loss_is_learned_as_one_that_is_not_known() {
    for runs in [true, false] {
        let (directory, files) = (tempfile::tempdir().unwrap(), Files::default());
        files.with(|held| held.away = true);
        let mut ship = Ship::start(&small(&directory), &files);
        for _ in 0..10 {
            ship.make(5000);
        }
        ship.wait_for("a loss", |ship| ship.get(Measure::Dropped) > 0);
        ship.wait_for("all to be spooled", |ship| ship.get(Measure::Spooled) >= ship.made);
        let damage = || {
            let path = directory.path().join("spool/spool.db");
            let connection = rusqlite::Connection::open(path).unwrap();
            assert_eq!(connection.execute("UPDATE loss SET records = 1", []).unwrap(), 1);
        };
        if runs {
            damage();
        } else {
            ship.shipment.close();
            drop(ship);
            damage();
            ship = Ship::start(&small(&directory), &files);
        }
        files.with(|held| held.away = false);
        ship.shipment.reopen();
        files.wait_for("losses", |held| !held.losses.is_empty());
        let losses = files.with(|held| held.losses.clone());
        assert!(losses.iter().any(|loss| loss.records == 0 && loss.since == 0), "{losses:?}");
        ship.wait_for("it is set aside", |ship| ship.get(Measure::SetAside) == 1);
        ship.shipment.close();
        assert_eq!(ship.get(Measure::SetAside), 1);
    }
}

/// Losses are learned from the file that is in use, and leave it when they are settled.
#[test]
fn losses_go_with_a_spool_that_is_made_anew() {
    let (directory, files) = (tempfile::tempdir().unwrap(), Files::default());
    files.with(|held| held.away = true);
    let mut ship = Ship::start(&small(&directory), &files);
    for _ in 0..10 {
        ship.make(5000);
    }
    ship.wait_for("all to be spooled", |ship| ship.get(Measure::Spooled) >= ship.made);
    files.with(|held| held.away = false);
    ship.shipment.reopen();
    files.wait_for("losses", |held| !held.losses.is_empty());
    fs::remove_dir_all(directory.path().join("spool")).unwrap();
    ship.wait_for("it is made anew", |ship| ship.get(Measure::Replaced) == 1);
    ship.make(10);
    let dropped = ship.get(Measure::Dropped);
    files.wait_for("losses of the new file", |held| {
        held.losses.iter().map(|loss| loss.records).sum::<u64>() == dropped
    });
    ship.end(&files);
    let path = directory.path().join("spool/spool.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    let left: u64 =
        connection.query_row("SELECT count(*) FROM loss", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "they would be said again");
}
