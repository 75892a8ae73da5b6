//! The file is damaged, or has lost its name: another takes its place.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::super::backoff::Pause;
use super::super::failure::Failure;
use super::super::gate;
use super::super::given_up::GivenUp;
use super::super::spool::{Job, Sink};
use super::super::store::Wrong;
use super::{Keeper, kept};
use crate::stats::{Measure, Part};

/// A copy that has taken longer and failed is not begun anew at once.
const LONG: Duration = Duration::from_secs(1);

impl Keeper {
    /// An attempt to replace it has failed a moment ago.
    pub(super) fn pauses(&self, wrong: Wrong) -> bool {
        let pause = match wrong {
            Wrong::Damaged => &self.irreplaceable,
            Wrong::Replaced => &self.put_off,
        };
        pause.as_ref().is_some_and(|pause| !pause.is_over())
    }

    /// A transaction has found damage: makes a new file, unless that has failed a moment ago;
    /// returns whether it has.
    #[cold]
    pub(super) fn replace_damaged(&mut self, sinks: &HashMap<String, Arc<Sink>>) -> bool {
        // It is replaced later, if it cannot be now.
        self.store.health().found_damage(self.store.health().generation());
        // It may have lost its name as well.
        let wrong = self.store.wrong().unwrap_or(Wrong::Damaged);
        !self.pauses(wrong) && self.replace(wrong, sinks)
    }

    /// Makes a new file; returns whether that worked.
    #[cold]
    pub(super) fn replace(&mut self, wrong: Wrong, sinks: &HashMap<String, Arc<Sink>>) -> bool {
        let (begin, held) = (Instant::now(), kept(sinks));
        let Self { store, announced, .. } = self;
        let path = store.path().to_owned();
        // Once: later attempts have their failure to say.
        let announce = || {
            if announced.replace(wrong) != Some(wrong) {
                announce(&path, wrong, sinks);
            }
        };
        match store.replace(wrong, &held, announce) {
            Ok(given_up) => {
                self.replaced(&given_up, sinks);
                true
            }
            Err(failure) => {
                self.not_replaced(wrong, &failure, begin.elapsed(), sinks);
                false
            }
        }
    }

    fn replaced(&mut self, given_up: &GivenUp, sinks: &HashMap<String, Arc<Sink>>) {
        (self.held, self.irreplaceable, self.put_off, self.announced) = (None, None, None, None);
        let named = || sinks.iter().map(|(name, sink)| (name.as_str(), sink));
        if gate::have_ended(sinks.values()) {
            given_up.pass_on(named());
        } else {
            given_up.count(self.store.path(), named(), &self.arrived());
        }
        // Asked once more: the totals may have been made meanwhile.
        if gate::have_ended(sinks.values()) {
            self.store.keep_note();
        }
        for sink in sinks.values() {
            sink.stats.set_trouble(Part::Spool, None);
            // One that has found the new file before its rows waits for others.
            sink.newest.send_modify(|_| {});
        }
    }

    fn not_replaced(
        &mut self,
        wrong: Wrong,
        failure: &Failure,
        took: Duration,
        sinks: &HashMap<String, Arc<Sink>>,
    ) {
        let what = format!("{}: {failure}", said_of(self.store.path(), wrong));
        for sink in sinks.values() {
            sink.stats.add(Measure::Errors, 1);
            sink.stats.set_trouble(Part::Spool, Some(what.clone()));
        }
        if self.complaints.allow() {
            let kept: u64 = sinks.values().map(|sink| sink.stats.kept().records).sum();
            let end = match wrong {
                // It has its name.
                Wrong::Damaged => "are saved, as far as they can be read, once that is mended",
                Wrong::Replaced => "are lost when flowlog ends before that is mended",
            };
            warn!("{what}. {kept} records {end}");
        }
        match wrong {
            Wrong::Damaged => {
                self.irreplaceable = Some(Pause::after(self.irreplaceable.as_ref(), what));
            }
            // It may be copied whole, again and again.
            Wrong::Replaced if took > LONG => {
                self.put_off = Some(Pause::after(self.put_off.as_ref(), what));
            }
            // What fails at once is looked for at once.
            Wrong::Replaced => {}
        }
    }

    /// Records of each sink that have arrived, were not removed from the spool that was given up,
    /// and are not in the new one.
    fn arrived(&self) -> HashMap<String, u64> {
        let mut arrived: HashMap<&str, (i64, u64)> = HashMap::new();
        for job in &self.pending {
            if let Job::Acknowledge(sink, last, amount) = job {
                let (newest, records) = arrived.entry(&sink.name).or_default();
                *newest = (*newest).max(*last);
                *records += amount.records;
            }
        }
        let gone = |(sink, (newest, records)): (&str, (i64, u64))| {
            // Where that cannot be read they are counted as lost.
            let copied = self.store.records_up_to(sink, newest).unwrap_or(records);
            (sink.to_owned(), records.saturating_sub(copied))
        };
        arrived.into_iter().map(gone).collect()
    }
}

