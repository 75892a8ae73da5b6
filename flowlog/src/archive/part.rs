//! A file that is being written: records gather as bytes until there is a row
//! group of them, which is sorted by time and written.

use std::fs::File;

use parquet::arrow::ArrowWriter;

use super::about::About;
use super::columns::{self, Columns};
use super::coverage::{Gap, Gaps, Reason};
use super::properties::properties;
use super::{Error, Host, checksums, schema};
use crate::plugin::compact::Record;

/// Bytes of records that make a row group though they are few.
const GROUP_BYTES: usize = 64 << 20;
/// Of the bytes of a record so many are left in the file, about.
const SHRINKS_TO: u64 = 4;

/// The file.
pub(super) struct Part {
    writer: ArrowWriter<File>,
    waiting: Waiting,
    columns: Columns,
    record: Record,
    /// Rows of a row group.
    group: usize,
    told: Told,
    gaps: Gaps,
}

/// What is known of the rows of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// How many there are.
    pub(super) rows: u64,
    /// The time of the first and of the last of them.
    pub(super) times: (u64, u64),
    /// Bytes that were no record, and are not in the file.
    pub(super) malformed: u64,
    lost_events: u64,
}

/// Records that are in no row group yet.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Their times, and where their bytes are.
    rows: Vec<(u64, u32, u32)>,
}

impl Part {
    /// Begins the file.
    pub(super) fn begin(file: File, host: &Host, group: usize) -> Result<Self, Error> {
        Ok(Self {
            writer: ArrowWriter::try_new(file, schema::schema(), Some(properties()?))?,
            waiting: Waiting::default(),
            columns: Columns::new(&host.name),
            record: Record::default(),
            group,
            told: Told { rows: 0, times: (u64::MAX, 0), malformed: 0, lost_events: 0 },
            gaps: Gaps::default(),
        })
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        self.writer.inner()
    }

    /// Names what it does not have.
    pub(super) fn lose(&mut self, gap: Gap) {
        self.gaps.push(gap);
    }

    /// Adds a record of that time, as bytes of `plugin/compact.rs`.
    pub(super) fn push(&mut self, time: u64, record: &[u8]) -> Result<(), Error> {
        let Self { waiting, told, group, .. } = self;
        let start = waiting.bytes.len() as u32;
        waiting.bytes.extend_from_slice(record);
        waiting.rows.push((time, start, record.len() as u32));
        told.rows += 1;
        told.times = (told.times.0.min(time), told.times.1.max(time));
        if waiting.rows.len() >= *group || waiting.bytes.len() >= GROUP_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// How long the file would be, about.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64 + self.waiting.bytes.len() as u64 / SHRINKS_TO
    }

    /// What is known of its rows.
    pub(super) fn told(&self) -> &Told {
        &self.told
    }

    /// Writes what waits as a row group.
    fn write(&mut self) -> Result<(), Error> {
        let Self { writer, waiting, columns, record, told, gaps, .. } = self;
        let Waiting { bytes, rows } = waiting;
        // Those of one time stay in the order in which they came.
        rows.sort_by_key(|(time, ..)| *time);
        for (time, start, length) in rows.drain(..) {
            let place = start as usize;
            if record.read(&bytes[place..place + length as usize]).is_err() {
                told.malformed += 1;
                gaps.push(Gap::new(Reason::Refused, (time, time), 1));
                told.rows -= 1;
                continue;
            }
            told.lost_events += record.lost_events;
            if record.lost_events > 0 {
                gaps.push(gap(record));
            }
            columns.push(record);
            if columns.rows() == columns::ROWS {
                writer.write(&columns.finish()?)?;
            }
        }
        bytes.clear();
        writer.write(&columns.finish()?)?;
        writer.flush()?;
        Ok(())
    }

    /// Ends the file, which is on disk then.
    pub(super) fn end(mut self, about: &About<'_>) -> Result<(Told, u64), Error> {
        self.write()?;
        for pair in about.pairs(self.told.lost_events, &self.gaps) {
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.finish()?;
        let file = self.writer.inner();
        checksums::seal(file)?;
        file.sync_all()?;
        Ok((self.told, file.metadata()?.len()))
    }
}

/// What a loss says of the time before it was noticed.
fn gap(loss: &Record) -> Gap {
    let Record { time, lost_source, lost_events, lost_since, .. } = loss;
    Gap::new(Reason::Lost, (*lost_since, *time), *lost_events).at(lost_source)
}
