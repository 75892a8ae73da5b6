//! The kernel programs: maps, settings, licence.
//!
//! | module | its one job |
//! |---|---|
//! | `hooks` | one small function per hook, for kprobes and for fentry |
//! | `flow` | an entry of the table → a record |
//! | `expect` | an expectation → a record |
//! | `activity` | which rare functions the current task is in |
//! | `pending` | a call that is under way, for hooks at the end of a function |
//! | `filter` | what is not wanted |
//! | `notice` | a netlink message that is due → a record, and a count of it |
//! | `trace` | what a connection lives through, and where → a record |
//! | `trace_hooks` | as `hooks`, for programs that only a trace attaches |
//! | `emit` | records into the ring, and what is counted |
//! | `kernel` | the only reads of the kernel's memory |
#![no_std]
#![no_main]
// Already part of the toolchain that builds for this target.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod activity;
mod emit;
mod expect;
mod filter;
mod flow;
mod hooks;
mod kernel;
mod notice;
mod pending;
mod trace;
mod trace_hooks;

use flowlog_ebpf::{Layout, Settings};

/// What the daemon wants; it writes this before the programs are loaded, and
/// the verifier then knows every field as a constant.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    layout: Layout {
        entry_start: 0,
        entry_size: 0,
        timeout: 0,
        zone_id: 0,
        zone_dir: 0,
        orig: 0,
        reply: 0,
        status: 0,
        net: 0,
        master: 0,
        mark: 0,
        ext: 0,
        tcp_state: 0,
        sctp_state: 0,
        dccp_state: 0,
        net_cookie: 0,
        net_inum: 0,
        ext_offsets: 0,
        ext_helper: 0,
        ext_acct: 0,
        ext_ecache: 0,
        ext_tstamp: 0,
        ext_labels: 0,
        help_helper: 0,
        helper_name: 0,
        tstamp_start: 0,
        tstamp_stop: 0,
        event_entry: 0,
        event_portid: 0,
        expect_tuple: 0,
        expect_mask: 0,
        expect_master: 0,
        expect_helper: 0,
        skb_nfct: 0,
        skb_portid: 0,
        tcp_time_wait: 0,
        tcp_close: 0,
    },
    netns: 0,
    counted_netns: 0,
    filters: 0,
    kinds: 0,
    updates: 0,
    protocols: [0; 8],
};

/// bpf_probe_read_kernel is for programs under a licence compatible with the
/// kernel's; "Dual MIT/GPL" is one of the words that the kernel knows for it
/// (include/linux/license.h, 6.12).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here panics; if something could, the verifier would refuse the loop.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
