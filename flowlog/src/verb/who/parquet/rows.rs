//! A search in a row group: bloom filters, then pages, then rows, of which the
//! columns that are looked at are read first, and the others for what is left.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Int32Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use hashbrown::HashMap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::errors::ParquetError;

use super::super::asked::{Answers, Loss, Trouble};
use super::super::question::Question;
use super::super::record::{Record, Row, icmp_answer, is_icmp, small};
use super::Opened;
use super::filter::{Condition, predicate};
use super::guard::guarded;
use super::pages;
use super::plan::{END, Search};
use crate::archive::checksums::Verified;
use crate::archive::schema;
use crate::flow::Tuple;
use crate::plugin::record_id::{Identifier, RecordId};

/// Rows that are looked at together.
const BATCH: usize = 32 << 10;

type Builder = ParquetRecordBatchReaderBuilder<Verified>;

impl Opened {
    /// Searches, and adds what is found to the answers.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(in super::super) fn search(
        &self,
        search: Search,
        question: &Question,
        answers: &mut Answers<'_>,
    ) -> Result<(), Trouble> {
        guarded(|| {
            let builder = Builder::new_with_metadata(self.file.clone(), self.metadata.clone())
                .with_batch_size(BATCH)
                .with_row_groups(vec![search.group()]);
            match search {
                Search::Flows { group, end, from, begun, ended: _ } => {
                    let reader = self.flows(builder, (group, end), (from, begun), question)?;
                    reader.map_or(Ok(()), |reader| self.read(reader, question, answers))
                }
                Search::Losses { group: _ } => self.losses(builder, question, answers),
            }
        })
    }

    fn flows(
        &self,
        builder: Builder,
        (group, end): (usize, usize),
        (from, begun): (u64, u64),
        question: &Question,
    ) -> Result<Option<ParquetRecordBatchReader>, ParquetError> {
        let (address, port) = END[end];
        let text = question.wanted.text();
        if !self.may_have(&builder, group, address, text.as_str())? {
            return Ok(None);
        }
        let mut conditions = vec![(address, Condition::Text(text))];
        if let Some(wanted) = question.wanted.port {
            if !self.may_have(&builder, group, port, &i32::from(wanted))? {
                return Ok(None);
            }
            conditions.push((port, Condition::Port(wanted)));
        }
        // What is cheaper to read decides for what the rest is read.
        conditions.sort_by_key(|(column, _)| self.size(group, column));
        if let Some(protocol) = question.protocol {
            conditions.push(("protocol", Condition::Number(protocol)));
        }
        conditions.push(("start", Condition::UpTo(begun)));
        conditions.push(("time", Condition::From(from)));
        let early = pages::within(&self.metadata, group, "start", |known| {
            known.is_none_or(|(least, _)| least <= begun)
        });
        let late = pages::within(&self.metadata, group, "time", |known| {
            known.is_none_or(|(_, greatest)| greatest >= from)
        });
        let pages = match (early, late) {
            (Some(early), Some(late)) => Some(early.intersection(&late)),
            (early, late) => early.or(late),
        };
        let builder = match pages {
            Some(pages) => builder.with_row_selection(pages),
            None => builder,
        };
        let schema = self.metadata.parquet_schema();
        let filter = conditions.into_iter().map(|(column, is)| predicate(schema, column, is));
        Ok(Some(builder.with_row_filter(RowFilter::new(filter.collect())).build()?))
    }

    fn read(
        &self,
        reader: ParquetRecordBatchReader,
        question: &Question,
        answers: &mut Answers<'_>,
    ) -> Result<(), Trouble> {
        for batch in reader {
            let batch = batch.map_err(ParquetError::from)?;
            let columns = columns(&batch);
            for row in 0..batch.num_rows() {
                let row = Cells { columns: &columns, row, identifier: &self.identifier };
                if row.text("kind") == Some(schema::EXPECT) {
                    continue;
                }
                match Record::read(&row) {
                    Some(record) if question.ends(&record.flow).is_empty() => {}
                    Some(record) => answers.record(record)?,
                    None => answers.unreadable(),
                }
            }
        }
        Ok(())
    }

    fn losses(
        &self,
        builder: Builder,
        question: &Question,
        answers: &mut Answers<'_>,
    ) -> Result<(), Trouble> {
        let schema = self.metadata.parquet_schema();
        let filter = vec![predicate(schema, "lost_events", Condition::Known)];
        let columns = ["time", "lost_source", "lost_events"];
        let reader = builder
            .with_projection(ProjectionMask::columns(schema, columns))
            .with_row_filter(RowFilter::new(filter))
            .build()?;
        for batch in reader {
            let batch = batch.map_err(ParquetError::from)?;
            let columns = self::columns(&batch);
            for row in 0..batch.num_rows() {
                let row = Cells { columns: &columns, row, identifier: &self.identifier };
                let (Some(at), Some(events)) = (row.number("time"), row.number("lost_events"))
                else {
                    answers.unreadable();
                    continue;
                };
                if (question.span.first..=question.span.last).contains(&at) {
                    let source = row.text("lost_source").unwrap_or_default().to_owned();
                    answers.loss(Loss { at, source, events });
                }
            }
        }
        Ok(())
    }

    /// By the bloom filter of the column; yes where there is none.
    fn may_have<T: parquet::data_type::AsBytes + ?Sized>(
        &self,
        builder: &Builder,
        group: usize,
        column: &str,
        value: &T,
    ) -> Result<bool, ParquetError> {
        let Some(place) = self.place(column) else { return Ok(true) };
        let filter = builder.get_row_group_column_bloom_filter(group, place)?;
        Ok(filter.is_none_or(|filter| filter.check(value)))
    }

    fn place(&self, column: &str) -> Option<usize> {
        self.metadata.parquet_schema().columns().iter().position(|known| known.name() == column)
    }

    /// Bytes of the column.
    fn size(&self, group: usize, column: &str) -> i64 {
        let group = self.metadata.metadata().row_group(group);
        self.place(column).map_or(0, |place| group.column(place).compressed_size())
    }
}

