//! What a file says of itself, as it is written and as it is read again.

use std::collections::HashMap;

use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};

use super::checksums::Verified;
use super::coverage::Gaps;
use super::directory::Entry;
use super::origin::Origin;
use super::writer::Kept;
use super::{Host, schema};

/// Files that are asked at start what they have: what is not settled in the
/// spool is in the last ones.
const ASKED: usize = 64;

/// What is said.
pub(super) struct About<'a> {
    pub(super) host: &'a Host,
    pub(super) run: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) last: Option<i64>,
    /// It is of the run that writes it.
    pub(super) is_own: bool,
}

impl About<'_> {
    pub(super) fn pairs(&self, lost_events: u64, gaps: &Gaps) -> impl Iterator<Item = KeyValue> {
        let Self { host: Host { name, hash, origin }, run, from, to, last, is_own } = *self;
        let Origin { sink, beginnings } = origin;
        // Of an earlier run it is not known.
        let beginnings = u8::from(*beginnings && is_own);
        let pairs = [
            (schema::SCHEMA, Some(schema::VERSION.to_owned())),
            (schema::WRITER, Some(env!("CARGO_PKG_VERSION").to_owned())),
            (schema::CHECKSUMS, Some(schema::CRC32.to_owned())),
            (schema::HOST, Some(name.clone())),
            (schema::HOST_HASH, Some(format!("{hash:016x}"))),
            (schema::FROM, Some(from.to_string())),
            (schema::TO, Some(to.to_string())),
            (schema::LOST_EVENTS, Some(lost_events.to_string())),
            (schema::GAPS, Some(gaps.text())),
            (schema::SINK, Some(sink.clone()).filter(|sink| !sink.is_empty())),
            (schema::BEGINNINGS, Some(beginnings.to_string())),
            (schema::RUN, Some(run.to_string())),
            (schema::SPOOL_LAST, last.map(|last| last.to_string())),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key.to_owned(), value?)))
    }
}

/// What the newest of these files have of each run. One that cannot be read has
/// nothing: then its records may be written twice, but none is missing.
pub(super) fn kept(files: &[Entry]) -> HashMap<u64, Kept> {
    let mut runs: HashMap<u64, Kept> = HashMap::new();
    for (run, kept) in files.iter().rev().take(ASKED).filter_map(read) {
        let known = runs.entry(run).or_default();
        *known = Kept { last: known.last.max(kept.last), to: known.to.max(kept.to) };
    }
    runs
}

fn read(file: &Entry) -> Option<(u64, Kept)> {
    let file = Verified::open(&file.path).ok()?;
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).ok()?;
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let value = |key| pairs.iter().find(|pair| pair.key == key)?.value.as_deref();
    let last = value(schema::SPOOL_LAST).and_then(|last| last.parse().ok());
    Some((value(schema::RUN)?.parse().ok()?, Kept { last, to: value(schema::TO)?.parse().ok()? }))
}
