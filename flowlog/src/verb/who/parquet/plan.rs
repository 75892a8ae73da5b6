//! Which row groups can have an answer, by what the file's end tells of them.
//!
//! A flow has a record of its end: so a flow that was alive at a time is looked
//! for in all row groups from then on, and is in those that have a `start` before
//! it. Where there are records of other events too, a flow may have begun and
//! never have ended: these row groups are looked at also if they are of earlier
//! times, and then so are the ends between them and that time. And where an end
//! knows no start, there may be a record of the beginning, also one of later.

use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::super::question::Question;
use crate::archive::schema;

/// Address and port of each end.
pub(super) const END: [(&str, &str); 4] = [
    ("orig_src", "orig_sport"),
    ("orig_dst", "orig_dport"),
    ("nat_src", "nat_sport"),
    ("nat_dst", "nat_dport"),
];

/// What is to be looked for in a row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Search {
    /// Flows.
    Flows {
        /// The row group.
        group: usize,
        /// In these columns of [`END`].
        end: usize,
        /// Records from then on.
        from: u64,
        /// Flows that began up to then.
        begun: u64,
        /// All its records are of ends, the last one at this moment.
        ended: Option<u64>,
    },
    /// Losses.
    Losses {
        /// The row group.
        group: usize,
    },
}

impl Search {
    pub(super) fn group(&self) -> usize {
        let (Self::Flows { group, .. } | Self::Losses { group }) = self;
        *group
    }
}

/// What is to be looked for in a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) searches: Vec<Search>,
    /// Since when there are records that are not of ends, and what they are of.
    pub(in super::super) told: Told,
}

/// What is known of all row groups that may have an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Told {
    /// When the first of the records was made that are not of ends.
    first_other: Option<u64>,
    /// There are records of which the flow's start is not known.
    unknown_starts: bool,
}

impl Told {
    /// What is known of both.
    pub(in super::super) fn and(self, other: Self) -> Self {
        Self {
            first_other: self.first_other.into_iter().chain(other.first_other).min(),
            unknown_starts: self.unknown_starts || other.unknown_starts,
        }
    }
}

impl Plan {
    pub(super) fn new(metadata: &ParquetMetaData, question: &Question, lost: bool) -> Self {
        let mut plan = Self::default();
        for (group, about) in metadata.row_groups().iter().enumerate() {
            let group_of = Group(about);
            if lost && group_of.may_have_losses(question) {
                plan.searches.push(Search::Losses { group });
            }
            let ended = group_of.ended();
            let (from, begun) = (0, group_of.begun());
            let ends = (0..END.len()).filter(|end| group_of.may_have(question, END[*end]));
            let before = plan.searches.len();
            plan.searches.extend(ends.map(|end| Search::Flows { group, end, from, begun, ended }));
            if plan.searches.len() > before {
                plan.told = plan.told.and(group_of.told());
            }
        }
        plan
    }

    /// Leaves out what is not looked at, by what is known of all files.
    pub(super) fn narrow(&mut self, question: &Question, told: Told) {
        let (first, latest) = (question.span.first, question.span.latest_start());
        let since = told.first_other.map_or(first, |other| other.min(first));
        // Records of later tell that a flow was not alive yet, and of which one they are.
        let latest =
            if told.unknown_starts && told.first_other.is_some() { u64::MAX } else { latest };
        self.searches.retain_mut(|search| match search {
            Search::Flows { from, begun, ended, .. } => {
                let is_old = std::mem::replace(begun, latest) <= latest;
                *from = ended.map_or(0, |_| since);
                is_old && ended.is_none_or(|ended| ended >= since)
            }
            Search::Losses { .. } => true,
        });
    }
}

struct Group<'m>(&'m RowGroupMetaData);

impl<'m> Group<'m> {
    fn statistics(&self, column: &str) -> Option<&'m Statistics> {
        let mut columns = self.0.columns().iter();
        columns.find(|chunk| chunk.column_descr().name() == column)?.statistics()
    }

    /// The least and the greatest time of a column that has no nulls.
    fn times(&self, column: &str) -> Option<(u64, u64)> {
        match self.statistics(column)? {
            Statistics::Int64(times) if times.null_count_opt() == Some(0) => {
                Some((*times.min_opt()? as u64, *times.max_opt()? as u64))
            }
            _ => None,
        }
    }

    /// When the first of its flows began, as far as that is known.
    fn begun(&self) -> u64 {
        self.times("start").map_or(0, |(earliest, _)| earliest)
    }

    fn told(&self) -> Told {
        let nulls = |column| self.statistics(column).and_then(Statistics::null_count_opt);
        let first = self.times("time").map_or(0, |(first, _)| first);
        Told {
            first_other: (!self.has_ends_only()).then_some(first),
            // Each flow has a status, and nothing else has.
            unknown_starts: nulls("start").zip(nulls("status")).is_none_or(|(a, b)| a > b),
        }
    }

    /// When the last of its records was made, if all are of ends.
    fn ended(&self) -> Option<u64> {
        let latest = self.times("time").map_or(u64::MAX, |(_, latest)| latest);
        self.has_ends_only().then_some(latest)
    }

    /// All kinds lie between the least and the greatest: those that tell that a
    /// flow lives are before `destroy` or behind `lost`. All but `helper`, which
    /// stands alone if neither beginnings nor changes are asked for.
    fn has_ends_only(&self) -> bool {
        let Some(Statistics::ByteArray(kinds)) = self.statistics("kind") else { return false };
        let is_other = |kind: Option<&[u8]>| {
            let all: [&[u8]; 4] = [b"destroy", b"expect", b"gc", b"lost"];
            kind.is_some_and(|kind| all.iter().any(|known| kind.starts_with(known)))
        };
        is_other(kinds.min_bytes_opt()) && is_other(kinds.max_bytes_opt())
    }

    fn may_have(&self, question: &Question, (address, port): (&str, &str)) -> bool {
        let wanted = &question.wanted;
        self.may_have_text(address, &wanted.text())
            && wanted.port.is_none_or(|wanted| self.may_have_number(port, wanted.into()))
            && question
                .protocol
                .is_none_or(|wanted| self.may_have_number("protocol", wanted.into()))
    }

    fn may_have_text(&self, column: &str, wanted: &str) -> bool {
        let Some(Statistics::ByteArray(known)) = self.statistics(column) else { return true };
        // What is cut is cut to something less, or something greater.
        !self.is_null(known.null_count_opt())
            && known.min_bytes_opt().is_none_or(|least| least <= wanted.as_bytes())
            && known.max_bytes_opt().is_none_or(|greatest| greatest >= wanted.as_bytes())
    }

    fn may_have_number(&self, column: &str, wanted: i32) -> bool {
        let Some(Statistics::Int32(known)) = self.statistics(column) else { return true };
        !self.is_null(known.null_count_opt())
            && known.min_opt().is_none_or(|least| *least <= wanted)
            && known.max_opt().is_none_or(|greatest| *greatest >= wanted)
    }

    fn is_null(&self, nulls: Option<u64>) -> bool {
        nulls.is_some_and(|nulls| nulls >= self.0.num_rows() as u64)
    }

    fn may_have_losses(&self, question: &Question) -> bool {
        let (earliest, latest) = self.times("time").unwrap_or((0, u64::MAX));
        let nulls = self.statistics("lost_events").and_then(Statistics::null_count_opt);
        !self.is_null(nulls)
            && earliest <= question.span.last
            && latest >= question.span.first
            && self.may_have_text("kind", schema::LOST)
    }
}
