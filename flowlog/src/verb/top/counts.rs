//! What is counted of events: of a source, a port, a process.

use std::ops::{Add, AddAssign, Sub};

use crate::event::{Event, Kinds};

/// Events, and the traffic of flows that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Beginnings of flows.
    pub(super) new: u64,
    /// Changes, of whatever kind.
    pub(super) update: u64,
    /// Ends.
    pub(super) destroy: u64,
    /// Packets of both directions of the flows that have ended.
    pub(super) packets: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Counts {
    /// Those of one event.
    pub(super) fn of(event: &Event) -> Self {
        let mut counts = Self::default();
        if event.kinds.contains(Kinds::DESTROY) {
            counts.destroy = 1;
            let [orig, reply] = event.flow.counters.unwrap_or_default();
            counts.packets = orig.packets.saturating_add(reply.packets);
            counts.bytes = orig.bytes.saturating_add(reply.bytes);
        } else if event.kinds.contains(Kinds::NEW) {
            counts.new = 1;
        } else {
            counts.update = 1;
        }
        counts
    }

    /// All events.
    pub(super) fn events(&self) -> u64 {
        self.new + self.update + self.destroy
    }

    fn with(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        // Taken apart, so that nobody forgets a new field.
        let Self { new, update, destroy, packets, bytes } = other;
        Self {
            new: f(self.new, new),
            update: f(self.update, update),
            destroy: f(self.destroy, destroy),
            packets: f(self.packets, packets),
            bytes: f(self.bytes, bytes),
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cause;
    use crate::verb::watch::tests::{ended, tcp};

    #[test]
    fn an_end_brings_the_traffic_of_its_flow() {
        let end = Counts::of(&ended(Cause::Deleted));
        assert_eq!(end, Counts { destroy: 1, packets: 10, bytes: 836, ..Counts::default() });
        let all = end + Counts::of(&tcp(Kinds::NEW)) + Counts::of(&tcp(Kinds::UPDATE));
        assert_eq!((all.events(), all.new, all.update), (3, 1, 1));
        assert_eq!(all - end, Counts { new: 1, update: 1, ..Counts::default() });
    }
}
