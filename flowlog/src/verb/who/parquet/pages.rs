//! Which pages of a row group can have an answer, by the times in them.

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, RowSelection};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

/// The rows of those pages whose times `column` are within; nothing where the
/// file does not tell.
pub(super) fn within(
    metadata: &ArrowReaderMetadata,
    group: usize,
    column: &str,
    is_within: impl Fn(Option<(u64, u64)>) -> bool,
) -> Option<RowSelection> {
    let place = metadata.parquet_schema().columns().iter().position(|c| c.name() == column)?;
    let index = metadata.metadata().page_index()?;
    let ColumnIndexMetaData::INT64(times) = index.column_index(group, place)? else { return None };
    let pages = index.offset_index(group, place)?.page_locations();
    let rows = usize::try_from(metadata.metadata().row_group(group).num_rows()).ok()?;
    let ranges = pages.iter().enumerate().filter_map(|(page, location)| {
        let known = match (times.min_value(page), times.max_value(page), times.null_count(page)) {
            (Some(least), Some(greatest), Some(0)) => Some((*least as u64, *greatest as u64)),
            _ => None,
        };
        let end = pages.get(page + 1).map_or(rows, |next| next.first_row_index as usize);
        is_within(known).then_some(location.first_row_index as usize..end)
    });
    Some(RowSelection::from_consecutive_ranges(ranges, rows))
}
