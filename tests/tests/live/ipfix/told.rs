//! Records as each collector tells them, by names that all have in common.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::lines::{Multiset, multiset};

/// A record by names that all have in common; what is not known is empty.
pub(super) type Told = BTreeMap<&'static str, String>;

pub(super) const NAMES: [&str; 11] = [
    "src",
    "dst",
    "sport",
    "dport",
    "first",
    "last",
    "packets",
    "bytes",
    "reply_packets",
    "reply_bytes",
    "protocol",
];
pub(super) const NAT: [&str; 4] = ["nat_src", "nat_dst", "nat_sport", "nat_dport"];

/// Records as text, with these of their members.
pub(super) fn texts(records: &[Told], names: &[&str]) -> Multiset {
    let text = |told: &Told| -> String {
        let member = |name: &&str| format!("{name}={} ", told.get(*name).map_or("", |v| v));
        names.iter().map(member).collect()
    };
    multiset(records.iter().map(text))
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// To the millisecond, as `2026-11-22T10:29:22.553`.
fn moment(text: &str) -> String {
    text.replace(' ', "T").chars().take(23).collect()
}

/// What a record of JSON says, by the names of all.
pub(super) fn logged(record: &Value) -> Told {
    let mut told = Told::new();
    let [orig, reply] = [&record["orig"], &record["reply"]];
    let kinds = record["kinds"].as_array().map_or(&[][..], |kinds| kinds);
    let is = |kind: &str| kinds.iter().any(|word| word == kind);
    let protocol = record["protocol"]["number"].as_u64().unwrap_or_default();
    let icmp = matches!(protocol, 1 | 58);
    let port = |tuple: &Value, icmp_name: &str, name: &str| match &tuple
        [if icmp { icmp_name } else { name }]
    {
        Value::Null => "0".to_owned(),
        number => word(number),
    };
    told.insert("src", word(&orig["src"]));
    told.insert("dst", word(&orig["dst"]));
    told.insert("sport", port(orig, "type", "sport"));
    told.insert("dport", port(orig, "code", "dport"));
    told.insert("protocol", protocol.to_string());
    let first = if record["start"].is_null() { &record["time"] } else { &record["start"] };
    told.insert("first", moment(&word(first)));
    let last = if record["end"].is_null() { &record["time"] } else { &record["end"] };
    told.insert("last", moment(&word(last)));
    let counter = |tuple: &Value, name: &str| match &tuple[name] {
        Value::Number(number) if is("destroy") => number.to_string(),
        _ => "0".to_owned(),
    };
    told.insert("packets", counter(orig, "packets"));
    told.insert("bytes", counter(orig, "bytes"));
    told.insert("reply_packets", counter(reply, "packets"));
    told.insert("reply_bytes", counter(reply, "bytes"));
    told.insert("event", if is("destroy") { "2" } else { "1" }.to_owned());
    let same = |a: &str, b: &str| reply[a] == orig[b];
    let ports = icmp || same("sport", "dport") && same("dport", "sport");
    if !(same("src", "dst") && same("dst", "src") && ports) {
        told.insert("nat_src", word(&reply["dst"]));
        told.insert("nat_dst", word(&reply["src"]));
        told.insert("nat_sport", word(&reply["dport"]));
        told.insert("nat_dport", word(&reply["sport"]));
        if record["family"] == "ipv4" {
            told.insert("nat_event", if is("destroy") { "5" } else { "4" }.to_owned());
        }
    }
    let closed = ["TIME_WAIT", "CLOSE"].iter().any(|state| record["state"] == *state);
    if closed && protocol == 6 && is("destroy") {
        told.insert("reason", "3".to_owned());
    }
    told
}

/// What a record of `nfdump -o json` says. It knows no IPv6 addresses behind NAT.
pub(super) fn from_nfdump(record: &Value) -> Told {
    let member = |names: &[&str]| {
        let found = names.iter().map(|name| &record[*name]).find(|value| !value.is_null());
        found.map_or_else(String::new, word)
    };
    let number = |name: &str| record[name].as_u64().unwrap_or_default().to_string();
    Told::from([
        ("src", member(&["src4_addr", "src6_addr"])),
        ("dst", member(&["dst4_addr", "dst6_addr"])),
        ("sport", member(&["icmp_type", "src_port"])),
        ("dport", member(&["icmp_code", "dst_port"])),
        ("protocol", member(&["proto"])),
        ("first", member(&["first"])),
        ("last", member(&["last"])),
        ("packets", number("in_packets")),
        ("bytes", number("in_bytes")),
        ("reply_packets", number("out_packets")),
        ("reply_bytes", number("out_bytes")),
        ("nat_src", member(&["src4_xlt_ip"])),
        ("nat_dst", member(&["dst4_xlt_ip"])),
        ("nat_sport", member(&["src_xlt_port"])),
        ("nat_dport", member(&["dst_xlt_port"])),
        ("nat_event", member(&["nat_event_id"])),
    ])
}

/// The same of a row of `nfdump -o csv`, which has whole seconds and no NAT.
pub(super) fn from_csv(row: &[(String, String)]) -> Told {
    let cell = |name: &str| {
        row.iter().find(|(column, _)| column == name).map_or_else(String::new, |(_, v)| v.clone())
    };
    Told::from([
        ("src", cell("sa")),
        ("dst", cell("da")),
        ("first", moment(&cell("ts"))),
        ("last", moment(&cell("te"))),
        ("packets", cell("ipkt")),
        ("bytes", cell("ibyt")),
        ("reply_packets", cell("opkt")),
        ("reply_bytes", cell("obyt")),
    ])
}

/// Names of nfacctd for protocols.
const PROTOCOLS: [(&str, &str); 9] = [
    ("tcp", "6"),
    ("udp", "17"),
    ("icmp", "1"),
    ("ipv6-icmp", "58"),
    ("gre", "47"),
    ("esp", "50"),
    ("ah", "51"),
    ("ospf", "89"),
    ("sctp", "132"),
];

/// What a record of nfacctd says. It knows nothing of ICMP's types.
pub(super) fn from_nfacctd(record: &Value) -> Told {
    let filled = |name: &str| {
        let text = word(&record[name]);
        if matches!(text.as_str(), "0" | "::") { String::new() } else { text }
    };
    let either = |v4: &str, v6: &str| if filled(v4).is_empty() { filled(v6) } else { filled(v4) };
    let protocol = word(&record["ip_proto"]);
    let number = PROTOCOLS.iter().find(|(name, _)| *name == protocol);
    Told::from([
        ("src", word(&record["ip_src"])),
        ("dst", word(&record["ip_dst"])),
        ("sport", word(&record["port_src"])),
        ("dport", word(&record["port_dst"])),
        ("protocol", number.map_or(protocol, |(_, number)| (*number).to_owned())),
        ("first", moment(&word(&record["timestamp_start"]))),
        ("last", moment(&word(&record["timestamp_end"]))),
        ("packets", word(&record["packets"])),
        ("bytes", word(&record["bytes"])),
        ("reply_packets", word(&record["reply_packets"])),
        ("reply_bytes", word(&record["reply_bytes"])),
        ("nat_src", either("post_nat_ip_src", "nat_src6")),
        ("nat_dst", either("post_nat_ip_dst", "nat_dst6")),
        ("nat_sport", filled("post_nat_port_src")),
        ("nat_dport", filled("post_nat_port_dst")),
        ("nat_event", filled("nat_event")),
        ("event", word(&record["event"])),
        ("reason", filled("reason")),
    ])
}

/// What libfixbuf understands of a record.
pub(super) fn from_dump(fields: &[(String, String)]) -> Result<Told> {
    let field =
        |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, v)| v.as_str());
    let either = |v4: &str, v6: &str| -> Result<String> {
        let Some(text) = field(v4).or(field(v6)) else { return Ok(String::new()) };
        Ok(text.parse::<IpAddr>().with_context(|| text.to_owned())?.to_string())
    };
    let number = |name: &str, absent: &str| field(name).unwrap_or(absent).to_owned();
    let icmp = field("icmpTypeCodeIPv4").or(field("icmpTypeCodeIPv6"));
    let icmp = icmp.map(|text| text.parse::<u16>()).transpose()?.map(u16::to_be_bytes);
    let port = |name: &str, index: usize| match icmp {
        Some(bytes) => bytes[index].to_string(),
        None => number(name, "0"),
    };
    Ok(Told::from([
        ("src", either("sourceIPv4Address", "sourceIPv6Address")?),
        ("dst", either("destinationIPv4Address", "destinationIPv6Address")?),
        ("sport", port("sourceTransportPort", 0)),
        ("dport", port("destinationTransportPort", 1)),
        ("protocol", number("protocolIdentifier", "")),
        ("first", moment(&number("flowStartMilliseconds", ""))),
        ("last", moment(&number("flowEndMilliseconds", ""))),
        ("packets", number("packetDeltaCount", "0")),
        ("bytes", number("octetDeltaCount", "0")),
        ("reply_packets", number("reversePacketDeltaCount", "0")),
        ("reply_bytes", number("reverseOctetDeltaCount", "0")),
        ("nat_src", either("postNATSourceIPv4Address", "postNATSourceIPv6Address")?),
        ("nat_dst", either("postNATDestinationIPv4Address", "postNATDestinationIPv6Address")?),
        ("nat_sport", number("postNAPTSourceTransportPort", "")),
        ("nat_dport", number("postNAPTDestinationTransportPort", "")),
        ("nat_event", number("natEvent", "")),
        ("event", number("firewallEvent", "")),
        ("reason", number("flowEndReason", "")),
    ]))
}
