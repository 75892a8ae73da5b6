//! `schema=full`: all that is known of an event, typed, and nothing that is not
//! known. docs/flow.schema.json describes it; `flowlog list -o json` has the
//! same members of a flow.

use super::text::Text;
use crate::event::{End, Expectation, Kinds, Lost, Witness};
use crate::flow::{Counters, Flow, Netns, Tuple, names, proto};
use crate::plugin::ip2str::{self, Addresses};
use crate::plugin::{Body, Item};

/// Names of kinds, in the order in which they are written.
pub(crate) const KINDS: [(Kinds, &str); 8] = [
    (Kinds::NEW, "new"),
    (Kinds::UPDATE, "update"),
    (Kinds::DESTROY, "destroy"),
    (Kinds::CONFIRMED, "confirmed"),
    (Kinds::ASSURED, "assured"),
    (Kinds::EXPECT, "expect"),
    (Kinds::HELPER, "helper"),
    (Kinds::GC, "gc"),
];

/// Writes the members of `item`. IP2STR need not stand before.
pub(super) fn members(item: &Item<'_>, addresses: &Addresses, out: &mut Text) {
    match item.body {
        Body::Flow { flow, start, end, how, counted: _, witness } => {
            out.string("type", b"flow");
            let kinds = KINDS.iter().filter(|(kind, _)| item.tag.contains(*kind));
            out.list("kinds", kinds.map(|(_, name)| *name));
            out.time("time", item.at);
            self::flow(flow, addresses, start, out);
            if let Some(end) = end {
                out.time("end", end);
            }
            if let Some(how) = how {
                self::how(how, out);
            }
            self::witness(witness, out);
        }
        Body::Expectation(expectation) => {
            out.string("type", b"expectation");
            out.time("time", item.at);
            self::expectation(expectation, addresses, out);
        }
        Body::Lost(Lost { source, events, since, at: _ }) => {
            out.string("type", b"lost");
            out.time("time", item.at);
            if since < item.at {
                out.time("since", since);
            }
            out.number("events", events);
            out.string("source", source.as_bytes());
        }
    }
}

/// The members of a flow as far as the kernel's entry has them, with the
/// `start` that is known.
pub(super) fn flow(flow: &Flow, addresses: &Addresses, start: Option<u64>, out: &mut Text) {
    let Flow {
        orig,
        reply,
        status,
        counters,
        zone,
        reply_zone,
        mark,
        id,
        timeout,
        // Both may be known better than the entry tells.
        start: _,
        stop: _,
        l4_state,
        uses,
        helper,
        labels,
        secctx,
        master,
        netns,
    } = flow;
    family_and_protocol(orig, out);
    if let Some(state) = l4_state.and_then(|value| names::state(orig.proto, value)) {
        out.string("state", state.as_bytes());
    }
    optional("timeout", *timeout, out);
    let [sent, answered] = counters.map_or([None; 2], |counters| counters.map(Some));
    direction("orig", orig, &addresses.orig, sent, out);
    direction("reply", reply, &addresses.reply, answered, out);
    let set = names::STATUS.iter().filter(|(bit, _)| status.contains(*bit));
    out.list("status", set.map(|(_, name)| *name));
    out.number("mark", *mark);
    out.number("zone", *zone);
    optional("reply_zone", *reply_zone, out);
    optional("id", *id, out);
    optional("use", *uses, out);
    if let Some(start) = start {
        out.time("start", start);
    }
    if let Some(helper) = helper {
        out.string("helper", helper.as_bytes());
    }
    if let Some(labels) = labels {
        out.hex("labels", labels);
    }
    if let Some(secctx) = secctx {
        out.string("secctx", secctx.as_bytes());
    }
    if let Some(master) = master {
        let mut texts = ip2str::Pair::default();
        texts.set(master);
        direction("master", master, &texts, None, out);
    }
    self::netns(*netns, out);
}

fn expectation(expectation: &Expectation, addresses: &Addresses, out: &mut Text) {
    let Expectation { action, tuple, master, helper, zone, netns } = expectation;
    out.string("action", action.name().as_bytes());
    family_and_protocol(tuple, out);
    direction("orig", tuple, &addresses.orig, None, out);
    direction("master", master, &addresses.master, None, out);
    out.number("zone", *zone);
    if let Some(helper) = helper {
        out.string("helper", helper.as_bytes());
    }
    self::netns(*netns, out);
}

fn family_and_protocol(tuple: &Tuple, out: &mut Text) {
    out.string("family", names::family(tuple.family).as_bytes());
    out.object("protocol", |out| {
        if let Some(name) = names::protocol(tuple.proto) {
            out.string("name", name.as_bytes());
        }
        out.number("number", tuple.proto);
    });
}

fn direction(
    name: &str,
    tuple: &Tuple,
    texts: &ip2str::Pair,
    counters: Option<Counters>,
    out: &mut Text,
) {
    out.object(name, |out| {
        self::tuple(tuple, texts, out);
        if let Some(Counters { packets, bytes }) = counters {
            out.number("packets", packets);
            out.number("bytes", bytes);
        }
    });
}

/// The members of a direction that are not counters.
pub(super) fn tuple(tuple: &Tuple, texts: &ip2str::Pair, out: &mut Text) {
    out.string("src", texts.src.as_bytes());
    out.string("dst", texts.dst.as_bytes());
    match tuple.proto {
        _ if tuple.has_ports() => {
            out.number("sport", tuple.src_l4);
            out.number("dport", tuple.dst_l4);
        }
        proto::GRE => {
            out.number("srckey", tuple.src_l4);
            out.number("dstkey", tuple.dst_l4);
        }
        proto::ICMP | proto::ICMPV6 => {
            out.number("type", tuple.icmp_type());
            out.number("code", tuple.icmp_code());
            out.number("id", tuple.src_l4);
        }
        _ => {}
    }
}

fn netns(netns: Option<Netns>, out: &mut Text) {
    let Some(Netns { cookie, inum }) = netns else { return };
    out.object("netns", |out| {
        optional("cookie", cookie, out);
        out.number("inum", inum);
    });
}

fn how(how: &End, out: &mut Text) {
    let End { cause, portid, process } = how;
    out.string("cause", cause.name().as_bytes());
    optional("portid", *portid, out);
    if let Some(process) = process {
        out.object("process", |out| {
            out.number("pid", process.pid);
            out.string("comm", process.comm.as_bytes());
        });
    }
}

fn witness(witness: Witness, out: &mut Text) {
    if let Some(name) = witness.name() {
        out.string("witness", name.as_bytes());
    }
}

fn optional(name: &str, value: Option<impl Into<u64>>, out: &mut Text) {
    if let Some(value) = value {
        out.number(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_called_as_in_lines() {
        let names = Kinds::NAMES.map(|(kind, name)| (kind, name.to_ascii_lowercase()));
        assert_eq!(KINDS.map(|(kind, name)| (kind, name.to_owned())), names);
    }
}
