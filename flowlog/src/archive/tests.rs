//! Records come back from the files as they were, each once; files are named,
//! sorted, closed and removed as they should be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use proptest::prelude::*;
use tempfile::TempDir;

use super::checksums::Verified;
use super::clock::Moment;
use super::schema::{self, COLUMNS};
use super::{Archive, Closed, Error, Host, Removed, Settings};
use crate::plugin::compact::Encoder;

use self::items::{Owned, any_item, loss};

mod coverage;
mod items;
mod set_clock;

const MINUTE: u64 = 60 * 1_000_000_000;
/// 2026-11-22T13:15:00Z
const NOON: u64 = 1_795_353_300 * 1_000_000_000;
const RUN: u64 = NOON + 1;

fn settings(directory: &TempDir) -> Settings {
    Settings {
        directory: directory.path().join("archive"),
        rotate_interval: Duration::from_mins(15),
        rotate_size: u64::MAX,
        keep_for: None,
        keep_bytes: None,
    }
}

fn open(settings: Settings, run: u64) -> Archive {
    Archive::open(
        settings,
        Host { name: "gate".to_owned(), hash: 0xab, origin: Default::default() },
        run,
        run,
        Moment::at(run),
    )
    .unwrap()
}

/// Closes the file at that time; with `complete` all up to then was pushed.
fn close(archive: &mut Archive, time: u64, complete: bool) {
    archive.learn(complete.then_some(time));
    archive.close(Moment::at(time)).unwrap();
}

fn push(archive: &mut Archive, item: &Owned) {
    let mut bytes = Vec::new();
    Encoder::new().encode(&item.item(), None, &mut bytes);
    archive.push(item.item().at, &bytes).unwrap();
}

/// A file: its name, what it says of itself, its rows.
struct Read {
    name: String,
    about: BTreeMap<String, String>,
    rows: Vec<BTreeMap<String, String>>,
    metadata: ParquetMetaData,
}

impl Read {
    fn times(&self) -> Vec<u64> {
        self.rows.iter().map(|row| row["time"].parse().unwrap()).collect()
    }

    fn about(&self, key: &str) -> u64 {
        self.about[key].parse().unwrap()
    }
}

/// The closed files, in the order of their names.
fn files(directory: &TempDir) -> Vec<Read> {
    let entries = fs::read_dir(directory.path().join("archive")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "parquet"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Read {
    let file = Verified::open(path).unwrap();
    assert!(file.has_checksums());
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(reader.schema().fields(), schema::schema().fields());
    let metadata = reader.metadata().as_ref().clone();
    let pairs = metadata.file_metadata().key_value_metadata().unwrap();
    let about = pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone().unwrap()));
    Read {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        about: about.collect(),
        rows: reader.build().unwrap().flat_map(|batch| rows(&batch.unwrap())).collect(),
        metadata: metadata.clone(),
    }
}

