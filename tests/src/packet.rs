//! The raw packets of the traffic mix: protocols that no socket of the standard library speaks.
//! Only what conntrack looks at is right in them.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::poll::PATIENCE;

/// IP protocol numbers, as the kernel's `IPPROTO_…`.
pub mod protocol {
    /// Internet control messages.
    pub const ICMP: u8 = 1;
    /// The transmission control protocol.
    pub const TCP: u8 = 6;
    /// User datagrams.
    pub const UDP: u8 = 17;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// Encrypted payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// Internet control messages of IPv6.
    pub const ICMPV6: u8 = 58;
    /// A routing protocol without ports.
    pub const OSPF: u8 = 89;
    /// Stream control transmission.
    pub const SCTP: u8 = 132;
}

/// Sends one packet of a protocol without ports or with ports in its payload.
///
/// # Errors
/// The caller is not root, or the packet cannot be routed.
pub fn send_raw(to: SocketAddr, protocol: u8, payload: &[u8]) -> Result<()> {
    raw_socket(to, protocol)?.send_to(payload, &raw_address(to)).context("sending")?;
    Ok(())
}

/// Sends an ICMP request and waits for its reply: of type `reply`, with the same identifier.
///
/// # Errors
/// As [`send_raw`], or no reply came.
pub fn ping(to: SocketAddr, request: u8, code: u8, reply: u8, id: u16) -> Result<()> {
    let protocol = if to.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let mut packet = [0u8; 40];
    packet[0] = request;
    packet[1] = code;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    if to.is_ipv4() {
        // For ICMPv6 the kernel computes it, which knows the addresses.
        let sum = internet_checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let mut socket = raw_socket(to, protocol)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&packet, &raw_address(to)).context("sending an echo request")?;
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let mut answer = [0u8; 256];
        let length = socket.read(&mut answer).context("no ICMP reply")?;
        // An IPv4 raw socket shows the IP header too.
        let header = if to.is_ipv4() { usize::from(answer[0] & 0x0f) * 4 } else { 0 };
        ensure!(length >= header + 8, "an ICMP packet of {length} bytes");
        if answer[header] == reply && answer[header + 4..header + 6] == id.to_be_bytes() {
            return Ok(());
        }
    }
    bail!("no ICMP reply from {to}")
}

/// A SCTP packet that opens an association: conntrack refuses anything else for a new flow.
pub fn sctp_init(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0; 8]); // verification tag 0 as INIT requires, no checksum
    packet.extend([1, 0, 0, 20]); // INIT, no flags, 20 bytes long
    packet.extend(0x0a0b_0c0d_u32.to_be_bytes()); // initiate tag
    packet.extend(65_535_u32.to_be_bytes()); // receive window
    packet.extend([0, 1, 0, 1]); // one stream each way
    packet.extend([0, 0, 0, 1]); // first sequence number
    packet
}

fn raw_socket(to: SocketAddr, protocol: u8) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(protocol));
    Socket::new(Domain::for_address(to), Type::RAW, Some(protocol)).context("a raw socket")
}

/// Raw IPv6 sockets refuse an address with a port.
fn raw_address(mut to: SocketAddr) -> SockAddr {
    to.set_port(0);
    to.into()
}

/// RFC 1071, for data of even length.
pub(crate) fn internet_checksum(data: &[u8]) -> u16 {
    let words = data.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::internet_checksum;

    #[test]
    fn checksum_of_a_known_header() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(internet_checksum(&header), 0xb861);
    }
}
