//! The layouts of Debian's kernels. Their BTF is megabytes large and not kept
//! here: `FLOWLOG_TEST_BTF` names a directory that has a folder for each series,
//! with what `/sys/kernel/btf` shows there (`vmlinux`, `nf_conntrack`,
//! `nf_conntrack_netlink`), or the `.BTF` sections of the same files:
//!
//! ```text
//! llvm-objcopy -O binary --only-section=.BTF --set-section-flags .BTF=alloc vmlinux 6.12/vmlinux
//! FLOWLOG_TEST_BTF=$PWD cargo test --package flowlog debian -- --ignored
//! ```

use std::fs;
use std::path::Path;

use super::super::btf::{Argument, BtfError};
use super::*;

/// Where things are in 6.1, 6.12 and 7.2.
const PLACES: [(&str, [u32; 3]); 37] = [
    ("entry_start", [8, 8, 8]),
    ("entry_size", [217, 217, 217]),
    ("nf_conn.timeout", [8, 8, 8]),
    ("nf_conn.zone.id", [12, 12, 12]),
    ("nf_conn.zone.dir", [15, 15, 15]),
    ("nf_conn.tuplehash[0].tuple", [32, 32, 32]),
    ("nf_conn.tuplehash[1].tuple", [88, 88, 88]),
    ("nf_conn.status", [128, 128, 128]),
    ("nf_conn.ct_net.net", [136, 136, 136]),
    ("nf_conn.master", [160, 160, 160]),
    ("nf_conn.mark", [168, 168, 168]),
    ("nf_conn.ext", [176, 176, 176]),
    ("nf_conn.proto.tcp.state", [224, 224, 224]),
    ("nf_conn.proto.sctp.state", [184, 184, 184]),
    ("nf_conn.proto.dccp.state", [186, 186, ABSENT]),
    ("net.net_cookie", [4032, 4224, 4608]),
    ("net.ns.inum", [144, 136, 280]),
    ("nf_ct_ext.offset", [0, 0, 0]),
    ("nf_ct_ext_id.NF_CT_EXT_HELPER", [0, 0, 0]),
    ("nf_ct_ext_id.NF_CT_EXT_ACCT", [3, 3, 3]),
    ("nf_ct_ext_id.NF_CT_EXT_ECACHE", [4, 4, 4]),
    ("nf_ct_ext_id.NF_CT_EXT_TSTAMP", [5, 5, 5]),
    ("nf_ct_ext_id.NF_CT_EXT_LABELS", [7, 7, 7]),
    ("nf_conn_help.helper", [0, 0, 0]),
    ("nf_conntrack_helper.name", [16, 16, 32]),
    ("nf_conn_tstamp.start", [0, 0, 0]),
    ("nf_conn_tstamp.stop", [8, 8, 8]),
    ("nf_ct_event.ct", [0, 0, 0]),
    ("nf_ct_event.portid", [8, 8, 8]),
    ("nf_conntrack_expect.tuple", [40, 40, 80]),
    ("nf_conntrack_expect.mask", [80, 80, 120]),
    ("nf_conntrack_expect.master", [144, 144, 184]),
    ("nf_conntrack_expect.helper", [128, 128, 168]),
    ("sk_buff._nfct", [104, 104, 104]),
    ("sk_buff.cb+netlink_skb_parms.portid", [52, 52, 52]),
    ("tcp_conntrack.TCP_CONNTRACK_TIME_WAIT", [7, 7, 7]),
    ("tcp_conntrack.TCP_CONNTRACK_CLOSE", [8, 8, 8]),
];

/// Opens the BTF of a series, as if the module were loaded.
fn open(series: &str) -> Result<KernelBtf, BtfError> {
    let directory = std::env::var_os("FLOWLOG_TEST_BTF").expect("FLOWLOG_TEST_BTF is not set");
    let modules = tempfile::tempdir().unwrap();
    fs::create_dir(modules.path().join("nf_conntrack")).unwrap();
    KernelBtf::open_with(&Path::new(&directory).join(series), modules.path())
}

#[test]
#[ignore = "needs the BTF of Debian's kernels: FLOWLOG_TEST_BTF, see the head of this file"]
fn everything_is_where_it_was_found_by_other_means() {
    for (column, series) in ["6.1", "6.12", "7.2"].into_iter().enumerate() {
        let layout = layout(&open(series).unwrap()).unwrap();
        let found: Vec<_> = describe(&layout).collect();
        let expected = PLACES.map(|(name, places)| (name, places[column]));
        assert_eq!(found, expected, "{series}");
    }
}

#[test]
#[ignore = "needs the BTF of Debian's kernels: FLOWLOG_TEST_BTF, see the head of this file"]
fn functions_are_known_by_their_module_and_number() {
    use Argument::{Integer, Pointer};
    let (conntrack, netlink) = (Some("nf_conntrack"), Some("nf_conntrack_netlink"));
    for series in ["6.1", "6.12", "7.2"] {
        let btf = open(series).unwrap();
        let function = |name| btf.function(name).map(|found| (found.module, found.arguments));
        let removed = function("__nf_ct_delete_from_lists");
        assert_eq!(removed, Some((conntrack, vec![Pointer])), "{series}");
        let changed = function("ctnetlink_conntrack_event");
        assert_eq!(changed, Some((netlink, vec![Integer, Pointer])), "{series}");
        let received = function("netlink_rcv_skb");
        assert_eq!(received, Some((None, vec![Pointer, Pointer])), "{series}");
        assert_eq!(function("nf_ct_delete_from_lists"), None, "{series}");
        assert_eq!(btf.size_of("nf_conn"), Some(248), "{series}");
    }
    // In a guest with 6.12.117, a program that was attached by this number was
    // listed by ftrace on this function.
    let removed = open("6.12").unwrap().function("__nf_ct_delete_from_lists");
    assert_eq!(removed.map(|found| found.type_id), Some(108_664));
}

#[test]
#[ignore = "needs the BTF of Debian's kernels: FLOWLOG_TEST_BTF, see the head of this file"]
fn modules_of_5_10_are_not_described() {
    let error = open("5.10").unwrap_err();
    assert!(matches!(error, BtfError::NoModuleBtf { .. }), "{error}");
}
