//! One packet as Ethernet has it. The header of IPv4 is whole; of the rest only what conntrack
//! looks at is right, which here are no checksums.

use std::net::IpAddr;

use anyhow::{Result, bail};

use crate::packet::{internet_checksum, protocol};
use crate::traffic::Tuple;

/// Flags of a TCP header.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// The first sequence number of either side.
const FIRST_SEQUENCE: u32 = 1_000_000;
const ETHERNET: usize = 14;
/// Of Ethernet, IPv6, TCP and a byte of data, and then some.
const ROOM: usize = 96;

/// An address of Ethernet.
pub(super) type Mac = [u8; 6];
/// Where all frames say that they come from. Nobody asks.
const NOBODY: Mac = [2, 0x77, 0, 0, 0, 1];

/// What a packet says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packet {
    /// Flags, and how far both sides are by it, counted from their first sequence number. One that
    /// pushes has one byte of data.
    Tcp {
        flags: u8,
        sequence: u32,
        acknowledged: u32,
    },
    Udp,
    Echo,
    EchoReply,
}

impl Packet {
    pub(super) const fn tcp(flags: u8, sequence: u32, acknowledged: u32) -> Self {
        Self::Tcp { flags, sequence, acknowledged }
    }
}

/// A frame.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: [u8; ROOM],
    length: usize,
}

impl Frame {
    /// The packet of a flow, in the direction of `tuple`, for the router at `gateway`.
    pub(super) fn new(gateway: Mac, tuple: &Tuple, packet: Packet, number: u32) -> Result<Self> {
        let mut frame = Self { bytes: [0; ROOM], length: 0 };
        frame.put(&gateway);
        frame.put(&NOBODY);
        let payload = Payload::of(tuple, packet, number);
        let payload = &payload.bytes[..payload.length];
        match (tuple.source, tuple.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.put(&[0x08, 0x00]);
                frame.put(&[0x45, 0]);
                frame.put(&length(20 + payload.len()));
                // No identifier, not to be fragmented, 64 hops.
                frame.put(&[0, 0, 0x40, 0, 64, tuple.protocol, 0, 0]);
                frame.put(&source.octets());
                frame.put(&destination.octets());
                let sum = internet_checksum(&frame.bytes[ETHERNET..ETHERNET + 20]);
                frame.bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.put(&[0x86, 0xdd]);
                frame.put(&[0x60, 0, 0, 0]);
                frame.put(&length(payload.len()));
                frame.put(&[tuple.protocol, 64]);
                frame.put(&source.octets());
                frame.put(&destination.octets());
            }
            _ => bail!("two families in {tuple}"),
        }
        frame.put(payload);
        Ok(frame)
    }

    /// What is sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

/// The part that IP carries.
struct Payload {
    bytes: [u8; 24],
    length: usize,
}

impl Payload {
    fn of(tuple: &Tuple, packet: Packet, number: u32) -> Self {
        let mut bytes = [0; 24];
        let length = match packet {
            Packet::Tcp { flags, sequence, acknowledged } => {
                let acknowledged = if flags & ACK == 0 { 0 } else { FIRST_SEQUENCE + acknowledged };
                ports(&mut bytes, tuple);
                bytes[4..8].copy_from_slice(&(FIRST_SEQUENCE + sequence).to_be_bytes());
                bytes[8..12].copy_from_slice(&acknowledged.to_be_bytes());
                // Five words of header; the widest window.
                bytes[12..16].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
                if flags & PSH == 0 { 20 } else { 21 }
            }
            Packet::Udp => {
                ports(&mut bytes, tuple);
                bytes[4..6].copy_from_slice(&length(9));
                9
            }
            Packet::Echo | Packet::EchoReply => {
                let is_reply = matches!(packet, Packet::EchoReply);
                bytes[0] = match (tuple.protocol, is_reply) {
                    (protocol::ICMPV6, false) => 128,
                    (protocol::ICMPV6, true) => 129,
                    (_, false) => 8,
                    (_, true) => 0,
                };
                // The identifier stands for a port.
                bytes[4..6].copy_from_slice(&number.to_be_bytes()[..2]);
                8
            }
        };
        Self { bytes, length }
    }
}

fn ports(bytes: &mut [u8], tuple: &Tuple) {
    bytes[0..2].copy_from_slice(&tuple.detail.0.to_be_bytes());
    bytes[2..4].copy_from_slice(&tuple.detail.1.to_be_bytes());
}

/// As headers have it. All that is made here is short.
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or_default().to_be_bytes()
}
