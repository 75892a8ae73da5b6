//! The section of a PARQUET sink.

use super::sections::section;
use super::stacks::Element;
use super::*;
use crate::archive;
use crate::plugin::parquet::Settings;
use crate::plugin::ship::Shipping;

/// Of the spool so much may wait for one file to be closed: others need room
/// too, and what comes when it is full is lost.
const SHARE: u64 = 4;
const INTERVAL: Duration = Duration::from_secs(15 * 60);
const SIZE: i64 = 128 << 20;
const SIZE_BOUNDS: std::ops::RangeInclusive<i64> = 1 << 20..=1 << 40;

pub(super) fn read(
    document: &Document<'_>,
    element: &Element,
    spool: u64,
    found: &mut Diagnostics,
) -> Settings {
    let values = section(document, element, found);
    let keep_bytes = values.integer("keep_bytes", 0..=1 << 50, found).unwrap_or(0) as u64;
    Settings {
        shipping: Shipping {
            id: element.id.clone(),
            buffer_max: sinks::buffer_max(&values, found),
        },
        archive: archive::Settings {
            directory: sinks::text(&values, element, "directory", found).into(),
            rotate_interval: interval(&values, found),
            rotate_size: values.integer("rotate_size", SIZE_BOUNDS, found).unwrap_or(SIZE) as u64,
            keep_for: values.duration("keep_for", found).filter(|time| !time.is_zero()),
            keep_bytes: (keep_bytes > 0).then_some(keep_bytes),
        },
        held_max: spool / SHARE,
    }
}

fn interval(values: &Values<'_>, found: &mut Diagnostics) -> Duration {
    const KEY: &str = "rotate_interval";
    let interval = values.duration(KEY, found).unwrap_or(INTERVAL);
    if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&interval) {
        found
            .error(values.line(KEY), format!("`{KEY}` is out of range; give a time from 1s to 1d"));
    }
    interval
}
