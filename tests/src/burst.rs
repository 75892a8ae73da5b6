//! A load: as many new UDP flows as one core makes. One socket sends one datagram to each of N
//! distinct destinations, 64 of them a system call, so that the kernel's work for a flow, and
//! not the generator's, is what it takes.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use socket2::{Domain, Socket, Type};

use crate::lab::SingleNs;
use crate::lines::{Multiset, multiset};

/// Datagrams in one system call.
const BATCH: u32 = 64;

/// What a burst made.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// Entries that the table gained: the number of events that a logger should see.
    pub flows: u64,
    /// Wall-clock time of the sending alone.
    pub elapsed: Duration,
}

/// The destination of flow number `index` of a burst, all distinct below 2^16 × 2^15.
pub fn destination(index: u32) -> SocketAddrV4 {
    let [high, port, third, fourth] = index.to_be_bytes();
    let port = u16::from_be_bytes([high, port]).saturating_add(1024);
    SocketAddrV4::new(Ipv4Addr::new(198, 19, third, fourth), port)
}

/// The number of the flow with that destination; nothing if no burst has it.
pub fn flow_number(address: Ipv4Addr, port: u16) -> Option<u32> {
    let [198, 19, third, fourth] = address.octets() else { return None };
    let [high, low] = port.checked_sub(1024)?.to_be_bytes();
    Some(u32::from_be_bytes([high, low, third, fourth]))
}

/// The lines of a burst from `port`, counters aside, if each of these flows has one with this tag.
pub fn burst_lines(tag: &str, port: u16, numbers: Range<u32>) -> Multiset {
    multiset(numbers.map(|number| {
        let to = destination(number);
        let (host, service) = (to.ip(), to.port());
        format!(
            "[{tag}] ORIG: SRC=198.18.0.1 DST={host} PROTO=UDP SPT={port} DPT={service} \
             PKTS=0 BYTES=0 , REPLY: SRC={host} DST=198.18.0.1 PROTO=UDP SPT={service} \
             DPT={port} PKTS=0 BYTES=0 "
        )
    }))
}

/// Makes `flows` new UDP flows from source port `source_port`, numbered from `first` on. Flows of
/// a former burst that still live must be others: another port or other numbers.
///
/// # Errors
/// A datagram cannot be sent, or the table did not take all flows.
pub fn udp_burst(single: &SingleNs, source_port: u16, first: u32, flows: u32) -> Result<Burst> {
    let namespace = single.namespace();
    let before = namespace.conntrack_count()?;
    let elapsed = uncounted_burst(single, source_port, first, flows)?;
    let made = namespace.conntrack_count()?.saturating_sub(before);
    ensure!(made == u64::from(flows), "sent {flows} datagrams, but the table gained {made} flows");
    Ok(Burst { flows: made, elapsed })
}

/// The same where flows of former bursts may end meanwhile, so that the table's count tells nothing.
/// Returns the time that the sending took.
///
/// # Errors
/// A datagram cannot be sent.
pub fn uncounted_burst(
    single: &SingleNs,
    source_port: u16,
    first: u32,
    flows: u32,
) -> Result<Duration> {
    single.namespace().enter(|| {
        let socket = source(source_port)?;
        send_each(&socket, first, first + flows)
    })
}

/// The socket that bursts come from, in the namespace of this thread.
pub(crate) fn source(port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // A process that another thread just forks may still hold the socket of the last burst.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), port).into())?;
    Ok(socket)
}

/// Sends a datagram for each flow from `first` up to `end`.
pub(crate) fn send_each(socket: &Socket, first: u32, end: u32) -> Result<Duration> {
    let payload = [IoSlice::new(b"x")];
    let payloads = [&payload; BATCH as usize];
    let mut headers = MultiHeaders::preallocate(BATCH as usize, None);
    let begin = Instant::now();
    let mut next = first;
    while next < end {
        let batch = next..end.min(next + BATCH);
        let addresses: Vec<_> =
            batch.clone().map(|index| Some(SockaddrIn::from(destination(index)))).collect();
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            payloads.iter().take(batch.len()).copied(),
            &addresses,
            [],
            MsgFlags::empty(),
        );
        let sent = sent.with_context(|| format!("sending to {}", destination(next)))?.count();
        next += u32::try_from(sent)?;
    }
    Ok(begin.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_destination() {
        for number in [0, 1, 65_535, 65_536, 18_000_000, (1 << 31) - 1] {
            let to = destination(number);
            assert_eq!(flow_number(*to.ip(), to.port()), Some(number));
        }
        assert_eq!(flow_number(Ipv4Addr::new(198, 18, 0, 1), 2000), None);
        assert_eq!(flow_number(Ipv4Addr::new(198, 19, 0, 1), 53), None);
    }
}