/// Says that a copy is begun, which may take minutes.
fn announce(path: &Path, wrong: Wrong, sinks: &HashMap<String, Arc<Sink>>) {
    let next = match wrong {
        Wrong::Damaged => "what can be read is copied to a new one",
        Wrong::Replaced => "what it held is copied to a new one",
    };
    let what = format!("{}: {next}", said_of(path, wrong));
    for sink in sinks.values() {
        sink.stats.set_trouble(Part::Spool, Some(what.clone()));
    }
    warn!("{what}");
}

fn said_of(path: &Path, wrong: Wrong) -> String {
    let path = path.display();
    match wrong {
        Wrong::Damaged => format!("the spool {path} is damaged"),
        Wrong::Replaced => format!("the spool {path} was removed"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::{self, Receiver, Sender};

    use tempfile::TempDir;

    use super::super::super::Full;
    use super::super::super::held;
    use super::super::super::note::NOTE;
    use super::super::super::opening::Opening;
    use super::super::super::replacement::NEW;
    use super::super::super::spool::Chunk;
    use super::super::super::store::{FILE, OnDamage};
    use super::super::LOOK;
    use super::*;
    use crate::plugin::record_id::RecordId;
    use crate::plugin::ship::Record;

    const NAME: &str = "a:NATS";

    /// A keeper without a thread, whose spool has a record.
    struct Kept {
        keeper: Keeper,
        sinks: HashMap<String, Arc<Sink>>,
        jobs: Sender<Job>,
    }

    impl Kept {
        fn open(directory: &TempDir) -> Self {
            let mut sinks = HashMap::from([(NAME.to_owned(), Sink::new(NAME))]);
            let mut opening = Opening::of(directory.path());
            let (store, _) = opening.attempt(&mut sinks, OnDamage::Replace).unwrap();
            let (jobs, receiver) = mpsc::channel();
            let keeper = Keeper::new(store, 1 << 30, Full::DropOldest, receiver);
            Self { keeper, sinks, jobs }
        }

        fn with_a_record(directory: &TempDir) -> Self {
            let mut kept = Self::open(directory);
            let sink = kept.sinks[NAME].clone();
            let mut chunk = Chunk::empty("text 1".into(), 100);
            Record { id: RecordId { time: 1, hash: 7 }, flow: 1, body: b"one" }
                .write(&mut chunk.payload);
            (chunk.records, chunk.span) = (1, (1, 1));
            sink.waits(&chunk);
            kept.keeper.pending.push(Job::Append(sink, chunk));
            kept.keeper.turn(&kept.sinks);
            assert_eq!(kept.records(), 1);
            kept
        }

        fn records(&self) -> u64 {
            self.sinks[NAME].stats.kept().records
        }

        fn get(&self, measure: Measure) -> u64 {
            self.sinks[NAME].stats.get(measure)
        }

        fn trouble(&self) -> Option<String> {
            self.sinks[NAME].stats.trouble()
        }

        /// As it does each second, and at the end.
        fn look(&mut self) {
            self.keeper.looked -= LOOK;
            self.keeper.look(&self.sinks);
        }

        fn end(&mut self) -> Receiver<()> {
            let (answer, answered) = mpsc::channel();
            self.keeper.pending.push(Job::Answer(answer));
            self.look();
            self.keeper.turn(&self.sinks);
            answered
        }

        fn damage(&self) {
            self.keeper.store.health().found_damage(self.keeper.store.health().generation());
        }
    }

    fn set_aside(directory: &TempDir) -> usize {
        let names = fs::read_dir(directory.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".damaged-") && name.ends_with('Z')).count()
    }

    /// What waits is written in the time of the exit.
    #[test]
    fn a_damaged_spool_is_left_to_the_next_start_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::with_a_record(&directory);
        kept.damage();
        let answered = kept.end();
        answered.try_recv().unwrap();
        assert_eq!((set_aside(&directory), kept.get(Measure::SetAside)), (0, 0));
        kept.look();
        assert_eq!((set_aside(&directory), kept.get(Measure::SetAside)), (1, 1));
        assert_eq!(kept.records(), 1);
    }

    #[test]
    fn it_is_said_before_it_is_copied() {
        let directory = tempfile::tempdir().unwrap();
        for (wrong, what) in
            [(Wrong::Damaged, " is damaged: "), (Wrong::Replaced, " was removed: ")]
        {
            let mut kept = Kept::with_a_record(&directory);
            let Kept { keeper, sinks, .. } = &mut kept;
            let path = keeper.store.path().to_owned();
            let new = directory.path().join(NEW);
            let mut said = false;
            let before = || {
                assert!(!new.exists());
                announce(&path, wrong, sinks);
                said = true;
            };
            keeper.store.replace(wrong, &super::kept(sinks), before).unwrap();
            assert!(said);
            let trouble = kept.trouble().unwrap();
            assert!(trouble.contains(what) && trouble.ends_with("to a new one"), "{trouble}");
            kept.damage();
            kept.look();
            assert_eq!((kept.trouble(), kept.keeper.announced), (None, None));
            drop(kept);
            fs::remove_file(directory.path().join(FILE)).unwrap();
            held::write(directory.path(), &HashMap::new());
        }
    }

    /// Of the whole of it each time; one that fails at once costs nothing.
    #[test]
    fn a_long_copy_of_a_removed_spool_that_fails_is_put_off() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::with_a_record(&directory);
        let path = directory.path().join(FILE);
        fs::remove_file(&path).unwrap();
        let Kept { keeper, sinks, .. } = &mut kept;
        let failure = Failure::full(&path);
        keeper.not_replaced(Wrong::Replaced, &failure, Duration::from_millis(10), sinks);
        assert!(!keeper.pauses(Wrong::Replaced));
        keeper.not_replaced(Wrong::Replaced, &failure, Duration::from_secs(2), sinks);
        assert!(keeper.pauses(Wrong::Replaced) && !keeper.pauses(Wrong::Damaged));
        kept.look();
        assert!(!path.exists(), "it is copied at once");
        let answered = kept.end();
        answered.try_recv().unwrap();
        assert!(path.exists() && !kept.keeper.pauses(Wrong::Replaced));
        assert_eq!((kept.records(), kept.get(Measure::Replaced)), (1, 1));
    }

    /// The directory is made anew and the copy in it is not whole when flowlog is killed.
    #[test]
    fn what_a_removed_spool_held_is_noted_before_it_is_copied() {
        let parent = tempfile::tempdir().unwrap();
        let directory = tempfile::tempdir_in(parent.path()).unwrap();
        let mut kept = Kept::with_a_record(&directory);
        fs::remove_dir_all(directory.path()).unwrap();
        let note = directory.path().join(NOTE);
        fs::create_dir_all(&note).unwrap();
        kept.look();
        assert!(!directory.path().join(FILE).exists() && kept.records() == 1);
        let held = held::read(directory.path()).unwrap();
        assert_eq!(held[NAME].records, 1);
        drop(kept);
        fs::remove_dir(&note).unwrap();
        fs::write(directory.path().join(NEW), "a part").unwrap();
        for counted in [1, 0] {
            let mut kept = Kept::open(&directory);
            let counts = [Measure::Lost, Measure::Replaced, Measure::SetAside];
            assert_eq!(counts.map(|measure| kept.get(measure)), [counted, counted, 0]);
            kept.look();
        }
    }

    /// It is copied while the daemon makes its totals, which do not include it then.
    #[test]
    fn what_is_given_up_after_the_totals_is_counted_by_the_next_start() {
        for ends in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let mut kept = Kept::with_a_record(&directory);
            // No row can be read.
            let connection = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
            connection.execute_batch("ALTER TABLE batch RENAME COLUMN payload TO other").unwrap();
            drop(connection);
            kept.damage();
            if ends {
                kept.sinks[NAME].gate.give_up();
            }
            assert!(kept.keeper.replace(Wrong::Damaged, &kept.sinks));
            assert_eq!((kept.get(Measure::Lost), kept.records()), (u64::from(!ends), 0));
            let Kept { keeper, sinks, jobs } = kept;
            drop(jobs);
            keeper.run(&sinks);
            for counted in [u64::from(ends), 0] {
                let mut kept = Kept::open(&directory);
                assert_eq!(kept.get(Measure::Lost), counted);
                assert_eq!(kept.get(Measure::SetAside), counted);
                kept.look();
            }
        }
    }

    /// Opened at the end, behind the totals.
    #[test]
    fn a_spool_that_is_opened_after_the_totals_leaves_the_count_to_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        drop(Kept::open(&directory));
        fs::remove_file(directory.path().join(FILE)).unwrap();
        let amount = crate::stats::Amount { bytes: 70, records: 7 };
        held::write(directory.path(), &HashMap::from([(NAME.to_owned(), amount)]));
        let sink = Sink::new(NAME);
        sink.gate.give_up();
        let mut sinks = HashMap::from([(NAME.to_owned(), sink)]);
        let mut opening = Opening::of(directory.path());
        let (store, _) = opening.attempt(&mut sinks, OnDamage::Replace).unwrap();
        assert!(!store.has_noted() && sinks[NAME].stats.get(Measure::Lost) == 0);
        drop(store);
        for counted in [7, 0] {
            let mut kept = Kept::open(&directory);
            assert_eq!(kept.get(Measure::Lost), counted);
            kept.look();
        }
    }
}
