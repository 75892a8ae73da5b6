//! Times for which a sink does not have every record, so that an archive can state them.
//!
//! A sink adds what it lost; whoever writes the archive takes the spans and stores them. What
//! is added between two takes is merged, so the memory for it is bounded.

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// They never reached the archive's writer.
    Lost,
    /// They left the spool because it was full.
    Dropped,
    /// The destination does not take them.
    Refused,
    /// They were written, and may not be on disk.
    Unsure,
}

impl GapKind {
    /// Its name in archives.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unsure => "unsure",
        }
    }
}

/// Records that are missing, and when they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub kind: GapKind,
    /// Where they were lost: a source, or a bound.
    pub detail: &'static str,
    /// The time of the first, nanoseconds since the epoch.
    pub since: u64,
    /// The time of the last.
    pub until: u64,
    /// How many.
    pub records: u64,
}

/// Gaps that nobody has taken yet: at most one of each kind and detail.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// Adds a gap.
    pub fn add(&mut self, gap: Gap) {
        let same = |one: &&mut Gap| one.kind == gap.kind && one.detail == gap.detail;
        match self.0.iter_mut().find(same) {
            Some(known) => {
                known.since = known.since.min(gap.since);
                known.until = known.until.max(gap.until);
                known.records += gap.records;
            }
            None => self.0.push(gap),
        }
    }

    /// Takes all of them.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Adds all of another.
    pub fn append(&mut self, other: Self) {
        other.0.into_iter().for_each(|gap| self.add(gap));
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_a_kind_become_one() {
        let gap = Gap { kind: GapKind::Lost, detail: "ebpf", since: 5, until: 6, records: 2 };
        let mut gaps = Gaps::default();
        gaps.add(gap);
        gaps.add(Gap { since: 3, until: 4, records: 1, ..gap });
        gaps.add(Gap { detail: "netlink", ..gap });
        gaps.add(Gap { kind: GapKind::Refused, ..gap });
        let taken = gaps.take();
        assert!(gaps.is_empty());
        assert_eq!(taken.iter().count(), 3);
        assert_eq!(taken.iter().next(), Some(&Gap { since: 3, until: 6, records: 3, ..gap }));
        gaps.append(taken);
        assert_eq!(gaps.iter().count(), 3);
    }
}
