//! A client that says what it does not have learns what was lost on the way, and
//! when nothing is.

use super::*;

/// What the client has learned.
#[derive(Clone, Default)]
struct Learned(Arc<Mutex<Lesson>>);

#[derive(Default)]
struct Lesson {
    complete: Vec<Option<u64>>,
    losses: Vec<(i64, Loss)>,
    records: u64,
    away: bool,
}

impl Learned {
    fn with<T>(&self, f: impl FnOnce(&mut Lesson) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Waits until the client hears that.
    fn wait_for(&self, what: &str, is_so: impl Fn(&Lesson) -> bool) {
        let begin = Instant::now();
        while !self.with(|lesson| is_so(lesson)) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Covering(Learned);

impl Client for Covering {
    type Settings = Learned;

    const COVERS: bool = true;

    async fn connect(learned: &Learned) -> Result<Self, Trouble> {
        if learned.with(|lesson| lesson.away) {
            return Err(Trouble::passing("the disk is full; make room"));
        }
        Ok(Self(learned.clone()))
    }

    fn learn(&mut self, Upstream { complete, losses, .. }: Upstream<'_>) {
        self.0.with(|lesson| {
            lesson.complete.push(complete);
            if let Some(losses) = losses {
                lesson.losses = losses.to_vec();
            }
        });
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        self.0.with(|lesson| lesson.records += batch.len());
        Ok(Delivered { records: batch.len(), held: true, ..Delivered::default() })
    }

    fn due(&self) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(5))
    }

    async fn close(&mut self) -> Result<Settled, Trouble> {
        Ok(Settled::All)
    }
}

struct Ship {
    shipment: Shipment,
    spool: Spool,
}

fn start(settings: &Settings, learned: &Learned, buffer_max: usize) -> Ship {
    let spool = open(settings);
    let stats = Stats::default();
    let start = Start {
        instance: instance("arc1", SinkPlugin::Parquet),
        encoding: "text 1",
        buffer_max,
        spool: &spool,
        stats: &stats,
    };
    let shipment = Shipment::open::<Covering>(&start, learned.clone());
    Ship { shipment, spool }
}

impl Ship {
    fn push(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.shipment.push(&Record { id: id(number), flow: number, body: &body(number) });
        }
    }
}

#[test]
fn what_found_no_room_is_learned_with_its_time_until_it_is_settled() {
    for full in [Full::DropOldest, Full::DropNewest] {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { max_bytes: 1 << 20, full, ..settings(&directory) };
        let learned = Learned::default();
        learned.with(|lesson| lesson.away = true);
        let mut ship = start(&settings, &learned, 64 << 20);
        ship.shipment.begin();
        ship.push(1..100_001);
        ship.shipment.close();
        let dropped = ship.shipment.stats().get(Measure::Dropped);
        // Killed: the next run learns it, and how much of it there was.
        drop(ship);
        learned.with(|lesson| lesson.away = false);
        let mut ship = start(&settings, &learned, 64 << 20);
        ship.shipment.begin();
        learned.wait_for("losses", |lesson| !lesson.losses.is_empty());
        let losses = learned.with(|lesson| lesson.losses.clone());
        assert!(losses.iter().all(|(_, loss)| loss.measure == Measure::Dropped), "{losses:?}");
        assert_eq!(losses.iter().map(|(_, loss)| loss.records).sum::<u64>(), dropped);
        let since = losses.iter().map(|(_, loss)| loss.since).min().unwrap();
        let until = losses.iter().map(|(_, loss)| loss.until).max().unwrap();
        match full {
            Full::DropOldest => assert_eq!((since, until), (1, dropped)),
            Full::DropNewest => assert!(since > 1 && until <= 100_000, "{losses:?}"),
        }
        ship.shipment.close();
        assert_eq!(learned.with(|lesson| lesson.records) + dropped, 100_000);
        drop(ship);
        // It was said: nobody learns it again.
        learned.with(|lesson| (lesson.losses.clear(), lesson.complete.clear()));
        let mut ship = start(&settings, &learned, 64 << 20);
        ship.shipment.begin();
        learned.wait_for("a lesson", |lesson| !lesson.complete.is_empty());
        assert!(learned.with(|lesson| lesson.losses.is_empty()));
        ship.shipment.close();
    }
}

#[test]
fn nothing_is_complete_while_records_wait_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::default();
    let mut ship = start(&settings(&directory), &learned, 600_000);
    ship.spool.limit_pages(Some(1));
    ship.shipment.begin();
    ship.shipment.caught_up(7);
    learned.wait_for("that all is complete", |lesson| lesson.complete.contains(&Some(7)));
    // More than fits into what the file has already.
    ship.push(1..8000);
    std::thread::sleep(ship.shipment.due_in().unwrap());
    ship.shipment.flush();
    ship.shipment.caught_up(9000);
    learned.with(|lesson| lesson.complete.clear());
    learned.wait_for("lessons", |lesson| lesson.complete.len() > 20);
    ship.push(8000..100_000);
    ship.shipment.flush();
    assert!(ship.shipment.stats().get(Measure::Lost) > 0);
    ship.shipment.caught_up(300_000);
    learned.wait_for("lessons", |lesson| lesson.complete.len() > 40);
    ship.shipment.close();
    // A lesson of before may have been under way.
    let early = |complete: &Option<u64>| complete.is_none_or(|complete| complete == 7);
    let complete = learned.with(|lesson| lesson.complete.clone());
    assert!(complete.iter().all(early), "{complete:?}");
}

