//! Batches of the spool become files, each record in one of them, whatever breaks.

use std::fs;

use parquet::file::metadata::ParquetMetaDataReader;
use tempfile::TempDir;

use super::*;
use crate::event::{Kinds, Lost};
use crate::plugin::Body;
use crate::plugin::ship::Record;

fn far(directory: &TempDir, run: u64) -> Far {
    Far {
        archive: archive::Settings {
            directory: directory.path().join("archive"),
            rotate_interval: Duration::from_hours(24),
            rotate_size: u64::MAX,
            keep_for: None,
            keep_bytes: None,
        },
        host: Host { name: "gate".to_owned(), hash: 0, origin: Default::default() },
        run,
        held_max: u64::MAX,
        failed: Arc::default(),
        covered: Arc::default(),
        written: Arc::default(),
    }
}

fn now() -> u64 {
    Moment::now().wall
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn connect(far: &Far) -> Writer {
    block_on(Writer::connect(far)).unwrap()
}

/// A row of so many records.
fn row(run: u64, records: u64) -> Batch {
    let mut encoder = Encoder::new();
    let bodies = (0..records).map(|number| {
        let lost = Lost::noticed("ebpf", number + 1, run);
        let mut body = Vec::new();
        let item = Item { tag: Kinds::empty(), at: run + number, body: Body::Lost(lost) };
        encoder.encode(&item, None, &mut body);
        body
    });
    let bodies: Vec<_> = bodies.collect();
    let records = bodies.iter().zip(run..).map(|(body, time)| Record {
        id: RecordId { time, hash: 0 },
        flow: 0,
        body,
    });
    Batch::of(&format!("{ENCODING}{run}"), &records.collect::<Vec<_>>())
}

/// How many rows the closed files have, in order of that.
fn rows(directory: &TempDir) -> Vec<i64> {
    let entries = fs::read_dir(directory.path().join("archive")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "parquet"));
    let rows = paths.iter().map(|path| {
        let file = fs::File::open(path).unwrap();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
        metadata.file_metadata().num_rows()
    });
    let mut rows: Vec<i64> = rows.collect();
    rows.sort();
    rows
}

#[test]
fn a_batch_is_settled_when_its_file_is_closed() {
    let directory = TempDir::new().unwrap();
    let run = now();
    let mut writer = connect(&far(&directory, run));
    let delivered = block_on(writer.deliver(&row(run, 5))).unwrap();
    assert_eq!((delivered.records, delivered.known, delivered.held), (5, 0, true));
    assert!(rows(&directory).is_empty());
    let due = writer.due().unwrap().saturating_duration_since(Instant::now());
    assert!(due <= LOOK, "{due:?}");
    assert_eq!(block_on(writer.tick()), Ok(Settled::No));
    assert_eq!(block_on(writer.close()), Ok(Settled::All));
    assert_eq!(rows(&directory), [5]);
    // It is not known whether something waits.
    assert_eq!(block_on(writer.close()), Ok(Settled::All));
    assert_eq!(rows(&directory), [5]);
    writer.learn(Upstream { complete: Some(now()), losses: None });
    assert_eq!(block_on(writer.close()), Ok(Settled::All));
    assert_eq!(rows(&directory), [0, 5]);
}

#[test]
fn what_comes_again_is_written_once() {
    let directory = TempDir::new().unwrap();
    let run = now();
    let first = far(&directory, run);
    let mut writer = connect(&first);
    block_on(writer.deliver(&row(run, 2))).unwrap();
    // Killed, or a connection anew: nothing of it was closed.
    drop(writer);
    assert!(rows(&directory).is_empty());
    let mut writer = connect(&first);
    let delivered = block_on(writer.deliver(&row(run, 2))).unwrap();
    assert_eq!(delivered.known, 0);
    block_on(writer.close()).unwrap();
    // Killed between closing and settling; the next batch has a row more.
    drop(writer);
    let next = far(&directory, run + 1_000_000_000);
    let mut writer = connect(&next);
    let delivered = block_on(writer.deliver(&row(run, 2).then(row(run, 3)))).unwrap();
    assert_eq!((delivered.records, delivered.known), (5, 2));
    block_on(writer.deliver(&row(next.run, 7))).unwrap();
    block_on(writer.close()).unwrap();
    assert_eq!(rows(&directory), [2, 3, 7]);
    // A spool that was made anew counts from 1 again, in another run.
    drop(writer);
    let anew = far(&directory, run + 2_000_000_000);
    let mut writer = connect(&anew);
    let delivered = block_on(writer.deliver(&row(anew.run, 4))).unwrap();
    assert_eq!(delivered.known, 0);
}