/// Rows as text, without what is null.
fn rows(batch: &RecordBatch) -> Vec<BTreeMap<String, String>> {
    let row = |row| {
        let cells = COLUMNS.iter().zip(batch.columns());
        let cells = cells.filter(|(_, array)| !array.is_null(row));
        cells.map(|(column, array)| (column.name.to_owned(), cell(array, row))).collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

fn cell(array: &dyn Array, row: usize) -> String {
    match array.data_type() {
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampNanosecondType>().value(row).to_string()
        }
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).to_string(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).to_string(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::FixedSizeBinary(_) => format!("{:?}", array.as_fixed_size_binary().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_dictionary::<Int32Type>();
            let values = dictionary.values().as_string::<i32>();
            values.value(dictionary.key(row).unwrap()).to_owned()
        }
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn records_come_back_as_they_were(items in prop::collection::vec(any_item(), 1..60)) {
        let directory = TempDir::new().unwrap();
        let mut archive = open(settings(&directory), RUN);
        items.iter().for_each(|item| push(&mut archive, item));
        close(&mut archive, NOON, true);
        let mut expected: Vec<_> = items.iter().map(Owned::row).collect();
        // Those of one time stay in their order.
        expected.sort_by_key(|row| row["time"].parse::<u64>().unwrap());
        let files = files(&directory);
        prop_assert_eq!(files.len(), 1);
        prop_assert_eq!(&files[0].rows, &expected);
        let lost = expected.iter().filter_map(|row| row.get("lost_events")?.parse::<u64>().ok());
        prop_assert_eq!(files[0].about(schema::LOST_EVENTS), lost.sum::<u64>());
    }
}

#[test]
fn a_file_covers_the_time_from_the_one_before() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    assert_eq!(archive.due(), NOON + 15 * MINUTE);
    push(&mut archive, &loss(NOON + MINUTE, 3));
    archive.end_row(4, NOON);
    close(&mut archive, NOON + 15 * MINUTE, true);
    assert_eq!(archive.due(), NOON + 30 * MINUTE);
    // Nothing happens, which is said.
    close(&mut archive, NOON + 30 * MINUTE, true);
    // It was under way when the last one was closed.
    push(&mut archive, &loss(NOON + 30 * MINUTE - 5, 4));
    archive.end_row(9, NOON);
    close(&mut archive, NOON + 40 * MINUTE, true);
    let files = files(&directory);
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "flowlog-20261122T131500.000Z-20261122T133000.000Z.parquet",
            "flowlog-20261122T133000.000Z-20261122T134500.000Z.parquet",
            "flowlog-20261122T134459.999Z-20261122T135500.000Z.parquet",
        ]
    );
    let from: Vec<_> = files.iter().map(|file| file.about(schema::FROM)).collect();
    assert_eq!(from, [RUN, NOON + 15 * MINUTE, NOON + 30 * MINUTE]);
    let to: Vec<_> = files.iter().map(|file| file.about(schema::TO)).collect();
    assert_eq!(to, [NOON + 15 * MINUTE, NOON + 30 * MINUTE, NOON + 40 * MINUTE]);
    let last: Vec<_> = files.iter().map(|file| file.about(schema::SPOOL_LAST)).collect();
    assert_eq!(last, [4, 4, 9]);
    assert_eq!(files[1].rows.len(), 0);
    for file in &files {
        assert_eq!(file.about[schema::HOST], "gate");
        assert_eq!(file.about[schema::HOST_HASH], "00000000000000ab");
        assert_eq!(file.about[schema::SCHEMA], "1");
        assert_eq!(file.about[schema::WRITER], env!("CARGO_PKG_VERSION"));
        assert_eq!(file.about(schema::RUN), RUN);
    }
}

#[test]
fn what_an_earlier_run_has_left_is_a_file_of_its_own() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    push(&mut archive, &loss(NOON + MINUTE, 1));
    archive.end_row(1, NOON);
    close(&mut archive, NOON + 2 * MINUTE, true);
    push(&mut archive, &loss(NOON + 3 * MINUTE, 2));
    archive.end_row(2, NOON + 2 * MINUTE + 30);
    // Killed: what was not closed is still in the spool.
    assert!(directory.path().join("archive/.flowlog.parquet.tmp").exists());
    std::mem::forget(archive);
    // The lock goes with the process, here with the descriptor.
    let directory = copied(&directory);
    let run = NOON + 60 * MINUTE;
    let mut archive = open(settings(&directory), run);
    assert!(!directory.path().join("archive/.flowlog.parquet.tmp").exists());
    assert!(archive.has(RUN, 1) && !archive.has(RUN, 2) && !archive.has(run, 1));
    archive.begin(RUN).unwrap();
    push(&mut archive, &loss(NOON + 3 * MINUTE, 2));
    archive.end_row(2, NOON + 2 * MINUTE + 30);
    archive.begin(run).unwrap();
    push(&mut archive, &loss(NOON + 61 * MINUTE, 3));
    archive.end_row(3, NOON + 61 * MINUTE);
    close(&mut archive, NOON + 75 * MINUTE, true);
    assert!(archive.has(RUN, 2) && archive.has(run, 3) && !archive.has(run, 4));
    let files = files(&directory);
    let covers: Vec<_> =
        files.iter().map(|file| (file.about(schema::FROM), file.about(schema::TO))).collect();
    assert_eq!(
        covers,
        [
            (RUN, NOON + 2 * MINUTE),
            (NOON + 2 * MINUTE, NOON + 2 * MINUTE + 30),
            (run, NOON + 75 * MINUTE),
        ]
    );
    let runs: Vec<_> = files.iter().map(|file| file.about(schema::RUN)).collect();
    assert_eq!(runs, [RUN, RUN, run]);
}

