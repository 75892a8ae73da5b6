//! How each column is kept in a file: encodings, statistics, bloom filters.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::schema::{COLUMNS, Column, Kind};

/// Rows of a row group at most. More of them compress hardly better, and take
/// more memory in the daemon and in each reader.
pub(super) const ROW_GROUP: usize = 256 * 1024;
/// One in so many row groups that do not have a value is read for nothing.
const FALSE_POSITIVES: f64 = 0.01;

/// What all files are written with.
pub(super) fn properties() -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]));
    for column in &COLUMNS {
        let path = || ColumnPath::from(column.name);
        if let Some(encoding) = encoding(column) {
            builder = builder
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), encoding);
        }
        if is_searched(column) {
            builder = builder
                .set_column_bloom_filter_enabled(path(), true)
                .set_column_bloom_filter_fpp(path(), FALSE_POSITIVES)
                .set_column_bloom_filter_max_ndv(path(), ROW_GROUP as u64);
        }
        if column.kind == Kind::Text {
            // A dictionary that does not fit is given up, and text takes its full length.
            builder = builder.set_column_dictionary_page_size_limit(path(), 16 << 20);
        }
    }
    Ok(builder.build())
}

/// In place of a dictionary.
fn encoding(column: &Column) -> Option<Encoding> {
    match (column.kind, column.name) {
        (Kind::Time, _) => Some(Encoding::DELTA_BINARY_PACKED),
        _ => None,
    }
}

/// Addresses and ports of connections.
fn is_searched(column: &Column) -> bool {
    let Column { name, .. } = column;
    (name.starts_with("orig_") || name.starts_with("nat_"))
        && ["src", "sport", "dst", "dport"].iter().any(|end| name.ends_with(end))
}
