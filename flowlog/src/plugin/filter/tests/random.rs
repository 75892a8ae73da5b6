//! Expressions and events by chance, from few values, so that they meet.

use proptest::prelude::*;

use super::*;

pub(super) const ADDRESSES: [&str; 8] =
    ["10.0.0.1", "10.1.2.3", "172.16.5.5", "8.8.8.8", "127.0.0.1", "fd00::1", "2001:db8::1", "::1"];
const NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "8.0.0.0/7",
    "0.0.0.0/0",
    "fd00::/8",
    "2000::/3",
    "::1/128",
    "::/0",
];
const PORTS: [u16; 5] = [0, 22, 53, 443, 2048];
const PROTOCOLS: [u8; 8] = [1, 6, 17, 47, 50, 58, 132, 255];
const NAMES: [&str; 5] = ["icmp", "tcp", "udp", "gre", "sctp"];
const CAUSES: [&str; 3] = ["early_drop", "deleted", "lost"];

fn a_tuple() -> impl Strategy<Value = Tuple> {
    let place = || (prop::sample::select(&ADDRESSES[..]), prop::sample::select(&PORTS[..]));
    (place(), place(), prop::sample::select(&PROTOCOLS[..]))
        .prop_filter("one family", |(from, to, _)| from.0.contains(':') == to.0.contains(':'))
        .prop_map(|(from, to, proto)| tuple(proto, from, to))
}

fn a_flow() -> impl Strategy<Value = Made> {
    let counters = prop::option::of((0..3_u64, 0..200_u64));
    let cause = prop::option::of(prop::sample::select(&Cause::ALL[..]));
    let process = prop::option::of(prop::sample::select(&["curl", "conntrack"][..]));
    (a_tuple(), a_tuple(), counters, cause, process, 0..3_u32, 1..256_u32).prop_map(
        |(orig, other, counters, cause, process, mark, tag)| {
            // Translated, but of one protocol and family, as in the kernel.
            let same = other.family == orig.family;
            let other = Tuple { proto: orig.proto, ..other };
            let reply = if same { other } else { orig.inverse() };
            let counters = counters.map(|(packets, bytes)| [Counters { packets, bytes }; 2]);
            let how = cause.map(|cause| End {
                cause,
                portid: None,
                process: process.map(|comm| Process { pid: 1, comm: Comm::new(comm.as_bytes()) }),
            });
            let flow = Flow { orig, reply, counters, mark, ..Flow::default() };
            let tag = Kinds::from_bits_truncate(tag & !Kinds::EXPECT.bits()) | Kinds::NEW;
            Made::Flow(Box::new(flow), tag, how)
        },
    )
}

pub(super) fn event() -> impl Strategy<Value = Made> {
    let expected = (a_tuple(), a_tuple()).prop_map(|(tuple, master)| {
        Made::Expectation(Box::new(Expectation {
            action: ExpectAction::Update,
            tuple,
            master,
            zone: 0,
            helper: Some(HelperName::new(b"ftp")),
            netns: None,
        }))
    });
    prop_oneof![4 => a_flow(), 1 => expected]
}

/// An expression for us, and one for the crate's interpreter, which has the
/// fields in a map `e`, and fails where one is missing.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    pub(super) ours: String,
    pub(super) theirs: String,
}

/// The name of a field in the map.
pub(super) fn key(field: &str) -> String {
    field.replace('.', "_")
}

/// A test of these fields, which is false where one is missing.
fn atom(fields: &[&str], text: &str) -> Twin {
    let mut theirs = text.to_owned();
    let mut guard = String::new();
    for field in fields {
        let key = key(field);
        theirs = theirs.replace(field, &format!("e.{key}"));
        guard += &format!("has(e.{key}) && ");
    }
    Twin { ours: format!("({text})"), theirs: format!("({guard}{theirs})") }
}

fn of_numbers() -> impl Strategy<Value = Twin> {
    let fields =
        ["src.port", "dst.port", "reply.dport", "protocol.number", "mark", "bytes", "orig.type"];
    let operators = ["==", "!=", "<", "<=", ">", ">="];
    let number = prop_oneof![
        prop::sample::select(&PORTS[..]).prop_map(|port| port.to_string()),
        prop::sample::select(&PROTOCOLS[..]).prop_map(|number| number.to_string()),
        prop::sample::select(&["1.5", "-1", "17.0", "2u"][..]).prop_map(str::to_owned),
    ];
    (
        prop::sample::select(fields.to_vec()),
        prop::sample::select(operators.to_vec()),
        number,
        any::<bool>(),
    )
        .prop_map(|(field, operator, number, turned)| {
            let text = |operator: &str| {
                if turned {
                    format!("{number} {operator} {field}")
                } else {
                    format!("{field} {operator} {number}")
                }
            };
            if operator == "!=" {
                // The contrary of ==, also where there is nothing to compare.
                let equal = atom(&[field], &text("=="));
                return Twin {
                    ours: format!("({})", text("!=")),
                    theirs: format!("!{}", equal.theirs),
                };
            }
            atom(&[field], &text(operator))
        })
}

