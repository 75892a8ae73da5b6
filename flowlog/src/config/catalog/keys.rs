//! The keys of the source and of FILTER, each plugin's in the order in which
//! they are told.

use super::{Key, key};

pub(super) const NFCT: &[Key] = &[
    key(
        "event_mask",
        "integer, a sum",
        "0x00000005",
        "events to log: 0x01 new, 0x02 update, 0x04 destroy, 0x08 assured, 0x10 confirmed (seen \
         in both directions), 0x20 expectation, 0x40 helper, 0x80 destroyed by garbage \
         collection (which only eBPF tells)",
    ),
    key(
        "hash_enable",
        "switch",
        "1",
        "1: keep the live flows and log one line per flow at its end; 0: keep nothing and log \
         one line per event",
    ),
    key("hash_buckets", "integer", "8192", "accepted and ignored: the table grows by itself"),
    key(
        "hash_max_entries",
        "integer from 1 to 4294967295, flows",
        "32768",
        "live flows that are kept; the end of a flow beyond them is logged without its start",
    ),
    key(
        "pollinterval",
        "integer from 0 to 31622400, seconds",
        "0",
        "dump the table this often instead of listening to events; needs hash_enable=1; \
         0: listen to events",
    ),
    key(
        "netlink_socket_buffer_size",
        "integer from 0 to 1073741823, bytes",
        "0",
        "receive buffer at start; 0: a 64th of the memory, from 4 MiB to 64 MiB. The kernel accounts \
         twice as much, and takes memory only for events that wait",
    ),
    key(
        "netlink_socket_buffer_maxsize",
        "integer from 0 to 1073741823, bytes",
        "0",
        "how large the buffer may grow after an overrun; 0: four times as large as at start if \
         that is 0 too, else not at all",
    ),
    key(
        "netlink_resync_timeout",
        "integer from 0 to 31622400, seconds",
        "60",
        "from an overrun to the dump that finds what was missed (hash_enable=1)",
    ),
    key(
        "reliable",
        "switch",
        "0",
        "1: the kernel keeps and repeats DESTROY events that did not fit into the buffer; they \
         count against nf_conntrack_max meanwhile",
    ),
    key(
        "accept_src_filter",
        "list of NETWORK/LENGTH",
        "",
        "log only flows whose original source lies in one of these networks; a list of one \
         family lets the other pass",
    ),
    key(
        "accept_dst_filter",
        "list of NETWORK/LENGTH",
        "",
        "the same for the original destination, before NAT",
    ),
    key(
        "accept_proto_filter",
        "list of protocol names or numbers",
        "",
        "log only flows of these protocols, as named in /etc/protocols",
    ),
    key(
        "capture",
        "`auto`, `ebpf`, `netlink` or `both`",
        "auto",
        "where events come from; auto: eBPF where the kernel allows it, else netlink; both: \
         eBPF and netlink, compared event by event, each logged once. With pollinterval it is \
         netlink",
    ),
    key(
        "crosscheck_every",
        "time such as 10m; ms, s, m, h or d, a plain number is seconds",
        "0",
        "with capture=auto or ebpf: open netlink this often as well, and compare what both \
         tell; 0: never",
    ),
    key(
        "crosscheck_for",
        "time such as 5s",
        "5s",
        "how long netlink stays open then; shorter than crosscheck_every",
    ),
    key(
        "crosscheck_window_ms",
        "integer from 100 to 60000, milliseconds",
        "2000",
        "while sources are compared: how long an event waits for the other source to tell it too",
    ),
    key(
        "crosscheck_max_pending",
        "integer from 16 to 16777216, events",
        "262144",
        "while sources are compared: events that wait at most; further ones are logged unchecked",
    ),
    key(
        "attach",
        "`auto`, `kprobe` or `fentry`",
        "auto",
        "how eBPF is attached to the kernel's functions; auto: fentry, which costs less, where \
         the kernel allows it",
    ),
    key(
        "ring_buffer_size",
        "integer from 4096 to 1073741824, bytes",
        "16777216",
        "room for eBPF events that wait, locked in memory; rounded up to a power of two. An \
         event takes some 200 bytes",
    ),
    key(
        "netns",
        "`all`, `self`, a name of `ip netns` or a path",
        "",
        "the network namespaces to watch; self: flowlog's own. Empty: as \
         network_namespace_path says, else all with eBPF and self with netlink, which sees one \
         only",
    ),
    key(
        "network_namespace_path",
        "path",
        "",
        "the one network namespace to watch, such as /run/netns/NAME; empty: as netns says",
    ),
    key(
        "redump_interval",
        "integer from 0 to 31622400, seconds",
        "60",
        "while flows live that existed at start, dump the table this often to notice their end, \
         which the kernel may never report (hash_enable=1); 0: never",
    ),
    key(
        "set_sysctls",
        "switch",
        "0",
        "1: set nf_conntrack_acct, nf_conntrack_timestamp and nf_conntrack_events to 1 in the \
         namespace at start",
    ),
    key(
        "activate",
        "switch",
        "0",
        "1: make the kernel track connections in the namespace while flowlog runs, by a rule of \
         its own",
    ),
];

pub(super) const FILTER: &[Key] = &[key(
    "expr",
    "expression in CEL, in double quotes",
    "",
    "hand on events of which this is true, such as `dst.port in [80, 443] && \
     !src.ip.is_private()`; texts in it stand in single quotes. docs/filter.md has the fields and \
     functions",
)];
