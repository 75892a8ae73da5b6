//! Files that PARQUET writes. A file is opened once and cut down by what it says
//! of itself to searches, each for one end of a flow in one row group.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMask, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
};

use self::guard::guarded;
use self::plan::{END, Plan};
pub(super) use self::plan::{Search, Told};
use super::asked::{Answers, Covered, Trouble};
use super::question::Question;
use super::times::Span;
use crate::archive::checksums::Verified;
use crate::archive::coverage::{Gap, Gaps};
use crate::archive::origin::Origin;
use crate::archive::schema;
use crate::plugin::record_id::Identifier;

mod filter;
mod guard;
mod pages;
mod plan;
mod rows;

/// A file whose end was read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    file: Verified,
    metadata: ParquetMetaData,
    identifier: Identifier,
    plan: Plan,
}

/// A file that is searched.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    file: Verified,
    metadata: ArrowReaderMetadata,
    identifier: Identifier,
}

impl From<ParquetError> for Trouble {
    fn from(error: ParquetError) -> Self {
        damaged(&error)
    }
}

fn damaged(why: &dyn Display) -> Trouble {
    Trouble::Archive(format!(
        "it is damaged, or was not written to its end: {why}; restore it, or move it away"
    ))
}

/// What keeps a file from being opened: the system, or what is in it.
fn unreadable(error: io::Error) -> Trouble {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => damaged(&error),
        _ => error.into(),
    }
}

impl File {
    /// Reads the end of a file, and finds out what is to be looked for in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(
        path: &Path,
        question: &Question,
        answers: &mut Answers<'_>,
    ) -> Result<Self, Trouble> {
        let file = Verified::open(path).map_err(unreadable)?;
        let metadata = guarded(|| Ok(ParquetMetaDataReader::new().parse_and_finish(&file)?))?;
        let About { covered, origin, identifier, lost, gaps, checksums } = About::read(&metadata)?;
        match (checksums, file.has_checksums()) {
            // What says where they are is damaged.
            (true, false) => return Err(damaged(&"its checksums are missing")),
            (_, true) => {}
            (false, false) => answers.unverified(path),
        }
        let plan = Plan::new(&metadata, question, lost);
        let place = path.parent().unwrap_or(path).to_owned();
        let Origin { sink, beginnings } = origin;
        let archive = if sink.is_empty() { place.to_string_lossy().into_owned() } else { sink };
        for gap in gaps {
            answers.missing(gap, path, &archive);
        }
        answers.covered(Covered { archive, place, span: covered, beginnings });
        Ok(Self { path: path.to_owned(), file, metadata, identifier, plan })
    }

    /// What is known of the flows that it may have.
    pub(super) fn told(&self) -> Told {
        self.plan.told
    }

    /// Leaves out what is not looked at, by what is known of all files.
    pub(super) fn narrow(&mut self, question: &Question, told: Told) {
        self.plan.narrow(question, told);
    }

    /// The searches, and what they are done with.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn prepare(self) -> Result<(Opened, Vec<Search>), Trouble> {
        let Self { path, file, metadata, identifier, plan: Plan { searches, .. } } = self;
        let metadata = guarded(|| {
            let metadata = Arc::new(with_page_index(metadata, &searches, &file)?);
            Ok(ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())?)
        })?;
        has_columns(&metadata)?;
        Ok((Opened { path, file, metadata, identifier }, searches))
    }
}

/// What a file says of itself.
struct About {
    covered: Option<Span>,
    origin: Origin,
    identifier: Identifier,
    /// It may have losses.
    lost: bool,
    gaps: Vec<Gap>,
    /// It was written with checksums.
    checksums: bool,
}

impl About {
    fn read(metadata: &ParquetMetaData) -> Result<Self, Trouble> {
        let pairs = metadata.file_metadata().key_value_metadata();
        let value = |key: &str| {
            let pair = pairs?.iter().find(|pair| pair.key == key)?;
            pair.value.as_deref()
        };
        match value(schema::SCHEMA) {
            Some(version) if version == schema::VERSION => {}
            Some(version) => {
                return Err(Trouble::Archive(format!(
                    "its records are of version {version}, and this flowlog reads version {}: \
                     take a newer one",
                    schema::VERSION
                )));
            }
            None => {
                return Err(Trouble::Archive("it was not written by flowlog's PARQUET".to_owned()));
            }
        }
        let number = |key: &str| value(key)?.parse::<u64>().ok();
        let covered = match (number(schema::FROM), number(schema::TO)) {
            // The end is not in it any more.
            (Some(from), Some(to)) if from < to => Some(Span { first: from, last: to - 1 }),
            _ => None,
        };
        let gaps = Gaps::parse(value(schema::GAPS).unwrap_or_default());
        let gaps = gaps.ok_or_else(|| {
            Trouble::Archive("what it does not have is in words of a newer flowlog".to_owned())
        })?;
        let hash = value(schema::HOST_HASH).and_then(|hash| u64::from_str_radix(hash, 16).ok());
        Ok(Self {
            covered,
            origin: Origin {
                sink: value(schema::SINK).unwrap_or_default().to_owned(),
                beginnings: value(schema::BEGINNINGS) == Some("1"),
            },
            identifier: Identifier::of_hash(hash.unwrap_or_default()),
            lost: number(schema::LOST_EVENTS) != Some(0),
            gaps,
            checksums: value(schema::CHECKSUMS).is_some(),
        })
    }
}

/// Of the row groups that are looked at: where the pages of all columns are, and
/// of which times.
fn with_page_index(
    metadata: ParquetMetaData,
    searches: &[Search],
    file: &Verified,
) -> Result<ParquetMetaData, Trouble> {
    if searches.is_empty() {
        return Ok(metadata);
    }
    let groups = || searches.iter().map(Search::group);
    let columns = metadata.file_metadata().schema_descr().columns().iter();
    let times: Vec<usize> = columns
        .enumerate()
        .filter(|(_, column)| matches!(column.name(), "time" | "start"))
        .map(|(place, _)| place)
        .collect();
    let mut reader = ParquetMetaDataReader::new_with_metadata(metadata)
        .with_column_index_policy(PageIndexPolicy::Optional)
        .with_offset_index_policy(PageIndexPolicy::Optional)
        .with_column_index_mask(ColumnChunkMask::row_groups_and_columns(groups(), times))
        .with_offset_index_mask(ColumnChunkMask::row_groups(groups()));
    reader.read_page_indexes(file)?;
    Ok(reader.finish()?)
}

/// A file may have other columns, and be without some that came later.
fn has_columns(metadata: &ArrowReaderMetadata) -> Result<(), Trouble> {
    let ours = schema::schema();
    for field in metadata.schema().fields() {
        if let Ok(known) = ours.field_with_name(field.name())
            && known.data_type() != field.data_type()
        {
            return Err(Trouble::Archive(format!(
                "its column {} is of the type {}, not {}",
                field.name(),
                field.data_type(),
                known.data_type()
            )));
        }
    }
    let needed = END.iter().flat_map(|(address, port)| [*address, *port]);
    for name in ["time", "kind", "start", "protocol"].into_iter().chain(needed) {
        if metadata.schema().field_with_name(name).is_err() {
            return Err(Trouble::Archive(format!("it has no column {name}")));
        }
    }
    Ok(())
}
