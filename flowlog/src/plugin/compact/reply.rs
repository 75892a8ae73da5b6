//! The reply direction of a record, which is told only as far as NAT has changed it.

use super::Record;
use crate::flow::proto;

/// The reply tuple's ends, as far as the kernel tells them, translated or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Source address, 4 or 16 bytes.
    pub src: &'a [u8],
    /// Source port; GRE's key, ICMP's identifier.
    pub sport: Option<u32>,
    /// Destination address, 4 or 16 bytes.
    pub dst: &'a [u8],
    /// Destination port, or GRE's key.
    pub dport: Option<u32>,
    /// 1: the source was translated, 2: the destination, 3: both.
    pub nat: u8,
}

impl Record {
    /// The reply direction of a flow.
    pub fn reply(&self) -> Reply<'_> {
        let (source, destination) = (!self.nat_src.is_empty(), !self.nat_dst.is_empty());
        // The source of the original direction is the destination of the reply.
        let source_port = if source { self.nat_sport } else { self.orig_sport };
        let destination_port = if destination { self.nat_dport } else { self.orig_dport };
        // The identifier of ICMP is in the source of both.
        let protocol = self.protocol.and_then(|protocol| u8::try_from(protocol).ok());
        let icmp = matches!(protocol, Some(proto::ICMP | proto::ICMPV6));
        Reply {
            src: if destination { &self.nat_dst } else { &self.orig_dst },
            sport: if icmp { source_port } else { destination_port },
            dst: if source { &self.nat_src } else { &self.orig_src },
            dport: if icmp { None } else { source_port },
            nat: u8::from(source) | u8::from(destination) << 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kinds, Witness};
    use crate::flow::{Family, Flow, Tuple};
    use crate::plugin::compact::Encoder;
    use crate::plugin::{Body, Item};

    fn tuple(proto: u8, ends: [u8; 2], (src_l4, dst_l4): (u16, u16)) -> Tuple {
        let address = |last| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&[10, 0, 0, last]);
            bytes
        };
        let [src, dst] = ends.map(address);
        Tuple { family: Family::V4, proto, src, dst, src_l4, dst_l4 }
    }

    fn check(flow: &Flow, nat: u8) {
        let body = Body::Flow {
            flow,
            start: None,
            end: None,
            how: None,
            counted: false,
            witness: Witness::Single,
        };
        let mut bytes = Vec::new();
        Encoder::new().encode(&Item { at: 1, tag: Kinds::NEW, body }, None, &mut bytes);
        let mut record = Record::default();
        record.read(&bytes).unwrap();
        let (told, reply) = (record.reply(), &flow.reply);
        let icmp = matches!(reply.proto, proto::ICMP | proto::ICMPV6);
        assert_eq!((told.src, told.dst), (&reply.src[..4], &reply.dst[..4]));
        assert_eq!(told.sport, Some(reply.src_l4.into()));
        assert_eq!(told.dport, (!icmp).then_some(reply.dst_l4.into()));
        assert_eq!(told.nat, nat);
    }

    /// The reply is what it was, translated or not.
    #[test]
    fn it_is_made_again() {
        for proto in [proto::TCP, proto::GRE] {
            let orig = tuple(proto, [1, 2], (40001, 9000));
            let reply = tuple(proto, [2, 1], (9000, 40001));
            let mut flow = Flow { orig, reply, ..Flow::default() };
            check(&flow, 0);
            flow.reply.dst_l4 = 1024;
            check(&flow, 1);
            flow.reply.src[3] = 9;
            check(&flow, 3);
            (flow.reply.dst, flow.reply.dst_l4) = (orig.src, 40001);
            check(&flow, 2);
        }
        let orig = tuple(proto::ICMP, [1, 2], (77, 0x0800));
        let mut ping = Flow { orig, reply: tuple(proto::ICMP, [2, 1], (77, 0)), ..Flow::default() };
        check(&ping, 0);
        ping.reply.src_l4 = 78;
        check(&ping, 1);
    }
}
