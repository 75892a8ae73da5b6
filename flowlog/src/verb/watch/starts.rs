//! When flows began that tell no start themselves (`nf_conntrack_timestamp=0`),
//! from the beginnings that were seen.

use hashbrown::HashMap;

use crate::event::{Event, Kinds};
use crate::flow::{Flow, Status, Tuple};

/// Flows that are remembered at most: some 8 MiB. Of others no duration is
/// told.
const MOST: usize = 1 << 16;

/// The beginnings that were seen.
#[derive(Debug, Default)]
pub(super) struct Starts(HashMap<Key, u64>);

/// What tells flows apart that live at the same time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key(Tuple, u16, u32);

impl Key {
    fn new(flow: &Flow) -> Self {
        Self(flow.orig, flow.zone, flow.tie_breaker())
    }
}

impl Starts {
    /// Learns from an event, and tells when its flow began if that is known.
    pub(super) fn of(&mut self, event: &Event) -> Option<u64> {
        let Event { kinds, at, flow, .. } = event;
        if flow.status.contains(Status::NAT_CLASH) {
            // What is remembered under its key is another flow.
            return flow.start;
        }
        let remembered = if kinds.contains(Kinds::DESTROY) {
            // Where the kernel tells starts, nothing has to be looked for.
            if self.0.is_empty() { None } else { self.0.remove(&Key::new(flow)) }
        } else if flow.start.is_none() && kinds.contains(Kinds::NEW) && self.0.len() < MOST {
            self.0.insert(Key::new(flow), *at);
            None
        } else {
            None
        };
        flow.start.or(remembered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kinds: Kinds, port: u32, at: u64) -> Event {
        let orig = Tuple { src_l4: port as u16, dst_l4: (port >> 16) as u16, ..Tuple::default() };
        Event { kinds, at, flow: Flow { orig, ..Flow::default() }, ..Event::default() }
    }

    #[test]
    fn an_end_knows_the_beginning_that_was_seen_once() {
        let mut starts = Starts::default();
        assert_eq!(starts.of(&event(Kinds::NEW, 1, 100)), None);
        assert_eq!(starts.of(&event(Kinds::UPDATE, 1, 150)), None);
        assert_eq!(starts.of(&event(Kinds::DESTROY, 2, 200)), None);
        assert_eq!(starts.of(&event(Kinds::DESTROY, 1, 200)), Some(100));
        assert_eq!(starts.of(&event(Kinds::DESTROY, 1, 300)), None);
    }

    #[test]
    fn what_the_kernel_tells_is_believed_and_not_kept() {
        let mut starts = Starts::default();
        let mut told = event(Kinds::NEW, 1, 100);
        told.flow.start = Some(90);
        assert_eq!(starts.of(&told), Some(90));
        assert!(starts.0.is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut starts = Starts::default();
        for port in 0..=MOST as u32 {
            starts.of(&event(Kinds::NEW, port, 1));
        }
        assert_eq!(starts.0.len(), MOST);
        assert_eq!(starts.of(&event(Kinds::DESTROY, 5, 2)), Some(1));
        assert_eq!(starts.of(&event(Kinds::DESTROY, MOST as u32, 2)), None);
    }

    #[test]
    fn what_lost_a_clash_takes_no_start_of_the_winner() {
        let mut starts = Starts::default();
        assert_eq!(starts.of(&event(Kinds::NEW, 1, 100)), None);
        let mut loser = event(Kinds::DESTROY, 1, 150);
        loser.flow.status = Status::CONFIRMED | Status::NAT_CLASH;
        assert_eq!(starts.of(&loser), None);
        assert_eq!(starts.of(&event(Kinds::DESTROY, 1, 200)), Some(100));
    }
}
