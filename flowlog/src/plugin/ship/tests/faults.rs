use super::*;

/// Something that a person has to change is told, and nothing is lost by it.
#[test]
fn a_refusal_is_told() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.troubles.push(Trouble::refused("wrong password; see `pass=`")));
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    daemon.push(0..10);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 1);
    assert_eq!(daemon.shipment.stats().trouble().unwrap(), "wrong password; see `pass=`");
    daemon.shipment.reopen();
    assert_eq!(numbers(&far.wait(10)), (0..10).collect::<Vec<_>>());
}

fn full_spool(full: Full) -> (u64, u64, Vec<u64>) {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    let settings = Settings { max_bytes: 1 << 20, full, ..settings(&directory) };
    let mut daemon = Daemon::with(&settings, &far, 64 << 20);
    daemon.shipment.begin();
    daemon.push(0..100_000);
    daemon.shipment.close();
    let dropped = daemon.get(Measure::Dropped);
    let kept = daemon.shipment.stats().kept();
    assert!(kept.bytes <= settings.max_bytes && kept.bytes > settings.max_bytes / 2, "{kept:?}");
    assert_eq!(kept.records + dropped, 100_000);
    assert_eq!(daemon.get(Measure::Lost), 0);
    drop(daemon);
    far.with(|state| state.away = false);
    let mut daemon = Daemon::with(&settings, &far, 64 << 20);
    daemon.shipment.close();
    (kept.records, dropped, numbers(&far.with(|state| state.taken.clone())))
}

#[test]
fn a_full_spool_drops_the_oldest() {
    let (kept, dropped, arrived) = full_spool(Full::DropOldest);
    assert_eq!(arrived, (dropped..dropped + kept).collect::<Vec<_>>());
}

#[test]
fn a_full_spool_drops_the_newest() {
    let (kept, _, arrived) = full_spool(Full::DropNewest);
    // Chunks are of one size, except for the last one, which may find room.
    assert_eq!(arrived.len() as u64, kept);
    assert_eq!(arrived[0], 0);
    assert!(arrived.is_sorted());
}

#[test]
fn a_spool_that_cannot_be_written_waits_in_memory() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::with(&settings(&directory), &far, 600_000);
    daemon.spool.limit_pages(Some(1));
    daemon.shipment.begin();
    daemon.push(0..100_000);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 1);
    let lost = daemon.get(Measure::Lost);
    assert!(lost > 50_000 && lost < 100_000, "{lost}");
    let trouble = daemon.shipment.stats().trouble().unwrap();
    assert!(trouble.contains("spool.db: ") && trouble.ends_with("; make room"), "{trouble}");
    assert!(daemon.shipment.fill().0 > 300_000);
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 100_000, "nothing could be spooled");
}

/// Few records make many small chunks: what counts is the memory that they take.
#[test]
fn few_records_fill_the_buffer_by_the_memory_that_they_take() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::with(&settings(&directory), &far, 4096);
    // Nothing takes them: they wait for the thread that writes.
    let mut chunks = 0;
    while daemon.get(Measure::Lost) == 0 {
        daemon.push(chunks..chunks + 1);
        let chunk = daemon.shipment.take_chunk();
        if let Some(chunk) = chunk {
            assert!(chunk.payload.capacity() < 2 * chunk.payload.len(), "{chunk:?}");
            assert!(chunk.held().bytes > chunk.payload.capacity() as u64);
            daemon.shipment.hand_over_chunk(chunk);
            chunks += 1;
        }
        assert!(chunks < 100, "they take no memory");
    }
    let (waiting, limit) = daemon.shipment.fill();
    assert!(waiting <= limit && waiting > limit / 2, "{waiting} of {limit}");
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Spooled), chunks);
}

/// Each attempt to write to a full disk costs time: it is not made for each chunk.
#[test]
fn a_full_disk_is_not_tried_with_each_chunk() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::with(&settings(&directory), &far, 64 << 20);
    daemon.spool.limit_pages(Some(1));
    daemon.shipment.begin();
    // As many as do not fit into the file that is there.
    daemon.push(0..8000);
    daemon.flush();
    daemon.wait_for(Measure::Errors, 1);
    let begin = Instant::now();
    let mut made = 8000;
    while begin.elapsed() < Duration::from_millis(1200) {
        daemon.push(made..made + 6000);
        made += 6000;
        std::thread::sleep(Duration::from_millis(10));
        daemon.shipment.flush();
    }
    let (attempts, elapsed) = (daemon.get(Measure::Errors), begin.elapsed());
    // The first after 0.1 s, then 0.2 s, 0.4 s, 0.8 s; then one a second.
    let most = 5 + elapsed.as_secs();
    assert!(attempts > 1 && attempts <= most, "{attempts} attempts in {elapsed:?}");
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), made, "nothing could be spooled");
}