/// The same files elsewhere.
fn copied(from: &TempDir) -> TempDir {
    let to = TempDir::new().unwrap();
    fs::create_dir(to.path().join("archive")).unwrap();
    for entry in fs::read_dir(from.path().join("archive")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join("archive").join(entry.file_name())).unwrap();
    }
    to
}

#[test]
fn an_earlier_run_alone_does_not_cover_what_came_after_it() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    archive.begin(RUN - 60 * MINUTE).unwrap();
    push(&mut archive, &loss(NOON - 30 * MINUTE, 1));
    archive.end_row(7, NOON - 31 * MINUTE);
    close(&mut archive, NOON + 15 * MINUTE, true);
    close(&mut archive, NOON + 30 * MINUTE, true);
    let files = files(&directory);
    assert_eq!(files[0].about(schema::TO), NOON - 31 * MINUTE);
    assert_eq!((files[1].about(schema::FROM), files[1].rows.len()), (RUN, 0));
    assert!(!files[1].about.contains_key(schema::SPOOL_LAST));
    // A file that cannot be read says nothing, and stops nobody.
    drop(archive);
    let path = directory.path().join("archive").join(&files[0].name);
    fs::write(&path, b"PAR1").unwrap();
    assert!(!open(settings(&directory), RUN + 1).has(RUN - 60 * MINUTE, 7));
}

#[test]
fn a_file_that_may_not_be_complete_covers_what_its_rows_say() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    close(&mut archive, NOON + MINUTE, false);
    assert_eq!(archive.take_closed(), Closed::default());
    push(&mut archive, &loss(NOON + MINUTE, 1));
    archive.end_row(1, NOON + 30);
    close(&mut archive, NOON + 15 * MINUTE, false);
    close(&mut archive, NOON + 30 * MINUTE, true);
    let covers = files(&directory);
    let covers = covers.iter().map(|file| (file.about(schema::FROM), file.about(schema::TO)));
    let end = NOON + 30;
    assert_eq!(covers.collect::<Vec<_>>(), [(RUN, end), (end, NOON + 30 * MINUTE)]);
}

#[test]
fn a_large_file_has_sorted_row_groups_with_statistics_and_filters() {
    const GROUP: usize = 30_000;
    const ROWS: u64 = GROUP as u64 + 10;
    let directory = TempDir::new().unwrap();
    let mut archive = open(Settings { rotate_size: 200_000, ..settings(&directory) }, RUN);
    archive.limit_group(GROUP);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new();
    for number in 0..ROWS {
        // Each second one is late.
        let item = items::connection(NOON + (number ^ 1) * 1000, number as u32);
        bytes.clear();
        encoder.encode(&item.item(), None, &mut bytes);
        archive.push(item.item().at, &bytes).unwrap();
    }
    assert!(archive.is_full());
    close(&mut archive, NOON + MINUTE, true);
    let Closed { files: 1, records: ROWS, bytes, malformed: 0, .. } = archive.take_closed() else {
        panic!()
    };
    let file = files(&directory).remove(0);
    assert_eq!(
        fs::metadata(directory.path().join("archive").join(&file.name)).unwrap().len(),
        bytes
    );
    assert!(file.times().is_sorted_by(|a, b| a < b));
    let groups = file.metadata.row_groups();
    assert_eq!(groups.len(), 2);
    for group in groups {
        assert_eq!(group.sorting_columns().unwrap()[0].column_idx, 0);
        for (column, chunk) in COLUMNS.iter().zip(group.columns()) {
            assert!(chunk.statistics().is_some(), "{}", column.name);
            assert!(chunk.column_index_offset().is_some(), "{}", column.name);
        }
    }
    let filtered = COLUMNS.iter().zip(groups[0].columns());
    let filtered = filtered.filter(|(_, chunk)| chunk.bloom_filter_offset().is_some());
    assert_eq!(
        filtered.map(|(column, _)| column.name).collect::<Vec<_>>(),
        [
            "orig_src",
            "orig_sport",
            "orig_dst",
            "orig_dport",
            "nat_src",
            "nat_sport",
            "nat_dst",
            "nat_dport"
        ]
    );
}

