//! What was last known of each entry of the table: so the lines of one flow get
//! one number, and each tells what was before it.

use hashbrown::HashMap;

use super::kind::Kind;
use crate::event::Event;
use crate::flow::names::STATUS;
use crate::flow::{Status, Tuple};
use crate::verb::watch::line::state_of;

/// Entries that are remembered at most: some 8 MiB. Of others nothing is known
/// but what their events tell themselves.
const MOST: usize = 1 << 16;

/// The entries that live, by address.
#[derive(Debug, Default)]
pub(super) struct Lives {
    living: HashMap<u64, Life>,
    /// Numbers given so far.
    numbers: u64,
    /// Flows that were not remembered.
    forgotten: u64,
}

/// What is remembered of a flow.
#[derive(Clone, Copy, Debug)]
struct Life {
    number: u64,
    orig: Tuple,
    at: u64,
    state: State,
}

/// State of a flow at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// As far as it has come: its protocol's state where that has any.
    pub(super) state: &'static str,
    /// Status bits.
    pub(super) status: Status,
}

impl State {
    pub(super) fn of(event: &Event) -> Self {
        Self { state: state_of(&event.flow), status: event.flow.status }
    }

    /// Status bits in conntrack's names.
    pub(super) fn bits(self) -> Vec<&'static str> {
        let set = STATUS.iter().filter(|(bit, _)| self.status.contains(*bit));
        set.map(|(_, name)| *name).collect()
    }
}

/// What is known of the flow of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Number of the flow; absent if it cannot be told from others.
    pub(super) flow: Option<u64>,
    /// State before the event, and the time since the last one, nanoseconds.
    pub(super) before: Option<(State, u64)>,
}

impl Lives {
    /// Learns from an event of the entry at this address.
    pub(super) fn of(&mut self, kind: Kind, entry: u64, event: &Event) -> Known {
        let now = Life { number: 0, orig: event.flow.orig, at: event.at, state: State::of(event) };
        let known = if kind == Kind::Destroy {
            self.living.remove(&entry)
        } else {
            self.living.get(&entry).copied()
        };
        // A beginning is that of another flow, whatever was there; and the end of
        // one may be missing.
        let known = known.filter(|known| kind != Kind::New && known.orig == event.flow.orig);
        let number = known.map(|known| known.number);
        if kind == Kind::Destroy {
            let flow = Some(number.unwrap_or_else(|| self.number()));
            return Known { flow, before: Self::before(known, event.at) };
        }
        if self.living.len() >= MOST && !self.living.contains_key(&entry) {
            self.forgotten += 1;
            return Known { flow: None, before: None };
        }
        let number = number.unwrap_or_else(|| self.number());
        self.living.insert(entry, Life { number, ..now });
        Known { flow: Some(number), before: Self::before(known, event.at) }
    }

    /// A number for a flow that never lives.
    pub(super) fn stillborn(&mut self) -> Known {
        Known { flow: Some(self.number()), before: None }
    }

    /// Events of flows that were not remembered, since this was last asked.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }

    fn before(known: Option<Life>, at: u64) -> Option<(State, u64)> {
        known.map(|known| (known.state, at.saturating_sub(known.at)))
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kinds;
    use crate::verb::watch::tests::tcp;

    fn event(l4_state: u8, status: Status, at: u64) -> Event {
        let mut event = tcp(Kinds::UPDATE);
        (event.flow.l4_state, event.flow.status, event.at) = (Some(l4_state), status, at);
        event
    }

    #[test]
    fn a_life_has_one_number_and_each_event_what_was_before() {
        let mut lives = Lives::default();
        let new = lives.of(Kind::New, 7, &event(1, Status::CONFIRMED, 100));
        assert_eq!(new, Known { flow: Some(1), before: None });
        let other = lives.of(Kind::New, 8, &event(1, Status::CONFIRMED, 120));
        assert_eq!(other.flow, Some(2));
        let both = Status::CONFIRMED | Status::SEEN_REPLY;
        let reply = lives.of(Kind::Update, 7, &event(2, both, 150));
        let before = State { state: "SYN_SENT", status: Status::CONFIRMED };
        assert_eq!(reply, Known { flow: Some(1), before: Some((before, 50)) });
        let end = lives.of(Kind::Destroy, 7, &event(7, both, 350));
        let before = State { state: "SYN_RECV", status: both };
        assert_eq!(end, Known { flow: Some(1), before: Some((before, 200)) });
        // The address is used again.
        let next = lives.of(Kind::Update, 7, &event(3, both, 400));
        assert_eq!(next, Known { flow: Some(3), before: None });
        assert_eq!(lives.stillborn().flow, Some(4));
    }

    #[test]
    fn an_end_that_is_missing_is_noticed() {
        let mut lives = Lives::default();
        lives.of(Kind::New, 7, &event(1, Status::CONFIRMED, 100));
        let mut other = event(3, Status::CONFIRMED, 200);
        other.flow.orig.src_l4 += 1;
        let known = lives.of(Kind::Destroy, 7, &other);
        assert_eq!(known, Known { flow: Some(2), before: None });
        lives.of(Kind::New, 7, &other);
        let again = lives.of(Kind::New, 7, &other);
        assert_eq!(again, Known { flow: Some(4), before: None });
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut lives = Lives::default();
        let new = event(1, Status::CONFIRMED, 1);
        for entry in 0..MOST as u64 {
            lives.of(Kind::New, entry, &new);
        }
        let known = lives.of(Kind::New, MOST as u64, &new);
        assert_eq!((known.flow, lives.take_forgotten()), (None, 1));
        assert!(lives.of(Kind::Update, 5, &new).before.is_some());
        assert_eq!((lives.living.len(), lives.take_forgotten()), (MOST, 0));
    }
}
