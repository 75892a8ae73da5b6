//! Records from recorded bytes: netlink messages one after the other, as they
//! were received. For tests without root, and for measuring without a kernel.

use std::io;
use std::os::fd::OwnedFd;

use super::netlink::{Decoder, now_ns};
use super::{Capture, Drained, Progress, RecordSink};
use crate::capture::netlink::attr::Messages;
use crate::stats::{Counter, Stats};

/// Replays a recording.
pub struct Replay {
    bytes: Vec<u8>,
    position: usize,
    decoder: Decoder,
    stats: Stats,
}

impl Replay {
    /// Replays `bytes`. When they have been read dry, it begins again.
    pub fn new(bytes: Vec<u8>, stats: Stats) -> Self {
        Self { bytes, position: 0, decoder: Decoder::new(stats.clone()), stats }
    }
}

impl Capture for Replay {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let now = now_ns();
        let rest = &self.bytes[self.position..];
        let mut messages = 0;
        let mut taken = 0;
        for (message, now) in Messages::new(rest).take(budget).zip(now..) {
            messages += 1;
            match message {
                Ok(message) => {
                    taken += message.bytes.len().next_multiple_of(4);
                    self.decoder.messages(message.bytes, now, sink);
                }
                // The decoder sees the wrong bytes too, and counts them.
                Err(_) => {
                    self.decoder.messages(&rest[taken.min(rest.len())..], now, sink);
                    taken = rest.len();
                }
            }
        }
        self.stats.add(Counter::NetlinkMessages, messages as u64);
        self.position += taken;
        if self.position < self.bytes.len() {
            return Ok(Progress { messages, drained: Drained::More });
        }
        self.position = 0;
        Ok(Progress { messages, drained: Drained::Dry })
    }

    fn queue_events(&self) -> usize {
        usize::MAX
    }
}
