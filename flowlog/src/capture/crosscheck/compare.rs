//! Two accounts of one event → the fields in which they differ. What differs by
//! nature is no difference; each such rule is here, with a test, and in
//! docs/crosscheck.md with its reason.
//!
//! The accounts are given at two moments of one call in the kernel. eBPF looks
//! first at beginnings and changes (`__nf_conntrack_hash_insert`, the entry of
//! `ctnetlink_conntrack_event`), netlink first at ends (`nf_ct_delete` sends the
//! message before `__nf_ct_delete_from_lists`; net/netfilter/nf_conntrack_core.c,
//! 6.12). A packet on another processor may change the entry in between.

use crate::event::{Cause, Event, Expectation, Kinds};
use crate::flow::{Counters, Flow, Status};

/// Packets of one direction that another processor may count between the two
/// looks, and those that a flow table adds at once (`nf_ct_acct_add`).
const IN_FLIGHT: u64 = 64;
/// Seconds by which deadlines may differ: both are cut to whole ones, at two
/// moments.
const ROUNDING: u32 = 1;

/// Bits that a packet or the end of the flow may set between the two looks.
const RACING: Status = Status::SEEN_REPLY
    .union(Status::ASSURED)
    .union(Status::DYING)
    .union(Status::from_bits_retain(SEQ_ADJUST));
/// `IPS_SEQ_ADJUST` (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const SEQ_ADJUST: u32 = 1 << 6;
/// Bits that flow tables set and clear at any time.
const OFFLOADED: Status = Status::OFFLOAD.union(Status::HW_OFFLOAD);

/// Names of the fields in which the accounts of a flow's event differ, as
/// `conntrack` calls them.
pub(super) fn flows(ebpf: &Event, netlink: &Event, into: &mut Vec<&'static str>) {
    let ends = ebpf.kinds.contains(Kinds::DESTROY);
    let (first, second) = if ends { (netlink, ebpf) } else { (ebpf, netlink) };
    let (first, second) = (&first.flow, &second.flow);
    // Taken apart, so that nobody forgets a new field.
    let Flow {
        // Both are what the accounts were matched by.
        orig: _,
        zone: _,
        reply_zone,
        // Only netlink tells it.
        secctx: _,
        reply,
        status: _,
        counters: _,
        mark,
        // Netlink's, or paired with it.
        id: _,
        timeout: _,
        start,
        stop,
        l4_state: _,
        // Told by dumps only.
        uses: _,
        helper,
        labels,
        master,
        // What netlink does not know.
        netns: _,
    } = &ebpf.flow;
    let told = &netlink.flow;
    let mut differs = |name, yes: bool| {
        if yes {
            into.push(name);
        }
    };
    differs("reply", *reply != told.reply);
    differs("zone", *reply_zone != told.reply_zone);
    differs("mark", *mark != told.mark && !passed(first, second) && !in_use(ebpf));
    differs("status", !may_follow(first.status, second.status));
    differs("timeout", timeouts(first, second));
    differs("state", states(first, second));
    differs("counters", counters(first.counters, second.counters));
    differs("start", both(*start, told.start, |a, b| a != b));
    differs("stop", both(*stop, told.stop, |a, b| a != b));
    // Netlink tells these with the events that are about them, and labels and
    // helper of an end never (`ctnetlink_conntrack_event`,
    // net/netfilter/nf_conntrack_netlink.c, 6.12); eBPF tells them always.
    differs("helper", told.helper.is_some() && *helper != told.helper);
    differs("labels", told.labels.is_some() && *labels != told.labels);
    differs("master", told.master.is_some() && *master != told.master);
}

/// The same for expectations. Netlink tells no zone of them
/// (`ctnetlink_exp_dump_expect`, net/netfilter/nf_conntrack_netlink.c, 6.12), and
/// eBPF no helper where its module is gone.
pub(super) fn expectations(
    ebpf: &Expectation,
    netlink: &Expectation,
    into: &mut Vec<&'static str>,
) {
    // Taken apart, as above.
    let Expectation { action: _, tuple: _, master: _, zone: _, helper, netns: _ } = ebpf;
    if both(*helper, netlink.helper, |a, b| a != b) {
        into.push("helper");
    }
}

/// Whether an entry with the one status can have had the other just before.
fn may_follow(first: Status, second: Status) -> bool {
    let (first, second) = (first.difference(OFFLOADED), second.difference(OFFLOADED));
    second.contains(first) && RACING.contains(second.difference(first))
}

/// Whether the second look shows that a packet has passed since the first: it may
/// have set the mark by a rule too (`nft_ct_set_eval`, net/netfilter/nft_ct.c, 6.12).
fn passed(first: &Flow, second: &Flow) -> bool {
    let by_packets = |status: Status| status.intersection(Status::SEEN_REPLY | Status::ASSURED);
    by_packets(first.status) != by_packets(second.status)
        || both(first.counters, second.counters, |a, b| a != b)
}

