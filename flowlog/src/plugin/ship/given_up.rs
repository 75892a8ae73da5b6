//! What is lost with a spool that was given up: counted, reported, and noted for archives.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::losses::Loss;
use super::rescue::Amounts;
use super::spool::Sink;
use super::store::GivenUp;
use crate::stats::{Amount, Measure};

impl GivenUp {
    /// Counts what the file held, as far as that is known, and was not copied.
    pub(super) fn count_at_start<'s>(
        &self,
        path: &Path,
        sinks: impl Iterator<Item = (&'s str, &'s Arc<Sink>)>,
    ) {
        let mut lost = 0;
        for (name, sink) in sinks {
            sink.stats.add(Measure::SetAside, 1);
            let held = self.held.as_ref().map(|held| of(held, name)).unwrap_or_default();
            lost += lose(sink, held.records.saturating_sub(of(&self.copied, name).records));
            self.note_unknown(sink, self.held.is_some());
        }
        self.report(path, lost, self.held.is_some());
    }

    /// What such a file held of a sink that is not known from it, by its name.
    pub(super) fn count_of_new(&self, sink: &Sink) {
        sink.stats.add(Measure::SetAside, 1);
        self.note_unknown(sink, self.held.is_some());
    }

    /// Counts what the file held and was not copied, while the daemon runs, but for the records
    /// that have `arrived`. What the destination acknowledges only afterwards is among it.
    pub(super) fn count<'s>(
        &self,
        path: &Path,
        sinks: impl Iterator<Item = (&'s str, &'s Arc<Sink>)>,
        arrived: &HashMap<String, u64>,
    ) {
        let measure = if self.aside.is_some() { Measure::SetAside } else { Measure::Replaced };
        let mut lost = 0;
        for (name, sink) in sinks {
            sink.stats.add(measure, 1);
            let (kept, copied) = (sink.stats.kept(), of(&self.copied, name));
            let gone = Amount {
                bytes: kept.bytes.saturating_sub(copied.bytes),
                records: kept.records.saturating_sub(copied.records),
            };
            sink.stats.take_kept(gone);
            let arrived = arrived.get(name).copied().unwrap_or_default();
            let lost_here = lose(sink, gone.records.saturating_sub(arrived));
            if lost_here > 0 {
                // A client that still holds some of them must not have them as well.
                sink.take_back();
            }
            lost += lost_here;
            self.note_unknown(sink, true);
        }
        self.report(path, lost, true);
    }

    /// Notes what cannot be counted: records, or losses that the file named.
    fn note_unknown(&self, sink: &Sink, records_known: bool) {
        if !records_known || !self.losses {
            sink.losses.note(Loss::unknown());
        }
    }

    fn report(&self, path: &Path, lost: u64, records_known: bool) {
        let path = path.display();
        let copied: u64 = self.copied.values().map(|amount| amount.records).sum();
        let what = match &self.aside {
            Some(aside) => format!("was damaged or replaced, and is {} now", aside.display()),
            None => "was removed".to_owned(),
        };
        let lost = if records_known {
            format!("{lost} are lost")
        } else {
            format!("{lost} or more are lost, their number cannot be read")
        };
        let losses = if self.losses {
            ""
        } else {
            "; losses that it named cannot be read: archives have an unknown loss in their place"
        };
        warn!(
            "the spool {path} {what}. A new one is begun: {copied} records are in it, {lost}{losses}"
        );
    }
}

/// What is lost may be of any time until now.
fn lose(sink: &Sink, records: u64) -> u64 {
    if records > 0 {
        sink.loses(Loss { records, ..Loss::unknown() });
    }
    records
}

fn of(amounts: &Amounts, name: &str) -> Amount {
    amounts.get(name).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_not_lost_as_well() {
        let amount = |records| Amount { bytes: 10 * records, records };
        let copied = Amounts::from([("a:NATS".to_owned(), amount(60))]);
        let given_up =
            GivenUp { aside: Some("/spool.db.damaged".into()), held: None, copied, losses: false };
        let (sink, other) = (Sink::new("a:NATS"), Sink::new("b:PARQUET"));
        sink.stats.add_kept(amount(100));
        other.stats.add_kept(amount(7));
        other.losses.want();
        let sinks = [&sink, &other].map(|sink| (sink.name.as_str(), sink));
        let arrived = HashMap::from([("a:NATS".to_owned(), 30)]);
        given_up.count(Path::new("/spool.db"), sinks.into_iter(), &arrived);
        let lost = [&sink, &other].map(|sink| sink.stats.get(Measure::Lost));
        assert_eq!(lost, [10, 7]);
        assert_eq!((sink.stats.kept(), other.stats.kept()), (amount(60), amount(0)));
        // With losses that the file named and that cannot be read.
        let noted: Vec<u64> = other.losses.take().losses.iter().map(|loss| loss.records).collect();
        assert_eq!(noted, [7, 0]);
    }
}