#[test]
fn what_is_no_spool_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Spool::open(&settings(&directory)).map(|_| ()).map_err(|e| e.to_string());
    open().unwrap();
    let path = directory.path().join("spool/spool.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(open().unwrap_err().contains("not a spool of this version: move it away"));
    // Waiting does not help.
    let why = Spool::open_or_await(&settings(&directory), OnDamage::Fail).unwrap_err().to_string();
    assert!(why.contains("not a spool of this version"), "{why}");
    let missing = Settings { directory: directory.path().join("a/b"), ..settings(&directory) };
    let why = Spool::open_or_await(&missing, OnDamage::Fail).unwrap_err().to_string();
    assert!(why.contains("a/b cannot be used") && why.contains("`spool_dir=`"), "{why}");
}

#[test]
fn two_daemons_do_not_share_a_spool() {
    let directory = tempfile::tempdir().unwrap();
    let first = Spool::open(&settings(&directory)).unwrap();
    // Stacks may share a section, and each has rows of its own.
    let names = ["a:NATS", "a:NATS", "b:NATS", "a:NATS"].map(|name| first.claim(name).name.clone());
    assert_eq!(names, ["a:NATS", "a:NATS/2", "b:NATS", "a:NATS/3"]);
    let why = Spool::open_or_await(&settings(&directory), OnDamage::Fail).unwrap_err().to_string();
    assert!(why.contains("in use by another flowlog"), "{why}");
    drop(first);
    Spool::open(&settings(&directory)).unwrap();
}

/// A row that was damaged on disk costs its records, and no others.
#[test]
fn a_damaged_row_is_counted() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    for range in [0..10, 10..30, 30..60] {
        let mut daemon = Daemon::start(&directory, &far);
        daemon.push(range);
        daemon.shipment.close();
    }
    let path = directory.path().join("spool/spool.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let changed = connection
        .execute("UPDATE batch SET payload = substr(payload, 1, bytes - 1) WHERE records = 20", [])
        .unwrap();
    assert_eq!(changed, 1);
    drop(connection);
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.close();
    assert_eq!(numbers(&far.with(|s| s.taken.clone())), (0..10).chain(30..60).collect::<Vec<_>>());
    assert_eq!(daemon.get(Measure::Lost), 20);
    assert_eq!(daemon.shipment.stats().kept().records, 0);
}

/// One bit of a record is another: it is not delivered.
#[test]
fn a_changed_record_is_not_delivered() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.push(0..20);
    daemon.shipment.close();
    drop(daemon);
    let connection = rusqlite::Connection::open(directory.path().join("spool/spool.db")).unwrap();
    let sql = "SELECT payload FROM batch";
    let mut payload: Vec<u8> = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    let at = payload.windows(8).position(|bytes| bytes == b"record 7").unwrap();
    payload[at + 7] = b'6';
    assert_eq!(connection.execute("UPDATE batch SET payload = ?", [payload]).unwrap(), 1);
    drop(connection);
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.close();
    assert_eq!(numbers(&far.with(|s| s.taken.clone())), [0; 0]);
    assert_eq!(daemon.get(Measure::Lost), 20);
}

/// The newest row stays until a later one has arrived, and is found at each connection.
#[test]
fn a_damaged_row_is_counted_once() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    far.with(|state| state.away = true);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.push(0..20);
    daemon.shipment.close();
    drop(daemon);
    let connection = rusqlite::Connection::open(directory.path().join("spool/spool.db")).unwrap();
    let damage = "UPDATE batch SET payload = substr(payload, 1, bytes - 1)";
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    drop(connection);
    far.with(|state| state.away = false);
    let mut daemon = Daemon::start(&directory, &far);
    daemon.shipment.begin();
    for turn in 1..=3 {
        daemon.shipment.reopen();
        let begin = Instant::now();
        while daemon.get(Measure::Reconnects) < turn {
            assert!(begin.elapsed() < Duration::from_secs(20), "no connection");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 20);
}

/// The end does not wait for a far side that does not answer.
#[test]
fn the_end_comes_in_time() {
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
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&settings(&directory)).unwrap();
    let stats = Stats::default();
    let start = Start {
        instance: instance("far1", SinkPlugin::Nats),
        encoding: "text 1",
        buffer_max: 1 << 20,
        spool: &spool,
        stats: &stats,
    };
    let mut shipment = Shipment::open::<Mute>(&start, ());
    shipment.push(&Record { id: id(1), flow: 1, body: &body(1) });
    let begin = Instant::now();
    shipment.close();
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(shipment.stats().kept().records, 1);
}

/// A directory of others is not handed to anybody.
#[test]
fn only_a_directory_that_was_missing_is_made() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Spool::open(&settings(&directory)).unwrap().made_directory());
    assert!(!Spool::open(&settings(&directory)).unwrap().made_directory());
}

/// However small the buffer is, it is no bound for what goes on to the spool.
#[test]
fn a_small_buffer_is_handed_over_in_time() {
    let (directory, far) = (tempfile::tempdir().unwrap(), Far::default());
    let mut daemon = Daemon::with(&settings(&directory), &far, 8192);
    daemon.shipment.begin();
    for number in 0..2000 {
        daemon.push(number..number + 1);
        while daemon.shipment.fill().0 > 6000 {
            std::thread::yield_now();
        }
    }
    daemon.shipment.close();
    assert_eq!(daemon.get(Measure::Lost), 0);
    assert_eq!(numbers(&far.wait(2000)), (0..2000).collect::<Vec<_>>());
}
