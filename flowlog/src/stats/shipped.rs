//! What the sinks count that deliver from the spool, by plugin.

use std::cell::Cell;

use crate::plugin::ship::Measure;

/// A plugin that delivers from the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Shipper {
    /// Files of columns.
    Parquet,
    /// PostgreSQL.
    Pgsql,
    /// Collectors of IPFIX.
    Ipfix,
    /// NATS JetStream.
    Nats,
    /// Kafka.
    Kafka,
    /// ClickHouse.
    Clickhouse,
}

impl Shipper {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] =
        [Self::Parquet, Self::Pgsql, Self::Ipfix, Self::Nats, Self::Kafka, Self::Clickhouse];

    /// The plugin, as in a stack.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::Parquet => "PARQUET",
            Self::Pgsql => "PGSQL",
            Self::Ipfix => "IPFIX",
            Self::Nats => "NATS",
            Self::Kafka => "KAFKA",
            Self::Clickhouse => "CLICKHOUSE",
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Pgsql => "pgsql",
            Self::Ipfix => "ipfix",
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::Clickhouse => "clickhouse",
        }
    }
}

/// The counts, and which plugins are in use.
#[derive(Debug, Default)]
pub(super) struct Shipped {
    counts: [[Cell<u64>; Measure::ALL.len()]; Shipper::ALL.len()],
    used: [Cell<bool>; Shipper::ALL.len()],
}

impl Shipped {
    pub(super) fn cell(&self, shipper: Shipper, measure: Measure) -> &Cell<u64> {
        &self.counts[shipper as usize][measure as usize]
    }

    pub(super) fn used(&self, shipper: Shipper) -> &Cell<bool> {
        &self.used[shipper as usize]
    }

    /// Report lines, `total PLUGIN.NAME: VALUE UNIT`, of the plugins in use.
    pub(super) fn totals(&self) -> impl Iterator<Item = String> + '_ {
        let used = Shipper::ALL.into_iter().filter(|shipper| self.used(*shipper).get());
        used.flat_map(move |shipper| {
            Measure::ALL.into_iter().map(move |measure| {
                let count = self.cell(shipper, measure).get();
                format!("total {}.{}: {count} {}", shipper.name(), measure.name(), measure.unit())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_at_its_index() {
        for (index, shipper) in Shipper::ALL.into_iter().enumerate() {
            assert_eq!(index, shipper as usize, "{}", shipper.name());
            assert_eq!(shipper.plugin().to_lowercase(), shipper.name());
        }
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(index, measure as usize, "{}", measure.name());
        }
    }

    #[test]
    fn only_what_is_in_use_is_told() {
        let shipped = Shipped::default();
        shipped.cell(Shipper::Nats, Measure::Lost).set(3);
        assert_eq!(shipped.totals().count(), 0);
        shipped.used(Shipper::Nats).set(true);
        assert!(shipped.totals().any(|line| line == "total nats.lost_records: 3 records"));
        assert_eq!(shipped.totals().count(), Measure::ALL.len());
    }
}
