//! Names of what a flow holds as numbers, as outputs show them.

use super::{Family, Status, proto};

/// `enum tcp_conntrack`
const TCP: &[&str] = &[
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
/// `enum sctp_conntrack`
const SCTP: &[&str] = &[
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
    "HEARTBEAT_ACKED",
];
/// `enum ct_dccp_states`
const DCCP: &[&str] = &[
    "NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE",
    "INVALID",
];

/// Name of a protocol that conntrack knows more of than its number.
pub fn protocol(number: u8) -> Option<&'static str> {
    Some(match number {
        proto::ICMP => "icmp",
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::DCCP => "dccp",
        proto::GRE => "gre",
        proto::ICMPV6 => "icmpv6",
        proto::SCTP => "sctp",
        proto::UDPLITE => "udplite",
        _ => return None,
    })
}

/// Name of the family.
pub fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Name of a protocol's state; absent for protocols without states.
pub fn state(protocol: u8, state: u8) -> Option<&'static str> {
    let names = match protocol {
        proto::TCP => TCP,
        proto::SCTP => SCTP,
        proto::DCCP => DCCP,
        _ => return None,
    };
    // As libnetfilter_conntrack does it.
    Some(names.get(usize::from(state)).unwrap_or(&names[0]))
}

/// Names of all states, each once.
pub fn states() -> impl Iterator<Item = &'static str> {
    let all = [TCP, SCTP, DCCP].into_iter().flatten().copied().enumerate();
    all.filter(|(place, name)| {
        let before = [TCP, SCTP, DCCP].into_iter().flatten().take(*place);
        before.into_iter().all(|earlier| earlier != name)
    })
    .map(|(_, name)| name)
}

/// The state that [`state`] calls so.
pub fn state_number(protocol: u8, name: &str) -> Option<u8> {
    (0..16).find(|number| state(protocol, *number) == Some(name))
}

/// Names of status bits, in the order of the bits; others have none.
pub const STATUS: [(Status, &str); 11] = [
    (Status::EXPECTED, "expected"),
    (Status::SEEN_REPLY, "seen_reply"),
    (Status::ASSURED, "assured"),
    (Status::CONFIRMED, "confirmed"),
    (Status::SRC_NAT, "src_nat"),
    (Status::DST_NAT, "dst_nat"),
    (Status::DYING, "dying"),
    (Status::FIXED_TIMEOUT, "fixed_timeout"),
    (Status::NAT_CLASH, "nat_clash"),
    (Status::OFFLOAD, "offload"),
    (Status::HW_OFFLOAD, "hw_offload"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_found_by_name() {
        for (protocol, states) in [(proto::TCP, TCP), (proto::SCTP, SCTP), (proto::DCCP, DCCP)] {
            for number in 0..states.len() as u8 {
                let name = state(protocol, number).unwrap();
                assert_eq!(state_number(protocol, name), Some(number));
            }
            assert_eq!(state_number(protocol, "open"), None);
        }
        assert_eq!(state_number(proto::UDP, "NONE"), None);
    }

    #[test]
    fn each_status_bit_has_its_name() {
        let names = Status::all().iter_names().map(|(name, bit)| (bit, name.to_ascii_lowercase()));
        let ours = STATUS.map(|(bit, name)| (bit, name.to_owned()));
        assert_eq!(names.collect::<Vec<_>>(), ours);
    }
}
