//! Small files with many row groups and pages, for tests of those who read them.

use std::fs::File;
use std::path::Path;

use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::schema::types::ColumnPath;

use super::checksums;
use super::columns::Columns;
use super::origin::Origin;
use super::properties::properties;
use super::schema;
use crate::plugin::compact::{Encoder, Record};
use crate::plugin::{Body, Item};

/// How small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Rows of a row group.
    pub(crate) group: usize,
    /// Rows of a page.
    pub(crate) page: usize,
}

/// Writes a file that covers the time from the first to before the last of
/// `times`. Items stand in the order of their times.
pub(crate) fn write<'i>(
    path: &Path,
    items: impl IntoIterator<Item = Item<'i>>,
    host_hash: u64,
    origin: &Origin,
    times: (u64, u64),
    size: Size,
) {
    let mut properties = properties()
        .unwrap()
        .into_builder()
        .set_max_row_group_row_count(Some(size.group))
        .set_data_page_row_count_limit(size.page)
        .set_write_batch_size(size.page);
    for column in ["src", "sport", "dst", "dport"] {
        for tuple in ["orig", "nat"] {
            // As large as for a full row group they would be nearly all of the file.
            let path = ColumnPath::from(format!("{tuple}_{column}"));
            properties = properties.set_column_bloom_filter_max_ndv(path, size.group as u64);
        }
    }
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let file = file.unwrap();
    let mut writer =
        ArrowWriter::try_new(file, schema::schema(), Some(properties.build())).unwrap();
    let mut columns = Columns::new("gateway");
    let (mut encoder, mut record) = (Encoder::new(), Record::default());
    let mut lost = 0;
    for item in items {
        let mut bytes = Vec::new();
        encoder.encode(&item, None, &mut bytes);
        record.read(&bytes).unwrap();
        columns.push(&record);
        if let Body::Lost(loss) = item.body {
            lost += loss.events;
        }
    }
    writer.write(&columns.finish().unwrap()).unwrap();
    for (key, value) in [
        (schema::SCHEMA, schema::VERSION.to_owned()),
        (schema::CHECKSUMS, schema::CRC32.to_owned()),
        (schema::HOST_HASH, format!("{host_hash:016x}")),
        (schema::FROM, times.0.to_string()),
        (schema::TO, times.1.to_string()),
        (schema::LOST_EVENTS, lost.to_string()),
        (schema::SINK, origin.sink.clone()),
        (schema::BEGINNINGS, u8::from(origin.beginnings).to_string()),
    ] {
        writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }
    writer.finish().unwrap();
    checksums::seal(writer.inner()).unwrap();
}
