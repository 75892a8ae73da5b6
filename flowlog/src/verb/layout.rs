//! `flowlog layout` (hidden): where this kernel's conntrack has its fields, as
//! the eBPF programs are told. For tests, and for reports of kernels that
//! flowlog does not know.

use std::process::ExitCode;

use anyhow::Context as _;
use flowlog_ebpf::Layout;

use super::check::print;
use crate::capture::ebpf::btf::{DIRECTORY, KernelBtf};
use crate::capture::ebpf::layout::layout;

/// Prints a line for each field: its name and its place, 4294967295 where this
/// kernel has none.
///
/// # Errors
/// The kernel does not describe its types, or they are unknown ones.
pub fn run() -> anyhow::Result<ExitCode> {
    let btf = KernelBtf::open(DIRECTORY.as_ref())?;
    let layout = layout(&btf)?;
    let lines = lines(&layout).map(|(name, place)| format!("{name}={place}\n"));
    print(&lines.concat()).context("standard output cannot be written to")?;
    Ok(ExitCode::SUCCESS)
}

/// Each field by its name in [`Layout`].
fn lines(layout: &Layout) -> [(&'static str, u32); 37] {
    [
        ("entry_start", layout.entry_start),
        ("entry_size", layout.entry_size),
        ("timeout", layout.timeout),
        ("zone_id", layout.zone_id),
        ("zone_dir", layout.zone_dir),
        ("orig", layout.orig),
        ("reply", layout.reply),
        ("status", layout.status),
        ("net", layout.net),
        ("master", layout.master),
        ("mark", layout.mark),
        ("ext", layout.ext),
        ("tcp_state", layout.tcp_state),
        ("sctp_state", layout.sctp_state),
        ("dccp_state", layout.dccp_state),
        ("net_cookie", layout.net_cookie),
        ("net_inum", layout.net_inum),
        ("ext_offsets", layout.ext_offsets),
        ("ext_helper", layout.ext_helper),
        ("ext_acct", layout.ext_acct),
        ("ext_ecache", layout.ext_ecache),
        ("ext_tstamp", layout.ext_tstamp),
        ("ext_labels", layout.ext_labels),
        ("help_helper", layout.help_helper),
        ("helper_name", layout.helper_name),
        ("tstamp_start", layout.tstamp_start),
        ("tstamp_stop", layout.tstamp_stop),
        ("event_entry", layout.event_entry),
        ("event_portid", layout.event_portid),
        ("expect_tuple", layout.expect_tuple),
        ("expect_mask", layout.expect_mask),
        ("expect_master", layout.expect_master),
        ("expect_helper", layout.expect_helper),
        ("skb_nfct", layout.skb_nfct),
        ("skb_portid", layout.skb_portid),
        ("tcp_time_wait", layout.tcp_time_wait),
        ("tcp_close", layout.tcp_close),
    ]
}
