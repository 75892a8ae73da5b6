//! What is lost with a spool that was given up: counted, reported, and noted for archives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::losses::Loss;
use super::note::Note;
use super::rescue::Amounts;
use super::spool::Sink;
use crate::stats::{Amount, Measure};

/// A file that was given up.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// Where it is now; absent: it was removed.
    pub(super) aside: Option<PathBuf>,
    /// What is given up with it.
    pub(super) note: Note,
    /// What was given up before it, and may not be counted.
    pub(super) earlier: Option<Note>,
}

impl GivenUp {
    /// What is given up with it, and was before it.
    pub(super) fn all(&self) -> Note {
        let note = self.note.clone();
        match &self.earlier {
            Some(earlier) => note.behind(earlier),
            None => note,
        }
    }

    /// Counts all that is given up, as far as that is known: nothing of it was counted.
    pub(super) fn count_at_start<'s>(
        &self,
        path: &Path,
        sinks: impl Iterator<Item = (&'s str, &'s Arc<Sink>)>,
    ) {
        let all = self.all();
        let mut lost = 0;
        for (name, sink) in sinks {
            self.count_files(sink, &all);
            lost += lose(sink, of(&all.lost, name).records);
            note_unknown(sink, all.known && all.losses);
        }
        self.report(path, lost, &all);
    }

    /// What such a file held of a sink that is not known from it, by its name.
    pub(super) fn count_of_new(&self, sink: &Sink) {
        let all = self.all();
        self.count_files(sink, &all);
        note_unknown(sink, all.known && all.losses);
    }

    fn count_files(&self, sink: &Sink, all: &Note) {
        sink.stats.add(Measure::SetAside, all.files);
        // It has vanished.
        sink.stats.add(Measure::Replaced, u64::from(self.note.files == 0));
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
            let gone = self.take_gone(name, sink);
            let arrived = arrived.get(name).copied().unwrap_or_default();
            let lost_here = lose(sink, gone.records.saturating_sub(arrived));
            if lost_here > 0 {
                // A client that still holds some of them must not have them as well.
                sink.take_back();
            }
            lost += lost_here;
            note_unknown(sink, self.note.losses);
        }
        // What it held was known while it was open.
        self.report(path, lost, &Note { known: true, ..self.note.clone() });
    }

    /// Leaves the count to the next start: the totals of this one are made.
    pub(super) fn pass_on<'s>(&self, sinks: impl Iterator<Item = (&'s str, &'s Arc<Sink>)>) {
        for (name, sink) in sinks {
            self.take_gone(name, sink);
        }
    }

    /// The spool does not hold any more what was not copied; returns what that is.
    fn take_gone(&self, name: &str, sink: &Sink) -> Amount {
        let (kept, copied) = (sink.stats.kept(), of(&self.note.copied, name));
        let gone = Amount {
            bytes: kept.bytes.saturating_sub(copied.bytes),
            records: kept.records.saturating_sub(copied.records),
        };
        sink.stats.take_kept(gone);
        gone
    }

    fn report(&self, path: &Path, lost: u64, note: &Note) {
        let path = path.display();
        let copied: u64 = note.copied.values().map(|amount| amount.records).sum();
        let what = match &self.aside {
            Some(aside) => format!("was damaged or replaced, and is {} now", aside.display()),
            None => "was removed".to_owned(),
        };
        let lost = if note.known {
            format!("{lost} are lost")
        } else {
            format!("{lost} or more are lost, their number cannot be read")
        };
        let losses = if note.losses {
            ""
        } else {
            "; losses that it named cannot be read: archives have an unknown loss in their place"
        };
        warn!(
            "the spool {path} {what}. A new one is begun: {copied} records are in it, {lost}{losses}"
        );
    }
}

/// Notes what cannot be counted, unless all is known: records, or losses that the file named.
fn note_unknown(sink: &Sink, all_known: bool) {
    if !all_known {
        sink.losses.note(Loss::unknown());
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
        let note = Note::of(None, copied, false);
        let aside = Some("/spool.db.damaged".into());
        let given_up = GivenUp { aside, note, earlier: Some(Note::unknown()) };
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

    /// A start that has ended before the daemon ran has counted nothing of what it gave up.
    #[test]
    fn what_was_given_up_before_is_counted_with_it() {
        let amounts = |name: &str, records| {
            Amounts::from([(name.to_owned(), Amount { bytes: 10 * records, records })])
        };
        let none = Amounts::new();
        let note = Note::of(Some(&amounts("a:NATS", 10)), amounts("a:NATS", 4), true);
        let earlier = Some(Note::of(Some(&amounts("b:KAFKA", 100)), none, true));
        let given_up = GivenUp { aside: None, note, earlier };
        let sinks = ["a:NATS", "b:KAFKA"].map(Sink::new);
        let named = sinks.iter().map(|sink| (sink.name.as_str(), sink));
        given_up.count_at_start(Path::new("/spool.db"), named);
        let get = |measure| sinks.each_ref().map(|sink| sink.stats.get(measure));
        assert_eq!((get(Measure::Lost), get(Measure::SetAside)), ([6, 100], [2, 2]));
    }
}