type Columns = HashMap<String, ArrayRef>;

fn columns(batch: &RecordBatch) -> Columns {
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.zip(batch.columns().iter().cloned()).collect()
}

/// A row of a batch.
struct Cells<'b> {
    columns: &'b Columns,
    row: usize,
    identifier: &'b Identifier,
}

impl Cells<'_> {
    /// The column, if it has something in this row.
    fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.columns.get(name).filter(|column| column.is_valid(self.row))
    }

    fn port(&self, column: &str, otherwise: u16) -> u16 {
        small(self, column).unwrap_or(otherwise)
    }
}

impl Row for Cells<'_> {
    fn number(&self, column: &str) -> Option<u64> {
        let (column, row) = (self.column(column)?, self.row);
        Some(match column.data_type() {
            DataType::UInt8 => column.as_primitive_opt::<UInt8Type>()?.value(row).into(),
            DataType::UInt16 => column.as_primitive_opt::<UInt16Type>()?.value(row).into(),
            DataType::UInt32 => column.as_primitive_opt::<UInt32Type>()?.value(row).into(),
            DataType::UInt64 => column.as_primitive_opt::<UInt64Type>()?.value(row),
            _ => column.as_primitive_opt::<TimestampNanosecondType>()?.value(row) as u64,
        })
    }

    fn text(&self, column: &str) -> Option<&str> {
        let column = self.column(column)?.as_dictionary_opt::<Int32Type>()?;
        let key = usize::try_from(column.keys().value(self.row)).ok()?;
        let values = column.values().as_string_opt::<i32>()?;
        (key < values.len()).then(|| values.value(key))
    }

    fn labels(&self) -> Option<[u8; 16]> {
        self.column("labels")?.as_fixed_size_binary_opt()?.value(self.row).try_into().ok()
    }

    /// What NAT has changed, and the rest as it was.
    fn reply(&self, orig: &Tuple) -> Option<Tuple> {
        let changed = |column, otherwise: [u8; 16]| match self.text(column) {
            Some(text) => super::super::record::address(text).map(|(_, bytes)| bytes),
            None => Some(otherwise),
        };
        let (src, dst) = (changed("nat_dst", orig.dst)?, changed("nat_src", orig.src)?);
        let (src_l4, dst_l4) = if is_icmp(orig.proto) {
            (self.port("nat_sport", orig.src_l4), icmp_answer(orig.proto, orig.dst_l4))
        } else {
            (self.port("nat_dport", orig.dst_l4), self.port("nat_sport", orig.src_l4))
        };
        Some(Tuple { src, dst, src_l4, dst_l4, ..*orig })
    }

    fn id(&self, record: &Record) -> RecordId {
        record.identified_by(self.identifier)
    }
}
