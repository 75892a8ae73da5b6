//! Random records, and the rows that they must become, told in another way than
//! the archive's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::option;
use proptest::prelude::*;

use super::NOON;
use crate::event::{Cause, End, ExpectAction, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::{Counters, Family, Flow, Name, Netns, Status, Tuple, names, proto};
use crate::plugin::{Body, Item};

/// An item that borrows nothing.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    at: u64,
    kinds: Kinds,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Flow {
        flow: Box<Flow>,
        start: Option<u64>,
        end: Option<u64>,
        how: Option<End>,
        witness: Witness,
    },
    Expectation(Expectation),
    Lost(u64),
}

/// A row that is being told.
#[derive(Default)]
struct Row(BTreeMap<String, String>);

impl Row {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn tuple(&mut self, prefix: &str, tuple: &Tuple) {
        self.set(&format!("{prefix}_src"), text(tuple.src_ip()));
        self.set(&format!("{prefix}_dst"), text(tuple.dst_ip()));
        let (sport, dport) = ports(tuple);
        self.maybe(&format!("{prefix}_sport"), sport);
        self.maybe(&format!("{prefix}_dport"), dport);
    }

    /// Returns whether it is ICMP.
    fn orig(&mut self, orig: &Tuple) -> bool {
        self.set("protocol", orig.proto);
        self.tuple("orig", orig);
        let icmp = [proto::ICMP, proto::ICMPV6].contains(&orig.proto);
        self.maybe("icmp_type", icmp.then(|| orig.icmp_type()));
        self.maybe("icmp_code", icmp.then(|| orig.icmp_code()));
        icmp
    }

    fn netns(&mut self, netns: Option<Netns>) {
        self.maybe("netns_cookie", netns.and_then(|netns| netns.cookie));
        self.maybe("netns_inode", netns.map(|netns| netns.inum));
    }

    fn flow(&mut self, flow: &Flow) {
        let Flow { orig, reply, .. } = flow;
        let icmp = self.orig(orig);
        let (sport, dport) = ports(orig);
        let answered = if icmp { reply.src_l4 } else { reply.dst_l4 };
        if reply.dst != orig.src || (sport.is_some() && answered != orig.src_l4) {
            self.set("nat_src", text(reply.dst_ip()));
            self.maybe("nat_sport", sport.map(|_| answered));
        }
        if reply.src != orig.dst || (dport.is_some() && reply.src_l4 != orig.dst_l4) {
            self.set("nat_dst", text(reply.src_ip()));
            self.maybe("nat_dport", dport.map(|_| reply.src_l4));
        }
        for (direction, name) in ["orig", "reply"].into_iter().enumerate() {
            let counted = flow.counters.map(|counters| counters[direction]);
            self.maybe(&format!("{name}_packets"), counted.map(|c| c.packets));
            self.maybe(&format!("{name}_bytes"), counted.map(|c| c.bytes));
        }
        self.set("zone", flow.zone);
        self.set("mark", flow.mark);
        self.maybe("ct_id", flow.id);
        self.netns(flow.netns);
        self.set("status", flow.status.bits());
        self.maybe("state", flow.l4_state.and_then(|state| names::state(orig.proto, state)));
        self.maybe("helper", flow.helper.map(name));
        self.maybe("labels", flow.labels.map(|labels| format!("{labels:?}")));
        if let Some(master) = &flow.master {
            self.set("master_protocol", master.proto);
            self.tuple("master", master);
        }
    }
}

/// glibc's text, which is the standard library's for these.
fn text(address: IpAddr) -> String {
    address.to_string()
}

fn name(name: Name) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

fn ports(tuple: &Tuple) -> (Option<u16>, Option<u16>) {
    match tuple.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP | proto::GRE => {
            (Some(tuple.src_l4), Some(tuple.dst_l4))
        }
        proto::ICMP | proto::ICMPV6 => (Some(tuple.src_l4), None),
        _ => (None, None),
    }
}

