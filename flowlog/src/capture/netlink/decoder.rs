//! Messages → records; those that make no sense are counted, and are a loss.

use tracing::warn;

use super::attr::{DecodeError, Message, Messages};
use super::decode::{self, Kind};
use super::socket::Datagram;
use crate::capture::RecordSink;
use crate::event::{Event, Kinds, Lost, Record};
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

/// Events decoded before the first of them is handed on.
const AHEAD: usize = 32;
/// What loses the events of messages that cannot be decoded.
const UNDECODED: &str = "netlink_malformed";

/// Messages → records. Owns the events, which are refilled again and again.
///
/// Events are decoded some ahead of being handed on, so that whoever takes
/// them can fetch from memory what several of them need at the same time.
pub struct Decoder {
    events: Box<[Event; AHEAD]>,
    /// Events that are decoded and not yet handed on.
    filled: usize,
    /// Messages that could not be decoded, and are not reported as lost yet.
    undecoded: u64,
    stats: Stats,
    complaints: RateLimit,
}

impl Decoder {
    /// A decoder that counts into `stats`.
    pub fn new(stats: Stats) -> Self {
        Self {
            events: Box::new(std::array::from_fn(|_| Event::default())),
            filled: 0,
            undecoded: 0,
            stats,
            complaints: RateLimit::per_second(),
        }
    }

    /// Decodes datagrams that were received at `now` (nanoseconds since the
    /// epoch), and hands everything on. Where the kernel tells no time each has
    /// one of its own, a nanosecond after the one before: so they stay in order
    /// wherever they are sorted, and no two records of a flow have the same.
    pub(super) fn datagrams<'a>(
        &mut self,
        datagrams: impl Iterator<Item = Datagram<'a>>,
        now: u64,
        sink: &mut dyn RecordSink,
    ) {
        for (datagram, now) in datagrams.zip(now..) {
            if datagram.cut {
                self.undecoded(DecodeError::Cut);
            } else {
                self.decode(datagram.bytes, now, sink);
            }
        }
        self.end(now, sink);
    }

    /// The same for messages one after the other.
    pub fn messages(&mut self, bytes: &[u8], now: u64, sink: &mut dyn RecordSink) {
        self.decode(bytes, now, sink);
        self.end(now, sink);
    }

    /// Hands on what is left, and behind it what could not be decoded.
    fn end(&mut self, now: u64, sink: &mut dyn RecordSink) {
        self.hand_on(sink);
        let events = std::mem::take(&mut self.undecoded);
        if events > 0 {
            sink.record(Record::Lost(Lost::noticed(UNDECODED, events, now)));
        }
    }

    #[cold]
    fn undecoded(&mut self, error: DecodeError) {
        self.undecoded += 1;
        self.malformed(error);
    }

    fn decode(&mut self, bytes: &[u8], now: u64, sink: &mut dyn RecordSink) {
        for message in Messages::new(bytes) {
            if let Err(error) = message.and_then(|message| self.message(&message, now, sink)) {
                self.undecoded(error);
            }
        }
    }

    #[inline]
    fn message(
        &mut self,
        message: &Message<'_>,
        now: u64,
        sink: &mut dyn RecordSink,
    ) -> Result<(), DecodeError> {
        match decode::kind(message) {
            Kind::Flow(kinds) => {
                decode::flow(message, kinds, now, &mut self.events[self.filled])?;
                self.filled += 1;
                if self.filled == AHEAD {
                    self.hand_on(sink);
                }
            }
            Kind::Expectation(action) => {
                let expectation = decode::expectation(message, action)?;
                self.hand_on(sink);
                sink.record(Record::Expectation(&expectation, now));
            }
            Kind::Other => self.stats.add(Counter::NetlinkIgnored, 1),
        }
        Ok(())
    }

    fn hand_on(&mut self, sink: &mut dyn RecordSink) {
        let events = &self.events[..std::mem::take(&mut self.filled)];
        sink.announce(events);
        for event in events {
            sink.record(Record::Event(event));
        }
    }

    /// Decodes an entry of a dump or a query; returns whether that was possible.
    pub(super) fn known(
        &mut self,
        message: &Message<'_>,
        now: u64,
        sink: &mut dyn RecordSink,
    ) -> bool {
        let event = &mut self.events[0];
        match decode::flow(message, Kinds::empty(), now, event) {
            Ok(()) => {
                sink.record(Record::Known(&event.flow, now));
                true
            }
            Err(error) => {
                self.malformed(error);
                false
            }
        }
    }

    pub(super) fn malformed(&mut self, error: DecodeError) {
        self.stats.add(Counter::NetlinkMalformed, 1);
        if self.complaints.allow() {
            let total = self.stats.get(Counter::NetlinkMalformed);
            warn!("a netlink message could not be decoded: {error} ({total} so far)");
        }
    }
}
