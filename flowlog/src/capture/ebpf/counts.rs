//! What the programs count, and what of it is new: losses become records, the
//! rest becomes the daemon's counters.

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use flowlog_ebpf::{RawCounts, kind};

use super::witness::Losses;
use crate::stats::{Counter, Stats};

/// As the kernel keeps it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PerCpu(RawCounts);

#[expect(unsafe_code, reason = "aya's trait for plain data is an unsafe one")]
// SAFETY: `RawCounts` is plain data (`bytemuck::Pod`), and this is nothing else.
unsafe impl aya::Pod for PerCpu {}

/// The counts so far.
pub(super) struct Counts {
    map: PerCpuArray<MapData, PerCpu>,
    /// Sums over all processors, when they were last read.
    last: RawCounts,
    stats: Stats,
}

/// What is new since the last reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// What found no room in the ring, and faults.
    pub(super) losses: Losses,
    /// Where events were lost, since the start: processor and number.
    pub(super) lost_by_processor: Vec<(usize, u64)>,
}

impl Counts {
    /// The counts in a map of the programs.
    ///
    /// # Errors
    /// It is another kind of map.
    pub(super) fn new(map: Map, stats: Stats) -> Result<Self, MapError> {
        Ok(Self { map: PerCpuArray::try_from(map)?, last: RawCounts::default(), stats })
    }

    /// Reads the counts and adds what is new to the daemon's.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(super) fn read(&mut self) -> Result<News, MapError> {
        let processors = self.map.get(&0, 0)?;
        let mut now = RawCounts::default();
        let mut by_processor: Vec<u64> = Vec::new();
        for PerCpu(counts) in processors.iter() {
            add(&mut now, counts);
            by_processor.push(Losses::from(counts).events());
        }
        let last = std::mem::replace(&mut self.last, now);
        let losses = Losses::from(&now) - Losses::from(&last);
        for (counter, new) in [
            (Counter::EbpfLostNew, losses.new),
            (Counter::EbpfLostUpdate, losses.update),
            (Counter::EbpfLostDestroy, losses.destroy),
            (Counter::EbpfLostExpect, losses.expect),
            (Counter::EbpfLostNotices, losses.notices),
            (Counter::EbpfFaults, losses.faults),
            (Counter::EbpfFilteredNetns, now.filtered_netns.wrapping_sub(last.filtered_netns)),
            (Counter::EbpfFilteredFlows, now.filtered_flows.wrapping_sub(last.filtered_flows)),
            (Counter::EbpfFilteredKinds, now.filtered_kinds.wrapping_sub(last.filtered_kinds)),
        ] {
            self.stats.add(counter, new);
        }
        let lost_by_processor =
            by_processor.into_iter().enumerate().filter(|(_, lost)| *lost > 0).collect();
        Ok(News { losses, lost_by_processor })
    }

    /// Flows that entered and that left the table of the counted namespace.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.last.counted_new, self.last.counted_destroyed)
    }
}

impl From<&RawCounts> for Losses {
    fn from(counts: &RawCounts) -> Self {
        let lost = |kind: u8| counts.lost[usize::from(kind)];
        Self {
            new: lost(kind::NEW),
            update: lost(kind::UPDATE),
            destroy: lost(kind::DESTROY),
            expect: lost(kind::EXPECT_NEW) + lost(kind::EXPECT_DESTROY),
            refused: lost(kind::REFUSED) + lost(kind::UNALLOCATED),
            notices: lost(kind::NOTICE),
            faults: counts.faults,
            // Not counted by the programs.
            missed: 0,
            malformed: 0,
        }
    }
}

fn add(sum: &mut RawCounts, counts: &RawCounts) {
    // Taken apart, so that nobody forgets a new field.
    let RawCounts {
        lost,
        filtered_netns,
        filtered_flows,
        filtered_kinds,
        faults,
        counted_new,
        counted_destroyed,
    } = counts;
    for (sum, lost) in sum.lost.iter_mut().zip(lost) {
        *sum += lost;
    }
    sum.filtered_netns += filtered_netns;
    sum.filtered_flows += filtered_flows;
    sum.filtered_kinds += filtered_kinds;
    sum.faults += faults;
    sum.counted_new += counted_new;
    sum.counted_destroyed += counted_destroyed;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_no_events() {
        let mut counts = RawCounts::default();
        for (kind, lost) in counts.lost.iter_mut().enumerate() {
            *lost = 1 << kind;
        }
        counts.faults = 5;
        let losses = Losses::from(&counts);
        assert_eq!((losses.new, losses.update, losses.destroy, losses.expect), (2, 4, 8, 16 + 32));
        assert_eq!((losses.notices, losses.faults), (64, 5));
        assert_eq!(losses.refused, 128 + 256);
        assert_eq!(losses.events(), 2 + 4 + 8 + 16 + 32 + 128 + 256);
    }
}
