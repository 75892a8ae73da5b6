//! One turn of a capture that answers requests beside its events: dumps and
//! queries of the table. However many replies there are, a turn ends, so that
//! events of other sources, signals and scrapes get theirs.

use std::io;

use super::{Drained, Progress, RecordSink};

/// A capture whose replies are received apart from its events.
pub(super) trait Replying {
    /// Receives a reply, if one is waited for and none is held.
    fn receive_reply(&mut self);

    /// Takes what has happened, up to about `budget` messages.
    ///
    /// # Errors
    /// As for [`Capture::drain`](super::Capture::drain).
    fn drain_events(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress>;

    /// Hands on the reply that was received, or a failure; returns how many messages
    /// it had, or none where there was nothing.
    fn hand_on_reply(&mut self, sink: &mut dyn RecordSink) -> Option<usize>;
}

/// A reply tells the state of the moment at which it was received, or of one
/// before. So the events that came earlier go first: what they tell must not look
/// like old news because a dump has reported it already. Events and replies share the
/// budget.
///
/// # Errors
/// As for [`Capture::drain`](super::Capture::drain).
pub(super) fn drain(
    capture: &mut impl Replying,
    budget: usize,
    sink: &mut dyn RecordSink,
) -> io::Result<Progress> {
    let (mut messages, mut replies) = (0, 0);
    loop {
        capture.receive_reply();
        let events = capture.drain_events(budget, sink)?;
        messages += events.messages;
        if events.drained == Drained::More {
            return Ok(Progress { messages, drained: Drained::More });
        }
        let Some(answered) = capture.hand_on_reply(sink) else {
            return Ok(Progress { messages, drained: events.drained });
        };
        // One without messages took its time as well.
        replies += answered.max(1);
        if messages + replies >= budget {
            return Ok(Progress { messages, drained: Drained::More });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Record};

    /// A table in this number of datagrams, each of a hundred entries; an event comes with each.
    #[derive(Default)]
    struct Dumping {
        datagrams: usize,
        held: bool,
        events: usize,
    }

    impl Replying for Dumping {
        fn receive_reply(&mut self) {
            if !self.held && self.datagrams > 0 {
                self.datagrams -= 1;
                self.held = true;
                self.events += 1;
            }
        }

        fn drain_events(&mut self, _: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
            let messages = std::mem::take(&mut self.events);
            (0..messages).for_each(|_| sink.record(Record::Event(&Event::default())));
            Ok(Progress { messages, drained: Drained::Dry })
        }

        fn hand_on_reply(&mut self, sink: &mut dyn RecordSink) -> Option<usize> {
            let held = std::mem::take(&mut self.held);
            held.then(|| {
                sink.record(Record::QueryDone { complete: true });
                100
            })
        }
    }

    /// What was handed on: `e` for an event, `r` for a reply.
    #[derive(Default)]
    struct Order(String);

    impl RecordSink for Order {
        fn record(&mut self, record: Record<'_>) {
            self.0.push(if matches!(record, Record::Event(_)) { 'e' } else { 'r' });
        }
    }

    #[test]
    fn a_large_dump_takes_many_turns_and_events_go_before_its_replies() {
        let mut dump = Dumping { datagrams: 10_000, ..Dumping::default() };
        let mut order = Order::default();
        let first = drain(&mut dump, 4096, &mut order).unwrap();
        assert_eq!(first.drained, Drained::More);
        assert!(order.0.len() <= 2 * 41, "{} in one turn", order.0.len());
        let mut turns = 1;
        while drain(&mut dump, 4096, &mut order).unwrap().drained == Drained::More {
            turns += 1;
        }
        assert!(turns > 200, "{turns} turns");
        assert_eq!(order.0, "er".repeat(10_000));
    }

    #[test]
    fn a_small_one_ends_in_its_turn() {
        let mut dump = Dumping { datagrams: 2, ..Dumping::default() };
        let mut order = Order::default();
        let progress = drain(&mut dump, 4096, &mut order).unwrap();
        assert_eq!((progress.messages, progress.drained), (2, Drained::Dry));
        assert_eq!(order.0, "erer");
    }
}
