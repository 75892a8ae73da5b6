//! How many events the kernel dropped for want of buffer space, from the
//! socket's own counter, and a buffer that grows when it happens.

use std::io;

use tracing::warn;

use super::socket::NetfilterSocket;
use super::{Settings, now_ns};
use crate::capture::RecordSink;
use crate::event::{Lost, Record};
use crate::stats::{Counter, Stats};

/// Watches the event socket's drop counter and grows its buffer.
pub(super) struct LossMeter {
    drops: u32,
    /// A loss is to be looked for when the queue is dry.
    suspected: bool,
    /// The kernel will not tell of overruns: look every time.
    silent: bool,
    requested: usize,
    /// The buffer as the kernel accounts it, bytes.
    pub(super) accounted: usize,
    maximum: usize,
    at_maximum: bool,
    stats: Stats,
}

impl LossMeter {
    pub(super) fn new(
        socket: &NetfilterSocket,
        settings: &Settings,
        stats: Stats,
    ) -> io::Result<Self> {
        Ok(Self {
            drops: socket.drops()?,
            suspected: false,
            silent: settings.reliable,
            requested: settings.buffer,
            accounted: socket.buffer()?,
            maximum: settings.buffer_max,
            at_maximum: false,
            stats,
        })
    }

    /// The kernel said that it dropped something.
    pub(super) fn overrun(&mut self, socket: &NetfilterSocket) {
        self.stats.add(Counter::NetlinkOverruns, 1);
        self.suspected = true;
        let wanted = self.requested.saturating_mul(2).min(self.maximum);
        if wanted > self.requested {
            match socket.set_buffer(wanted) {
                Ok(accounted) => {
                    self.requested = wanted;
                    self.accounted = accounted;
                    warn!("losing events: netlink buffer increased to {accounted} bytes");
                }
                Err(error) => warn!("the netlink buffer could not grow to {wanted}: {error}"),
            }
        } else if !self.at_maximum {
            self.at_maximum = true;
            warn!(
                "losing events: the netlink buffer is at its maximum of {} bytes; \
                 raise netlink_socket_buffer_maxsize",
                self.maximum
            );
        }
    }

    /// Puts what was dropped since the last call into the stream.
    pub(super) fn report(&mut self, socket: &NetfilterSocket, sink: &mut dyn RecordSink) {
        if !self.suspected && !self.silent {
            return;
        }
        let Ok(drops) = socket.drops() else { return };
        self.suspected = false;
        let events = u64::from(drops.wrapping_sub(self.drops));
        self.drops = drops;
        if events > 0 {
            self.stats.add(Counter::NetlinkLost, events);
            sink.record(Record::Lost(Lost::noticed("netlink", events, now_ns())));
        }
    }
}
