//! What is asked: an address, perhaps a port and a protocol, at a time; and
//! whether a flow is an answer.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use bitflags::bitflags;

use super::times::Span;
use crate::flow::{Family, Flow, proto, to_ip};
use crate::verb::list::extended::address;

const FORMS: &str =
    "write 192.0.2.1, 192.0.2.1:443, 2001:db8::1 or [2001:db8::1]:443; names are not looked up";

/// An address, and a port where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The address.
    pub address: IpAddr,
    /// The port; absent: any, and also where there are none.
    pub port: Option<u16>,
}

impl Wanted {
    /// The address as archives have it.
    pub fn text(&self) -> String {
        match self.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(v6) => address(Family::V6, &v6.octets()),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |what: &str| Err(format!("{what}; {FORMS}"));
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, "")) => (address, None),
                Some((address, port)) => match port.strip_prefix(':') {
                    Some(port) => (address, Some(port)),
                    None => return refused("after `]` stands no `:` and port"),
                },
                None => return refused("`]` is missing"),
            },
            // One that has two colons is of IPv6, and has no port.
            None => match text.split_once(':') {
                Some((address, port)) if !port.contains(':') => (address, Some(port)),
                _ => (text, None),
            },
        };
        let bracketed = text.starts_with('[');
        let parsed = if bracketed {
            address.parse::<Ipv6Addr>().map(IpAddr::V6).ok()
        } else {
            address.parse().ok()
        };
        let Some(address) = parsed else {
            return refused(&format!("`{address}` is no address"));
        };
        let port = match port.map(str::parse) {
            None => None,
            Some(Ok(port)) => Some(port),
            Some(Err(_)) => return refused("the port is no number from 0 to 65535"),
        };
        Ok(Self { address, port })
    }
}

impl Display for Wanted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (address, None) => write!(f, "{address}"),
            (IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
            (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
        }
    }
}

bitflags! {
    /// Ends of a flow's two tuples.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ends: u8 {
        /// Who opened it, before NAT.
        const ORIG_SRC = 1;
        /// Whom it was opened to, before NAT.
        const ORIG_DST = 2;
        /// Who answers: the destination after NAT.
        const REPLY_SRC = 4;
        /// Whom is answered: the source after NAT.
        const REPLY_DST = 8;
    }
}

impl Ends {
    /// Each with its name, that of the columns in archives.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::ORIG_SRC, "orig_src"),
        (Self::ORIG_DST, "orig_dst"),
        (Self::REPLY_SRC, "reply_src"),
        (Self::REPLY_DST, "reply_dst"),
    ];
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Who.
    pub wanted: Wanted,
    /// Of flows of this protocol only.
    pub protocol: Option<u8>,
    /// Of flows that were alive at some moment of it.
    pub span: Span,
}

