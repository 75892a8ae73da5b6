//! The books: which records there have to be, which there are, and what flowlog says of the rest.

use std::collections::BTreeSet;

use super::counters::Sink;
use super::record::Seen;
use super::stacks::Source;

/// The flows that were made.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// How many, numbered from 0.
    pub flows: u32,
    /// Of these, those that need not be logged: they were made while nobody could listen.
    pub optional: BTreeSet<u32>,
}

/// What a stack has of the flows that were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that there have to be.
    pub expected: u64,
    /// Records that are there, each once.
    pub logged: u64,
    /// Records that came again: with the same id, or where there are no ids.
    pub again: u64,
    /// Records that came again with another id.
    pub twice: u64,
    /// Records of flows that nobody made.
    pub strangers: u64,
    /// Records that went away with a reader or a file, and never came otherwise.
    pub abandoned: u64,
    /// Flows that lack a record; those that went away with a reader are not among them.
    pub missing: Vec<u32>,
}

/// A record's place in the books: what it must not be mistaken for is 0.
const NO_ID: u32 = 1;

/// Holds the records of a stack against the flows that were made.
pub fn tally(
    source: Source,
    made: &Made,
    records: impl Iterator<Item = Seen>,
    abandoned: &BTreeSet<u64>,
) -> Tally {
    let flows = made.flows as usize;
    // Which of a flow's records: its beginning, its end.
    let wanted = match source {
        Source::Events => [true, true],
        Source::Inner => [true, false],
        Source::Connections => [false, true],
    };
    let mut books = wanted.map(|wanted| vec![0_u32; if wanted { flows } else { 0 }]);
    let mut tally = Tally::default();
    for seen in records {
        let Some(place) = books[usize::from(seen.end)].get_mut(seen.flow as usize) else {
            tally.strangers += 1;
            continue;
        };
        let id = if seen.id == 0 { NO_ID } else { seen.id };
        match *place {
            0 => *place = id,
            known if known == id => tally.again += 1,
            _ => tally.twice += 1,
        }
    }
    let went: BTreeSet<(u32, bool)> = abandoned
        .iter()
        .map(|packed| Seen::unpacked(*packed))
        .map(|seen| (seen.flow, seen.end))
        .collect();
    for flow in 0..made.flows {
        if made.optional.contains(&flow) {
            continue;
        }
        let mut lacks = false;
        for (end, book) in books.iter().enumerate().filter(|(end, _)| wanted[*end]) {
            tally.expected += 1;
            if book[flow as usize] != 0 {
                tally.logged += 1;
            } else if went.contains(&(flow, end == 1)) {
                tally.abandoned += 1;
            } else {
                lacks = true;
            }
        }
        if lacks {
            tally.missing.push(flow);
        }
    }
    tally
}

/// An account: the stacks that share counters, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Records that there have to be.
    pub expected: u64,
    /// Records that are there.
    pub logged: u64,
    /// What flowlog counted.
    pub counted: Sink,
    /// Records that are missing because the kernel lost events: at least, and at most.
    pub kernel: (u64, u64),
    /// Records that went away with readers and files.
    pub abandoned: u64,
    /// Records that faults may have taken from it which flowlog cannot see, at most.
    pub allowed: u64,
    /// Records that came again without an id.
    pub again: u64,
    /// Records that came again with another id.
    pub twice: u64,
    /// Records of flows that nobody made, and what no sink writes.
    pub strange: u64,
}