#[test]
fn what_gathers_is_not_complete_and_silence_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::default();
    let mut ship = start(&settings(&directory), &learned, 64 << 20);
    ship.shipment.begin();
    ship.push(1..10);
    ship.shipment.caught_up(10);
    assert!(ship.shipment.due_in().unwrap() <= Duration::from_millis(100));
    std::thread::sleep(ship.shipment.due_in().unwrap());
    ship.shipment.flush();
    assert!(learned.with(|lesson| lesson.complete.iter().all(Option::is_none)));
    ship.shipment.caught_up(10);
    learned.wait_for("that all is complete", |lesson| lesson.complete.last() == Some(&Some(10)));
    assert_eq!(learned.with(|lesson| lesson.records), 9);
    // The engine is woken up though nothing comes.
    let due = ship.shipment.due_in().unwrap();
    assert!(due > Duration::from_millis(100) && due <= Duration::from_secs(1), "{due:?}");
    // The engine says up to when it has read, also at the end.
    ship.shipment.caught_up(11);
    ship.shipment.close();
    assert_eq!(learned.with(|lesson| lesson.complete.last().copied()), Some(Some(11)));
}

/// What a client has taken, and what it has stated to lack.
#[derive(Default)]
struct Books {
    taken: u64,
    lacks: u64,
    /// Losses that it has learned of and not stated yet.
    losses: Vec<(i64, Loss)>,
    /// Batches whose rows it got before it learned of a loss before them.
    early: u64,
}

/// Settles each batch at once, as a file does that is closed with it.
struct Settling(Arc<Mutex<Books>>);

impl Client for Settling {
    type Settings = Arc<Mutex<Books>>;

    const COVERS: bool = true;

    async fn connect(books: &Self::Settings) -> Result<Self, Trouble> {
        Ok(Self(books.clone()))
    }

    fn learn(&mut self, Upstream { losses, .. }: Upstream<'_>) {
        if let Some(losses) = losses {
            self.0.lock().unwrap().losses = losses.to_vec();
        }
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        let mut books = self.0.lock().unwrap();
        books.taken += batch.len();
        books.lacks += books.losses.drain(..).map(|(_, loss)| loss.records).sum::<u64>();
        // Records have their number for a time, from 1 on.
        let last = batch.records().map(|record| record.id.time).max().unwrap();
        books.early += u64::from(books.taken + books.lacks < last);
        Ok(Delivered { records: batch.len(), ..Delivered::default() })
    }

    async fn close(&mut self) -> Result<Settled, Trouble> {
        let mut books = self.0.lock().unwrap();
        books.lacks += books.losses.drain(..).map(|(_, loss)| loss.records).sum::<u64>();
        Ok(Settled::All)
    }
}

/// So that nothing is stated to be whole that is not, and no record is counted twice.
#[test]
fn a_loss_is_learned_before_the_rows_behind_it() {
    const RECORDS: u64 = 200_000;
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&settings(&directory)).unwrap();
    let stats = Stats::default();
    let start = Start {
        instance: instance("arc1", SinkPlugin::Parquet),
        encoding: "text 1",
        buffer_max: 60_000,
        spool: &spool,
        stats: &stats,
    };
    let books = Arc::<Mutex<Books>>::default();
    let mut shipment = Shipment::open::<Settling>(&start, books.clone());
    shipment.begin();
    for number in 1..=RECORDS {
        shipment.push(&Record { id: id(number), flow: number, body: &body(number) });
        if number % 1000 == 0 {
            // Some find room then, and some do not.
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    shipment.close();
    let lost = shipment.stats().get(Measure::Lost);
    let Books { taken, lacks, early, .. } = *books.lock().unwrap();
    assert!(lost > 0 && taken > 0, "{lost} were lost, {taken} taken");
    assert_eq!(early, 0, "batches came before what was lost before them");
    assert_eq!((taken + lacks, lacks), (RECORDS, lost));
}

/// A damaged row is found by the worker: what stands behind it waits until that is in the spool.
#[test]
fn a_damaged_row_is_learned_before_the_rows_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let spool_settings = settings(&directory);
    let learned = Learned::default();
    learned.with(|lesson| lesson.away = true);
    let mut ship = start(&spool_settings, &learned, 64 << 20);
    ship.shipment.begin();
    for first in [1, 101, 201] {
        ship.push(first..first + 100);
        std::thread::sleep(ship.shipment.due_in().unwrap());
        ship.shipment.flush();
    }
    ship.shipment.close();
    drop(ship);
    let connection = rusqlite::Connection::open(spool_settings.directory.join("spool.db")).unwrap();
    let damage = "UPDATE batch SET payload = substr(payload, 1, bytes - 1) \
                  WHERE sequence = (SELECT min(sequence) + 1 FROM batch)";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    drop(connection);
    let books = Arc::<Mutex<Books>>::default();
    let spool = Spool::open(&spool_settings).unwrap();
    let stats = Stats::default();
    let start = Start {
        instance: instance("arc1", SinkPlugin::Parquet),
        encoding: "text 1",
        buffer_max: 64 << 20,
        spool: &spool,
        stats: &stats,
    };
    let mut shipment = Shipment::open::<Settling>(&start, books.clone());
    shipment.begin();
    let begin = Instant::now();
    while books.lock().unwrap().taken < 200 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the rows behind it do not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    shipment.close();
    let Books { taken, lacks, early, .. } = *books.lock().unwrap();
    assert_eq!((taken, lacks, early), (200, 100, 0));
}
