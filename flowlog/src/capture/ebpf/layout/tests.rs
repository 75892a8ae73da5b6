use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::super::btf::writer::Writer;
use super::super::btf::{BtfError, DIRECTORY};
use super::*;

/// Name, type and offset in bytes.
type Members = Vec<(&'static str, u32, u32)>;

/// Changes the members of a structure, or the enumerators of an enumeration,
/// before it is written.
type Edit<'a> = &'a dyn Fn(&str, &mut Members);

/// A kernel with conntrack in it, whose types are as the fields need them and
/// nothing more.
struct Kernel<'a> {
    btf: Writer,
    edit: Edit<'a>,
}

impl Kernel<'_> {
    fn structure(&mut self, name: &str, bytes: u32, mut members: Members) -> u32 {
        (self.edit)(name, &mut members);
        let bits = members.iter().map(|(name, id, offset)| (*name, *id, 8 * *offset));
        self.btf.structure(name, bytes, &bits.collect::<Vec<_>>())
    }

    fn union(&mut self, name: &str, bytes: u32, members: &[(&'static str, u32)]) -> u32 {
        let members: Vec<_> = members.iter().map(|(name, id)| (*name, *id, 0)).collect();
        self.btf.union(name, bytes, &members)
    }

    fn enumeration(&mut self, name: &str, all: &[(&'static str, u32)]) {
        let mut all = all.iter().map(|(name, value)| (*name, *value, 0)).collect();
        (self.edit)(name, &mut all);
        let all: Vec<_> = all.iter().map(|(name, value, _)| (*name, *value as i32)).collect();
        self.btf.enumeration(name, &all);
    }

    fn tuples(&mut self, [byte, short, _, _, _]: [u32; 5]) -> [u32; 2] {
        let (address, bytes) = (self.btf.array(byte, 16), self.btf.array(byte, 4));
        let address = self.union("nf_inet_addr", 16, &[("all", address), ("ip", bytes)]);
        let icmp = self.structure("", 2, vec![("type", byte, 0), ("code", byte, 1)]);
        let port = self.union("", 2, &[("all", short), ("icmp", icmp)]);
        let src = vec![("u3", address, 0), ("u", port, 16), ("l3num", short, 18)];
        let src = self.structure("nf_conntrack_man", 20, src);
        let dst = vec![("u3", address, 0), ("u", port, 16), ("protonum", byte, 18)];
        let dst = self.structure("dst", 20, [dst, vec![("dir", byte, 19)]].concat());
        let tuple = vec![("src", src, 0), ("dst", dst, 20)];
        let src = self.structure("", 20, vec![("u3", address, 0), ("u", port, 16)]);
        let mask = self.structure("nf_conntrack_tuple_mask", 20, vec![("src", src, 0)]);
        [self.structure("nf_conntrack_tuple", 40, tuple), mask]
    }

    /// `lock`: bytes of a `spinlock_t`, which has pointers in it if it is longer
    /// than a word.
    fn entry(&mut self, [byte, short, int, long, pointer]: [u32; 5], tuple: u32, lock: u32) {
        let zone = self.structure("zone", 4, vec![("id", short, 0), ("dir", byte, 3)]);
        let hash = self.structure("hash", 56, vec![("tuple", tuple, 16)]);
        let hashes = self.btf.array(hash, 2);
        let net = self.structure("", 8, vec![("net", pointer, 0)]);
        let tcp = self.structure("tcp", 64, vec![("state", byte, 40)]);
        let sctp = self.structure("sctp", 12, vec![("state", int, 0)]);
        let dccp = self.structure("dccp", 16, vec![("state", byte, 2)]);
        let proto = self.union("proto", 64, &[("tcp", tcp), ("sctp", sctp), ("dccp", dccp)]);
        // A reference count of 4 bytes, the lock, and what follows.
        let behind = if lock == 4 { 8 } else { 8 + lock };
        let members = [
            ("timeout", int, 0),
            ("zone", zone, 4),
            ("tuplehash", hashes, 8),
            ("status", long, 120),
            ("ct_net", net, 128),
            ("master", pointer, 152),
            ("mark", int, 160),
            ("ext", pointer, 168),
            ("proto", proto, 176),
        ];
        let members = members.map(|(name, id, place)| (name, id, behind + place));
        self.structure("nf_conn", behind + 240, members.into());
    }

    fn extensions(&mut self, [byte, _, _, long, pointer]: [u32; 5]) {
        let offsets = self.btf.array(byte, 10);
        self.structure("nf_ct_ext", 12, vec![("offset", offsets, 0), ("len", byte, 10)]);
        // As without NAT: one less than usual.
        let ids = [("NF_CT_EXT_HELPER", 0), ("NF_CT_EXT_ACCT", 2), ("NF_CT_EXT_ECACHE", 3)];
        let more = [("NF_CT_EXT_TSTAMP", 4), ("NF_CT_EXT_LABELS", 6)];
        self.enumeration("nf_ct_ext_id", &[ids.as_slice(), &more].concat());
        let counter = self.structure("counter", 16, vec![("packets", long, 0), ("bytes", long, 8)]);
        let counters = self.btf.array(counter, 2);
        self.structure("nf_conn_acct", 32, vec![("counter", counters, 0)]);
        self.structure("nf_conn_tstamp", 16, vec![("start", long, 0), ("stop", long, 8)]);
        let bits = self.btf.array(long, 2);
        self.structure("nf_conn_labels", 16, vec![("bits", bits, 0)]);
        self.structure("nf_conn_help", 16, vec![("helper", pointer, 0)]);
        let name = self.btf.array(byte, 16);
        self.structure("nf_conntrack_helper", 64, vec![("name", name, 32)]);
    }

    fn others(&mut self, [byte, _, int, long, pointer]: [u32; 5], [tuple, mask]: [u32; 2]) {
        let ns = self.structure("ns_common", 24, vec![("inum", int, 16)]);
        self.structure("net", 4096, vec![("ns", ns, 120), ("net_cookie", long, 4000)]);
        self.structure("nf_ct_event", 16, vec![("ct", pointer, 0), ("portid", int, 8)]);
        let expectation = vec![("tuple", tuple, 40), ("mask", mask, 80), ("helper", pointer, 128)];
        let expectation = [expectation, vec![("master", pointer, 144)]].concat();
        self.structure("nf_conntrack_expect", 160, expectation);
        let cb = self.btf.array(byte, 48);
        self.structure("sk_buff", 232, vec![("cb", cb, 40), ("_nfct", long, 104)]);
        self.structure("netlink_skb_parms", 48, vec![("portid", int, 12)]);
        let states = [("TCP_CONNTRACK_TIME_WAIT", 7), ("TCP_CONNTRACK_CLOSE", 8)];
        self.enumeration("tcp_conntrack", &states);
    }
}

/// The layout of a kernel that was edited.
fn layout_with(edit: Edit<'_>) -> Result<Layout, LayoutError> {
    layout_of(edit, 4)
}

/// As [`layout_with`], with a `spinlock_t` of so many bytes.
fn layout_of(edit: Edit<'_>, lock: u32) -> Result<Layout, LayoutError> {
    let mut kernel = Kernel { btf: Writer::new(), edit };
    let ints = [("unsigned char", 1), ("short", 2), ("int", 4), ("long", 8)];
    let [byte, short, int, long] = ints.map(|(name, bytes)| kernel.btf.int(name, bytes));
    let scalars = [byte, short, int, long, kernel.btf.pointer(0)];
    let tuples = kernel.tuples(scalars);
    kernel.entry(scalars, tuples[0], lock);
    kernel.extensions(scalars);
    kernel.others(scalars, tuples);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("vmlinux"), kernel.btf.finish()).unwrap();
    layout(&KernelBtf::open(directory.path()).unwrap())
}

/// As [`layout_with`], without a member or an enumerator.
fn layout_without(structure: &str, member: &str) -> Result<Layout, LayoutError> {
    layout_with(&|name, members| {
        members.retain(|(called, ..)| name != structure || *called != member);
    })
}

/// As [`layout_with`], with a member at another place.
fn layout_moved(structure: &str, member: &str, place: u32) -> Result<Layout, LayoutError> {
    layout_with(&|name, members| {
        let found = members.iter_mut().find(|(called, ..)| name == structure && *called == member);
        found.into_iter().for_each(|(_, _, offset)| *offset = place);
    })
}

/// The names of what a kernel does not have.
fn absent(layout: &Layout) -> Vec<&'static str> {
    describe(layout).filter(|(_, value)| *value == ABSENT).map(|(name, _)| name).collect()
}

/// The value of that name.
fn value(layout: &Layout, name: &str) -> u32 {
    describe(layout).find(|(called, _)| *called == name).unwrap().1
}

#[test]
fn each_field_has_one_row_of_its_own() {
    let mut layout = Layout::zeroed();
    for (number, row) in (1..).zip(&FIELDS) {
        *(row.slot)(&mut layout) = number;
    }
    (layout.entry_start, layout.entry_size) = (ABSENT, ABSENT);
    let values: Vec<_> = describe(&layout).map(|(_, value)| value).collect();
    let expected: Vec<_> = [ABSENT; 2].into_iter().chain(1..=35).collect();
    assert_eq!(values, expected, "no two rows share a field");
    assert_eq!(values.len() * 4, size_of::<Layout>(), "no field is without a row");
    let names: HashSet<_> = describe(&layout).map(|(name, _)| name).collect();
    assert_eq!(names.len(), values.len());
}

#[test]
fn everything_is_found_where_it_is() {
    let layout = layout_with(&|_, _| ()).unwrap();
    assert_eq!(absent(&layout), [""; 0]);
    let expected = [
        ("entry_start", 8),
        ("entry_size", 217),
        ("nf_conn.zone.dir", 15),
        ("nf_conn.tuplehash[0].tuple", 32),
        ("nf_conn.tuplehash[1].tuple", 88),
        ("nf_conn.proto.tcp.state", 224),
        ("nf_conn.proto.dccp.state", 186),
        ("net.net_cookie", 4000),
        ("net.ns.inum", 136),
        ("nf_ct_ext_id.NF_CT_EXT_ACCT", 2),
        ("nf_ct_ext_id.NF_CT_EXT_ECACHE", 3),
        ("nf_conntrack_helper.name", 32),
        ("sk_buff.cb+netlink_skb_parms.portid", 52),
        ("tcp_conntrack.TCP_CONNTRACK_CLOSE", 8),
    ];
    for (name, number) in expected {
        assert_eq!(value(&layout, name), number, "{name}");
    }
    assert_eq!((layout.reply, layout.skb_portid, layout.ext_labels), (88, 52, 6));
}

#[test]
fn what_some_kernels_lack_is_absent_as_a_whole() {
    let zones = ["nf_conn.zone.id", "nf_conn.zone.dir"];
    assert_eq!(absent(&layout_without("nf_conn", "zone").unwrap()), zones);
    assert_eq!(absent(&layout_without("nf_conn", "mark").unwrap()), ["nf_conn.mark"]);
    assert_eq!(absent(&layout_without("net", "net_cookie").unwrap()), ["net.net_cookie"]);
    let times = ["nf_ct_ext_id.NF_CT_EXT_TSTAMP", "nf_conn_tstamp.start", "nf_conn_tstamp.stop"];
    assert_eq!(absent(&layout_without("nf_ct_ext_id", "NF_CT_EXT_TSTAMP").unwrap()), times);
    assert_eq!(absent(&layout_without("nf_conn_tstamp", "stop").unwrap()), times);
    let events = ["nf_ct_ext_id.NF_CT_EXT_ECACHE", "nf_ct_event.ct", "nf_ct_event.portid"];
    assert_eq!(absent(&layout_without("nf_ct_ext_id", "NF_CT_EXT_ECACHE").unwrap()), events);
    let labels = ["nf_ct_ext_id.NF_CT_EXT_LABELS"];
    assert_eq!(absent(&layout_without("nf_conn_labels", "bits").unwrap()), labels);
    let expectations = absent(&layout_without("nf_conntrack_tuple_mask", "src").unwrap());
    assert_eq!(expectations.len(), 4, "{expectations:?}");
}

#[test]
fn what_all_kernels_have_is_missed_by_name() {
    let cases = [
        ("nf_conn", "status", "nf_conn.status"),
        ("tcp", "state", "nf_conn.proto.tcp.state"),
        ("ns_common", "inum", "net.ns.inum"),
        ("nf_ct_ext_id", "NF_CT_EXT_ACCT", "nf_ct_ext_id.NF_CT_EXT_ACCT"),
        ("sk_buff", "_nfct", "sk_buff._nfct"),
        ("counter", "bytes", "nf_conn_acct.counter[0].bytes"),
    ];
    for (structure, member, field) in cases {
        let error = layout_without(structure, member).unwrap_err();
        assert_eq!(error, LayoutError::Missing { field });
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn what_the_programs_take_for_granted_is_compared() {
    let error = layout_moved("dst", "dir", 18).unwrap_err();
    let field = "nf_conntrack_tuple.dst.dir";
    assert_eq!(error, LayoutError::Place { field, found: 38, expected: 39 });
    let error = layout_moved("counter", "bytes", 0).unwrap_err();
    let field = "nf_conn_acct.counter[0].bytes";
    assert_eq!(error, LayoutError::Place { field, found: 0, expected: 8 });
}

#[test]
fn a_field_that_grew_is_refused_even_if_some_kernels_lack_it() {
    let error = layout_with(&|name, members| {
        let long = members.iter().find(|(called, ..)| *called == "status").map(|found| found.1);
        let mark = members.iter_mut().find(|(called, ..)| name == "nf_conn" && *called == "mark");
        mark.into_iter().zip(long).for_each(|((_, id, _), long)| *id = long);
    });
    let error = error.unwrap_err();
    assert_eq!(error, LayoutError::Size { field: "nf_conn.mark", found: 8, expected: 4 });
}

#[test]
fn fields_lie_within_what_is_copied() {
    let layout = layout_moved("tcp", "state", 63).unwrap();
    assert_eq!((layout.entry_start, layout.entry_size as usize), (8, ENTRY_MAX));
    let error = layout_moved("tcp", "state", 64).unwrap_err();
    let field = "nf_conn.proto.tcp.state";
    assert_eq!(error, LayoutError::TooFar { field, end: 249, start: 8 });
}

/// PREEMPT_RT has an `rt_mutex` in each `spinlock_t`, lockdep a `lockdep_map`;
/// both with the debugging fields of either.
#[test]
fn a_larger_lock_in_front_moves_the_piece_and_no_more() {
    for (lock, start) in [(4, 8), (32, 40), (64, 72), (72, 80), (152, 160)] {
        let layout = layout_of(&|_, _| (), lock).unwrap();
        assert_eq!((layout.entry_start, layout.entry_size), (start, 217), "{lock} bytes");
        assert_eq!((layout.timeout, layout.orig), (start, start + 24));
        assert_eq!(layout.tcp_state, start + 216);
    }
}

#[test]
fn the_piece_begins_at_a_word() {
    let without = |name: &str, members: &mut Members| {
        members.retain(|(called, ..)| name != "nf_conn" || *called != "zone");
        let timeout = members.iter_mut().find(|(called, ..)| *called == "timeout");
        timeout.into_iter().for_each(|(_, _, place)| *place = 12);
    };
    let layout = layout_with(&without).unwrap();
    assert_eq!((layout.timeout, layout.entry_start, layout.entry_size), (12, 8, 217));
}

/// The programs copy them in words.
#[test]
fn a_field_that_is_not_aligned_is_refused() {
    for (member, found, field, align) in [
        ("tuplehash", 20, "nf_conn.tuplehash[0].tuple", 8),
        ("status", 132, "nf_conn.status", 8),
        ("mark", 170, "nf_conn.mark", 4),
    ] {
        let error = layout_moved("nf_conn", member, found).unwrap_err();
        let found = if member == "tuplehash" { found + 16 } else { found };
        assert_eq!(error, LayoutError::Alignment { field, found, align });
    }
}

#[test]
fn this_kernel_is_known_if_it_describes_its_types() {
    match KernelBtf::open(Path::new(DIRECTORY)) {
        Ok(btf) => {
            let layout = layout(&btf).unwrap();
            assert!(layout.entry_size > layout.reply && layout.tcp_close == 8, "{layout:?}");
        }
        // Not every machine that builds this has conntrack, or describes it.
        Err(
            error @ (BtfError::NoBtf { .. } | BtfError::NotLoaded | BtfError::NoModuleBtf { .. }),
        ) => println!("not tested: {error}"),
        Err(error) => panic!("{error}"),
    }
}