/// Whether a packet that both looks have counted may still be on its way to the rule: the flow
/// ends, and not for want of packets.
fn in_use(ebpf: &Event) -> bool {
    let idle = |cause| matches!(cause, Cause::ExpiredGc | Cause::ExpiredLookup);
    ebpf.end.as_ref().is_some_and(|end| !idle(end.cause))
}

/// A deadline is about the state: where that has moved on, so has the deadline.
fn timeouts(first: &Flow, second: &Flow) -> bool {
    let moved =
        first.status != second.status || both(first.l4_state, second.l4_state, |a, b| a != b);
    !moved && both(first.timeout, second.timeout, |a, b| a.abs_diff(b) > ROUNDING)
}

/// The second look may show a state further on: the numbers of the states of
/// TCP and SCTP follow the life of a connection.
fn states(first: &Flow, second: &Flow) -> bool {
    both(first.l4_state, second.l4_state, |first, second| second < first)
}

/// The second look may have counted packets that were in flight.
fn counters(first: Option<[Counters; 2]>, second: Option<[Counters; 2]>) -> bool {
    both(first, second, |first, second| {
        first.iter().zip(&second).any(|(first, second)| {
            let packets = second.packets.checked_sub(first.packets);
            packets.is_none_or(|packets| packets > IN_FLIGHT) || second.bytes < first.bytes
        })
    })
}

