//! Events dropped or altered on purpose: a test setting, by which tests see that a
//! cross-check finds what is missing and what differs. `FLOWLOG_SPOIL=drop:N`
//! drops each Nth event of the daemon's own namespace as if the ring had never
//! had it; `FLOWLOG_SPOIL=alter:N` changes its mark and the source port of its
//! reply tuple. Only what is told to a cross-check is spoilt.

use tracing::warn;

use crate::event::Event;

/// The environment variable.
const NAME: &str = "FLOWLOG_SPOIL";

/// What is done to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Drop,
    Alter,
}

/// Spoils events, and says in the end how many.
#[derive(Debug)]
pub(super) struct Spoil {
    how: How,
    /// Each so manieth event.
    every: u64,
    netns: u32,
    seen: u64,
    spoilt: u64,
}

impl Spoil {
    /// What the environment wants, in the namespace of this inode number.
    pub(super) fn wanted(netns: u32) -> Option<Self> {
        let text = std::env::var(NAME).ok()?;
        let wanted = Self::parse(&text, netns);
        if wanted.is_none() {
            warn!("{NAME}={text} is neither drop:N nor alter:N");
        }
        wanted
    }

    fn parse(text: &str, netns: u32) -> Option<Self> {
        let (how, every) = text.split_once(':')?;
        let how = match how {
            "drop" => How::Drop,
            "alter" => How::Alter,
            _ => return None,
        };
        let every = every.parse().ok().filter(|every| *every > 0)?;
        Some(Self { how, every, netns, seen: 0, spoilt: 0 })
    }

    /// Whether the event is to be told, altered or not.
    pub(super) fn passes(&mut self, event: &mut Event) -> bool {
        if event.flow.netns.is_none_or(|netns| netns.inum != self.netns) {
            return true;
        }
        self.seen += 1;
        if !self.seen.is_multiple_of(self.every) {
            return true;
        }
        self.spoilt += 1;
        if self.how == How::Alter {
            event.flow.mark ^= 1;
            event.flow.reply.src_l4 ^= 1;
        }
        self.how == How::Alter
    }
}

impl Drop for Spoil {
    fn drop(&mut self) {
        let done = match self.how {
            How::Drop => "dropped",
            How::Alter => "altered",
        };
        warn!("{NAME} has {done} {} events", self.spoilt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Flow, Netns};

    fn event(inum: u32) -> Event {
        let flow = Flow { netns: Some(Netns { cookie: None, inum }), ..Flow::default() };
        Event { flow, ..Event::default() }
    }

    #[test]
    fn each_third_event_of_the_namespace_is_dropped() {
        let mut spoil = Spoil::parse("drop:3", 7).unwrap();
        assert!((0..9).all(|_| spoil.passes(&mut event(8))), "of another namespace");
        let told = (0..9).filter(|_| spoil.passes(&mut event(7))).count();
        assert_eq!((told, spoil.spoilt), (6, 3));
    }

    #[test]
    fn an_altered_event_is_told() {
        let mut spoil = Spoil::parse("alter:1", 7).unwrap();
        let mut altered = event(7);
        assert!(spoil.passes(&mut altered));
        assert_eq!((altered.flow.mark, altered.flow.reply.src_l4), (1, 1));
    }

    #[test]
    fn what_is_no_setting_is_none() {
        for wrong in ["", "drop", "drop:0", "drop:x", "lose:1"] {
            assert!(Spoil::parse(wrong, 7).is_none(), "{wrong}");
        }
    }
}
