//! Partitions of flowlog's own tables: a month each, in UTC, made when the first row
//! of it comes.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tracing::info;

use super::failure::{self, Peer};
use super::quoted;
use super::session::{LOCK, run};
use crate::plugin::ship::Trouble;

/// The months of these times, nanoseconds since the epoch, each by its first day.
pub(super) fn months(times: impl Iterator<Item = u64>) -> BTreeSet<Date> {
    let mut months = BTreeSet::new();
    let mut last = None;
    for time in times {
        let day = time / 86_400_000_000_000;
        if last.replace(day) != Some(day) {
            // All that 64 bits hold is a time.
            let at = Timestamp::from_nanosecond(i128::from(time)).unwrap_or(Timestamp::MAX);
            months.insert(at.to_zoned(TimeZone::UTC).date().first_of_month());
        }
    }
    months
}

/// What a table's partition for a month is called.
fn name(table: &str, month: Date) -> String {
    format!("{table}_{:04}_{:02}", month.year(), month.month())
}

/// Makes the partition of a table for a month, if it is not there.
///
/// It is attached, which unlike `CREATE TABLE … PARTITION OF` waits for nobody who
/// reads, and keeps nobody waiting.
pub(super) async fn make(
    client: &Client,
    peer: &Peer<'_>,
    table: &str,
    month: Date,
) -> Result<(), Trouble> {
    let (schema, name) = (quoted(peer.schema), name(table, month));
    run(client, peer, "BEGIN").await?;
    run(client, peer, LOCK).await?;
    let there = format!("{schema}.{name}");
    let ask = "SELECT pg_catalog.to_regclass($1) IS NULL";
    let there = client.query_typed_one(ask, &[(&there, Type::TEXT)]).await;
    let missing: bool = there.map_err(|why| failure::asking(peer, &why))?.get(0);
    if missing {
        let next = month.saturating_add(1.month());
        let make = format!(
            "CREATE TABLE {schema}.{name} (LIKE {schema}.{table} INCLUDING ALL); \
             ALTER TABLE {schema}.{table} ATTACH PARTITION {schema}.{name} \
             FOR VALUES FROM ('{month} 00:00:00+00') TO ('{next} 00:00:00+00')"
        );
        run(client, peer, &make).await?;
        info!("{peer} has got the table {name}");
    }
    run(client, peer, "COMMIT").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_months() {
        const SECOND: u64 = 1_000_000_000;
        // 2026-11-30 23:59:59.999999999 and a nanosecond later, twice.
        let end = 1_796_083_200 * SECOND - 1;
        let found = months([end, end + 1, end + 2, end].into_iter());
        let names: Vec<_> = found.iter().map(|month| name("flow", *month)).collect();
        assert_eq!(names, ["flow_2026_11", "flow_2026_12"]);
        let found = months([0, u64::MAX].into_iter());
        let names: Vec<_> = found.iter().map(|month| name("lost", *month)).collect();
        assert_eq!(names, ["lost_1970_01", "lost_2554_07"]);
    }
}
