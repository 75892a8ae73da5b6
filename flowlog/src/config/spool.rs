//! Where records wait for what is away: the keys `spool_dir`, `spool_max_bytes` and
//! `spool_full` of `[global]`.

use super::*;
use crate::plugin::ship::{Full, Settings};

/// Bytes that a spool may hold where nothing is said, and its bounds.
const MAX_BYTES: i64 = 1 << 30;
const MAX_BYTES_BOUNDS: std::ops::RangeInclusive<i64> = 1 << 20..=1 << 50;

/// Reads the keys.
pub(super) fn read(values: &Values<'_>, found: &mut Diagnostics) -> Settings {
    let directory = values.string("spool_dir", found).filter(|text| !text.is_empty());
    let full = [("drop-oldest", Full::DropOldest), ("drop-newest", Full::DropNewest)];
    Settings {
        directory: directory.unwrap_or("/var/lib/flowlog").into(),
        max_bytes: values.integer("spool_max_bytes", MAX_BYTES_BOUNDS, found).unwrap_or(MAX_BYTES)
            as u64,
        full: values.choice("spool_full", &full, found).unwrap_or(Full::DropOldest),
    }
}
