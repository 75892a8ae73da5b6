//! Any flow → a record → what a collector understands, against what it should.

use proptest::prelude::*;

use super::*;

fn address(v6: bool) -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_map(move |bytes| {
        let mut address = [0; 16];
        let length = if v6 { 16 } else { 4 };
        address[..length].copy_from_slice(&bytes[..length]);
        address
    })
}

/// Protocols, and how the decoder calls them.
const PROTOCOLS: [(u8, &str); 6] = [
    (proto::TCP, "Tcp"),
    (proto::UDP, "Udp"),
    (proto::ICMP, "Icmp"),
    (proto::ICMPV6, "Ipv6Icmp"),
    (proto::SCTP, "Sctp"),
    (proto::GRE, "Gre"),
];

prop_compose! {
    fn any_flow()(v6 in any::<bool>())(
        v6 in Just(v6),
        (proto, _) in proptest::sample::select(&PROTOCOLS[..]),
        [src, dst, outside, inside] in [address(v6), address(v6), address(v6), address(v6)],
        [src_l4, dst_l4, outside_l4, inside_l4] in any::<[u16; 4]>(),
        [source, destination, counted, marked] in any::<[bool; 4]>(),
        counters in any::<[u64; 4]>(),
        mark in 1..=u32::MAX,
        id in any::<Option<u32>>(),
        inum in any::<Option<u32>>(),
    ) -> Flow {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let orig = Tuple { family, proto, src, dst, src_l4, dst_l4 };
        let icmp = matches!(proto, proto::ICMP | proto::ICMPV6);
        let mut reply = orig.inverse();
        if icmp {
            (reply.src_l4, reply.dst_l4) = (orig.src_l4, orig.dst_l4);
        }
        if source {
            reply.dst = outside;
            if !icmp {
                reply.dst_l4 = outside_l4;
            }
        }
        if destination {
            reply.src = inside;
            if !icmp {
                reply.src_l4 = inside_l4;
            }
        }
        let [packets, bytes, answers, answered] = counters;
        let both = [Counters { packets, bytes }, Counters { packets: answers, bytes: answered }];
        Flow {
            orig,
            reply,
            counters: counted.then_some(both),
            mark: if marked { mark } else { 0 },
            id,
            netns: inum.map(|inum| Netns { cookie: None, inum }),
            ..Flow::default()
        }
    }
}

/// What a collector should understand of a record, said field by field.
fn expected(record: &FlowRecord<'_>) -> Fields {
    let FlowRecord { flow, tag, at, start, end, how, nat_events } = *record;
    let Flow { orig, reply, .. } = flow;
    let mut fields = Fields::new();
    let mut say = |name: &str, value: &dyn ToString| {
        fields.insert(name.to_owned(), value.to_string());
    };
    let version = if orig.family == Family::V6 { "6" } else { "4" };
    say(&format!("IANA(SourceIpv{version}address)"), &orig.src_ip());
    say(&format!("IANA(DestinationIpv{version}address)"), &orig.dst_ip());
    let protocol = PROTOCOLS.iter().find(|(number, _)| *number == orig.proto).unwrap();
    say("IANA(ProtocolIdentifier)", &protocol.1);
    let icmp = matches!(orig.proto, proto::ICMP | proto::ICMPV6);
    if icmp {
        say(&format!("IANA(IcmpTypeCodeIpv{version})"), &orig.dst_l4);
    } else if orig.proto != proto::GRE {
        say("IANA(SourceTransportPort)", &orig.src_l4);
        say("IANA(DestinationTransportPort)", &orig.dst_l4);
    }
    // A beginning is one by itself.
    if let Some(start) = start.or((tag == Kinds::NEW).then_some(at)) {
        say("IANA(FlowStartMilliseconds)", &(start / MS));
    }
    say("IANA(FlowEndMilliseconds)", &(end.unwrap_or(at) / MS));
    if let Some([sent, answered]) = flow.counters.filter(|_| end.is_some()) {
        say("IANA(OctetDeltaCount)", &sent.bytes);
        say("IANA(PacketDeltaCount)", &sent.packets);
        say("ReverseInformationElement(ReverseOctetDeltaCount)", &answered.bytes);
        say("ReverseInformationElement(ReversePacketDeltaCount)", &answered.packets);
    }
    let (event, nat) = match (tag, end) {
        (Kinds::NEW, None) => ("FlowCreated", Some("Nat44SessionCreate")),
        (_, Some(_)) => ("FlowDeleted", Some("Nat44SessionDelete")),
        _ => ("FlowUpdate", None),
    };
    say("IANA(FirewallEvent)", &event);
    if let Some(how) = how {
        let reason = match how.cause {
            Cause::ExpiredGc | Cause::ExpiredLookup => "IdleTimeout",
            Cause::EarlyDrop => "LackOfResources",
            Cause::TcpReopened | Cause::Reset => "EndOfFlow",
            Cause::Deleted | Cause::Flushed | Cause::NetnsGone => "ForcedEnd",
            Cause::NatClash | Cause::Lost | Cause::Other => "",
        };
        if !reason.is_empty() {
            say("IANA(FlowEndReason)", &reason);
        }
    }
    let translated = if icmp {
        (reply.src, reply.dst) != (orig.dst, orig.src)
    } else {
        *reply != orig.inverse()
    };
    if translated {
        say(&format!("IANA(PostNatsourceIpv{version}address)"), &reply.dst_ip());
        say(&format!("IANA(PostNatdestinationIpv{version}address)"), &reply.src_ip());
        if !icmp && orig.proto != proto::GRE {
            say("IANA(PostNaptsourceTransportPort)", &reply.dst_l4);
            say("IANA(PostNaptdestinationTransportPort)", &reply.src_l4);
        }
        if let Some(nat) = nat.filter(|_| nat_events && version == "4") {
            say("IANA(NatEvent)", &nat);
            say("IANA(ObservationTimeMilliseconds)", &(at / MS));
        }
    }
    say("IANA(FlowId)", &FLOW);
    if let Some(netns) = flow.netns {
        say("IANA(IngressVrfid)", &netns.inum);
    }
    if flow.mark != 0 {
        say("Enterprise { enterprise_number: 21373, field_number: 4 }", &flow.mark);
    }
    if let Some(id) = flow.id {
        say("Enterprise { enterprise_number: 21373, field_number: 6 }", &id);
    }
    fields
}

proptest! {
    #[test]
    fn any_flow_is_understood(
        flow in any_flow(),
        tag in proptest::sample::select(&[Kinds::NEW, Kinds::UPDATE, Kinds::DESTROY][..]),
        cause in proptest::sample::select(&Cause::ALL[..]),
        [told, started, nat_events] in any::<[bool; 3]>(),
    ) {
        let how = End { cause, portid: None, process: None };
        let ended = tag == Kinds::DESTROY;
        let record = FlowRecord {
            flow: &flow,
            tag,
            at: AT,
            start: started.then_some(AT - 3 * MS),
            end: ended.then_some(AT - 1),
            how: (ended && told).then_some(&how),
            nat_events,
        };
        let collector = understood(|out| record.write(out));
        prop_assert_eq!(collector.records, [expected(&record)]);
    }
}
