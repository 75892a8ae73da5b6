//! Records → whoever takes them. Owns the events, which are refilled again and
//! again, some ahead of being handed on: whoever takes them can fetch from
//! memory what several of them need at the same time.

use tracing::warn;

use super::clock::Clock;
use super::decode::{Decoder, Malformed, Told};
use super::spoil::Spoil;
use super::witness::WitnessSink;
use crate::capture::RecordSink;
use crate::event::{Event, Record};
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

/// Events decoded before the first of them is handed on.
const AHEAD: usize = 32;

/// Decodes records and hands on what they tell.
pub(super) struct Reader {
    decoder: Decoder,
    events: Box<[Event; AHEAD]>,
    /// Events that are decoded and not yet handed on.
    filled: usize,
    /// Records that could not be decoded, and that nobody has asked for yet.
    malformed: u64,
    complaints: RateLimit,
    stats: Stats,
}

impl Reader {
    pub(super) fn new(decoder: Decoder, stats: Stats) -> Self {
        Self {
            decoder,
            events: Box::new(std::array::from_fn(|_| Event::default())),
            filled: 0,
            malformed: 0,
            complaints: RateLimit::per_second(),
            stats,
        }
    }

    /// Takes a record. What it tells is handed on with some that follow, or by
    /// [`Reader::hand_on`].
    #[inline]
    pub(super) fn take(&mut self, record: &[u8], clock: Clock, sink: &mut dyn RecordSink) {
        match self.decoder.decode(record, clock, &mut self.events[self.filled]) {
            Ok(Told::Event(_)) => {
                self.filled += 1;
                if self.filled == AHEAD {
                    self.hand_on(sink);
                }
            }
            Ok(Told::Expectation(expectation, at, _)) => {
                self.hand_on(sink);
                sink.record(Record::Expectation(&expectation, at));
            }
            // Left over from a comparison that has ended.
            Ok(Told::Notice(_)) => {}
            Err(error) => self.malformed(error),
        }
    }

    /// Hands on what has been taken.
    pub(super) fn hand_on(&mut self, sink: &mut dyn RecordSink) {
        let events = &self.events[..std::mem::take(&mut self.filled)];
        sink.announce(events);
        for event in events {
            sink.record(Record::Event(event));
        }
    }

    /// Takes a record and tells it at once, with what a cross-check must know.
    pub(super) fn tell(
        &mut self,
        record: &[u8],
        clock: Clock,
        spoil: Option<&mut Spoil>,
        sink: &mut dyn WitnessSink,
    ) {
        // Whatever is filled has been handed on.
        let event = &mut self.events[0];
        match self.decoder.decode(record, clock, event) {
            Ok(Told::Event(origin)) => {
                if spoil.is_none_or(|spoil| spoil.passes(event)) {
                    sink.event(event, origin);
                }
            }
            Ok(Told::Expectation(expectation, at, origin)) => {
                sink.expectation(&expectation, at, origin);
            }
            Ok(Told::Notice(notice)) => sink.notice(&notice),
            Err(error) => self.malformed(error),
        }
    }

    /// How many records could not be decoded since this was last asked.
    pub(super) fn take_malformed(&mut self) -> u64 {
        std::mem::take(&mut self.malformed)
    }

    /// What decodes, and an event to decode into: there is one between two calls.
    pub(super) fn decoder(&mut self) -> (Decoder, &mut Event) {
        (self.decoder, &mut self.events[0])
    }

    pub(super) fn malformed(&mut self, error: Malformed) {
        self.malformed += 1;
        self.stats.add(Counter::EbpfMalformed, 1);
        if self.complaints.allow() {
            let total = self.stats.get(Counter::EbpfMalformed);
            warn!("a record of the eBPF programs could not be decoded: {error} ({total} so far)");
        }
    }
}
