//! Messages → records, and a count of those that make no sense.

use tracing::warn;

use super::attr::{DecodeError, Message, Messages};
use super::decode::{self, Kind};
use super::socket::Datagram;
use crate::capture::RecordSink;
use crate::event::{Event, Kinds, Record};
use crate::flow::Flow;
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

/// Messages → records. Owns the one event that is refilled for each message.
pub struct Decoder {
    event: Event,
    stats: Stats,
    complaints: RateLimit,
}

impl Decoder {
    /// A decoder that counts into `stats`.
    pub fn new(stats: Stats) -> Self {
        let event = Event { kinds: Kinds::empty(), at: 0, flow: Flow::default() };
        Self { event, stats, complaints: RateLimit::per_second() }
    }

    pub(super) fn datagram(
        &mut self,
        datagram: &Datagram<'_>,
        now: u64,
        sink: &mut dyn RecordSink,
    ) {
        if datagram.cut {
            self.malformed(DecodeError::Cut);
        } else {
            self.messages(datagram.bytes, now, sink);
        }
    }

    /// Decodes the messages in `bytes`, which were received at `now`
    /// (nanoseconds since the epoch).
    pub fn messages(&mut self, bytes: &[u8], now: u64, sink: &mut dyn RecordSink) {
        for message in Messages::new(bytes) {
            if let Err(error) = message.and_then(|message| self.message(&message, now, sink)) {
                self.malformed(error);
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
                decode::flow(message, kinds, now, &mut self.event)?;
                sink.record(Record::Event(&self.event));
            }
            Kind::Expectation(action) => {
                sink.record(Record::Expectation(&decode::expectation(message, action)?, now));
            }
            Kind::Other => self.stats.add(Counter::NetlinkIgnored, 1),
        }
        Ok(())
    }

    /// Decodes an entry that a dump or a query told.
    pub(super) fn known(&mut self, message: &Message<'_>, now: u64, sink: &mut dyn RecordSink) {
        match decode::flow(message, Kinds::empty(), now, &mut self.event) {
            Ok(()) => sink.record(Record::Known(&self.event.flow, now)),
            Err(error) => self.malformed(error),
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