impl Owned {
    pub(super) fn item(&self) -> Item<'_> {
        let body = match &self.what {
            What::Flow { flow, start, end, how, witness } => Body::Flow {
                flow,
                start: *start,
                end: *end,
                how: how.as_ref(),
                counted: true,
                witness: *witness,
            },
            What::Expectation(expectation) => Body::Expectation(expectation),
            What::Lost(events) => Body::Lost(Lost {
                since: self.at.saturating_sub(super::MINUTE),
                ..Lost::noticed("netlink", *events, self.at)
            }),
        };
        Item { tag: self.kinds, at: self.at, body }
    }

    /// What the archive must have of it.
    pub(super) fn row(&self) -> BTreeMap<String, String> {
        let mut row = Row::default();
        row.set("time", self.at);
        row.set("host", "gate");
        match &self.what {
            What::Flow { flow, start, end, how, witness } => {
                let kinds = Kinds::NAMES.iter().filter(|(kind, _)| self.kinds.contains(*kind));
                let kinds: Vec<_> = kinds.map(|(_, name)| name.to_lowercase()).collect();
                row.set("kind", kinds.join(","));
                row.flow(flow);
                row.maybe("start", *start);
                row.maybe("stop", *end);
                row.maybe("cause", how.map(|how| how.cause.name()));
                row.maybe("portid", how.and_then(|how| how.portid));
                let process = how.and_then(|how| how.process);
                row.maybe("pid", process.map(|process| process.pid));
                row.maybe("comm", process.map(|process| name(process.comm)));
                row.maybe("witness", witness.name());
            }
            What::Expectation(expectation) => {
                row.set("kind", "expect");
                row.set("action", expectation.action.name());
                row.orig(&expectation.tuple);
                row.set("master_protocol", expectation.master.proto);
                row.tuple("master", &expectation.master);
                row.set("zone", expectation.zone);
                row.maybe("helper", expectation.helper.map(name));
                row.netns(expectation.netns);
            }
            What::Lost(events) => {
                row.set("kind", "lost");
                row.set("lost_source", "netlink");
                row.set("lost_events", events);
            }
        }
        row.0
    }
}

/// A loss of so many events.
pub(super) fn loss(at: u64, events: u64) -> Owned {
    Owned { at, kinds: Kinds::empty(), what: What::Lost(events) }
}

/// The end of a connection of that number.
pub(super) fn connection(at: u64, number: u32) -> Owned {
    let mut orig =
        Tuple { proto: proto::TCP, src_l4: number as u16, dst_l4: 443, ..Tuple::default() };
    orig.src[..4].copy_from_slice(&(number % 977).to_be_bytes());
    orig.dst[..4].copy_from_slice(&(number.wrapping_mul(0x9e37_79b1)).to_be_bytes());
    let flow = Flow { orig, reply: orig.inverse(), ..Flow::default() };
    let what = What::Flow {
        flow: flow.into(),
        start: Some(at),
        end: Some(at),
        how: None,
        witness: Witness::Single,
    };
    Owned { at, kinds: Kinds::DESTROY, what }
}

prop_compose! {
    fn any_tuple()(v6: bool, src: [u8; 16], dst: [u8; 16], ports: (u16, u16),
        proto in prop::sample::select(vec![0, 1, 2, 6, 17, 33, 47, 50, 58, 132, 136])) -> Tuple {
        let keep = |mut address: [u8; 16]| {
            if v6 {
                // glibc has a form of its own for those that begin with zeros.
                address[0] |= 0x20;
            } else {
                address[4..].fill(0);
            }
            address
        };
        let family = if v6 { Family::V6 } else { Family::V4 };
        let mut tuple = Tuple {
            family, proto, src: keep(src), dst: keep(dst), src_l4: ports.0, dst_l4: ports.1,
        };
        if matches!(proto, 0 | 2 | 50) {
            (tuple.src_l4, tuple.dst_l4) = (0, 0);
        }
        tuple
    }
}

