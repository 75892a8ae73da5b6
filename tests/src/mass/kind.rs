//! What becomes of the flows of a mass: in fixed proportions all that makes a difference to
//! conntrack. The number of a flow tells its kind, and with it both tuples and its dialogue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::frame::{ACK, FIN, PSH, Packet, RST, SYN};
use crate::packet::protocol;
use crate::traffic::{Flow, Reach};

/// What a flow is, with the port that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// TCP from the first SYN to the last ACK.
    TcpComplete,
    /// The answer to the SYN is a reset: the entry goes at once.
    TcpRefused,
    /// Established, then reset.
    TcpAborted,
    /// A SYN without an answer.
    TcpUnreplied,
    /// Question and answer.
    UdpAnswered,
    /// A question without an answer.
    UdpUnanswered,
    /// Echo and its reply.
    Icmp,
    /// The same over IPv6.
    Icmpv6,
    /// TCP over IPv6, complete.
    Tcp6,
    /// UDP over IPv6, answered.
    Udp6,
    /// TCP whose source the router replaces, complete.
    Snat,
    /// TCP whose target the router replaces, complete.
    Dnat,
    /// UDP in zone 7, answered.
    UdpInZone,
    /// TCP in zone 8, complete.
    TcpInZone,
    /// UDP with a label and a mark, and another mark from the answer on.
    UdpMarked,
}

/// Which flows there are of twenty.
const PATTERN: [Kind; 20] = [
    Kind::TcpComplete,
    Kind::UdpAnswered,
    Kind::TcpRefused,
    Kind::Tcp6,
    Kind::UdpUnanswered,
    Kind::Icmp,
    Kind::Snat,
    Kind::UdpInZone,
    Kind::TcpAborted,
    Kind::UdpMarked,
    Kind::TcpComplete,
    Kind::UdpAnswered,
    Kind::Icmpv6,
    Kind::Dnat,
    Kind::UdpUnanswered,
    Kind::TcpUnreplied,
    Kind::Udp6,
    Kind::TcpInZone,
    Kind::TcpComplete,
    Kind::UdpAnswered,
];

/// The first source port.
pub(super) const FIRST_PORT: u16 = 20_000;

/// What the router puts in the place of the source of [`Kind::Snat`].
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 1));
/// Where it sends [`Kind::Dnat`].
const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 2, 3)), 9131);

impl Kind {
    /// The kind of flow number `number`.
    pub fn of(number: u32) -> Self {
        PATTERN[number as usize % PATTERN.len()]
    }

    /// The IP protocol, and the port that such a flow goes to: by it the rules of
    /// [`Lab::add_mass_rules`](crate::lab::Lab::add_mass_rules) know it.
    pub fn service(self) -> (u8, u16) {
        match self {
            Self::TcpComplete | Self::Tcp6 => (protocol::TCP, 9100),
            Self::TcpRefused => (protocol::TCP, 9101),
            Self::TcpAborted => (protocol::TCP, 9102),
            Self::TcpUnreplied => (protocol::TCP, 9103),
            Self::Snat => (protocol::TCP, 9120),
            Self::Dnat => (protocol::TCP, 9130),
            Self::TcpInZone => (protocol::TCP, 9108),
            Self::UdpAnswered | Self::Udp6 => (protocol::UDP, 9110),
            Self::UdpUnanswered => (protocol::UDP, 9111),
            Self::UdpInZone => (protocol::UDP, 9107),
            Self::UdpMarked => (protocol::UDP, 9142),
            Self::Icmp => (protocol::ICMP, 0),
            Self::Icmpv6 => (protocol::ICMPV6, 0),
        }
    }

    /// What its hosts say to each other.
    pub(super) fn dialogue(self) -> Dialogue {
        match self {
            Self::TcpComplete | Self::Tcp6 | Self::Snat | Self::Dnat | Self::TcpInZone => COMPLETE,
            Self::TcpRefused => REFUSED,
            Self::TcpAborted => ABORTED,
            Self::TcpUnreplied => UNREPLIED,
            Self::UdpUnanswered => &[Packet::Udp],
            Self::UdpAnswered | Self::Udp6 | Self::UdpInZone | Self::UdpMarked => {
                &[Packet::Udp, Packet::Udp]
            }
            Self::Icmp | Self::Icmpv6 => &[Packet::Echo, Packet::EchoReply],
        }
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::Icmpv6 | Self::Tcp6 | Self::Udp6)
    }

    fn reach(self) -> Reach {
        match self {
            Self::TcpRefused | Self::TcpUnreplied | Self::UdpUnanswered => Reach::Unreplied,
            _ if self.service().0 == protocol::TCP => Reach::Assured,
            _ => Reach::Replied,
        }
    }
}