#[test]
fn a_share_of_the_spool_closes_the_file() {
    let directory = TempDir::new().unwrap();
    let run = now();
    let batch = row(run, 3);
    let mut writer = connect(&Far { held_max: 2 * batch.bytes() as u64, ..far(&directory, run) });
    assert!(block_on(writer.deliver(&batch)).unwrap().held);
    assert!(!block_on(writer.deliver(&batch.clone().then(row(run, 1)))).unwrap().held);
    assert_eq!(rows(&directory).len(), 1);
    assert!(block_on(writer.deliver(&batch.then(row(run, 1)).then(row(run, 1)))).unwrap().held);
}

#[test]
fn bytes_of_another_version_are_refused() {
    let directory = TempDir::new().unwrap();
    let far = far(&directory, now());
    let record = Record { id: RecordId { time: 1, hash: 0 }, flow: 0, body: b"{}" };
    let alien = Batch::of("json 1", &[record]);
    // It comes again, as no file was closed, and is refused once for all that.
    for _ in 0..3 {
        let mut writer = connect(&far);
        let delivered = block_on(writer.deliver(&alien)).unwrap();
        assert_eq!((delivered.records, delivered.refused, delivered.held), (0, 0, true));
        assert_eq!(writer.take_refused(), Refused::default());
    }
    let mut writer = connect(&far);
    block_on(writer.deliver(&alien)).unwrap();
    block_on(writer.close()).unwrap();
    let Refused { records, why } = writer.take_refused();
    assert!(records == 1 && why.unwrap().contains("json 1"));
    let damaged = Batch::of(&format!("{ENCODING}9"), &[Record { body: b"\xff", ..record }]);
    block_on(writer.deliver(&damaged)).unwrap();
    assert_eq!(writer.take_refused(), Refused::default());
    // It is known when the file is closed.
    block_on(writer.close()).unwrap();
    let Refused { records, why } = writer.take_refused();
    assert!(records == 1 && why.unwrap().contains("damaged"));
    assert_eq!(writer.take_refused(), Refused::default(), "it is said twice");
}

#[test]
fn trouble_says_what_to_do_and_is_over_when_it_was_done() {
    let directory = TempDir::new().unwrap();
    let run = now();
    let far = far(&directory, run);
    let archive = directory.path().join("archive");
    fs::write(&archive, b"in the way").unwrap();
    let trouble = block_on(Writer::connect(&far)).err().unwrap();
    assert!(trouble.needs_a_person() && trouble.to_string().contains("name a directory"));
    fs::remove_file(&archive).unwrap();
    let mut writer = connect(&far);
    assert!(!writer.replaced(), "it is the first");
    // At once, so that it is known whether it works again.
    assert!(!block_on(writer.deliver(&row(run, 2))).unwrap().held);
    assert!(block_on(writer.deliver(&row(run, 2).then(row(run, 2)))).unwrap().held);
    fs::remove_dir_all(&archive).unwrap();
    let trouble = block_on(writer.tick()).unwrap_err();
    assert!(trouble.to_string().contains("it was removed or replaced"), "{trouble}");
    assert!(!trouble.needs_a_person());
    drop(writer);
    let mut writer = connect(&far);
    assert!(writer.replaced() && !writer.replaced(), "counted once");
    assert!(!block_on(writer.deliver(&row(run, 2))).unwrap().held);
    assert_eq!(rows(&directory), [2]);
    // The file that is being written is removed; the directory is, while nothing is open.
    assert!(block_on(writer.deliver(&row(run, 2).then(row(run, 2)))).unwrap().held);
    fs::remove_file(archive.join(".flowlog.parquet.tmp")).unwrap();
    block_on(writer.tick()).unwrap_err();
    drop(writer);
    let mut writer = connect(&far);
    assert!(writer.replaced());
    drop(writer);
    assert!(!connect(&far).replaced(), "it is the same");
    fs::remove_dir_all(&archive).unwrap();
    // Keeps the number of the inode from being used again.
    fs::create_dir(directory.path().join("other")).unwrap();
    assert!(connect(&far).replaced());
}