#[test]
fn files_go_by_age_and_by_bytes_and_others_stay() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    let there = || files(&directory).len();
    for quarter in 1..=4 {
        close(&mut archive, NOON + quarter * 15 * MINUTE, true);
    }
    let each = archive.take_closed().bytes / 4;
    drop(archive);
    let stranger = directory.path().join("archive/flowlog-20200101.parquet");
    fs::write(&stranger, b"not ours").unwrap();
    fs::write(directory.path().join("archive/notes-20200101T000000.000Z"), b"").unwrap();
    let old = Settings { keep_for: Some(Duration::from_mins(30)), ..settings(&directory) };
    let mut archive = open(old, RUN);
    close(&mut archive, NOON + 61 * MINUTE, true);
    let Closed { removed: Removed { files: 2, bytes }, .. } = archive.take_closed() else {
        panic!()
    };
    assert!(bytes > each, "{bytes} of two with {each} each");
    drop(archive);
    let few = Settings { keep_bytes: Some(each * 5 / 2), ..settings(&directory) };
    let mut archive = open(few, RUN + 1);
    close(&mut archive, NOON + 62 * MINUTE, true);
    assert_eq!(archive.take_closed().removed.files, 2);
    drop(archive);
    let mut archive = open(Settings { keep_bytes: Some(1), ..settings(&directory) }, RUN + 2);
    close(&mut archive, NOON + 63 * MINUTE, true);
    assert!(stranger.exists());
    fs::remove_file(stranger).unwrap();
    assert_eq!(there(), 1, "the newest stays");
}

#[test]
fn what_is_closed_within_a_moment_has_names_of_its_own() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    for events in 1..4 {
        push(&mut archive, &loss(RUN, events));
        close(&mut archive, RUN, true);
    }
    let names: Vec<_> = files(&directory).into_iter().map(|file| file.name).collect();
    let name = |end| format!("flowlog-20261122T131500.000Z-20261122T131500.{end:03}Z.parquet");
    assert_eq!(names, [0, 1, 2].map(name));
}

#[test]
fn a_directory_that_cannot_be_used_is_refused_with_a_remedy() {
    let directory = TempDir::new().unwrap();
    let refused = |path: &Path| {
        let settings = Settings { directory: path.to_owned(), ..settings(&directory) };
        let host = Host { name: "gate".to_owned(), hash: 0, origin: Default::default() };
        Archive::open(settings, host, RUN, RUN, Moment::at(RUN)).err().unwrap()
    };
    let missing = refused(&directory.path().join("a/b"));
    assert!(missing.to_string().contains("make the directory that it is in"), "{missing}");
    assert!(!missing.may_pass());
    fs::write(directory.path().join("file"), b"").unwrap();
    let file = refused(&directory.path().join("file"));
    assert!(file.to_string().contains("name a directory"), "{file}");
    let archive = open(settings(&directory), RUN);
    let taken = refused(&directory.path().join("archive"));
    assert!(matches!(taken, Error::Taken) && taken.may_pass(), "{taken}");
    drop(archive);
    open(settings(&directory), RUN);
}

#[test]
fn bytes_that_are_no_record_are_counted() {
    let directory = TempDir::new().unwrap();
    let mut archive = open(settings(&directory), RUN);
    push(&mut archive, &loss(NOON, 1));
    archive.push(NOON + 1, b"\xff\xff").unwrap();
    assert_eq!(archive.held(), 2);
    close(&mut archive, NOON + MINUTE, true);
    let closed = archive.take_closed();
    assert_eq!((closed.records, closed.malformed), (1, 1));
    assert_eq!(files(&directory)[0].rows.len(), 1);
}

/// In the first column of a table there.
#[test]
fn docs_parquet_explains_each_column() {
    let page = include_str!("../../../docs/parquet.md");
    let first = |line: &'static str| line.strip_prefix("| ")?.split(" | ").next();
    let cells: Vec<_> = page.lines().filter_map(first).collect();
    for column in &COLUMNS {
        let quoted = format!("`{}`", column.name);
        assert!(cells.iter().any(|cell| cell.contains(&quoted)), "docs/parquet.md lacks {quoted}");
    }
}
