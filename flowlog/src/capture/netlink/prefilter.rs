//! The filter as a classic BPF program on the event socket, so that events of
//! flows that nobody wants take no room in its queue and wake nobody. It is
//! allowed to let too much pass: NFCT applies the same filter again.

use std::net::IpAddr;

use crate::capture::filter::{Filter, Network};

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

const LD_IMM: u16 = 0x00;
const LDX_IMM: u16 = 0x01;
const LD_W_IND: u16 = 0x40;
const LD_B_IND: u16 = 0x50;
const LD_B_ABS: u16 = 0x30;
const LD_MEM: u16 = 0x60;
const ST: u16 = 0x02;
const AND_K: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;
const TAX: u16 = 0x07;

/// `SKF_AD_OFF + SKF_AD_NLATTR_NEST`: finds attribute X within the attribute
/// at A (include/uapi/linux/filter.h).
const FIND_NESTED: u32 = (-0x1000i32 + 16) as u32;
/// `SKF_AD_OFF + SKF_AD_NLATTR`: finds attribute X from A on.
const FIND: u32 = (-0x1000i32 + 12) as u32;

/// Offset of the subsystem in a message: the high byte of `nlmsg_type`.
const SUBSYSTEM: u32 = if cfg!(target_endian = "little") { 5 } else { 4 };
const SUBSYS_CONNTRACK: u32 = 1;
/// Offset of the attributes: after `nlmsghdr` and `nfgenmsg`.
const ATTRIBUTES: u32 = 20;
/// Length of an attribute's header.
const HEADER: u32 = 4;
/// Scratch slots: where the original tuple and its addresses stand.
const TUPLE: u32 = 0;
const ADDRESSES: u32 = 1;

/// One instruction; `struct sock_filter`.
pub(super) type Instruction = libc::sock_filter;

/// The program for `filter`; absent when it accepts everything, or would be
/// too long for the kernel.
pub(super) fn program(filter: &Filter) -> Option<Vec<Instruction>> {
    if *filter == Filter::default() {
        return None;
    }
    let mut program = Assembler::default();
    let (accept, drop) = (program.label(), program.label());
    program.op(LD_B_ABS, SUBSYSTEM);
    let conntrack = program.label();
    program.jump_if(SUBSYS_CONNTRACK, conntrack);
    program.jump(accept);
    program.place(conntrack);
    program.op(LD_IMM, ATTRIBUTES);
    program.find(FIND, 1, accept);
    program.op(ST, TUPLE);
    if !filter.protocols.is_empty() {
        protocols(&mut program, &filter.protocols, accept, drop);
    }
    networks(&mut program, &filter.sources, [1, 3], accept, drop);
    networks(&mut program, &filter.destinations, [2, 4], accept, drop);
    program.place(accept);
    program.op(RET_K, u32::MAX);
    program.place(drop);
    program.op(RET_K, 0);
    program.finish()
}

fn protocols(program: &mut Assembler, protocols: &[u8], accept: Label, drop: Label) {
    let next = program.label();
    program.op(LD_MEM, TUPLE);
    program.find(FIND_NESTED, 2, accept);
    program.find(FIND_NESTED, 1, accept);
    program.op(TAX, 0);
    program.op(LD_B_IND, HEADER);
    for protocol in protocols {
        program.jump_if(u32::from(*protocol), next);
    }
    program.jump(drop);
    program.place(next);
}

/// One list of networks; `kinds` are the attributes of the address for IPv4
/// and IPv6. A family that the list does not name passes.
fn networks(
    program: &mut Assembler,
    networks: &[Network],
    kinds: [u32; 2],
    accept: Label,
    drop: Label,
) {
    if networks.is_empty() {
        return;
    }
    let next = program.label();
    program.op(LD_MEM, TUPLE);
    program.find(FIND_NESTED, 1, accept);
    program.op(ST, ADDRESSES);
    for (kind, is_v4) in kinds.into_iter().zip([true, false]) {
        let other_family = program.label();
        program.op(LD_MEM, ADDRESSES);
        program.find(FIND_NESTED, kind, other_family);
        program.op(TAX, 0);
        let mut named = false;
        for network in networks.iter().filter(|network| network.address().is_ipv4() == is_v4) {
            named = true;
            compare(program, network, next);
        }
        program.jump(if named { drop } else { next });
        program.place(other_family);
    }
    program.jump(accept);
    program.place(next);
}

/// Jumps to `found` if the address at X + [`HEADER`] lies in `network`.
fn compare(program: &mut Assembler, network: &Network, found: Label) {
    let bytes = match network.address() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let differs = program.label();
    let mut bits = u32::from(network.length());
    for (offset, word) in (HEADER..).step_by(4).zip(bytes.as_chunks::<4>().0) {
        if bits == 0 {
            break;
        }
        let mask = u32::MAX << (32 - bits.min(32));
        program.op(LD_W_IND, offset);
        program.op(AND_K, mask);
        let same = program.label();
        program.jump_if(u32::from_be_bytes(*word) & mask, same);
        program.jump(differs);
        program.place(same);
        bits = bits.saturating_sub(32);
    }
    program.jump(found);
    program.place(differs);
}

