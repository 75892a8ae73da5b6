//! What the programs count, and what of it is new: losses become records, the
//! rest becomes the daemon's counters.

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use flowlog_ebpf::{RawCounts, kind};

use crate::stats::{Counter, Stats};

/// As the kernel keeps it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PerCpu(RawCounts);

#[expect(unsafe_code, reason = "aya's trait for plain data is an unsafe one")]
// SAFETY: `RawCounts` is plain data (`bytemuck::Pod`), and this is nothing else.
unsafe impl aya::Pod for PerCpu {}

/// The losses of kinds, with the daemon's counter for each.
const LOST: [(u8, Counter); kind::COUNT - 1] = [
    (kind::NEW, Counter::EbpfLostNew),
    (kind::UPDATE, Counter::EbpfLostUpdate),
    (kind::DESTROY, Counter::EbpfLostDestroy),
    (kind::EXPECT_NEW, Counter::EbpfLostExpect),
    (kind::EXPECT_DESTROY, Counter::EbpfLostExpect),
];

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
    /// Events that found no room in the ring.
    pub(super) lost: u64,
    /// Where: processor and number.
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
            by_processor.push(counts.lost.iter().sum());
        }
        let last = std::mem::replace(&mut self.last, now);
        for (kind, counter) in LOST {
            let kind = usize::from(kind);
            self.stats.add(counter, now.lost[kind].wrapping_sub(last.lost[kind]));
        }
        for (counter, now, last) in [
            (Counter::EbpfFilteredNetns, now.filtered_netns, last.filtered_netns),
            (Counter::EbpfFilteredFlows, now.filtered_flows, last.filtered_flows),
            (Counter::EbpfFilteredKinds, now.filtered_kinds, last.filtered_kinds),
            (Counter::EbpfFaults, now.faults, last.faults),
        ] {
            self.stats.add(counter, now.wrapping_sub(last));
        }
        let sum = |counts: &RawCounts| counts.lost.iter().sum::<u64>();
        let lost_by_processor =
            by_processor.into_iter().enumerate().filter(|(_, lost)| *lost > 0).collect();
        Ok(News { lost: sum(&now) - sum(&last), lost_by_processor })
    }

    /// Flows that entered and that left the table of the counted namespace.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.last.counted_new, self.last.counted_destroyed)
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
