//! IPFIX: flows as data records to a collector, over UDP or TCP (RFC 7011), with
//! the counters of both directions in one record (RFC 5103), and NAT events as RFC
//! 8158 has them.

pub use self::message::Refresh;
pub use self::transport::Protocol;

use self::client::Collector;
use self::record::{FlowRecord, Losses};
use super::output::Address;
use super::record_id::RecordId;
use super::ship::{Encode, Shipped, Shipping, Start};
use super::{Body, Item, Scratch};

mod client;
mod message;
mod moves;
mod record;
mod template;
mod transport;

/// How records wait in the spool. Another number: the templates are others.
pub const ENCODING: &str = "ipfix 1";

/// How IPFIX is to send.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all sinks that ship have.
    pub shipping: Shipping,
    /// The collector: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How to reach it.
    pub protocol: Protocol,
    /// The observation domain.
    pub domain: u32,
    /// How long a message over UDP may be, bytes.
    pub mtu: usize,
    /// When templates are told again; absent: a connection is told each once.
    pub refresh: Option<Refresh>,
    /// Beginning and end of translated flows are NAT events too.
    pub nat_events: bool,
}

impl Settings {
    /// The collector.
    pub fn collector(&self) -> Address {
        let make = match self.protocol {
            Protocol::Tcp | Protocol::Tls(_) => Address::Tcp,
            Protocol::Udp => Address::Udp,
        };
        make(self.host.clone(), self.port)
    }
}

/// Prepares the sink.
pub fn open(start: &Start<'_>, settings: &Settings) -> Shipped {
    Shipped::open::<Collector>(start, Encoder::new(settings), settings.clone())
}

/// Items → data records.
struct Encoder {
    nat_events: bool,
    losses: Losses,
    /// Number of the exporting process, which counts losses from its start on.
    process: u32,
}

impl Encoder {
    fn new(settings: &Settings) -> Self {
        let process = std::process::id();
        Self { nat_events: settings.nat_events, losses: Losses::default(), process }
    }
}

impl Encode for Encoder {
    fn encode(&mut self, item: &Item<'_>, _: RecordId, _: &Scratch, out: &mut Vec<u8>) -> bool {
        let Self { nat_events, losses, process } = self;
        match item.body {
            Body::Flow { flow, start, end, how, counted: _, witness: _ } => {
                let (tag, at, nat_events) = (item.tag, item.at, *nat_events);
                FlowRecord { flow, tag, at, start, end, how, nat_events }.write(out);
            }
            Body::Lost(lost) => {
                losses.add(lost.events, item.at);
                losses.write(*process, out);
            }
            // IPFIX has no words for them.
            Body::Expectation(_) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests;