prop_compose! {
    /// Translated or not, in each of its parts.
    fn any_tuples()(orig in any_tuple(), other in any_tuple(), bits: u8) -> (Tuple, Tuple) {
        let mut reply = orig.inverse();
        if matches!(orig.proto, proto::ICMP | proto::ICMPV6) {
            (reply.src_l4, reply.dst_l4) = (orig.src_l4, orig.dst_l4 ^ 0x800);
        }
        let takes = |bit| bits & bit != 0 && other.family == orig.family;
        if takes(1) { reply.src = other.src; }
        if takes(2) { reply.dst = other.dst; }
        let (sport, dport) = ports(&orig);
        if takes(4) && dport.is_some() { reply.src_l4 = other.src_l4; }
        if takes(8) && sport.is_some() {
            if dport.is_some() { reply.dst_l4 = other.dst_l4; } else { reply.src_l4 = other.src_l4; }
        }
        (orig, reply)
    }
}

fn any_name() -> impl Strategy<Value = Option<Name>> {
    let name = prop::collection::vec(1_u8.., 1..16).prop_map(|bytes| Name::new(&bytes));
    option::of(name)
}

fn any_netns() -> impl Strategy<Value = Option<Netns>> {
    let netns = (any::<Option<u64>>(), any::<u32>());
    option::of(netns.prop_map(|(cookie, inum)| Netns { cookie, inum }))
}

prop_compose! {
    fn any_flow()((orig, reply) in any_tuples(), status: u32, counters: Option<[(u64, u64); 2]>,
        (zone, mark, id) in any::<(u16, u32, Option<u32>)>(), state in option::of(0_u8..10),
        helper in any_name(), labels: Option<[u8; 16]>, master in option::of(any_tuple()),
        netns in any_netns()) -> Flow {
        let counters = counters.map(|both| {
            both.map(|(packets, bytes)| Counters { packets, bytes })
        });
        let l4_state = state.filter(|_| names::state(orig.proto, 0).is_some());
        Flow {
            orig, reply, status: Status::from_bits_retain(status), counters, zone, mark, id,
            l4_state, helper, labels, master, netns, ..Flow::default()
        }
    }
}

fn any_end() -> impl Strategy<Value = Option<End>> {
    let end = (prop::sample::select(&Cause::ALL), any::<Option<u32>>(), any::<u32>(), any_name());
    option::of(end.prop_map(|(cause, portid, pid, comm)| End {
        cause,
        portid,
        process: comm.map(|comm| Process { pid, comm }),
    }))
}

fn any_event() -> impl Strategy<Value = (Kinds, What)> {
    let kinds = prop::sample::select(vec![
        Kinds::NEW,
        Kinds::UPDATE,
        Kinds::UPDATE | Kinds::ASSURED | Kinds::CONFIRMED | Kinds::HELPER,
        Kinds::DESTROY,
        Kinds::DESTROY | Kinds::GC,
    ]);
    let witness =
        prop::sample::select(vec![Witness::Single, Witness::Both, Witness::Ebpf, Witness::Healed]);
    let times = any::<(Option<u32>, Option<u32>)>();
    (kinds, any_flow(), times, any_end(), witness).prop_map(|(kinds, flow, times, how, witness)| {
        let time = |past: u32| NOON - u64::from(past);
        let what = What::Flow {
            flow: flow.into(),
            start: times.0.map(time),
            end: times.1.map(time),
            how,
            witness,
        };
        (kinds, what)
    })
}

prop_compose! {
    fn any_expectation()(tuple in any_tuple(), master in any_tuple(), zone: u16,
        helper in any_name(), netns in any_netns(), action in 0..3_usize) -> (Kinds, What) {
        let action = [ExpectAction::New, ExpectAction::Update, ExpectAction::Destroy][action];
        let expectation = Expectation { action, tuple, master, zone, helper, netns };
        (Kinds::EXPECT, What::Expectation(expectation))
    }
}

/// Any record within a minute.
pub(super) fn any_item() -> impl Strategy<Value = Owned> {
    let lost = (1..=u64::from(u32::MAX)).prop_map(|events| (Kinds::empty(), What::Lost(events)));
    let what = prop_oneof![6 => any_event(), 1 => any_expectation(), 1 => lost];
    (0..60_000_000_000_u64, what).prop_map(|(after, (kinds, what))| Owned {
        at: NOON + after,
        kinds,
        what,
    })
}