/// Whether two values differ, where both are told.
fn both<T>(first: Option<T>, second: Option<T>, differ: impl FnOnce(T, T) -> bool) -> bool {
    match (first, second) {
        (Some(first), Some(second)) => differ(first, second),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{End, ExpectAction};
    use crate::flow::{HelperName, Tuple};

    fn event(kinds: Kinds, change: impl FnOnce(&mut Flow)) -> Event {
        let mut flow = Flow {
            status: Status::CONFIRMED,
            timeout: Some(30),
            l4_state: Some(3),
            ..Flow::default()
        };
        change(&mut flow);
        Event { kinds, flow, ..Event::default() }
    }

    fn found(
        kinds: Kinds,
        ebpf: impl FnOnce(&mut Flow),
        netlink: impl FnOnce(&mut Flow),
    ) -> Vec<&'static str> {
        let mut fields = Vec::new();
        flows(&event(kinds, ebpf), &event(kinds, netlink), &mut fields);
        fields
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn equal_accounts_do_not_differ() {
        for kinds in [Kinds::NEW, Kinds::UPDATE, Kinds::DESTROY] {
            assert_eq!(found(kinds, |_| {}, |_| {}), NONE);
        }
    }

    #[test]
    fn what_is_the_same_for_good_must_be_equal() {
        let other = Tuple { proto: 6, ..Tuple::default() };
        let new = |change: fn(&mut Flow)| found(Kinds::NEW, |_| {}, change);
        assert_eq!(found(Kinds::NEW, |_| {}, |flow| flow.reply = other), ["reply"]);
        assert_eq!(new(|flow| flow.mark = 1), ["mark"]);
        let ends = |change: fn(&mut Flow)| {
            let times = |flow: &mut Flow| (flow.start, flow.stop) = (Some(1), Some(2));
            found(Kinds::DESTROY, times, change)
        };
        assert_eq!(ends(|flow| (flow.start, flow.stop) = (Some(1), Some(2))), NONE);
        assert_eq!(ends(|flow| (flow.start, flow.stop) = (Some(2), Some(2))), ["start"]);
        assert_eq!(ends(|flow| (flow.start, flow.stop) = (Some(1), Some(3))), ["stop"]);
        assert_eq!(ends(|_| {}), NONE, "netlink does not tell them always");
    }

    #[test]
    fn status_may_gain_at_the_second_look() {
        let seen = |flow: &mut Flow| flow.status |= Status::SEEN_REPLY | Status::ASSURED;
        assert_eq!(found(Kinds::UPDATE, |_| {}, seen), NONE);
        assert_eq!(found(Kinds::UPDATE, seen, |_| {}), ["status"]);
        assert_eq!(found(Kinds::DESTROY, seen, |_| {}), NONE);
        assert_eq!(found(Kinds::DESTROY, |_| {}, seen), ["status"]);
        let nat = |flow: &mut Flow| flow.status |= Status::SRC_NAT;
        assert_eq!(found(Kinds::NEW, |_| {}, nat), ["status"], "NAT is settled before");
        let offloaded = |flow: &mut Flow| flow.status |= Status::OFFLOAD;
        assert_eq!(found(Kinds::UPDATE, offloaded, |_| {}), NONE);
    }

    #[test]
    fn timeouts_are_cut_to_seconds_and_follow_the_state() {
        assert_eq!(found(Kinds::NEW, |_| {}, |flow| flow.timeout = Some(29)), NONE);
        assert_eq!(found(Kinds::NEW, |_| {}, |flow| flow.timeout = Some(28)), ["timeout"]);
        assert_eq!(found(Kinds::NEW, |_| {}, |flow| flow.timeout = None), NONE);
        let moved = |flow: &mut Flow| (flow.timeout, flow.l4_state) = (Some(120), Some(4));
        assert_eq!(found(Kinds::UPDATE, |_| {}, moved), NONE);
    }

    #[test]
    fn states_go_on_and_not_back() {
        assert_eq!(found(Kinds::UPDATE, |_| {}, |flow| flow.l4_state = Some(2)), ["state"]);
        assert_eq!(found(Kinds::DESTROY, |flow| flow.l4_state = Some(7), |_| {}), NONE);
        assert_eq!(found(Kinds::UPDATE, |_| {}, |flow| flow.l4_state = None), NONE);
    }

    #[test]
    fn counters_may_have_packets_in_flight() {
        let count = |packets, bytes| {
            let counters = Counters { packets, bytes };
            move |flow: &mut Flow| flow.counters = Some([counters, Counters::default()])
        };
        assert_eq!(found(Kinds::DESTROY, count(5, 500), count(5, 500)), NONE);
        assert_eq!(found(Kinds::DESTROY, count(6, 600), count(5, 500)), NONE);
        assert_eq!(found(Kinds::DESTROY, count(4, 400), count(5, 500)), ["counters"]);
        assert_eq!(found(Kinds::DESTROY, count(70, 7000), count(5, 500)), ["counters"]);
        assert_eq!(found(Kinds::NEW, count(1, 40), |_| {}), NONE, "netlink tells them at ends");
    }

    #[test]
    fn a_packet_in_flight_may_set_the_mark() {
        let count = |packets, mark| {
            let counters = Counters { packets, bytes: 29 * packets };
            move |flow: &mut Flow| {
                flow.counters = Some([Counters::default(), counters]);
                flow.mark = mark;
            }
        };
        assert_eq!(found(Kinds::DESTROY, count(1, 43), count(0, 42)), NONE);
        assert_eq!(found(Kinds::DESTROY, count(1, 43), count(1, 42)), ["mark"]);
        let replied =
            |flow: &mut Flow| (flow.status, flow.mark) = (flow.status | Status::SEEN_REPLY, 43);
        assert_eq!(found(Kinds::UPDATE, |_| {}, replied), NONE);
        let ended_by = |cause| {
            let end = |mark| Event {
                end: Some(End { cause, portid: None, process: None }),
                ..event(Kinds::DESTROY, |flow| flow.mark = mark)
            };
            let mut fields = Vec::new();
            flows(&end(43), &end(42), &mut fields);
            fields
        };
        assert_eq!(ended_by(Cause::EarlyDrop), NONE);
        assert_eq!(ended_by(Cause::ExpiredGc), ["mark"]);
        assert_eq!(found(Kinds::UPDATE, |flow| flow.mark = 42, |flow| flow.mark = 43), ["mark"]);
    }

    #[test]
    fn expectations_differ_in_their_helper_only() {
        let told = |zone, helper: &[u8]| Expectation {
            action: ExpectAction::New,
            tuple: Tuple::default(),
            master: Tuple::default(),
            zone,
            helper: (!helper.is_empty()).then(|| HelperName::new(helper)),
            netns: None,
        };
        let found = |ebpf, netlink| {
            let mut fields = Vec::new();
            expectations(&ebpf, &netlink, &mut fields);
            fields
        };
        assert_eq!(found(told(7, b"ftp"), told(0, b"ftp")), NONE);
        assert_eq!(found(told(0, b"ftp"), told(0, b"sip")), ["helper"]);
        assert_eq!(found(told(0, b""), told(0, b"sip")), NONE);
    }

    #[test]
    fn what_netlink_says_of_helper_labels_and_master_must_be_so() {
        let ftp = |flow: &mut Flow| flow.helper = Some(HelperName::new(b"ftp"));
        assert_eq!(found(Kinds::NEW, ftp, ftp), NONE);
        assert_eq!(found(Kinds::DESTROY, ftp, |_| {}), NONE);
        assert_eq!(found(Kinds::NEW, |_| {}, ftp), ["helper"]);
        let labels = |flow: &mut Flow| flow.labels = Some([1; 16]);
        assert_eq!(found(Kinds::UPDATE, labels, |_| {}), NONE);
        assert_eq!(found(Kinds::UPDATE, |_| {}, labels), ["labels"]);
        let master = |flow: &mut Flow| flow.master = Some(Tuple::default());
        assert_eq!(found(Kinds::NEW, |_| {}, master), ["master"]);
    }
}