impl Question {
    /// Which ends of `flow` have the address and the port.
    pub fn ends(&self, flow: &Flow) -> Ends {
        let Flow { orig, reply, .. } = flow;
        if self.protocol.is_some_and(|protocol| protocol != orig.proto) {
            return Ends::empty();
        }
        let ports = orig.has_ports();
        let gre = orig.proto == proto::GRE;
        // The identifier of a ping is in the place of its sender's port.
        let ping = matches!(orig.proto, proto::ICMP | proto::ICMPV6);
        let end = |end: Ends, address: &[u8; 16], port: u16, has_port: bool| {
            let is = to_ip(orig.family, address) == self.wanted.address
                && self.wanted.port.is_none_or(|wanted| has_port && wanted == port);
            if is { end } else { Ends::empty() }
        };
        let any = ports || gre;
        let answered = if ping { reply.src_l4 } else { reply.dst_l4 };
        end(Ends::ORIG_SRC, &orig.src, orig.src_l4, any || ping)
            | end(Ends::ORIG_DST, &orig.dst, orig.dst_l4, any)
            | end(Ends::REPLY_SRC, &reply.src, reply.src_l4, any)
            | end(Ends::REPLY_DST, &reply.dst, answered, any || ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Tuple;

    fn wanted(text: &str) -> Result<Wanted, String> {
        text.parse()
    }

    #[test]
    fn addresses_have_a_port_or_none() {
        for (text, address, port) in [
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:443", "192.0.2.1", Some(443)),
            ("2001:db8::1", "2001:db8::1", None),
            ("2001:db8::1:443", "2001:db8::1:443", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("[::]:0", "::", Some(0)),
        ] {
            let expected = Wanted { address: address.parse().unwrap(), port };
            assert_eq!(wanted(text), Ok(expected), "{text}");
            assert_eq!(wanted(&expected.to_string()), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms() {
        for (text, why) in [
            ("example.org", "`example.org` is no address"),
            ("192.0.2.1:http", "the port is no number"),
            ("192.0.2.1:", "the port is no number"),
            ("192.0.2.1:65536", "the port is no number"),
            ("192.0.2.0/24", "`192.0.2.0/24` is no address"),
            ("[192.0.2.1]:5", "`192.0.2.1` is no address"),
            ("[2001:db8::1", "`]` is missing"),
            ("[2001:db8::1]443", "after `]` stands no `:`"),
            ("fe80::1%eth0", "`fe80::1%eth0` is no address"),
            ("", "`` is no address"),
        ] {
            let refused = wanted(text).unwrap_err();
            assert!(refused.starts_with(why) && refused.ends_with(FORMS), "{text}: {refused}");
        }
    }

    #[test]
    fn archives_have_addresses_as_glibc_writes_them() {
        for (asked, text) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("::ffff:a01:203", "::ffff:10.1.2.3"),
            ("::a01:203", "::10.1.2.3"),
        ] {
            assert_eq!(wanted(asked).unwrap().text(), text);
        }
    }

    fn v4(a: u8) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[10, 0, 0, a]);
        bytes
    }

    /// 10.0.0.1:1001 → 10.0.0.2:1002 before, 10.0.0.3:1003 → 10.0.0.4:1004 after NAT.
    fn translated(proto: u8) -> Flow {
        let tuple = Tuple { proto, family: Family::V4, ..Tuple::default() };
        let orig = Tuple { src: v4(1), src_l4: 1001, dst: v4(2), dst_l4: 1002, ..tuple };
        let reply = Tuple { src: v4(4), src_l4: 1004, dst: v4(3), dst_l4: 1003, ..tuple };
        Flow { orig, reply, ..Flow::default() }
    }

    fn ends(question: &str, protocol: Option<u8>, flow: &Flow) -> Ends {
        let span = Span { first: 0, last: u64::MAX };
        Question { wanted: question.parse().unwrap(), protocol, span }.ends(flow)
    }

    #[test]
    fn each_end_is_told_from_the_others() {
        let flow = translated(proto::TCP);
        let all = [
            ("10.0.0.1", 1001, Ends::ORIG_SRC),
            ("10.0.0.2", 1002, Ends::ORIG_DST),
            ("10.0.0.4", 1004, Ends::REPLY_SRC),
            ("10.0.0.3", 1003, Ends::REPLY_DST),
        ];
        for (address, port, end) in all {
            assert_eq!(ends(address, None, &flow), end);
            assert_eq!(ends(&format!("{address}:{port}"), Some(6), &flow), end);
            assert_eq!(ends(&format!("{address}:{}", port + 1), None, &flow), Ends::empty());
            assert_eq!(ends(address, Some(17), &flow), Ends::empty());
        }
        assert_eq!(ends("::ffff:10.0.0.1", None, &flow), Ends::empty());
    }

    #[test]
    fn without_nat_both_tuples_have_the_end() {
        let orig = translated(proto::UDP).orig;
        let flow = Flow { orig, reply: orig.inverse(), ..Flow::default() };
        assert_eq!(ends("10.0.0.1:1001", None, &flow), Ends::ORIG_SRC | Ends::REPLY_DST);
        assert_eq!(ends("10.0.0.2:1002", None, &flow), Ends::ORIG_DST | Ends::REPLY_SRC);
    }

    #[test]
    fn a_ping_has_its_identifier_for_a_port_at_its_sender() {
        let mut flow = translated(proto::ICMP);
        (flow.orig.src_l4, flow.orig.dst_l4) = (77, 0x0800);
        (flow.reply.src_l4, flow.reply.dst_l4) = (78, 0);
        assert_eq!(ends("10.0.0.1:77", None, &flow), Ends::ORIG_SRC);
        assert_eq!(ends("10.0.0.3:78", None, &flow), Ends::REPLY_DST);
        assert_eq!(ends("10.0.0.4:78", None, &flow), Ends::empty());
        assert_eq!(ends("10.0.0.2:2048", None, &flow), Ends::empty());
        assert_eq!(ends("10.0.0.4", None, &flow), Ends::REPLY_SRC);
        let esp = translated(proto::ESP);
        assert_eq!(ends("10.0.0.1:1001", None, &esp), Ends::empty());
        assert_eq!(ends("10.0.0.1", None, &esp), Ends::ORIG_SRC);
    }
}