impl Account {
    /// What is wrong with it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let missing = self.expected.saturating_sub(self.logged);
        let counted = self.counted.missing();
        let least = self.kernel.0 + counted;
        let most = self.kernel.1 + counted + self.counted.unsure + self.abandoned + self.allowed;
        if missing > most {
            faults.push(format!("{} records are missing and not counted", missing - most));
        }
        if missing < least {
            faults.push(format!("{} records are counted as lost and were logged", least - missing));
        }
        if self.logged > self.expected {
            faults.push(format!("{} records too many", self.logged - self.expected));
        }
        if self.twice > 0 {
            faults.push(format!("{} records came twice with two ids", self.twice));
        }
        let known = self.counted.repeated + self.counted.unsure;
        if self.again > known {
            faults.push(format!(
                "{} records came twice, of which {known} are counted as repeated or unsure",
                self.again
            ));
        }
        if self.strange > 0 {
            faults.push(format!("{} records are strange", self.strange));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(flow: u32, end: bool, id: u32) -> Seen {
        Seen { flow, end, id }
    }

    fn made(flows: u32) -> Made {
        Made { flows, optional: BTreeSet::new() }
    }

    fn account(tally: &Tally, counted: Sink) -> Account {
        Account {
            name: "x".to_owned(),
            expected: tally.expected,
            logged: tally.logged,
            counted,
            again: 0,
            twice: tally.twice,
            strange: tally.strangers,
            abandoned: tally.abandoned,
            ..Account::default()
        }
    }

    /// Two records of each of three flows, with ids.
    fn all() -> Vec<Seen> {
        (0..3)
            .flat_map(|flow| [seen(flow, false, 10 + flow), seen(flow, true, 20 + flow)])
            .collect()
    }

    #[test]
    fn whole_books_have_no_fault() {
        let tally = tally(Source::Events, &made(3), all().into_iter(), &BTreeSet::new());
        assert_eq!((tally.expected, tally.logged), (6, 6));
        assert_eq!(account(&tally, Sink::default()).faults(), Vec::<String>::new());
    }

    #[test]
    fn a_missing_record_is_found_unless_it_is_counted() {
        let mut records = all();
        records.remove(3);
        let tally = tally(Source::Events, &made(3), records.into_iter(), &BTreeSet::new());
        assert_eq!((tally.logged, &tally.missing[..]), (5, &[1][..]));
        let faults = account(&tally, Sink::default()).faults();
        assert_eq!(faults, ["1 records are missing and not counted"]);
        for counted in [
            Sink { lost: 1, ..Sink::default() },
            Sink { dropped: 1, ..Sink::default() },
            Sink { refused: 1, ..Sink::default() },
            Sink { unsure: 4, ..Sink::default() },
        ] {
            assert_eq!(account(&tally, counted).faults(), Vec::<String>::new(), "{counted:?}");
        }
        let faults = account(&tally, Sink { lost: 2, ..Sink::default() }).faults();
        assert_eq!(faults, ["1 records are counted as lost and were logged"]);
    }

    #[test]
    fn losses_of_the_kernel_have_their_bounds() {
        let mut records = all();
        records.pop();
        let tally = tally(Source::Events, &made(3), records.into_iter(), &BTreeSet::new());
        let with = |kernel| Account { kernel, ..account(&tally, Sink::default()) };
        assert!(with((1, 1)).faults().is_empty());
        assert!(with((0, 3)).faults().is_empty());
        assert_eq!(with((0, 0)).faults().len(), 1);
        assert_eq!(with((2, 2)).faults().len(), 1);
    }

    #[test]
    fn what_comes_again_with_its_id_is_once_and_with_another_is_twice() {
        let records = all().into_iter().chain([seen(0, false, 10), seen(0, true, 99)]);
        let tally = tally(Source::Events, &made(3), records, &BTreeSet::new());
        assert_eq!((tally.logged, tally.again, tally.twice), (6, 1, 1));
        let faults = account(&tally, Sink::default()).faults();
        assert_eq!(faults, ["1 records came twice with two ids"]);
        let again = |repeated| {
            let counted = Sink { repeated, ..Sink::default() };
            Account { twice: 0, again: 2, ..account(&tally, counted) }.faults().len()
        };
        assert_eq!((again(1), again(2)), (1, 0));
    }

    #[test]
    fn strangers_and_optional_flows() {
        let optional = BTreeSet::from([1]);
        let made = Made { flows: 3, optional };
        let records = [seen(0, false, 0), seen(1, false, 0), seen(7, false, 0), seen(0, true, 0)];
        let tally = tally(Source::Inner, &made, records.into_iter(), &BTreeSet::new());
        assert_eq!((tally.expected, tally.logged, tally.strangers), (2, 1, 2));
        assert_eq!(tally.missing, [2]);
    }

    #[test]
    fn what_went_with_its_reader_is_neither_logged_nor_missing() {
        let went = BTreeSet::from([seen(1, true, 0).packed(), seen(2, true, 0).packed()]);
        let records = [seen(0, true, 0), seen(2, true, 0)];
        let tally = tally(Source::Connections, &made(3), records.into_iter(), &went);
        assert_eq!((tally.logged, tally.abandoned, tally.missing.len()), (2, 1, 0));
        assert!(account(&tally, Sink::default()).faults().is_empty());
        assert!(account(&tally, Sink { lost: 1, ..Sink::default() }).faults().is_empty());
    }
}