/// Flow number `number`.
pub fn flow(number: u32) -> Flow {
    let kind = Kind::of(number);
    let (protocol, service) = kind.service();
    let [high, low, third, fourth] = number.to_be_bytes();
    let port = FIRST_PORT.saturating_add(u16::from_be_bytes([high, low]));
    // What has no ports is not told by them.
    let detail = match protocol {
        protocol::ICMP => (8, 0),
        protocol::ICMPV6 => (0, 0),
        _ => (port, service),
    };
    let address = |net: u8| {
        if kind.is_v6() {
            let (high, low) =
                (u16::from_be_bytes([high, low]), u16::from_be_bytes([third, fourth]));
            IpAddr::V6(Ipv6Addr::new(0xfd78, net.into(), 0, 0, 0, 0, high, low))
        } else {
            IpAddr::V4(Ipv4Addr::new(198, 17 + net, third, fourth))
        }
    };
    let from = SocketAddr::new(address(1), detail.0);
    let to = SocketAddr::new(address(2), detail.1);
    let flow = Flow::new(protocol, from, to, kind.reach());
    match kind {
        Kind::Snat => flow.masqueraded(OUTSIDE),
        Kind::Dnat => flow.redirected(INSIDE),
        _ => flow,
    }
}

/// The packets of a flow, from the client and from the server by turns.
pub(super) type Dialogue = &'static [Packet];

/// Steps of the longest dialogue.
pub(super) const LONGEST: usize = COMPLETE.len();

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    /// Whose turn it is.
    pub(super) fn of(step: usize) -> Self {
        if step.is_multiple_of(2) { Self::Client } else { Self::Server }
    }
}

/// The client says one byte, the server hangs up, then the client.
const COMPLETE: Dialogue = &[
    Packet::tcp(SYN, 0, 0),
    Packet::tcp(SYN | ACK, 0, 1),
    Packet::tcp(PSH | ACK, 1, 1),
    Packet::tcp(FIN | ACK, 1, 2),
    Packet::tcp(FIN | ACK, 2, 2),
    Packet::tcp(ACK, 2, 3),
];

const ABORTED: Dialogue = &[
    Packet::tcp(SYN, 0, 0),
    Packet::tcp(SYN | ACK, 0, 1),
    Packet::tcp(PSH | ACK, 1, 1),
    Packet::tcp(RST | ACK, 1, 2),
];

const REFUSED: Dialogue = &[Packet::tcp(SYN, 0, 0), Packet::tcp(RST | ACK, 0, 1)];

const UNREPLIED: Dialogue = &[Packet::tcp(SYN, 0, 0)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kind, flow};

    #[test]
    fn no_two_flows_are_the_same() {
        let period = |start: u32| start..start + 40;
        let numbers = period(0).chain(period(65_536)).chain(period(131_072));
        let flows: Vec<_> = numbers.map(|number| flow(number).line("NEW")).collect();
        assert_eq!(flows.iter().collect::<BTreeSet<_>>().len(), flows.len());
    }

    #[test]
    fn replies_go_back_to_where_the_router_translated() {
        let number = (0..).find(|number| Kind::of(*number) == Kind::Dnat).unwrap();
        assert_eq!(
            flow(65_536 * 20 + number).line("NEW"),
            "[NEW] ORIG: SRC=198.18.0.13 DST=198.19.0.13 PROTO=TCP SPT=20020 DPT=9130 PKTS=0 \
             BYTES=0 , REPLY: SRC=10.77.2.3 DST=198.18.0.13 PROTO=TCP SPT=9131 DPT=20020 PKTS=0 \
             BYTES=0 "
        );
    }
}
