//! Which events are shown. What the kernel can refuse is refused there; all of
//! it is looked at again here, as the kernel's word is coarser.

use crate::capture::filter::{self, Filter, Network};
use crate::event::{Cause, Event, Expectation, Kinds};
use crate::flow::Tuple;
use crate::plugin::nfct;

/// What the command line selects. An empty list selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Kinds of events.
    pub kinds: Kinds,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
    /// Networks of the original direction's source.
    pub sources: Vec<Network>,
    /// Networks of the original direction's destination, before NAT.
    pub destinations: Vec<Network>,
    /// Ports of either end in either direction.
    pub ports: Vec<u16>,
    /// Why flows ended: nothing but ends is shown then.
    pub causes: Vec<Cause>,
}

impl Selection {
    /// Ends of flows.
    const ENDS: Kinds = Kinds::DESTROY.union(Kinds::GC);

    /// Refuses what selects nothing.
    pub(in crate::verb) fn check(&self) -> Result<(), String> {
        if self.mask().is_empty() {
            return Err("`--cause` is about ends, and `--event` leaves them out; add destroy to \
                        --event, or leave it out"
                .to_owned());
        }
        Ok(())
    }

    /// Netlink cannot tell what is asked for.
    pub(in crate::verb) fn needs_ebpf(&self) -> bool {
        !self.causes.is_empty() || self.kinds.contains(Kinds::GC)
    }

    /// Kinds of events that are wanted at all.
    pub(in crate::verb) fn mask(&self) -> Kinds {
        if self.causes.is_empty() { self.kinds } else { self.kinds & Self::ENDS }
    }

    /// What the kernel can refuse.
    pub(in crate::verb) fn pushed_down(&self) -> Filter {
        let only = |networks: &[Network], only: fn(Vec<Network>) -> Vec<Network>| {
            if networks.is_empty() { Vec::new() } else { only(networks.to_vec()) }
        };
        Filter {
            sources: only(&self.sources, filter::only_sources),
            destinations: only(&self.destinations, filter::only_destinations),
            protocols: self.protocols.clone(),
        }
    }

    /// What of an event is shown; empty: nothing.
    pub(in crate::verb) fn tag(&self, event: &Event) -> Kinds {
        let Event { flow, end, .. } = event;
        let cause = self.causes.is_empty()
            || end.as_ref().is_some_and(|end| self.causes.contains(&end.cause));
        if cause && self.has(&flow.orig) && self.has_port([&flow.orig, &flow.reply]) {
            nfct::tag(nfct::told(event), self.mask())
        } else {
            Kinds::empty()
        }
    }

    /// Whether an expectation is shown.
    pub(in crate::verb) fn shows(&self, expectation: &Expectation) -> bool {
        self.mask().contains(Kinds::EXPECT)
            && self.has(&expectation.tuple)
            && self.has_port([&expectation.tuple, &expectation.master])
    }

    /// Whether addresses and protocol are selected.
    pub(in crate::verb) fn has(&self, orig: &Tuple) -> bool {
        let within = |networks: &[Network], address| {
            networks.is_empty() || networks.iter().any(|n| n.contains(orig.family, address))
        };
        within(&self.sources, &orig.src)
            && within(&self.destinations, &orig.dst)
            && (self.protocols.is_empty() || self.protocols.contains(&orig.proto))
    }

    /// Whether a port of one of these is selected.
    pub(in crate::verb) fn has_port(&self, tuples: [&Tuple; 2]) -> bool {
        let among = |tuple: &Tuple| {
            tuple.has_ports()
                && [tuple.src_l4, tuple.dst_l4].iter().any(|port| self.ports.contains(port))
        };
        self.ports.is_empty() || tuples.into_iter().any(among)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ended, expectation, tcp, udp6};
    use super::*;
    use crate::flow::proto;

    fn all() -> Selection {
        let kinds = Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY | Kinds::EXPECT;
        Selection { kinds, ..Selection::default() }
    }

    fn shows(selection: &Selection, event: &Event) -> bool {
        !selection.tag(event).is_empty()
    }

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn everything_is_shown_unless_something_is_said() {
        for event in [tcp(Kinds::NEW), ended(Cause::Deleted), udp6(Kinds::UPDATE)] {
            assert_eq!(all().tag(&event), event.kinds & Kinds::all().difference(Kinds::GC));
        }
        assert!(all().shows(&expectation()));
        assert_eq!(all().pushed_down(), Filter::default());
    }

    #[test]
    fn kinds_are_those_of_the_mask() {
        let assured = Selection { kinds: Kinds::ASSURED | Kinds::UPDATE, ..all() };
        let mut event = tcp(Kinds::UPDATE);
        event.transitions = Some(Kinds::ASSURED);
        assert_eq!(assured.tag(&event), Kinds::ASSURED);
        event.transitions = Some(Kinds::empty());
        assert_eq!(assured.tag(&event), Kinds::UPDATE);
        assert!(!shows(&assured, &tcp(Kinds::NEW)) && !assured.shows(&expectation()));
    }

    #[test]
    fn addresses_of_one_family_refuse_the_other() {
        let from = Selection { sources: networks(&["10.77.0.0/16"]), ..all() };
        assert!(shows(&from, &tcp(Kinds::NEW)) && !shows(&from, &udp6(Kinds::NEW)));
        let pushed = from.pushed_down();
        assert!(pushed.accepts(&tcp(Kinds::NEW).flow.orig));
        assert!(!pushed.accepts(&udp6(Kinds::NEW).flow.orig));
        let to = Selection { destinations: networks(&["fd77:2::2/128", "fd78::/16"]), ..all() };
        assert!(!shows(&to, &tcp(Kinds::NEW)) && shows(&to, &udp6(Kinds::NEW)));
        assert!(!to.pushed_down().accepts(&tcp(Kinds::NEW).flow.orig));
        let to = Selection { destinations: networks(&["10.77.2.0/24"]), ..all() };
        assert!(!shows(&to, &tcp(Kinds::NEW)));
    }

    #[test]
    fn protocols_and_ports_of_either_end() {
        let udp = Selection { protocols: vec![proto::UDP], ..all() };
        assert!(!shows(&udp, &tcp(Kinds::NEW)) && shows(&udp, &udp6(Kinds::NEW)));
        let port = |port| Selection { ports: vec![7, port], ..all() };
        // As sent, as answered, and neither.
        for (number, shown) in [(40003, true), (8080, true), (9000, true), (9001, false)] {
            assert_eq!(shows(&port(number), &tcp(Kinds::NEW)), shown, "{number}");
        }
        assert!(port(21).shows(&expectation()) && !port(22).shows(&expectation()));
        let mut ping = tcp(Kinds::NEW);
        ping.flow.orig.proto = proto::ICMP;
        ping.flow.reply.proto = proto::ICMP;
        assert!(!shows(&port(40003), &ping), "no ports");
    }

    #[test]
    fn causes_leave_ends_only() {
        let deleted = Selection { causes: vec![Cause::Deleted, Cause::Flushed], ..all() };
        assert!(shows(&deleted, &ended(Cause::Deleted)) && shows(&deleted, &ended(Cause::Flushed)));
        assert!(!shows(&deleted, &ended(Cause::Reset)) && !shows(&deleted, &tcp(Kinds::NEW)));
        assert_eq!(deleted.mask(), Kinds::DESTROY);
        assert!(!deleted.shows(&expectation()) && deleted.needs_ebpf());
        let none = Selection { kinds: Kinds::NEW, ..deleted };
        assert!(none.check().unwrap_err().contains("add destroy"));
    }
}