/// A place in the program that is known later.
#[derive(Clone, Copy)]
struct Label(usize);

/// Instructions whose jumps name labels. Conditional jumps reach 255
/// instructions only, so each skips an unconditional one, which reaches all.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    places: Vec<usize>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn op(&mut self, code: u16, k: u32) {
        self.instructions.push(Instruction { code, jt: 0, jf: 0, k });
    }

    fn label(&mut self) -> Label {
        self.places.push(usize::MAX);
        Label(self.places.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.places[label.0] = self.instructions.len();
    }

    fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.op(JA, 0);
    }

    /// Jumps if A is `value`.
    fn jump_if(&mut self, value: u32, label: Label) {
        self.instructions.push(Instruction { code: JEQ_K, jt: 0, jf: 1, k: value });
        self.jump(label);
    }

    /// A becomes the offset of attribute `kind`, sought from or in A.
    fn find(&mut self, how: u32, kind: u32, absent: Label) {
        self.op(LDX_IMM, kind);
        self.op(LD_B_ABS, how);
        self.jump_if(0, absent);
    }

    fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, label) in self.jumps {
            // Jumps go forward only; they count from the next instruction.
            let distance = self.places[label.0].checked_sub(at + 1)?;
            self.instructions[at].k = u32::try_from(distance).ok()?;
        }
        (self.instructions.len() <= LONGEST).then_some(self.instructions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::capture::netlink::attr::{Attributes, Messages};
    use crate::capture::netlink::{Decoder, decode};
    use crate::capture::{Record, RecordSink};
    use crate::stats::Stats;

    const RECORDED: &[u8] = include_bytes!("../../../tests/data/mixed.nl");

    /// What the kernel does with a program, as far as it is used here.
    fn run(program: &[Instruction], message: &[u8]) -> bool {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        let mut memory = [0u32; 16];
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            match code {
                LD_IMM => a = k,
                LDX_IMM => x = k,
                TAX => x = a,
                ST => memory[k as usize] = a,
                LD_MEM => a = memory[k as usize],
                AND_K => a &= k,
                JA => at += k as usize,
                JEQ_K => at += usize::from(if a == k { jt } else { jf }),
                RET_K => return k != 0,
                LD_B_ABS if k == FIND => a = find(message, a as usize, message.len(), x),
                LD_B_ABS if k == FIND_NESTED => {
                    let start = a as usize;
                    let length = u16::from_ne_bytes([message[start], message[start + 1]]);
                    a = find(message, start + 4, start + usize::from(length), x);
                }
                LD_B_ABS => a = message[k as usize].into(),
                LD_B_IND => a = message[(x + k) as usize].into(),
                LD_W_IND => {
                    let at = (x + k) as usize;
                    a = u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
                }
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn find(message: &[u8], start: usize, end: usize, kind: u32) -> u32 {
        let mut attributes = Attributes::new(&message[start..end]);
        let found = attributes.find(|a| u32::from(a.as_ref().unwrap().kind) == kind);
        found.map_or(0, |found| {
            (found.unwrap().value.as_ptr() as usize - message.as_ptr() as usize - 4) as u32
        })
    }

    struct Accepted<'a>(&'a Filter, bool);

    impl RecordSink for Accepted<'_> {
        fn record(&mut self, record: Record<'_>) {
            if let Record::Event(event) = record {
                self.1 = self.0.accepts(&event.flow.orig);
            }
        }
    }

    fn agrees(filter: &Filter) {
        let Some(program) = program(filter) else { return };
        for message in Messages::new(RECORDED).flatten() {
            let mut accepted = Accepted(filter, true);
            Decoder::new(Stats::default()).messages(message.bytes, 0, &mut accepted);
            let is_flow = matches!(decode::kind(&message), decode::Kind::Flow(_));
            assert_eq!(run(&program, message.bytes), !is_flow || accepted.1, "{filter:?}");
        }
    }

    fn network() -> impl Strategy<Value = Network> {
        prop_oneof![
            (0u8..=32).prop_map(|length| format!("127.0.0.1/{length}")),
            (0u8..=128).prop_map(|length| format!("::1/{length}")),
            Just("127.0.0.2/32".to_owned()),
            Just("10.0.0.0/8".to_owned()),
            Just("fd00::/8".to_owned()),
        ]
        .prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        /// On every recorded message the program decides as the filter does.
        #[test]
        fn it_decides_as_the_filter_does(
            sources in prop::collection::vec(network(), 0..4),
            destinations in prop::collection::vec(network(), 0..4),
            protocols in prop::collection::vec(prop::sample::select(vec![1u8, 6, 17, 58, 132]), 0..3),
        ) {
            agrees(&Filter { sources, destinations, protocols });
        }
    }

    #[test]
    fn a_filter_that_is_too_long_is_left_to_user_space() {
        let sources = vec!["fd00::1/128".parse().unwrap(); 1000];
        assert!(program(&Filter { sources, ..Filter::default() }).is_none());
        assert!(program(&Filter::default()).is_none());
    }
}