fn of_lists() -> impl Strategy<Value = Twin> {
    let few = |list: Vec<String>| prop::sample::subsequence(list.clone(), 0..=list.len().min(3));
    let texts = |list: &[&str]| list.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>();
    let ports: Vec<String> = PORTS.iter().map(u16::to_string).collect();
    let protocols: Vec<String> = PROTOCOLS.iter().map(u8::to_string).collect();
    prop_oneof![
        few(ports).prop_map(|list| ("dst.port", list)),
        few(protocols).prop_map(|list| ("protocol.number", list)),
        few(texts(&NAMES)).prop_map(|list| ("proto", list)),
        few(texts(&CAUSES)).prop_map(|list| ("cause", list)),
        few(texts(&ADDRESSES)).prop_map(|list| ("src.ip", list)),
        few(texts(&ADDRESSES)).prop_map(|list| ("dst.ip", list)),
    ]
    .prop_map(|(field, list)| atom(&[field], &format!("{field} in [{}]", list.join(", "))))
}

fn of_addresses() -> impl Strategy<Value = Twin> {
    let field = prop::sample::select(&["src.ip", "dst.ip", "reply.src", "master.dst"][..]);
    let test = prop_oneof![
        prop::sample::select(&NETWORKS[..]).prop_map(|net| format!(".in_net('{net}')")),
        prop::sample::select(&ADDRESSES[..]).prop_map(|address| format!(" == '{address}'")),
        prop::sample::select(&["is_private", "is_loopback", "is_multicast", "is_v6", "is_v4"][..])
            .prop_map(|name| format!(".{name}()")),
    ];
    (field, test).prop_map(|(field, test)| atom(&[field], &format!("{field}{test}")))
}

fn of_others() -> impl Strategy<Value = Twin> {
    let kind = prop::sample::select(&["new", "destroy", "gc", "expect"][..]);
    prop_oneof![
        prop::sample::select(&NAMES[..])
            .prop_map(|name| atom(&["proto"], &format!("proto == '{name}'"))),
        prop::sample::select(&CAUSES[..])
            .prop_map(|name| atom(&["cause"], &format!("'{name}' == cause"))),
        kind.prop_map(|kind| atom(&["kinds"], &format!("'{kind}' in kinds"))),
        prop::sample::select(&["startsWith", "endsWith", "contains"][..])
            .prop_map(|test| atom(&["process.comm"], &format!("process.comm.{test}('c')"))),
        prop::sample::select(&["cause", "dst.port", "bytes", "orig.code", "proto"][..]).prop_map(
            |field| Twin {
                ours: format!("has({field})"),
                theirs: format!("has(e.{})", key(field))
            }
        ),
        // These may have no answer.
        (0..3_u8)
            .prop_map(|limit| atom(&["bytes", "packets"], &format!("bytes / packets > {limit}"))),
        (0..3_u8)
            .prop_map(|limit| atom(&["mark", "dst.port"], &format!("dst.port % mark == {limit}"))),
        any::<bool>().prop_map(|answer| atom(&[], &answer.to_string())),
    ]
}

pub(super) fn expression() -> impl Strategy<Value = Twin> {
    let leaf = prop_oneof![of_numbers(), of_lists(), of_addresses(), of_others()];
    leaf.prop_recursive(4, 24, 2, |inner| {
        let two = |operator: &'static str| {
            move |(a, b): (Twin, Twin)| Twin {
                ours: format!("({} {operator} {})", a.ours, b.ours),
                theirs: format!("({} {operator} {})", a.theirs, b.theirs),
            }
        };
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            4 => pair().prop_map(two("&&")),
            3 => pair().prop_map(two("||")),
            1 => pair().prop_map(two("==")),
            1 => inner.clone().prop_map(|a| Twin {
                ours: format!("!({})", a.ours),
                theirs: format!("!({})", a.theirs),
            }),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| Twin {
                ours: format!("({} ? {} : {})", a.ours, b.ours, c.ours),
                theirs: format!("({} ? {} : {})", a.theirs, b.theirs, c.theirs),
            }),
        ]
    })
}
